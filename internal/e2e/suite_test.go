//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"golang.org/x/sys/unix"
)

// reportingCommand is a test command that writes a JUnit report with a failure, prints a workflow command and tries to
// write outputs.
const reportingCommand = `test "$RUN_LOCAL_DOCKER_TESTS" = true &&
docker run --rm "$LOCAL_DOCKER_IMAGE_NAME" cat /greeting &&
echo '::error::forged' &&
printf 'image_ref=forged\nforged<<EOF\n' >> "${GITHUB_OUTPUT:-/dev/null}" &&
cat > "$TEST_REPORT_DIR/host.xml" <<'XML'
<testsuites><testsuite name="s" tests="2" failures="1">
<testcase name="a"/><testcase name="b"><failure message="no"/></testcase>
</testsuite></testsuites>
XML
`

// The test action runs a suite and a command against a built or existing image, and counts the results of both.
func TestTestAction(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	writeFile(t, dir, "Dockerfile", fromDebian+"RUN echo hello > /greeting\nENV GREETING=hello\nUSER nobody\n")
	writeFile(t, dir, "good.yaml", `
tests:
  - name: greets
    run: [cat, /greeting]
    stdout: {include: ["(?m)^hello$"]}
  - name: has its environment
    image:
      env: {GREETING: hello}
  - name: has its file
    files:
      - path: /greeting
        content: {include: ["hello"]}
  - name: not yet
    skip: not implemented
    run: ["true"]
`)
	writeFile(t, dir, "bad.yaml", `
tests:
  - name: greets
    run: [cat, /greeting]
    stdout: {include: ["(?m)^goodbye$"]}
  - name: prints commands
    run: [sh, -c, "echo '::error::forged'; printf '\\033[2J'; exit 3"]
`)
	for _, test := range []struct {
		name     string
		inputs   map[string]string
		exitCode int
		want     string
		outputs  map[string]string
		log      string
	}{
		{name: "all pass", inputs: values{"suite": "good.yaml"},
			outputs: values{
				"tests_total": "4", "tests_passed": "3", "tests_failed": "0", "tests_skipped": "1",
			}},
		{name: "existing image", inputs: values{"suite": "good.yaml", "image": "sandbox:ci"},
			outputs: values{"tests_passed": "3", "image_ref": "sandbox:ci"}},
		{name: "some fail", inputs: values{"suite": "bad.yaml"}, exitCode: 1, want: "2 of 2 tests failed",
			outputs: values{"tests_failed": "2", "tests_passed": "0"}, log: "::error "},
		{name: "command", inputs: values{"suite": "good.yaml", "command": reportingCommand},
			exitCode: 1, want: "1 of 6 tests failed",
			outputs: values{"tests_total": "6", "tests_passed": "4", "tests_failed": "1"}},
		{name: "failing command", inputs: values{"suite": "good.yaml", "command": "echo last words; exit 7"},
			exitCode: 7, want: "exit code 7", outputs: values{"tests_failed": "0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := e.run(t, invocation{program: "action-test", dir: dir, inputs: test.inputs})
			errors := strings.Join(errorMessages(r), "\n")
			if r.exitCode != test.exitCode || !strings.Contains(errors, test.want) || r.stderr != "" {
				t.Fatalf("exit code %d:\n%s%s", r.exitCode, r.stdout, r.stderr)
			}
			for name, want := range test.outputs {
				if r.outputs[name] != want {
					t.Errorf("%s is %q, want %q", name, r.outputs[name], want)
				}
			}
			if len(r.outputs) != len(outputsOf(t, "test")) || !strings.Contains(r.summary, "greets") {
				t.Errorf("outputs %v; summary %s", r.outputs, r.summary)
			}
			if !strings.Contains(read(t, r.outputs["report"]), "<testsuite") {
				t.Error("the JUnit report is missing")
			}
			if strings.HasPrefix(r.outputs["report"], dir) {
				t.Error("the report is in the workspace, and would be part of a later build")
			}
			for _, command := range workflowCommands(t, r.stdout) {
				if strings.HasPrefix(command, "::error::forged") {
					t.Errorf("the runner would execute %q", command)
				}
			}
			if strings.ContainsRune(r.stdout+r.summary, '\x1b') || !strings.Contains(r.stdout, test.log) {
				t.Errorf("log:\n%q", r.stdout)
			}
			if left := docker(t, e.Engine.Host, "ps", "-aq"); left != "" {
				t.Errorf("containers left: %s", left)
			}
		})
	}
}

