package dockerengine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
)

// firstRequestTimeout is how long to wait for the first request of an engine, which may not reach our loopback
// interface.
const firstRequestTimeout = 5 * time.Second

// errCannotPull means that a pull failed but loading an archive may succeed: the engine cannot reach our loopback
// interface, or rejects the responses.
var errCannotPull = errors.New("the engine cannot pull from this process")

// defaultPullMinimum is the default of Engine.pullMinimum, in compressed bytes.
const defaultPullMinimum = 32 << 20

// canPull reports whether a pull of the missing layers may work and is faster than an archive. An engine with the
// containerd store unpacks layers while it pulls further ones, but unpacks an archive only at the end. For small layers
// the requests of a pull take longer than that. With other stores a pull is not faster. An engine on another machine or
// in a virtual machine cannot reach our loopback interface.
func (e *Engine) canPull(ctx context.Context, missing []file) bool {
	size := int64(0)
	for _, f := range missing {
		size += f.size
	}
	return size >= cmp.Or(e.pullMinimum, defaultPullMinimum) && e.isLocal() && e.contentStore(ctx) != nil
}

// isLocal reports whether the engine may run on this machine outside a virtual machine.
func (e *Engine) isLocal() bool {
	return runtime.GOOS == "linux" && strings.HasPrefix(e.Host, "unix://")
}

// pullImage has the engine pull an image from a read-only registry in this process, on loopback under a temporary name.
// The engine is expected to request the missing layers. When it has the image, pullImage calls complete and then
// removes the name. It returns the layers that were sent.
func (e *Engine) pullImage(
	parent context.Context, a *archive, missing []file, complete func() error,
) (sent []file, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	idle := newIdleTimer(e.idleTimeout, cancel)
	defer idle.stop()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCannotPull, err)
	}
	r := &imageRegistry{
		ctx: ctx, cancel: cancel, archive: a, missing: missing,
		name: temporaryRepository(time.Now()), idle: idle, meter: newMeter(missing, e.Progress),
		contacted: make(chan struct{}),
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // always returns an error when closed
	}()
	defer func() {
		cancel(errEngineDone)
		server.Close()
		<-served
		r.close()
	}()
	firstRequest := time.AfterFunc(firstRequestTimeout, func() {
		select {
		case <-r.contacted:
		default:
			cancel(errCannotPull)
		}
	})
	defer firstRequest.Stop()

	reference := listener.Addr().String() + "/" + r.name + "@" + a.manifest.String()
	defer e.removeTemporary(parent, reference)
	err = e.pullReference(ctx, reference, idle)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errCannotPull, err)
	}
	return r.sentLayers(), complete()
}

// temporaryPrefix begins the names of the repositories that engines pull from this process.
const temporaryPrefix = "sandbox-actions-"

// temporaryRepository returns a random name that contains the labels of this process, see ownerLabels.
func temporaryRepository(now time.Time) string {
	labels := ownerLabels(now)
	owner := cmp.Or(labels[ownerLabel], "unknown 0 0")
	return temporaryPrefix + strings.ReplaceAll(owner, " ", "-") + "-" + labels[untilLabel] + "-" +
		strings.ToLower(rand.Text())
}

// temporaryLabels returns the labels in a reference with a temporary repository, and nil for other references.
func temporaryLabels(name string) map[string]string {
	_, repository, _ := strings.Cut(name, "/")
	repository, _, _ = strings.Cut(repository, "@")
	fields, isTemporary := strings.CutPrefix(repository, temporaryPrefix)
	owner := strings.Split(fields, "-") // machine, PID, start, until, random
	if !isTemporary || len(owner) != 5 {
		return nil
	}
	return map[string]string{ownerLabel: strings.Join(owner[:3], " "), untilLabel: owner[3]}
}

// removeTemporary removes a temporary name, which the engine may have created even if its response was lost. The engine
// then deletes an image that has no other name. A name that cannot be removed now is removed by a later load, see
// removeLeftovers.
func (e *Engine) removeTemporary(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeGrace)
	defer cancel()
	_ = e.removeName(ctx, name)
}

func (e *Engine) removeName(ctx context.Context, name string) error {
	_, err := retry(ctx, func() (client.ImageRemoveResult, error) {
		return e.client.ImageRemove(ctx, name, client.ImageRemoveOptions{})
	})
	return err
}

