package dockerengine

import (
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

// comesWithin is how long an engine that shares our loopback may take for its first request.
const comesWithin = 5 * time.Second

// errNoPull is why a pull failed where the archive may do: the engine does not reach us, or does not like what it gets.
var errNoPull = errors.New("the engine can not pull from our loopback")

// mayPull says whether a pull is worth a try: an engine with containerd's store unpacks one layer while it fetches the next ones,
// but those of an archive when all are there; with the others a pull is no faster. One that is on another machine, or in a virtual
// one, does not share our loopback.
func (e *Engine) mayPull(ctx context.Context) bool {
	return runtime.GOOS == "linux" && strings.HasPrefix(e.Host, "unix://") && !e.archiveOnly && e.blobs(ctx) != nil
}

// pull has the engine fetch what it lacks of an image from a registry in our own process: read only, on loopback, under a name
// that nobody else knows. When the engine has all of it, named is called, before that name goes again.
func (e *Engine) pull(parent context.Context, a *archive, named func() error) (sent []file, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	watch := newWatch(e.silence, cancel)
	defer watch.stop()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoPull, err)
	}
	r := &imageRegistry{
		ctx: ctx, cancel: cancel, archive: a, lacking: a.without(e.holds(ctx, a)), name: strings.ToLower(rand.Text()), watch: watch,
		progress: e.Progress, came: make(chan struct{}),
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // until it is closed
	}()
	defer func() {
		cancel(errEngineDone)
		server.Close()
		<-served
		r.close()
	}()
	late := time.AfterFunc(comesWithin, func() {
		if !r.reached() {
			cancel(errNoPull)
		}
	})
	defer late.Stop()

	reference := listener.Addr().String() + "/" + r.name + "@" + a.manifest.String()
	err = e.fetch(ctx, reference, watch)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoPull, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), 3*time.Second)
		defer cancel()
		if _, removed := e.client.ImageRemove(ctx, reference, client.ImageRemoveOptions{}); removed != nil && err == nil {
			err = fmt.Errorf("remove the name %s that it was pulled by: %w", reference, removed)
		}
	}()
	r.mutex.Lock()
	sent = slices.Clone(r.given)
	r.mutex.Unlock()
	return sent, named()
}

// fetch is docker pull.
func (e *Engine) fetch(ctx context.Context, reference string, watch *watch) error {
	response, err := e.client.ImagePull(ctx, reference, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer response.Close()
	for message, err := range response.JSONMessages(ctx) {
		switch {
		case err != nil:
			return fmt.Errorf("the engine's answer broke off: %w", err)
		case message.Error != nil:
			return message.Error
		}
		watch.alive(theEngine)
	}
	return nil
}

// imageRegistry serves one image. See https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
type imageRegistry struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	archive  *archive
	lacking  []file
	name     string
	watch    *watch
	progress func(Layer)
	came     chan struct{} // closed by the first request
	once     sync.Once
	serving  sync.WaitGroup

	mutex  sync.Mutex
	given  []file
	closed bool
}

// close waits for the requests that are being answered.
func (r *imageRegistry) close() {
	r.mutex.Lock()
	r.closed = true
	r.mutex.Unlock()
	r.serving.Wait()
}

// enter takes a request on, unless it comes too late.
func (r *imageRegistry) enter() bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if !r.closed {
		r.serving.Add(1)
	}
	return !r.closed
}

// reached says whether the engine has asked for anything.
func (r *imageRegistry) reached() bool {
	select {
	case <-r.came:
		return true
	default:
		return false
	}
}

func (r *imageRegistry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !r.enter() {
		panic(http.ErrAbortHandler)
	}
	defer r.serving.Done()
	r.watch.alive(theEngine)
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		http.Error(w, "this registry is read only", http.StatusMethodNotAllowed)
		return
	}
	if request.URL.Path == "/v2/" {
		return
	}
	kind, digest := path.Split(strings.TrimPrefix(request.URL.Path, "/v2/"+r.name+"/"))
	for number, f := range slices.Concat(r.lacking, r.archive.small, r.archive.layers) {
		isManifest := f.hash == r.archive.manifest && kind == "manifests/"
		if f.hash.String() != digest || !isManifest && kind != "blobs/" {
			continue
		}
		r.once.Do(func() { close(r.came) })
		w.Header().Set("Content-Type", "application/octet-stream")
		if isManifest {
			w.Header().Set("Content-Type", string(r.archive.mediaType))
		}
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Length", strconv.FormatInt(f.size, 10))
		if request.Method == http.MethodGet {
			r.give(w, f, number)
		}
		return
	}
	http.NotFound(w, request)
}

// give sends a blob. When its source fails, so does the pull, at once: the engine would only ask again.
func (r *imageRegistry) give(w io.Writer, f file, number int) {
	c := &copier{buffer: make([]byte, 256<<10), watch: r.watch, number: min(number, len(r.lacking))}
	c.count = max(len(r.lacking), c.number+1)
	if r.progress != nil {
		c.progress = func(l Layer) {
			r.mutex.Lock()
			defer r.mutex.Unlock()
			r.progress(l)
		}
	}
	out := &toEngine{Writer: w}
	if err := c.file(r.ctx, out, f); err != nil {
		if out.err == nil {
			r.cancel(err)
		}
		panic(http.ErrAbortHandler)
	}
	if f.layer != nil {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.given = append(r.given, f)
	}
}

// toEngine remembers whether it was the engine that ended a copy.
type toEngine struct {
	io.Writer
	err error
}

func (t *toEngine) Write(p []byte) (n int, err error) {
	n, err = t.Writer.Write(p)
	t.err = err
	return n, err
}
