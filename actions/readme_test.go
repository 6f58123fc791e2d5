package actions

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/pkg/suite"
	"go.yaml.in/yaml/v3"
)

var block = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// blocks are the README's examples in one language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	var found []string
	for _, m := range block.FindAllStringSubmatch(read(t, "../README.md"), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	if len(found) == 0 {
		t.Fatalf("the README has no example in %s", language)
	}
	return found
}

// Every workflow of the README runs, in a repository that is not ours; every suite is one.
func TestReadmeSnippets(t *testing.T) {
	w := cloud(t)
	release := map[string]string{
		"SANDBOX_ACTIONS_REPOSITORY": "org/sandbox-actions", "SANDBOX_ACTIONS_REF": git(t, w.ours, "rev-parse", "HEAD"), "DOPPLER_IDENTITY": localcloud.DopplerIdentity,
	}
	for i, snippet := range blocks(t, "yaml") {
		var document struct {
			Name string
			On   string
			Jobs map[string]any
		}
		if err := yaml.Unmarshal([]byte(snippet), &document); err != nil {
			t.Fatalf("%v:\n%s", err, snippet)
		}
		if document.Jobs == nil {
			if _, err := suite.Parse("README.md", []byte(snippet)); err != nil {
				t.Error(err)
			}
			continue
		}
		t.Run(document.Name, func(t *testing.T) {
			dir := t.TempDir()
			git(t, dir, "clone", "--quiet", w.caller, ".")
			git(t, dir, "remote", "set-url", "origin", "https://github.com/acme/caller")
			name := fmt.Sprintf("readme-%d.yml", i)
			writeFile(t, dir, filepath.Join(".github/workflows", name), snippet)
			log, ok := w.act(t, actRun{dir: dir, workflow: name, event: document.On, vars: release})
			if !ok {
				t.Error(log)
			}
		})
	}
}

// Every `gh workflow run` names a workflow of ours, and inputs that it has.
func TestReadmeRecipes(t *testing.T) {
	recipe := regexp.MustCompile(`gh workflow run (\S+)((?: -f [a-z_]+=(?:'[^']*'|\S+))*)`)
	found := recipe.FindAllStringSubmatch(strings.Join(blocks(t, "text"), "\n"), -1)
	if len(found) < 3 {
		t.Errorf("%d recipes", len(found))
	}
	for _, m := range found {
		var workflow struct {
			On struct {
				Dispatch struct{ Inputs map[string]any } `yaml:"workflow_dispatch"`
				Call     struct{ Inputs map[string]any } `yaml:"workflow_call"`
			}
		}
		if err := yaml.Unmarshal([]byte(read(t, "../.github/workflows/"+m[1])), &workflow); err != nil {
			t.Fatal(err)
		}
		for _, input := range regexp.MustCompile(`-f ([a-z_]+)=`).FindAllStringSubmatch(m[2], -1) {
			if workflow.On.Dispatch.Inputs[input[1]] == nil || workflow.On.Call.Inputs[input[1]] == nil {
				t.Errorf("%s has no input %s", m[1], input[1])
			}
		}
	}
}

// Every command of the README does what it says, in a clone, against a local cloud that it started itself. Of `make` only the demo
// is run here: this is `make test`, and CI calls it as the README does.
func TestReadmeCommands(t *testing.T) {
	w := cloud(t)
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, w.ours, "clone", "--quiet", w.ours, dir)
	if err := os.Symlink(filepath.Join(root, ".cache"), filepath.Join(dir, ".cache")); err != nil { // what setup made
		t.Fatal(err)
	}
	writeFile(t, dir, ".git/info/exclude", ".cache\n") // a link is no folder to .gitignore
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	var starts string
	commands := 0
	for _, b := range blocks(t, "sh") {
		for line := range strings.Lines(b) {
			line = strings.TrimSpace(line)
			commands++
			switch {
			case line == "make test":
				if !strings.Contains(read(t, "../.ci/run"), "make lint test") {
					t.Error("CI does not call make test")
				}
			case line == "make demo":
				script.WriteString("scripts/demo.sh >&2\n")
			case strings.Contains(line, "cmd/localcloud"):
				starts = line
			default:
				script.WriteString("echo '+ " + strings.ReplaceAll(line, "'", `'\''`) + "' >&2\n" + line + "\n")
			}
		}
	}
	if starts == "" || commands < 8 {
		t.Fatalf("%d commands, of which %q starts a local cloud", commands, starts)
	}
	environ := append(os.Environ(), "HOME="+t.TempDir(), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	bash := func(script string) *exec.Cmd {
		command := exec.CommandContext(t.Context(), "bash", "-c", script)
		command.Dir, command.Env = dir, environ
		command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGINT) }
		command.WaitDelay = time.Minute
		return command
	}
	demo, rest, both := strings.Cut(script.String(), "scripts/demo.sh >&2\n")
	if !both {
		t.Fatal("the README does not say make demo")
	}
	if out, err := bash(demo + "scripts/demo.sh").CombinedOutput(); err != nil || !strings.Contains(string(out), "demo: Doppler names ") {
		t.Fatalf("make demo: %v\n%s", err, out)
	}

	var log safeBuffer
	cloudCommand := bash(starts)
	cloudCommand.Stdout, cloudCommand.Stderr = &log, &log
	if err := cloudCommand.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cloudCommand.Wait() }()
	stop := func() {
		_ = syscall.Kill(-cloudCommand.Process.Pid, syscall.SIGINT)
		<-ended // with 1: that is how `go run` ends when it is interrupted
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
	out, err := bash(". ./cloud.env\n" + rest).CombinedOutput()
	stop()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "cloud.env")); err == nil {
		t.Error("the local cloud leaves its file of tokens")
	}
}
