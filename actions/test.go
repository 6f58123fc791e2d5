package actions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
	"golang.org/x/term"
)

// TestInputs are the inputs of the test action: those of build, and how the image is tested.
type TestInputs struct {
	BuildInputs
	Image     string `short:"i" help:"Take this image instead of building: a name in the local engine, a registry reference, or the folder of an OCI layout (./FOLDER)."`
	Suite     string `help:"The declarative suite. With a command it may be none; the default one may be missing then." default:"${suite}"`
	Command   string `help:"Test command on the host, in the tested commit's files, with RUN_LOCAL_DOCKER_TESTS=true, LOCAL_DOCKER_IMAGE_NAME, DOCKER_HOST and TEST_REPORT_DIR set. JUnit files that it writes there are counted."`
	Parallel  string `help:"Containers at a time: a number, or cores." default:"cores"`
	ReportDir string `help:"Folder for the JUnit XML and the logs of failed tests' containers." default:"test-results"`
	Run       string `prompt:"" help:"Only tests whose names this regular expression matches."`
	Tags      List   `prompt:"" help:"Only tests that have one of these tags."`
	Seed      string `prompt:"" help:"Order of an earlier run, as it was printed."`
	Output    string `prompt:"" help:"json: the report as JSON on standard output, instead of the outputs."`
}

// defaultSuite is where a repository has its suite.
const defaultSuite = "sandbox/tests.yaml"

func (in *TestInputs) vars() kong.Vars {
	vars := in.BuildInputs.vars()
	vars["suite"] = defaultSuite
	return vars
}

func (*TestInputs) atPrompt() map[string]string {
	return map[string]string{"image": first(os.Getenv("LOCAL_DOCKER_IMAGE_NAME"), "iterate-sandbox:local"), "platform": "linux/" + runtime.GOARCH, "image-name": "iterate-sandbox:local"}
}

// TestResult is what a test publishes, also when tests fail: the build's, and its own.
type TestResult struct {
	BuildResult
	TestsTotal   int    `output:"tests_total" help:"Tests of the suite and of the command's reports."`
	TestsPassed  int    `output:"tests_passed" help:"Those that passed at once."`
	TestsFailed  int    `output:"tests_failed" help:"Those that failed."`
	TestsSkipped int    `output:"tests_skipped" help:"Those that were not run."`
	Report       string `output:"report" help:"JUnit XML of all of them."`
}

// Test builds an image, or takes one, loads it into the local Docker Engine, and has it prove itself: by the suite, and by a command.
//
// An error is one sentence; that of a command that failed has its exit code.
func (p *Program) Test(ctx context.Context, in *TestInputs) error {
	b, err := p.newBuild(&in.BuildInputs)
	if err != nil {
		return err
	}
	b.needsEngine = true
	t := &test{build: b, in: in}
	if err := t.check(); err != nil {
		return err
	}
	return t.within(ctx, t.run, t.publish)
}

// test is one test of an image.
type test struct {
	*build
	in       *TestInputs
	options  suite.Options
	suite    *suite.Suite // nil without one
	root     string       // the files of the commit that is tested, or the workspace
	name     string       // of the image in the engine
	report   *suite.Report
	file     string // JUnit XML
	exitCode int    // of the command
}

// check refuses what can not be right. It asks nobody.
func (t *test) check() (err error) {
	in := t.in
	if in.Suite == "none" && in.Command == "" {
		return refuse("suite", in.Suite, "leaves nothing to do: name a suite, or give a command")
	}
	if !in.Load {
		return refuse("load", "false", "leaves nothing to test: leave it out")
	}
	t.options.Parallel = runtime.NumCPU()
	if in.Parallel != "cores" {
		if t.options.Parallel, err = strconv.Atoi(in.Parallel); err != nil || t.options.Parallel < 1 {
			return refuse("parallel", in.Parallel, "is no number of containers: write cores, or 1 or more")
		}
	}
	if in.Run != "" {
		if t.options.Run, err = regexp.Compile(in.Run); err != nil {
			return refuse("run", in.Run, "is no regular expression ("+err.Error()+")")
		}
	}
	t.options.Tags = Texts(in.Tags)
	t.options.Seed = rand.Uint64()
	if in.Seed != "" {
		if t.options.Seed, err = strconv.ParseUint(in.Seed, 10, 64); err != nil {
			return refuse("seed", in.Seed, "is no seed: write the number that was printed")
		}
	}
	if _, err := inside(t.Dir, in.ReportDir); err != nil {
		return fmt.Errorf("input report_dir: %w", err)
	}
	if in.Output != "" && in.Output != "json" {
		return refuse("output", in.Output, "is unknown: write json, or leave it out")
	}
	return nil
}

