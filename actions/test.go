package actions

import (
	"context"
	"os"
	"path/filepath"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Test builds an image, or opens an existing one, loads it into the local Docker Engine and tests it with a suite, a
// command or both. After the tests have started, it has outputs and writes the JUnit report in any case: if tests fail,
// if the run is canceled or times out, or if a report cannot be read. If the command fails, the program exits with the
// command's exit code.
func Test(ctx context.Context, env Env, in inputs.Test) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return env.reject(err)
	}
	return env.runJob(ctx, spec.Timeout, spec.Report, func(
		ctx context.Context, job job,
	) (run runrecord.Record, err error) {
		if err := checkForkPermissions(ctx, job, buildNeeds(job, spec.BuildSpec)); err != nil {
			return run, err
		}
		if spec.Optional {
			if spec.Image, err = localImage(ctx, job, spec.Image, "Testing"); err != nil {
				return run, err
			}
		}
		session, err := prepareTest(ctx, job, spec)
		run.Source = sourceRecord(job, spec.BuildSpec, session.Source)
		if err != nil {
			return run, err
		}
		root := session.Source.Tree.Dir // of the tested commit, or the workspace
		tests, err := loadSuite(job, spec, root)
		if err != nil {
			return run, err
		}
		subject, err := provideSubject(ctx, job, spec, session)
		addSubject(&run, job, spec, subject)
		if err != nil {
			return run, err
		}
		report, err := runSuite(ctx, job, spec, session.Engine, subject, tests)
		if report == nil {
			return run, err
		}
		var command commandResult
		if err == nil {
			command, err = runCommand(ctx, job, spec, session.Engine, subject, root)
		}
		err = finishReport(job, spec, report, command, err)
		addTests(&run, spec, subject, report)
		return run, err
	})
}

// prepareTest opens the engine and prepares the build. For an existing image it resolves no commit, unless the suite is
// in one. The files of the returned session's source are available.
func prepareTest(ctx context.Context, job job, spec inputs.TestSpec) (s session, err error) {
	isCommitNeeded := spec.Ref != "" || isSuiteElsewhere(job, spec) || mustBuildCommit(job, spec.BuildSpec)
	if spec.Image == "" || isCommitNeeded {
		s, err = prepare(ctx, job, spec.BuildSpec)
	} else {
		s.Source.Tree.Dir = job.Dir
		if err := checkTrustedWorkspace(ctx, job, spec.BuildSpec); err != nil {
			return s, err
		}
		s.Engine, s.LoadPlatform, err = openEngine(ctx, job, spec.BuildSpec)
	}
	if err == nil && s.Source.Tree.Dir == "" {
		s.Source, err = fetchSource(ctx, job, spec.BuildSpec, s.Doppler, s.Source)
	}
	return s, err
}

// isSuiteElsewhere reports whether a workflow's workspace has neither a checkout nor the suite, so that the suite is
// read from the event's commit.
func isSuiteElsewhere(job job, spec inputs.TestSpec) bool {
	if !job.Runner.InActions() || spec.Suite == inputs.NoSuite {
		return false
	}
	_, noCheckout := os.Stat(filepath.Join(job.Dir, ".git"))
	_, noSuite := os.Stat(filepath.Join(job.Dir, spec.Suite))
	return noCheckout != nil && noSuite != nil
}
