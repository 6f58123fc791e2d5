// Package sandbox_test builds the sandbox image as anyone would, from a team's repository on a real BuildKit, and looks at what came out:
// layer by layer, and as it runs in the Docker Engines of today and of yesterday.
package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/source"
)

const platform = "linux/amd64"

var (
	// machines are two builders that share nothing. Each keeps its layers from one run of the tests to the next, so that only what has
	// changed is built, on each by itself.
	machines [2]*client.Client
	// hosts are the Docker Engines, one of each kind.
	kinds = [...]string{engine.Current, engine.Oldest}
	hosts [len(kinds)]string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	state, err := filepath.Abs("../.cache/sandbox")
	if err == nil {
		var unlock func()
		if unlock, err = lock(state); err == nil {
			defer unlock()
		}
	}
	defer shared.run(&code)
	var stops stops
	defer stops.run(&code)
	if err == nil {
		err = start(context.Background(), state, &stops)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// shared ends what tests share.
var shared stops

// start starts all machines and engines, and hands over what ends them.
func start(ctx context.Context, state string, stops *stops) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		mirror, err := registry.StartMirror(ctx, "../.cache/base/bookworm-slim.tar")
		if err != nil {
			return err
		}
		stops.add(mirror.Stop)
		for i := range machines {
			group.Go(func() error {
				b, err := builders.Start(ctx, builders.Options{
					Dir: filepath.Join(state, fmt.Sprintf("builder-%d", i+1)), Platforms: []string{platform},
					Mirrors: map[string]string{"docker.io": mirror.Addr},
				})
				if err != nil {
					return err
				}
				stops.add(b.Stop)
				if machines[i], err = client.New(ctx, b.Address(platform)); err != nil {
					return err
				}
				return machines[i].Prune(ctx, nil, client.WithKeepOpt(0, 0, 3e9, 0)) // what was built long ago
			})
		}
		return nil
	})
	data, err := os.MkdirTemp("", "sandbox-engines-")
	if err != nil {
		return errors.Join(err, group.Wait())
	}
	stops.add(func() error { return os.RemoveAll(data) })
	for i, kind := range kinds {
		group.Go(func() error {
			e, err := engine.Start(ctx, kind, filepath.Join(data, kind), nil)
			if err != nil {
				return err
			}
			stops.add(e.Stop)
			hosts[i] = e.Host
			return nil
		})
	}
	return group.Wait()
}

// stops end what was started, the latest first.
type stops struct {
	mutex sync.Mutex
	list  []func() error
}

func (s *stops) add(stop func() error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.list = append(s.list, stop)
}

func (s *stops) run(code *int) {
	for _, stop := range slices.Backward(s.list) {
		if err := stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			*code = 1
		}
	}
}

// lock waits until no other test process uses the folder, which it makes.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { file.Close() }, nil
}

// team is a repository that is built: one of a team that took sandbox/ over, and has files of its own.
type team struct{ dir string }

const repository = "team/app"

// newTeam makes that repository in dir: the same commit each time, as long as sandbox/ is the same.
func newTeam(dir string) (team, error) {
	t := team{dir}
	if err := os.CopyFS(filepath.Join(dir, "sandbox"), os.DirFS(".")); err != nil {
		return t, err
	}
	_, err := t.sh(`rm sandbox/*_test.go; git init -q -b main .
		mkdir docs bin; echo '# app' > README.md; printf '#!/bin/sh\necho tool\n' > bin/tool; chmod 755 bin/tool
		ln -s ../README.md docs/README.md; echo a > 'docs/ä b'
		git add .; git commit -qm first; echo more >> README.md; git commit -qam second`)
	return t, err
}

// sh runs a shell in the repository with a git that knows nobody's settings.
func (t team) sh(script string, args ...string) (string, error) {
	command := exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...)
	command.Dir = t.dir
	command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", script, err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// build builds the repository as it is, on a machine, as action-build does with git_context: git. change may ask for something else.
func (t team) build(ctx context.Context, machine *client.Client, change func(*image.Request)) (*image.Result, image.Stats, error) {
	tree, err := source.OpenCheckout(ctx, t.dir)
	if err != nil {
		return nil, image.Stats{}, err
	}
	scratch, err := os.MkdirTemp("", "sandbox-git-")
	if err != nil {
		return nil, image.Stats{}, err
	}
	defer os.RemoveAll(scratch)
	git := filepath.Join(scratch, "git")
	if err := tree.WriteGitDir(ctx, git); err != nil {
		return nil, image.Stats{}, err
	}
	request := image.Request{
		Platform: platform, Context: t.dir, Dockerfile: filepath.Join(t.dir, "sandbox/Dockerfile"), SharedKey: t.dir,
		BuildArgs: map[string]string{"GITHUB_REPOSITORY": repository},
		Contexts:  map[string]string{"git": git},
	}
	// Who is behind a proxy tells BuildKit so by these arguments, which it keeps out of the image and of its cache's keys.
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if value := os.Getenv(name); value != "" {
			request.BuildArgs[name] = value
		}
	}
	// The base image's layer, too, is to be read, though the builder may know its files from another day's pull.
	if request.LayerDir, err = os.MkdirTemp(filepath.Dir(t.dir), "layers-"); err != nil {
		return nil, image.Stats{}, err
	}
	if change != nil {
		change(&request)
	}
	var log bytes.Buffer
	var result *image.Result
	var stats image.Stats
	var group errgroup.Group
	status := make(chan *client.SolveStatus)
	group.Go(func() (err error) {
		stats, err = image.Progress(ctx, []image.PlatformStatus{{Platform: platform, Status: status}}, strings.Clone, image.Plain(&log))
		return err
	})
	group.Go(func() (err error) {
		result, err = image.Solve(ctx, machine, request, status)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, stats, fmt.Errorf("%w\n%s", err, &log)
	}
	return result, stats, nil
}
