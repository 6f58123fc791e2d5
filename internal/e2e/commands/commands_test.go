//go:build linux

package commands

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"github.com/org/sandbox-actions/internal/markdown"
)

// Every command in the docs succeeds in a clone, against a local cloud that one of the commands starts. Of the make
// targets only demo runs here.
func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("needs BuildKit and Docker; run without -short")
	}
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	documented, err := readCommands(root)
	if err != nil {
		t.Fatal(err)
	}
	c := clone{dir: filepath.Join(t.TempDir(), "clone"), home: t.TempDir()}
	if err := c.create(root); err != nil {
		t.Fatal(err)
	}
	if out, err := c.bash(t.Context(), "scripts/demo.sh").CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "demo: Doppler names ") {
		t.Fatalf("make demo: %v\n%s", err, out)
	}
	stop, err := c.startCloud(t.Context(), documented.cloud)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.bash(t.Context(), ". ./cloud.env\n"+documented.script()).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "cloud.env")); err == nil {
		t.Error("the local cloud leaves cloud.env")
	}
}

// commands are the commands of the docs. Each runs once, however many documents show it.
type commands struct {
	cloud string // starts the local cloud
	rest  []string
}

func readCommands(root string) (commands, error) {
	documents, err := markdown.Files(root)
	if err != nil {
		return commands{}, err
	}
	var c commands
	hasDemo := false
	for _, document := range documents {
		if document == "docs/own-buildkit.md" || document == "docs/releasing.md" { // run in package e2e
			continue
		}
		blocks, err := markdown.CodeBlocks(filepath.Join(root, document), "sh")
		if err != nil {
			return commands{}, err
		}
		for line := range strings.Lines(strings.Join(blocks, "")) {
			line, _, _ = strings.Cut(line, "  #")
			line = strings.TrimSpace(line)
			switch {
			case line == "make demo":
				hasDemo = true
			case line == "make test", line == "make lint": // run by .ci/run
			case strings.HasPrefix(line, "scripts/test.sh "): // would run this test
				if _, err := os.Stat(filepath.Join(root, strings.Fields(line)[1])); err != nil {
					return commands{}, fmt.Errorf("%s: %s: %w", document, line, err)
				}
			case strings.Contains(line, "cmd/localcloud"):
				// The current engine reads the layers of an image many times faster than Docker 20.10.
				c.cloud = strings.Replace(line, "--engine oldest", "--engine current", 1)
			case !slices.Contains(c.rest, line):
				c.rest = append(c.rest, line)
			}
		}
	}
	if c.cloud == "" || !hasDemo || len(c.rest) < 8 {
		return commands{}, fmt.Errorf("found the demo: %t, the local cloud: %q, and %q", hasDemo, c.cloud, c.rest)
	}
	return c, nil
}

func (c commands) script() string {
	script := "set -euo pipefail\n"
	for _, line := range c.rest {
		script += "echo '+ " + strings.ReplaceAll(line, "'", `'\''`) + "' >&2\n" + line + "\n"
	}
	return script
}

// clone is a copy of the checkout with the programs that scripts/setup.sh built.
type clone struct{ dir, home string }

func (c clone) create(root string) error {
	if err := checkout.Copy(root, c.dir); err != nil {
		return err
	}
	exclude := filepath.Join(c.dir, ".git/info/exclude") // .gitignore does not match the link
	return errors.Join(
		os.Symlink(filepath.Join(root, ".cache"), filepath.Join(c.dir, ".cache")),
		os.MkdirAll(filepath.Dir(exclude), 0o755),
		os.WriteFile(exclude, []byte(".cache\n"), 0o600),
	)
}

// bash returns a command that runs in the clone, with Go's caches but a home directory of its own.
func (c clone) bash(ctx context.Context, script string) *exec.Cmd {
	command := exec.CommandContext(ctx, "bash", "-c", script)
	command.Dir, command.Env = c.dir, append(os.Environ(), "HOME="+c.home)
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		if value, err := exec.CommandContext(ctx, "go", "env", name).Output(); err == nil {
			command.Env = append(command.Env, name+"="+strings.TrimSpace(string(value)))
		}
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGINT) }
	command.WaitDelay = time.Minute
	return command
}

// startCloud starts the local cloud and returns once it has written cloud.env. stop reports the errors that it logged.
func (c clone) startCloud(ctx context.Context, line string) (stop func() error, err error) {
	log, err := os.Create(filepath.Join(c.home, "cloud.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own descriptor
	command := c.bash(ctx, line)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		if data, err := os.ReadFile(filepath.Join(c.dir, "cloud.env")); err == nil && len(data) > 0 {
			break
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(log.Name()) // without the log, the error alone is reported
			return nil, fmt.Errorf("the local cloud: %w\n%s", err, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return func() error {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGINT)
		<-ended // go run exits with 1 when it is interrupted
		text, err := os.ReadFile(log.Name())
		if err == nil && strings.Contains(string(text), "error") {
			err = fmt.Errorf("the local cloud: %s", text)
		}
		return err
	}, nil
}