// removeLeftovers removes the temporary names of processes that were killed during a load, and returns their number.
// The engine then deletes an image that has no other name. Errors are left to the next load.
func (e *Engine) removeLeftovers(ctx context.Context) (removed int) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	names := client.Filters{}.Add("reference", "127.0.0.1:*/"+temporaryPrefix+"*")
	list, err := e.client.ImageList(ctx, client.ImageListOptions{Filters: names})
	if err != nil {
		return 0
	}
	for _, image := range list.Items {
		for _, name := range slices.Concat(image.RepoTags, image.RepoDigests) {
			if !orphaned(temporaryLabels(name), time.Now()) {
				continue
			}
			if e.removeName(ctx, name) == nil {
				removed++
			}
		}
	}
	return removed
}

// pullReference pulls a reference like docker pull.
func (e *Engine) pullReference(ctx context.Context, reference string, idle *idleTimer) error {
	response, err := e.client.ImagePull(ctx, reference, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer response.Close()
	for message, err := range response.JSONMessages(ctx) {
		switch {
		case err != nil:
			return fmt.Errorf("read the engine's response: %w", err)
		case message.Error != nil:
			return &engineError{message.Error.Message}
		}
		idle.touch(peerEngine)
	}
	return nil
}

// imageRegistry serves one image. See https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
type imageRegistry struct {
	ctx       context.Context
	cancel    context.CancelCauseFunc
	archive   *archive
	missing   []file // the layers that the engine is expected to request
	name      string // of the repository
	idle      *idleTimer
	meter     *meter
	contacted chan struct{} // closed by the first request for a blob or the manifest
	once      sync.Once
	serving   sync.WaitGroup

	mutex  sync.Mutex
	sent   []file
	closed bool
}

// close waits for the requests in progress. The registry aborts later ones.
func (r *imageRegistry) close() {
	r.mutex.Lock()
	r.closed = true
	r.mutex.Unlock()
	r.serving.Wait()
}

// accept registers a request, unless the registry is closed.
func (r *imageRegistry) accept() bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if !r.closed {
		r.serving.Add(1)
	}
	return !r.closed
}

func (r *imageRegistry) sentLayers() []file {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Clone(r.sent)
}

func (r *imageRegistry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !r.accept() {
		panic(http.ErrAbortHandler)
	}
	defer r.serving.Done()
	r.idle.touch(peerEngine)
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		http.Error(w, "this registry is read-only", http.StatusMethodNotAllowed)
		return
	}
	if request.URL.Path == "/v2/" {
		return
	}
	kind, digest := path.Split(strings.TrimPrefix(request.URL.Path, "/v2/"+r.name+"/"))
	for _, f := range slices.Concat(r.missing, r.archive.metadata, r.archive.layers) {
		isManifest := f.hash == r.archive.manifest && kind == "manifests/"
		if f.hash.String() != digest || !isManifest && kind != "blobs/" {
			continue
		}
		r.once.Do(func() { close(r.contacted) })
		w.Header().Set("Content-Type", "application/octet-stream")
		if isManifest {
			w.Header().Set("Content-Type", string(r.archive.mediaType))
		}
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Length", strconv.FormatInt(f.size, 10))
		if request.Method == http.MethodGet {
			r.serveFile(w, f)
		}
		return
	}
	http.NotFound(w, request)
}

// serveFile sends a file. If the source fails, it cancels the pull, because the engine would only retry.
func (r *imageRegistry) serveFile(w io.Writer, f file) {
	c := &copier{buffer: make([]byte, copyBuffer), idle: r.idle, meter: r.meter}
	out := &errorRecorder{Writer: w}
	if err := c.copy(r.ctx, out, f); err != nil {
		if out.err == nil {
			r.cancel(err)
		}
		panic(http.ErrAbortHandler)
	}
	if f.layer != nil {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.sent = append(r.sent, f)
	}
}

// errorRecorder records the error of the last write, to distinguish a failed connection from a failed source.
type errorRecorder struct {
	io.Writer
	err error
}

func (r *errorRecorder) Write(p []byte) (n int, err error) {
	n, err = r.Writer.Write(p)
	r.err = err
	return n, err
}
