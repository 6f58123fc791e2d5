package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	v1spec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/org/sandbox-actions/pkg/safetext"
	"google.golang.org/grpc/codes"
)

// contentStore reads blobs from the builder's content store, or from a local directory if it has them.
type contentStore struct {
	ctx    context.Context // of the build, because the interfaces that read images later have no context
	client contentapi.ContentClient
	local  content.Store // may be nil

	// copyUnpulled copies the layers if the builder has not pulled one that is read; may be nil.
	copyUnpulled func() (content.Store, error)

	exported map[v1.Hash][]byte // manifests and configs in the exporter's response

	idleTimeout time.Duration // maximum wait for the next bytes of a blob; 0: 1 minute
}

func (s *contentStore) timeout() time.Duration { return cmp.Or(s.idleTimeout, time.Minute) }

// ReadError reports a blob that cannot be read from the builder.
type ReadError struct {
	Digest v1.Hash
	Reason string
	Hint   string
	Err    error // may be nil
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("read %s from the builder: %s (%s)", e.Digest, e.Reason, e.Hint)
}

func (e *ReadError) Unwrap() error { return e.Err }

// checkHas returns an error if the builder does not have a blob.
func (s *contentStore) checkHas(hash v1.Hash) error {
	ctx, cancel := context.WithTimeoutCause(s.ctx, s.timeout(), &ReadError{
		Digest: hash, Reason: fmt.Sprintf("no answer for %s", s.timeout()),
		Hint: "check that the builder still runs, and retry",
	})
	defer cancel()
	_, err := s.client.Info(ctx, &contentapi.InfoRequest{Digest: hash.String()})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// open streams a blob. At its end, the stream fails if the digest or the size is wrong. size is -1 if unknown.
func (s *contentStore) open(hash v1.Hash, size int64) (io.ReadCloser, error) {
	name := digest.Digest(hash.String())
	if err := name.Validate(); err != nil {
		return nil, err
	}
	if s.local != nil {
		if r, err := openLocal(s.ctx, s.local, name, size); err == nil {
			return r, nil
		}
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	r := &blobReader{
		ctx: ctx, cancel: cancel, idleTimeout: s.timeout(), verifier: name.Verifier(), digest: hash, size: size,
	}
	if s.copyUnpulled != nil && size >= 0 { // a layer
		r.openCopy = func() (io.ReadCloser, error) {
			copied, err := s.copyUnpulled()
			if err != nil {
				return nil, err
			}
			return openLocal(s.ctx, copied, name, size)
		}
	}
	var err error
	if r.stream, err = s.client.Read(ctx, &contentapi.ReadContentRequest{Digest: hash.String()}); err != nil {
		err = r.classify(err)
		cancel(nil)
		return nil, err
	}
	return r, nil
}

func openLocal(ctx context.Context, from content.Store, name digest.Digest, size int64) (io.ReadCloser, error) {
	r, err := from.ReaderAt(ctx, v1spec.Descriptor{Digest: name, Size: size})
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(r, 0, r.Size()), r}, nil
}

// maxMetadata is the maximum size of a manifest, an index or a config, which are read into memory.
const maxMetadata = 16 << 20

// readAll reads a manifest, an index or a config.
func (s *contentStore) readAll(hash v1.Hash) ([]byte, error) {
	if data, ok := s.exported[hash]; ok {
		return data, nil
	}
	r, err := s.open(hash, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err == nil && len(data) > maxMetadata {
		err = fmt.Errorf("%s is too large for a manifest or a config: more than %d bytes", hash, maxMetadata)
	}
	return data, err
}

// blobReader reads and verifies a blob from a stream of the content API.
type blobReader struct {
	stream      contentapi.Content_ReadClient
	ctx         context.Context
	cancel      context.CancelCauseFunc
	idleTimeout time.Duration
	buffered    []byte
	verifier    digest.Verifier
	digest      v1.Hash
	size        int64 // -1 if unknown
	received    int64

	openCopy func() (io.ReadCloser, error) // opens a copy of a blob that the builder lacks; may be nil
	copied   io.Reader                     // nil until then
}

func (r *blobReader) Read(p []byte) (int, error) {
	if r.copied != nil {
		return r.copied.Read(p)
	}
	for len(r.buffered) == 0 {
		chunk, err := r.receive()
		switch {
		case errors.Is(err, io.EOF) && r.size >= 0 && r.received != r.size:
			return 0, r.errorf("build again", "got %d of %d bytes", r.received, r.size)
		case errors.Is(err, io.EOF) && !r.verifier.Verified():
			return 0, r.errorf("build again with no_cache; the builder's disk may be damaged", "digest mismatch")
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case r.openCopy != nil && r.received == 0 && grpcerrors.Code(err) == codes.NotFound:
			copied, err := r.openCopy()
			if err != nil {
				return 0, err
			}
			context.AfterFunc(r.ctx, func() { copied.Close() }) // when r is closed
			r.copied = copied
			return copied.Read(p)
		case err != nil:
			return 0, r.classify(err)
		}
		r.buffered = chunk
		r.received += int64(len(chunk))
		_, _ = r.verifier.Write(chunk) // a hash's Write does not fail
	}
	n := copy(p, r.buffered)
	r.buffered = r.buffered[n:]
	return n, nil
}

func (r *blobReader) receive() ([]byte, error) {
	timer := time.AfterFunc(r.idleTimeout, func() {
		r.cancel(r.errorf("check that the builder still runs, and retry", "no data for %s", r.idleTimeout))
	})
	defer timer.Stop()
	answer, err := r.stream.Recv()
	if err != nil {
		return nil, err
	}
	return answer.Data, nil
}

func (r *blobReader) errorf(hint, format string, args ...any) *ReadError {
	return &ReadError{Digest: r.digest, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

// classify converts an error of the content API to a [*ReadError]. If ctx has ended, it returns the cause.
func (r *blobReader) classify(err error) error {
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	message := safetext.Line(err.Error(), maxMessage)
	failure := r.errorf("retry", "%s", message)
	switch grpcerrors.Code(err) {
	case codes.NotFound:
		failure = r.errorf("build again",
			"not found: the builder removed it, or did not pull this layer of a base image")
	case codes.Unavailable, codes.Canceled:
		failure = r.errorf("retry", "the connection to the builder was lost: %s", message)
	}
	failure.Err = err
	return failure
}

func (r *blobReader) Close() error {
	r.cancel(nil)
	return nil
}
