package suite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// parse makes a suite of text, in a folder of its own with the given files beside it.
func parse(t *testing.T, text string, files map[string]string) *Suite {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Parse(filepath.Join(dir, "tests.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A test of a table: want is the status, and what the first failure must say.
type want struct {
	status  Status
	message string
}

func check(t *testing.T, r *Report, wants map[string]want) {
	t.Helper()
	if len(r.Tests) != len(wants) {
		t.Errorf("%d results, want %d", len(r.Tests), len(wants))
	}
	for _, result := range r.Tests {
		w, ok := wants[result.Name]
		if !ok {
			t.Errorf("unexpected test %q", result.Name)
			continue
		}
		if result.Status != w.status || !strings.Contains(result.summary(), w.message) || w.message == "" && result.Status != Flaky && len(result.Failures) > 0 {
			t.Errorf("%q is %s (%q), want %s (%q)\n%s", result.Name, result.Status, result.summary(), w.status, w.message, result.details())
		}
	}
}

func TestCommands(t *testing.T) {
	s := parse(t, `
tests:
  - {name: a list, run: [echo, hello], stdout: '^hello\n$'}
  - {name: a line, run: 'echo $((6*7)) && echo oops >&2; exit 3', exit: 3, stdout: {equals: "42\n"}, stderr: oops}
  - {name: nobody, run: id -u, stdout: '^65534\n$'}
  - {name: root, user: root, run: id -u, stdout: '^0\n$'}
  - {name: a number, user: 1234, run: id -u, stdout: '^1234\n$'}
  - {name: no privileges, run: 'grep -E "^(CapEff|CapBnd|NoNewPrivs)" /proc/self/status', stdout: {include: ['CapEff:\s*0+\n', 'CapBnd:\s*0+\n', 'NoNewPrivs:\s*1']}}
  - {name: the engine's privileges, user: root, privileges: default, run: grep CapEff /proc/self/status, stdout: {exclude: ['CapEff:\s*0+\n']}}
  - {name: no network, run: cat /proc/net/dev, stdout: {exclude: [eth0]}}
  - {name: network, network: bridge, run: cat /proc/net/dev, stdout: eth0}
  - {name: env, env: {A: 1, MODE: other}, run: echo $A $MODE, stdout: {equals: "1 other\n"}}
  - {name: workdir, workdir: /usr/lib, run: pwd, stdout: {equals: "/usr/lib\n"}}
  - {name: the image's workdir, run: pwd, stdout: {equals: "/tmp\n"}}
  - {name: tty, tty: true, run: 'test -t 1 && echo yes >&2', stdout: yes, stderr: {equals: ""}}
  - {name: entry point, entrypoint: true, run: [print, through, it], stdout: {equals: "through it\n"}}
  - {name: fixture, mounts: [{source: fixtures, target: /fixtures}], run: 'cat /fixtures/a && ! touch /fixtures/b 2>/dev/null', stdout: {golden: fixtures/a}}
  - {name: limits, limits: {memory: 64MiB, cpus: 0.5, pids: 20}, run: 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true', stdout: '67108864'}
  - {name: setup, setup: [[mkdir, /tmp/x], 'echo made > /tmp/x/y'], run: cat /tmp/x/y, stdout: made}
  - {name: matrix, matrix: {LANG: [C, C.UTF-8], N: [1, 2]}, run: 'echo $LANG$N', stdout: '^C(.UTF-8)?[12]\n$'}
  - {name: skipped, skip: not today, run: 'false'}
  - {name: wrong exit, run: 'echo why; exit 4'}
  - {name: no such program, run: [/no/such/program]}
  - {name: setup fails, setup: ['echo no >&2; exit 9'], run: 'true'}
  - {name: not included, run: echo a, stdout: '^b'}
  - {name: excluded, run: echo a secret, stdout: {exclude: [sec]}}
  - {name: another text, run: 'printf "a\nb\nc\n"', stdout: {equals: "a\nB\nc\n"}}
  - {name: too slow, timeout: 1s, run: sleep 60}
  - {name: too slow in a shared one, timeout: 2s, session: slow, run: sleep 60}
  - {name: after that, session: slow, run: 'true'}
`[1:], map[string]string{"fixtures/a": "content of a\n"})
	wants := map[string]want{
		"wrong exit": {Failed, "the exit code is 4, want 0"}, "no such program": {Failed, "/no/such/program"},
		"setup fails": {Failed, "the setup command ended with exit code 9"}, "not included": {Failed, `stdout does not match "^b"`},
		"excluded": {Failed, `stdout must not match "sec", and has "sec"`}, "another text": {Failed, "stdout is not what equals says"},
		"too slow": {Failed, "it did not end within 1s, and was killed"}, "too slow in a shared one": {Failed, "it did not end within 2s"},
		"skipped": {Skipped, ""},
	}
	for _, test := range s.Tests {
		if _, ok := wants[test.Name]; !ok {
			wants[test.Name] = want{Passed, ""}
		}
	}
	onBoth(t, func(t *testing.T, m *machine) {
		dir := t.TempDir()
		r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, Parallel: 4, ReportDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, wants)
		if r.Total != 31 || r.Failed != 8 || r.Skipped != 1 || r.Passed != 22 || r.Flaky != 0 {
			t.Error(r.Line())
		}
		for _, result := range r.Tests {
			if result.Name == "another text" && !strings.Contains(result.details(), " a\n-B\n+b\n c\n") {
				t.Errorf("no difference in %q", result.details())
			}
			if result.Name == "wrong exit" {
				log, err := os.ReadFile(result.Log)
				if string(log) != "why\n" || err != nil {
					t.Errorf("the log is %q, %v", log, err)
				}
			}
		}
	})
}

func TestAnImageWithoutAShell(t *testing.T) {
	s := parse(t, `
tests:
  - {name: its program, run: [/service, print, hello], stdout: {equals: "hello\n"}}
  - {name: a line, run: echo}
  - {name: a session, session: s, run: [/service, print]}
  - {name: a service, service: {ready: {http: {port: 8080, path: /health}}}}
`[1:], nil)
	onBoth(t, func(t *testing.T, m *machine) {
		r, err := Run(t.Context(), s, Options{Image: scratch, ImageID: m.scratch, Engine: m})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, map[string]want{
			"its program": {Passed, ""}, "a service": {Passed, ""}, "a line": {Failed, "/bin/sh"},
			"a session": {Failed, "session and setup need /bin/sh in the image"},
		})
	})
}

func TestServices(t *testing.T) {
	s := parse(t, `
tests:
  - name: all of it
    env: {MODE: tested}
    service:
      ready: {healthy: true, port: 8080, http: {port: 8080, path: /health}, log: listening, within: 30s}
      steps:
        - http: {port: 8080, path: /health, headers: {X-Version: '7', X-No: null}, body: {equals: '{"status":"ok","mode":"tested"}'}}
        - http: {port: 8080, path: /moved, status: 302, headers: {Location: {matches: health$}}}
        - http: {port: 8080, path: /echo, method: POST, request: {X-Ask: it, Host: example.com}, body: ^POST it example.com$}
        - run: [/service, health]
        - run: id -u
          stdout: ^0
        - restart: true
        - http: {port: 8080, path: /health}
        - logs: {stdout: '(?s)listening.*ending.*listening'}
        - stop: {exit: 0, within: 5s}
        - logs: {stdout: {include: ['ending\n$']}, stderr: {equals: ""}}
  - {name: a signal, service: {ready: {log: listening}, steps: [{stop: {signal: TERM, within: 5s}}]}}
  - {name: killed, service: {ready: {log: listening}, steps: [{stop: {signal: SIGKILL, exit: 137}}]}}
  - {name: its command, service: {command: [hang], steps: [{run: [cat, /proc/1/cmdline], stdout: hang}]}}
  - {name: wrong status, service: {ready: {port: 8080}, steps: [{http: {port: 8080, path: /no}}]}}
  - {name: wrong body, service: {ready: {port: 8080}, steps: [{http: {port: 8080, path: /health, body: nothing}}]}}
  - {name: wrong header, service: {ready: {port: 8080}, steps: [{http: {port: 8080, path: /health, headers: {X-Version: '8'}}}]}}
  - {name: never ready, service: {ready: {port: 9999, within: 1s}}}
  - {name: never logs, service: {ready: {log: nothing like it, within: 1s}}}
  - {name: ends at once, service: {command: [fail], ready: {port: 8080}}}
  - {name: slow to end, env: {STUBBORN: 1}, service: {ready: {log: listening}, steps: [{stop: {within: 1s}}]}}
  - {name: deaf to a signal, env: {STUBBORN: 1}, service: {ready: {log: listening}, steps: [{stop: {signal: TERM, within: 1s}}]}}
  - {name: wrong exit, env: {SULKY: 1}, service: {ready: {log: listening}, steps: [{stop: true}]}}
  - {name: wrong log, service: {ready: {log: listening}, steps: [{logs: {stdout: {exclude: [listen]}}}]}}
  - {name: wrong step, service: {ready: {log: listening}, steps: [{run: exit 7, within: 300ms}]}}
  - {name: too slow, timeout: 2s, service: {ready: {log: never, within: 30s}}}
`[1:], nil)
	wants := map[string]want{
		"all of it": {Passed, ""}, "a signal": {Passed, ""}, "killed": {Passed, ""}, "its command": {Passed, ""},
		"wrong status": {Failed, "GET /no on port 8080: the status is 404, want 200"}, "wrong body": {Failed, `the body of GET /health does not match "nothing"`},
		"wrong header": {Failed, `the header X-Version is "7", and must be "8"`}, "never ready": {Failed, "not ready within 1s: port 9999 accepts no connection"},
		"never logs": {Failed, `not ready within 1s: the log does not match "nothing like it"`}, "ends at once": {Failed, "the service ended by itself, with exit code 3"},
		"slow to end": {Failed, "it did not end within 1s, and was killed"}, "deaf to a signal": {Failed, "it did not end within 1s of the signal TERM"},
		"wrong exit": {Failed, "it ended with exit code 5, want 0"}, "wrong log": {Failed, `the log's stdout must not match "listen"`},
		"wrong step": {Failed, "the exit code is 7, want 0"}, "too slow": {Failed, "it did not end within 2s, and was killed"},
	}
	onBoth(t, func(t *testing.T, m *machine) {
		r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, Parallel: 4, ReportDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, wants)
		for _, result := range r.Tests {
			if result.Name == "ends at once" && !strings.Contains(result.details(), "it can not start") {
				t.Errorf("the log is missing in %q", result.details())
			}
		}
	})
}

