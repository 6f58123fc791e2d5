package source

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/fakeclock"
	standin "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// hub is the GitHub server of all tests in this package. It has octo/app, which is private, octo/public with the same
// commits, octo/hostile and octo/empty. Their git repositories are in hubDir.
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
	if hubDir, err = os.MkdirTemp("", "hub-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(hubDir)
	// 500 commits on one branch are enough for two SHAs with the same first four digits.
	out, err := shell(hubDir, `git init -q -b trunk app; cd app
		mkdir -p a/b; echo one > a/b/file; printf '#!/bin/sh\n' > run.sh; chmod +x run.sh; ln -s a/b/file link
		git add .; git commit -qm first
		git tag light; git tag -m 'a release' v1.0; git tag -m 'a tag of a tag' latest v1.0
		git tag of-a-tree 'HEAD^{tree}'
		git checkout -q -b feature/x; echo two > a/b/file; git commit -qam second; git update-ref refs/pull/1/head HEAD
		git checkout -q trunk; git merge -q --no-ff -m merge feature/x
		git update-ref refs/pull/1/merge HEAD; git reset -q --hard HEAD^
		git update-ref refs/pull/2/head feature/x; git update-ref refs/pull/3/head trunk
		git branch same; git tag same feature/x; git branch deadbeef feature/x
		for i in $(seq 500); do
			printf 'commit refs/heads/many\ncommitter c <c@d> 1700000000 +0000\ndata 4\n%04d\n' $i
		done | git fast-import --quiet
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

// fromHub returns a client for octo/NAME that does not wait between attempts.
func fromHub(name, token string) Repository {
	return Repository{
		Owner: "octo", Name: name, Token: token, APIURL: hub.APIURL(), ServerURL: hub.ServerURL(),
		HTTP: httpclient.Config{Clock: &fakeclock.Clock{}},
	}
}

// injectFaults makes the hub fail until the end of the test.
func injectFaults(t *testing.T, faults ...standin.Fault) {
	t.Helper()
	t.Cleanup(hub.ClearFaults)
	for _, f := range faults {
		hub.Fail(f)
	}
}

// shell runs a script in dir, without the user's git settings.
func shell(dir, script string) (string, error) {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000", "GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=protocol.file.allow", "GIT_CONFIG_VALUE_0=always",
		"GIT_CONFIG_KEY_1=init.defaultBranch", "GIT_CONFIG_VALUE_1=main")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// sh runs a script like shell and fails the test if it fails.
func sh(t testing.TB, dir, script string) string {
	t.Helper()
	out, err := shell(dir, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// checkError checks that an error is one safe line without the token, and contains the wanted phrases.
func checkError(t *testing.T, err error, phrases ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", phrases)
		return
	}
	missing := slices.DeleteFunc(slices.Clone(phrases), func(p string) bool { return strings.Contains(err.Error(), p) })
	if len(missing) > 0 {
		t.Errorf("error = %v\nwant %q in it", err, missing)
	}
	if strings.ContainsAny(err.Error(), "\r\n\x1b") || strings.Contains(err.Error(), goodToken) {
		t.Errorf("error is not one safe line: %q", err)
	}
}
