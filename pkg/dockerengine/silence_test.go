package dockerengine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Every call ends when its context ends, even if the engine accepts the request and then stays silent, and the call
// closes the connection.
func TestSilentEngine(t *testing.T) {
	t.Parallel()
	app := newImage(t, "silence")
	c := func(e *Engine) *Container { return &Container{ID: "c", engine: e, image: "app"} }
	run := func(ctx context.Context, e *Engine) error { _, err := c(e).Run(ctx, Streams{}); return err }
	exec := func(ctx context.Context, e *Engine) error {
		_, err := c(e).Exec(ctx, ExecSpec{Cmd: []string{"x"}})
		return err
	}
	logs := func(ctx context.Context, e *Engine) error { return c(e).Logs(ctx, LogOptions{}, Streams{}) }
	load := func(ctx context.Context, e *Engine) error { _, err := e.Load(ctx, "app", app); return err }
	loadArchive := func(ctx context.Context, e *Engine) error {
		e.pullMinimum = math.MaxInt64
		return load(ctx, e)
	}
	read := func(ctx context.Context, e *Engine) error { _, err := e.Image(ctx, "app", ""); return err }
	for _, test := range []struct {
		name, silent string // regular expression of requests that are not answered
		started      bool   // the silence begins after the header of the response
		call         func(context.Context, *Engine) error
	}{
		{"version", "GET /version", false, func(ctx context.Context, e *Engine) error {
			_, err := e.Platform(ctx)
			return err
		}},
		{"image ID", "GET /images/app/json", false, func(ctx context.Context, e *Engine) error {
			_, err := e.ImageID(ctx, "app")
			return err
		}},
		{"create", "POST /containers/create", false, func(ctx context.Context, e *Engine) error {
			_, err := e.Create(ctx, ContainerSpec{Image: "app"})
			return err
		}},
		{"start", "POST .*/start", false, func(ctx context.Context, e *Engine) error { return c(e).Start(ctx) }},
		{"attach", "POST .*/attach", false, func(ctx context.Context, e *Engine) error {
			_, err := c(e).Attach(ctx, Streams{})
			return err
		}},
		{"output", "POST .*/attach", true, func(ctx context.Context, e *Engine) error {
			a, err := c(e).Attach(ctx, Streams{})
			if err != nil {
				return err
			}
			return a.Wait()
		}},
		{"run: attach", "POST .*/attach", false, run},
		{"run: output", "POST .*/attach", true, run},
		{"run: start", "POST .*/start", false, run},
		{"run: wait", "POST .*/wait", false, run},
		{"run: exit", "POST .*/wait", true, run},
		{"run: everything", "POST .*/(attach|kill)", false, run},
		{"exec: create", "POST /containers/c/exec", false, exec},
		{"exec: start", "POST /exec/x/start", false, exec},
		{"exec: output", "POST /exec/x/start", true, exec},
		{"exec: inspect", "GET /exec/x/json", false, exec},
		{"wait", "POST .*/wait", false, func(ctx context.Context, e *Engine) error { _, err := c(e).Wait(ctx); return err }},
		{"exit", "POST .*/wait", true, func(ctx context.Context, e *Engine) error { _, err := c(e).Wait(ctx); return err }},
		{"stop", "POST .*/stop", false, func(ctx context.Context, e *Engine) error { return c(e).Stop(ctx, 0) }},
		{"restart", "GET /info", false, func(ctx context.Context, e *Engine) error {
			_, err := c(e).Restart(ctx, 0)
			return err
		}},
		{"kill", "POST .*/kill", false, func(ctx context.Context, e *Engine) error { return c(e).Kill(ctx, "HUP") }},
		{"resize", "POST .*/resize", false, func(ctx context.Context, e *Engine) error {
			return c(e).Resize(ctx, Size{1, 1})
		}},
		{"inspect", "GET /containers/c/json", false, func(ctx context.Context, e *Engine) error {
			_, err := c(e).Inspect(ctx)
			return err
		}},
		{"logs", "GET .*/logs", false, logs},
		{"log text", "GET .*/logs", true, logs},
		{"remove", "DELETE .*", false, func(ctx context.Context, e *Engine) error { return c(e).Remove(ctx) }},
		{"list", "GET /containers/json", false, func(ctx context.Context, e *Engine) error {
			_, err := e.Containers(ctx, "a")
			return err
		}},
		{"reap", "GET /containers/json", false, func(ctx context.Context, e *Engine) error {
			_, err := e.Reap(ctx)
			return err
		}},
		{"reap: remove", "DELETE .*", false, func(ctx context.Context, e *Engine) error {
			_, err := e.Reap(ctx)
			return err
		}},
		{"load: info", "GET /info", false, load},
		{"load: content store", "POST /grpc", false, load},
		{"load: content", "POST /grpc", true, load},
		{"load: pull", "POST /images/create", false, load},
		{"load: pull and removal", "POST /images/create|DELETE .*|GET /images/sha256:.*", false, load},
		{"load: archive and removal", "POST /images/load|DELETE .*|GET /images/sha256:.*", false, loadArchive},
		{"load: pull progress", "POST /images/create", true, load},
		{"load: archive", "POST /images/load", false, loadArchive},
		{"load: progress", "POST /images/load", true, loadArchive},
		{"read: inspect", "GET /images/app/json", false, read},
		{"read: info", "GET /info", false, read},
		{"read: content store", "POST /grpc", false, read},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := &silentEngine{
				silent: regexp.MustCompile("^(" + test.silent + ")$"), started: test.started,
				arrived: make(chan struct{}, 100), closed: make(chan struct{}, 100),
			}
			e := openHost(t, server.listen(t))
			cause := errors.New("canceled by the test")
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- test.call(ctx, e) }()
			await(t, "request", server.arrived)
			cancel(cause)
			select {
			case err := <-ended:
				if !errors.Is(err, cause) {
					t.Errorf("got %v, want %v", err, cause)
				}
			case <-time.After(time.Minute):
				t.Fatal("the call does not end")
			}
			_ = e.Close() // the connection to the content store; others must be closed already
			await(t, "end of the connection", server.closed)
		})
	}
}

