package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// What a service has when the suite does not say.
const (
	defaultReady = 30 * time.Second
	defaultStop  = 10 * time.Second
)

const (
	pollInterval   = 50 * time.Millisecond  // between looks at a service that is not ready yet
	probeInterval  = 500 * time.Millisecond // between probes of a HEALTHCHECK that is waited for
	requestTimeout = 5 * time.Second        // of one request to a service
	silentPort     = 250 * time.Millisecond // after this a connection that is not closed is one to the service
)

// server is a service under test.
type server struct {
	*dockerengine.Container
	run *run
	t   *Test
}

// service starts the image as it is and does the steps.
func (r *run) service(ctx context.Context, t *Test) ([]Failure, []byte) {
	spec := r.spec(t)
	spec.Cmd, spec.Publish = t.Service.Command, t.ports()
	if t.Service.Ready != nil && t.Service.Ready.Healthy {
		spec.HealthInterval = probeInterval
	}
	c, err := r.Engine.Create(ctx, spec)
	if err != nil {
		return r.broke(ctx, t.Service.Line, err), nil
	}
	defer r.remove(ctx, &box{Container: c})
	s := &server{c, r, t}
	failures := s.perform(ctx)
	var log []byte
	if len(failures) > 0 {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		seen, err := s.logs(last)
		if log = seen.all(); err == nil && failures[0].Detail == "" {
			failures[0].Detail = excerpt(string(log))
		}
	}
	return failures, log
}

// ports are those that the checks ask.
func (t *Test) ports() []int {
	var ports []int
	add := func(port int) {
		if port != 0 && !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	if ready := t.Service.Ready; ready != nil {
		add(ready.Port)
		if ready.HTTP != nil {
			add(ready.HTTP.Port)
		}
	}
	for _, step := range t.Service.Steps {
		if step.HTTP != nil {
			add(step.HTTP.Port)
		}
	}
	return ports
}

func (s *server) perform(ctx context.Context) []Failure {
	if err := s.Start(ctx); err != nil {
		return s.run.broke(ctx, s.t.Service.Line, err)
	}
	if failures := s.ready(ctx); len(failures) > 0 {
		return failures
	}
	for i := range s.t.Service.Steps {
		if failures := s.step(ctx, &s.t.Service.Steps[i]); len(failures) > 0 {
			return failures
		}
	}
	return nil
}

// ready waits until the service has started.
func (s *server) ready(ctx context.Context) []Failure {
	r := s.t.Service.Ready
	if r == nil {
		return nil
	}
	within := time.Duration(r.Within)
	if within == 0 {
		within = defaultReady
	}
	failures := s.until(ctx, within, r.Line, func() []Failure {
		state, err := s.Inspect(ctx)
		switch {
		case err != nil:
			return s.run.broke(ctx, r.Line, err)
		case !state.Running:
			return []Failure{{Line: r.Line, Message: fmt.Sprintf("the service ended by itself, with exit code %d", state.ExitCode)}}
		case r.Healthy && state.Health == "":
			return []Failure{{Line: r.Line, Message: "the image has no HEALTHCHECK: add one, or write port, http or log"}}
		case r.Healthy && state.Health != "healthy":
			return []Failure{{Line: r.Line, Message: "its HEALTHCHECK says " + state.Health, Detail: excerpt(state.Probe)}}
		}
		if r.Port != 0 {
			if err := accepts(ctx, state.Ports[r.Port]); err != nil {
				return []Failure{{Line: r.Line, Message: fmt.Sprintf("port %d accepts no connection: %v", r.Port, err)}}
			}
		}
		if r.HTTP != nil {
			if failures := s.http(ctx, state, r.HTTP); len(failures) > 0 {
				return failures
			}
		}
		if r.Log != nil {
			seen, err := s.logs(ctx)
			if err != nil {
				return s.run.broke(ctx, r.Log.Line, err)
			}
			if all := seen.all(); !r.Log.Match(all) {
				return []Failure{{Line: r.Log.Line, Message: "the log does not match " + strconv.Quote(r.Log.String()), Detail: excerpt(string(all))}}
			}
		}
		return nil
	})
	if len(failures) > 0 && ctx.Err() == nil {
		failures[0].Message = fmt.Sprintf("not ready within %s: %s", within, failures[0].Message)
	}
	return failures
}

// until tries until nothing fails, and answers what failed last when the time has passed or the service has ended. Within it begins to try
// again: a try that was begun is never broken off but by the test's own end. A time of 0 is one try.
func (s *server) until(ctx context.Context, within time.Duration, line int, try func() []Failure) []Failure {
	passed := time.After(within)
	for ended := false; ; {
		failures := try()
		switch {
		case ctx.Err() != nil && len(failures) > 0:
			return s.run.broke(ctx, line, context.Cause(ctx))
		case len(failures) == 0, within == 0, ended:
			return failures
		}
		if state, err := s.Inspect(ctx); err != nil || !state.Running {
			ended = true // the service, or the engine: one more, which sees that
			continue
		}
		select {
		case <-ctx.Done():
			broke := s.run.broke(ctx, line, context.Cause(ctx))
			broke[0].Message += "; by then: " + failures[0].Message
			broke[0].Detail = failures[0].Detail
			return broke
		case <-passed:
			return failures
		case <-time.After(pollInterval):
		}
	}
}

func (s *server) step(ctx context.Context, step *step) []Failure {
	switch {
	case step.Run != nil:
		return s.until(ctx, time.Duration(step.Within), step.Line, func() []Failure {
			var seen transcript
			exit, err := s.Exec(ctx, dockerengine.ExecSpec{
				Cmd: step.Run.args, User: string(step.User), Env: pairs(step.Env), WorkDir: step.Workdir, Streams: seen.streams(),
			})
			if err != nil {
				return withOutput(s.run.broke(ctx, step.Line, err), &seen)
			}
			return s.run.compare(&step.command, exit, &seen)
		})
	case step.HTTP != nil:
		return s.until(ctx, time.Duration(step.Within), step.Line, func() []Failure {
			state, err := s.Inspect(ctx)
			if err != nil {
				return s.run.broke(ctx, step.Line, err)
			}
			return s.http(ctx, state, step.HTTP)
		})
	case step.Logs != nil:
		return s.until(ctx, time.Duration(step.Within), step.Line, func() (failures []Failure) {
			seen, err := s.logs(ctx)
			if err != nil {
				return s.run.broke(ctx, step.Line, err)
			}
			if step.Logs.Stdout != nil {
				failures = append(failures, step.Logs.Stdout.check("the log's stdout", seen.out.String(), s.run.dir)...)
			}
			if step.Logs.Stderr != nil {
				failures = append(failures, step.Logs.Stderr.check("the log's stderr", seen.err.String(), s.run.dir)...)
			}
			return failures
		})
	case step.Restart:
		if err := s.Restart(ctx, defaultStop); err != nil {
			return s.run.broke(ctx, step.Line, err)
		}
		failures := s.ready(ctx)
		for i := range failures {
			failures[i].Message = "after the restart: " + failures[i].Message
		}
		return failures
	}
	return s.stop(ctx, step.Stop)
}

// stop asks the service to end, and looks at how it did.
func (s *server) stop(ctx context.Context, want *stop) []Failure {
	within := time.Duration(want.Within)
	if within == 0 {
		within = defaultStop
	}
	began := time.Now()
	var err error
	if want.Signal == "" {
		err = s.Stop(ctx, within)
	} else if err = s.Kill(ctx, strings.TrimPrefix(want.Signal, "SIG")); err == nil {
		bounded, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		_, err = s.Wait(bounded)
		if err != nil && ctx.Err() == nil && bounded.Err() != nil {
			return []Failure{{Line: want.Line, Message: fmt.Sprintf("it did not end within %s of the signal %s", within, want.Signal)}}
		}
	}
	took := time.Since(began)
	if err != nil {
		return s.run.broke(ctx, want.Line, err)
	}
	state, err := s.Inspect(ctx)
	switch {
	case err != nil:
		return s.run.broke(ctx, want.Line, err)
	case took > within && state.ExitCode == 137 && want.Exit != 137:
		return []Failure{{Line: want.Line, Message: fmt.Sprintf("it did not end within %s, and was killed", within)}}
	case took > within:
		return []Failure{{Line: want.Line, Message: fmt.Sprintf("it took %s to end, longer than %s", took.Round(time.Millisecond), within)}}
	case state.ExitCode != want.Exit:
		return []Failure{{Line: want.Line, Message: fmt.Sprintf("it ended with exit code %d, want %d", state.ExitCode, want.Exit)}}
	}
	return nil
}

// logs are what the container has printed so far, or the newest of it.
func (s *server) logs(ctx context.Context) (*transcript, error) {
	seen := new(transcript)
	err := s.Logs(ctx, false, seen.streams())
	if errors.Is(err, errTooMuch) {
		err = nil
	}
	return seen, err
}

// accepts says whether a service, and not only the engine's proxy, accepts connections at an address: the proxy closes one to a port where
// nobody listens.
func accepts(ctx context.Context, address string) error {
	if address == "" {
		return errors.New("the engine did not publish it")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(silentPort))
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the connection was closed at once (%w)", err)
	}
	return nil
}

