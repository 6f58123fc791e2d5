// Package programs builds the programs of this module and runs them as steps of a workflow, for tests.
package programs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/org/sandbox-actions/internal/localcloud/checkout"
)

// Build builds the programs into dir, with the settings of a release, so that a release finds all packages in Go's
// build cache.
func Build(dir string) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	command := exec.Command("sh", "-c", `. actions/buildenv.sh
go build -ldflags="$(link_flags '')" -o "$PROGRAMS/" ./action-build ./action-snapshot ./action-test`)
	command.Dir = root
	command.Env = append(os.Environ(), "PROGRAMS="+dir)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return nil
}

// Step is a run of a program as a step of a workflow.
type Step struct {
	Command []string // path of the program and its arguments; may start with a wrapper
	Dir     string   // the workspace
	Files   string   // directory for the files of the runner and the home directory; it must exist
	Temp    string   // RUNNER_TEMP and TMPDIR. Default: a directory in Files
	Inputs  map[string]string
	Env     map[string]string // complete environment except the runner's variables, which it overrides; "" removes one
	OnStart func(pid int, stdout *Buffer)
}

// Result is the result of a step.
type Result struct {
	ExitCode       int // -1 after a signal that the program did not handle
	Stdout, Stderr string
	Outputs        string // GITHUB_OUTPUT as the program wrote it
	Summary        string
	Left           []string // files in Temp after the run
}

// Run runs the step. It kills the program when ctx ends, and returns an error only if the program did not run to its
// end.
func (s Step) Run(ctx context.Context) (Result, error) {
	temp := cmp.Or(s.Temp, filepath.Join(s.Files, "temp"))
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return Result{}, err
	}
	output, summary := filepath.Join(s.Files, "output"), filepath.Join(s.Files, "summary")
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": s.Files, "RUNNER_TEMP": temp, "TMPDIR": temp, "GITHUB_ACTIONS": "true",
		"GITHUB_WORKSPACE": s.Dir, "GITHUB_OUTPUT": output, "GITHUB_STEP_SUMMARY": summary,
	}
	for name, value := range s.Inputs {
		env["INPUT_"+strings.ToUpper(name)] = value
	}
	maps.Copy(env, s.Env)
	command := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...)
	command.Dir = s.Dir
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if env[name] != "" {
			command.Env = append(command.Env, name+"="+env[name])
		}
	}
	var stdout, stderr Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Start(); err != nil {
		return Result{}, err
	}
	if s.OnStart != nil {
		s.OnStart(command.Process.Pid, &stdout)
	}
	_ = command.Wait() // ExitCode has the result
	r := Result{ExitCode: command.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("%s is still running: %w\n%s%s", strings.Join(s.Command, " "), err, r.Stdout, r.Stderr)
	}
	var err error
	if r.Left, err = listFiles(temp); err != nil {
		return r, err
	}
	for path, content := range map[string]*string{output: &r.Outputs, summary: &r.Summary} {
		data, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return r, err
		}
		*content = string(data)
	}
	return r, nil
}

// listFiles returns the paths of all files and directories below dir.
func listFiles(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dir { // another run shares the directory
			return nil
		}
		if err == nil && path != dir {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// ParseOutputs parses GITHUB_OUTPUT as the runner does: NAME=VALUE, or NAME<<DELIMITER, lines, DELIMITER.
func ParseOutputs(text string) (map[string]string, error) {
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
				return nil, fmt.Errorf("output %s: missing delimiter %s", name, delimiter)
			}
			outputs[name] = strings.Join(value, "\n")
		case equals > 0:
			outputs[lines[n][:equals]] = lines[n][equals+1:]
		default:
			return nil, fmt.Errorf("invalid line in GITHUB_OUTPUT: %q", lines[n])
		}
	}
	return outputs, nil
}

// Buffer is a buffer that can be read while a process writes to it.
type Buffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

// Write appends p.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

// String returns all that was written so far.
func (b *Buffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}
