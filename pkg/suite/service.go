package suite

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Default time limits of a service.
const (
	defaultReadyTimeout = 30 * time.Second
	defaultStopTimeout  = 10 * time.Second
)

const (
	pollInterval   = 50 * time.Millisecond // between retries of a check
	requestTimeout = 5 * time.Second       // of one request to a service
)

// runningService is a service under test.
type runningService struct {
	Instance
	run *run
	t   *Test
}

// runService starts the image as a service and performs the steps. It returns the failures and, if there are any, the
// service's log.
func (r *run) runService(ctx context.Context, t *Test, own **testInstance) ([]Failure, []byte) {
	spec := r.instanceSpec(t)
	spec.Kind, spec.Args, spec.Ports = ServiceInstance, t.Service.Command, t.ports()
	spec.Health = t.Service.Ready != nil && t.Service.Ready.Healthy
	c, err := r.Target.Create(ctx, spec)
	if err != nil {
		return executionFailure(ctx, t.Service.Line, err), nil
	}
	*own = &testInstance{Instance: c}
	s := &runningService{Instance: c, run: r, t: t}
	failures := s.perform(ctx)
	if len(failures) == 0 || failures[0].skip || isCanceled(ctx) {
		return failures, nil
	}
	logCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout) // the test may have timed out
	defer cancel()
	log := tail{limit: maxOutput}
	err = s.Logs(logCtx, false, Streams{Out: &log, Err: &log})
	if err == nil && failures[0].Detail == "" && len(log.kept) > 0 {
		failures[0].Detail = excerpt(log.bytes())
	}
	return failures, log.bytes()
}

// ports returns the ports to which the checks connect.
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

// perform starts the service, waits until it is ready, and performs the steps up to the first failure.
func (s *runningService) perform(ctx context.Context) []Failure {
	if err := s.Start(ctx); err != nil {
		return executionFailure(ctx, s.t.Service.Line, err)
	}
	if failures := s.waitUntilReady(ctx); len(failures) > 0 {
		return failures
	}
	for i := range s.t.Service.Steps {
		if failures := s.performStep(ctx, &s.t.Service.Steps[i]); len(failures) > 0 {
			return failures
		}
	}
	return nil
}

func (s *runningService) waitUntilReady(ctx context.Context) []Failure {
	r := s.t.Service.Ready
	if r == nil {
		return nil
	}
	within := time.Duration(r.Within)
	if within == 0 {
		within = defaultReadyTimeout
	}
	failures := s.retry(ctx, within, r.Line, func() []Failure { return s.checkReady(ctx, r) })
	if len(failures) > 0 && !failures[0].skip && ctx.Err() == nil {
		failures[0].Message = fmt.Sprintf("not ready within %s: %s", within, failures[0].Message)
	}
	return failures
}

// checkReady checks the readiness conditions once and returns the failure of the first that is not met.
func (s *runningService) checkReady(ctx context.Context, r *ReadinessCheck) []Failure {
	fail := func(line int, detail, format string, args ...any) []Failure {
		return []Failure{{Line: line, Message: fmt.Sprintf(format, args...), Detail: detail}}
	}
	state, err := s.State(ctx)
	switch {
	case err != nil:
		return executionFailure(ctx, r.Line, err)
	case r.Exit != nil && state.Running:
		return fail(r.Line, "", "service has not exited")
	case r.Exit != nil && state.ExitCode != *r.Exit:
		return fail(r.Line, "", "service exited with code %d, want %d", state.ExitCode, *r.Exit)
	case r.Exit == nil && !state.Running && state.ExitCode == 0:
		return fail(r.Line, "", "service exited with code 0 (set exit: 0 if it is ready when it exits)")
	case r.Exit == nil && !state.Running:
		return fail(r.Line, "", "service exited with code %d", state.ExitCode)
	case r.Healthy && state.Health == "":
		return fail(r.Line, "", "image has no HEALTHCHECK; add one, or use port, http or log")
	case r.Healthy && state.Health != "healthy":
		return fail(r.Line, excerpt(state.Probe), "HEALTHCHECK reports %s", state.Health)
	}
	if r.Port != 0 {
		if err := s.CheckPort(ctx, r.Port); err != nil {
			return fail(r.Line, "", "port %d does not accept connections: %v", r.Port, err)
		}
	}
	if r.HTTP != nil {
		if failures := s.checkHTTP(ctx, r.HTTP); len(failures) > 0 {
			return failures
		}
	}
	if r.Log != nil {
		log := tail{limit: maxLog}
		if err := s.Logs(ctx, true, Streams{Out: &log, Err: &log}); err != nil {
			return executionFailure(ctx, r.Log.Line, err)
		}
		if printed := log.bytes(); !r.Log.Match(printed) {
			return fail(r.Log.Line, excerpt(printed), "%s", r.Log.mismatch("log", string(printed)))
		}
	}
	return nil
}