func TestTroublemakers(t *testing.T) {
	s := parse(t, `
defaults: {timeout: 20s}
tests:
  - {name: prints without end, run: [/service, flood]}
  - {name: forks without end, limits: {pids: 30}, run: ':(){ :|:& };:; sleep 1; exit 1'}
  - {name: kills its container, user: root, run: 'kill -9 1; kill -TERM 1; echo still here; exit 1'}
  - {name: kills the shared one, session: s, user: root, run: 'kill -9 -1; exit 1'}
  - {name: leaves children, run: 'sleep 1000 & sleep 1000 & exit 0'}
  - {name: leaves deaf children, session: t, run: '(trap "" TERM; exec sleep 1000) >/dev/null 2>&1 & exit 0'}
  - {name: takes all memory, limits: {memory: 32MiB}, run: 'head -c 200M /dev/zero | tail'}
  - {name: obeys nobody, timeout: 1s, run: [/service, hang]}
  - {name: speaks to the runner, run: 'printf "::error::no\n\033[2J\000\377::stop-commands::x\n"; exit 1'}
`[1:], nil)
	onBoth(t, func(t *testing.T, m *machine) {
		r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, Parallel: 3, ReportDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, map[string]want{
			"prints without end": {Failed, "it printed more than 8 MiB, and was killed"}, "forks without end": {Failed, "the exit code is"},
			"kills its container": {Failed, "the exit code is"}, "kills the shared one": {Failed, "the exit code is 1"},
			"leaves children": {Passed, ""}, "leaves deaf children": {Passed, ""}, "takes all memory": {Failed, "the exit code is"},
			"obeys nobody": {Failed, "it did not end within 1s, and was killed"}, "speaks to the runner": {Failed, "the exit code is 1"},
		})
	})
}

