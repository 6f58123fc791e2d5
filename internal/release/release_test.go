package main

import (
	"bytes"
	"context"
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
	"github.com/org/sandbox-actions/pkg/runner"
)

// world is a GitHub with the repository org/sandbox-actions, and a clone of it, which is the current folder.
type world struct {
	*local.Server
	clone string
	api   *github.Client // may write
}

const (
	writes = "ghs_writes"
	reads  = "ghs_reads"
)

func start(t *testing.T, private bool) *world {
	t.Helper()
	firstWait = 10 * time.Millisecond
	dir := t.TempDir()
	script, err := filepath.Abs("../../scripts/release-commit.sh")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{clone: filepath.Join(dir, "clone")}
	sh(t, dir, `git init -q -b main clone; mkdir clone/scripts; cp "$1" clone/scripts/; echo dist >clone/.gitignore
		git -C clone add .; git -C clone commit -qm first; git clone -q --bare clone hub`, script)
	write := map[string]string{"contents": "write"}
	w.Server, err = local.Start(t.Context(), local.Options{
		Repositories: []local.Repository{{Owner: "org", Name: "sandbox-actions", Dir: filepath.Join(dir, "hub"), Private: private}},
		Tokens:       []string{reads},
		JobTokens: []local.Token{
			{Value: writes, Repository: "org/sandbox-actions", Permissions: write}, {Value: "ghs_other", Repository: "org/other", Permissions: write},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	w.api = github.NewClient(nil).WithAuthToken(writes)
	w.api.BaseURL, _ = w.api.BaseURL.Parse(w.APIURL() + "/")
	w.api.UploadURL, _ = w.api.BaseURL.Parse(w.UploadURL() + "/")
	t.Chdir(w.clone)
	return w
}

// sh runs a script as somebody whose settings change nothing, and returns what it says.
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

// make makes a release of HEAD, of small programs, and returns its folder and its commit.
func (w *world) make(t *testing.T, version string) (folder, commit string) {
	t.Helper()
	folder = "dist/" + version
	commit = sh(t, w.clone, `mkdir -p "$1"; cd "$1"
		for program in build test; do echo "$program $2" >action-$program-linux-amd64; done
		(echo "# $3/org/sandbox-actions $2 go1.26.8"; sha256sum action-*) >checksums.txt
		for other in sbom.cdx.json licenses.tar.gz changelog.md; do echo "$other $2" >$other; done
		cd ../..; scripts/release-commit.sh "$1"`, folder, version, w.ServerURL())
	return folder, commit
}

// run does what the program does, and returns what it says.
func (w *world) run(ctx context.Context, token string, args ...string) (string, error) {
	var out bytes.Buffer
	env := map[string]string{"GITHUB_TOKEN": token, "GITHUB_API_URL": w.APIURL()}
	getenv := func(name string) string { return env[name] }
	err := run(ctx, runner.New(&out, &out, getenv), args, getenv)
	return out.String(), err
}

func (w *world) must(t *testing.T, command, folder string) string {
	t.Helper()
	out, err := w.run(t.Context(), writes, command, folder)
	if err != nil {
		t.Fatalf("%s %s: %v", command, folder, err)
	}
	return out
}

// tag is the commit that GitHub has for a tag.
func (w *world) tag(t *testing.T, name string) string {
	t.Helper()
	return strings.Fields(sh(t, w.clone, `git ls-remote "$1/org/sandbox-actions" "refs/tags/$2"; echo none`, "http://x:"+writes+"@"+strings.TrimPrefix(w.ServerURL(), "http://"), name))[0]
}

func (w *world) release(t *testing.T, version string) *github.RepositoryRelease {
	t.Helper()
	all, _, err := w.api.Repositories.ListReleases(t.Context(), "org", "sandbox-actions", nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(r *github.RepositoryRelease) bool { return r.GetTagName() == version })
	if i < 0 {
		return nil
	}
	return all[i]
}

// replace puts other bytes in an asset's place.
func (w *world) replace(t *testing.T, version, name, content string) {
	t.Helper()
	release := w.release(t, version)
	for _, asset := range release.Assets {
		if asset.GetName() == name {
			if _, err := w.api.Repositories.DeleteReleaseAsset(t.Context(), "org", "sandbox-actions", asset.GetID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.attach(t, release.GetID(), name, content)
}

func (w *world) attach(t *testing.T, id int64, name, content string) {
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
	if _, _, err := w.api.Repositories.UploadReleaseAsset(t.Context(), "org", "sandbox-actions", id, &github.UploadOptions{Name: name}, file); err != nil {
		t.Fatal(err)
	}
}

func TestReleases(t *testing.T) {
	for name, private := range map[string]bool{"public": false, "private": true} {
		t.Run(name, func(t *testing.T) {
			w := start(t, private)
			branch := sh(t, w.clone, "git rev-parse HEAD")
			for _, step := range []struct {
				version, v1 string // v1: the version that it names afterwards
				latest      string
				refused     string // what promote says
			}{
				{version: "v1.2.0-rc.1", v1: "none", refused: "v1.2.0-rc.1 is a candidate: v1 names what everybody uses, and is moved to a release only"},
				{version: "v1.2.0", v1: "v1.2.0", latest: "v1.2.0"},
				{version: "v1.10.0", v1: "v1.10.0", latest: "v1.10.0"},
				{version: "v1.9.1", v1: "v1.10.0", latest: "v1.10.0"},
				{version: "v2.0.0", v1: "v1.10.0", latest: "v2.0.0"},
			} {
				sh(t, w.clone, `git commit -q --allow-empty -m "$1"`, step.version)
				folder, commit := w.make(t, step.version)
				w.must(t, "publish", folder)
				if step.refused != "" {
					if _, err := w.run(t.Context(), writes, "promote", folder); err == nil || err.Error() != step.refused {
						t.Errorf("promote %s: %v, want %s", folder, err, step.refused)
					}
				} else {
					w.must(t, "promote", folder)
				}
				release := w.release(t, step.version)
				if release.GetDraft() || release.GetPrerelease() != strings.Contains(step.version, "-") || release.GetBody() != "changelog.md "+step.version+"\n" || len(release.Assets) != 5 {
					t.Errorf("%s: %v", step.version, release)
				}
				if got := w.tag(t, step.version); got != commit {
					t.Errorf("the tag %s is on %s, want %s", step.version, got, commit)
				}
				if got, want := w.tag(t, "v1"), w.tag(t, step.v1); got != want {
					t.Errorf("after %s v1 is on %s, want %s, %s", step.version, got, step.v1, want)
				}
				if latest, _, _ := w.api.Repositories.GetLatestRelease(t.Context(), "org", "sandbox-actions"); latest.GetTagName() != step.latest {
					t.Errorf("the latest is %s, want %s", latest.GetTagName(), step.latest)
				}
				for _, request := range w.Requests() {
					if strings.Contains(request.Path, "/releases/download/") && (private || request.HasToken) {
						t.Errorf("a stranger's download of a private repository, or one with a token: %+v", request)
					}
				}

				before := len(w.Requests())
				w.must(t, "publish", folder)
				if step.refused == "" {
					w.must(t, "promote", folder)
				}
				for _, request := range w.Requests()[before:] {
					if request.Method != http.MethodGet && !strings.HasSuffix(request.Path, "/git-upload-pack") {
						t.Errorf("the second time it asks for %s %s", request.Method, request.Path)
					}
				}
			}
			if got := sh(t, w.clone, "git rev-parse main~5; git status --porcelain"); got != branch {
				t.Errorf("the clone is not as it was: %s", got)
			}
		})
	}
}

// Each of these was not made by us, and stays as it is.
func TestRefusals(t *testing.T) {
	w := start(t, false)
	// The first number of a version is the case's own: each has a major tag for itself.
	version := func(i int) string { return fmt.Sprintf("v%d.1.0", i+1) }
	for i, test := range []struct {
		name, command string
		before        func(t *testing.T, folder, version string)
		token         string // "" for one that may write
		want          string // part of the sentence
	}{
		{name: "no token", command: "publish", token: "none", want: "there is no GITHUB_TOKEN: set it to a token that has contents: write"},
		{
			name: "a token that nobody knows", command: "publish", token: "ghs_old",
			want: "enter org/sandbox-actions: GitHub does not know GITHUB_TOKEN, or no longer: give one that has not expired",
		},
		{name: "a token that only reads", command: "publish", token: reads, want: "may not do that in org/sandbox-actions"},
		{name: "a token of another repository", command: "publish", token: "ghs_other", want: "may not do that in org/sandbox-actions"},
		{name: "a program that was changed", command: "publish", want: "action-test-linux-amd64 is not the program that checksums.txt names", before: func(t *testing.T, folder, _ string) {
			sh(t, w.clone, `echo >>"$1/action-test-linux-amd64"`, folder)
		}},
		{name: "a file too many", command: "publish", want: "checksums.txt, core, licenses.tar.gz, sbom.cdx.json, and not ", before: func(t *testing.T, folder, _ string) {
			sh(t, w.clone, `echo >"$1/core"`, folder)
		}},
		{name: "a line of another's", command: "publish", want: `checksums.txt holds the line "rm -rf /"`, before: func(t *testing.T, folder, _ string) {
			sh(t, w.clone, `echo 'rm -rf /' >>"$1/checksums.txt"`, folder)
		}},
		{name: "no list of parts", command: "publish", want: "checksums.txt, licenses.tar.gz, and not ", before: func(t *testing.T, folder, _ string) {
			sh(t, w.clone, `rm "$1/sbom.cdx.json"`, folder)
		}},
		{name: "another command", command: "delete", want: "usage: release publish|promote FOLDER"},
		{name: "no tag here", command: "publish", want: "run scripts/release-commit.sh dist/", before: func(t *testing.T, _, version string) {
			sh(t, w.clone, `git tag -d "$1"`, version)
		}},
		{name: "another tag here", command: "publish", want: "of this clone is not the commit of dist/", before: func(t *testing.T, _, version string) {
			sh(t, w.clone, `git tag -f "$1" main`, version)
		}},
		{name: "another tag at GitHub", command: "publish", want: "on another commit, ", before: func(t *testing.T, _, version string) {
			w.push(t, "main:refs/tags/"+version)
		}},
		{name: "a draft with another asset", command: "publish", want: "at GitHub has the SHA-256 ", before: func(t *testing.T, _, version string) {
			w.attach(t, w.draft(t, version), "licenses.tar.gz", "other")
		}},
		{name: "a draft with an asset too many", command: "publish", want: "checksums.txt, core, licenses.tar.gz, sbom.cdx.json, and not ", before: func(t *testing.T, _, version string) {
			w.attach(t, w.draft(t, version), "core", "other")
		}},
		{name: "two drafts", command: "publish", want: "GitHub has several releases of ", before: func(t *testing.T, _, version string) {
			w.draft(t, version)
			w.draft(t, version)
		}},
		{name: "a published release with another asset", command: "publish", want: "action-build-linux-amd64 of v", before: func(t *testing.T, folder, version string) {
			w.must(t, "publish", folder)
			w.replace(t, version, "action-build-linux-amd64", "other")
		}},
		{name: "promote: never published", command: "promote", want: "publish it first"},
		{name: "promote: a draft", command: "promote", want: "publish it first", before: func(t *testing.T, folder, version string) {
			w.push(t, version)
			w.draft(t, version)
		}},
		{name: "promote: a pre-release", command: "promote", want: "is a pre-release: say there that it is none", before: func(t *testing.T, folder, version string) {
			w.must(t, "publish", folder)
			if _, _, err := w.api.Repositories.EditRelease(t.Context(), "org", "sandbox-actions", w.release(t, version).GetID(), &github.RepositoryRelease{Prerelease: github.Bool(true)}); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "promote: an asset with another byte", command: "promote", want: "checksums.txt of v", before: func(t *testing.T, folder, version string) {
			w.must(t, "publish", folder)
			w.replace(t, version, "checksums.txt", "other")
		}},
		{name: "promote: an asset is gone", command: "promote", want: "has the assets action-build-linux-amd64, checksums.txt, ", before: func(t *testing.T, folder, version string) {
			w.must(t, "publish", folder)
			for _, asset := range w.release(t, version).Assets {
				if asset.GetName() == "action-test-linux-amd64" {
					if _, err := w.api.Repositories.DeleteReleaseAsset(t.Context(), "org", "sandbox-actions", asset.GetID()); err != nil {
						t.Fatal(err)
					}
				}
			}
		}},
		{name: "promote: the tag has been moved", command: "promote", want: "find the commit of v", before: func(t *testing.T, folder, version string) {
			w.must(t, "publish", folder)
			w.push(t, "+main:refs/tags/"+version)
		}},
		{name: "promote: what it would move is on no release", command: "promote", want: ", which is no release: move it to one by hand, or delete it", before: func(t *testing.T, folder, version string) {
			w.must(t, "publish", folder)
			w.push(t, "main:refs/tags/"+strings.TrimSuffix(version, ".1.0"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			version := version(i)
			major := strings.TrimSuffix(version, ".1.0")
			folder, _ := w.make(t, version)
			if test.before != nil {
				test.before(t, folder, version)
			}
			before := w.tag(t, major)
			token := map[string]string{"": writes, "none": ""}[test.token]
			if token == "" && test.token != "none" {
				token = test.token
			}
			_, err := w.run(t.Context(), token, test.command, folder)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v\nwant %s", err, test.want)
			}
			if after := w.tag(t, major); after != before {
				t.Errorf("%s was on %s and is on %s", major, before, after)
			}
		})
	}
}

// push changes GitHub behind our back.
func (w *world) push(t *testing.T, refspec string) {
	t.Helper()
	sh(t, w.clone, `git push -q "$1/org/sandbox-actions" "$2"`, "http://x:"+writes+"@"+strings.TrimPrefix(w.ServerURL(), "http://"), refspec)
}

func (w *world) draft(t *testing.T, version string) int64 {
	t.Helper()
	release, _, err := w.api.Repositories.CreateRelease(t.Context(), "org", "sandbox-actions", &github.RepositoryRelease{TagName: &version, Draft: github.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	return release.GetID()
}

// What GitHub may answer instead. A failure that passes is not seen; another one is one sentence, and the next run goes on from there.
func TestFaults(t *testing.T) {
	w := start(t, false)
	html := map[string]string{"Content-Type": "text/html"}
	for i, test := range []struct {
		name   string
		faults []local.Fault
		want   string // "" when it passes
	}{
		{name: "the API fails twice", faults: []local.Fault{{Path: "/api/v3/", Times: 2, Status: 502, Body: "<html>", Header: html}}},
		{name: "the API hangs up twice", faults: []local.Fault{{Path: "/api/v3/", Times: 2, Hangup: true}}},
		{name: "no answer once", faults: []local.Fault{{Path: "/api/v3/", Times: 1, Silence: true}}},
		{name: "git fails twice", faults: []local.Fault{{Path: "/git-receive-pack", Times: 2, Status: 503}}},
		{name: "an upload fails twice", faults: []local.Fault{{Path: "/api/uploads/", Times: 2, Status: 500}}},
		{name: "an upload hangs", faults: []local.Fault{{Path: "/api/uploads/", Times: 1, Silence: true}}},
		{name: "a download fails twice", faults: []local.Fault{{Path: "/releases/download/", Times: 2, Status: 500}}},
		{name: "an asset is shown late", faults: []local.Fault{{Path: "/releases/download/", Times: 2, Status: 404}}},
		{name: "asked to wait a second", faults: []local.Fault{once(local.SecondaryLimit(403, time.Second))}},

		{
			name: "the API fails", faults: []local.Fault{{Path: "/api/v3/", Status: 502, Body: "<html>", Header: html}},
			want: "enter org/sandbox-actions: GitHub failed 4 times (502): try again later (https://www.githubstatus.com)",
		},
		{
			name: "the API is silent", faults: []local.Fault{{Path: "/api/v3/", Silence: true}},
			want: "enter org/sandbox-actions: GitHub did not answer in time, 4 times: see that ",
		},
		{name: "the API hangs up", faults: []local.Fault{{Path: "/api/v3/", Hangup: true}}, want: "the connection to GitHub failed 4 times ("},
		{
			name: "what answers is no API", faults: []local.Fault{{Path: "/api/v3/", Status: 200, Body: "<html>", Header: html}},
			want: "is not GitHub's API (invalid character '<' looking for beginning of value): see that GITHUB_API_URL is right",
		},
		{
			name: "what answers is an API of another kind", faults: []local.Fault{{Path: "/api/v3/", Status: 200, Body: "{}"}},
			want: "is not GitHub's API (an answer that makes no sense): see that GITHUB_API_URL is right",
		},
		{
			name: "the repository is gone", faults: []local.Fault{{Path: "/api/v3/", Status: 404}},
			want: "enter org/sandbox-actions: GitHub has none, or does not show it to GITHUB_TOKEN: see that ",
		},
		{
			name: "the requests of an hour are used up", faults: []local.Fault{local.PrimaryLimit(403, time.Now().Add(time.Hour))},
			want: "enter org/sandbox-actions: GitHub asks to slow down (",
		},
		{
			name: "an upload is refused", faults: []local.Fault{{Path: "/api/uploads/", Status: 422, Body: `{"message":"Validation Failed","errors":[{"code":"custom","field":"size","message":"too\nlarge"}]}`}},
			want: ": GitHub refuses it (Validation Failed custom size too␊large): see what ",
		},
		{
			name: "git is silent", faults: []local.Fault{{Path: "/info/refs", Silence: true}},
			want: "push the tag v18.0.0: GitHub did not answer in time, 4 times: see that ",
		},
		{
			name: "git is forbidden", faults: []local.Fault{{Path: "/git-receive-pack", Status: 403}},
			want: "push the tag v19.0.0: GITHUB_TOKEN may not do that in org/sandbox-actions (",
		},
		{name: "git fails", faults: []local.Fault{{Path: "/info/refs", Status: 500}}, want: "push the tag v20.0.0: GitHub failed 4 times (500): "},
		{
			name: "a byte is flipped on the way to strangers", faults: []local.Fault{{Path: "/releases/download/v21.0.0/action-build-linux-amd64", Status: 200, Body: "flipped"}},
			want: "action-build-linux-amd64 of v21.0.0 at GitHub has the SHA-256 ",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			version := fmt.Sprintf("v%d.0.0", i+1)
			folder, _ := w.make(t, version)
			for _, fault := range test.faults {
				w.Fail(fault)
			}
			made, err := open(folder)
			if err != nil {
				t.Fatal(err)
			}
			at, err := connect(made, w.APIURL(), writes, runner.New(io.Discard, io.Discard, func(string) string { return "" }))
			if err != nil {
				t.Fatal(err)
			}
			at.requests, at.transfers = time.Second, time.Second
			err = at.publish(t.Context())
			w.Heal()
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("%v\nwant %s", err, test.want)
			}
			w.must(t, "publish", folder)
			w.must(t, "promote", folder)
		})
	}
}

func once(f local.Fault) local.Fault {
	f.Times = 1
	return f
}

// Ctrl-C leaves a draft, which the next run finishes.
func TestCanceled(t *testing.T) {
	w := start(t, false)
	folder, commit := w.make(t, "v1.0.0")
	w.Fail(local.Fault{Path: "/api/uploads/", Silence: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for !slices.ContainsFunc(w.Requests(), func(r local.Request) bool { return strings.Contains(r.Path, "/api/uploads/") }) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}()
	began := time.Now()
	_, err := w.run(ctx, writes, "publish", folder)
	if err == nil || !strings.HasSuffix(err.Error(), ": it was canceled: run it again, and it goes on from there") || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if !w.release(t, "v1.0.0").GetDraft() {
		t.Error("no draft is left")
	}
	w.Heal()
	w.must(t, "publish", folder)
	if w.release(t, "v1.0.0").GetDraft() || w.tag(t, "v1.0.0") != commit {
		t.Error("the next run did not finish it")
	}
}

// The token is in no argument of git's, and git is asked for no more than it must.
func TestTokenIsNoArgument(t *testing.T) {
	w := start(t, true)
	folder, _ := w.make(t, "v1.0.0")
	bin, real := t.TempDir(), sh(t, ".", "command -v git")
	seen := filepath.Join(bin, "seen")
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho \"$@\" >>"+seen+"\nexec "+real+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	said := w.must(t, "publish", folder) + w.must(t, "promote", folder)
	arguments, err := os.ReadFile(seen)
	if err != nil || !strings.Contains(string(arguments), "push --quiet") {
		t.Fatalf("%v: %s", err, arguments)
	}
	if strings.Contains(string(arguments)+said, writes) {
		t.Errorf("the token is there: %s%s", arguments, said)
	}
}

func TestVersionsOfFolders(t *testing.T) {
	for line, ok := range map[string]bool{
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
		sh(t, dir, `echo x >action-build-linux-amd64; (echo "$1"; sha256sum action-*) >checksums.txt; touch sbom.cdx.json licenses.tar.gz changelog.md`, line)
		f, err := open(dir)
		if (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
		if ok && !maps.Equal(map[string]bool{"action-build-linux-amd64": true, "checksums.txt": true, "sbom.cdx.json": true, "licenses.tar.gz": true}, keys(f.sums)) {
			t.Errorf("%s: %v", line, f.sums)
		}
	}
}

func keys(m map[string]string) map[string]bool {
	all := map[string]bool{}
	for name := range m {
		all[name] = true
	}
	return all
}
