//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/github"
)

var releaseOnce sync.Once

// release publishes v1.0.0 of this repository and moves v1 to it, once for all tests with workflows that use @v1. It
// returns the release commit.
func (e *environment) release(t *testing.T) (commit string) {
	t.Helper()
	releaseOnce.Do(func() {
		git(t, e.ours, "tag", "--delete", "v1")
		for _, words := range [][]string{
			{"scripts/release.sh", "v1.0.0"},
			{"go", "run", "./internal/release", "publish", "dist/v1.0.0"},
			{"go", "run", "./internal/release", "promote", "dist/v1.0.0"},
		} {
			command := exec.CommandContext(t.Context(), words[0], words[1:]...)
			command.Dir = e.ours
			command.Env = append(
				os.Environ(),
				"GITHUB_SERVER_URL="+e.GitHub.ServerURL(),
				"GITHUB_API_URL="+e.GitHub.APIURL(),
				"GITHUB_REPOSITORY=org/sandbox-actions",
				"GITHUB_TOKEN="+e.GitHubWriteToken,
				"RELEASE_PLATFORMS=linux/"+runtime.GOARCH,
			)
			if out, err := command.CombinedOutput(); err != nil {
				t.Fatalf("%q: %v: %s", words, err, out)
			}
		}
	})
	return git(t, e.ours, "rev-parse", "v1")
}

// consumerWorkflow is the only file of a repository that uses the actions. %[1]s is the version that it pins.
const consumerWorkflow = `name: Consumer
on: workflow_dispatch
permissions: {}
jobs:
  image:
    runs-on: ubuntu-latest
    permissions:
      contents: read
      id-token: write
    steps:
      - run: |
          if command -v go; then exit 1; fi
          printf 'FROM debian:bookworm-slim\nRUN echo consumer >/name\n' >Dockerfile
          printf 'tests:\n  - {name: has its name, run: [cat, /name], stdout: {include: [consumer]}}\n' >tests.yaml
      - id: build
        uses: org/sandbox-actions/build@%[1]s
        with:
          depot_project: ${{ vars.DEPOT_PROJECT_ID }}
      - id: test
        uses: org/sandbox-actions/test@%[1]s
        with:
          depot_project: ${{ vars.DEPOT_PROJECT_ID }}
          suite: tests.yaml
      - id: snapshot
        uses: org/sandbox-actions/snapshot@%[1]s
        with:
          depot_project: ${{ vars.DEPOT_PROJECT_ID }}
          doppler_project: sandbox
          doppler_identity: ${{ vars.DOPPLER_IDENTITY }}
      - run: echo "built $ID, tested $TESTED with $PASSED passed, released as $NAME"
        env:
          ID: ${{ steps.build.outputs.image_id }}
          TESTED: ${{ steps.test.outputs.image_id }}
          PASSED: ${{ steps.test.outputs.tests_passed }}
          NAME: ${{ steps.snapshot.outputs.snapshot_name }}
`

// A repository that contains only a workflow uses all three actions, by tag and by commit. The steps run the released
// programs without Go, and refuse a changed download.
func TestReleasedActions(t *testing.T) {
	e := setup(t)
	commit := e.release(t)
	vars := values{"DEPOT_PROJECT_ID": localcloud.Project, "DOPPLER_IDENTITY": localcloud.DopplerIdentity}
	result := regexp.MustCompile(
		`built sha256:[0-9a-f]{64}, tested sha256:[0-9a-f]{64} with 1 passed, released as caller-sandbox-\d{8}`)
	for _, pin := range []string{"v1", commit} {
		t.Run(pin, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, ".github/workflows"), 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, ".github/workflows/consumer.yml", fmt.Sprintf(consumerWorkflow, pin))
			run := actRun{dir: e.repository(t, dir), workflow: "consumer.yml", vars: vars}
			log, ok := e.act(t, run)
			if !ok || !result.MatchString(log) {
				t.Error(log)
			}
			for _, program := range []string{"action-build", "action-test", "action-snapshot"} {
				source := fmt.Sprintf(
					"%[1]s v1.0.0 from %[2]s/org/sandbox-actions/releases/download/v1.0.0/%[1]s-linux-%[3]s.gz, found in ",
					program, e.GitHub.ServerURL(), runtime.GOARCH)
				if !strings.Contains(log, source) {
					t.Errorf("the log does not contain %s:\n%s", source, log)
				}
			}

			calls := len(e.Depot.Calls())
			e.GitHub.Fail(github.Fault{Path: github.Objects, CorruptLastByte: true})
			const refusal = "; refusing to run it"
			log = e.actFailing(t, run, refusal)
			e.GitHub.ClearFaults()
			if !strings.Contains(log, refusal) || len(e.Depot.Calls()) != calls {
				t.Errorf("changed download: %d calls to Depot\n%s", len(e.Depot.Calls())-calls, log)
			}
		})
	}
}
