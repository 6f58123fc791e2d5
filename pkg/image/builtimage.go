package image

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// result returns the image that the image exporter's metadata describes.
func (s *contentStore) result(platform string, metadata map[string]string) (*Result, error) {
	lease, exported, err := takeExportLease(metadata)
	if err != nil {
		return nil, err
	}
	s.exported = exported
	var descriptor v1.Descriptor
	encoded, err := base64.StdEncoding.DecodeString(metadata[exptypes.ExporterImageDescriptorKey])
	if err == nil {
		err = json.Unmarshal(encoded, &descriptor)
	}
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", exptypes.ExporterImageDescriptorKey, err)
	}
	r := &Result{Platform: platform, Digest: descriptor.Digest, Metadata: metadata, ExportLease: lease}
	manifest := descriptor.Digest
	if descriptor.MediaType.IsIndex() {
		index := &builtIndex{store: s, hash: descriptor.Digest, mediaType: descriptor.MediaType}
		if index.raw, err = s.readAll(descriptor.Digest); err != nil {
			return nil, err
		}
		r.Index = index
		if manifest, err = index.imageDigest(); err != nil {
			return nil, err
		}
	}
	r.Image, err = s.image(manifest)
	return r, err
}

// image returns the image with the given manifest.
func (s *contentStore) image(hash v1.Hash) (v1.Image, error) {
	i := &builtImage{store: s}
	var err error
	if i.rawManifest, err = s.readAll(hash); err != nil {
		return nil, err
	}
	if i.manifest, err = v1.ParseManifest(bytes.NewReader(i.rawManifest)); err != nil {
		return nil, fmt.Errorf("parse manifest %s: %w", hash, err)
	}
	if i.rawConfig, err = s.readAll(i.manifest.Config.Digest); err != nil {
		return nil, err
	}
	if i.config, err = v1.ParseConfigFile(bytes.NewReader(i.rawConfig)); err != nil {
		return nil, fmt.Errorf("parse config %s: %w", i.manifest.Config.Digest, err)
	}
	return partial.CompressedToImage(i)
}

// builtImage implements partial.CompressedImageCore.
type builtImage struct {
	store                  *contentStore
	rawManifest, rawConfig []byte
	manifest               *v1.Manifest
	config                 *v1.ConfigFile
}

func (i *builtImage) RawManifest() ([]byte, error)        { return i.rawManifest, nil }
func (i *builtImage) RawConfigFile() ([]byte, error)      { return i.rawConfig, nil }
func (i *builtImage) MediaType() (types.MediaType, error) { return i.manifest.MediaType, nil }
func (i *builtImage) LayerByDigest(hash v1.Hash) (partial.CompressedLayer, error) {
	if hash == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	for n, descriptor := range i.manifest.Layers {
		if descriptor.Digest != hash {
			continue
		}
		layer := &builtLayer{store: i.store, descriptor: descriptor, diffID: hash}
		if n < len(i.config.RootFS.DiffIDs) { // the layers of an attestation have no diff ID
			layer.diffID = i.config.RootFS.DiffIDs[n]
		}
		return layer, nil
	}
	return nil, fmt.Errorf("layer %s is not in the image", hash)
}

// builtLayer implements partial.CompressedLayer.
type builtLayer struct {
	store      *contentStore
	descriptor v1.Descriptor
	diffID     v1.Hash
}

func (l *builtLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *builtLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *builtLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *builtLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l *builtLayer) Compressed() (io.ReadCloser, error) {
	return l.store.open(l.descriptor.Digest, l.descriptor.Size)
}

// builtIndex implements [v1.ImageIndex] for the image of one platform and its attestations.
type builtIndex struct {
	store     *contentStore
	hash      v1.Hash
	mediaType types.MediaType
	raw       []byte
}

func (i *builtIndex) MediaType() (types.MediaType, error) { return i.mediaType, nil }
func (i *builtIndex) Digest() (v1.Hash, error)            { return i.hash, nil }
func (i *builtIndex) Size() (int64, error)                { return int64(len(i.raw)), nil }
func (i *builtIndex) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *builtIndex) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(bytes.NewReader(i.raw))
}
func (i *builtIndex) Image(hash v1.Hash) (v1.Image, error) { return i.store.image(hash) }
func (i *builtIndex) ImageIndex(hash v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("index %s is not in the index", hash)
}

// imageDigest returns the digest of the image, which the index lists together with its attestations.
func (i *builtIndex) imageDigest() (v1.Hash, error) {
	index, err := i.IndexManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	for _, m := range index.Manifests {
		if isPlatformImage(m) {
			return m.Digest, nil
		}
	}
	return v1.Hash{}, fmt.Errorf("index %s contains no image", i.hash)
}

// isPlatformImage reports whether an entry of an index is an image and not an attestation.
func isPlatformImage(m v1.Descriptor) bool {
	return m.MediaType.IsImage() && m.Annotations["vnd.docker.reference.type"] == ""
}
