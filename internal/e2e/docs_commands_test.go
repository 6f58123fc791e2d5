//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/pkg/suite"
	"go.yaml.in/yaml/v3"
)

// Each workflow in the docs runs in another repository. All other YAML blocks are valid suites.
func TestDocsSnippets(t *testing.T) {
	e := setup(t)
	release := values{
		"SANDBOX_ACTIONS_REPOSITORY": "org/sandbox-actions", "SANDBOX_ACTIONS_REF": e.release(t),
		"DOPPLER_IDENTITY": localcloud.DopplerIdentity,
	}
	for _, name := range documents(t) {
		if name == "docs/own-buildkit.md" { // TestOwnBuildKit runs it against its daemon
			continue
		}
		for _, snippet := range codeBlocks(t, name, "yaml") {
			var workflow struct {
				Name string
				On   string
				Jobs map[string]any
			}
			if err := yaml.Unmarshal([]byte(snippet), &workflow); err != nil {
				t.Fatalf("%s: %v:\n%s", name, err, snippet)
			}
			if workflow.Jobs == nil {
				if _, err := suite.Parse(name, []byte(snippet)); err != nil {
					t.Errorf("%s: YAML block is neither a workflow nor a suite: %v", name, err)
				}
				continue
			}
			t.Run(workflow.Name, func(t *testing.T) {
				dir := t.TempDir()
				git(t, dir, "clone", "--quiet", e.caller, ".")
				git(t, dir, "remote", "set-url", "origin", "https://github.com/acme/caller")
				writeFile(t, dir, ".github/workflows/snippet.yml", snippet)
				log, ok := e.act(t, actRun{dir: dir, workflow: "snippet.yml", event: workflow.On, vars: release})
				if !ok {
					t.Error(log)
				}
			})
		}
	}
}

// Each command in the docs succeeds in a clone, with the local cloud that one of the commands starts. The only make
// target that this test runs is demo.
func TestDocsCommands(t *testing.T) {
	e := setup(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, e.ours, "clone", "--quiet", e.ours, dir)
	must(t, os.Symlink(filepath.Join(root, ".cache"), filepath.Join(dir, ".cache"))) // built by scripts/setup.sh
	writeFile(t, dir, ".git/info/exclude", ".cache\n")                               // .gitignore does not match the link
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	var startCloud string
	commands, demos := 0, 0
	for _, name := range documents(t) {
		if name == "docs/own-buildkit.md" || name == "docs/releasing.md" { // run by TestOwnBuildKit and TestRelease
			continue
		}
		for line := range strings.Lines(strings.Join(codeBlocks(t, name, "sh"), "")) {
			line, _, _ = strings.Cut(line, "  #")
			line = strings.TrimSpace(line)
			commands++
			switch {
			case line == "make test", line == "make lint":
				if !strings.Contains(read(t, "../../.ci/run"), "make lint test") {
					t.Error(".ci/run does not run make lint test")
				}
			case strings.HasPrefix(line, "scripts/test.sh "): // runs this test
				if folder := strings.Fields(line)[1]; len(listFiles(t, filepath.Join(root, folder))) == 0 {
					t.Errorf("%s: %s does not exist", name, folder)
				}
			case line == "make demo":
				demos++
			case strings.Contains(line, "cmd/localcloud"):
				startCloud = line
			default:
				script.WriteString("echo '+ " + strings.ReplaceAll(line, "'", `'\''`) + "' >&2\n" + line + "\n")
			}
		}
	}
	if startCloud == "" || demos == 0 || commands < 8 {
		t.Fatalf("found %d commands, %d times make demo, and %q to start a local cloud", commands, demos, startCloud)
	}
	environ := append(
		os.Environ(),
		"HOME="+t.TempDir(),
		"GOCACHE="+goEnv(t, "GOCACHE"),
		"GOMODCACHE="+goEnv(t, "GOMODCACHE"),
	)
	bash := func(script string) *exec.Cmd {
		command := exec.CommandContext(t.Context(), "bash", "-c", script)
		command.Dir, command.Env = dir, environ
		command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGINT) }
		command.WaitDelay = time.Minute
		return command
	}
	if out, err := bash("scripts/demo.sh").CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "demo: Doppler names ") {
		t.Fatalf("make demo: %v\n%s", err, out)
	}

	var log safeBuffer
	cloudCommand := bash(startCloud)
	cloudCommand.Stdout, cloudCommand.Stderr = &log, &log
	if err := cloudCommand.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cloudCommand.Wait() }()
	stop := func() {
		_ = syscall.Kill(-cloudCommand.Process.Pid, syscall.SIGINT)
		<-ended // ignore the error: go run exits with 1 after SIGINT
		if strings.Contains(log.String(), "error") {
			t.Errorf("the local cloud: %s", log.String())
		}
	}
	for read(t, filepath.Join(dir, "cloud.env")) == "" {
		select {
		case err := <-ended:
			t.Fatalf("the local cloud: %v\n%s", err, log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	out, err := bash(". ./cloud.env\n" + script.String()).CombinedOutput()
	stop()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "cloud.env")); err == nil {
		t.Error("the local cloud left cloud.env")
	}
}
