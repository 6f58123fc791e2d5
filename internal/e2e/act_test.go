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

// pinnedAction matches GitHub's own actions in our workflows. testdata has a stand-in for each, by name.
var pinnedAction = regexp.MustCompile(`uses: (actions/([a-z-]+)@[0-9a-f]{40})`)

// actRun is one run of a workflow by act on this machine.
type actRun struct {
	dir      string // the repository
	workflow string // in .github/workflows
	event    string // default workflow_dispatch
	inputs   values
	secrets  values
	vars     values
	noOIDC   bool   // the job lacks the permission id-token: write
	token    string // GITHUB_TOKEN; default a token that can read
	env      values // for every step, in addition to the cloud's
	withGo   bool   // the runner has Go, so that actions of no release are built
}

// act runs a workflow. Actions are fetched from the cloud's GitHub.
func (e *environment) act(t *testing.T, r actRun) (log string, ok bool) {
	t.Helper()
	program, err := filepath.Abs("../../.cache/bin/act")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("act is not built: run scripts/setup.sh test (%v)", err)
	}
	home := t.TempDir()
	// All runs share what act fetched: two jobs that fetch the same action for the first time disturb each other. The tool
	// cache in it is emptied, as on a hosted runner.
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

// standIns returns the arguments that replace GitHub's own actions by those in testdata.
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

// actEnvironment returns the environment of act itself and, as NAME=VALUE lines, the variables of every step.
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
		// A workflow has its own secrets, variables and files.
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

// actFailing runs a workflow that fails with a message that matches pattern. act does not wait for the output of a step
// that fails, so a run without the message is repeated.
func (e *environment) actFailing(t *testing.T, r actRun, pattern string) (log string) {
	t.Helper()
	for range 3 {
		var ok bool
		if log, ok = e.act(t, r); ok {
			t.Errorf("the workflow succeeds: %s", log)
			break
		}
		if regexp.MustCompile(pattern).MatchString(log) {
			break
		}
	}
	return log
}

// flattenLog turns act's JSON log into lines of "JOB | MESSAGE".
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

// goEnv returns a setting of Go.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// The workflows of another repository get an image, a snapshot or test results, and their outputs, from the actions and
// the reusable workflows.
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
	// The job's own token can read only the repository that the job runs in. To it, a private action does not exist.
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
		want []string // regular expressions that match the log
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
			name: "the reusable workflow, saved for another job", ok: true,
			run: actRun{dir: e.caller, workflow: "call.yml", vars: release},
			want: []string{
				`called ` + registry + `/sandbox:[a-z0-9]+@sha256:[0-9a-f]{64}, sha256:[0-9a-f]{64}, ` + sha,
				`::notice title=sandbox-actions::The action build is org/sandbox-actions@` + commit,
			},
		},
		{
			name: "the reusable workflow on a runner that does not name its repository",
			run:  actRun{dir: e.caller, workflow: "call.yml"},
			want: []string{`::error::.*acme/caller.*SANDBOX_ACTIONS_REPOSITORY`},
		},
		{
			name: "a private action without a token", run: private,
			want: []string{`::error::.*org/private.*v1.*SANDBOX_ACTIONS_TOKEN`},
		},
		{
			name: "a private action", run: withToken, ok: true,
			want: []string{
				`::notice title=sandbox-actions::The action build is org/private@` + commit,
				`::set-output:: digest=sha256:[0-9a-f]{64}`,
			},
		},
		{
			name: "a matrix of platforms", ok: true,
			run:  actRun{dir: e.caller, workflow: "matrix.yml"},
			want: []string{`built linux/amd64 as sha256:`, `built linux/arm64 as sha256:`},
		},
		{
			name: "our own build workflow, dispatched", ok: true,
			run: actRun{
				dir: e.ours, withGo: true, workflow: "build-docker-image.yml",
				inputs: values{"ref": "v1", "save": "true", "docker_platform": "linux/amd64"},
			},
			want: []string{`::set-output:: digest=sha256:[0-9a-f]{64}`, `::set-output:: git_ref=refs/tags/v1`},
		},
		{
			name: "a snapshot without a stored secret", ok: true,
			run: actRun{
				dir: e.caller, workflow: "snapshot.yml", vars: values{"DOPPLER_IDENTITY": localcloud.DopplerIdentity},
			},
			want: []string{`a sandbox starts from iterate-sandbox-\d{8}-\d{6}-` + sha[:7] + `-`},
		},
		{
			name: "the reusable snapshot workflow for prd", ok: true,
			run: actRun{
				dir: e.caller, workflow: "snapshot-call.yml", vars: release,
				secrets: values{"DOPPLER_TOKEN_PRD": e.DopplerTokenPRD},
			},
			want: []string{`called for called of sha256:[0-9a-f]{64} at ` + sha},
		},
		{
			name: "our own snapshot workflow, dispatched", ok: true,
			run: actRun{
				dir: e.ours, withGo: true, workflow: "build-daytona-snapshot.yml",
				inputs:  values{"ref": "v1", "doppler_config": "dev", "update_doppler": "true"},
				secrets: values{"DOPPLER_TOKEN": e.DopplerToken},
			},
			want: []string{`::set-output:: snapshot_name=iterate-sandbox-`, `::set-output:: doppler_updated=true`},
		},
		{
			name: "tests that pass and tests that fail", ok: true,
			run:  actRun{dir: e.caller, workflow: "test.yml"},
			want: []string{`green 1, red 1 and failure`, `::error file=failing.yaml,line=4`},
		},
		{
			name: "the reusable test workflow", ok: true,
			run: actRun{
				dir: e.caller, workflow: "test-call.yml", vars: release, secrets: called,
				inputs: values{"push": e.Registry.Addr + "/team/called:1"},
			},
			want: []string{
				`called 1 passed, 0 failed of sha256:[0-9a-f]{64}`, `artifact called-\S* holds test-results/junit.xml`,
				`::set-output:: image_ref=` + registry + `/team/called:1@sha256:`,
			},
		},
		{
			name: "the reusable test workflow with a command that fails",
			run: actRun{
				dir: e.caller, workflow: "test-call.yml", vars: release, secrets: called, inputs: values{"command": "exit 9"},
			},
			want: []string{
				`::set-output:: tests_passed=1`, `exit code 9`, `artifact called-\S* holds test-results/junit.xml`,
			},
		},
		{
			name: "a job without the permission id-token",
			run:  actRun{dir: e.caller, workflow: "steps.yml", noOIDC: true},
			want: []string{"permissions: ?.*id-token: write"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log string
			if !test.ok {
				log = e.actFailing(t, test.run, test.want[len(test.want)-1])
			} else if log, test.ok = e.act(t, test.run); !test.ok {
				t.Error("the workflow fails")
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
