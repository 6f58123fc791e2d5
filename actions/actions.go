// Package actions holds the flows of the three actions, [Build], [Snapshot] and [Test], and the smaller commands of
// their programs. A flow reads from top to bottom, only connects packages of pkg/, and returns what it reached, from
// which [job.present] makes everything that a person sees:
//
//	inputs -> Spec ─┐
//	credentials ────┼─> source -> lease (BuildKit) -> image -> engine | registry | Daytona -> outputs
//	trust ──────────┘
//
// Functions pass values to each other; no object accumulates the state of a run.
package actions

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/doctor"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/terminal"
)

// Env is the environment in which an action runs.
type Env struct {
	Runner   *runner.Runner
	Getenv   func(string) string
	Dir      string // absolute path of the workspace; relative paths start here
	Stdout   io.Writer
	Terminal *os.File         // shows progress; nil without a terminal
	Screen   *terminal.Screen // on Terminal; nil without one
	Color    bool             // whether text for people on Stdout is colored

	Program string        // name of the command, for the record of the run
	Inputs  any           // of the command, for the record: a pointer to a struct of package inputs; may be nil
	Names   inputs.Names  // defaults of the inputs
	Output  inputs.Output // what is written to Stdout at the end

	Checks []doctor.Check    // run after a failure, see the input doctor
	Probe  httpclient.Config // of the requests of checks; zero fields mean short limits
}

// validation returns the part of the environment that input validation reads.
func (e Env) validation() inputs.Env {
	return inputs.Env{Getenv: e.Getenv, Dir: e.Dir, Fork: runner.ReadEvent(e.Getenv).IsFork()}
}

func (e Env) oidc() credentials.OIDC { return credentials.NewOIDC(e.Getenv, e.Runner.Mask) }

// absolute resolves a path relative to the workspace.
func (e Env) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(e.Dir, path)
}

// job is one run of an action.
type job struct {
	Env
	Event    runner.Event
	Scratch  string // temporary directory, removed at the end of the run
	Started  time.Time
	Report   inputs.Report
	Previous func() *runrecord.Record // waits for the record with which the run is compared; use previous
}

// runJob runs an action's flow with a deadline and a temporary directory, and presents what it reached. The flow
// returns that also if it fails, as a record without what is the same for all programs.
func (e Env) runJob(
	ctx context.Context, timeout time.Duration, report inputs.Report,
	flow func(context.Context, job) (runrecord.Record, error),
) error {
	j := job{Env: e, Event: runner.ReadEvent(e.Getenv), Started: time.Now(), Report: report}
	scratch, remove, err := makeScratch(e.Getenv("RUNNER_TEMP"))
	if err != nil {
		return j.present(ctx, runrecord.Record{}, err)
	}
	defer remove()
	j.Scratch, j.Previous = scratch, e.startPrevious(ctx, report)
	times := &timeline{started: j.Started}
	var run runrecord.Record
	err = runWithDeadline(context.WithValue(ctx, timelineKey{}, times), timeout, func(ctx context.Context) (err error) {
		run, err = flow(ctx, j)
		return err
	})
	times.addTo(&run)
	e.diagnose(ctx, err)
	return j.present(ctx, run, explainFullDisk(err, scratch))
}

// relativeTo returns path relative to the first root that contains it, or unchanged if none does.
func relativeTo(path string, roots ...string) string {
	for _, root := range roots {
		relative, err := filepath.Rel(root, path)
		if err == nil && root != "" && !strings.HasPrefix(relative, "..") {
			return relative
		}
	}
	return path
}
