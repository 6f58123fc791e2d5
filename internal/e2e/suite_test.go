//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A suite that passes, fails, skips; a command beside it; an image that is taken instead of built.
func TestTheTestAction(t *testing.T) {
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
		sentence string
		outputs  map[string]string
		log      string
	}{
		{name: "all pass", inputs: values{"suite": "good.yaml"},
			outputs: values{"tests_total": "4", "tests_passed": "3", "tests_failed": "0", "tests_skipped": "1", "report": "test-results/junit.xml"}},
		{name: "an image that is there", inputs: values{"suite": "good.yaml", "image": "iterate-sandbox:ci"},
			outputs: values{"tests_passed": "3", "image_ref": "iterate-sandbox:ci"}},
		{name: "some fail", inputs: values{"suite": "bad.yaml"}, exitCode: 1, sentence: "2 of 2 tests failed",
			outputs: values{"tests_failed": "2", "tests_passed": "0"}, log: "::error "},
		{name: "a command", inputs: values{"suite": "good.yaml", "command": `test "$RUN_LOCAL_DOCKER_TESTS" = true && docker run --rm "$LOCAL_DOCKER_IMAGE_NAME" cat /greeting && echo '::error::forged' && ` +
			`echo '<testsuites><testsuite name="s" tests="2" failures="1"><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite></testsuites>' > "$TEST_REPORT_DIR/host.xml"`},
			exitCode: 1, sentence: "1 of 6 tests failed",
			outputs: values{"tests_total": "6", "tests_passed": "4", "tests_failed": "1"}},
		{name: "a command that fails", inputs: values{"suite": "good.yaml", "command": "echo last words; exit 7"},
			exitCode: 7, sentence: "exit code 7", outputs: values{"tests_failed": "0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(dir, "test-results")); err != nil {
				t.Fatal(err)
			}
			o := e.run(t, invocation{program: "action-test", dir: dir, inputs: test.inputs})
			if o.exitCode != test.exitCode || !strings.Contains(o.stderr, test.sentence) || strings.Count(o.stderr, "\n") > 1 {
				t.Fatalf("exit %d:\n%s%s", o.exitCode, o.stdout, o.stderr)
			}
			for name, want := range test.outputs {
				if o.outputs[name] != want {
					t.Errorf("%s is %q, want %q", name, o.outputs[name], want)
				}
			}
			if len(o.outputs) != len(outputsOf(t, "test")) || !strings.Contains(o.summary, "greets") {
				t.Errorf("outputs %v; summary %s", o.outputs, o.summary)
			}
			if !strings.Contains(read(t, filepath.Join(dir, "test-results/junit.xml")), "<testsuite") {
				t.Error("there is no JUnit report")
			}
			for _, command := range workflowCommands(t, o.stdout) {
				if strings.HasPrefix(command, "::error::forged") {
					t.Errorf("the runner obeys %q", command)
				}
			}
			if strings.ContainsRune(o.stdout+o.summary, '\x1b') || !strings.Contains(o.stdout, test.log) {
				t.Errorf("log:\n%q", o.stdout)
			}
			if left := docker(t, e.Engine.Host, "ps", "-aq"); left != "" {
				t.Errorf("containers are left: %s", left)
			}
		})
	}
}

// What can not be tested is said before anything is built.
func TestTestInputs(t *testing.T) {
	e := setup(t)
	dir := writeFiles(
		t,
		values{
			"Dockerfile":   "FROM scratch\n",
			"unknown.yaml": "tests:\n  - name: a\n    rnu: [true]\n",
			"empty.yaml":   "",
			"regex.yaml":   "tests:\n  - name: a\n    run: [ls]\n    stdout: {include: ['(']}\n",
		},
	)
	for _, test := range []struct {
		name, sentence string
		inputs         map[string]string
		env            map[string]string
	}{
		{"no engine", `^error: .*Docker Engine.*unix:///absent.*`, values{"suite": "regex.yaml"},
			values{"DOCKER_HOST": "unix:///absent"}},
		{"no suite of that name", `input suite: .*absent\.yaml`, values{"suite": "absent.yaml"}, nil},
		{"empty", `input suite: .*empty\.yaml`, values{"suite": "empty.yaml"}, nil},
		{"unknown key", `input suite: .*unknown\.yaml:3: .*rnu.*did you mean`, values{"suite": "unknown.yaml"}, nil},
		{"regular expression", `input suite: .*regex\.yaml:4: `, values{"suite": "regex.yaml"}, nil},
		{"parallel", `input parallel: .*"many".*cores`, values{"suite": "regex.yaml", "parallel": "many"}, nil},
		{"load", `input load: .*"false"`, values{"load": "false"}, nil},
		{"image that is not there", `input image: .*"absent:1".*Docker Engine`,
			values{"image": "absent:1", "command": "true"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := len(e.Depot.Calls())
			o := e.run(t, invocation{program: "action-test", dir: dir, inputs: test.inputs, env: test.env})
			assertFailed(t, o, test.sentence)
			if len(e.Depot.Calls()) != calls {
				t.Error("Depot was asked")
			}
		})
	}
}