// run is the story.
func (t *test) run(ctx context.Context) error {
	if err := t.prepare(ctx); err != nil {
		return err
	}
	t.root = t.Dir
	if t.commit.SHA != "" {
		if err := t.fetchTree(ctx); err != nil {
			return err
		}
		t.root = t.tree.Dir
	}
	if err := t.readSuite(); err != nil {
		return err
	}
	if t.in.Image == "" {
		if err := t.make(ctx, t.load); err != nil {
			return err
		}
		t.name = t.in.ImageName
	} else if err := t.takeImage(ctx); err != nil {
		return err
	}
	t.report = &suite.Report{Suite: t.in.Suite, Image: t.name, Started: time.Now()}
	if t.suite != nil {
		if err := t.runSuite(ctx); err != nil {
			return err
		}
	}
	if t.in.Command != "" {
		if err := t.runCommand(ctx); err != nil {
			return err
		}
	}
	t.report.Duration = time.Since(t.report.Started)
	return t.writeReport()
}

// prepare is build's. An image that is there needs no commit, unless the suite is in one.
func (t *test) prepare(ctx context.Context) error {
	_, noCheckout := os.Stat(filepath.Join(t.Dir, ".git"))
	_, noSuite := os.Stat(filepath.Join(t.Dir, t.in.Suite))
	if t.in.Image == "" || t.in.Ref != "" || t.Runner.InActions() && t.in.Suite != "none" && noCheckout != nil && noSuite != nil {
		if err := t.build.prepare(ctx); err != nil {
			return err
		}
	} else if err := t.openEngine(ctx); err != nil {
		return err
	}
	if t.commit.SHA != "" {
		return nil
	}
	// The suite and the command are of the workspace.
	return t.trust(ctx, filepath.Dir(filepath.Join(t.Dir, t.in.Suite)))
}

// readSuite reads the suite of the commit that is tested, before anything is spent on an image that it could not test.
func (t *test) readSuite() error {
	if t.in.Suite == "none" {
		return nil
	}
	path, err := inside(t.root, t.in.Suite)
	if err != nil {
		return fmt.Errorf("input suite: %w", err)
	}
	if _, err := os.Stat(path); err != nil && t.in.Suite == defaultSuite && t.in.Command != "" {
		return nil
	}
	if t.suite, err = suite.Load(path); err != nil {
		var invalid *suite.InvalidError
		if errors.As(err, &invalid) {
			for _, problem := range invalid.Problems[1:] { // the first one is the error itself
				t.Runner.Warning(runner.Annotation{File: t.relative(path), Line: problem.Line, Message: problem.Message})
			}
		}
		return fmt.Errorf("input suite: %w", err)
	}
	t.suite.File = t.relative(path)
	return nil
}

// takeImage has an image that is there already in the engine.
func (t *test) takeImage(ctx context.Context) error {
	found, err := t.take(ctx, t.in.Image, "")
	if err != nil {
		return err
	}
	digest, err := found.Digest()
	if err != nil {
		return fmt.Errorf("input image: read its manifest: %w", err)
	}
	id, err := found.ConfigName()
	if err != nil {
		return fmt.Errorf("input image: read its config: %w", err)
	}
	t.build.result = BuildResult{Digest: digest.String(), ImageID: id.String(), ImageRef: t.in.Image, ImageName: t.in.Image}
	if found.inEngine {
		t.name = t.in.Image
		return nil
	}
	t.name, t.build.result.ImageName = t.in.ImageName, t.in.ImageName
	return t.loadImage(ctx, found.Image)
}

