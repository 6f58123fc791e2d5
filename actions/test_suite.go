package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/term"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
)

// loadSuite reads the suite and annotates every problem of an invalid one. It returns nil if the run has no suite.
func loadSuite(job job, spec inputs.TestSpec, root string) (*suite.Suite, error) {
	if spec.Suite == inputs.NoSuite {
		return nil, nil
	}
	path, err := inputs.SecureJoin(root, spec.Suite)
	if err != nil {
		return nil, inputs.Wrap("suite", err)
	}
	if _, err := os.Stat(path); err != nil && spec.Suite == inputs.DefaultSuite && spec.Command != "" {
		return nil, nil
	}
	file := relativeTo(path, root, job.Dir)
	tests, err := suite.Load(path, file)
	if err != nil {
		annotateProblems(job.Runner, file, err)
		return nil, inputs.Wrap("suite", err)
	}
	return tests, checkPrivileges(spec, tests)
}

// annotateProblems annotates the problems of an invalid file except the first one, which the error itself reports.
func annotateProblems(r *runner.Runner, file string, err error) {
	if invalid := (*suite.InvalidError)(nil); errors.As(err, &invalid) {
		for _, problem := range invalid.Problems[1:] {
			r.Warning(runner.Annotation{File: file, Line: problem.Line, Message: problem.Message})
		}
	}
}

// checkPrivileges refuses privileged containers unless an input allows them. The suite may be part of an unreviewed
// change, unlike the workflow.
func checkPrivileges(spec inputs.TestSpec, tests *suite.Suite) error {
	for _, test := range tests.Tests {
		if test.Privileges == "all" && !spec.AllowPrivileged {
			return inputs.Wrap("suite", fmt.Errorf("%s:%d: test %q needs a privileged container (remove privileges: all, or "+
				"set allow_privileged: true)", tests.File, test.Line, test.Name))
		}
	}
	return nil
}

// runSuite runs the suite against the image in the engine. If tests is nil, the report is empty. If the run ends early,
// runSuite returns the results so far and an error.
func runSuite(
	ctx context.Context, job job, spec inputs.TestSpec, engine *dockerengine.Engine, subject testSubject,
	tests *suite.Suite,
) (_ *suite.Report, err error) {
	started := time.Now()
	if tests == nil {
		return &suite.Report{Suite: spec.Suite, Image: subject.Name, Started: started}, nil
	}
	defer startActivity(ctx, "the suite %s", tests.File)()
	defer startPhase(ctx, "Test with %s", tests.File).end(&err)
	id, err := engine.ImageID(ctx, subject.Name)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, inputs.Errorf("image", subject.Name, "is no longer in the Docker Engine; build it again")
	}
	img, err := engine.Image(ctx, id, "")
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	if err := checkNotReplaced(subject, config); err != nil {
		return nil, err
	}
	job.Runner.Group(fmt.Sprintf("Test %s with %s (seed %d)", subject.Name, tests.File, spec.Seed))
	defer job.Runner.EndGroup()
	report, err := suite.Run(ctx, tests, suite.Options{
		Image: img.Image, ImageID: id, Target: suite.OnEngine(engine, id),
		Parallel: spec.Parallel, Seed: spec.Seed, Run: spec.Run, Tags: spec.Tags, ReportDir: job.absolute(spec.ReportDir),
		Log: job.Runner.Log(), Clean: job.Runner.Clean, Progress: testProgress(job).Test,
	})
	if report == nil {
		return nil, err
	}
	report.File, report.Started = tests.File, started
	for _, result := range report.Tests {
		result.Log = relativeTo(result.Log, job.Dir)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return report, err
}

// checkNotReplaced returns an error if the engine has another image with the name, with this config: jobs on one
// machine share the engine and its names.
func checkNotReplaced(subject testSubject, config v1.Hash) error {
	if config.String() == subject.Build.ImageID {
		return nil
	}
	return fmt.Errorf("test image %s: another job has replaced it: got image ID %s, want %s (use a different image_name "+
		"in each job)", subject.Name, config, subject.Build.ImageID)
}

// testProgress returns the progress display of a suite: a single line on a terminal, otherwise one line per test.
func testProgress(job job) *suite.Progress {
	if job.Terminal == nil || job.Runner.InActions() {
		return &suite.Progress{Log: job.Runner.Log()}
	}
	width, _, _ := term.GetSize(int(job.Terminal.Fd())) // 0 selects the default width
	return &suite.Progress{Log: job.Screen, Terminal: true, Width: width}
}
