package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	v1spec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
)

// smallBlob bounds what is read into memory: manifests, indexes and configs.
const smallBlob = 16 << 20

// builderSilence bounds how long a builder may take for its next bytes of a blob.
const builderSilence = time.Minute

// blobs reads from the builder's content store, and from a folder for what the builder does not hold.
type blobs struct {
	ctx    context.Context // of the build: the values that are made here read later, and their interfaces have no context
	client contentapi.ContentClient
	local  content.Store // may be nil

	silence time.Duration // bounds how long the builder may take for its next bytes
}

func (b *blobs) has(hash v1.Hash) error {
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.silence, fmt.Errorf("the builder has not said for %s whether it holds %s", b.silence, hash))
	defer cancel()
	_, err := b.client.Info(ctx, &contentapi.InfoRequest{Digest: hash.String()})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// builderError is why a blob can not be read from the builder. It tells whose fault it is when somebody else was reading.
type builderError struct {
	sentence string
	err      error // may be nil
}

func (e *builderError) Error() string { return e.sentence }
func (e *builderError) Unwrap() error { return e.err }

// open streams a blob, and fails at its end when its digest or size is not what it is called by.
func (b *blobs) open(hash v1.Hash, size int64) (io.ReadCloser, error) {
	name := digest.Digest(hash.String())
	if err := name.Validate(); err != nil {
		return nil, err
	}
	if b.local != nil {
		if r, err := b.local.ReaderAt(b.ctx, v1spec.Descriptor{Digest: name, Size: size}); err == nil {
			return struct {
				io.Reader
				io.Closer
			}{io.NewSectionReader(r, 0, r.Size()), r}, nil
		}
	}
	ctx, cancel := context.WithCancelCause(b.ctx)
	r := &blobReader{ctx: ctx, cancel: cancel, silence: b.silence, verifier: name.Verifier(), name: hash, want: size}
	var err error
	if r.stream, err = b.client.Read(ctx, &contentapi.ReadContentRequest{Digest: hash.String()}); err != nil {
		err = r.explain(err)
		cancel(nil)
		return nil, err
	}
	return r, nil
}

// blobReader is one stream of the content API.
type blobReader struct {
	stream   contentapi.Content_ReadClient
	ctx      context.Context
	cancel   context.CancelCauseFunc
	silence  time.Duration
	rest     []byte
	verifier digest.Verifier
	name     v1.Hash
	want     int64 // -1 when unknown
	got      int64
}

func (r *blobReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		timer := time.AfterFunc(r.silence, func() {
			r.cancel(&builderError{sentence: fmt.Sprintf("the builder sent nothing of %s for %s: see whether it still runs, and try again", r.name, r.silence)})
		})
		chunk, err := r.stream.Recv()
		timer.Stop()
		switch {
		case errors.Is(err, io.EOF) && r.want >= 0 && r.got != r.want:
			return 0, &builderError{sentence: fmt.Sprintf("the builder sent %d of %d bytes of %s: build again", r.got, r.want, r.name)}
		case errors.Is(err, io.EOF) && !r.verifier.Verified():
			return 0, &builderError{sentence: fmt.Sprintf("the builder sent other bytes than those of %s: its disk may be damaged; build again without its cache", r.name)}
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case err != nil:
			return 0, r.explain(err)
		}
		r.rest = chunk.Data
		r.got += int64(len(chunk.Data))
		_, _ = r.verifier.Write(chunk.Data) // a hash's Write never fails
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *blobReader) explain(err error) error {
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	why := oneLine(err.Error())
	switch grpcerrors.Code(err) {
	case codes.NotFound:
		return &builderError{fmt.Sprintf("the builder does not hold %s: it has removed it, or never pulled that layer of a base image; build again", r.name), err}
	case codes.Unavailable, codes.Canceled:
		return &builderError{fmt.Sprintf("the builder went away while %s was read (%s): run it again", r.name, why), err}
	}
	return &builderError{fmt.Sprintf("read %s from the builder: %s: run it again", r.name, why), err}
}

func (r *blobReader) Close() error {
	r.cancel(nil)
	return nil
}

