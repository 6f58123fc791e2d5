package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// parse parses a suite in a temporary directory that contains files.
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

// want is the expected result of a test: its status and a part of its first failure or of the reason for skipping it.
type want struct {
	status  Status
	message string
}

// check compares the results of a report with wants. Tests that are not in wants must pass.
func check(t *testing.T, r *Report, wants map[string]want) {
	t.Helper()
	found := map[string]bool{}
	for _, result := range r.Tests {
		found[result.Name] = true
		w, ok := wants[result.Name]
		if !ok {
			w = want{Passed, ""}
		}
		unexpected := w.message == "" && len(result.Failures) > 0
		if result.Status != w.status || !strings.Contains(result.summary()+result.Reason, w.message) || unexpected {
			t.Errorf("%q %s (%q), want %s (%q)\n%s", result.Name, result.Status, result.summary(), w.status, w.message,
				result.details())
		}
	}
	for name := range wants {
		if !found[name] {
			t.Errorf("no result for %q", name)
		}
	}
}

func resultOf(t *testing.T, r *Report, name string) *Result {
	t.Helper()
	for _, result := range r.Tests {
		if result.Name == name {
			return result
		}
	}
	t.Fatalf("no result for %q", name)
	return nil
}
func commandCases(t *testing.T) (s *Suite, wants map[string]want) {
	s = parse(t, `
tests:
  - {name: list, run: [echo, hello], stdout: '^hello\n$'}
  - {name: shell, run: 'echo $((6*7)) && echo oops >&2; exit 3', exit: 3, stdout: {equals: "42\n"}, stderr: oops}
  - {name: default user, run: id -u, stdout: '^65534\n$'}
  - {name: root, user: root, run: id -u, stdout: '^0\n$'}
  - {name: user id, user: 1234, run: id -u, stdout: '^1234\n$'}
  - name: no privileges
    run: 'grep -E "^(CapEff|CapBnd|NoNewPrivs)" /proc/self/status'
    stdout: {include: ['CapEff:\s*0+\n', 'CapBnd:\s*0+\n', 'NoNewPrivs:\s*1']}
  - name: default privileges
    user: root
    privileges: default
    run: grep CapEff /proc/self/status
    stdout: {include: ['CapEff:'], exclude: ['CapEff:\s*0+\n']}
  - {name: no network, run: cat /proc/net/dev, stdout: {include: ['lo:'], exclude: [eth0]}}
  - {name: network, network: bridge, run: cat /proc/net/dev, stdout: eth0}
  - {name: env, env: {A: 1, MODE: other}, run: echo $A $MODE, stdout: {equals: "1 other\n"}}
  - {name: workdir, workdir: /usr/lib, run: pwd, stdout: {equals: "/usr/lib\n"}}
  - {name: workdir of the image, run: pwd, stdout: {equals: "/tmp\n"}}
  - {name: tty, tty: true, run: 'test -t 1 && echo yes >&2', stdout: yes, stderr: {equals: ""}}
  - {name: entry point, entrypoint: true, run: [print, through, it], stdout: {equals: "through it\n"}}
  - name: fixture
    mounts: [{source: fixtures, target: /fixtures}]
    run: 'cat /fixtures/a && ! touch /fixtures/b 2>/dev/null'
    stdout: {golden: fixtures/a}
  - name: limits # in the files of cgroup v2 or v1
    limits: {memory: 64MiB, cpus: 0.5, pids: 20}
    run: |
      cd /sys/fs/cgroup
      for file in memory.max memory/memory.limit_in_bytes cpu.max cpu/cpu.cfs_quota_us pids.max pids/pids.max; do
        if [ -e $file ]; then echo "${file##*[./]} $(cat $file)"; fi
      done
    stdout:
      include: ['(?m)^(max|limit_in_bytes) 67108864$', '(?m)^(max|cfs_quota_us) 50000( 100000)?$', '(?m)^max 20$']
  - {name: setup, setup: [[mkdir, /tmp/x], 'echo made > /tmp/x/y'], run: cat /tmp/x/y, stdout: made}
  - name: matrix
    matrix: {LANG: [C, C.UTF-8], N: [1, 2]}
    run: 'echo $LANG$N'
    stdout: '^C(.UTF-8)?[12]\n$'
  - {name: skipped, skip: not today, run: 'false'}
  - {name: wrong exit code, run: 'echo why; exit 4'}
  - {name: missing program, run: [/no/such/program]}
  - {name: setup fails, setup: ['echo no >&2; exit 9'], run: 'true'}
  - {name: not included, run: echo a, stdout: '^b'}
  - {name: excluded, run: echo a secret, stdout: {exclude: [sec]}}
  - {name: other text, run: 'printf "a\nb\nc\n"', stdout: {equals: "a\nB\nc\n"}}
  - {name: timeout, timeout: 1s, run: sleep 60}
  - {name: timeout in a session, timeout: 2s, session: slow, run: sleep 60}
  - {name: after the timeout, session: slow, run: 'true'}
`[1:], map[string]string{"fixtures/a": "content of a\n"})
	wants = map[string]want{
		"skipped":              {Skipped, ""},
		"wrong exit code":      {Failed, "exit code is 4, want 0"},
		"missing program":      {Failed, "/no/such/program"},
		"setup fails":          {Failed, "setup command exited with code 9"},
		"not included":         {Failed, `stdout: "a\n" does not match "^b"`},
		"excluded":             {Failed, `stdout must not match "sec", but contains "sec"`},
		"other text":           {Failed, "stdout differs from equals"},
		"timeout":              {Failed, "timed out after 1s and was killed"},
		"timeout in a session": {Failed, "timed out after 2s and was killed"},
	}
	return s, wants
}

