//go:build linux

package e2e

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// pinnedAction matches uses of GitHub's actions/NAME in our workflows. testdata/NAME contains a stand-in for each.
var pinnedAction = regexp.MustCompile(`uses: (actions/([a-z-]+)@[0-9a-f]{40})`)

// actRun is a run of a workflow with act.
type actRun struct {
	dir      string // the repository
	workflow string // in .github/workflows
	event    string // default workflow_dispatch
	inputs   values
	secrets  values
	vars     values
	noOIDC   bool   // the job lacks the permission id-token: write
	token    string // GITHUB_TOKEN; default: a token that can read all repositories
	env      values // additional variables of every step
	withGo   bool   // the runner has Go, so that it can build unreleased actions
}

// act runs a workflow and returns its log. act fetches actions from the local cloud's GitHub.
func (e *environment) act(t *testing.T, r actRun) (log string, ok bool) {
	t.Helper()
	program, err := filepath.Abs("../../.cache/bin/act")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("act is missing: %v (run scripts/setup.sh test)", err)
	}
	home := t.TempDir()
	// All runs share act's action cache, because concurrent jobs cannot fetch the same action for the first time. The tool
	// cache, which is part of it, is empty at the start of a run, as on a hosted runner.
	cache := filepath.Join(e.dir, "act")
	if err := os.RemoveAll(filepath.Join(cache, "tool_cache")); err != nil {
		t.Fatal(err)
	}
	if r.event == "" {
		r.event = "workflow_dispatch"
	}
	args := []string{
		r.event, "--workflows", filepath.Join(".github/workflows", r.workflow), "--platform", "ubuntu-latest=-self-hosted",
		"--platform", "ubuntu-24.04-arm=-self-hosted", "--platform", "macos-latest=-self-hosted",
		"--no-cache-server", "--action-cache-path", cache, "--use-new-action-cache", "--json",
		"--secret", "GITHUB_TOKEN", "--env-file", filepath.Join(home, "env"),
	}
	args = append(args, standIns(t)...)
	environ, variables := e.actEnvironment(t, r, home)
	writeFile(t, home, "env", variables)
	for name, value := range r.inputs {
		args = append(args, "--input", name+"="+value)
	}
	for name, value := range r.vars {
		args = append(args, "--var", name+"="+value)
	}
	for name, value := range r.secrets {
		args = append(args, "--secret", name)
		environ = append(environ, name+"="+value)
	}
	command := exec.CommandContext(t.Context(), program, args...)
	command.Dir, command.Env = r.dir, environ
	out, err := command.CombinedOutput()
	return flattenLog(string(out)), err == nil
}

// standIns returns the arguments that replace the actions that pinnedAction matches with those in testdata.
func standIns(t *testing.T) (args []string) {
	t.Helper()
	workflows, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, workflow := range workflows {
		for _, pin := range pinnedAction.FindAllStringSubmatch(read(t, workflow), -1) {
			standIn, err := filepath.Abs(filepath.Join("testdata", pin[2]))
			if err != nil {
				t.Fatal(err)
			}
			args = append(args, "--local-repository", pin[1]+"="+standIn)
		}
	}
	return args
}

// actEnvironment returns the environment of act, and the variables of every step as NAME=VALUE lines.
func (e *environment) actEnvironment(t *testing.T, r actRun, home string) (environ []string, variables string) {
	t.Helper()
	env := e.Env()
	maps.Copy(env, r.env)
	path := filepath.SplitList(os.Getenv("PATH"))
	if r.withGo {
		for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB"} {
			env[name] = goEnv(t, name)
		}
	} else {
		path = slices.DeleteFunc(path, func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, "go"))
			return err == nil
		})
	}
	for name, value := range env {
		// Workflows read these from secrets and variables of the repository, or from files.
		isSecret := name == "DEPOT_TOKEN" || name == "DEPOT_PROJECT_ID" || name == "DAYTONA_API_KEY" ||
			strings.HasPrefix(name, "DOPPLER_TOKEN") || strings.HasPrefix(name, "LOCALCLOUD_")
		if isSecret || r.noOIDC && strings.HasPrefix(name, "ACTIONS_ID_TOKEN_") {
			continue
		}
		variables += name + "=" + value + "\n"
	}
	environ = []string{
		"HOME=" + home, "PATH=" + strings.Join(path, ":"), "GITHUB_TOKEN=" + cmp.Or(r.token, e.GitHubToken),
	}
	return environ, variables
}

