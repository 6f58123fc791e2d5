//go:build linux

package soak

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
)

var full = flag.Bool("full", false, "run all cases instead of a selection, and write docs/reliability.md")

// isSelected reports whether a run without -full includes case n, which is one in every.
func isSelected(n, every int) bool { return *full || n%every == 0 }

func TestMain(m *testing.M) {
	code := testdaemons.Run(m)
	if dir, err := shared(); err == nil {
		_ = os.RemoveAll(dir.root)
	}
	if *full {
		if err := results.write("../../docs/reliability.md"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// fixtures are shared by all labs.
type fixtures struct {
	root       string // temporary directory
	programs   string // directory of the programs
	repository string // the repository that the runs build
	commit     string // its HEAD
}

// repositoryFiles are the files of the repository. Its image has an entry point, which the snapshot flow checks.
var repositoryFiles = map[string]string{
	"Dockerfile": "FROM scratch\nCOPY start /\nCOPY start /bin/sh\nENTRYPOINT [\"/start\"]\n",
	"start":      "#!/start\n",
}

const fromDebian = "FROM debian:bookworm-slim\n"

// testSuite is the suite of the test flow.
const testSuite = `tests:
  - name: system
    run: [cat, /etc/os-release]
    stdout: { include: [Debian] }
  - name: in a session
    session: shared
    run: touch /tmp/x
  - name: in the same session
    session: shared
    run: test -e /tmp/x
  - name: service
    service:
      command: [sh, -c, "echo ready; sleep 60"]
      ready: { log: ready, within: 5s }
`

var shared = sync.OnceValues(func() (f fixtures, err error) {
	if f.root, err = os.MkdirTemp("", "soak-"); err != nil {
		return f, err
	}
	f.programs, f.repository = filepath.Join(f.root, "bin"), filepath.Join(f.root, "repository")
	if err := os.Mkdir(f.repository, 0o755); err != nil {
		return f, err
	}
	for name, content := range repositoryFiles {
		if err := os.WriteFile(filepath.Join(f.repository, name), []byte(content), 0o755); err != nil {
			return f, err
		}
	}
	f.commit, err = runScript(f.repository, `git init --quiet --initial-branch=main
		git add --all; git commit --quiet --message=begin; git rev-parse HEAD`)
	if err != nil {
		return f, err
	}
	return f, programs.Build(f.programs)
})

// runScript runs a shell script in dir and returns its output.
func runScript(dir, script string) (string, error) {
	command := exec.Command("sh", "-euc", script)
	command.Dir = dir
	command.Env = append(
		os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=a",
		"GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@example.com",
		"MARK="+mark,
	)
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// The services of a lab. Each is behind a proxy that injects faults.
const (
	depot         = "Depot"
	oidc          = "OIDC"
	ghAPI         = "GitHub API"
	ghGit         = "git"
	doppler       = "Doppler"
	daytona       = "Daytona"
	imageRegistry = "registry"
	docker        = "Docker Engine"
)

// lab is a local cloud of its own, which runs one program at a time, with the engine and the builders that all labs
// share.
type lab struct {
	*localcloud.Cloud
	fixtures
	proxies map[string]*faultproxy.Proxy // by service
	home    string                       // with a login to the registry
	temp    string                       // of all runs, as RUNNER_TEMP is of all steps
	env     map[string]string            // of the next runs, in addition; overrides
	number  int                          // distinguishes the runs of labs
	runs    atomic.Int64

	depotCalls, depotRequests int // before the last check
}

var labs atomic.Int64

// newLab starts a lab. Its GitHub has the repository of the flows and the given ones.
func newLab(t testing.TB, repositories ...github.Repository) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit and Docker; run without -short")
	}
	l := &lab{proxies: map[string]*faultproxy.Proxy{}, home: t.TempDir(), temp: t.TempDir(), number: int(labs.Add(1))}
	var err error
	if l.fixtures, err = shared(); err != nil {
		t.Fatal(err)
	}
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	l.Cloud, err = localcloud.Start(t.Context(), localcloud.Options{
		Dir: t.TempDir(), Base: filepath.Join(root, registry.BaseImage), Builders: testdaemons.Builders(t),
		EngineHost: testdaemons.PrivateEngine(t, engine.Current),
		Repositories: append([]github.Repository{{Owner: "acme", Name: "app", Dir: l.repository, Private: true}},
			repositories...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	for service, url := range map[string]string{
		depot: l.Depot.URL(), oidc: l.GitHub.IDTokenRequestURL(), ghAPI: l.GitHub.APIURL(), ghGit: l.GitHub.ServerURL(),
		doppler: l.Doppler.URL(), daytona: l.Daytona.URL(), imageRegistry: "http://" + l.Registry.Addr, docker: l.Engine.Host,
	} {
		proxy, err := faultproxy.Start(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = proxy.Close() })
		l.proxies[service] = proxy
	}
	if err := l.login(); err != nil {
		t.Fatal(err)
	}
	if l.number == 1 { // the labs share the engine
		if err := l.createTestImage(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// registryHost is the host and port of the registry's proxy.
func (l *lab) registryHost() string {
	return strings.TrimPrefix(l.proxies[imageRegistry].URL, "http://")
}

func (l *lab) login() error {
	auth := base64.StdEncoding.EncodeToString([]byte(localcloud.RegistryUser + ":" + l.RegistryPassword))
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, l.registryHost(), auth)
	return errors.Join(os.Mkdir(filepath.Join(l.home, ".docker"), 0o700),
		os.WriteFile(filepath.Join(l.home, ".docker", "config.json"), []byte(config), 0o600))
}

// step returns a step that runs a program in an empty workspace, with the services behind their proxies.
// repository is that of the workflow, as OWNER/NAME; "" stands for that of the flows.
func (l *lab) step(program, repository string, inputs map[string]string) (programs.Step, error) {
	files, err := os.MkdirTemp(l.root, "run-")
	if err != nil {
		return programs.Step{}, err
	}
	env := l.Env()
	for _, name := range []string{"DEPOT_TOKEN", "DOPPLER_TOKEN", "DOPPLER_TOKEN_PRD", "DAYTONA_API_KEY"} {
		delete(env, name) // the programs authenticate with OIDC, and the Doppler config has the key
	}
	for name, service := range map[string]string{
		"DEPOT_API_URL": depot, "ACTIONS_ID_TOKEN_REQUEST_URL": oidc, "GITHUB_API_URL": ghAPI, "GITHUB_SERVER_URL": ghGit,
		"DOPPLER_API_HOST": doppler, "DAYTONA_API_URL": daytona,
	} {
		env[name] = l.proxies[service].URL
	}
	env["ACTIONS_ID_TOKEN_REQUEST_URL"] += "?" + queryOf(l.GitHub.IDTokenRequestURL())
	env["DOCKER_HOST"] = strings.Replace(l.proxies[docker].URL, "http://", "tcp://", 1)
	env["GITHUB_REPOSITORY"] = cmp.Or(repository, "acme/app")
	env["DOCKER_CONFIG"] = filepath.Join(l.home, ".docker")
	maps.Copy(env, l.env)
	workspace := filepath.Join(files, "workspace")
	if err := os.Mkdir(workspace, 0o755); err != nil {
		return programs.Step{}, err
	}
	return programs.Step{
		Command: []string{"setsid", filepath.Join(l.programs, program)}, // a session, to find its processes
		Dir:     workspace, Files: files, Temp: l.temp, Inputs: inputs, Env: env,
	}, nil
}

func queryOf(url string) string {
	_, query, _ := strings.Cut(url, "?")
	return query
}

// createTestImage loads the image of the test flow into the engine.
func (l *lab) createTestImage(ctx context.Context) error {
	step, err := l.step("action-build", "", map[string]string{"image_name": testImage, "context": "."})
	if err != nil {
		return err
	}
	dockerfile := filepath.Join(step.Dir, "Dockerfile")
	if err := os.WriteFile(dockerfile, []byte(fromDebian), 0o644); err != nil {
		return err
	}
	r, err := step.Run(ctx)
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("create %s: %s%s", testImage, r.Stdout, r.Stderr)
	}
	return err
}