func TestCommands(t *testing.T) {
	s, wants := commandCases(t)
	onBoth(t, func(t *testing.T, m *machine) {
		o := Options{
			Image: debian, ImageID: m.debian, Target: m.target(), Parallel: 4, ReportDir: t.TempDir(), Log: t.Output(),
		}
		r, err := Run(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, wants)
		if r.Total != 31 || r.Failed != 8 || r.Skipped != 1 || r.Passed != 22 || r.Flaky != 0 {
			t.Error(r.Line())
		}
		if details := resultOf(t, r, "other text").details(); !strings.Contains(details, " a\n-B\n+b\n c\n") {
			t.Errorf("no difference in %q", details)
		}
		if log, err := os.ReadFile(resultOf(t, r, "wrong exit code").Log); string(log) != "why\n" {
			t.Errorf("log is %q (%v)", log, err)
		}
	})
}

func TestImageWithoutShell(t *testing.T) {
	s := parse(t, `
tests:
  - {name: program, run: [/service, print, hello], stdout: {equals: "hello\n"}}
  - {name: shell, run: echo}
  - {name: session, session: s, run: [/service, print]}
  - {name: service, service: {ready: {http: {port: 8080, path: /health}}}}
`[1:], nil)
	onBoth(t, func(t *testing.T, m *machine) {
		r, err := Run(t.Context(), s, Options{Image: scratch, ImageID: m.scratch, Target: OnEngine(m, m.scratch)})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, map[string]want{
			"shell": {Failed, "/bin/sh"}, "session": {Failed, "session and setup need /bin/sh in the image"},
		})
	})
}

func startCases(t *testing.T) (s *Suite, wants map[string]want) {
	text := "tests:\n"
	wants = map[string]want{}
	for kind, settings := range map[string]string{
		"new container": "", "session": "session: s, ", "after a setup": "setup: ['true'], ",
	} {
		const missing = `cannot execute "no-such-program": executable file not found in $PATH`
		const output = ", stdout: {equals: ''}, stderr: "
		for _, test := range []struct{ name, keys, failure string }{
			{"missing", "run: [no-such-program], exit: 127" + output + "executable file not found", ""},
			{"missing file", "run: [/no/such], exit: 127" + output + "no such file", ""},
			{"not executable", "run: [/etc/passwd], exit: 126" + output + "permission denied", ""},
			{"directory", "run: [/etc], exit: 126" + output + "/etc", ""},
			{"unexpected", "run: [no-such-program]", "exit code is 127, want 0: " + missing},
			{"other exit code", "run: [/etc/passwd], exit: 127", `exit code is 126, want 127: cannot execute "/etc/passwd"`},
		} {
			name := test.name + " in " + kind
			text += fmt.Sprintf("  - {name: %s, %s%s}\n", name, settings, test.keys)
			if test.failure != "" {
				wants[name] = want{Failed, test.failure}
			}
		}
	}
	text += "  - {name: directory of the command, session: s, workdir: /no/such, run: [/service, print], exit: 127}\n" +
		"  - {name: step, service: {steps: [{run: [/etc/passwd], exit: 126, stderr: denied}]}}\n"
	wants["directory of the command"] = want{Failed, `working directory "/no/such": no such file or directory`}
	s = parse(t, text, nil)
	return s, wants
}

