package actions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// parseRecord parses the JSON that --output json prints.
func parseRecord(t *testing.T, data []byte) *runrecord.Record {
	t.Helper()
	record, err := runrecord.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return record
}

// The exit code and the kind of an error depend on its type, however it is wrapped.
func TestErrorRecords(t *testing.T) {
	located := &image.BuildError{
		Position: image.Position{File: "Dockerfile", Line: 3, EndLine: 4, Excerpt: "3 | >>> RUN make"}, Step: "RUN make",
		ExitCode: 2, Output: []string{"one", "two"},
	}
	interrupted := func(cause error) error { return &partialError{&InterruptedError{Cause: cause}, "note"} }
	for _, test := range []struct {
		name string
		err  error
		code int
		kind runrecord.Kind
		want runrecord.Error // without Kind and Message
	}{
		{"input", inputs.Errorf("platform", "x", "is unknown"), 2, runrecord.InvalidInput,
			runrecord.Error{Input: "platform"}},
		{"engine", inputs.Wrap("load", &engineError{errors.New("no engine")}), 1, runrecord.OtherwiseFailed,
			runrecord.Error{Input: "load"}},
		{"flag", &usageError{errors.New("unknown flag --x")}, 2, runrecord.InvalidInput, runrecord.Error{}},
		{"build", located, 1, runrecord.BuildFailed, runrecord.Error{
			File: "Dockerfile", Line: 3, EndLine: 4, Excerpt: "3 | >>> RUN make", Step: "RUN make", Output: "one\ntwo",
		}},
		{"tests", &ExitError{7, errors.New("1 of 2 tests failed")}, 7, runrecord.TestsFailed, runrecord.Error{}},
		{"snapshot", &daytona.SnapshotError{Log: "log"}, 1, runrecord.SnapshotFailed, runrecord.Error{Output: "log"}},
		{"entry point", &brokenError{Log: "log"}, 1, runrecord.SnapshotFailed, runrecord.Error{Output: "log"}},
		{"timeout", &InterruptedError{Timeout: time.Minute}, 1, runrecord.TimedOut, runrecord.Error{}},
		{"SIGINT", interrupted(&SignalError{syscall.SIGINT}), 130, runrecord.Canceled, runrecord.Error{}},
		{"SIGTERM", interrupted(&SignalError{syscall.SIGTERM}), 143, runrecord.Canceled, runrecord.Error{}},
		{"canceled by Depot", interrupted(errors.New("canceled")), 1, runrecord.Canceled, runrecord.Error{}},
		{"other", errors.New("other"), 1, runrecord.OtherwiseFailed, runrecord.Error{}},
	} {
		for _, err := range []error{test.err, errors.Join(fmt.Errorf("variant a: %w", test.err), errors.New("more"))} {
			test.want.Kind, test.want.Message = test.kind, err.Error()
			if got := errorRecord(err); *got != test.want || exitCode(err) != test.code {
				t.Errorf("%s: exit code %d, %+v", test.name, exitCode(err), got)
			}
		}
	}
}

// What is on standard output depends on --output only, and a record has no secrets.
func TestOutputFormats(t *testing.T) {
	const canary = "hunter2-canary"
	failed := fmt.Errorf("step failed: %s\x1b[31m", canary)
	for _, test := range []struct {
		output    inputs.Output
		inActions string
		err       error
		want      string // standard output; "" for a record
	}{
		{inputs.EnvOutput, "", nil, "digest=sha256:1\nmetadata=a%0Ab\n"},
		{inputs.EnvOutput, "", failed, "digest=sha256:1\nmetadata=a%0Ab\n"},
		{inputs.JSONOutput, "", nil, ""},
		{inputs.JSONOutput, "true", failed, ""},
	} {
		job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": test.inActions})
		job.Runner.MaskAs("a secret", canary)
		stdout.Reset()
		job.Output, job.Program = test.output, "action-build"
		job.Inputs = &inputs.Build{DepotToken: canary, BuildArgs: inputs.Lines{{Text: "A=" + canary}}, Target: "app"}
		run := runrecord.Record{
			Outputs: []runrecord.Output{{Name: "digest", Value: "sha256:1"}, {Name: "metadata", Value: "a\nb"}},
			Steps:   []runrecord.Step{{Name: "RUN echo " + canary, Log: "one\n" + canary + "\a"}},
			Source:  &runrecord.Source{BuildArgs: map[string]string{canary: canary}},
		}
		err := job.present(t.Context(), run, test.err)
		if !errors.Is(err, test.err) {
			t.Errorf("got %v, want %v", err, test.err)
		}
		if test.want != "" {
			if stdout.String() != test.want {
				t.Errorf("%s: %q", test.output, stdout)
			}
			continue
		}
		if text := stdout.String(); strings.Contains(text, canary) || strings.ContainsAny(text, "\x1b\a") {
			t.Errorf("the record has a secret or a control character: %s", text)
		}
		record := parseRecord(t, stdout.Bytes())
		inputValues := map[string]runrecord.Input{}
		for _, input := range record.Inputs {
			inputValues[input.Name] = input
		}
		if !inputValues["depot_token"].Secret || !inputValues["build_args"].Secret || inputValues["target"].Value != "app" {
			t.Errorf("inputs %+v", record.Inputs)
		}
		if record.Program != "action-build" || record.ExitCode != exitCode(test.err) ||
			(record.Error == nil) != (err == nil) ||
			(record.Run == nil) != (test.inActions == "") ||
			record.Steps[0].Log != "" {
			t.Errorf("%+v", record)
		}
	}
}

