//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
)

// callerRepository is the repository that workflows run in. The actions are in org/sandbox-actions.
const callerRepository = "acme/caller"

// environment is shared by the tests. It consists of a local cloud, two repositories on its GitHub, and the programs.
type environment struct {
	*localcloud.Cloud
	dir      string // temporary directory
	caller   string // checkout of callerRepository
	ours     string // copy of this checkout, including uncommitted changes, tagged v1
	programs string // directory of action-build, action-snapshot and action-test
}

var shared *environment // set by startEnvironment

// startEnvironment initializes shared. The first call of setup runs it, so tests without setup need no daemons.
var startEnvironment = sync.OnceValues(func() (*environment, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	e := &environment{}
	shared = e
	if e.dir, err = os.MkdirTemp("", "e2e-"); err != nil {
		return nil, err
	}
	e.ours, e.caller = filepath.Join(e.dir, "ours"), filepath.Join(e.dir, "caller")
	e.programs = filepath.Join(e.dir, "bin")
	if err := e.createRepositories(root); err != nil {
		return nil, err
	}
	if err := programs.Build(e.programs); err != nil {
		return nil, err
	}
	builders, err := testdaemons.AttachBuilders()
	if err != nil {
		return nil, err
	}
	// The cloud starts its own Docker Engine, because tests assert that it has no leftover containers.
	e.Cloud, err = localcloud.Start(context.Background(), localcloud.Options{
		Dir: filepath.Join(root, cloudState), Base: filepath.Join(root, ".cache/base/bookworm-slim.tar"),
		Engine: engine.Current, Builders: builders,
		Repositories: []github.Repository{
			{Owner: "acme", Name: "caller", Dir: e.caller, Private: true},
			{Owner: "org", Name: "sandbox-actions", Dir: e.ours},
		},
	})
	return e, err
})

// cloudState is the directory, relative to the root of the checkout, in which the local cloud stores images and layers.
const cloudState = ".cache/test/e2e"

func TestMain(m *testing.M) {
	code := testdaemons.Run(m)
	if err := stopEnvironment(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func stopEnvironment() error {
	if shared == nil {
		return nil
	}
	var err error
	if shared.Cloud != nil {
		err = shared.Stop()
	}
	return errors.Join(err, os.RemoveAll(shared.dir))
}

// setup returns the shared environment. It skips the test under -short.
func setup(t *testing.T) *environment {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit and Docker; run without -short")
	}
	e, err := startEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// createRepositories creates the caller's repository from testdata, and ours from this checkout.
func (e *environment) createRepositories(root string) error {
	if err := os.CopyFS(e.caller, os.DirFS("testdata/caller")); err != nil {
		return err
	}
	if err := checkout.Copy(root, e.ours); err != nil {
		return err
	}
	script := `set -euo pipefail
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
git init --quiet --initial-branch=main "$CALLER"
git -C "$CALLER" add --all
git -C "$CALLER" commit --quiet --message=begin
git -C "$CALLER" remote add origin https://github.com/acme/caller
git -C "$OURS" tag v1
git -C "$OURS" remote add origin https://github.com/org/sandbox-actions`
	command := exec.Command("bash", "-c", script)
	command.Env = append(os.Environ(), "CALLER="+e.caller, "OURS="+e.ours)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("create the repositories: %w: %s", err, out)
	}
	return nil
}

// result is the result of running a program.
type result struct {
	exitCode       int
	stdout, stderr string
	outputs        values // parsed from outputFile
	outputFile     string // GITHUB_OUTPUT as the program wrote it
	summary        string
}

// invocation is a run of a program as a workflow step.
type invocation struct {
	program    string   // default: action-build
	wrapper    []string // command that runs the program
	args       []string
	dir        string // workspace; default: a new directory that contains dockerfile
	dockerfile string
	inputs     values
	env        values // overrides variables of the cloud; "" removes a variable
	onStart    func(pid int, stdout *programs.Buffer)
	timeout    time.Duration // default: 2 minutes
}

// run runs a program. It fails the test if the program leaves a file in its temporary directory.
func (e *environment) run(t *testing.T, i invocation) result {
	t.Helper()
	if i.program == "" {
		i.program = "action-build"
	}
	if i.dir == "" {
		i.dir = writeFiles(t, values{"Dockerfile": i.dockerfile})
	}
	if i.timeout == 0 {
		i.timeout = 2 * time.Minute
	}
	if i.program == "action-snapshot" && i.inputs["verify"] == "" { // a verification takes more than 5 seconds
		i.inputs = maps.Clone(i.inputs)
		if i.inputs == nil {
			i.inputs = values{}
		}
		i.inputs["verify"] = "off"
	}
	env := e.Env()
	delete(env, "DEPOT_TOKEN") // the programs authenticate with OIDC
	env["GITHUB_REPOSITORY"] = callerRepository
	maps.Copy(env, i.env)
	ctx, cancel := context.WithTimeout(t.Context(), i.timeout)
	defer cancel()
	step := programs.Step{
		Command: slices.Concat(i.wrapper, []string{filepath.Join(e.programs, i.program)}, i.args),
		Dir:     i.dir, Files: t.TempDir(), Inputs: i.inputs, Env: env, OnStart: i.onStart,
	}
	ran, err := step.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	left := slices.DeleteFunc(ran.Left, func(file string) bool {
		return strings.Contains(file, "/test-results") // of action-test
	})
	if len(left) > 0 {
		t.Errorf("%s left temporary files: %q", i.program, left)
	}
	r := result{
		exitCode: ran.ExitCode, stdout: ran.Stdout, stderr: ran.Stderr, outputFile: ran.Outputs, summary: ran.Summary,
	}
	if r.outputs, err = programs.ParseOutputs(ran.Outputs); err != nil {
		t.Error(err)
	}
	return r
}

// mustRun is like run, but stops the test if the program fails.
func (e *environment) mustRun(t *testing.T, i invocation) result {
	t.Helper()
	r := e.run(t, i)
	if r.exitCode != 0 {
		t.Fatalf("exit code %d:\n%s%s", r.exitCode, r.stdout, r.stderr)
	}
	return r
}

// maxShutdown is the time within which a program must exit after a signal: twice the documented 5 s, to allow for busy
// machines.
const maxShutdown = 10 * time.Second
