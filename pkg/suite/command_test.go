package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// exits returns a command that prints the number of the call and exits with the next code, or again with the last one.
func exits(codes ...int) func(*fakeContainer, []string, io.Writer, io.Writer) (int, error) {
	calls := 0
	return func(_ *fakeContainer, _ []string, out, _ io.Writer) (int, error) {
		code := codes[min(calls, len(codes)-1)]
		calls++
		fmt.Fprintf(out, "output %d\n", calls)
		return code, nil
	}
}

// Every setting of a test is applied to its container.
func TestContainerSpec(t *testing.T) {
	minimal := dockerengine.ContainerSpec{
		Image: "sha256:id", Entrypoint: []string{"a"}, Cmd: []string{}, Network: "none", Pids: 512,
		CapDrop: []string{"ALL"}, NoNewPrivileges: true,
	}
	for _, test := range []struct {
		name, text string
		user       string // of the image
		change     func(*dockerengine.ContainerSpec)
	}{
		{"minimal", "run: [a]", "app", func(*dockerengine.ContainerSpec) {}},
		{"image user root", "run: [a]", "root", func(s *dockerengine.ContainerSpec) { s.User = "65534:65534" }},
		{"image user 0", "run: [a]", "0:0", func(s *dockerengine.ContainerSpec) { s.User = "65534:65534" }},
		{"no image user", "run: [a]", "", func(s *dockerengine.ContainerSpec) { s.User = "65534:65534" }},
		{"allowed root", "run: [a], allow_root: true", "root", func(*dockerengine.ContainerSpec) {}},
		{"user", "run: [a], user: 1:2", "root", func(s *dockerengine.ContainerSpec) { s.User = "1:2" }},
		{"command line", "run: a b", "app", func(s *dockerengine.ContainerSpec) {
			s.Entrypoint, s.Cmd = []string{"/bin/sh"}, []string{"-c", "a b"}
		}},
		{"entry point", "run: [a, b], entrypoint: true", "app", func(s *dockerengine.ContainerSpec) {
			s.Entrypoint, s.Cmd = []string{"/entry"}, []string{"x", "a", "b"}
		}},
		{"limits", "run: [a], limits: {memory: 64MiB, cpus: 0.5, pids: 20}", "app", func(s *dockerengine.ContainerSpec) {
			s.Memory, s.CPUs, s.Pids = 64<<20, 0.5, 20
		}},
		{"privileges default", "run: [a], privileges: default", "app", func(s *dockerengine.ContainerSpec) {
			s.CapDrop, s.NoNewPrivileges = nil, false
		}},
		{"privileges all", "run: [a], privileges: all", "app", func(s *dockerengine.ContainerSpec) {
			s.CapDrop, s.NoNewPrivileges, s.Privileged = nil, false, true
		}},
		{"network", "run: [a], network: bridge", "app", func(s *dockerengine.ContainerSpec) { s.Network = "bridge" }},
		{"terminal", "run: [a], tty: true", "app", func(s *dockerengine.ContainerSpec) { s.TTY = true }},
		{"workdir", "run: [a], workdir: /w", "app", func(s *dockerengine.ContainerSpec) { s.WorkDir = "/w" }},
		{"env", "run: [a], env: {B: 2, A: 1}", "app", func(s *dockerengine.ContainerSpec) {
			s.Env = []string{"A=1", "B=2"}
		}},
		{"variables of any name", "run: [a], env: {a.b-c d: 1}", "app", func(s *dockerengine.ContainerSpec) {
			s.Env = []string{"a.b-c d=1"}
		}},
		{
			"expanded", "run: [a, '$HOME/${HOME}', $NO, $$HOME], env: {B: '<$HOME>', C: $B}, expand: true", "app",
			func(s *dockerengine.ContainerSpec) {
				s.Cmd, s.Env = []string{"/h//h", "", "$HOME"}, []string{"B=</h>", "C="}
			},
		},
		{"not expanded", "run: [a, $HOME], env: {B: $HOME}", "app", func(s *dockerengine.ContainerSpec) {
			s.Cmd, s.Env = []string{"$HOME"}, []string{"B=$HOME"}
		}},
		{
			"service, not expanded", "expand: true, env: {B: $HOME}, service: {steps: [{run: b}]}", "app",
			func(s *dockerengine.ContainerSpec) {
				s.Entrypoint, s.Cmd, s.Network, s.Env = nil, nil, "", []string{"B=$HOME"}
			},
		},
		{"service", "service: {command: [x], steps: [{run: b}]}", "root", func(s *dockerengine.ContainerSpec) {
			s.Entrypoint, s.Cmd, s.Network = nil, []string{"x"}, ""
		}},
		{"service user", "user: app, service: {steps: [{run: b}]}", "root", func(s *dockerengine.ContainerSpec) {
			s.Entrypoint, s.Cmd, s.Network, s.User = nil, nil, "", "app"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, err := imageOf(v1.Config{User: test.user, Entrypoint: []string{"/entry", "x"}, Env: []string{"HOME=/h"}})
			if err != nil {
				t.Fatal(err)
			}
			want := minimal
			test.change(&want)
			e := &fakeEngine{command: exits(0)}
			r := runOnFake(t, e, parse(t, "tests: [{name: a, "+test.text+"}]", nil), Options{Image: img, ImageID: "sha256:id"})
			if r.Passed != 1 || len(e.containers) != 1 {
				t.Fatalf("%s: %+v", r.Line(), r.Tests[0].Failures)
			}
			if got := e.containers[0].spec; !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestMountSources(t *testing.T) {
	const text = "tests: [{name: a, run: x, mounts: [{source: fixtures, target: /f}]}]"
	s := parse(t, text, map[string]string{"fixtures/a": ""})
	e := &fakeEngine{command: exits(0)}
	runOnFake(t, e, s, Options{})
	want := []dockerengine.Mount{{Source: filepath.Join(filepath.Dir(s.File), "fixtures"), Target: "/f"}}
	if got := e.containers[0].spec.Mounts; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestServiceSpec(t *testing.T) {
	e := &fakeEngine{command: exits(0), state: func(*fakeContainer) dockerengine.State {
		return dockerengine.State{Running: true, Health: "healthy"}
	}}
	runOnFake(t, e, parse(t, "tests: [{name: a, service: {ready: {healthy: true}}}]", nil), Options{})
	if got := e.containers[0].spec; got.HealthInterval != healthInterval || got.Publish != nil {
		t.Errorf("%+v", got)
	}
	s := parse(t, `tests: [{name: a, service: {ready: {port: 1, http: {port: 2}, within: 1ms}, steps: [{http: {port: 3}},
		{http: {port: 1}}]}}]`, nil)
	e = &fakeEngine{command: exits(0)}
	runOnFake(t, e, s, Options{})
	if got := e.containers[0].spec; !slices.Equal(got.Publish, []int{1, 2, 3}) || got.HealthInterval != 0 {
		t.Errorf("%+v", got)
	}
}

// The commands of a session run in one idle container, each with its own settings.
func TestSessionCommands(t *testing.T) {
	s := parse(t, `
tests:
  - {name: one, session: s, tty: true, workdir: /w, env: {A: 1}, setup: [[first, x], second], run: [third]}
  - {name: two, session: s, user: app, run: [fourth]}
`[1:], nil)
	img, err := imageOf(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEngine{command: exits(0)}
	r := runOnFake(t, e, s, Options{Image: img})
	if r.Passed != 2 || len(e.containers) != 1 {
		t.Fatalf("%s in %d containers", r.Line(), len(e.containers))
	}
	c := e.containers[0]
	wantCalls := []string{"start", "exec first x", "exec /bin/sh -c second", "exec third", "exec fourth"}
	if !slices.Equal(c.calls, wantCalls) {
		t.Errorf("got calls %q, want %q", c.calls, wantCalls)
	}
	command := append(c.spec.Entrypoint, c.spec.Cmd...)
	if !slices.Equal(command, idleCommand) || !c.spec.Stdin || c.spec.TTY || c.spec.WorkDir != "" {
		t.Errorf("container: %+v", c.spec)
	}
	for i, exec := range c.execs[:3] {
		if !exec.TTY || exec.WorkDir != "/w" || exec.User != unprivilegedUser || !slices.Equal(exec.Env, []string{"A=1"}) {
			t.Errorf("command %d: %+v", i, exec)
		}
	}
	if exec := c.execs[3]; exec.TTY || exec.WorkDir != "" || exec.User != "app" || exec.Env != nil {
		t.Errorf("command of the second test: %+v", exec)
	}
}

func TestSetupFailure(t *testing.T) {
	e := &fakeEngine{command: exits(9)}
	r := runOnFake(t, e, parse(t, "tests: [{name: a, setup: [x, y], run: z, exit: 9}]", nil), Options{})
	result := r.Tests[0]
	if result.Status != Failed || result.summary() != "setup command exited with code 9" ||
		result.Failures[0].Detail != "output 1\n" || len(e.containers[0].execs) != 1 {
		t.Errorf("%+v after %q", result, e.containers[0].calls)
	}
}

func TestSetupMayFail(t *testing.T) {
	for _, test := range []struct {
		exit int
		err  error
		want Status
	}{{0, nil, Passed}, {1, nil, Passed}, {127, nil, Passed}, {0, &dockerengine.StartError{Exit: 127}, Failed}} {
		e := &fakeEngine{command: func(_ *fakeContainer, args []string, _, _ io.Writer) (int, error) {
			if args[0] == "z" {
				return 0, nil
			}
			return test.exit, test.err
		}}
		s := parse(t, "tests: [{name: a, setup: [[$HOME]], setup_may_fail: true, expand: true, run: [z]}]", nil)
		if got := runOnFake(t, e, s, Options{}).Tests[0]; got.Status != test.want {
			t.Errorf("exit code %d, %v: %s %q", test.exit, test.err, got.Status, got.summary())
		}
		if got := e.containers[0].execs[0].Cmd; !slices.Equal(got, []string{""}) {
			t.Errorf("setup command is not expanded: %q", got)
		}
	}
}

// After a test breaks a session's container, the next test gets a new one.
func TestSessionReplacesBrokenContainer(t *testing.T) {
	const text = "tests: [{name: one, session: s, run: x}, {name: two, session: s, run: y}]"
	for _, test := range []struct {
		name       string
		exit       int
		err        error
		stopped    bool
		containers int
	}{
		{"passed", 0, nil, false, 1},
		{"failed", 1, nil, false, 1},
		{"failed and stopped the container", 1, nil, true, 2},
		{"interrupted", 0, errors.New("connection lost"), false, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &fakeEngine{
				command: func(_ *fakeContainer, args []string, _, _ io.Writer) (int, error) {
					if slices.Contains(args, "y") {
						return 0, nil
					}
					return test.exit, test.err
				},
				state: func(*fakeContainer) dockerengine.State { return dockerengine.State{Running: !test.stopped} },
			}
			r := runOnFake(t, e, parse(t, text, nil), Options{})
			if len(e.containers) != test.containers || r.Tests[1].Status != Passed {
				t.Errorf("%d containers, want %d; %s", len(e.containers), test.containers, r.Line())
			}
		})
	}
}

func TestOutOfMemory(t *testing.T) {
	for _, test := range []struct {
		name, text string
		exit       int
		oomKilled  bool
		want       string
	}{
		{"out of memory", "", 137, true, "exit code is 137, want 0; out of memory, limits.memory is 33554432 bytes"},
		{"killed", "", 137, false, "exit code is 137, want 0"},
		{"other exit code", "", 1, true, "exit code is 1, want 0"},
		{"expected", ", exit: 137", 137, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &fakeEngine{command: exits(test.exit), state: func(*fakeContainer) dockerengine.State {
				return dockerengine.State{OOMKilled: test.oomKilled}
			}}
			s := parse(t, "tests: [{name: a, run: x, limits: {memory: 32MiB}"+test.text+"}]", nil)
			if got := runOnFake(t, e, s, Options{}).Tests[0].summary(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestInterruptedCommands(t *testing.T) {
	for _, test := range []struct {
		name, text string
		command    func(c *fakeContainer, args []string, out, err io.Writer) (int, error)
		want       string
	}{
		{"error", "run: x", func(*fakeContainer, []string, io.Writer, io.Writer) (int, error) {
			return 0, errors.New("connection lost")
		}, "connection lost"},
		{"output limit", "run: x", func(_ *fakeContainer, _ []string, out, _ io.Writer) (int, error) {
			_, err := out.Write(make([]byte, maxOutput+1))
			return 0, fmt.Errorf("copy: %w", err)
		}, "command printed more than limits.output (default 8 MiB) and was killed"},
		{"session output limit", "session: s, run: x", func(_ *fakeContainer, _ []string, _, stderr io.Writer) (int, error) {
			_, err := stderr.Write(make([]byte, maxOutput+1))
			return 0, fmt.Errorf("copy: %w", err)
		}, "command printed more than limits.output (default 8 MiB) and was killed"},
		{
			"low output limit", "limits: {output: 1KiB}, run: x",
			func(_ *fakeContainer, _ []string, w, _ io.Writer) (int, error) {
				_, err := w.Write(make([]byte, 1025))
				return 0, err
			}, "command printed more than limits.output (default 8 MiB) and was killed",
		},
		{
			"high output limit", "limits: {output: 9MiB}, run: x",
			func(_ *fakeContainer, _ []string, w, _ io.Writer) (int, error) {
				_, err := w.Write(make([]byte, 9<<20))
				return 1, err
			}, "exit code is 1, want 0",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &fakeEngine{command: test.command}
			r := runOnFake(t, e, parse(t, "tests: [{name: a, "+test.text+"}]", nil), Options{})
			if got := r.Tests[0]; got.Status != Failed || got.summary() != test.want {
				t.Errorf("%s: %q, want %q", got.Status, got.summary(), test.want)
			}
		})
	}
}

// A program that cannot be started has an exit code, and its cause on standard error, in every kind of container.
func TestCommandThatCannotStart(t *testing.T) {
	cannotStart := func(_ *fakeContainer, args []string, out, _ io.Writer) (int, error) {
		if !slices.Equal(args, []string{"x"}) {
			return 0, nil
		}
		_, _ = io.WriteString(out, "OCI runtime exec failed")
		return 0, fmt.Errorf("start: %w", &dockerengine.StartError{Exit: 127, Cause: `"x": not found`})
	}
	for _, settings := range []string{"run: [x]", "session: s, run: [x]", "setup: [y], run: [x]"} {
		for checks, want := range map[string]string{
			", exit: 127, stdout: {equals: ''}, stderr: x": "",
			"": `exit code is 127, want 0: cannot execute "x": not found (check the command and the image)`,
		} {
			e := &fakeEngine{command: cannotStart}
			r := runOnFake(t, e, parse(t, "tests: [{name: a, "+settings+checks+"}]", nil), Options{})
			if got := r.Tests[0].summary(); got != want {
				t.Errorf("%s%s: got %q, want %q", settings, checks, got, want)
			}
		}
	}
}

func TestExecutionFailureNamesTimeout(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&timeoutError{1e9})
	got := executionFailure(ctx, 7, errors.New("connection lost"))
	if want := (Failure{Line: 7, Message: "timed out after 1s and was killed"}); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// slowEngine takes longer to create a container than the test's timeout, and records whether the request was
// interrupted.
type slowEngine struct {
	Engine
	interrupted error
}

func (e *slowEngine) Reap(context.Context) (int, error) { return 0, nil }

func (e *slowEngine) Create(ctx context.Context, _ dockerengine.ContainerSpec) (*dockerengine.Container, error) {
	time.Sleep(20 * time.Millisecond)
	e.interrupted = ctx.Err()
	return nil, errors.New("not a real engine")
}

// A timeout does not interrupt the creation of a container, because the container would not be removed.
func TestTimeoutWhileCreating(t *testing.T) {
	img, err := imageOf(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e := &slowEngine{}
	s := parse(t, "tests: [{name: a, timeout: 1ms, run: x}]", nil)
	synctest.Test(t, func(t *testing.T) {
		r, err := Run(t.Context(), s, Options{Image: img, Target: OnEngine(e, "")})
		if err != nil {
			t.Fatal(err)
		}
		if e.interrupted != nil {
			t.Errorf("creation is interrupted: %v", e.interrupted)
		}
		check(t, r, map[string]want{"a": {Failed, "timed out after 1ms and was killed"}})
	})
}

func TestRetries(t *testing.T) {
	for _, test := range []struct {
		name     string
		text     string
		exits    []int
		status   Status
		attempts int
		log      string // of the last attempt
	}{
		{"passes on the first attempt", "retries: 2, run: x", []int{0}, Passed, 1, ""},
		{"never passes", "retries: 2, run: x", []int{1}, Failed, 3, "output 3\n"},
		{"passes on a retry", "retries: 3, run: x", []int{1, 0}, Flaky, 2, "output 2\n"},
		{"passes on the last retry", "retries: 1, run: x", []int{1, 0}, Flaky, 2, "output 2\n"},
		{"no retries", "run: x", []int{1, 0}, Failed, 1, "output 1\n"},
		{"session", "retries: 1, session: s, run: x", []int{1, 0}, Flaky, 2, "output 2\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &fakeEngine{command: exits(test.exits...)}
			r := runOnFake(t, e, parse(t, "tests: [{name: a, "+test.text+"}]", nil), Options{ReportDir: t.TempDir()})
			got := r.Tests[0]
			if got.Status != test.status || got.Attempts != test.attempts || len(e.containers) != test.attempts {
				t.Errorf("%s after %d attempts in %d containers", got.Status, got.Attempts, len(e.containers))
			}
			if (len(got.Failures) > 0) != (test.status != Passed) {
				t.Errorf("failures of a %s test: %+v", test.status, got.Failures)
			}
			if test.log == "" {
				if got.Log != "" {
					t.Errorf("log %s", got.Log)
				}
				return
			}
			if log, err := os.ReadFile(got.Log); string(log) != test.log {
				t.Errorf("log %q, want %q (%v)", log, test.log, err)
			}
		})
	}
}

func TestFlakyTestsAreReported(t *testing.T) {
	e := &fakeEngine{command: exits(1, 0)}
	r := runOnFake(t, e, parse(t, "tests: [{name: a, retries: 1, run: x}]", nil), Options{})
	if r.Passed != 0 || r.Flaky != 1 || r.Failed != 0 {
		t.Error(r.Line())
	}
	a := r.Annotations()
	const want = "flaky: passed on attempt 2; earlier failure: exit code is 1, want 0"
	if len(a) != 1 || !a[0].Warning || a[0].Message != want {
		t.Errorf("%+v", a)
	}
}

// Logs of failed tests have safe and unique names and contain no secrets.
func TestLogFiles(t *testing.T) {
	s := parse(t, `
tests:
  - {name: 'a/../b', run: x}
  - {name: 'a b', run: x}
  - {name: passes, run: x, exit: 1}
`[1:], nil)
	dir := t.TempDir()
	clean := func(line string) string { return strings.ReplaceAll(line, "output", "***") }
	r := runOnFake(t, &fakeEngine{command: exits(1)}, s, Options{ReportDir: dir, Clean: clean, Seed: 1})
	var names []string
	for _, result := range r.Tests {
		names = append(names, strings.TrimPrefix(result.Log, dir))
		if result.Log == "" {
			continue
		}
		log, err := os.ReadFile(result.Log)
		if err != nil || !strings.HasPrefix(string(log), "*** ") || strings.Contains(result.details(), "output") {
			t.Errorf("log %q (%v), details %q", log, err, result.details())
		}
	}
	if want := []string{"/logs/001-a-b.log", "/logs/002-a-b.log", ""}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestTranscript(t *testing.T) {
	var printed transcript
	streams := printed.streams()
	for _, write := range []struct {
		to   io.Writer
		text string
	}{{streams.Out, "a"}, {streams.Err, "b"}, {streams.Out, "c"}} {
		if _, err := io.WriteString(write.to, write.text); err != nil {
			t.Fatal(err)
		}
	}
	if printed.stdout.String() != "ac" || printed.stderr.String() != "b" || string(printed.all()) != "abc" {
		t.Errorf("%q, %q, %q", &printed.stdout, &printed.stderr, printed.all())
	}
	fill := make([]byte, maxOutput-2)
	if n, err := streams.Out.Write(fill); n != len(fill) || err != nil {
		t.Errorf("up to the limit: %d, %v", n, err)
	}
	if n, err := streams.Out.Write([]byte("x")); n != 0 || !errors.Is(err, errOutputLimit) {
		t.Errorf("above the limit: %d, %v", n, err)
	}
	if _, err := streams.Err.Write([]byte("x")); err != nil {
		t.Errorf("the other stream: %v", err)
	}
}