// http asks and holds the answer against c.
func (s *server) http(ctx context.Context, state dockerengine.State, c *httpCheck) []Failure {
	method, path, status := c.Method, c.Path, c.Status
	if method == "" {
		method = http.MethodGet
	}
	if path == "" {
		path = "/"
	}
	if status == 0 {
		status = http.StatusOK
	}
	fail := func(format string, args ...any) []Failure {
		return []Failure{{Line: c.Line, Message: fmt.Sprintf("%s %s on port %d: %s", method, path, c.Port, fmt.Sprintf(format, args...))}}
	}
	address := state.Ports[c.Port]
	if address == "" {
		return fail("the service does not run, or the engine did not publish the port")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
	if err != nil {
		return fail("%v", err)
	}
	for name, value := range c.Request {
		request.Header.Set(name, string(value))
		if http.CanonicalHeaderKey(name) == "Host" {
			request.Host = string(value)
		}
	}
	client := http.Client{
		// No proxy: the address is our own.
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return fail("%v", err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if n, err := io.Copy(&body, io.LimitReader(response.Body, maxOutput+1)); err != nil {
		return fail("the answer broke off: %v", err)
	} else if n > maxOutput {
		return fail("the answer is longer than %d MiB", maxOutput>>20)
	}
	var failures []Failure
	if response.StatusCode != status {
		failures = fail("the status is %d, want %d", response.StatusCode, status)
		failures[0].Detail = excerpt(body.String())
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		want := c.Headers[name]
		_, there := response.Header[http.CanonicalHeaderKey(name)]
		if wrong := want.compare(response.Header.Get(name), there); wrong != "" {
			failures = append(failures, fail("the header %s %s", name, wrong)...)
		}
	}
	if c.Body != nil {
		failures = append(failures, c.Body.check(fmt.Sprintf("the body of %s %s", method, path), body.String(), s.run.dir)...)
	}
	return failures
}
