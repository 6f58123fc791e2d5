package dockerengine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	v1spec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is an image as docker load takes it: an OCI layout for the engines that know it, and manifest.json for those
// that do not, over the same blobs. See https://github.com/opencontainers/image-spec/blob/main/image-layout.md and
// https://github.com/moby/docker-image-spec/blob/main/spec.md. It names the image nothing: the engine knows it by its id
// until it is whole.
type archive struct {
	manifest, config v1.Hash
	mediaType        types.MediaType // of the manifest
	diffIDs          []v1.Hash       // of the layers, from the lowest
	digests          []v1.Hash       // likewise; equal layers are one blob
	small            []file          // manifest, config, and what says that this is an image
	layers           []file
}

// file is one entry of the archive.
type file struct {
	name  string
	size  int64
	hash  v1.Hash
	small []byte   // the whole of it, or
	layer v1.Layer // where it is read from
	zstd  bool     // it is compressed so
}

// newArchive describes the archive of an image. It reads the manifest and the config, and no layer.
func newArchive(img v1.Image) (*archive, error) {
	raw, err := img.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("read the image's manifest: %w", err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read the image's manifest: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's config: %w", err)
	}
	a := &archive{config: manifest.Config.Digest}
	if a.manifest, err = img.Digest(); err != nil {
		return nil, fmt.Errorf("read the image's manifest: %w", err)
	}
	if a.mediaType, err = img.MediaType(); err != nil {
		return nil, fmt.Errorf("read the image's manifest: %w", err)
	}

	index := v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: a.mediaType, Size: int64(len(raw)), Digest: a.manifest,
		}},
	}
	old := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(a.config), Layers: []string{}}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read the image's layers: %w", err)
	}
	if len(layers) != len(manifest.Layers) {
		return nil, fmt.Errorf("the image has %d layers and its manifest %d", len(layers), len(manifest.Layers))
	}
	parsed, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return nil, fmt.Errorf("read the image's config: %w", err)
	}
	if a.diffIDs = parsed.RootFS.DiffIDs; len(a.diffIDs) != len(layers) {
		return nil, fmt.Errorf("the image has %d layers and its config %d", len(layers), len(a.diffIDs))
	}
	for i, layer := range layers {
		hash, size := manifest.Layers[i].Digest, manifest.Layers[i].Size
		if err := digest.Digest(hash.String()).Validate(); err != nil {
			return nil, fmt.Errorf("layer %s: %w", hash, err)
		}
		old.Layers = append(old.Layers, blobPath(hash))
		if !slices.Contains(a.digests, hash) {
			zstd := strings.HasSuffix(string(manifest.Layers[i].MediaType), "zstd")
			a.layers = append(a.layers, file{name: blobPath(hash), size: size, hash: hash, layer: layer, zstd: zstd})
		}
		a.digests = append(a.digests, hash)
	}

	for _, known := range []struct {
		name    string
		content any
	}{
		{v1spec.ImageLayoutFile, v1spec.ImageLayout{Version: v1spec.ImageLayoutVersion}},
		{v1spec.ImageIndexFile, index},
		{"manifest.json", []any{old}},
		{blobPath(a.manifest), json.RawMessage(raw)},
		{blobPath(a.config), json.RawMessage(config)},
	} {
		content, ok := known.content.(json.RawMessage) // these bytes, and no others
		if !ok {
			if content, err = json.Marshal(known.content); err != nil {
				return nil, err
			}
		}
		hash := v1.Hash{Algorithm: "sha256", Hex: digest.FromBytes(content).Encoded()}
		if ok && blobPath(hash) != known.name {
			return nil, fmt.Errorf("%s is not what its digest says", known.name)
		}
		a.small = append(a.small, file{name: known.name, size: int64(len(content)), hash: hash, small: content})
	}
	return a, nil
}

func blobPath(hash v1.Hash) string { return path.Join("blobs", hash.Algorithm, hash.Hex) }

// without are the layers to send to an engine that holds some.
func (a *archive) without(held map[v1.Hash]bool) (missing []file) {
	for _, f := range a.layers {
		if !held[f.hash] {
			missing = append(missing, f)
		}
	}
	return missing
}

// write streams the archive with these of its layers. Every blob is checked against its digest as it passes: an archive with a
// wrong one breaks off before its end, so that no engine takes it for an image.
func (a *archive) write(ctx context.Context, to io.Writer, layers []file, watch *watch, progress func(Layer)) error {
	out := tar.NewWriter(to)
	copier := &copier{buffer: make([]byte, 256<<10), watch: watch, count: len(layers), progress: progress}
	for _, f := range slices.Concat(a.small, layers) {
		header := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: f.size, Format: tar.FormatPAX}
		watch.alive(theEngine)
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if err := copier.file(ctx, out, f); err != nil {
			return err
		}
	}
	watch.alive(theEngine)
	return out.Close()
}

// Layer is how far a load has come with one layer.
type Layer struct {
	Number, Count int // which of how many that are sent, from 1
	Digest        string
	Sent, Size    int64         // bytes, compressed as the image has them
	Took          time.Duration // since the layer's beginning
}

// String is the layer in one line, with the rate in megabytes (of 10^6 bytes) a second.
func (l Layer) String() string {
	text := fmt.Sprintf("layer %d of %d, %.19s: ", l.Number, l.Count, l.Digest)
	if l.Sent < l.Size {
		text += units.HumanSize(float64(l.Sent)) + " of "
	}
	text += units.HumanSize(float64(l.Size)) + " in " + l.Took.Round(10*time.Millisecond).String()
	if seconds := l.Took.Seconds(); seconds >= 0.1 {
		text += fmt.Sprintf(", %.1f MB/s", float64(l.Sent)/1e6/seconds)
	}
	return text
}

// copier copies files and tells how far it is.
type copier struct {
	buffer        []byte
	watch         *watch
	number, count int
	progress      func(Layer) // nil: nobody wants to know
}

func (c *copier) file(ctx context.Context, out io.Writer, f file) error {
	from, began := io.NopCloser(bytes.NewReader(f.small)), time.Now()
	if f.layer != nil {
		c.number++
		c.watch.alive(theSource)
		var err error
		if from, err = f.layer.Compressed(); err != nil {
			return fmt.Errorf("read layer %s: %w", f.hash, err)
		}
	}
	// A source that is stuck lets go when it is closed.
	defer context.AfterFunc(ctx, func() { from.Close() })()
	defer from.Close()

	verifier := digest.Digest(f.hash.String()).Verifier()
	size := int64(0)
	for {
		c.watch.alive(theSource)
		n, err := from.Read(c.buffer)
		if size += int64(n); size > f.size {
			return fmt.Errorf("layer %s is longer than the %d bytes of its manifest", f.hash, f.size)
		}
		_, _ = verifier.Write(c.buffer[:n]) // a hash's Write never fails
		c.watch.alive(theEngine)
		if _, err := out.Write(c.buffer[:n]); err != nil {
			return err
		}
		if f.layer != nil && c.progress != nil && n > 0 {
			c.progress(Layer{c.number, c.count, f.hash.String(), size, f.size, time.Since(began)})
		}
		switch {
		case err == io.EOF && size < f.size:
			return fmt.Errorf("layer %s ends after %d of %d bytes", f.hash, size, f.size)
		case err == io.EOF && !verifier.Verified():
			return fmt.Errorf("layer %s is not what its digest says", f.hash)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read layer %s: %w", f.hash, err)
		}
	}
}
