//go:build linux

package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
)

// limit is the default of the input timeout, and grace the time after it within which the program must exit.
const (
	limit = 15 * time.Second
	grace = 15 * time.Second
)

// onThisMachine extends a time limit if the machine may be busy: other packages are tested at once unless -full is set.
func onThisMachine(limit time.Duration) time.Duration {
	if *full {
		return limit
	}
	return 3 * limit
}

// trial is the result of one run.
type trial struct {
	programs.Result
	name      string // in messages
	id        string
	isKilled  bool // the run received SIGKILL, so it had no chance to release what it had
	outputs   map[string]string
	message   string   // of the error annotation; "" after a success
	processes []string // that the program has left running
	problems  []error
}

// try runs a flow once and checks what holds after every run: it ends in time, either with exit code 0 and all outputs,
// or with one error.
func (l *lab) try(ctx context.Context, f flow, onStart func(pid int, _ *programs.Buffer)) trial {
	t := trial{id: fmt.Sprintf("run-%d-%d", l.number, l.runs.Add(1))}
	all := f.inputs(l, t.id)
	timeout := cmp.Or(f.timeout, onThisMachine(limit))
	all["timeout"] = timeout.String()
	step, err := l.step(f.program, f.repository, all)
	for name, content := range f.files {
		err = errors.Join(err, os.WriteFile(filepath.Join(step.Dir, name), []byte(content), 0o644))
	}
	if err == nil && f.script != "" {
		_, err = runScript(step.Dir, f.script)
	}
	if err != nil {
		t.fail("%w", err)
		return t
	}
	defer os.RemoveAll(step.Files)
	var session int
	step.OnStart = func(pid int, stdout *programs.Buffer) {
		session = pid
		if onStart != nil {
			onStart(pid, stdout)
		}
	}
	limited, cancel := context.WithTimeout(ctx, timeout+onThisMachine(grace))
	defer cancel()
	t.Result, err = step.Run(limited)
	if err != nil {
		t.fail("%w", err)
		return t
	}
	t.processes = processes(session)
	t.outputs, err = programs.ParseOutputs(t.Outputs)
	if err != nil {
		t.fail("%w", err)
	}
	t.judge()
	return t
}

func (t *trial) fail(format string, args ...any) {
	t.problems = append(t.problems, fmt.Errorf(format, args...))
}

// annotation matches an error annotation: its properties and its message.
var annotation = regexp.MustCompile(`(?m)^::error([^:]*)::(.*)$`)

// withoutStopped returns the output without the lines in which workflow commands are stopped.
func withoutStopped(output string) string {
	var b strings.Builder
	end := ""
	for line := range strings.Lines(output) {
		token, stops := strings.CutPrefix(strings.TrimSpace(line), "::stop-commands::")
		switch {
		case end == "" && stops:
			end = "::" + token + "::"
		case end == "":
			b.WriteString(line)
		case strings.TrimSpace(line) == end:
			end = ""
		}
	}
	return b.String()
}

// judge checks the exit code, the annotation and the outputs.
func (t *trial) judge() {
	var found []string
	for _, match := range annotation.FindAllStringSubmatch(withoutStopped(t.Stdout), -1) {
		if !strings.Contains(match[1], "title=") { // of a failed test
			found = append(found, match[2])
		}
	}
	if len(found) > 0 {
		t.message = found[0]
	}
	switch {
	case t.ExitCode == 0 && len(found) > 0:
		t.fail("the run succeeded, but reports an error: %s", t.message)
	case t.ExitCode == 0 && len(t.outputs) == 0:
		t.fail("the run succeeded without outputs")
	case t.ExitCode > 0 && len(found) != 1:
		t.fail("the run failed with %d errors: %q", len(found), found)
	case t.ExitCode > 0 && len(t.outputs) > 0 && t.outputs["tests_total"] == "":
		t.fail("the run failed, but wrote outputs: %v", t.outputs)
	}
	if strings.Contains(t.Stdout+t.Stderr, "goroutine ") {
		t.fail("the program panicked:\n%s", t.Stderr)
	}
}

// record checks what a run has left, and counts the run in rows.
func (l *lab) record(t *testing.T, f flow, run trial, rows ...row) {
	t.Helper()
	if err := l.check(t.Context(), f, run); err != nil {
		run.fail("%w", err)
	}
	results.add(t, run, rows...)
}

// check checks what a run has left in the services and in its temporary directory.
func (l *lab) check(ctx context.Context, f flow, t trial) error {
	err := f.check(ctx, l, t)
	builds, attempted := l.unfinishedBuilds(), l.hasTriedToFinish()
	l.depotCalls, l.depotRequests = len(l.Depot.Calls()), len(l.proxies[depot].Requests())
	if t.isKilled {
		return err
	}
	for _, build := range builds {
		if strings.Contains(t.Stdout, build) && !attempted { // otherwise the program does not know it
			err = errors.Join(err, fmt.Errorf("the run did not finish build %s", build))
		}
	}
	if len(t.processes) > 0 {
		err = errors.Join(err, fmt.Errorf("the run left the processes %q", t.processes))
	}
	for _, file := range t.Left {
		if !strings.Contains(file, "test-results") { // of action-test
			err = errors.Join(err, fmt.Errorf("the run left the temporary file %s", file))
		}
	}
	return err
}

// hasTriedToFinish reports whether a fault has replaced a FinishBuild request since the last check.
func (l *lab) hasTriedToFinish() bool {
	requests := l.proxies[depot].Requests()[l.depotRequests:]
	return slices.ContainsFunc(requests, func(r faultproxy.Request) bool {
		return strings.HasSuffix(r.Path, "/FinishBuild") && r.Fault != ""
	})
}

// unfinishedBuilds returns the builds that were created since the last check, and that no request has finished.
func (l *lab) unfinishedBuilds() (builds []string) {
	for _, call := range l.Depot.Calls()[l.depotCalls:] {
		switch {
		case call.Method == "CreateBuild" && call.BuildID != "": // Depot has created it
			builds = append(builds, call.BuildID)
		case call.Method == "FinishBuild":
			builds = slices.DeleteFunc(builds, func(id string) bool { return id == call.BuildID })
		}
	}
	return builds
}
