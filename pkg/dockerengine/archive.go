package dockerengine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	v1spec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is an image in the format of docker load: an OCI layout, and manifest.json for engines without support for
// OCI layouts, with the same blobs. See
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md and
// https://github.com/moby/docker-image-spec/blob/main/spec.md. It contains no name, because the image is tagged
// only when it is complete. An archive with unpacked layers is not an OCI layout, because the manifest refers to the
// compressed ones.
type archive struct {
	manifest, config v1.Hash
	mediaType        types.MediaType // of the manifest
	diffIDs          []v1.Hash       // of the layers, from the lowest
	digests          []v1.Hash       // of the layers, from the lowest; equal layers share a blob
	paths            []string        // in the archive, of the layers from the lowest
	metadata         []file          // manifest, config, and the files of the layout
	layers           []file          // distinct layers
}

// file is one entry of the archive.
type file struct {
	name  string
	size  int64
	hash  v1.Hash
	data  []byte   // the content, unless layer or unpacked is set
	layer v1.Layer // source of the content

	unpack   bool     // whether the archive contains the content without its compression, zstd
	diffID   v1.Hash  // of the layer
	unpacked *os.File // source of the content of an unpacked layer
}

// newArchive creates the archive of an image. It reads the manifest and the config, but no layers. If the engine cannot
// read zstd, the archive contains unpacked layers instead.
func newArchive(img v1.Image, readsZstd bool) (*archive, error) {
	raw, err := img.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("read the image's manifest: %w", err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse the image's manifest: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's config: %w", err)
	}
	a := &archive{config: manifest.Config.Digest}
	if a.manifest, err = img.Digest(); err != nil {
		return nil, fmt.Errorf("read the image's digest: %w", err)
	}
	if a.mediaType, err = img.MediaType(); err != nil {
		return nil, fmt.Errorf("read the image's media type: %w", err)
	}
	if err := a.addLayers(img, manifest, config, readsZstd); err != nil {
		return nil, err
	}
	return a, a.addMetadata(raw, config)
}

func (a *archive) addLayers(img v1.Image, manifest *v1.Manifest, config []byte, readsZstd bool) error {
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("read the image's layers: %w", err)
	}
	if len(layers) != len(manifest.Layers) {
		return fmt.Errorf("invalid image: got %d layers, but the manifest has %d", len(layers), len(manifest.Layers))
	}
	parsed, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return fmt.Errorf("parse the image's config: %w", err)
	}
	if a.diffIDs = parsed.RootFS.DiffIDs; len(a.diffIDs) != len(layers) {
		return fmt.Errorf("invalid image: got %d layers, but the config has %d", len(layers), len(a.diffIDs))
	}
	for i, layer := range layers {
		descriptor := manifest.Layers[i]
		hash := descriptor.Digest
		if err := digest.Digest(hash.String()).Validate(); err != nil {
			return fmt.Errorf("layer %s: %w", hash, err)
		}
		f := file{name: blobPath(hash), size: descriptor.Size, hash: hash, layer: layer, diffID: a.diffIDs[i]}
		if f.unpack = !readsZstd && strings.HasSuffix(string(descriptor.MediaType), "zstd"); f.unpack {
			f.name = blobPath(f.diffID)
		}
		if !slices.Contains(a.digests, hash) {
			a.layers = append(a.layers, f)
		}
		a.digests, a.paths = append(a.digests, hash), append(a.paths, f.name)
	}
	return nil
}

