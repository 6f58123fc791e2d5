//go:build linux

package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// repository creates a repository from a directory. Until the test ends, GitHub serves it as callerRepository, which
// Depot and Doppler trust.
func (e *environment) repository(t *testing.T, from string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message=begin")
	git(t, dir, "remote", "add", "origin", "https://github.com/"+callerRepository)
	serve := func(dir string) {
		e.GitHub.Change(func(o *github.Options) {
			i := slices.IndexFunc(
				o.Repositories,
				func(r github.Repository) bool { return r.Owner+"/"+r.Name == callerRepository },
			)
			o.Repositories[i].Dir = dir
		})
	}
	serve(dir)
	t.Cleanup(func() { serve(e.caller) })
	return dir
}

// The workflow of each example runs in a repository that contains only the example.
func TestExamples(t *testing.T) {
	e := setup(t)
	const digest = `(sha256:[0-9a-f]{64})`
	registry := regexp.QuoteMeta(e.Registry.Addr)
	variables := values{
		"SANDBOX_ACTIONS_REPOSITORY": "org/sandbox-actions", "SANDBOX_ACTIONS_REF": e.release(t), // act lacks job.workflow_*
		"DOPPLER_IDENTITY": localcloud.DopplerIdentity, "DOPPLER_PROJECT": localcloud.Project,
	}
	oneImage := regexp.MustCompile(`built ` + digest + `, tested ` + digest + ` \(2 tests\), released ` + digest)
	tested := map[string]bool{}
	for _, test := range []struct {
		folder, workflow, event string
		builds                  int // on Depot
		want                    []string
		before, after           func(t *testing.T, log string)
	}{
		{folder: "minimal", workflow: "image.yml", event: "push", builds: 1, want: []string{`::set-output:: tests_passed=1`}},
		{folder: "build-test-snapshot", workflow: "release.yml", event: "push", builds: 1,
			want: []string{oneImage.String() + ` as caller-sandbox-`},
			after: func(t *testing.T, log string) {
				if all := oneImage.FindStringSubmatch(log); all == nil || all[1] != all[2] || all[2] != all[3] {
					t.Errorf("the digests differ: %q", all)
				}
			}},
		{folder: "nightly", workflow: "nightly.yml", event: "schedule", builds: 1,
			want: []string{`created nightly-\d{8}-\d{6}-`},
			before: func(t *testing.T, _ string) {
				for _, name := range []string{"nightly-20260101-000000-1111111-a", "nightly-20260102-000000-1111111-a"} {
					e.mustRun(t, invocation{
						program: "action-snapshot", dockerfile: sleepDockerfile + "LABEL night=" + name + "\n",
						inputs: values{"name": name, "name_prefix": "nightly", "update_doppler": "false"},
					})
				}
			},
			after: func(t *testing.T, log string) {
				var left []string
				for name := range e.snapshots(t) {
					if strings.HasPrefix(name, "nightly-") {
						left = append(left, name)
					}
				}
				slices.Sort(left)
				created := regexp.MustCompile(`created (nightly\S+), tested ` + digest + `, released ` + digest)
				tonight := created.FindStringSubmatch(log)
				if tonight == nil || !slices.Equal(left, []string{"nightly-20260102-000000-1111111-a", tonight[1]}) ||
					tonight[2] != tonight[3] {
					t.Errorf("snapshots left %q, created %q", left, tonight)
				}
			}},
		{folder: "platforms", workflow: "platforms.yml", event: "push", builds: 3, want: []string{
			`published ` + registry + `/sandbox:[a-z0-9]+@` + digest + ` for linux/amd64,linux/arm64, 2 of 2 steps cached`,
		}},
		{folder: "monorepo", workflow: "images.yml", event: "push", builds: 2, want: []string{
			`(?s)saved ` + registry + `/sandbox:[a-z0-9]+@` + digest + `.*` +
				`saved ` + registry + `/sandbox:[a-z0-9]+@` + digest,
		}},
	} {
		tested[test.folder] = true
		t.Run(test.folder, func(t *testing.T) {
			dir := e.repository(t, "../../examples/"+test.folder)
			if test.before != nil {
				test.before(t, "")
			}
			began := len(e.Depot.Calls())
			log, ok := e.act(t, actRun{dir: dir, workflow: test.workflow, event: test.event, vars: variables})
			if !ok {
				t.Error("the workflow failed")
			}
			for _, want := range test.want {
				if !regexp.MustCompile(want).MatchString(log) {
					t.Errorf("the log does not match %s", want)
				}
			}
			builds := 0
			for _, call := range e.Depot.Calls()[began:] {
				if call.Method == "CreateBuild" {
					builds++
					if call.Token != depotapi.OIDCToken {
						t.Errorf("build with a token of kind %q, want %q", call.Token, depotapi.OIDCToken)
					}
				}
			}
			if builds != test.builds {
				t.Errorf("%d builds on Depot, want %d", builds, test.builds)
			}
			if test.after != nil {
				test.after(t, log)
			}
			if t.Failed() {
				t.Log(log)
			}
		})
	}
	folders, err := filepath.Glob("../../examples/*/.github")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if name := filepath.Base(filepath.Dir(folder)); !tested[name] {
			t.Errorf("no test runs examples/%s", name)
		}
	}
	if len(folders) != len(tested) {
		t.Errorf("%d examples, %d tested: %q", len(folders), len(tested), slices.Collect(maps.Keys(tested)))
	}
}

// Each example passes actionlint, uses only released actions, and has the files that a repository needs.
func TestExampleRepositories(t *testing.T) {
	if testing.Short() {
		t.Skip("needs actionlint; run without -short")
	}
	workflows, err := filepath.Glob("../../examples/*/.github/workflows/*.yml")
	if err != nil || len(workflows) < 5 {
		t.Fatalf("%v; %d workflows", err, len(workflows))
	}
	args := append([]string{"-config-file", "../../.github/actionlint.yaml"}, workflows...)
	out, err := exec.Command("../../.cache/bin/actionlint", args...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, workflow := range workflows {
		text := read(t, workflow)
		for _, uses := range regexp.MustCompile(`uses: (\S+)`).FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(uses[1], "org/sandbox-actions/") || !strings.HasSuffix(uses[1], "@v1") {
				t.Errorf("%s uses %s", workflow, uses[1])
			}
		}
		root := filepath.Dir(filepath.Dir(filepath.Dir(workflow)))
		for _, required := range []string{"README.md", "depot.json"} {
			if read(t, filepath.Join(root, required)) == "" {
				t.Errorf("%s has no %s", root, required)
			}
		}
		if lines := strings.Count(read(t, filepath.Join(root, "README.md")), "\n"); lines > 15 {
			t.Errorf("%s/README.md has %d lines, want at most 15", root, lines)
		}
	}
}