// A command that cannot be started has the same exit code and output in every kind of container.
func TestCommandsThatCannotStart(t *testing.T) {
	s, wants := startCases(t)
	onBoth(t, func(t *testing.T, m *machine) {
		o := Options{Image: debian, ImageID: m.debian, Target: m.target(), Parallel: 2, Log: t.Output()}
		r, err := Run(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, wants)
	})
}
func serviceCases(t *testing.T) (s *Suite, wants map[string]want) {
	s = parse(t, `
tests:
  - name: everything
    env: {MODE: tested}
    service:
      ready: {healthy: true, port: 8080, http: {port: 8080, path: /health}, log: listening, within: 30s}
      steps:
        - http:
            port: 8080
            path: /health
            headers: {X-Version: '7', X-No: null}
            body: {equals: '{"status":"ok","mode":"tested"}'}
        - http: {port: 8080, path: /moved, status: 302, headers: {Location: {matches: health$}}}
        - http:
            port: 8080
            path: /echo
            method: POST
            request: {X-Ask: it, Host: example.com}
            body: ^POST it example.com$
        - run: [/service, health]
        - run: id -u
          stdout: ^0
        - restart: true
        - http: {port: 8080, path: /health}
        - logs: {stdout: '(?s)listening.*ending.*listening'}
        - stop: {exit: 0, within: 30s}
        - logs: {stdout: {include: ['ending\n$']}, stderr: {equals: ""}}
  - {name: signal, service: {ready: {log: listening}, steps: [{stop: {signal: TERM, within: 30s}}]}}
  - {name: killed, service: {ready: {log: listening}, steps: [{stop: {signal: SIGKILL, exit: 137}}]}}
  - {name: own command, service: {command: [hang], steps: [{run: [cat, /proc/1/cmdline], stdout: hang}]}}
  - {name: wrong status, service: {ready: {port: 8080}, steps: [{http: {port: 8080, path: /no}}]}}
  - {name: wrong body, service: {ready: {port: 8080}, steps: [{http: {port: 8080, path: /health, body: nothing}}]}}
  - name: wrong header
    service: {ready: {port: 8080}, steps: [{http: {port: 8080, path: /health, headers: {X-Version: '8'}}}]}
  - {name: never ready, service: {ready: {port: 9999, within: 1s}}}
  - {name: never logs, service: {ready: {log: nothing like it, within: 5s}}}
  - {name: exits at once, service: {command: [fail], ready: {port: 8080}}}
  - {name: slow stop, env: {STUBBORN: 1}, service: {ready: {log: listening}, steps: [{stop: {within: 1s}}]}}
  - name: ignored signal
    env: {STUBBORN: 1}
    service: {ready: {log: listening}, steps: [{stop: {signal: TERM, within: 1s}}]}
  - {name: wrong exit code, env: {FAIL: 1}, service: {ready: {log: listening}, steps: [{stop: true}]}}
  - name: wrong log
    service: {ready: {log: listening}, steps: [{logs: {stdout: {exclude: [listen]}}}]}
  - {name: wrong step, service: {ready: {log: listening}, steps: [{run: exit 7, within: 300ms}]}}
  - {name: timeout, timeout: 2s, service: {ready: {log: never, within: 30s}}}
  - name: runs once
    service:
      command: [migrate, "0"]
      ready: {exit: 0, log: migrated}
      steps: [{logs: {stdout: ^migrated}}, {restart: true}, {logs: {stdout: 'migrated\nmigrated\n$'}}]
  - {name: fails once, service: {command: [migrate, "3"], ready: {exit: 0}}}
  - {name: runs on, service: {ready: {exit: 0, within: 1s}}}
  - {name: not up again, service: {command: [once-up], ready: {log: up, within: 5s}, steps: [{restart: true}]}}
  - name: long log
    service:
      command: [spam]
      ready: {log: now ready}
      steps: [{logs: {stdout: ^first line}}, {stop: true}, {logs: {stdout: 'bye\n$'}}]
`[1:], nil)
	wants = map[string]want{
		"wrong status":    {Failed, "GET /no on port 8080: status is 404, want 200"},
		"wrong body":      {Failed, `plain\"}" does not match "nothing"`},
		"wrong header":    {Failed, `header X-Version is "7", want "8"`},
		"never ready":     {Failed, "not ready within 1s: port 9999 does not accept connections"},
		"never logs":      {Failed, `not ready within 5s: log: "listening on 8080\n" does not match "nothing like it"`},
		"exits at once":   {Failed, "service exited with code 3"},
		"slow stop":       {Failed, "service did not exit within 1s and was killed"},
		"ignored signal":  {Failed, "service did not exit within 1s of signal TERM"},
		"wrong exit code": {Failed, "service exited with code 5, want 0"},
		"wrong log":       {Failed, `stdout of the log must not match "listen"`},
		"wrong step":      {Failed, "exit code is 7, want 0"},
		"timeout":         {Failed, "timed out after 2s and was killed"},
		"fails once":      {Failed, "service exited with code 3, want 0"},
		"runs on":         {Failed, "not ready within 1s: service has not exited"},
		"not up again":    {Failed, `after the restart: not ready within 5s: log does not match "up"`},
	}
	return s, wants
}

