package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/term"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
)

// Test builds an image, or opens an existing one, loads it into the local Docker Engine and tests it: with a suite and
// with a command. Outputs, summary and report are written also when tests fail. The exit code of a failed command
// becomes the program's.
func Test(ctx context.Context, env Env, in inputs.Test) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return err
	}
	return env.runJob(ctx, spec.Timeout, func(ctx context.Context, job job) error {
		if err := checkForkPermissions(ctx, job, buildNeeds(job, spec.BuildSpec)); err != nil {
			return err
		}
		session, err := prepareTest(ctx, job, spec)
		if err != nil {
			return err
		}
		root := session.Source.Tree.Dir // of the tested commit, or the workspace
		tests, err := loadSuite(job, spec, root)
		if err != nil {
			return err
		}
		subject, err := provideSubject(ctx, job, spec, session)
		if err != nil {
			return err
		}
		report, err := runSuite(ctx, job, spec, session.Engine, subject, tests)
		if err != nil {
			return err
		}
		exitCode, err := runCommand(ctx, job, spec, session.Engine, subject, root, report)
		if err != nil {
			return err
		}
		return publishReport(job, spec, subject, report, exitCode)
	})
}

// prepareTest opens the engine and prepares the build. An existing image needs no commit, unless the suite is in one.
// The source of the returned session has its files.
func prepareTest(ctx context.Context, job job, spec inputs.TestSpec) (s session, err error) {
	suiteDirectory := filepath.Dir(job.absolute(spec.Suite))
	if spec.Image == "" || spec.Ref != "" || isSuiteElsewhere(job, spec) {
		s, err = prepare(ctx, job, spec.BuildSpec, suiteDirectory)
	} else {
		s.Source.Tree.Dir = job.Dir
		if s.Engine, s.LoadPlatform, err = openEngine(ctx, job, spec.BuildSpec); err == nil {
			err = checkTrusted(ctx, job, spec.BuildSpec, s.Source, []string{suiteDirectory})
		}
	}
	if err == nil && s.Source.Tree.Dir == "" {
		s.Source, err = fetchSource(ctx, job, spec.BuildSpec, s.Doppler, s.Source)
	}
	return s, err
}

// isSuiteElsewhere reports whether a workflow's workspace has neither a checkout nor the suite, so that the suite of
// the event's commit is meant.
func isSuiteElsewhere(job job, spec inputs.TestSpec) bool {
	if !job.Runner.InActions() || spec.Suite == inputs.NoSuite {
		return false
	}
	_, noCheckout := os.Stat(filepath.Join(job.Dir, ".git"))
	_, noSuite := os.Stat(filepath.Join(job.Dir, spec.Suite))
	return noCheckout != nil && noSuite != nil
}

// loadSuite reads the suite; nil without one. Every problem of an invalid suite is reported.
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
	tests, err := suite.Load(path)
	file := relativeTo(path, root, job.Dir)
	if invalid := (*suite.InvalidError)(nil); errors.As(err, &invalid) {
		for _, problem := range invalid.Problems[1:] { // the first is the error itself
			job.Runner.Warning(runner.Annotation{File: file, Line: problem.Line, Message: problem.Message})
		}
	}
	if err != nil {
		return nil, inputs.Wrap("suite", err)
	}
	tests.File = file
	return tests, nil
}

// testSubject is the tested image, in the engine.
type testSubject struct {
	Name    string // in the engine
	Build   BuildOutputs
	Summary string // of the build; empty for an existing image
}

// provideSubject builds and loads the image, or makes an existing one available in the engine.
func provideSubject(ctx context.Context, job job, spec inputs.TestSpec, session session) (testSubject, error) {
	if spec.Image != "" {
		return provideExisting(ctx, job, spec, session)
	}
	built, err := buildAndLoad(ctx, job, spec.BuildSpec, session)
	if err != nil {
		return testSubject{}, err
	}
	outputs, err := buildOutputs(spec.BuildSpec, built)
	return testSubject{spec.ImageName, outputs, buildSummary(job, built, outputs)}, err
}

func provideExisting(ctx context.Context, job job, spec inputs.TestSpec, session session) (testSubject, error) {
	img, err := openImage(ctx, job, spec.BuildSpec, session.Doppler, session.Engine, spec.Image, "")
	if err != nil {
		return testSubject{}, err
	}
	digest, err := img.Digest()
	var id v1.Hash
	if err == nil {
		id, err = img.ConfigName()
	}
	if err != nil {
		return testSubject{}, inputs.Wrap("image", fmt.Errorf("read its manifest and config: %w", err))
	}
	name := spec.Image
	if !img.InEngine {
		name = spec.ImageName
		if err := loadImage(ctx, job, session.Engine, name, img.Image); err != nil {
			return testSubject{}, err
		}
	}
	return testSubject{Name: name, Build: BuildOutputs{
		Digest: digest.String(), ImageID: id.String(), ImageRef: spec.Image, ImageName: name,
		GitSHA: session.Source.Tree.SHA, GitRef: session.Source.Tree.Ref,
	}}, nil
}

// runSuite runs the suite against the image in the engine. Without a suite the report is empty.
func runSuite(
	ctx context.Context, job job, spec inputs.TestSpec, engine *dockerengine.Engine, subject testSubject,
	tests *suite.Suite,
) (*suite.Report, error) {
	started := time.Now()
	if tests == nil {
		return &suite.Report{Suite: spec.Suite, Image: subject.Name, Started: started}, nil
	}
	defer startActivity(ctx, "the suite %s", tests.File)()
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
	job.Runner.Group(fmt.Sprintf("Test %s with %s (seed %d)", subject.Name, tests.File, spec.Seed))
	defer job.Runner.EndGroup()
	report, err := suite.Run(ctx, tests, suite.Options{
		Image: img.Image, ImageID: id, Engine: engine,
		Parallel: spec.Parallel, Seed: spec.Seed, Run: spec.Run, Tags: spec.Tags, ReportDir: job.absolute(spec.ReportDir),
		Log: job.Runner.Log(), Clean: job.Runner.Clean, Progress: testProgress(job).Test,
	})
	if err != nil {
		return nil, err
	}
	report.File, report.Started = tests.File, started
	return report, nil
}

// testProgress shows the progress of a suite: on a terminal in one line, otherwise a line per test.
func testProgress(job job) *suite.Progress {
	if job.Terminal == nil || job.Runner.InActions() {
		return &suite.Progress{Log: job.Runner.Log()}
	}
	width, _, _ := term.GetSize(int(job.Terminal.Fd())) // 0 selects the default width
	return &suite.Progress{Log: job.Terminal, Terminal: true, Width: width}
}