// runSuite runs the suite against what the engine has. The builder is not needed any more.
func (t *test) runSuite(ctx context.Context) error {
	defer t.phases.begin("the suite %s", t.suite.File)()
	id, err := t.engine.ImageID(ctx, t.name)
	if err != nil {
		return err
	}
	if id == "" {
		return refuse("image", t.name, "is not in the Docker Engine any more: build it again")
	}
	stored, err := t.engine.Image(ctx, id, "")
	if err != nil {
		return err
	}
	progress := &suite.Progress{Log: t.Runner.Log(), Terminal: t.Display != nil && !t.Runner.InActions()}
	if progress.Terminal {
		progress.Log = t.Display
		progress.Width, _, _ = term.GetSize(int(t.Display.Fd())) // 0 is a width, too
	}
	t.Runner.Group(fmt.Sprintf("Test %s by %s (seed %d)", t.name, t.suite.File, t.options.Seed))
	defer t.Runner.EndGroup()
	o := t.options
	o.Image, o.ImageID, o.Engine, o.ReportDir = stored.Image, id, t.engine, t.reportDir()
	o.Log, o.Clean, o.Progress = t.Runner.Log(), t.Runner.Clean, progress.Test
	report, err := suite.Run(ctx, t.suite, o)
	if err != nil {
		return err
	}
	report.File = t.suite.File
	t.report = report
	return nil
}

func (t *test) reportDir() string {
	if filepath.IsAbs(t.in.ReportDir) {
		return t.in.ReportDir
	}
	return filepath.Join(t.Dir, t.in.ReportDir)
}

// runCommand runs the host's command. What it prints is data; what it reports in JUnit files is counted.
func (t *test) runCommand(ctx context.Context) error {
	defer t.phases.begin("the command %q", t.in.Command)()
	t.Runner.Group("Run " + t.in.Command)
	defer t.Runner.EndGroup()
	began := time.Now()
	if err := os.MkdirAll(t.reportDir(), 0o755); err != nil {
		return fmt.Errorf("input report_dir: %w: name a folder that can be written", err)
	}
	out := t.Runner.Untrusted()
	defer out.Close()
	command := exec.CommandContext(ctx, "sh", "-c", t.in.Command)
	command.Dir, command.Stdout, command.Stderr = t.root, out, out
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DOCKER_AUTH_CONFIG=") }) // which is ours alone
	command.Env = append(command.Env, "RUN_LOCAL_DOCKER_TESTS=true", "LOCAL_DOCKER_IMAGE_NAME="+t.name, "DOCKER_HOST="+t.engine.Host, "TEST_REPORT_DIR="+t.reportDir())
	// It and its children are one group, so that all of them end.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
	command.WaitDelay = 3 * time.Second
	err := command.Run()
	if command.Process != nil {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	failed := new(exec.ExitError)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &failed):
		t.exitCode = max(1, failed.ExitCode())
	case err != nil:
		return fmt.Errorf("input command: %w", err)
	}
	reported, err := suite.ReadJUnitFiles(t.reportDir(), began, reportFile)
	if err != nil {
		return fmt.Errorf("read what the command reported: %w", err)
	}
	if reported != nil {
		reported.Clean(t.Runner.Clean)
		t.report.Add(reported)
	}
	return nil
}

// reportFile is the JUnit XML's name in report_dir.
const reportFile = "junit.xml"

func (t *test) writeReport() error {
	var report bytes.Buffer
	err := t.report.WriteJUnit(&report)
	if err == nil {
		t.file = filepath.Join(t.in.ReportDir, reportFile)
		err = suite.WriteBelow(t.reportDir(), reportFile, report.Bytes())
	}
	if err != nil {
		return fmt.Errorf("write the report: %w: free some space, or name another report_dir", err)
	}
	return nil
}