func TestServices(t *testing.T) {
	s, wants := serviceCases(t)
	onBoth(t, func(t *testing.T, m *machine) {
		o := Options{
			Image: debian, ImageID: m.debian, Target: m.target(), Parallel: 4, ReportDir: t.TempDir(), Log: t.Output(),
		}
		r, err := Run(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, wants)
		if details := resultOf(t, r, "exits at once").details(); !strings.Contains(details, "cannot start") {
			t.Errorf("no log in %q", details)
		}
	})
}

func misbehavingCases(t *testing.T) (s *Suite, wants map[string]want) {
	s = parse(t, `
defaults: {timeout: 1m}
tests:
  - {name: endless output, run: [/service, flood]}
  - name: too many processes
    limits: {pids: 30}
    run: 'for i in $(seq 60); do sleep 10 & done'
    exit: 2
    stderr: Cannot fork
  - {name: enough processes, limits: {pids: 100}, run: 'for i in $(seq 60); do sleep 10 & done'}
  - name: kills itself
    user: root
    run: 'kill -9 1; kill -TERM 1; echo still here; exit 3'
    exit: 3
    stdout: still here
  - {name: kills the session, session: s, user: root, run: 'kill -9 -1; exit 3', exit: 3}
  - {name: after the kill, session: s, run: echo a, stdout: a}
  - {name: leaves processes, run: 'sleep 1000 & sleep 1000 & exit 0'}
  - name: leaves a process that ignores signals
    session: t
    run: '(trap "" TERM; exec sleep 1000) >/dev/null 2>&1 & exit 0'
  - {name: out of memory, limits: {memory: 32MiB}, run: 'head -c 200M /dev/zero | tail'}
  - {name: ignores signals, timeout: 1s, run: [/service, hang]}
  - {name: workflow commands, run: 'printf "::error::no\n\033[2J\000\377::stop-commands::x\n"; exit 1'}
`[1:], nil)
	wants = map[string]want{
		"endless output":    {Failed, "command printed more than limits.output (default 8 MiB) and was killed"},
		"out of memory":     {Failed, "exit code is 137, want 0"}, // an old engine may report the cause later
		"ignores signals":   {Failed, "timed out after 1s and was killed"},
		"workflow commands": {Failed, "exit code is 1, want 0"},
	}
	return s, wants
}

// A command that exceeds its limits or interferes with its container does not affect other tests, and the failure names
// the cause.
func TestMisbehavingCommands(t *testing.T) {
	s, wants := misbehavingCases(t)
	onBoth(t, func(t *testing.T, m *machine) {
		o := Options{
			Image: debian, ImageID: m.debian, Target: m.target(), Parallel: 3, ReportDir: t.TempDir(), Log: t.Output(),
		}
		r, err := Run(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, wants)
	})
}

func sessionCases(t *testing.T) (s *Suite, wants map[string]want) {
	return parse(t, `
tests:
  - {name: one, session: a, run: 'echo $$ > /tmp/first; hostname > /tmp/host'}
  - {name: alone, run: test ! -e /tmp/first}
  - {name: two, session: a, run: 'test "$(cat /tmp/host)" = "$(hostname)"', env: {A: b}}
  - {name: another, session: b, run: test ! -e /tmp/first}
  - {name: three, session: a, user: root, run: 'id -u; cat /tmp/first', stdout: ^0}
`[1:], nil), nil
}

