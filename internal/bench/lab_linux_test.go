package bench

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/org/sandbox-actions/pkg/source"
)

func TestMain(m *testing.M) { os.Exit(testdaemons.Run(m)) }

const (
	platform   = "linux/amd64"
	repository = "org/sandbox-actions"
	dockerfile = "sandbox/Dockerfile"
)

// lab is a local cloud, a repository with the sandbox image, and the programs of both sides.
type lab struct {
	*localcloud.Cloud
	root, dir  string // this checkout, and the repository that both sides build
	git        string // the repository's .git, which our programs create themselves
	home       string // with a login to the registries
	programs   string // directory of our programs
	secretFile string // the .npmrc of the user; may be empty
}

// newLab starts a lab with the sandbox image and engines, or one with a small image and without engines.
func newLab(t *testing.T, sandbox bool) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit and Docker; run without -short")
	}
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{root: root, dir: filepath.Join(t.TempDir(), "repository"), git: filepath.Join(t.TempDir(), "git"),
		home: t.TempDir(), programs: t.TempDir()}
	kind := engine.Current
	if sandbox {
		err = checkout.Copy(root, l.dir)
	} else {
		kind, err = "", createRepository(l.dir)
	}
	if err := errors.Join(err, programs.Build(l.programs)); err != nil {
		t.Fatal(err)
	}
	if npmrc, err := exec.Command("npm", "config", "get", "userconfig").Output(); err == nil {
		if _, err := os.Stat(strings.TrimSpace(string(npmrc))); err == nil {
			l.secretFile = strings.TrimSpace(string(npmrc))
		}
	}
	owner, name, _ := strings.Cut(repository, "/")
	l.Cloud, err = localcloud.Start(t.Context(), localcloud.Options{
		Dir: t.TempDir(), Base: filepath.Join(root, registry.BaseImage), Engine: kind,
		Builders:     testdaemons.Builders(t),
		Repositories: []github.Repository{{Owner: owner, Name: name, Dir: l.dir}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	})
	l.login(t)
	l.touch(t)
	return l
}

// createRepository creates a repository with a small image. The snapshot flow checks that its entry point exists.
func createRepository(dir string) error {
	content := "FROM scratch\nCOPY . /\nCOPY start /bin/sh\nENTRYPOINT [\"/start\"]\n"
	return errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(dockerfile)), 0o755),
		os.WriteFile(filepath.Join(dir, dockerfile), []byte(content), 0o644),
		os.WriteFile(filepath.Join(dir, "start"), []byte("#!/start\n"), 0o755),
		exec.Command("git", "init", "--quiet", "--initial-branch=main", dir).Run())
}

// login creates a Docker configuration with a login to the registry.
func (l *lab) login(t *testing.T) {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(localcloud.RegistryUser + ":" + l.RegistryPassword))
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, l.Registry.Addr, auth)
	dir := filepath.Join(l.home, ".docker")
	err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// touch changes and commits one file, and creates the commit's .git for the peers.
func (l *lab) touch(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, "README.md"), []byte(time.Now().String()), 0o644); err != nil {
		t.Fatal(err)
	}
	commit := exec.Command("sh", "-c", "git add --all && git commit --quiet --message=touch")
	commit.Dir = l.dir
	commit.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_COMMITTER_NAME=a",
		"GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_EMAIL=a@example.com")
	mustRun(t, commit)
	tree, err := source.OpenCheckout(t.Context(), l.dir)
	if err == nil {
		err = os.RemoveAll(l.git)
	}
	if err == nil {
		err = tree.WriteGitDir(t.Context(), l.git)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// startEngine starts an empty engine. stop removes it.
func startEngine(t *testing.T, kind string) (host string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		t.Fatal(err)
	}
	started, err := engine.Start(t.Context(), kind, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return started.Host, func() {
		if err := errors.Join(started.Stop(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	}
}

// command returns a command of either side, which uses the cloud and the engine at host.
func (l *lab) command(host, program string, args ...string) *exec.Cmd {
	command := exec.Command(program, args...)
	command.Dir = l.dir
	command.Env = append(os.Environ(), "HOME="+l.home, "DEPOT_ERROR_TELEMETRY=0", "DEPOT_NO_UPDATE_NOTIFIER=1")
	for name, value := range l.Env() {
		command.Env = append(command.Env, name+"="+value)
	}
	command.Env = append(command.Env, "DOCKER_HOST="+host, "GITHUB_REPOSITORY="+repository)
	return command
}

// ours returns a run of one of our programs that builds the repository.
func (l *lab) ours(host, program string, args ...string) *exec.Cmd {
	build := []string{"--platform", platform, "--git-context", "git", "--build-args", "GITHUB_REPOSITORY=" + repository}
	if l.secretFile != "" {
		build = append(build, "--secret-files", "npmrc="+l.secretFile)
	}
	return l.command(host, filepath.Join(l.programs, program), append(build, args...)...)
}

// depot returns a run of the Depot CLI that builds the repository.
func (l *lab) depot(host string, args ...string) *exec.Cmd {
	build := []string{"build", "--file", dockerfile, "--platform", platform, "--build-context", "git=" + l.git,
		"--build-arg", "GITHUB_REPOSITORY=" + repository}
	if l.secretFile != "" {
		build = append(build, "--secret", "id=npmrc,src="+l.secretFile)
	}
	command := l.command(host, filepath.Join(l.root, ".cache/depot/depot"), append(append(build, args...), ".")...)
	// The CLI does not negotiate the version of Docker's API. Docker 20.10 has 1.41.
	command.Env = append(command.Env, "DOCKER_API_VERSION=1.41")
	return command
}

// buildctl returns a run of BuildKit's own client that builds the repository and creates an image, as our programs do.
func (l *lab) buildctl() *exec.Cmd {
	build := []string{"--addr", l.Builders.Address(platform), "build", "--frontend", "dockerfile.v0",
		"--local", "context=.", "--local", "dockerfile=" + filepath.Dir(dockerfile), "--local", "git=" + l.git,
		"--opt", "context:git=local:git", "--opt", "platform=" + platform,
		"--opt", "build-arg:GITHUB_REPOSITORY=" + repository, "--output", "type=image"}
	if l.secretFile != "" {
		build = append(build, "--secret", "id=npmrc,src="+l.secretFile)
	}
	return l.command("", filepath.Join(l.root, ".cache/bin/buildctl"), build...)
}