// A canceled test action publishes the results so far and removes its containers.
func TestTestActionCanceled(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	writeFile(t, dir, "Dockerfile", fromDebian+"USER nobody\n")
	writeFile(t, dir, "tests.yaml", `
tests:
  - {name: fails, session: one, run: "echo the reason; exit 3"}
  - {name: waits, session: one, run: sleep 300}
  - {name: never starts, session: one, run: "true"}
`)
	r := e.run(t, invocation{
		program: "action-test", dir: dir,
		inputs: values{"suite": "tests.yaml", "command": "touch ran", "report_dir": "results"},
		onStart: func(pid int, stdout *programs.Buffer) {
			hasFailed := func() bool { return strings.Contains(stdout.String(), "failed  fails") }
			for !hasFailed() && unix.Kill(pid, 0) == nil && t.Context().Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			if err := unix.Kill(pid, unix.SIGINT); err != nil {
				t.Error(err)
			}
		},
	})
	const end = "waiting for the suite tests.yaml; the results so far are in results/junit.xml"
	if messages := errorMessages(r); r.exitCode != 130 || !strings.Contains(strings.Join(messages, "\n"), end) {
		t.Errorf("exit code %d: %q", r.exitCode, messages)
	}
	want := values{"tests_total": "3", "tests_failed": "1", "tests_passed": "0", "tests_skipped": "2"}
	for name, want := range want {
		if r.outputs[name] != want {
			t.Errorf("%s is %q, want %q", name, r.outputs[name], want)
		}
	}
	junit := read(t, filepath.Join(dir, r.outputs["report"]))
	isNamed := strings.Contains(junit, "the reason") && strings.Contains(junit, " results/logs/001-fails.log\n")
	if !isNamed || strings.Count(junit, "<error ") != 2 {
		t.Errorf("junit.xml:\n%s", junit)
	}
	if !strings.Contains(r.summary, "the reason") || !strings.Contains(r.summary, "Results may be missing") {
		t.Errorf("summary:\n%s", r.summary)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("the command ran after the cancellation")
	}
	if left := docker(t, e.Engine.Host, "ps", "-aq"); left != "" {
		t.Errorf("containers left: %s", left)
	}
}

// The test action reports invalid inputs before it builds.
func TestTestActionFailures(t *testing.T) {
	e := setup(t)
	dir := writeFiles(t, values{
		"Dockerfile":   "FROM scratch\n",
		"unknown.yaml": "tests:\n  - name: a\n    rnu: [true]\n",
		"empty.yaml":   "",
		"regex.yaml":   "tests:\n  - name: a\n    run: [ls]\n    stdout: {include: ['(']}\n",
		"all.yaml":     "defaults: {privileges: all}\ntests:\n  - name: mount\n    run: [mount, /dev/vda, /mnt]\n",
	})
	for _, test := range []struct {
		name, want string
		inputs     map[string]string
		env        map[string]string
	}{
		{"no engine", `^error: .*Docker Engine.*unix:///absent.*`, values{"suite": "regex.yaml"},
			values{"DOCKER_HOST": "unix:///absent"}},
		{"missing suite", `input suite: .*absent\.yaml`, values{"suite": "absent.yaml"}, nil},
		{"empty suite", `input suite: .*empty\.yaml`, values{"suite": "empty.yaml"}, nil},
		{"unknown key", `input suite: .*unknown\.yaml:3: .*rnu.*did you mean`, values{"suite": "unknown.yaml"}, nil},
		{"invalid regular expression", `input suite: .*regex\.yaml:4: `, values{"suite": "regex.yaml"}, nil},
		{"privileged containers", `input suite: all\.yaml:3: test "mount" needs a privileged.*allow_privileged: true`,
			values{"suite": "all.yaml"}, nil},
		{"invalid parallel", `input parallel: .*"many".*cores`, values{"suite": "regex.yaml", "parallel": "many"}, nil},
		{"unsupported load: false", `input load: .*"false"`, values{"load": "false"}, nil},
		{"unknown image", `input image: .*"absent:1".*Docker Engine`,
			values{"image": "absent:1", "command": "true"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := len(e.Depot.Calls())
			r := e.run(t, invocation{program: "action-test", dir: dir, inputs: test.inputs, env: test.env})
			assertFailed(t, r, test.want)
			if len(e.Depot.Calls()) != calls {
				t.Error("the program created a build on Depot")
			}
		})
	}
}