// actFailing runs a workflow that must fail with a message that matches pattern. act does not wait for the output of a
// failing step, so actFailing retries if the message is missing.
func (e *environment) actFailing(t *testing.T, r actRun, pattern string) (log string) {
	t.Helper()
	for range 3 {
		var ok bool
		if log, ok = e.act(t, r); ok {
			t.Errorf("the workflow succeeded: %s", log)
			break
		}
		if regexp.MustCompile(pattern).MatchString(log) {
			break
		}
	}
	return log
}

// flattenLog converts act's JSON log to lines "JOB | MESSAGE".
func flattenLog(log string) string {
	var s strings.Builder
	for line := range strings.Lines(log) {
		var entry struct{ Job, Msg string }
		if json.Unmarshal([]byte(line), &entry) != nil {
			s.WriteString(line)
			continue
		}
		s.WriteString(entry.Job + " | " + strings.TrimRight(entry.Msg, "\n") + "\n")
	}
	return s.String()
}

// goEnv returns a variable of go env.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Workflows of another repository use the actions and the reusable workflows, and read their outputs.
func TestCallerWorkflows(t *testing.T) {
	e := setup(t)
	sha := git(t, e.caller, "rev-parse", "HEAD")
	commit := e.release(t)
	release := values{"SANDBOX_ACTIONS_REPOSITORY": "org/sandbox-actions", "SANDBOX_ACTIONS_REF": commit}
	registry := regexp.QuoteMeta(e.Registry.Addr)
	login := base64.StdEncoding.EncodeToString([]byte(localcloud.RegistryUser + ":" + e.RegistryPassword))
	called := values{
		"BUILD_SECRETS":      "token=of the caller",
		"DOCKER_AUTH_CONFIG": fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, e.Registry.Addr, login),
	}
	// The job's token can read only the job's repository, so a private action in another repository is not found.
	e.GitHub.Change(func(o *github.Options) {
		o.Repositories = append(o.Repositories, github.Repository{Owner: "org", Name: "private", Dir: e.ours, Private: true})
		o.JobTokens = append(o.JobTokens, github.Token{
			Value: "ghs_of_the_job", Repository: "org/sandbox-actions", Permissions: values{"contents": "read"},
		})
	})
	private := actRun{
		dir: e.ours, workflow: "build-docker-image.yml", token: "ghs_of_the_job",
		vars: values{"SANDBOX_ACTIONS_REPOSITORY": "org/private", "SANDBOX_ACTIONS_REF": "v1"},
		inputs: values{
			"context":    "internal/e2e/testdata/caller",
			"dockerfile": "internal/e2e/testdata/caller/Dockerfile",
		},
	}
	withToken := private
	withToken.secrets = values{"SANDBOX_ACTIONS_TOKEN": e.GitHubToken}
	for _, test := range []struct {
		name string
		run  actRun
		ok   bool
		want []string // regular expressions that must match the log
	}{
		{
			name: "outputs reach the next step and the next job", ok: true,
			run: actRun{dir: e.caller, workflow: "steps.yml"},
			want: []string{
				`(?m)hello$`, `built for amd64`, `the step's digest is sha256:[0-9a-f]{64} of ` + sha,
				`the job's digest is sha256:[0-9a-f]{64}`,
			},
		},
		{
			name: "reusable workflow, saved for another job", ok: true,
			run: actRun{dir: e.caller, workflow: "call.yml", vars: release},
			want: []string{
				`called ` + registry + `/sandbox:[a-z0-9]+@sha256:[0-9a-f]{64}, sha256:[0-9a-f]{64}, ` + sha,
				`::notice title=sandbox-actions::The action build is org/sandbox-actions@` + commit,
			},
		},
		{
			name: "reusable workflow on a runner without job.workflow_repository",
			run:  actRun{dir: e.caller, workflow: "call.yml"},
			want: []string{`::error::.*acme/caller.*SANDBOX_ACTIONS_REPOSITORY`},
		},
		{
			name: "private action without a token", run: private,
			want: []string{`::error::.*org/private.*v1.*SANDBOX_ACTIONS_TOKEN`},
		},
		{
			name: "private action", run: withToken, ok: true,
			want: []string{
				`::notice title=sandbox-actions::The action build is org/private@` + commit,
				`::set-output:: digest=sha256:[0-9a-f]{64}`,
			},
		},
		{
			name: "matrix of platforms", ok: true,
			run:  actRun{dir: e.caller, workflow: "matrix.yml"},
			want: []string{`built linux/amd64 as sha256:`, `built linux/arm64 as sha256:`},
		},
		{
			name: "dispatched build workflow", ok: true,
			run: actRun{
				dir: e.ours, withGo: true, workflow: "build-docker-image.yml",
				inputs: values{"ref": "v1", "save": "true", "docker_platform": "linux/amd64"},
			},
			want: []string{`::set-output:: digest=sha256:[0-9a-f]{64}`, `::set-output:: git_ref=refs/tags/v1`},
		},
		{
			name: "snapshot without stored secrets", ok: true,
			run: actRun{
				dir: e.caller, workflow: "snapshot.yml", vars: values{"DOPPLER_IDENTITY": localcloud.DopplerIdentity},
			},
			want: []string{`a sandbox starts from caller-sandbox-\d{8}-\d{6}-` + sha[:7] + `-`},
		},
		{
			name: "reusable snapshot workflow for prd", ok: true,
			run: actRun{
				dir: e.caller, workflow: "snapshot-call.yml", vars: release,
				secrets: values{"DOPPLER_TOKEN_PRD": e.DopplerTokenPRD},
			},
			want: []string{`called for called of sha256:[0-9a-f]{64} at ` + sha},
		},
		{
			name: "dispatched snapshot workflow", ok: true,
			run: actRun{
				dir: e.ours, withGo: true, workflow: "build-daytona-snapshot.yml",
				inputs:  values{"ref": "v1", "doppler_config": "dev", "update_doppler": "true"},
				secrets: values{"DOPPLER_TOKEN": e.DopplerToken},
			},
			want: []string{`::set-output:: snapshot_name=sandbox-actions-`, `::set-output:: doppler_updated=true`},
		},
		{
			name: "dispatched snapshot workflow without Doppler", ok: true,
			run: actRun{
				dir: e.ours, withGo: true, workflow: "build-daytona-snapshot.yml", inputs: values{"ref": "v1"},
				secrets: values{"DAYTONA_API_KEY": e.DaytonaKey},
			},
			want: []string{`Doppler will not be updated`, `::set-output:: doppler_updated=false`},
		},
		{
			name: "passing and failing tests", ok: true,
			run:  actRun{dir: e.caller, workflow: "test.yml"},
			want: []string{`green 1, red 1 and failure`, `::error file=failing.yaml,line=4`},
		},
		{
			name: "reusable test workflow", ok: true,
			run: actRun{
				dir: e.caller, workflow: "test-call.yml", vars: release, secrets: called,
				inputs: values{"push": e.Registry.Addr + "/team/called:1"},
			},
			want: []string{
				`called 1 passed, 0 failed of sha256:[0-9a-f]{64}`, `artifact called-\S* holds \S*test-results/junit.xml`,
				`::set-output:: image_ref=` + registry + `/team/called:1@sha256:`,
			},
		},
		{
			name: "reusable test workflow with a failing command",
			run: actRun{
				dir: e.caller, workflow: "test-call.yml", vars: release, secrets: called, inputs: values{"command": "exit 9"},
			},
			want: []string{
				`::set-output:: tests_passed=1`, `exit code 9`, `artifact called-\S* holds \S*test-results/junit.xml`,
			},
		},
		{
			name: "job without the permission id-token",
			run:  actRun{dir: e.caller, workflow: "steps.yml", noOIDC: true},
			want: []string{"permissions: ?.*id-token: write"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log string
			if !test.ok {
				log = e.actFailing(t, test.run, test.want[len(test.want)-1])
			} else if log, test.ok = e.act(t, test.run); !test.ok {
				t.Error("the workflow failed")
			}
			for _, want := range test.want {
				if !regexp.MustCompile(want).MatchString(log) {
					t.Errorf("the log does not match %s", want)
				}
			}
			if t.Failed() {
				t.Log(log)
			}
		})
	}
}