// retry calls try until it returns no failures. It returns the last failures when within has passed or the service has
// exited. No call starts after within, but only the end of ctx interrupts one. If within is 0, it calls try once.
func (s *runningService) retry(ctx context.Context, within time.Duration, line int, try func() []Failure) []Failure {
	expired := time.After(within)
	for exited := false; ; {
		began := time.Now()
		failures := try()
		switch {
		case ctx.Err() != nil && len(failures) > 0:
			return executionFailure(ctx, line, context.Cause(ctx))
		case len(failures) == 0, within == 0, exited, failures[0].skip:
			return failures
		}
		if state, err := s.State(ctx); err != nil || !state.Running {
			exited = true // try once more, with the final state
			continue
		}
		select {
		case <-ctx.Done():
			timedOut := executionFailure(ctx, line, context.Cause(ctx))
			timedOut[0].Message += "; last failure: " + failures[0].Message
			timedOut[0].Detail = failures[0].Detail
			return timedOut
		case <-expired:
			return failures
		case <-time.After(max(pollInterval, time.Since(began))): // a long log takes longer to read
		}
	}
}

func (s *runningService) performStep(ctx context.Context, step *Step) []Failure {
	within := time.Duration(step.Within)
	switch {
	case step.Run != nil:
		return s.retry(ctx, within, step.Line, func() []Failure { return s.runCommand(ctx, step) })
	case step.HTTP != nil:
		return s.retry(ctx, within, step.Line, func() []Failure { return s.checkHTTP(ctx, step.HTTP) })
	case step.Logs != nil:
		return s.retry(ctx, within, step.Line, func() []Failure { return s.checkLogs(ctx, step) })
	case step.Restart:
		if ready := s.t.Service.Ready; ready == nil || ready.Exit == nil {
			if failures := s.checkRunning(ctx, step.Line); len(failures) > 0 {
				return failures
			}
		}
		if err := s.Restart(ctx, defaultStopTimeout); err != nil {
			return executionFailure(ctx, step.Line, err)
		}
		failures := s.waitUntilReady(ctx)
		if len(failures) > 0 && failures[0].skip {
			return failures
		}
		for i := range failures {
			failures[i].Message = "after the restart: " + failures[i].Message
		}
		return failures
	}
	return s.checkStop(ctx, step.Stop)
}

func (s *runningService) runCommand(ctx context.Context, step *Step) []Failure {
	var printed transcript
	exit, err := printed.exitOf(s.Exec(ctx, Process{
		Args: step.Run.Args, User: string(step.User), Env: environ(step.Env), WorkDir: step.Workdir,
	}, printed.streams()))
	if err != nil {
		failures := executionFailure(ctx, step.Line, err)
		if state, err := s.State(ctx); err == nil && !state.Running {
			failures[0].Message = fmt.Sprintf("service exited with code %d before or during the command", state.ExitCode)
		}
		return withOutput(failures, &printed)
	}
	return s.run.checkCommand(&step.CommandCheck, exit, &printed)
}

func (s *runningService) checkLogs(ctx context.Context, step *Step) (failures []Failure) {
	stdout, stderr := tail{limit: maxLog}, tail{limit: maxLog}
	err := s.Logs(ctx, false, Streams{Out: &stdout, Err: &stderr})
	if err != nil {
		return executionFailure(ctx, step.Line, err)
	}
	if check := step.Logs.Stdout; check != nil {
		failures = append(failures, check.check("stdout of the log", string(stdout.bytes()), s.run.suiteDir)...)
	}
	if check := step.Logs.Stderr; check != nil {
		failures = append(failures, check.check("stderr of the log", string(stderr.bytes()), s.run.suiteDir)...)
	}
	return failures
}

