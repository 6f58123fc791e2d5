package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// prints returns a command, also used as the log, that prints the given text to each stream and exits with 0.
func prints(stdout, stderr string) func(*fakeContainer, []string, io.Writer, io.Writer) (int, error) {
	return func(_ *fakeContainer, _ []string, out, err io.Writer) (int, error) {
		_, _ = io.WriteString(out, stdout)
		_, _ = io.WriteString(err, stderr)
		return 0, nil
	}
}

// The first condition that is not met is reported.
func TestReadiness(t *testing.T) {
	running := dockerengine.State{Running: true}
	for _, test := range []struct {
		name, ready string
		state       dockerengine.State
		want        string
	}{
		{"exited", "log: up", dockerengine.State{ExitCode: 3}, "not ready within 30s: service exited with code 3"},
		{
			"exited with 0", "log: up", dockerengine.State{},
			"not ready within 30s: service exited with code 0 (set exit: 0 if it is ready when it exits)",
		},
		{"exited with another code", "exit: 0", dockerengine.State{ExitCode: 3},
			"not ready within 30s: service exited with code 3, want 0"},
		{"not exited", "exit: 0, within: 1ms", running, "not ready within 1ms: service has not exited"},
		{"exited as expected", "exit: 3, log: up", dockerengine.State{ExitCode: 3}, ""},
		{
			"no HEALTHCHECK", "healthy: true, within: 1ms", running,
			"not ready within 1ms: image has no HEALTHCHECK; add one, or use port, http or log",
		},
		{
			"unhealthy", "healthy: true, within: 1ms", dockerengine.State{Running: true, Health: "starting", Probe: "no answer"},
			"not ready within 1ms: HEALTHCHECK reports starting",
		},
		{"healthy", "healthy: true", dockerengine.State{Running: true, Health: "healthy"}, ""},
		{
			"port not published", "port: 8080, within: 1ms", running,
			"not ready within 1ms: port 8080 does not accept connections: port is not published by the engine",
		},
		{
			"HTTP port not published", "http: {port: 8080}, within: 1ms", running,
			"not ready within 1ms: GET / on port 8080: service is not running, or the engine did not publish the port",
		},
		{"other log", "log: ^up$, within: 1ms", running, `not ready within 1ms: log does not match "^up$"`},
		{"log on stdout", "log: server up", running, ""},
		{"log on stderr", "log: warning", running, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &fakeEngine{
				command: prints("server up\n", "warning\n"),
				state:   func(*fakeContainer) dockerengine.State { return test.state },
			}
			r := runOnFake(t, e, parse(t, "tests: [{name: a, service: {ready: {"+test.ready+"}}}]", nil), Options{})
			if got := r.Tests[0].summary(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A failed service shows its log, or the output of its HEALTHCHECK.
func TestServiceFailureDetails(t *testing.T) {
	for ready, want := range map[string]string{
		"healthy: true, within: 1ms": "no answer", "port: 8080, within: 1ms": "log\n",
	} {
		e := &fakeEngine{command: prints("log\n", ""), state: func(*fakeContainer) dockerengine.State {
			return dockerengine.State{Running: true, Health: "unhealthy", Probe: "no answer"}
		}}
		r := runOnFake(t, e, parse(t, "tests: [{name: a, service: {ready: {"+ready+"}}}]", nil), Options{})
		if got := r.Tests[0].Failures[0].Detail; got != want {
			t.Errorf("%s: got %q, want %q", ready, got, want)
		}
	}
}

func TestSteps(t *testing.T) {
	for _, test := range []struct {
		name, steps string
		exits       []int // of the commands; the log is printed by the same function
		calls       []string
		want        string
	}{
		{"first failure ends the test", "[{run: [a]}, {run: [b]}, {run: [c]}]", []int{0, 1}, []string{"exec a", "exec b"},
			"exit code is 1, want 0"},
		{"retried until it passes", "[{run: [a], within: 1m}]", []int{1, 1, 0}, []string{"exec a", "exec a", "exec a"}, ""},
		{"not retried", "[{run: [a]}]", []int{1, 0}, []string{"exec a"}, "exit code is 1, want 0"},
		{"restarted and ready", "[{restart: true}, {run: [a]}]", []int{0}, []string{"restart 10s", "exec a"}, ""},
		{"log", "[{logs: {stdout: ^output, stderr: {equals: ''}}}]", []int{0}, nil, ""},
		{"wrong log", "[{logs: {stdout: {equals: x}}}]", []int{0}, nil, "stdout of the log differs from equals"},
		{"wrong error log", "[{logs: {stderr: x}}]", []int{0}, nil, `stderr of the log does not match "x"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := "tests: [{name: a, service: {steps: " + test.steps + "}}]"
			e := &fakeEngine{command: exits(test.exits...)}
			r := runOnFake(t, e, parse(t, text, nil), Options{})
			if got := r.Tests[0].summary(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if calls := e.containers[0].calls[1:]; !slices.Equal(calls, test.calls) {
				t.Errorf("got calls %q, want %q", calls, test.calls)
			}
		})
	}
}

func TestStepSettings(t *testing.T) {
	e := &fakeEngine{command: exits(0)}
	const text = "tests: [{name: a, service: {steps: [{run: [x], user: u, workdir: /w, env: {A: 1}}]}}]"
	runOnFake(t, e, parse(t, text, nil), Options{})
	got := e.containers[0].execs[0]
	if got.User != "u" || got.WorkDir != "/w" || !slices.Equal(got.Env, []string{"A=1"}) || got.TTY {
		t.Errorf("%+v", got)
	}
}

func TestNotReadyAfterRestart(t *testing.T) {
	inspected := 0
	e := &fakeEngine{command: prints("up", ""), state: func(*fakeContainer) dockerengine.State {
		inspected++
		return dockerengine.State{Running: inspected == 1, ExitCode: 3}
	}}
	const text = "tests: [{name: a, service: {ready: {log: up}, steps: [{restart: true}]}}]"
	got := runOnFake(t, e, parse(t, text, nil), Options{}).Tests[0].summary()
	if want := "after the restart: not ready within 30s: service exited with code 3"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// After a restart, only the log since then counts.
func TestLogOfEarlierStart(t *testing.T) {
	e := &fakeEngine{command: func(_ *fakeContainer, args []string, out, _ io.Writer) (int, error) {
		if !slices.Equal(args, []string{"logs", "since", restarted.String()}) {
			_, _ = io.WriteString(out, "up")
		}
		return 0, nil
	}}
	const text = "tests: [{name: a, service: {ready: {log: up, within: 1ms}, steps: [{restart: true}]}}]"
	got := runOnFake(t, e, parse(t, text, nil), Options{}).Tests[0].summary()
	if want := `after the restart: not ready within 1ms: log does not match "up"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A long log is reported with its end.
func TestEndOfLongLog(t *testing.T) {
	e := &fakeEngine{command: prints(strings.Repeat("x", maxOutput)+"\nlast line\n", "")}
	const text = "tests: [{name: a, service: {ready: {log: up, within: 1ms}}}]"
	result := runOnFake(t, e, parse(t, text, nil), Options{ReportDir: t.TempDir()}).Tests[0]
	log, err := os.ReadFile(result.Log)
	if err != nil || len(log) != maxOutput || !bytes.HasSuffix(log, []byte("\nlast line\n")) {
		t.Errorf("log of %d bytes, %v", len(log), err)
	}
	if !strings.Contains(result.details(), "last line") {
		t.Errorf("the details lack the end")
	}
}

func TestTail(t *testing.T) {
	log := tail{limit: 3}
	for _, test := range []struct{ write, want string }{
		{"", ""}, {"ab", "ab"}, {"cd", "bcd"}, {"ef", "def"}, {"0123456789", "789"}, {"x", "89x"},
	} {
		if n, err := log.Write([]byte(test.write)); n != len(test.write) || err != nil || string(log.bytes()) != test.want {
			t.Errorf("%q: %d, %v, %q", test.write, n, err, log.bytes())
		}
	}
}

func TestStop(t *testing.T) {
	const late = 20 * time.Millisecond
	atOnce := func(context.Context, *fakeContainer, time.Duration) error { return nil }
	afterGrace := func(context.Context, *fakeContainer, time.Duration) error { time.Sleep(late); return nil }
	never := func(ctx context.Context, _ *fakeContainer, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }
	broken := func(context.Context, *fakeContainer, time.Duration) error { return errors.New("connection lost") }
	for _, test := range []struct {
		name, stop string
		behavior   func(context.Context, *fakeContainer, time.Duration) error
		exit       int
		call       string
		want       string
	}{
		{"in time", "true", atOnce, 0, "stop 10s", ""},
		{"other time", "{within: 5s}", atOnce, 0, "stop 5s", ""},
		{"exit code", "{exit: 7}", atOnce, 7, "stop 10s", ""},
		{"wrong exit code", "true", atOnce, 5, "stop 10s", "service exited with code 5, want 0"},
		{"killed", "{within: 1ms}", afterGrace, 137, "stop 1ms", "service did not exit within 1ms and was killed"},
		{"late", "{within: 1ms}", afterGrace, 0, "stop 1ms", "want at most 1ms"},
		{"expected kill, but late", "{within: 1ms, exit: 137}", afterGrace, 137, "stop 1ms", "want at most 1ms"},
		{"signal", "{signal: SIGINT}", atOnce, 0, "kill INT", ""},
		{"signal without prefix", "{signal: HUP, exit: 1}", atOnce, 1, "kill HUP", ""},
		{"ignored signal", "{signal: TERM, within: 1ms}", never, 0, "kill TERM", "did not exit within 1ms of signal TERM"},
		{"error", "true", broken, 0, "stop 10s", "connection lost"},
		{"error of a signal", "{signal: TERM}", broken, 0, "kill TERM", "connection lost"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &fakeEngine{command: exits(0), stop: test.behavior, state: func(*fakeContainer) dockerengine.State {
				return dockerengine.State{Running: true, ExitCode: test.exit}
			}}
			r := runOnFake(t, e, parse(t, "tests: [{name: a, service: {steps: [{stop: "+test.stop+"}]}}]", nil), Options{})
			got := r.Tests[0].summary()
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if calls := e.containers[0].calls; !slices.Equal(calls, []string{"start", test.call}) {
				t.Errorf("calls: %q", calls)
			}
		})
	}
}

func TestServiceTimeout(t *testing.T) {
	e := &fakeEngine{command: prints("", "")}
	const text = "tests: [{name: a, timeout: 30ms, service: {ready: {log: up, within: 1m}}}]"
	got := runOnFake(t, e, parse(t, text, nil), Options{}).Tests[0].summary()
	if want := "timed out after 30ms and was killed"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// portOf returns the port of a loopback address, and the state of a container that publishes it.
func portOf(t *testing.T, address string) (port int, state func(*fakeContainer) dockerengine.State) {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return port, func(*fakeContainer) dockerengine.State {
		return dockerengine.State{Running: true, Ports: map[int]string{port: address}}
	}
}

func TestHTTPChecks(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/large":
			_, _ = w.Write(make([]byte, maxOutput+1))
		case "/short":
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "x")
		default:
			w.Header().Set("X-Version", "7")
			fmt.Fprintf(w, "%s %s %s %s%s", r.Method, r.URL.Path, r.Host, r.Header.Get("X-Request"),
				r.Header.Get("Accept-Encoding")) // the client requests no compression
		}
	}))
	defer server.Close()
	port, state := portOf(t, server.Listener.Addr().String())
	for _, test := range []struct{ name, check, want string }{
		{"defaults", `body: {equals: "GET / 127.0.0.1:PORT "}`, ""},
		{
			"all", `path: /x, method: POST, request: {X-Request: 1, Host: h}, headers: {X-Version: '7'},
				body: ^POST /x h 1$`, "",
		},
		{"redirect", "path: /moved, status: 302, headers: {Location: /elsewhere}", ""},
		{"redirect not followed", "path: /moved", "GET /moved on port PORT: status is 302, want 200"},
		{"status", "status: 404", "GET / on port PORT: status is 200, want 404"},
		{"header", "headers: {x-version: '8'}", `GET / on port PORT: header x-version is "7", want "8"`},
		{"missing header", "headers: {X-No: x}", `GET / on port PORT: header X-No is not set, want "x"`},
		{"absent header", "headers: {X-Version: null}", `GET / on port PORT: header X-Version is "7", but must not be set`},
		{"body", "body: {exclude: [GET]}", `body of GET / must not match "GET", but contains "GET"`},
		{"too large", "path: /large", "GET /large on port PORT: response is larger than 8 MiB"},
		{"incomplete", "path: /short", "GET /short on port PORT: read the response: unexpected EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := "tests: [{name: a, service: {steps: [{http: {port: PORT, " + test.check + "}}]}}]"
			text = strings.ReplaceAll(text, "PORT", strconv.Itoa(port))
			r := runOnFake(t, &fakeEngine{command: exits(0), state: state}, parse(t, text, nil), Options{})
			want := strings.ReplaceAll(test.want, "PORT", strconv.Itoa(port))
			if got := r.Tests[0].summary(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A port is ready when the service keeps a connection open, and not when only the engine's proxy accepts it.
func TestPortReadiness(t *testing.T) {
	for _, test := range []struct {
		name   string
		handle func(net.Conn)
		ready  bool
	}{
		{"closed at once", func(c net.Conn) { c.Close() }, false},
		{"silent", func(net.Conn) {}, true},
		{"speaks first", func(c net.Conn) { fmt.Fprint(c, "220 ready") }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					test.handle(c)
					defer c.Close()
				}
			}()
			err = checkAcceptsConnections(t.Context(), listener.Addr().String())
			if (err == nil) != test.ready {
				t.Errorf("got %v, want ready %t", err, test.ready)
			}
		})
	}
}
