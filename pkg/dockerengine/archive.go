package dockerengine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	v1spec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is an image as docker load takes it: an OCI layout for the engines that know it, and manifest.json for those
// that do not, over the same blobs. See https://github.com/opencontainers/image-spec/blob/main/image-layout.md and
// https://github.com/moby/docker-image-spec/blob/main/spec.md.
type archive struct {
	manifest, config v1.Hash
	files            []file
	total            int64 // bytes of all files
	zstd             bool  // some layer is compressed so
}

// file is one entry of the archive.
type file struct {
	name  string
	size  int64
	hash  v1.Hash
	small []byte   // the whole of it, or
	layer v1.Layer // where it is read from
}

// The names under which a layout's index says what an image is called: containerd's for the whole name, OCI's for the tag.
const (
	containerdName = "io.containerd.image.name"
	ociName        = v1spec.AnnotationRefName
)

// newArchive describes the archive of an image. It reads the manifest and the config, and no layer.
func newArchive(name reference.NamedTagged, img v1.Image) (*archive, error) {
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
	mediaType, err := img.MediaType()
	if err != nil {
		return nil, fmt.Errorf("read the image's manifest: %w", err)
	}

	index := v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: mediaType, Size: int64(len(raw)), Digest: a.manifest,
			Annotations: map[string]string{containerdName: name.String(), ociName: name.Tag()},
		}},
	}
	old := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(a.config), RepoTags: []string{reference.FamiliarString(name)}, Layers: []string{}}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read the image's layers: %w", err)
	}
	if len(layers) != len(manifest.Layers) {
		return nil, fmt.Errorf("the image has %d layers and its manifest %d", len(layers), len(manifest.Layers))
	}
	seen := map[v1.Hash]bool{} // equal layers are one blob
	var blobs []file
	for i, layer := range layers {
		hash, size := manifest.Layers[i].Digest, manifest.Layers[i].Size
		if err := digest.Digest(hash.String()).Validate(); err != nil {
			return nil, fmt.Errorf("layer %s: %w", hash, err)
		}
		a.zstd = a.zstd || strings.HasSuffix(string(manifest.Layers[i].MediaType), "zstd")
		old.Layers = append(old.Layers, blobPath(hash))
		if !seen[hash] {
			seen[hash] = true
			blobs = append(blobs, file{name: blobPath(hash), size: size, hash: hash, layer: layer})
		}
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
		a.files = append(a.files, file{name: known.name, size: int64(len(content)), hash: hash, small: content})
	}
	a.files = append(a.files, blobs...)
	for _, f := range a.files {
		a.total += f.size
	}
	return a, nil
}

func blobPath(hash v1.Hash) string { return path.Join("blobs", hash.Algorithm, hash.Hex) }

// write streams the archive. Every blob is checked against its digest as it passes: an archive with a wrong one breaks
// off before its end, so that no engine takes it for an image.
func (a *archive) write(ctx context.Context, to io.Writer, watch *watch, progress func(done, total int64)) error {
	out := tar.NewWriter(to)
	copier := &copier{buffer: make([]byte, 256<<10), watch: watch, progress: progress, total: a.total}
	for _, f := range a.files {
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

// copier copies blobs and counts what it copied.
type copier struct {
	buffer      []byte
	watch       *watch
	progress    func(done, total int64)
	done, total int64
}

func (c *copier) file(ctx context.Context, out io.Writer, f file) error {
	from := io.NopCloser(bytes.NewReader(f.small))
	if f.layer != nil {
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
		if c.done += int64(n); c.progress != nil && n > 0 {
			c.progress(c.done, c.total)
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
