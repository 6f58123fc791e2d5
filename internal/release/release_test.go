package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"
	local "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/git"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/runner"
)

// environment is a GitHub stand-in with the repository org/sandbox-actions, and a clone of it. The clone is the current
// directory.
type environment struct {
	*local.Server
	clone string
	api   *github.Client // with writeToken
}

const (
	writeToken = "ghs_writes"
	readToken  = "ghs_reads"
	otherToken = "ghs_other" // can write only to another repository
)

func setup(t *testing.T, private bool) *environment {
	t.Helper()
	dir := t.TempDir()
	script, err := filepath.Abs("../../scripts/release-commit.sh")
	if err != nil {
		t.Fatal(err)
	}
	e := &environment{clone: filepath.Join(dir, "clone")}
	sh(t, dir, `git init -q -b main clone; mkdir clone/scripts; cp "$1" clone/scripts/; echo dist >clone/.gitignore
		git -C clone add .; git -C clone commit -qm first; git clone -q --bare clone hub`, script)
	write := map[string]string{"contents": "write"}
	e.Server, err = local.Start(t.Context(), local.Options{
		Repositories: []local.Repository{
			{Owner: "org", Name: "sandbox-actions", Dir: filepath.Join(dir, "hub"), Private: private},
		},
		Tokens: []string{readToken},
		JobTokens: []local.Token{
			{Value: writeToken, Repository: "org/sandbox-actions", Permissions: write},
			{Value: otherToken, Repository: "org/other", Permissions: write},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	e.api = github.NewClient(nil).WithAuthToken(writeToken)
	e.api.BaseURL, _ = e.api.BaseURL.Parse(e.APIURL() + "/")
	e.api.UploadURL, _ = e.api.BaseURL.Parse(e.UploadURL() + "/")
	t.Chdir(e.clone)
	return e
}

// sh runs a script in dir, without the user's git configuration, and returns its trimmed output.
func sh(t *testing.T, dir, script string, args ...string) string {
	t.Helper()
	command := exec.Command("bash", append([]string{"-euc", script, "sh"}, args...)...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// makeRelease creates a release of HEAD with small programs, and returns its directory and commit.
func (e *environment) makeRelease(t *testing.T, version string) (dir, commit string) {
	t.Helper()
	dir = "dist/" + version
	commit = sh(t, e.clone, `mkdir -p "$1"; cd "$1"
		for program in build test; do echo "$program $2" >action-$program-linux-amd64; done
		(echo "# $3/org/sandbox-actions $2 go1.26.8"; sha256sum action-*) >checksums.txt
		gzip action-*
		for other in sbom.cdx.json licenses.tar.gz changelog.md; do echo "$other $2" >$other; done
		cd ../..; scripts/release-commit.sh "$1"`, dir, version, e.ServerURL())
	return dir, commit
}

// testLimits shortens the waits between attempts.
var testLimits = limits{MinWait: 10 * time.Millisecond}

// run runs the program's command and returns its output.
func (e *environment) run(ctx context.Context, token string, l limits, args ...string) (string, error) {
	var out bytes.Buffer
	env := map[string]string{"GITHUB_TOKEN": token, "GITHUB_API_URL": e.APIURL()}
	getenv := func(name string) string { return env[name] }
	err := run(ctx, runner.New(&out, &out, getenv), args, getenv, l)
	return out.String(), err
}

func (e *environment) mustRun(t *testing.T, command, dir string) string {
	t.Helper()
	out, err := e.run(t.Context(), writeToken, testLimits, command, dir)
	if err != nil {
		t.Fatalf("%s %s: %v", command, dir, err)
	}
	return out
}

// pushURL returns the repository's URL with credentials.
func (e *environment) pushURL() string {
	return "http://x:" + writeToken + "@" + strings.TrimPrefix(e.ServerURL(), "http://") + "/org/sandbox-actions"
}

// push pushes to the repository without the program.
func (e *environment) push(t *testing.T, refspec string) {
	t.Helper()
	sh(t, e.clone, `git push -q "$1" "$2"`, e.pushURL(), refspec)
}

// tag returns the commit of a tag in the repository, or "none" if the tag does not exist.
func (e *environment) tag(t *testing.T, name string) string {
	t.Helper()
	return strings.Fields(sh(t, e.clone, `git ls-remote "$1" "refs/tags/$2"; echo none`, e.pushURL(), name))[0]
}

func (e *environment) release(t *testing.T, version string) *github.RepositoryRelease {
	t.Helper()
	all, _, err := e.api.Repositories.ListReleases(t.Context(), "org", "sandbox-actions", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range all {
		if release.GetTagName() == version {
			return release
		}
	}
	return nil
}

func (e *environment) createDraft(t *testing.T, version string) int64 {
	t.Helper()
	release, _, err := e.api.Repositories.CreateRelease(t.Context(), "org", "sandbox-actions",
		&github.RepositoryRelease{TagName: &version, Draft: github.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	return release.GetID()
}

func (e *environment) deleteAsset(t *testing.T, version, name string) {
	t.Helper()
	for _, asset := range e.release(t, version).Assets {
		if asset.GetName() != name {
			continue
		}
		_, err := e.api.Repositories.DeleteReleaseAsset(t.Context(), "org", "sandbox-actions", asset.GetID())
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (e *environment) uploadAsset(t *testing.T, id int64, name, content string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, _, err = e.api.Repositories.UploadReleaseAsset(t.Context(), "org", "sandbox-actions", id,
		&github.UploadOptions{Name: name}, file)
	if err != nil {
		t.Fatal(err)
	}
}

func (e *environment) replaceAsset(t *testing.T, version, name, content string) {
	t.Helper()
	e.deleteAsset(t, version, name)
	e.uploadAsset(t, e.release(t, version).GetID(), name, content)
}

func TestReleases(t *testing.T) {
	for name, private := range map[string]bool{"public": false, "private": true} {
		t.Run(name, func(t *testing.T) {
			e := setup(t, private)
			branch := sh(t, e.clone, "git rev-parse HEAD")
			for _, step := range []struct {
				version string
				major   string // the version of v1 afterwards
				latest  string // the version of the latest release afterwards
			}{
				{version: "v1.2.0-rc.1", major: "none"},
				{version: "v1.2.0", major: "v1.2.0", latest: "v1.2.0"},
				{version: "v1.10.0", major: "v1.10.0", latest: "v1.10.0"},
				{version: "v1.9.1", major: "v1.10.0", latest: "v1.10.0"},
				{version: "v2.0.0", major: "v1.10.0", latest: "v2.0.0"},
			} {
				sh(t, e.clone, `git commit -q --allow-empty -m "$1"`, step.version)
				e.push(t, "HEAD:main")
				dir, commit := e.makeRelease(t, step.version)
				e.mustRun(t, "publish", dir)
				candidate := strings.Contains(step.version, "-")
				if !candidate {
					e.mustRun(t, "promote", dir)
				} else if _, err := e.run(t.Context(), writeToken, testLimits, "promote", dir); err == nil ||
					err.Error() != "v1.2.0-rc.1 is a release candidate: v1 moves only to releases" {
					t.Errorf("promote %s: %v", dir, err)
				}
				release := e.release(t, step.version)
				if release.GetDraft() || release.GetPrerelease() != candidate || len(release.Assets) != 5 ||
					release.GetBody() != "changelog.md "+step.version+"\n" {
					t.Errorf("%s: %v", step.version, release)
				}
				if got := e.tag(t, step.version); got != commit {
					t.Errorf("tag %s is on %s, want %s", step.version, got, commit)
				}
				if got, want := e.tag(t, "v1"), e.tag(t, step.major); got != want {
					t.Errorf("after %s v1 is on %s, want %s of %s", step.version, got, want, step.major)
				}
				latest, _, _ := e.api.Repositories.GetLatestRelease(t.Context(), "org", "sandbox-actions")
				if latest.GetTagName() != step.latest {
					t.Errorf("the latest release is %s, want %s", latest.GetTagName(), step.latest)
				}
				publicDownloads := 0
				for _, request := range e.Requests() {
					if strings.Contains(request.Path, "/releases/download/") {
						publicDownloads++
						if private || request.HasToken {
							t.Errorf("public download: %+v", request)
						}
					}
				}
				if !private && publicDownloads == 0 {
					t.Error("no public download")
				}

				before := len(e.Requests())
				e.mustRun(t, "publish", dir)
				if !candidate {
					e.mustRun(t, "promote", dir)
				}
				for _, request := range e.Requests()[before:] {
					if request.Method != http.MethodGet && !strings.HasSuffix(request.Path, "/git-upload-pack") {
						t.Errorf("request of the second run: %s %s", request.Method, request.Path)
					}
				}
			}
			if got := sh(t, e.clone, "git rev-parse main~5; git status --porcelain"); got != branch {
				t.Errorf("the clone has changed: %s", got)
			}
		})
	}
}

// The program rejects invalid artifacts and conflicting tags and releases, and does not change them.
func TestConflicts(t *testing.T) {
	e := setup(t, false)
	publishFirst := func(change func(t *testing.T, version string)) func(t *testing.T, dir, version string) {
		return func(t *testing.T, dir, version string) {
			e.mustRun(t, "publish", dir)
			change(t, version)
		}
	}
	for i, test := range []struct {
		name, command string
		before        func(t *testing.T, dir, version string)
		token         string // "": writeToken
		noToken       bool
		status        int    // of the *httpclient.APIError; 0: not one
		want          string // part of the message
	}{
		{name: "no token", command: "publish", noToken: true, want: "missing GITHUB_TOKEN"},
		{name: "invalid token", command: "publish", token: "ghs_old", status: 401, want: "invalid or expired"},
		{name: "read-only token", command: "publish", token: readToken, want: "`contents: write`"},
		{name: "token for another repository", command: "publish", token: otherToken, want: "`contents: write`"},
		{
			name: "commit that is not on the default branch", command: "publish", want: " is not on the branch main (merge it",
			before: func(t *testing.T, _, version string) {
				sh(t, e.clone, `git checkout -q -b unmerged; git commit -q --allow-empty -m unmerged
					git tag -d "$1"; scripts/release-commit.sh "dist/$1"`, version)
				e.push(t, "unmerged")
				sh(t, e.clone, "git checkout -q main; git branch -q -D unmerged")
			},
		},
		{
			name: "release with another file", command: "promote", want: " is not on the branch main (merge it",
			before: publishFirst(func(t *testing.T, version string) {
				sh(t, e.clone, `git checkout -q "$1"; echo >run.sh; git add run.sh; git commit -q --amend --no-edit
					git tag -f "$1"; git checkout -q main`, version)
				e.push(t, "+refs/tags/"+version)
			}),
		},
		{
			name: "changed program", command: "publish", want: "checksum mismatch for action-test-linux-amd64: got ",
			before: func(t *testing.T, dir, _ string) {
				sh(t, e.clone, `echo | gzip >"$1/action-test-linux-amd64.gz"`, dir)
			},
		},
		{
			name: "uncompressed program", command: "publish", want: "unpack action-test-linux-amd64.gz: ",
			before: func(t *testing.T, dir, _ string) {
				sh(t, e.clone, `echo >"$1/action-test-linux-amd64.gz"`, dir)
			},
		},
		{
			name: "truncated program", command: "publish", want: "unpack action-test-linux-amd64.gz: ",
			before: func(t *testing.T, dir, _ string) {
				sh(t, e.clone, `truncate -s -1 "$1/action-test-linux-amd64.gz"`, dir)
			},
		},
		{
			name: "additional file", command: "publish",
			want:   "checksums.txt, core, licenses.tar.gz, sbom.cdx.json instead of ",
			before: func(t *testing.T, dir, _ string) { sh(t, e.clone, `echo >"$1/core"`, dir) },
		},
		{
			name: "invalid line in checksums.txt", command: "publish", want: `invalid line in checksums.txt: "rm -rf /"`,
			before: func(t *testing.T, dir, _ string) { sh(t, e.clone, `echo 'rm -rf /' >>"$1/checksums.txt"`, dir) },
		},
		{
			name: "no program", command: "publish", want: "checksums.txt lists no programs",
			before: func(t *testing.T, dir, _ string) { sh(t, e.clone, `sed -i 1q "$1/checksums.txt"`, dir) },
		},
		{
			name: "no SBOM", command: "publish", want: "checksums.txt, licenses.tar.gz instead of ",
			before: func(t *testing.T, dir, _ string) { sh(t, e.clone, `rm "$1/sbom.cdx.json"`, dir) },
		},
		{name: "unknown command", command: "delete", want: "usage: release publish|promote DIRECTORY"},
		{
			name: "no tag in the clone", command: "publish", want: "run scripts/release-commit.sh dist/",
			before: func(t *testing.T, _, version string) { sh(t, e.clone, `git tag -d "$1"`, version) },
		},
		{
			name: "another tag in the clone", command: "publish", want: "in this clone does not match the release in dist/",
			before: func(t *testing.T, _, version string) { sh(t, e.clone, `git tag -f "$1" main`, version) },
		},
		{
			name: "another tag on GitHub", command: "publish", want: "points to another commit: got ",
			before: func(t *testing.T, _, version string) { e.push(t, "main:refs/tags/"+version) },
		},
		{
			name: "draft with another asset", command: "publish", want: "checksum mismatch for licenses.tar.gz in release v",
			before: func(t *testing.T, _, version string) {
				e.uploadAsset(t, e.createDraft(t, version), "licenses.tar.gz", "other")
			},
		},
		{
			name: "draft with an additional asset", command: "publish",
			want: "checksums.txt, core, licenses.tar.gz, sbom.cdx.json instead of ",
			before: func(t *testing.T, _, version string) {
				e.uploadAsset(t, e.createDraft(t, version), "core", "other")
			},
		},
		{
			name: "two drafts", command: "publish", want: "GitHub has several releases for tag ",
			before: func(t *testing.T, _, version string) {
				e.createDraft(t, version)
				e.createDraft(t, version)
			},
		},
		{
			name: "published release with another asset", command: "publish",
			want: "checksum mismatch for action-build-linux-amd64.gz in release v",
			before: publishFirst(func(t *testing.T, version string) {
				e.replaceAsset(t, version, "action-build-linux-amd64.gz", "other")
			}),
		},
		{name: "promote before publish", command: "promote", want: "publish the release first"},
		{
			name: "promote a draft", command: "promote", want: "is not published on GitHub",
			before: func(t *testing.T, _, version string) {
				e.push(t, version)
				e.createDraft(t, version)
			},
		},
		{
			name: "promote a pre-release", command: "promote", want: "is a pre-release on GitHub",
			before: publishFirst(func(t *testing.T, version string) {
				_, _, err := e.api.Repositories.EditRelease(t.Context(), "org", "sandbox-actions", e.release(t, version).GetID(),
					&github.RepositoryRelease{Prerelease: github.Bool(true)})
				if err != nil {
					t.Fatal(err)
				}
			}),
		},
		{
			name: "promote a release with another asset", command: "promote",
			want:   "checksum mismatch for checksums.txt in release v",
			before: publishFirst(func(t *testing.T, version string) { e.replaceAsset(t, version, "checksums.txt", "other") }),
		},
		{
			name: "promote a release without an asset", command: "promote",
			want: "has the assets action-build-linux-amd64.gz, checksums.txt, ",
			before: publishFirst(func(t *testing.T, version string) {
				e.deleteAsset(t, version, "action-test-linux-amd64.gz")
			}),
		},
		{
			name: "promote a tag that was moved", command: "promote", want: "fetch the commit of v",
			before: publishFirst(func(t *testing.T, version string) { e.push(t, "+main:refs/tags/"+version) }),
		},
		{
			name: "promote over another tag", command: "promote", want: ", which is not a release (move the tag",
			before: publishFirst(func(t *testing.T, version string) {
				e.push(t, "main:refs/tags/"+strings.TrimSuffix(version, ".1.0"))
			}),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			major := fmt.Sprintf("v%d", i+1) // each case uses a different major version
			version := major + ".1.0"
			dir, _ := e.makeRelease(t, version)
			if test.before != nil {
				test.before(t, dir, version)
			}
			before := e.tag(t, major)
			token := writeToken
			if test.token != "" || test.noToken {
				token = test.token
			}
			_, err := e.run(t.Context(), token, testLimits, test.command, dir)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v\nwant %s", err, test.want)
			}
			if got := httpclient.Status(err); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
			if after := e.tag(t, major); after != before {
				t.Errorf("tag %s moved from %s to %s", major, before, after)
			}
		})
	}
}

// The program retries temporary failures of GitHub. Other failures end the command, and the next run continues.
func TestFaults(t *testing.T) {
	e := setup(t, false)
	html := map[string]string{"Content-Type": "text/html"}
	const (
		apiPath      = "/api/v3/"
		uploadPath   = "/api/uploads/"
		downloadPath = "/releases/download/"
		tooLarge     = `{"message":"Validation Failed","errors":[{"code":"custom","field":"size","message":"too\nlarge"}]}`
	)
	for i, test := range []struct {
		name   string
		fault  local.Fault
		op     string // of the *httpclient.APIError; "": the command succeeds
		status int
		hint   string
		want   string // part of the message
	}{
		{name: "the API fails twice", fault: local.Fault{Path: apiPath, Times: 2, Status: 502, Body: "<html>", Header: html}},
		{name: "the API closes two connections", fault: local.Fault{Path: apiPath, Times: 2, Hangup: true}},
		{name: "the API does not respond once", fault: local.Fault{Path: apiPath, Times: 1, NoResponse: true}},
		{name: "git fails twice", fault: local.Fault{Path: "/git-receive-pack", Times: 2, Status: 503}},
		{name: "an upload fails twice", fault: local.Fault{Path: uploadPath, Times: 2, Status: 500}},
		{name: "an upload gets no response once", fault: local.Fault{Path: uploadPath, Times: 1, NoResponse: true}},
		{name: "a download fails twice", fault: local.Fault{Path: downloadPath, Times: 2, Status: 500}},
		{name: "a truncated download, once", fault: local.Fault{Path: local.Objects, Times: 1, Truncate: 4}},
		{name: "an asset appears late", fault: local.Fault{Path: downloadPath, Times: 2, Status: 404}},
		{name: "a rate limit of one second", fault: times(1, local.SecondaryLimit(403, time.Second))},

		{
			name: "the API fails", fault: local.Fault{Path: apiPath, Status: 502, Body: "<html>", Header: html},
			op: "open org/sandbox-actions", status: 502, hint: "https://www.githubstatus.com",
		},
		{
			name: "the API does not respond", fault: local.Fault{Path: apiPath, NoResponse: true},
			op: "open org/sandbox-actions", hint: "check the network", want: "deadline exceeded",
		},
		{
			name: "the API closes connections", fault: local.Fault{Path: apiPath, Hangup: true},
			op: "open org/sandbox-actions", hint: "check the network", want: "EOF",
		},
		{
			name: "web page", fault: local.Fault{Path: apiPath, Status: 200, Body: "<html>", Header: html},
			op: "open org/sandbox-actions", hint: "check GITHUB_API_URL",
		},
		{
			name: "another API", fault: local.Fault{Path: apiPath, Status: 200, Body: "{}"},
			op: "open org/sandbox-actions", hint: "check GITHUB_API_URL",
		},
		{
			name: "unknown repository", fault: local.Fault{Path: apiPath, Status: 404, Body: `{"message":"Not Found"}`},
			op: "open org/sandbox-actions", status: 404, hint: "/org/sandbox-actions exists",
		},
		{
			name: "a rate limit of one hour", fault: local.PrimaryLimit(403, time.Now().Add(time.Hour)),
			op: "open org/sandbox-actions", status: 403, hint: "try again later",
		},
		{
			name: "an upload is rejected", fault: local.Fault{Path: uploadPath, Status: 422, Body: tooLarge},
			op: "upload ", status: 422, hint: "/releases", want: "Validation Failed custom size too large",
		},
		{
			name: "git gets no response", fault: local.Fault{Path: "/info/refs", NoResponse: true},
			op: "push tag ", hint: "check the network", want: "deadline exceeded",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if testing.Short() && test.fault.NoResponse && test.fault.Times == 0 {
				t.Skip("waits for four timeouts; run without -short")
			}
			dir, _ := e.makeRelease(t, fmt.Sprintf("v%d.0.0", i+1))
			e.Fail(test.fault)
			bounds := testLimits
			if test.fault.NoResponse {
				bounds.Request, bounds.Transfer = time.Second, time.Second
			}
			_, err := e.run(t.Context(), writeToken, bounds, "publish", dir)
			e.ClearFaults()
			failed, ok := errors.AsType[*httpclient.APIError](err)
			switch {
			case test.op == "" && err != nil:
				t.Error(err)
			case test.op == "":
			case !ok:
				t.Errorf("%v is not an APIError", err)
			case !strings.HasPrefix(failed.Op, test.op), failed.Status != test.status,
				!strings.Contains(failed.Hint, test.hint), !strings.Contains(err.Error(), test.want),
				strings.Contains(err.Error(), "\n"):
				t.Errorf("%v\n%+v\nwant %+v", err, failed, test)
			}
			e.mustRun(t, "publish", dir)
			e.mustRun(t, "promote", dir)
		})
	}

	for i, test := range []struct {
		name  string
		fault local.Fault
		cause git.Cause
		want  string // part of the message
	}{
		{
			name: "git is forbidden", fault: local.Fault{Path: "/info/refs", Status: 403},
			cause: git.Unauthorized, want: "`contents: write`",
		},
		{
			name: "git fails", fault: local.Fault{Path: "/info/refs", Status: 500},
			cause: git.Network, want: "https://www.githubstatus.com",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, _ := e.makeRelease(t, fmt.Sprintf("v%d.0.0", i+200))
			e.Fail(test.fault)
			_, err := e.run(t.Context(), writeToken, testLimits, "publish", dir)
			e.ClearFaults()
			failed, ok := errors.AsType[*git.Error](err)
			if !ok || failed.Cause != test.cause || !strings.HasPrefix(err.Error(), "push tag v") ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want cause %d and %s", err, test.cause, test.want)
			}
			e.mustRun(t, "publish", dir)
		})
	}

	t.Run("changed download", func(t *testing.T) {
		dir, _ := e.makeRelease(t, "v100.0.0")
		e.Fail(local.Fault{Path: downloadPath + "v100.0.0/action-build-linux-amd64.gz", Status: 200, Body: "changed"})
		_, err := e.run(t.Context(), writeToken, testLimits, "publish", dir)
		e.ClearFaults()
		if want := "checksum mismatch for action-build-linux-amd64.gz in release v100.0.0"; err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	})
}

func times(n int, f local.Fault) local.Fault {
	f.Times = n
	return f
}

// A canceled command leaves a draft, which the next run completes.
func TestCancel(t *testing.T) {
	e := setup(t, false)
	dir, commit := e.makeRelease(t, "v1.0.0")
	e.Fail(local.Fault{Path: "/api/uploads/", NoResponse: true})
	ctx, cancel := context.WithCancel(t.Context())
	isUpload := func(r local.Request) bool { return strings.Contains(r.Path, "/api/uploads/") }
	go func() {
		defer cancel()
		for !slices.ContainsFunc(e.Requests(), isUpload) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := e.run(ctx, writeToken, testLimits, "publish", dir)
	if err == nil || !strings.HasSuffix(err.Error(), ": canceled (run the command again to continue)") {
		t.Errorf("%v", err)
	}
	if !e.release(t, "v1.0.0").GetDraft() {
		t.Error("the release is not a draft")
	}
	e.ClearFaults()
	e.mustRun(t, "publish", dir)
	if e.release(t, "v1.0.0").GetDraft() || e.tag(t, "v1.0.0") != commit {
		t.Error("the next run did not publish the draft")
	}
}

func TestTokenIsNotAnArgument(t *testing.T) {
	e := setup(t, true)
	dir, _ := e.makeRelease(t, "v1.0.0")
	bin, program := t.TempDir(), sh(t, ".", "command -v git")
	record := filepath.Join(bin, "arguments")
	script := "#!/bin/sh\necho \"$@\" >>" + record + "\nexec " + program + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	out := e.mustRun(t, "publish", dir) + e.mustRun(t, "promote", dir)
	arguments, err := os.ReadFile(record)
	if err != nil || !strings.Contains(string(arguments), "push --quiet") {
		t.Fatalf("%v: %s", err, arguments)
	}
	if strings.Contains(string(arguments)+out, writeToken) {
		t.Errorf("the arguments or the output contain the token: %s%s", arguments, out)
	}
}

// Git variables in the environment have no effect.
func TestGitEnvironment(t *testing.T) {
	e := setup(t, true)
	dir, _ := e.makeRelease(t, "v1.0.0")
	t.Setenv("GIT_DIR", t.TempDir())
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "remote.origin.url")
	t.Setenv("GIT_CONFIG_VALUE_0", "https://github.com/evil/evil")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	e.mustRun(t, "publish", dir)
}

func TestReadArtifacts(t *testing.T) {
	for header, valid := range map[string]bool{
		"# https://github.com/org/sandbox-actions v1.2.3 go1.26.8":      true,
		"# https://github.com/org/sandbox-actions v1.2.3-rc.1 go1.26":   true,
		"# http://127.0.0.1:80/org/sandbox.actions v0.0.1 go1.26.8":     true,
		"# https://github.com/org/sandbox-actions v1.2 go1.26.8":        false,
		"# https://github.com/org/sandbox-actions v01.2.3 go1.26.8":     false,
		"# https://github.com/org/sandbox-actions v1.2.3-beta go1.26.8": false,
		"# https://x@github.com/org/sandbox-actions v1.2.3 go1.26.8":    false,
		"# https://github.com/org/sandbox-actions/x v1.2.3 go1.26.8":    false,
		"": false,
	} {
		dir := t.TempDir()
		sh(t, dir, `echo x >action-build-linux-amd64; (echo "$1"; sha256sum action-*) >checksums.txt; gzip action-*
			touch sbom.cdx.json licenses.tar.gz changelog.md`, header)
		a, err := readArtifacts(dir)
		if (err == nil) != valid {
			t.Errorf("%s: %v", header, err)
		}
		want := []string{"action-build-linux-amd64.gz", "checksums.txt", "licenses.tar.gz", "sbom.cdx.json"}
		if got := slices.Sorted(maps.Keys(a.sums)); valid && !slices.Equal(got, want) {
			t.Errorf("%s: %v", header, got)
		}
	}
}

func TestNewPublisher(t *testing.T) {
	log := runner.New(io.Discard, io.Discard, func(string) string { return "" })
	for _, test := range []struct{ server, apiURL, want string }{
		{server: "https://github.com", want: "https://api.github.com/"},
		{server: "https://github.example.com", want: "https://github.example.com/api/v3/"},
		{server: "https://github.com", apiURL: "https://proxy.example.com/x", want: "https://proxy.example.com/x/"},
	} {
		p, err := newPublisher(artifacts{server: test.server}, test.apiURL, "token", limits{}, log)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.api.BaseURL.String(); got != test.want {
			t.Errorf("API URL of %s is %s, want %s", test.server, got, test.want)
		}
		if want := (limits{Request: 30 * time.Second, Transfer: 5 * time.Minute, MinWait: time.Second}); p.limits != want {
			t.Errorf("%+v", p.limits)
		}
	}
	if _, err := newPublisher(artifacts{server: "https://github.com"}, "github", "token", limits{}, log); err == nil {
		t.Error("newPublisher accepts a GITHUB_API_URL without a host")
	}
}
