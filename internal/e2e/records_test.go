//go:build linux

package e2e

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Standard output of --output json is one record that the schema describes, however the run ends.
func TestRecords(t *testing.T) {
	e := setup(t)
	schema, err := jsonschema.NewCompiler().Compile("../../pkg/runrecord/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	suite := writeFiles(t, values{
		"Dockerfile": fromDebian + "COPY Dockerfile /\n",
		"tests.yaml": "tests:\n  - {name: good, run: \"true\"}\n  - {name: bad, run: \"false\"}\n",
	})
	for _, test := range []struct {
		name   string
		run    invocation
		signal unix.Signal
		code   int
		kind   runrecord.Kind
		check  func(*runrecord.Record) bool
	}{
		{name: "build", run: invocation{dockerfile: fromDebian + "\nWORKDIR /\nRUN echo \\\n  built > /built\n"},
			check: func(r *runrecord.Record) bool {
				layers := r.Image.Platforms[0].Layers
				step := slices.IndexFunc(r.Steps, func(s runrecord.Step) bool { return strings.Contains(s.Name, "RUN echo") })
				return r.Run.Repository == callerRepository && r.Source.Dockerfile == "Dockerfile" && r.Image.Names != nil &&
					r.Image.Total == 1 && strings.Contains(layers[len(layers)-1].CreatedBy, "RUN") && r.Steps[step].Line == 4 &&
					hasPhases(r, "Prepare", "Acquire a builder", "Build", "Load sandbox:ci") && len(r.Outputs) > 10 &&
					r.Phases[len(r.Phases)-1].Bytes > 0 &&
					len(r.Inputs) == 1 && r.Inputs[0].Name == "output"
			}},
		{name: "failed step", run: invocation{dockerfile: fromDebian + "RUN echo last words && exit 7\n"}, code: 1,
			kind: runrecord.BuildFailed, check: func(r *runrecord.Record) bool {
				return r.Error.File == "Dockerfile" && r.Error.Line == 2 && r.Error.Output == "last words" &&
					r.Error.Excerpt != "" &&
					r.Image == nil && len(r.Steps) > 1 && r.Outputs == nil && hasPhases(r, "Prepare", "Build")
			}},
		{name: "invalid input", run: invocation{inputs: values{"platform": "linux/s390x"}}, code: 2,
			kind: runrecord.InvalidInput, check: func(r *runrecord.Record) bool { return r.Error.Input == "platform" }},
		{name: "invalid boolean", run: invocation{inputs: values{"load": "perhaps"}}, code: 2,
			kind: runrecord.InvalidInput, check: func(r *runrecord.Record) bool { return r.Error.Input == "load" }},
		{name: "unknown flag", run: invocation{args: []string{"--absent"}}, code: 2, kind: runrecord.InvalidInput},
		{name: "timeout", code: 1, kind: runrecord.TimedOut,
			run:   invocation{dockerfile: fromDebian + "RUN sleep 300\n", inputs: values{"timeout": "4s"}},
			check: func(r *runrecord.Record) bool { return r.Seconds >= 4 && r.Source != nil }},
		{name: "interrupted", run: invocation{dockerfile: fromDebian + "RUN echo started && sleep 300\n"},
			signal: unix.SIGINT, code: 130, kind: runrecord.Canceled},
		{name: "terminated", run: invocation{dockerfile: fromDebian + "RUN echo started && sleep 301\n"},
			signal: unix.SIGTERM, code: 143, kind: runrecord.Canceled},
		{name: "failed test", code: 1, kind: runrecord.TestsFailed,
			run: invocation{program: "action-test", dir: suite, inputs: values{"suite": "tests.yaml"}},
			check: func(r *runrecord.Record) bool {
				return r.Tests.Failed == 1 && r.Tests.Passed == 1 && r.Tests.Tests[1].Failures[0].Line == 3 && r.Image.ID != "" &&
					hasPhases(r, "Test with tests.yaml")
			}},
		{name: "existing image",
			run: invocation{program: "action-test", dir: suite, inputs: values{
				"suite": "none", "command": "true", "image": "sandbox:ci",
			}},
			check: func(r *runrecord.Record) bool {
				return r.Image.Existing && !r.Image.Created.IsZero() && r.Image.Names[0] == "sandbox:ci" && r.Steps == nil
			}},
		{name: "snapshot", run: invocation{program: "action-snapshot", dockerfile: uniqueDockerfile(t)},
			check: func(r *runrecord.Record) bool {
				s := r.Snapshots[0]
				states := s.States
				return s.State == "active" && states[len(states)-1].Name == "active" && states[0].Offset <= states[1].Offset &&
					s.Digest == r.Image.Digest && len(r.Doppler.Written) == 1 && r.Doppler.Secret == nameSecret &&
					hasPhases(r, "Push to Daytona", "Create snapshot "+s.Name, "Update Doppler")
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := test.run
			i.args = append(i.args, "--output", "json")
			if test.signal != 0 {
				before := len(e.Depot.Calls())
				i.onStart = func(pid int, _ *programs.Buffer) {
					waitFor(t, "the build", func() bool { return len(e.Depot.Calls()) > before })
					if err := unix.Kill(pid, test.signal); err != nil {
						t.Error(err)
					}
				}
			}
			r := e.run(t, i)
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(r.stdout))
			if err == nil {
				err = schema.Validate(value)
			}
			if err != nil {
				t.Fatalf("%v: %s\n%s", err, r.stdout, r.stderr)
			}
			record, err := runrecord.Read(bytes.NewReader([]byte(r.stdout)))
			if err != nil {
				t.Fatal(err)
			}
			hasKind := test.kind == "" && record.Error == nil || record.Error != nil && record.Error.Kind == test.kind
			if r.exitCode != test.code || record.ExitCode != test.code || !hasKind || test.check != nil && !test.check(record) {
				t.Errorf("exit code %d: %s\n%s", r.exitCode, r.stdout, r.stderr)
			}
		})
	}
}

// hasPhases reports whether a record has phases with the names, in this order, that overlap the run.
func hasPhases(r *runrecord.Record, names ...string) bool {
	for _, p := range r.Phases {
		if p.Offset < 0 || p.Offset+p.Seconds > r.Seconds+0.01 {
			return false
		}
		if len(names) > 0 && p.Name == names[0] {
			names = names[1:]
		}
	}
	return len(names) == 0
}
