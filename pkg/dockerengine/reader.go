package dockerengine

import (
	"bufio"
	"context"
	"fmt"
	"io"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content/proxy"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	v1spec "github.com/opencontainers/image-spec/specs-go/v1"
)

// idleReader reads from the engine. It fails when its context ends or a read exceeds the engine's idle timeout.
type idleReader struct {
	from   io.Reader
	stop   func() error
	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   *idleTimer
	engine *Engine
}

// newIdleReader returns a reader. The caller sets its from and stop fields.
func (e *Engine) newIdleReader(ctx context.Context) *idleReader {
	r := &idleReader{engine: e, stop: func() error { return nil }}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.idle = newIdleTimer(e.idleTimeout, r.cancel)
	r.idle.stop() // until the first read
	return r
}

func (r *idleReader) Read(p []byte) (int, error) {
	r.idle.touch(peerEngine)
	n, err := r.from.Read(p)
	r.idle.stop()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read from the Docker Engine: %w", r.engine.classifyError(r.ctx, err))
	}
	return n, err
}

func (r *idleReader) Close() error {
	r.idle.stop()
	defer r.cancel(nil)
	return r.stop()
}

// openBlob returns a function that opens blobs of a content store.
func (e *Engine) openBlob(
	ctx context.Context, blobs contentapi.ContentClient,
) func(v1.Descriptor) (io.ReadCloser, error) {
	store := proxy.NewContentStore(blobs)
	return func(descriptor v1.Descriptor) (io.ReadCloser, error) {
		r := e.newIdleReader(ctx)
		at, err := store.ReaderAt(r.ctx, v1spec.Descriptor{
			Digest: digest.Digest(descriptor.Digest.String()), Size: descriptor.Size,
		})
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("read %s from the Docker Engine: %w", descriptor.Digest, err)
		}
		r.from = bufio.NewReaderSize(io.NewSectionReader(at, 0, at.Size()), 1<<20) // one request per MiB
		r.stop = at.Close
		return r, nil
	}
}
