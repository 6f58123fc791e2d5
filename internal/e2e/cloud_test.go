package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// caller is the repository whose workflows run; ours is org/sandbox-actions.
const callerRepository = "acme/caller"

// world is what the tests of this package share: a cloud, the two repositories at GitHub, and our programs.
type environment struct {
	*localcloud.Cloud
	dir      string // temporary, removed at the end
	caller   string // checkout of the caller's repository
	ours     string // clone of this checkout with what is not committed yet, at v1
	programs string // folder of action-build, …
}

var shared *environment

// start begins what a test needs when the first one asks: tables of inputs need none of it.
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
	e.ours, e.caller, e.programs = filepath.Join(e.dir, "ours"), filepath.Join(e.dir, "caller"), filepath.Join(e.dir, "bin")
	if err := e.createRepositories(root); err != nil {
		return nil, err
	}
	if out, err := exec.Command("go", "build", "-o", e.programs+"/", "../../action-build", "../../action-snapshot", "../../action-test").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	e.Cloud, err = localcloud.Start(context.Background(), localcloud.Options{
		Dir: filepath.Join(root, ".cache/test/e2e"), Base: filepath.Join(root, ".cache/base/bookworm-slim.tar"), Engine: engine.Current,
		Repositories: []github.Repository{
			{Owner: "acme", Name: "caller", Dir: e.caller, Private: true},
			{Owner: "org", Name: "sandbox-actions", Dir: e.ours},
		},
	})
	return e, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		if shared.Cloud != nil {
			if err := shared.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
		if err := os.RemoveAll(shared.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func setup(t *testing.T) *environment {
	t.Helper()
	e, err := startEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// repositories makes the caller's repository from testdata, and ours from this checkout as it is.
func (e *environment) createRepositories(root string) error {
	if err := os.CopyFS(e.caller, os.DirFS("testdata/caller")); err != nil {
		return err
	}
	script := `set -euo pipefail
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
git init --quiet --initial-branch=main "$CALLER"
git -C "$CALLER" add --all
git -C "$CALLER" commit --quiet --message=begin
git -C "$CALLER" remote add origin https://github.com/acme/caller
git init --quiet --initial-branch=main "$OURS"
cd "$ROOT"
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
	if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi
done | tar --null --no-recursion --files-from=- --create --file=- | tar --extract --file=- --directory="$OURS"
git -C "$OURS" add --all
git -C "$OURS" commit --quiet --message=release
git -C "$OURS" tag v1
git -C "$OURS" remote add origin https://github.com/org/sandbox-actions`
	command := exec.Command("bash", "-c", script)
	command.Env = append(os.Environ(), "ROOT="+root, "CALLER="+e.caller, "OURS="+e.ours)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make the repositories: %w: %s", err, out)
	}
	return nil
}

// git runs git in dir and returns what it says.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	command := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// outcome is what a program left.
type result struct {
	exitCode           int
	stdout, stderr string
	outputs        map[string]string // of the step
	outputFile     string            // as it was written
	summary        string
}

// invocation is one run of a program, as a step of a workflow has it.
type invocation struct {
	program string // "" for action-build
	args    []string
	dir     string // the workspace; "" for a new folder with the Dockerfile
	dockerfile  string // Dockerfile of that folder
	inputs  map[string]string
	env     map[string]string // over the cloud's; "" removes a variable
	onStart func(pid int, stdout *safeBuffer)
	timeout   time.Duration
}

// run runs a program and looks for what it left in its temporary folder: nothing.
func (e *environment) run(t *testing.T, i invocation) result {
	t.Helper()
	if i.program == "" {
		i.program = "action-build"
	}
	if i.dir == "" {
		i.dir = t.TempDir()
		if err := os.WriteFile(filepath.Join(i.dir, "Dockerfile"), []byte(i.dockerfile), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if i.timeout == 0 {
		i.timeout = 2 * time.Minute
	}
	temp := t.TempDir()
	files := t.TempDir()
	env := e.Env()
	delete(env, "DEPOT_TOKEN") // OIDC opens Depot
	for name, value := range map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": files, "RUNNER_TEMP": temp, "TMPDIR": temp, "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": callerRepository,
		"GITHUB_OUTPUT": filepath.Join(files, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(files, "summary"), "GITHUB_WORKSPACE": i.dir,
	} {
		env[name] = value
	}
	for name, value := range i.inputs {
		env["INPUT_"+strings.ToUpper(name)] = value
	}
	for name, value := range i.env {
		env[name] = value
	}
	ctx, cancel := context.WithTimeout(t.Context(), i.timeout)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(e.programs, i.program), i.args...)
	command.Dir = i.dir
	for name, value := range env {
		if value != "" {
			command.Env = append(command.Env, name+"="+value)
		}
	}
	var stdout, stderr safeBuffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if i.onStart != nil {
		i.onStart(command.Process.Pid, &stdout)
	}
	_ = command.Wait() // its exit code is looked at by the test
	if ctx.Err() != nil {
		t.Fatalf("it did not end within %s:\n%s%s", i.timeout, &stdout, &stderr)
	}
	left := listFiles(t, temp)
	if len(left) > 0 {
		t.Errorf("left in the temporary folder: %q", left)
	}
	o := result{exitCode: command.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	o.outputFile = read(t, filepath.Join(files, "output"))
	o.summary = read(t, filepath.Join(files, "summary"))
	o.outputs = parseOutputs(t, o.outputFile)
	return o
}

// safeBuffer may be read while it is written.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// tree lists all that is in a folder.
func listFiles(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// read is a file's text; "" when it was never written.
func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// parseOutputs reads GITHUB_OUTPUT as the runner does: NAME=VALUE, or NAME<<DELIMITER up to a line that is DELIMITER.
func parseOutputs(t *testing.T, text string) map[string]string {
	t.Helper()
	outputs := map[string]string{}
	lines := strings.Split(text, "\n")
	for n := 0; n < len(lines); n++ {
		equals, heredoc := strings.Index(lines[n], "="), strings.Index(lines[n], "<<")
		switch {
		case lines[n] == "":
		case heredoc >= 0 && (equals < 0 || heredoc < equals):
			name, delimiter := lines[n][:heredoc], lines[n][heredoc+2:]
			var value []string
			for n++; n < len(lines) && lines[n] != delimiter; n++ {
				value = append(value, lines[n])
			}
			if n == len(lines) {
				t.Errorf("the output %s has no end", name)
			}
			outputs[name] = strings.Join(value, "\n")
		case equals > 0:
			outputs[lines[n][:equals]] = lines[n][equals+1:]
		default:
			t.Errorf("a line of GITHUB_OUTPUT that the runner refuses: %q", lines[n])
		}
	}
	return outputs
}

// busyEnd bounds the end after a signal: twice the 5 s that are promised, since the machine is busy with other tests.
const maxShutdown = 10 * time.Second

// folderOf is a new folder with these files.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, name, content)
	}
	return dir
}

func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
