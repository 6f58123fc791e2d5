package actions

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/suite"
)

// onText calls a function once when a text is written.
type onText struct {
	text string
	call func()
	seen strings.Builder
}

func (w *onText) Write(p []byte) (int, error) {
	w.seen.Write(p)
	if w.call != nil && strings.Contains(w.seen.String(), w.text) {
		w.call()
		w.call = nil
	}
	return len(p), nil
}

// Results that are known when a run ends are in the report, the outputs and the summary, however it ends.
func TestResultsArePublished(t *testing.T) {
	const passing = `<testsuite name="s"><testcase name="p"/></testsuite>`
	const failing = `<testsuite name="s"><testcase name="q"><failure message="no"/></testcase></testsuite>`
	write := func(name, text string) string {
		return "printf '%s' '" + text + `' > "$TEST_REPORT_DIR/` + name + `"; `
	}
	for _, test := range []struct {
		name, command string
		noOutputs     bool // whether GITHUB_OUTPUT cannot be written
		total, failed string
		code          int
		err           string // part of the error; "" for none
		warnings      int
		log           string // part of the log
		files         []string
	}{
		{name: "junit.xml of the command", command: write("junit.xml", failing), total: "2", failed: "1", code: 1,
			err:   "1 of 2 tests failed; see the log above and results/junit.xml",
			log:   "Renamed the command's junit.xml to junit-command.xml",
			files: []string{"junit-command.xml"}},
		{name: "subdirectory", command: `mkdir -p "$TEST_REPORT_DIR/a/b"; ` + write("a/b/TEST-x.xml", passing),
			total: "2", failed: "0"},
		{name: "unreadable file",
			command: write("x.xml", "<testsuites><testsuite name=\"s\"><testcase name=\"p\"/><testc"), total: "2",
			failed: "0", code: 1, err: "read the command's JUnit file results/x.xml: file is cut off (tests read: 1)"},
		{name: "two unreadable files", command: write("x.xml", "") + write("y.xml", ""), total: "1", failed: "0", code: 1,
			err: "results/x.xml: file is empty", warnings: 1},
		{name: "unreadable file and failed test", command: write("x.xml", "") + write("y.xml", failing),
			total: "2", failed: "1", code: 1, err: "1 of 2 tests failed", warnings: 1},
		{name: "unreadable file and failed command", command: write("x.xml", "") + "exit 7", total: "1", failed: "0", code: 7,
			err: "exit code 7", warnings: 1},
		{name: "other XML", command: write("coverage.xml", "<coverage/>") + `ln -s / "$TEST_REPORT_DIR/root"`,
			total: "1", failed: "0",
			log: "Ignored results/coverage.xml: not JUnit: its root element is <coverage>"},
		{name: "removed directory", command: `rm -r "$TEST_REPORT_DIR"`, total: "1", failed: "0"},
		{name: "canceled", command: write("x.xml", failing) + "echo ready; sleep 60", total: "2", failed: "1", code: 1,
			err: "; the results so far are in results/junit.xml"},
		{name: "canceled while a file is written", command: write("x.xml", "<testsuite") + "echo ready; sleep 60",
			total: "1", failed: "0", code: 1, err: "; the results so far are in results/junit.xml", warnings: 1},
		{name: "outputs cannot be written", command: write("x.xml", failing), noOutputs: true, code: 1,
			err: "write the outputs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := t.TempDir()
			environ := map[string]string{
				"GITHUB_OUTPUT": filepath.Join(files, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(files, "summary"),
			}
			if test.noOutputs {
				environ["GITHUB_OUTPUT"] = files
			}
			job, stdout, _ := testJob(t, environ)
			ctx, cancel := context.WithCancelCause(t.Context())
			stderr := &onText{text: "\nready\n", call: func() { cancel(errors.New("SIGTERM")) }}
			job.Runner = runner.New(stdout, stderr, job.Getenv)
			spec := inputs.TestSpec{Command: test.command}
			spec.ReportDir = "results"
			results := &suite.Report{Suite: "tests.yaml", Started: time.Now()}
			results.Add(&suite.Report{Tests: []*suite.Result{{Name: "known", File: "tests.yaml", Status: suite.Passed}}})

			var run runrecord.Record
			err := runWithDeadline(ctx, time.Hour, func(ctx context.Context) error {
				command, err := runCommand(ctx, job, spec, &dockerengine.Engine{}, testSubject{}, job.Dir)
				err = finishReport(job, spec, results, command, err)
				addTests(&run, spec, testSubject{}, results)
				return err
			})
			err = job.present(t.Context(), run, err)
			if code := report(job.Runner, err); code != test.code || test.err != "" && !strings.Contains(err.Error(), test.err) {
				t.Errorf("exit code %d, %v; want %d, %s", code, err, test.code, test.err)
			}
			log := stderr.seen.String()
			if got := strings.Count(log, "\nwarning: "); got != test.warnings || !strings.Contains(log, test.log) {
				t.Errorf("%d warnings, want %d:\n%s", got, test.warnings, log)
			}
			junit := suite.ReadJUnitFiles(t.Context(), job.absolute("results"), nil, "").Report
			if !slices.ContainsFunc(junit.Tests, func(r *suite.Result) bool { return r.Name == "known" }) {
				t.Errorf("junit.xml: %s", junit.Line())
			}
			for _, name := range test.files {
				if _, err := os.Stat(filepath.Join(job.absolute("results"), name)); err != nil {
					t.Error(err)
				}
			}
			summary := readFile(t, environ["GITHUB_STEP_SUMMARY"])
			isIncomplete := strings.Contains(summary, "Results may be missing")
			if isIncomplete && !strings.HasPrefix(summary, "### ❌ ") {
				t.Errorf("the summary shows a success:\n%s", summary)
			}
			if want := test.warnings > 0 || strings.Contains(test.err, "results/"); !strings.Contains(summary, "known") ||
				test.failed == "0" && isIncomplete != want {
				t.Errorf("summary:\n%s", summary)
			}
			if test.noOutputs {
				return
			}
			outputs := parseOutputFile(readFile(t, environ["GITHUB_OUTPUT"]))
			want := map[string]string{"tests_total": test.total, "tests_failed": test.failed, "report": "results/junit.xml"}
			maps.DeleteFunc(outputs, func(name, _ string) bool { return want[name] == "" })
			if !maps.Equal(outputs, want) {
				t.Errorf("outputs %v, want %v", outputs, want)
			}
		})
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// parseOutputFile parses single-line outputs.
func parseOutputFile(text string) map[string]string {
	outputs := map[string]string{}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if name, _, ok := strings.Cut(line, "<<EOF_"); ok {
			outputs[name] = lines[i+1]
		}
	}
	return outputs
}
