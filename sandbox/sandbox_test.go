// Package sandbox_test builds the sandbox image from an example repository with real BuildKit daemons, inspects its
// layers, and runs it in the current and the oldest supported Docker Engine.
package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/source"
)

const platform = "linux/amd64"

var kinds = []string{engine.Current, engine.Oldest}

// cleanups contains functions that run after the tests of this package, in reverse order.
var cleanups []func() error

func TestMain(m *testing.M) {
	code := testdaemons.Run(m)
	for _, cleanup := range slices.Backward(cleanups) {
		if err := cleanup(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// startBuilders returns two builders with separate caches: one that all test packages use, and one for this package.
// Both keep their layer caches between runs.
var startBuilders = sync.OnceValues(func() (clients [2]*client.Client, err error) {
	ctx := context.Background()
	shared, err := testdaemons.AttachBuilders()
	if err != nil {
		return clients, err
	}
	if clients[0], err = client.New(ctx, shared.Address(platform)); err != nil {
		return clients, err
	}
	cleanups = append(cleanups, clients[0].Close)
	own, err := testdaemons.StartBuilders("../.cache/test/sandbox")
	if err != nil {
		return clients, err
	}
	if clients[1], err = client.New(ctx, own.Address(platform)); err != nil {
		return clients, err
	}
	cleanups = append(cleanups, clients[1].Close)
	return clients, nil
})

// builders returns the two builders of startBuilders.
func builders(t *testing.T) [2]*client.Client {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit; run without -short")
	}
	clients, err := startBuilders()
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// builtImage is the example repository, its commit, and the image built from it.
type builtImage struct {
	checkout
	commit string
	image  v1.Image
}

// buildOnce builds the image on the first builder.
var buildOnce = sync.OnceValues(func() (b builtImage, err error) {
	clients, err := startBuilders()
	if err != nil {
		return b, err
	}
	dir, err := os.MkdirTemp("", "sandbox-")
	if err != nil {
		return b, err
	}
	cleanups = append(cleanups, func() error { return os.RemoveAll(dir) })
	if b.checkout, err = newRepository(filepath.Join(dir, "app")); err != nil {
		return b, err
	}
	if b.commit, err = b.sh("git rev-parse HEAD"); err != nil {
		return b, err
	}
	result, _, err := b.build(context.Background(), clients[0], nil)
	if err == nil {
		b.image = result.Image
	}
	return b, err
})

// built returns the result of buildOnce.
func built(t *testing.T) builtImage {
	t.Helper()
	builders(t)
	b, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// npmConfiguration returns the .npmrc of the user who runs the tests, and whether it exists.
func npmConfiguration() ([]byte, bool) {
	file, err := exec.Command("npm", "config", "get", "userconfig").Output()
	if err != nil {
		return nil, false
	}
	content, err := os.ReadFile(strings.TrimSpace(string(file)))
	return content, err == nil
}

// checkout is a checkout of the example repository: it contains a copy of sandbox/ and other files.
type checkout struct{ dir string }

const repository = "team/app"

// newRepository creates the example repository in dir. Its commit depends only on the content of sandbox/.
func newRepository(dir string) (checkout, error) {
	t := checkout{dir}
	if err := os.CopyFS(filepath.Join(dir, "sandbox"), os.DirFS(".")); err != nil {
		return t, err
	}
	_, err := t.sh(`rm sandbox/*_test.go; git init -q -b main .
		mkdir docs bin; echo '# app' > README.md; printf '#!/bin/sh\necho tool\n' > bin/tool; chmod 755 bin/tool
		ln -s ../README.md docs/README.md; echo a > 'docs/ä b'
		git add .; git commit -qm first; echo more >> README.md; git commit -qam second`)
	return t, err
}

// sh runs a script in the checkout, without the user's git configuration, and returns its output.
func (c checkout) sh(script string, args ...string) (string, error) {
	command := exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...)
	command.Dir = c.dir
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

// build builds the checkout on a builder as action-build does with git_context: git. change, which may be nil, edits
// the request.
func (c checkout) build(
	ctx context.Context, builder *client.Client, change func(*image.Request),
) (*image.Result, image.Stats, error) {
	tree, err := source.OpenCheckout(ctx, c.dir)
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
		Platform: platform, Context: c.dir, Dockerfile: filepath.Join(c.dir, "sandbox/Dockerfile"), SharedKey: c.dir,
		BuildArgs: map[string]string{"GITHUB_REPOSITORY": repository},
		Contexts:  map[string]string{"git": git},
		Secrets:   map[string]func() ([]byte, error){},
	}
	if configuration, ok := npmConfiguration(); ok {
		request.Secrets["npmrc"] = func() ([]byte, error) { return configuration, nil }
	}
	// BuildKit excludes these arguments from the image and from cache keys.
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if value := os.Getenv(name); value != "" {
			request.BuildArgs[name] = value
		}
	}
	// The tests also read the layer of the base image, which the builder may have to pull again.
	if request.LayerDir, err = os.MkdirTemp(filepath.Dir(c.dir), "layers-"); err != nil {
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
		machines := []image.PlatformStatus{{Platform: platform, Status: status}}
		stats, err = image.Progress(ctx, machines, strings.Clone, image.Plain(&log))
		return err
	})
	group.Go(func() (err error) {
		result, err = image.Solve(ctx, builder, request, status)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, stats, fmt.Errorf("%w\n%s", err, &log)
	}
	return result, stats, nil
}