// small reads a manifest, an index or a config.
func (b *blobs) small(hash v1.Hash) ([]byte, error) {
	r, err := b.open(hash, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, smallBlob+1))
	if err == nil && len(data) > smallBlob {
		err = fmt.Errorf("%s is larger than a manifest or a config may be (%d bytes)", hash, smallBlob)
	}
	return data, err
}

// result reads what the image exporter answered.
func (b *blobs) result(platform string, metadata map[string]string) (*Result, error) {
	var descriptor v1.Descriptor
	encoded, err := base64.StdEncoding.DecodeString(metadata[exptypes.ExporterImageDescriptorKey])
	if err == nil {
		err = json.Unmarshal(encoded, &descriptor)
	}
	if err != nil {
		return nil, fmt.Errorf("the builder's answer holds no usable %s: %w", exptypes.ExporterImageDescriptorKey, err)
	}
	r := &Result{Platform: platform, Digest: descriptor.Digest, Metadata: metadata}
	manifest := descriptor.Digest
	if descriptor.MediaType.IsIndex() {
		index := &builtIndex{blobs: b, hash: descriptor.Digest, mediaType: descriptor.MediaType}
		if index.raw, err = b.small(descriptor.Digest); err != nil {
			return nil, err
		}
		r.Index = index
		if manifest, err = index.ours(); err != nil {
			return nil, err
		}
	}
	r.Image, err = b.image(manifest)
	return r, err
}

// image makes a go-containerregistry image of the manifest with this digest.
func (b *blobs) image(hash v1.Hash) (v1.Image, error) {
	i := &builtImage{blobs: b}
	var err error
	if i.raw, err = b.small(hash); err != nil {
		return nil, err
	}
	if i.manifest, err = v1.ParseManifest(bytes.NewReader(i.raw)); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", hash, err)
	}
	if i.config, err = b.small(i.manifest.Config.Digest); err != nil {
		return nil, err
	}
	if i.file, err = v1.ParseConfigFile(bytes.NewReader(i.config)); err != nil {
		return nil, fmt.Errorf("config %s: %w", i.manifest.Config.Digest, err)
	}
	return partial.CompressedToImage(i)
}

// builtImage implements partial.CompressedImageCore.
type builtImage struct {
	blobs       *blobs
	raw, config []byte
	manifest    *v1.Manifest
	file        *v1.ConfigFile
}

func (i *builtImage) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *builtImage) RawConfigFile() ([]byte, error)      { return i.config, nil }
func (i *builtImage) MediaType() (types.MediaType, error) { return i.manifest.MediaType, nil }
func (i *builtImage) LayerByDigest(hash v1.Hash) (partial.CompressedLayer, error) {
	if hash == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	for n, descriptor := range i.manifest.Layers {
		if descriptor.Digest == hash {
			layer := &builtLayer{blobs: i.blobs, descriptor: descriptor, diffID: hash}
			if n < len(i.file.RootFS.DiffIDs) { // an attestation's statements are no files of a root
				layer.diffID = i.file.RootFS.DiffIDs[n]
			}
			return layer, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", hash)
}

// builtLayer implements partial.CompressedLayer.
type builtLayer struct {
	blobs      *blobs
	descriptor v1.Descriptor
	diffID     v1.Hash
}

func (l *builtLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *builtLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *builtLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *builtLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l *builtLayer) Compressed() (io.ReadCloser, error) {
	return l.blobs.open(l.descriptor.Digest, l.descriptor.Size)
}

// builtIndex implements v1.ImageIndex for one platform's image and its attestations.
type builtIndex struct {
	blobs     *blobs
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
func (i *builtIndex) Image(hash v1.Hash) (v1.Image, error) { return i.blobs.image(hash) }
func (i *builtIndex) ImageIndex(hash v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("the index holds no index %s", hash)
}

// ours is the image in the index; the others are attestations, whose platform is unknown.
func (i *builtIndex) ours() (v1.Hash, error) {
	index, err := i.IndexManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	for _, m := range index.Manifests {
		if m.Annotations["vnd.docker.reference.type"] == "" && m.MediaType.IsImage() {
			return m.Digest, nil
		}
	}
	return v1.Hash{}, fmt.Errorf("index %s holds no image", i.hash)
}
