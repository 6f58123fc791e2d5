package source

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"
	standin "github.com/org/sandbox-actions/internal/localcloud/github"
)

// hub is the GitHub of all tests here. It has octo/app, which is private, octo/public, which has the same commits, octo/hostile and octo/empty;
// their repositories are in hubDir.
var (
	hub    *standin.Server
	hubDir string
)

const goodToken = "ghs_GoodTokenOfTheTests"

func TestMain(m *testing.M) {
	code, err := runWithHub(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runWithHub(m *testing.M) (code int, err error) {
	firstWait = time.Millisecond
	if hubDir, err = os.MkdirTemp("", "hub-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(hubDir)
	// The 500 commits of many are enough for two SHAs with the same four digits.
	out, err := shell(hubDir, `git init -q -b trunk app; cd app
		mkdir -p a/b; echo one > a/b/file; printf '#!/bin/sh\n' > run.sh; chmod +x run.sh; ln -s a/b/file link; git add .; git commit -qm first
		git tag light; git tag -m 'a release' v1.0; git tag -m 'a tag of a tag' latest v1.0; git tag of-a-tree 'HEAD^{tree}'
		git checkout -q -b feature/x; echo two > a/b/file; git commit -qam second; git update-ref refs/pull/1/head HEAD
		git checkout -q trunk; git merge -q --no-ff -m merge feature/x; git update-ref refs/pull/1/merge HEAD; git reset -q --hard HEAD^
		git update-ref refs/pull/2/head feature/x; git update-ref refs/pull/3/head trunk
		git branch same; git tag same feature/x; git branch deadbeef feature/x
		for i in $(seq 500); do printf 'commit refs/heads/many\ncommitter c <c@d> 1700000000 +0000\ndata 4\n%04d\n' $i; done | git fast-import --quiet
		git init -q --bare ../empty; git init -q ../hostile`)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	hub, err = standin.Start(context.Background(), standin.Options{
		Tokens: []string{goodToken},
		Repositories: []standin.Repository{
			{Owner: "octo", Name: "app", Dir: filepath.Join(hubDir, "app"), Private: true},
			{Owner: "octo", Name: "public", Dir: filepath.Join(hubDir, "app")},
			{Owner: "octo", Name: "hostile", Dir: filepath.Join(hubDir, "hostile")},
			{Owner: "octo", Name: "empty", Dir: filepath.Join(hubDir, "empty")},
		},
	})
	if err != nil {
		return 0, err
	}
	code = m.Run()
	return code, hub.Close()
}

// fromHub is octo/NAME, as who has the token sees it.
func fromHub(t testing.TB, name, token string) Repository {
	t.Helper()
	r := Repository{Owner: "octo", Name: name, Token: token, ServerURL: hub.ServerURL(), Client: github.NewClient(nil)}
	if token != "" {
		r.Client = r.Client.WithAuthToken(token)
	}
	base, err := url.Parse(hub.APIURL() + "/")
	if err != nil {
		t.Fatal(err)
	}
	r.Client.BaseURL = base
	return r
}

// fail makes the hub go wrong until the end of the test.
func fail(t *testing.T, faults ...standin.Fault) {
	t.Helper()
	t.Cleanup(hub.Heal)
	for _, f := range faults {
		hub.Fail(f)
	}
}

// set changes a variable until the end of the test.
func set[T any](t *testing.T, variable *T, value T) {
	t.Helper()
	was := *variable
	t.Cleanup(func() { *variable = was })
	*variable = value
}

// shell runs commands in dir as a developer would, with a git that knows nobody's settings.
func shell(dir, script string) (string, error) {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=protocol.file.allow", "GIT_CONFIG_VALUE_0=always", "GIT_CONFIG_KEY_1=init.defaultBranch", "GIT_CONFIG_VALUE_1=main")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// sh is shell for commands that do not fail.
func sh(t testing.TB, dir, script string) string {
	t.Helper()
	out, err := shell(dir, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// oneLine checks that an error is one line, and says what it has to.
func oneLine(t *testing.T, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", says)
		return
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %q", err, want)
		}
	}
	if strings.ContainsAny(err.Error(), "\r\n\x1b") || strings.Contains(err.Error(), goodToken) {
		t.Errorf("%q", err)
	}
}