func TestSessions(t *testing.T) {
	s := parse(t, `
tests:
  - {name: one, session: a, run: 'echo $$ > /tmp/first; hostname > /tmp/host'}
  - {name: alone, run: test ! -e /tmp/first}
  - {name: two, session: a, run: 'test "$(cat /tmp/host)" = "$(hostname)"', env: {A: b}}
  - {name: another, session: b, run: test ! -e /tmp/first}
  - {name: three, session: a, user: root, run: 'id -u; cat /tmp/first', stdout: ^0}
`[1:], nil)
	onBoth(t, func(t *testing.T, m *machine) {
		// Two runs at once do not know of each other.
		var group errgroup.Group
		for range 2 {
			group.Go(func() error {
				r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, Parallel: 2})
				if err == nil {
					check(t, r, map[string]want{"one": {Passed, ""}, "alone": {Passed, ""}, "two": {Passed, ""}, "another": {Passed, ""}, "three": {Passed, ""}})
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestChoiceAndOrder(t *testing.T) {
	s := parse(t, `
tests:
  - {name: git works, tags: [tools], run: 'true'}
  - {name: git clones, tags: [tools, slow], run: 'true'}
  - {name: user, tags: [user], run: 'true'}
`[1:], nil)
	img, err := imageOf(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		run  string
		tags []string
		want string
	}{
		{"all", "", nil, "git works, git clones, user"},
		{"a pattern", "^git", nil, "git works, git clones"},
		{"a tag", "", []string{"slow", "user"}, "git clones, user"},
		{"both", "clones", []string{"tools"}, "git clones"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Options{Image: img, Engine: full{}, Tags: test.tags}
			if test.run != "" {
				o.Run = regexp.MustCompile(test.run)
			}
			r, err := Run(t.Context(), s, o)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, result := range r.Tests {
				names = append(names, result.Name)
			}
			if got := strings.Join(names, ", "); got != test.want || r.Failed != len(names) || r.Tests[0].summary() != "no space left" {
				t.Errorf("%s: %s, want %s", got, r.Line(), test.want)
			}
		})
	}
	_, err = Run(t.Context(), s, Options{Image: img, Engine: full{}, Run: regexp.MustCompile("nothing")})
	if err == nil || !strings.Contains(err.Error(), "no test of") {
		t.Error(err)
	}
	order := func(seed uint64) string {
		var names []string
		r, err := Run(t.Context(), s, Options{Image: img, Engine: full{}, Parallel: 1, Seed: seed,
			Progress: func(r *Result, _, _ int) { names = append(names, r.Name) }})
		if err != nil || seed != 0 && r.Seed != seed || r.Seed == 0 {
			t.Fatal(r, err)
		}
		return strings.Join(names, ", ")
	}
	seen := map[string]bool{}
	for seed := uint64(1); seed < 20; seed++ {
		seen[order(seed)] = true
	}
	if first, again := order(3), order(3); first != again || len(seen) != 6 {
		t.Errorf("orders: %v", seen)
	}
	order(0)
}

// full is an engine that makes no container.
type full struct{}

func (full) Create(context.Context, dockerengine.ContainerSpec) (*dockerengine.Container, error) {
	return nil, errors.New("no space left")
}
func (full) Reap(context.Context) (int, error) { return 0, nil }

// What Clean takes out is nowhere: not in what a report says, nor in the log that is kept.
func TestSecretsAreTakenOut(t *testing.T) {
	s := parse(t, `
tests:
  - {name: prints it, run: 'echo the token is hunter2; echo hunter2 >&2; exit 1', stdout: {exclude: [hunter.]}, stderr: {equals: x}}
  - {name: serves it, service: {command: [print, hunter2], ready: {port: 8080}}}
`[1:], nil)
	m := fleet(t)[engine.Current]
	dir := t.TempDir()
	r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, ReportDir: dir,
		Clean: func(line string) string { return strings.ReplaceAll(line, "hunter2", "***") }})
	if err != nil || r.Failed != 2 {
		t.Fatal(r, err)
	}
	var all bytes.Buffer
	for _, result := range r.Tests {
		log, err := os.ReadFile(result.Log)
		if err != nil || !strings.Contains(string(log), "***") {
			t.Errorf("%s: %q, %v", result.Name, log, err)
		}
		all.Write(log)
	}
	if err := errors.Join(r.WriteJSON(&all), r.WriteJUnit(&all), r.WriteMarkdown(&all), r.WriteText(&all, &all)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(all.String(), "hunter2") {
		t.Error(all.String())
	}
}

// An engine that goes away ends each test in its failure, and the run.
func TestTheEngineStops(t *testing.T) {
	fleet(t) // for its images
	dir, err := os.MkdirTemp("", "suite-stops-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	daemon, err := engine.Start(t.Context(), engine.Current, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceValue(daemon.Stop)
	defer stop()
	e, err := dockerengine.Open(t.Context(), func(name string) string { return map[string]string{"DOCKER_HOST": daemon.Host, "HOME": dir}[name] })
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Load(t.Context(), "stops:ci", scratch); err != nil {
		t.Fatal(err)
	}
	s := parse(t, `
tests:
  - {name: a command, env: {SULKY: 1}, run: [/service]}
  - {name: a service, env: {SULKY: 1}, service: {ready: {log: never}}}
`[1:], nil)
	go func() {
		whenRunning(t, &machine{Engine: e}, 2)
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	r, err := Run(t.Context(), s, Options{Image: scratch, ImageID: "stops:ci", Engine: e, Parallel: 2})
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed != 2 {
		t.Error(r.Line())
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	s := parse(t, `
tests:
  - {name: one, run: sleep 100}
  - {name: two, session: s, run: sleep 100}
  - {name: three, service: {ready: {log: never}}}
  - {name: four, run: sleep 100}
`[1:], nil)
	onBoth(t, func(t *testing.T, m *machine) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		go func() {
			whenRunning(t, m, 3)
			cancel(errors.New("the workflow was cancelled"))
		}()
		r, err := Run(ctx, s, Options{Image: debian, ImageID: m.debian, Engine: m, Parallel: 3})
		if err == nil || err.Error() != "the tests were not all run: the workflow was cancelled" {
			t.Error(err)
		}
		if r.Skipped != 4 || r.Failed != 0 || r.Tests[0].Reason != "not run: the workflow was cancelled" {
			t.Error(r.Line(), r.Tests[0].Reason)
		}
	})
}

// whenRunning waits for n containers.
func whenRunning(t *testing.T, m *machine, n int) {
	for t.Context().Err() == nil {
		out, err := exec.Command("docker", "--host", m.Host, "ps", "--quiet").Output()
		if err != nil {
			t.Errorf("docker ps (scripts/packages.sh installs it): %v", err)
			return
		}
		if strings.Count(string(out), "\n") == n {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A run that is killed removes nothing; the next one does.
func TestTheNextRunCleansUp(t *testing.T) {
	s := parse(t, "tests: [{name: a, run: 'true'}]", nil)
	onBoth(t, func(t *testing.T, m *machine) {
		killed := exec.Command(os.Args[0])
		killed.Env = append(os.Environ(), "SUITE_TEST_HOST="+m.Host, "SUITE_TEST_IMAGE="+m.debian)
		if err := killed.Start(); err != nil {
			t.Fatal(err)
		}
		whenRunning(t, m, 2)
		if err := killed.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = killed.Wait() // killed
		var log strings.Builder
		r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, Log: &log})
		if err != nil || r.Passed != 1 || log.String() != "removed 2 containers that an earlier run left\n" {
			t.Error(r, err, log.String())
		}
	})
}

// runUntilKilled is the process that TestTheNextRunCleansUp kills.
func runUntilKilled(host, image string) error {
	e, err := dockerengine.Open(context.Background(), func(name string) string {
		return map[string]string{"DOCKER_HOST": host, "HOME": os.TempDir()}[name]
	})
	if err != nil {
		return err
	}
	img, err := imageOf(v1.Config{})
	if err != nil {
		return err
	}
	s, err := Parse("tests.yaml", []byte("tests: [{name: a, run: sleep 100}, {name: b, session: s, run: sleep 100}]"))
	if err != nil {
		return err
	}
	_, err = Run(context.Background(), s, Options{Image: img, ImageID: image, Engine: e, Parallel: 2})
	return err
}