func TestSessions(t *testing.T) {
	s, _ := sessionCases(t)
	onBoth(t, func(t *testing.T, m *machine) {
		var group errgroup.Group
		for range 2 { // concurrent runs are independent
			group.Go(func() error {
				o := Options{Image: debian, ImageID: m.debian, Target: m.target(), Parallel: 2, Log: t.Output()}
				r, err := Run(t.Context(), s, o)
				if err == nil {
					check(t, r, nil)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSelection(t *testing.T) {
	s := parse(t, `
tests:
  - {name: git works, tags: [tools], run: 'true'}
  - {name: git clones, tags: [tools, slow], run: 'true'}
  - {name: user, tags: [user], run: 'true'}
`[1:], nil)
	for _, test := range []struct {
		name string
		run  string
		tags []string
		want string
	}{
		{"all", "", nil, "git works, git clones, user"},
		{"name", "^git", nil, "git works, git clones"},
		{"tags", "", []string{"slow", "user"}, "git clones, user"},
		{"name and tag", "clones", []string{"tools"}, "git clones"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Options{Tags: test.tags}
			if test.run != "" {
				o.Run = regexp.MustCompile(test.run)
			}
			r := runOnFake(t, &fakeEngine{command: exits(0)}, s, o)
			var names []string
			for _, result := range r.Tests {
				names = append(names, result.Name)
			}
			if got := strings.Join(names, ", "); got != test.want || r.Passed != len(names) {
				t.Errorf("%s: %s, want %s", got, r.Line(), test.want)
			}
		})
	}
	img, err := imageOf(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), s, Options{Image: img, Target: &fakeEngine{}, Run: regexp.MustCompile("nothing")})
	if err == nil || !strings.Contains(err.Error(), "match the selected names and tags (the suite has 3 tests)") {
		t.Error(err)
	}
}

// The seed determines the order in which tests start. The report contains the seed and keeps the order of the suite.
func TestOrder(t *testing.T) {
	s := parse(t, "tests: [{name: a, run: x}, {name: b, run: x}, {name: c, run: x}]", nil)
	order := func(seed uint64) string {
		var names []string
		counts := ""
		r := runOnFake(t, &fakeEngine{command: exits(0)}, s, Options{Seed: seed, Progress: func(r *Result, done, total int) {
			names = append(names, r.Name)
			counts += string(rune('0'+done)) + "/" + string(rune('0'+total)) + " "
		}})
		if seed != 0 && r.Seed != seed || r.Seed == 0 || r.Tests[0].Name != "a" || counts != "1/3 2/3 3/3 " {
			t.Fatalf("%+v, progress %s", r, counts)
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

// If the engine cannot create a container, the test fails with the engine's error.
func TestCreateFailure(t *testing.T) {
	s := parse(t, `
tests:
  - {name: command, run: 'true'}
  - {name: session, session: s, run: 'true'}
  - {name: service, service: {ready: {log: a}}}
`[1:], nil)
	img, err := imageOf(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), s, Options{Image: img, Target: OnEngine(&slowEngine{}, "")})
	if err != nil {
		t.Fatal(err)
	}
	failed := want{Failed, "not a real engine"}
	check(t, r, map[string]want{"command": failed, "session": failed, "service": failed})
}

// reaper is an engine with a configurable result of Reap.
type reaper struct {
	fakeEngine
	removed int
	err     error
}

func (r *reaper) Reap(context.Context) (int, error) { return r.removed, r.err }

func TestReap(t *testing.T) {
	failure := errors.New("connection lost")
	s := parse(t, "tests: [{name: a, image: {user: null}}]", nil)
	img, err := imageOf(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		removed int
		err     error
		log     string
		fails   bool
	}{
		{"nothing to remove", 0, nil, "", false},
		{"removed", 2, nil, "removed 2 containers of an earlier run\n", false},
		{"removed some", 1, failure, "connection lost\n", false},
		{"not available", 0, failure, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log strings.Builder
			target := &reaper{removed: test.removed, err: test.err}
			_, err := Run(t.Context(), s, Options{Image: img, Target: target, Log: &log})
			if log.String() != test.log || errors.Is(err, failure) != test.fails || err != nil && !test.fails {
				t.Errorf("log %q, error %v", log.String(), err)
			}
		})
	}
}

// Reports and logs contain no secrets that Clean removes.
func TestSecretsAreRemoved(t *testing.T) {
	s := parse(t, `
tests:
  - name: command
    run: 'echo the token is hunter2; echo hunter2 >&2; exit 1'
    stdout: {exclude: [hunter.]}
    stderr: {equals: x}
  - {name: service, service: {command: [print, hunter2], ready: {port: 8080}}}
`[1:], nil)
	m := fleet(t)[engine.Current]
	clean := func(line string) string { return strings.ReplaceAll(line, "hunter2", "***") }
	o := Options{Image: debian, ImageID: m.debian, Target: m.target(), ReportDir: t.TempDir(), Clean: clean}
	r, err := Run(t.Context(), s, o)
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
	err = errors.Join(r.WriteJUnit(&all), r.WriteText(&all, &all))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(all.String(), "hunter2") {
		t.Error(all.String())
	}
}

// When the engine stops, every running test fails for that reason, and the run ends.
func TestStoppedEngine(t *testing.T) {
	fleet(t) // builds the images
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
	e, err := dockerengine.Open(t.Context(), environment(daemon.Host, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Load(t.Context(), "stops:ci", scratch); err != nil {
		t.Fatal(err)
	}
	s := parse(t, `
tests:
  - {name: command, env: {FAIL: 1}, run: [/service]}
  - {name: service, env: {FAIL: 1}, service: {ready: {log: never}}}
`[1:], nil)
	go func() {
		waitForContainers(t, &machine{Engine: e}, 2)
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	o := Options{Image: scratch, ImageID: "stops:ci", Target: OnEngine(e, "stops:ci"), Parallel: 2}
	r, err := Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	// The engine first stops the containers and then closes the connections.
	cause := regexp.MustCompile(`exit code is 5,|exited with code 5$|docker\.sock`)
	for _, result := range r.Tests {
		if result.Status != Failed || !cause.MatchString(result.summary()) {
			t.Errorf("%s %s: %s", result.Name, result.Status, result.summary())
		}
	}
}

func TestCancelRemovesContainers(t *testing.T) {
	s := parse(t, `
tests:
  - {name: one, run: sleep 100}
  - {name: two, session: s, run: sleep 100}
  - {name: three, service: {ready: {log: never}}}
  - {name: four, run: sleep 100}
`[1:], nil)
	canceled := errors.New("workflow canceled")
	onBoth(t, func(t *testing.T, m *machine) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		go func() {
			waitForContainers(t, m, 3)
			cancel(canceled)
		}()
		r, err := Run(ctx, s, Options{Image: debian, ImageID: m.debian, Target: m.target(), Parallel: 3})
		if !errors.Is(err, canceled) {
			t.Error(err)
		}
		if r.Skipped != 4 || r.Failed != 0 || r.Tests[0].Reason != "not run: workflow canceled" {
			t.Error(r.Line(), r.Tests[0].Reason)
		}
	})
}

// waitForContainers waits until n containers run.
func waitForContainers(t *testing.T, m *machine, n int) {
	for t.Context().Err() == nil {
		out, err := exec.Command("docker", "--host", m.Host, "ps", "--quiet").Output()
		if err != nil {
			t.Errorf("docker ps (scripts/setup.sh test installs docker): %v", err)
			return
		}
		if strings.Count(string(out), "\n") == n {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// The next run removes the containers of a run that was killed.
func TestNextRunRemovesContainers(t *testing.T) {
	s := parse(t, "tests: [{name: a, run: 'true'}]", nil)
	onBoth(t, func(t *testing.T, m *machine) {
		killed := exec.Command(os.Args[0])
		killed.Env = append(os.Environ(), "SUITE_TEST_HOST="+m.Host, "SUITE_TEST_IMAGE="+m.debian)
		if err := killed.Start(); err != nil {
			t.Fatal(err)
		}
		waitForContainers(t, m, 2)
		if err := killed.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = killed.Wait() // always fails
		var log strings.Builder
		r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Target: m.target(), Log: &log})
		if err != nil || r.Passed != 1 || log.String() != "removed 2 containers of an earlier run\n" {
			t.Error(r, err, log.String())
		}
	})
}

// runUntilKilled is the process that TestNextRunRemovesContainers kills.
func runUntilKilled(host, image string) error {
	e, err := dockerengine.Open(context.Background(), environment(host, os.TempDir()))
	if err != nil {
		return err
	}
	img, err := imageOf(v1.Config{})
	if err != nil {
		return err
	}
	const text = "tests: [{name: a, run: sleep 100}, {name: b, session: s, run: sleep 100}]"
	s, err := Parse("tests.yaml", []byte(text))
	if err != nil {
		return err
	}
	_, err = Run(context.Background(), s, Options{Image: img, ImageID: image, Target: OnEngine(e, image), Parallel: 2})
	return err
}