func (a *archive) addMetadata(manifest, config []byte) error {
	index := v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{MediaType: a.mediaType, Size: int64(len(manifest)), Digest: a.manifest}},
	}
	dockerManifest := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(a.config), Layers: append([]string{}, a.paths...)} // not null
	for _, entry := range []struct {
		name    string
		content any // json.RawMessage is written unchanged
	}{
		{v1spec.ImageLayoutFile, v1spec.ImageLayout{Version: v1spec.ImageLayoutVersion}},
		{v1spec.ImageIndexFile, index},
		{"manifest.json", []any{dockerManifest}},
		{blobPath(a.manifest), json.RawMessage(manifest)},
		{blobPath(a.config), json.RawMessage(config)},
	} {
		data, isBlob := entry.content.(json.RawMessage)
		if !isBlob {
			var err error
			if data, err = json.Marshal(entry.content); err != nil {
				return err
			}
		}
		hash := v1.Hash{Algorithm: "sha256", Hex: digest.FromBytes(data).Encoded()}
		if isBlob && blobPath(hash) != entry.name {
			return fmt.Errorf("digest mismatch: the content of %s is %s", entry.name, hash)
		}
		a.metadata = append(a.metadata, file{name: entry.name, size: int64(len(data)), hash: hash, data: data})
	}
	if slices.ContainsFunc(a.layers, func(f file) bool { return f.unpack }) {
		a.metadata = slices.DeleteFunc(a.metadata, func(f file) bool {
			return f.name == v1spec.ImageLayoutFile || f.name == v1spec.ImageIndexFile
		})
	}
	return nil
}

func blobPath(hash v1.Hash) string { return path.Join("blobs", hash.Algorithm, hash.Hex) }

// missingLayers returns the layers that are not in existing.
func (a *archive) missingLayers(existing map[v1.Hash]bool) (missing []file) {
	for _, f := range a.layers {
		if !existing[f.hash] {
			missing = append(missing, f)
		}
	}
	return missing
}

// write streams the archive with the given layers. It verifies the digest of every blob. On a mismatch it stops before
// the end of the archive, so that engines reject the archive.
func (a *archive) write(ctx context.Context, to io.Writer, layers []file, c *copier) error {
	out := tar.NewWriter(to)
	c.buffer = make([]byte, copyBuffer)
	for _, f := range slices.Concat(a.metadata, layers) {
		write := c.write
		if f.unpack {
			write = c.writeUnpacked
		}
		if err := write(ctx, out, f); err != nil {
			return err
		}
	}
	c.idle.touch(peerEngine)
	return out.Close()
}

// copyBuffer is the size of the buffer for reading layers, in bytes.
const copyBuffer = 256 << 10

// copier copies files, verifies them and reports progress.
type copier struct {
	buffer  []byte
	idle    *idleTimer
	meter   *meter
	tempDir string // for the content of a layer; "" for os.TempDir
}

// write adds a file to an archive.
func (c *copier) write(ctx context.Context, out *tar.Writer, f file) error {
	header := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: f.size, Format: tar.FormatPAX}
	c.idle.touch(peerEngine)
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	return c.copy(ctx, out, f)
}

func (c *copier) copy(ctx context.Context, out io.Writer, f file) error {
	from := io.NopCloser(bytes.NewReader(f.data))
	switch {
	case f.unpacked != nil:
		from = f.unpacked
	case f.layer != nil:
		c.idle.touch(peerSource)
		var err error
		if from, err = f.layer.Compressed(); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return fmt.Errorf("read layer %s: %w", f.hash, err)
		}
	}
	// Closing the source interrupts a blocked read.
	defer context.AfterFunc(ctx, func() { from.Close() })()
	defer from.Close()

	verifier := digest.Digest(f.hash.String()).Verifier()
	size := int64(0)
	for {
		c.idle.touch(peerSource)
		n, err := from.Read(c.buffer)
		if size += int64(n); size > f.size {
			return fmt.Errorf("read layer %s: size exceeds the %d bytes in the manifest", f.hash, f.size)
		}
		_, _ = verifier.Write(c.buffer[:n]) // a hash's Write never fails
		c.idle.touch(peerEngine)
		if _, err := out.Write(c.buffer[:n]); err != nil {
			return err
		}
		if f.layer != nil && n > 0 {
			c.meter.update(f, size)
		}
		switch {
		case err == io.EOF && size < f.size:
			return fmt.Errorf("read layer %s: truncated after %d of %d bytes", f.hash, size, f.size)
		case err == io.EOF && !verifier.Verified():
			return fmt.Errorf("read layer %s: digest mismatch", f.hash)
		case err == io.EOF:
			return nil
		case err != nil && ctx.Err() != nil: // the read was interrupted
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("read layer %s: %w", f.hash, err)
		}
	}
}
