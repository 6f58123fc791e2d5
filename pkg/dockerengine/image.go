package dockerengine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// maxMetadata is the maximum size in bytes of a manifest, index or config.
const maxMetadata = 16 << 20

// Image is an image in an engine.
type Image struct {
	v1.Image

	// ReadOrder lists the distinct layers in the order in which the engine streams them. Without the containerd image
	// store, reading a layer out of order reads the engine's archive from the start again.
	ReadOrder []v1.Layer
}

// Image opens an image in the engine for a platform such as "linux/amd64"; "" means the platform that the engine would
// run. The image reads layers from the engine on demand, until ctx ends, without caching.
//
// With the containerd image store, the image has the manifest and digest that it was built or pulled with. Other stores
// keep neither the manifest nor compressed layers: the image then has uncompressed layers, with the diff IDs of its
// config as digests, so that its digest is reproducible. Image then reads the engine's archive of the image once, to
// determine the layers' sizes.
func (e *Engine) Image(ctx context.Context, name, platform string) (*Image, error) {
	fail := func(err error) (*Image, error) {
		return nil, fmt.Errorf("read %s from the Docker Engine at %s: %w", name, e.Host, e.classifyError(ctx, err))
	}
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	found, err := e.inspectImage(step, name)
	switch {
	case cerrdefs.IsNotFound(err):
		return fail(errors.New("image not found (list images with docker image ls)"))
	case err != nil:
		return fail(err)
	}
	id, err := v1.NewHash(found.ID)
	if err != nil {
		return fail(fmt.Errorf("invalid image ID %q: %w", found.ID, err))
	}
	i := &storedImage{}
	if blobs := e.contentStore(step); blobs != nil {
		i.open = e.openBlob(ctx, blobs)
		err = i.resolve(id, platform)
	} else if err = checkPlatform(platform, v1.Platform{
		OS: found.Os, Architecture: found.Architecture, Variant: found.Variant,
	}); err == nil {
		err = i.readArchive(ctx, e, id)
	}
	if err != nil {
		return fail(err)
	}
	img := &Image{}
	if img.Image, err = partial.CompressedToImage(i); err != nil {
		return fail(err)
	}
	for _, hash := range i.readOrder() {
		layer, err := img.LayerByDigest(hash)
		if err != nil {
			return fail(err)
		}
		img.ReadOrder = append(img.ReadOrder, layer)
	}
	return img, nil
}

// checkPlatform returns an error if the actual platform of an image does not match want, which may be "". It compares
// variants only if both platforms have one.
func checkPlatform(want string, actual v1.Platform) error {
	if want == "" {
		return nil
	}
	parsed, err := v1.ParsePlatform(want)
	if err != nil {
		return fmt.Errorf("invalid platform %q (use OS/ARCHITECTURE such as linux/amd64)", want)
	}
	if parsed.OS == actual.OS && parsed.Architecture == actual.Architecture &&
		(parsed.Variant == actual.Variant || parsed.Variant == "" || actual.Variant == "") {
		return nil
	}
	return fmt.Errorf("platform mismatch: the image is for %s, not for %s", actual, want)
}

// storedImage implements partial.CompressedImageCore.
type storedImage struct {
	raw, config []byte
	manifest    *v1.Manifest
	diffIDs     []v1.Hash
	open        func(v1.Descriptor) (io.ReadCloser, error)
	position    func(v1.Descriptor) int // in the engine's archive; nil if the read order does not matter
}

// readOrder returns the digests of the distinct layers in the order in which the engine streams them.
func (i *storedImage) readOrder() (digests []v1.Hash) {
	layers := slices.Clone(i.manifest.Layers)
	if i.position != nil {
		slices.SortStableFunc(layers, func(a, b v1.Descriptor) int { return i.position(a) - i.position(b) })
	}
	for _, layer := range layers {
		if !slices.Contains(digests, layer.Digest) {
			digests = append(digests, layer.Digest)
		}
	}
	return digests
}

func (i *storedImage) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *storedImage) RawConfigFile() ([]byte, error)      { return i.config, nil }
func (i *storedImage) MediaType() (types.MediaType, error) { return i.manifest.MediaType, nil }
func (i *storedImage) LayerByDigest(hash v1.Hash) (partial.CompressedLayer, error) {
	if hash == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	for n, descriptor := range i.manifest.Layers {
		if descriptor.Digest == hash {
			return &storedLayer{image: i, descriptor: descriptor, diffID: i.diffIDs[n]}, nil
		}
	}
	return nil, fmt.Errorf("layer %s not found in the image", hash)
}

// storedLayer implements partial.CompressedLayer.
type storedLayer struct {
	image      *storedImage
	descriptor v1.Descriptor
	diffID     v1.Hash
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *storedLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *storedLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error)  { return l.image.open(l.descriptor) }

// resolve reads the config and the manifest with this digest or, for an index, the platform's manifest in the index.
func (i *storedImage) resolve(hash v1.Hash, platform string) error {
	var err error
	if i.raw, err = i.readMetadata(v1.Descriptor{Digest: hash}); err != nil {
		return err
	}
	var kind struct{ MediaType types.MediaType }
	if err := json.Unmarshal(i.raw, &kind); err != nil {
		return fmt.Errorf("parse manifest %s: %w", hash, err)
	}
	if kind.MediaType.IsIndex() {
		index, err := v1.ParseIndexManifest(bytes.NewReader(i.raw))
		if err != nil {
			return fmt.Errorf("parse index %s: %w", hash, err)
		}
		return i.resolveIndex(index, platform)
	}
	if i.manifest, err = v1.ParseManifest(bytes.NewReader(i.raw)); err != nil {
		return fmt.Errorf("parse manifest %s: %w", hash, err)
	}
	if i.config, err = i.readMetadata(i.manifest.Config); err != nil {
		return err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(i.config))
	if err != nil {
		return fmt.Errorf("parse config %s: %w", i.manifest.Config.Digest, err)
	}
	if i.diffIDs = config.RootFS.DiffIDs; len(i.diffIDs) != len(i.manifest.Layers) {
		return fmt.Errorf("invalid image: got %d layers, but the config has %d", len(i.manifest.Layers), len(i.diffIDs))
	}
	if i.manifest.MediaType == "" { // optional in OCI manifests
		i.manifest.MediaType = types.OCIManifestSchema1
	}
	return checkPlatform(platform, *cmp.Or(config.Platform(), &v1.Platform{OS: "unknown", Architecture: "unknown"}))
}

// resolveIndex resolves the first image in the index that matches the platform and that the engine has. An engine may
// have only some of the images.
func (i *storedImage) resolveIndex(index *v1.IndexManifest, platform string) error {
	err := errors.New("the index contains no images")
	for _, m := range index.Manifests {
		isAttestation := m.Annotations["vnd.docker.reference.type"] != ""
		if isAttestation || !m.MediaType.IsImage() {
			continue
		}
		if err = i.resolve(m.Digest, platform); err == nil {
			return nil
		}
	}
	return err
}

// readMetadata reads and verifies a manifest, an index or a config.
func (i *storedImage) readMetadata(descriptor v1.Descriptor) ([]byte, error) {
	from, err := i.open(descriptor)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	data, err := io.ReadAll(io.LimitReader(from, maxMetadata+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxMetadata:
		return nil, fmt.Errorf("read %s: larger than %d bytes", descriptor.Digest, maxMetadata)
	case digest.FromBytes(data).String() != descriptor.Digest.String():
		return nil, fmt.Errorf("read %s: digest mismatch", descriptor.Digest)
	}
	return data, nil
}
