package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// fakeAPI responds to requests by "METHOD /path" without the API version, and to all others with 404.
type fakeAPI struct {
	answers map[string]string // JSON; "!CODE text" for an error

	mutex    sync.Mutex
	requests []string
}

func (f *fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	path := r.Method + " " + strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/v1.41"), "/v1.50")
	f.mutex.Lock()
	f.requests = append(f.requests, path)
	answer, ok := f.answers[path]
	f.mutex.Unlock()
	status := http.StatusOK
	if !ok {
		answer, status = `{"message":"no such thing"}`, http.StatusNotFound
	} else if code, text, isError := strings.Cut(answer, " "); isError && strings.HasPrefix(code, "!") {
		if _, err := fmt.Sscanf(code, "!%d", &status); err != nil {
			return nil, err
		}
		answer = fmt.Sprintf(`{"message":%q}`, text)
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(answer)),
	}, nil
}

func (f *fakeAPI) engine(t *testing.T) *Engine { return engineOn(t, f.RoundTrip) }

func TestReadsZstd(t *testing.T) {
	for version, want := range map[string]bool{"1.41": false, "1.42": true, "1.50": true} {
		api, err := client.New(client.WithHost("tcp://engine:2375"), client.WithAPIVersion(version))
		if err != nil {
			t.Fatal(err)
		}
		if got := (&Engine{client: api}).readsZstd(); got != want {
			t.Errorf("API %s: %t, want %t", version, got, want)
		}
	}
}

func TestImageID(t *testing.T) {
	for _, test := range []struct {
		name, answer, want string
		fails              bool
	}{
		{"image", `{"Id":"sha256:1"}`, "sha256:1", false},
		{"no image", "!404 no such image", "", false},
		{"failure", "!500 broken", "", true},
	} {
		api := &fakeAPI{answers: map[string]string{"GET /images/app:1/json": test.answer}}
		got, err := api.engine(t).ImageID(t.Context(), "app:1")
		if got != test.want || (err != nil) != test.fails {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
}

func TestInfo(t *testing.T) {
	const version = `{"Os":"linux","Arch":"arm64"}`
	for _, test := range []struct {
		name, info string
		want       Info
	}{
		{
			"containerd", `{"ServerVersion":"29.1.0","Driver":"overlayfs","Name":"a","DockerRootDir":"/d",
				"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}`,
			Info{"29.1.0", "linux/arm64", "containerd", "a", "/d"},
		},
		{
			"graph driver", `{"ServerVersion":"20.10.24","Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]]}`,
			Info{"20.10.24", "linux/arm64", "overlay2", "", ""},
		},
	} {
		api := &fakeAPI{answers: map[string]string{"GET /info": test.info, "GET /version": version}}
		if got, err := api.engine(t).Info(t.Context()); err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, test.want)
		}
	}
	api := &fakeAPI{answers: map[string]string{"GET /info": "!403 denied"}}
	if _, err := api.engine(t).Info(t.Context()); err == nil || !strings.Contains(err.Error(), "denied") {
		t.Errorf("got %v, want the engine's error", err)
	}
}

// Both engines say what they are.
func TestInfoOfEngine(t *testing.T) {
	onEachEngine(t, func(t *testing.T, kind string, e *Engine) {
		store := map[string]string{engine.Current: "containerd", engine.Oldest: "overlay2"}[kind]
		info, err := e.Info(t.Context())
		if err != nil || info.Store != store || info.Version == "" || info.Dir == "" || info.Host == "" ||
			info.Platform != "linux/"+runtime.GOARCH || e.From != "DOCKER_HOST" {
			t.Errorf("got %+v of %s, %v", info, e.From, err)
		}
	})
}

func TestClassifyError(t *testing.T) {
	e := &Engine{Host: "unix:///engine.sock"}
	cause := errors.New("the test ended")
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	plain := errors.New("broken")
	for _, test := range []struct {
		name string
		ctx  context.Context
		err  error
		is   error
		hint string
	}{
		{"context ended", canceled, plain, cause, ""},
		{"context ended without an error", canceled, nil, cause, ""},
		{"deadline of a step", t.Context(), fmt.Errorf("get: %w", context.DeadlineExceeded), nil, e.Host},
		{"other", t.Context(), plain, plain, ""},
	} {
		err := e.classifyError(test.ctx, test.err)
		if err == nil || test.is != nil && err != test.is || !strings.Contains(err.Error(), test.hint) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if err := e.classifyError(t.Context(), nil); err != nil {
		t.Errorf("classifyError(nil) returned %v", err)
	}
}

func TestWithDiskHint(t *testing.T) {
	for text, hinted := range map[string]bool{
		"write /x: no space left on device": true, "write /x: disk quota exceeded": true, "open /x: permission denied": false,
	} {
		err := withDiskHint(&engineError{text})
		if strings.Contains(err.Error(), "docker system prune") != hinted || !errors.As(err, new(*engineError)) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := withDiskHint(nil); err != nil {
		t.Error(err)
	}
}

func TestIdleTimer(t *testing.T) {
	for _, last := range []peer{peerSource, peerEngine} {
		ctx, cancel := context.WithCancelCause(t.Context())
		idle := newIdleTimer(time.Hour, cancel)
		idle.touch(peerSource)
		idle.touch(last)
		if ctx.Err() != nil {
			t.Fatal("canceled before the timeout")
		}
		idle.timer.Reset(0)
		<-ctx.Done()
		err := new(idleError)
		if !errors.As(context.Cause(ctx), &err) || err.peer != last || err.timeout != time.Hour {
			t.Errorf("got %+v, want %s", context.Cause(ctx), last)
		}
	}
	stopped, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	idle := newIdleTimer(time.Hour, cancel)
	idle.stop()
	if idle.timer.Stop() || stopped.Err() != nil {
		t.Error("the stopped timer canceled the context")
	}
}

// Reads of the engine are repeated after failures that may pass.
func TestReadsAreRetried(t *testing.T) {
	const ok = `{"Id":"sha256:a","Os":"linux","Arch":"amd64","DriverStatus":[]}`
	reset := errors.New("connection reset by peer")
	for _, test := range []struct {
		name     string
		answers  []string // the last one repeats; "" is a reset
		requests int
		fails    bool
	}{
		{"success", []string{ok}, 1, false},
		{"server error", []string{"!500 starting", "!503 starting", ok}, 3, false},
		{"reset", []string{"", ok}, 2, false},
		{"persistent server error", []string{"!500 broken"}, 4, true},
		{"denied", []string{"!403 denied"}, 1, true},
	} {
		for path, read := range map[string]func(context.Context, *Engine) error{
			"GET /version":       func(ctx context.Context, e *Engine) error { _, err := e.Platform(ctx); return err },
			"GET /images/a/json": func(ctx context.Context, e *Engine) error { _, err := e.ImageID(ctx, "a"); return err },
		} {
			synctest.Test(t, func(t *testing.T) { // does not wait
				api := &fakeAPI{answers: map[string]string{}}
				e := engineOn(t, func(r *http.Request) (*http.Response, error) {
					answer := test.answers[min(len(api.requests), len(test.answers)-1)]
					api.answers[path] = answer
					response, err := api.RoundTrip(r)
					if answer == "" {
						return nil, reset
					}
					return response, err
				})
				if err := read(t.Context(), e); (err != nil) != test.fails {
					t.Errorf("%s, %s: %v", test.name, path, err)
				}
				if n := len(api.requests); n != test.requests {
					t.Errorf("%s, %s: %d requests, want %d", test.name, path, n, test.requests)
				}
			})
		}
	}
}