// Every flow prints a record if its inputs are invalid, and nothing else.
func TestRejectedInputs(t *testing.T) {
	for name, flow := range map[string]func(context.Context, Env) error{
		"build":    func(ctx context.Context, e Env) error { return Build(ctx, e, inputs.Build{}) },
		"test":     func(ctx context.Context, e Env) error { return Test(ctx, e, inputs.Test{}) },
		"snapshot": func(ctx context.Context, e Env) error { return Snapshot(ctx, e, inputs.Snapshot{}) },
		"promote":  func(ctx context.Context, e Env) error { return Promote(ctx, e, inputs.Promote{}) },
		"rollback": func(ctx context.Context, e Env) error { return Rollback(ctx, e, inputs.Rollback{}) },
	} {
		job, stdout, _ := testJob(t, nil)
		job.Output = inputs.JSONOutput
		err := flow(t.Context(), job.Env)
		record := parseRecord(t, stdout.Bytes())
		if exitCode(err) != 2 || record.ExitCode != 2 || record.Error.Kind != runrecord.InvalidInput ||
			record.Error.Input == "" || record.Error.Message != err.Error() {
			t.Errorf("%s: %v, %+v", name, err, record)
		}
	}
}

// The report is written also for a failed run, and a hostile workspace cannot redirect it.
func TestReportFiles(t *testing.T) {
	files := t.TempDir()
	job, _, _ := testJob(t, map[string]string{"GITHUB_OUTPUT": filepath.Join(files, "output")})
	job.Report = inputs.Report{Dir: "results"}
	failed := errors.New("failed")
	job.Runner.Mask("hunter2-canary")
	run := runrecord.Record{Steps: []runrecord.Step{{Name: "RUN", Log: "one\nhunter2-canary\a"}}}
	if err := job.present(t.Context(), run, failed); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	record := parseRecord(t, []byte(readFile(t, job.absolute("results/record.json"))))
	outputs := parseOutputFile(readFile(t, filepath.Join(files, "output")))
	if record.ExitCode != 1 || outputs["record"] != "results/record.json" || record.Steps[0].Log != "one\n***␇" {
		t.Errorf("%+v, outputs %v", record, outputs)
	}
	outside := filepath.Join(files, "outside")
	if err := errors.Join(os.Remove(job.absolute("results/record.json")),
		os.Symlink(outside, job.absolute("results/record.json"))); err != nil {
		t.Fatal(err)
	}
	if err := job.present(t.Context(), runrecord.Record{}, nil); err == nil {
		t.Error("no error for a symbolic link")
	}
	if _, err := os.Stat(outside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the report was written outside: %v", err)
	}
}

// A record that cannot be read is a warning.
func TestPreviousRecord(t *testing.T) {
	job, _, stderr := testJob(t, nil)
	report := inputs.Report{Dir: "results"}
	dir := job.absolute("results")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if record := job.readPrevious(report); record != nil || stderr.Len() > 0 {
		t.Errorf("got %+v without a record; %s", record, stderr)
	}
	for name, write := range map[string]func(path string) error{
		"truncated":      func(path string) error { return os.WriteFile(path, []byte(`{"format": 1,`), 0o644) },
		"another format": func(path string) error { return os.WriteFile(path, []byte(`{"format": 99}`), 0o644) },
		"FIFO":           func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"directory":      func(path string) error { return os.Mkdir(path, 0o755) },
		"symbolic link":  func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		path := filepath.Join(dir, recordFile)
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		stderr.Reset()
		if record := job.readPrevious(report); record != nil || !strings.Contains(stderr.String(), "warning: ") {
			t.Errorf("%s: got %+v, log %q", name, record, stderr)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	stderr.Reset()
	if job.readPrevious(inputs.Report{Dir: "results", Previous: "missing.json"}); stderr.Len() == 0 {
		t.Error("no warning for a missing previous_record")
	}
}

// A run is compared with the last one that had an image, also after a failed one.
func TestComparison(t *testing.T) {
	job, _, stderr := testJob(t, nil)
	job.Report = inputs.Report{Dir: "results"}
	failed := errors.New("failed")
	with := func(digest string) *runrecord.Image {
		return &runrecord.Image{Digest: digest, Platforms: []runrecord.PlatformImage{}}
	}
	for i, test := range []struct {
		image *runrecord.Image
		err   error
		since string // digest of the image with which the run is compared; "" for none
	}{
		{with("sha256:1"), nil, ""}, {nil, failed, "sha256:1"}, {nil, failed, "sha256:1"},
		{with("sha256:2"), nil, "sha256:1"},
		{with("sha256:3"), failed, "sha256:2"}, {with("sha256:4"), nil, "sha256:3"},
	} {
		job.Previous = job.startPrevious(t.Context(), job.Report)
		if err := job.present(t.Context(), runrecord.Record{Image: test.image}, test.err); !errors.Is(err, test.err) {
			t.Fatal(err)
		}
		record := parseRecord(t, []byte(readFile(t, job.absolute("results/record.json"))))
		since := ""
		if record.Changes != nil {
			since = record.Changes.Digest
		}
		if since != test.since || (record.Image == nil) != (test.image == nil) {
			t.Errorf("run %d is compared with %q, want %q", i, since, test.since)
		}
	}
	if strings.Contains(stderr.String(), "warning: ") {
		t.Errorf("log %q", stderr)
	}
	if page := readFile(t, job.absolute("results/report.html")); !strings.Contains(page, "sha256:4") {
		t.Error("the page lacks the digest")
	}
}