// publish writes the outputs and the summary, whether the tests passed or not, and says what failed.
func (t *test) publish() error {
	for _, a := range t.report.Annotations() {
		at := runner.Annotation{Title: a.Title, File: a.File, Line: a.Line, Message: t.Runner.Clean(a.Message)}
		if a.Warning {
			t.Runner.Warning(at)
		} else {
			t.Runner.Error(at)
		}
	}
	if err := t.show(); err != nil {
		return err
	}
	if t.in.Image == "" {
		if err := t.describe(); err != nil {
			return err
		}
	} else {
		t.build.result.GitSHA, t.build.result.GitRef = t.tree.SHA, t.tree.Ref
	}
	r := t.report
	result := TestResult{
		BuildResult: t.build.result, TestsTotal: r.Total, TestsPassed: r.Passed, TestsFailed: r.Failed, TestsSkipped: r.Skipped, Report: t.file,
	}
	var summary strings.Builder
	if err := r.WriteMarkdown(&summary); err != nil {
		return err
	}
	if t.in.Image == "" {
		summary.WriteString("\n" + t.summary())
	}
	if t.in.Output == "json" {
		if err := r.WriteJSON(t.Stdout); err != nil {
			return err
		}
	} else if err := t.write(result, summary.String()); err != nil {
		return err
	}
	switch {
	case r.Failed > 0:
		return exit{fmt.Errorf("%d of %d tests failed: see them above and in %s", r.Failed, r.Total, t.file), max(1, t.exitCode)}
	case t.exitCode > 0:
		return exit{fmt.Errorf("the command %q ended with exit code %d: what it wrote is in the log above", t.in.Command, t.exitCode), t.exitCode}
	case r.Total == 0 && t.in.Command == "":
		return errors.New("no test was run: look at --run and --tags")
	}
	return nil
}

// show is the report for who reads the log.
func (t *test) show() error {
	theirs := t.Runner.Untrusted()
	err := t.report.WriteText(t.Runner.Log(), theirs)
	return errors.Join(err, theirs.Close())
}

// exit is an error that ends the program with a code of its own.
type exit struct {
	error
	code int
}

func (e exit) Unwrap() error { return e.error }

// ShellInputs say what a shell is opened in.
type ShellInputs struct {
	Image string   `short:"i" help:"Name in the local engine."`
	Mount bool     `help:"Show this folder, read only, where the image has its repository."`
	Cmd   []string `arg:"" optional:"" passthrough:"" help:"Command instead of a login shell, after --."`
}

func (*ShellInputs) vars() kong.Vars { return nil }
func (*ShellInputs) atPrompt() map[string]string {
	return map[string]string{"image": first(os.Getenv("LOCAL_DOCKER_IMAGE_NAME"), "iterate-sandbox:local")}
}

// Shell opens a terminal in a fresh container of an image. Its exit code is the command's.
func (p *Program) Shell(ctx context.Context, in *ShellInputs) error {
	engine, err := dockerengine.Open(ctx, p.Getenv)
	if err != nil {
		return err
	}
	defer engine.Close()
	id, err := engine.ImageID(ctx, in.Image)
	if err != nil {
		return err
	}
	if id == "" {
		return notInEngine(in.Image)
	}
	spec := dockerengine.ContainerSpec{Image: id, Cmd: in.Cmd, Network: "bridge"}
	if len(spec.Cmd) > 0 && spec.Cmd[0] == "--" {
		spec.Cmd = spec.Cmd[1:]
	}
	if len(spec.Cmd) == 0 {
		spec.Cmd = []string{"bash", "-l"}
	}
	if in.Mount {
		stored, err := engine.Image(ctx, id, "")
		if err != nil {
			return err
		}
		config, err := stored.ConfigFile()
		if err != nil {
			return err
		}
		spec.Mounts = []dockerengine.Mount{{Source: p.Dir, Target: first(strings.TrimSuffix(config.Config.WorkingDir, "/"), "/workspace")}}
	}
	code, err := engine.Interactive(ctx, spec, os.Stdin, os.Stdout)
	if err != nil {
		return err
	}
	if code != 0 {
		return exit{ErrHelp, code} // the command has said what was wrong
	}
	return nil
}

// ConvertInputs say which suite is converted.
type ConvertInputs struct {
	File string `arg:"" help:"Suite of container-structure-test, schema 2.0.0."`
}

func (*ConvertInputs) vars() kong.Vars             { return nil }
func (*ConvertInputs) atPrompt() map[string]string { return nil }

// Convert writes a suite of container-structure-test's as one of ours, and says what can not be carried over.
func (p *Program) Convert(_ context.Context, in *ConvertInputs) error {
	data, err := os.ReadFile(in.File)
	if err != nil {
		return err
	}
	converted, warnings, err := suite.Convert(data)
	if err != nil {
		return fmt.Errorf("%s: %w", in.File, err)
	}
	for _, w := range warnings {
		p.Runner.Warning(runner.Annotation{File: in.File, Line: w.Line, Message: w.Message})
	}
	_, err = p.Stdout.Write(converted)
	return err
}