func await(t *testing.T, event string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(time.Minute):
		t.Fatal("missing: " + event)
	}
}

// silentEngine answers every request like an engine with a containerd image store, except those that match silent.
type silentEngine struct {
	silent  *regexp.Regexp // of method and path without the version
	started bool
	arrived chan struct{} // receives a value for each request that is not answered
	closed  chan struct{} // receives a value when the client closes the connection of such a request
}

// listen serves on a Unix socket until the test ends and returns its address.
func (s *silentEngine) listen(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "silent-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	return "unix://" + socket
}

var apiVersion = regexp.MustCompile(`^/v[0-9.]+`)

func (s *silentEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := r.Method + " " + apiVersion.ReplaceAllString(r.URL.Path, "")
	hijacks := r.Header.Get("Upgrade") != ""
	_, _ = io.Copy(io.Discard, r.Body)
	silent := s.silent.MatchString(request)
	if silent && !s.started {
		s.arrived <- struct{}{}
		<-r.Context().Done()
		s.closed <- struct{}{}
		return
	}
	if hijacks {
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"+
			"Connection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		if silent {
			s.waitForClose(buffered.Reader)
		}
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Api-Version", "1.50")
	if runs := request == "POST /containers/c/wait"; runs || silent {
		_ = http.NewResponseController(w).Flush()
		if silent {
			s.arrived <- struct{}{}
		}
		<-r.Context().Done()
		if silent {
			s.closed <- struct{}{}
		}
		return
	}
	answer := `{}`
	switch request {
	case "POST /containers/create", "POST /containers/c/exec":
		answer = `{"Id": "x"}`
	case "GET /containers/json":
		answer = `[{"Id": "c", "Labels": {"` + untilLabel + `": "1"}}]`
	case "GET /images/app/json":
		answer = `{"Id": "sha256:` + strings.Repeat("0", 64) + `"}`
	case "GET /info":
		answer = `{"DriverStatus": [["` + containerdStore[0] + `", "` + containerdStore[1] + `"]]}`
	case "GET /containers/c/logs", "POST /images/load", "POST /images/create":
		answer = ""
	}
	_, _ = io.WriteString(w, answer)
}

// waitForClose reports the request, and the end of its connection.
func (s *silentEngine) waitForClose(from *bufio.Reader) {
	s.arrived <- struct{}{}
	_, _ = io.Copy(io.Discard, from)
	s.closed <- struct{}{}
}
