package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/pkg/suite"
	"go.yaml.in/yaml/v3"
)

var codeBlock = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// blocksOf are a document's examples in one language.
func codeBlocks(t *testing.T, document, language string) []string {
	t.Helper()
	var found []string
	for _, m := range codeBlock.FindAllStringSubmatch(read(t, "../../"+document), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// documents are all that is written for people, as paths from the root.
func documents(t *testing.T) []string {
	t.Helper()
	list := git(t, "../..", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
	var found []string
	for name := range strings.Lines(list) {
		if name = strings.TrimSpace(name); read(t, "../../"+name) != "" { // not one that was removed
			found = append(found, name)
		}
	}
	if len(found) < 3 {
		t.Fatalf("only %q", found)
	}
	return found
}

// Every workflow in the documents runs, in a repository that is not ours; every suite is one.
func TestDocsSnippets(t *testing.T) {
	e := setup(t)
	release := map[string]string{
		"SANDBOX_ACTIONS_REPOSITORY": "org/sandbox-actions", "SANDBOX_ACTIONS_REF": e.release(t), "DOPPLER_IDENTITY": localcloud.DopplerIdentity,
	}
	for _, name := range documents(t) {
		if name == "docs/own-buildkit.md" { // its workflow needs its daemon: TestOwnBuildKit
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
					t.Errorf("%s: neither a workflow nor a suite: %v", name, err)
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

// Every `gh` command names what there is: a workflow of ours with its inputs, a program that is released.
func TestDocsRecipes(t *testing.T) {
	recipe := regexp.MustCompile(`gh workflow run (\S+)((?: -f [a-z_]+=(?:'[^']*'|\S+))*)`)
	asset := regexp.MustCompile(`\baction-[a-z0-9-]+`)
	recipes, assets := 0, 0
	for _, name := range documents(t) {
		for _, text := range codeBlocks(t, name, "text") {
			for _, m := range recipe.FindAllStringSubmatch(text, -1) {
				recipes++
				var workflow struct {
					On struct {
						Dispatch struct{ Inputs map[string]any }  `yaml:"workflow_dispatch"`
						Call     *struct{ Inputs map[string]any } `yaml:"workflow_call"`
					}
				}
				if err := yaml.Unmarshal([]byte(read(t, "../../.github/workflows/"+m[1])), &workflow); err != nil {
					t.Fatal(err)
				}
				for _, input := range regexp.MustCompile(`-f ([a-z_]+)=`).FindAllStringSubmatch(m[2], -1) {
					if workflow.On.Dispatch.Inputs[input[1]] == nil || workflow.On.Call != nil && workflow.On.Call.Inputs[input[1]] == nil {
						t.Errorf("%s: %s has no input %s", name, m[1], input[1])
					}
				}
			}
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, "gh release") && !strings.HasPrefix(line, "gh attestation") {
					continue
				}
				for _, named := range asset.FindAllString(line, -1) {
					assets++
					parts := strings.Split(named, "-")
					if len(parts) != 4 || read(t, "../../action-"+parts[1]+"/main.go") == "" || !regexp.MustCompile(`^(linux|darwin)-(amd64|arm64)$`).MatchString(parts[2]+"-"+parts[3]) {
						t.Errorf("%s: no release holds %s", name, named)
					}
				}
			}
		}
	}
	if recipes < 3 || assets < 2 {
		t.Errorf("%d recipes, %d assets", recipes, assets)
	}
}

var (
	markdownLink   = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	markdownHeading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	slugRemoves = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Every link to a file of ours leads there, and to a heading that it has.
func TestDocsLinks(t *testing.T) {
	links := 0
	for _, name := range documents(t) {
		for _, m := range markdownLink.FindAllStringSubmatch(codeBlock.ReplaceAllString(read(t, "../../"+name), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat("../../" + to); err != nil || strings.HasPrefix(to, "..") {
				t.Errorf("%s: %s is not there", name, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			var anchors []string
			for _, head := range markdownHeading.FindAllStringSubmatch(codeBlock.ReplaceAllString(read(t, "../../"+to), ""), -1) {
				anchors = append(anchors, strings.ReplaceAll(slugRemoves.ReplaceAllString(strings.ToLower(head[1]), ""), " ", "-"))
			}
			if !slices.Contains(anchors, anchor) {
				t.Errorf("%s: %s has no heading #%s, only %q", name, to, anchor, anchors)
			}
		}
	}
	if links < 10 {
		t.Errorf("only %d links", links)
	}
}

// What documents name in the code is there: files, and variables.
func TestDocsNames(t *testing.T) {
	file := regexp.MustCompile("`((?:actions|pkg|internal|scripts|docs|\\.github)/[A-Za-z0-9_./-]+\\.[a-z]+)`")
	made := []string{"actions/checksums.txt", ".github/workflows/sandbox.yml"} // by a release, by the reader
	for _, name := range documents(t) {
		for _, m := range file.FindAllStringSubmatch(read(t, "../../"+name), -1) {
			if _, err := os.Stat("../../" + m[1]); err != nil && !slices.Contains(made, m[1]) {
				t.Errorf("%s: %s is not there", name, m[1])
			}
		}
	}
	var code strings.Builder
	for _, pattern := range []string{"../../actions/*.go", "../../pkg/*/*.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				code.WriteString(read(t, file))
			}
		}
	}
	_, table, _ := strings.Cut(read(t, "../../docs/reference.md"), "## Variables")
	variables := regexp.MustCompile("`([A-Z_]{5,})`").FindAllStringSubmatch(table, -1)
	for _, m := range variables {
		if !strings.Contains(code.String(), `"`+m[1]+`"`) {
			t.Errorf("nothing reads %s", m[1])
		}
	}
	if len(variables) < 15 {
		t.Errorf("only %d variables", len(variables))
	}
}

// docs/troubleshooting.md quotes the programs' messages: each part of a quotation is in the code.
func TestDocsTroubleshooting(t *testing.T) {
	concatenation := regexp.MustCompile(`"\s*\+\s*"`)
	var code strings.Builder
	for _, pattern := range []string{"../../actions/*.go", "../../actions/run.sh", "../../pkg/*/*.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				code.WriteString(concatenation.ReplaceAllString(strings.ReplaceAll(read(t, file), `\"`, `"`), ""))
			}
		}
	}
	parts := 0
	for _, m := range regexp.MustCompile(`(?m)^> (.*)$`).FindAllStringSubmatch(read(t, "../../docs/troubleshooting.md"), -1) {
		for _, part := range regexp.MustCompile(`…|: `).Split(m[1], -1) {
			if part = strings.Trim(part, " :;,()`"); len(strings.Fields(part)) < 2 {
				continue
			}
			parts++
			if !strings.Contains(code.String(), part) {
				t.Errorf("no program prints %q", part)
			}
		}
	}
	if parts == 0 {
		t.Error("docs/troubleshooting.md quotes no message as `> message`")
	}
}

// Every command of the documents does what it says, in a clone, against a local cloud that it started itself. Of `make` only the demo
// is run here: this is `make test`, and CI calls it as the README does.
func TestDocsCommands(t *testing.T) {
	e := setup(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, e.ours, "clone", "--quiet", e.ours, dir)
	if err := os.Symlink(filepath.Join(root, ".cache"), filepath.Join(dir, ".cache")); err != nil { // what setup made
		t.Fatal(err)
	}
	writeFile(t, dir, ".git/info/exclude", ".cache\n") // a link is no folder to .gitignore
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	var starts string
	commands, demos := 0, 0
	for _, name := range documents(t) {
		if name == "docs/own-buildkit.md" || name == "docs/releasing.md" { // TestOwnBuildKit, and the tests of a release, run theirs
			continue
		}
		for line := range strings.Lines(strings.Join(codeBlocks(t, name, "sh"), "")) {
			line, _, _ = strings.Cut(line, "  #")
			line = strings.TrimSpace(line)
			commands++
			switch {
			case line == "make test", line == "make lint":
				if !strings.Contains(read(t, "../../.ci/run"), "make lint test") {
					t.Error("CI does not call make lint test")
				}
			case strings.HasPrefix(line, "scripts/test.sh "): // as the others, one of this very test's
				if folder := strings.Fields(line)[1]; len(listFiles(t, filepath.Join(root, folder))) == 0 {
					t.Errorf("%s: nothing is in %s", name, folder)
				}
			case line == "make demo":
				demos++
			case strings.Contains(line, "cmd/localcloud"):
				starts = line
			default:
				script.WriteString("echo '+ " + strings.ReplaceAll(line, "'", `'\''`) + "' >&2\n" + line + "\n")
			}
		}
	}
	if starts == "" || demos == 0 || commands < 8 {
		t.Fatalf("%d commands, of which %q starts a local cloud and %d are make demo", commands, starts, demos)
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
	if out, err := bash("scripts/demo.sh").CombinedOutput(); err != nil || !strings.Contains(string(out), "demo: Doppler names ") {
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
	out, err := bash(". ./cloud.env\n" + script.String()).CombinedOutput()
	stop()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "cloud.env")); err == nil {
		t.Error("the local cloud leaves its file of tokens")
	}
}
