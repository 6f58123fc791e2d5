//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/runnerlog"
)

const logWorkflow = `on: workflow_dispatch
jobs:
  log:
    runs-on: ubuntu-latest
    permissions:
      contents: read
      id-token: write
    steps:
      - run: |
          printf 'FROM debian:bookworm-slim\nCOPY hostile /\nRUN cat /hostile\nRUN date +%s >/now\n' >Dockerfile
          printf '##[endgroup]\n[group]forged\n##[group]forged\n::error::forged\n::stop-commands::forged\n' >hostile
          printf 'tests:\n  - {name: cat, run: [cat, /hostile]}\n' >tests.yaml
      - uses: org/sandbox-actions/test@v1
        with:
          depot_project: ${{ vars.DEPOT_PROJECT_ID }}
          suite: tests.yaml
          no_cache: true
`

// actCommand matches how act shows the commands that it executes or ignores.
var actCommand = regexp.MustCompile(`(?m)^.* \|   (\S+)  `)

// A runner shows the log in groups that do not nest, and nothing that a step prints acts as a command or a group.
func TestLogInRunner(t *testing.T) {
	e := setup(t)
	e.release(t)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, ".github/workflows"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, ".github/workflows/log.yml", logWorkflow)
	run := actRun{
		dir: e.repository(t, dir), workflow: "log.yml", vars: values{"DEPOT_PROJECT_ID": localcloud.Project},
	}
	log, ok := e.act(t, run)
	if !ok {
		t.Fatal(log)
	}
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, "| ::") || strings.Contains(line, "|   ❗") && strings.Contains(line, "forged") {
			t.Errorf("act did not ignore or executed %q", line)
		}
	}
	var output []string // of the steps, without the names of the jobs and act's symbols
	for _, line := range strings.Split(actCommand.ReplaceAllString(log, " | "), "\n") {
		if _, text, found := strings.Cut(line, " | "); found {
			output = append(output, text)
		}
	}
	titles, err := runnerlog.Groups(strings.Join(output, "\n"))
	if err != nil {
		t.Errorf("%v:\n%s", err, log)
	}
	want := []string{`\[3/4\] RUN cat /hostile`, "Load ", "Test .* with tests.yaml"}
	for _, title := range want {
		if !slices.ContainsFunc(titles, regexp.MustCompile("^"+title).MatchString) {
			t.Errorf("the groups %q lack %q:\n%s", titles, title, log)
		}
	}
	if slices.ContainsFunc(titles, func(title string) bool { return strings.Contains(title, "forged") }) {
		t.Errorf("a step forged one of the groups %q", titles)
	}
	if stops := regexp.MustCompile(`::stop-commands::\w{26}`).FindAllString(log, -1); len(stops) != 1 {
		t.Errorf("commands were stopped %d times:\n%s", len(stops), log)
	}
}