// checkRunning returns a failure if the service has exited. Otherwise a stop or a restart would hide a crash.
func (s *runningService) checkRunning(ctx context.Context, line int) []Failure {
	state, err := s.State(ctx)
	switch {
	case err != nil:
		return executionFailure(ctx, line, err)
	case !state.Running:
		return []Failure{{Line: line, Message: fmt.Sprintf("service has already exited with code %d", state.ExitCode)}}
	}
	return nil
}

// checkStop stops the service and checks the duration and the exit code.
func (s *runningService) checkStop(ctx context.Context, want *StopCheck) []Failure {
	within := time.Duration(want.Within)
	if within == 0 {
		within = defaultStopTimeout
	}
	fail := func(format string, args ...any) []Failure {
		return []Failure{{Line: want.Line, Message: fmt.Sprintf(format, args...)}}
	}
	if failures := s.checkRunning(ctx, want.Line); len(failures) > 0 {
		return failures
	}
	started := time.Now()
	var err error
	if want.Signal == "" {
		err = s.Stop(ctx, within)
	} else if err = s.Kill(ctx, strings.TrimPrefix(want.Signal, "SIG")); err == nil {
		waitCtx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		_, err = s.Wait(waitCtx)
		if err != nil && ctx.Err() == nil && waitCtx.Err() != nil {
			return fail("service did not exit within %s of signal %s", within, want.Signal)
		}
	}
	took := time.Since(started)
	if err != nil {
		return executionFailure(ctx, want.Line, err)
	}
	state, err := s.State(ctx)
	switch {
	case err != nil:
		return executionFailure(ctx, want.Line, err)
	case took > within && state.ExitCode == exitKilled && want.Exit != exitKilled:
		return fail("service did not exit within %s and was killed", within)
	case took > within:
		return fail("service took %s to exit, want at most %s", took.Round(time.Millisecond), within)
	case state.ExitCode != want.Exit:
		return fail("service exited with code %d, want %d", state.ExitCode, want.Exit)
	}
	return nil
}

// maxLog is the maximum size of a log that is searched, in bytes. It is more than the engine keeps.
const maxLog = 32 << 20

// tail keeps the last bytes that are written to it.
type tail struct {
	limit int
	kept  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*t.limit {
		t.kept = append(t.kept[:0], t.bytes()...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte { return t.kept[max(0, len(t.kept)-t.limit):] }

// checkHTTP sends a request and checks the response.
func (s *runningService) checkHTTP(ctx context.Context, c *HTTPCheck) []Failure {
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
		message := fmt.Sprintf("%s %s on port %d: ", method, path, c.Port) + fmt.Sprintf(format, args...)
		return []Failure{{Line: c.Line, Message: message}}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://service"+path, nil)
	if err != nil {
		return fail("%v", err)
	}
	request.Host = "" // that of the target
	for name, value := range c.Request {
		request.Header.Set(name, string(value))
		if http.CanonicalHeaderKey(name) == "Host" {
			request.Host = string(value)
		}
	}
	response, err := s.Send(c.Port, request)
	switch {
	case isUnsupported(err):
		return executionFailure(ctx, c.Line, err)
	case err != nil:
		return fail("%v", err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if n, err := io.Copy(&body, io.LimitReader(response.Body, maxOutput+1)); err != nil {
		return fail("read the response: %v", err)
	} else if n > maxOutput {
		return fail("response is larger than %d MiB", maxOutput>>20)
	}
	var failures []Failure
	if response.StatusCode != status {
		failures = fail("status is %d, want %d", response.StatusCode, status)
		failures[0].Detail = excerpt(body.String())
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		want := c.Headers[name]
		_, present := response.Header[http.CanonicalHeaderKey(name)]
		if difference := want.compare(response.Header.Get(name), present); difference != "" {
			failures = append(failures, fail("header %s %s", name, difference)...)
		}
	}
	if c.Body != nil {
		name := fmt.Sprintf("body of %s %s", method, path)
		failures = append(failures, c.Body.check(name, body.String(), s.run.suiteDir)...)
	}
	return failures
}
