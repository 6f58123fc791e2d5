//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// releaseRepository is a repository on the local cloud's GitHub with the files of this checkout. Tests run its release
// workflow.
type releaseRepository struct {
	*environment
	dir   string // clone
	token string // token with write access
	env   map[string]string
}

const released = "acme/released"

func (e *environment) releaseRepository(t *testing.T) *releaseRepository {
	t.Helper()
	r := &releaseRepository{
		environment: e,
		dir:         filepath.Join(t.TempDir(), "clone"),
		token:       "ghs_releases",
		env:         values{"ARTIFACTS": t.TempDir()},
	}
	hub := filepath.Join(t.TempDir(), "hub")
	git(t, ".", "clone", "--quiet", "--no-tags", e.ours, r.dir) // other tests create release tags
	git(t, r.dir, "clone", "--quiet", "--bare", r.dir, hub)
	git(t, r.dir, "remote", "set-url", "origin", "https://github.com/"+released)
	owner, name, _ := strings.Cut(released, "/")
	e.GitHub.Change(func(o *github.Options) {
		o.Repositories = append(o.Repositories, github.Repository{Owner: owner, Name: name, Dir: hub})
		o.JobTokens = append(o.JobTokens, github.Token{
			Value:       r.token,
			Repository:  released,
			Permissions: values{"contents": "write", "attestations": "write"},
		})
	})
	return r
}

// workflow returns a run of the release workflow.
func (r *releaseRepository) workflow(version string) actRun {
	return actRun{
		dir:      r.dir,
		workflow: "release.yml",
		inputs:   values{"version": version},
		token:    r.token,
		env:      r.env,
		withGo:   true,
	}
}

// tags returns the repository's tags with their commits.
func (r *releaseRepository) tags(t *testing.T) map[string]string {
	t.Helper()
	tags := values{}
	for line := range strings.Lines(git(t, ".", "ls-remote", "--tags", r.GitHub.ServerURL()+"/"+released)) {
		sha, name, _ := strings.Cut(strings.TrimSpace(line), "\trefs/tags/")
		tags[name] = sha
	}
	return tags
}

// get requests a path of GitHub's API below the repository and decodes the response.
func (r *releaseRepository) get(t *testing.T, path string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.download(t, r.GitHub.APIURL()+"/repos/"+released+path)), into); err != nil {
		t.Fatal(err)
	}
}

func (r *releaseRepository) download(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", address, response.Status, err)
	}
	return string(body)
}

type release struct {
	ID         int64
	Body       string
	Prerelease bool
	Assets     []struct {
		ID     int64
		Name   string
		URL    string `json:"browser_download_url"`
		Digest string
	}
}

// The release workflow publishes a release and moves v1 to it. Its second run succeeds only if it builds identical
// programs in another directory, because the release commit contains their checksums.
func TestRelease(t *testing.T) {
	r := setup(t).releaseRepository(t)
	r.env["RELEASE_PLATFORMS"] = "linux/amd64"
	head := git(t, r.dir, "rev-parse", "HEAD")

	// If a download differs from the built file, the workflow fails before it moves v1.
	const changed = "action-test-linux-amd64.gz"
	const download = "/releases/download/v1.2.0/" + changed
	r.GitHub.Fail(github.Fault{Path: download, Status: http.StatusOK, Body: "changed"})
	log, ok := r.act(t, r.workflow("v1.2.0"))
	r.GitHub.ClearFaults()
	downloaded := func(request github.Request) bool { return strings.HasSuffix(request.Path, download) }
	if ok || !slices.ContainsFunc(r.GitHub.Requests(), downloaded) {
		t.Fatalf("the workflow accepted a changed download: %s", log)
	}
	tags := r.tags(t)
	commit := tags["v1.2.0"]
	if !maps.Equal(tags, values{"v1.2.0": commit}) {
		t.Errorf("tags after the failure: %v", tags)
	}
	var interrupted, completed release
	r.get(t, "/releases/tags/v1.2.0", &interrupted)

	// The next run keeps the published tag, release and assets.
	if log, ok = r.act(t, r.workflow("v1.2.0")); !ok {
		t.Fatal(log)
	}
	if tags := r.tags(t); !maps.Equal(tags, values{"v1.2.0": commit, "v1": commit}) {
		t.Errorf("tags: %v, want v1 and v1.2.0 on %s", tags, commit)
	}
	r.get(t, "/releases/tags/v1.2.0", &completed)
	if completed.ID != interrupted.ID || !slices.Equal(completed.Assets, interrupted.Assets) {
		t.Errorf("the second run changed the release: before %v, after %v", interrupted, completed)
	}
	for _, want := range []string{"The first release.", "- release (" + head[:12] + ")", "`@" + commit + " # v1.2.0`"} {
		if !strings.Contains(completed.Body, want) {
			t.Errorf("the changelog does not contain %q: %s", want, completed.Body)
		}
	}
	assets := values{}
	for _, asset := range completed.Assets {
		assets[asset.Name] = r.download(t, asset.URL)
	}
	if got, want := slices.Sorted(maps.Keys(assets)), []string{
		"action-build-linux-amd64.gz", "action-snapshot-linux-amd64.gz", "action-test-linux-amd64.gz",
		"checksums.txt", "licenses.tar.gz", "sbom.cdx.json",
	}; !slices.Equal(got, want) {
		t.Fatalf("assets are %q, want %q", got, want)
	}
	for _, program := range []string{"action-build", "action-snapshot", "action-test"} {
		address := r.GitHub.ServerURL() + "/" + released + "/releases/download/v1.2.0/" + program + "-linux-amd64.gz"
		if !strings.Contains(log, program+" v1.2.0 from "+address) {
			t.Errorf("the workflow did not run the released %s: %s", program, log)
		}
		name := program + "-linux-amd64"
		sum := sumUnpacked(t, assets[name+".gz"])
		if !strings.Contains(assets["checksums.txt"], sum+"  "+name+"\n") {
			t.Errorf("checksums.txt does not contain %s for %s: %s", sum, name, assets["checksums.txt"])
		}
		r.checkAttestations(t, sum, name)
	}

	t.Run("release commit", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "clone")
		git(t, ".", "clone", "--quiet", "--branch=v1.2.0", r.GitHub.ServerURL()+"/"+released, dir)
		if got := git(t, dir, "diff", "--name-status", head, commit); got != "A\tactions/checksums.txt" {
			t.Errorf("the release commit changes %s", got)
		}
		got := git(t, dir, "show", commit+":actions/checksums.txt")
		if want := strings.TrimSpace(assets["checksums.txt"]); got != want {
			t.Errorf("checksums.txt in the release commit is %s, want %s", got, want)
		}
		// A step that cannot download the program builds it, and runs it only if its checksum matches.
		r.GitHub.Fail(github.Fault{Path: "/releases/download/", Status: http.StatusNotFound})
		defer r.GitHub.ClearFaults()
		command := exec.Command("sh", "actions/run.sh", "build", "--version")
		command.Dir = dir
		command.Env = append(os.Environ(), "GITHUB_SERVER_URL="+r.GitHub.ServerURL(), "RUNNER_TOOL_CACHE=")
		out, err := command.CombinedOutput()
		if err != nil || !strings.Contains(string(out), " returned 404: ") ||
			!strings.HasSuffix(string(out), "\naction-build v1.2.0\n") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// sumUnpacked returns the SHA-256 of the content of gzip data.
func sumUnpacked(t *testing.T, packed string) string {
	t.Helper()
	unpacked, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, unpacked); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// scripts/release.sh validates the version and the checkout before it builds, and reports one error.
func TestReleaseErrors(t *testing.T) {
	r := setup(t).releaseRepository(t)
	for _, test := range []struct {
		name, version string
		before        string // script to run in the clone; if it is set, the version is v1.2.3
		want          string
	}{
		{name: "no version", want: `VERSION=v1.2.3`},
		{name: "version without v", version: "1.2.3", want: `"1.2.3"`},
		{name: "version with a leading zero", version: "v1.02.3", want: `"v1.02.3"`},
		{name: "unsupported pre-release", version: "v1.2.3-beta", want: `"v1.2.3-beta"`},
		{name: "version that contains a command", version: "v1.2.3;id", want: `"v1.2.3;id"`},
		{name: "changed file", before: "echo >>README.md", want: "git status"},
		{name: "new file", before: "echo >new.go", want: "git status"},
		{name: "tag on another commit", before: "git tag v1.2.3", want: "v1.2.3 .*another commit"},
		{name: "release commit", before: "touch actions/checksums.txt; git add .; git commit -qm release",
			want: `HEAD\^`},
		{name: "shallow clone", before: "git fetch -q --depth=1 . HEAD; git rev-parse HEAD >.git/shallow",
			want: "git fetch --unshallow"},
		{name: "another Go version",
			before: `mkdir ../bin; printf '#!/bin/sh\necho go1.99.1\n' >../bin/go; chmod +x ../bin/go`,
			want:   `go[0-9.]+ .*https://go.dev/dl`},
		{name: "remote not on GitHub", before: "git remote set-url origin /srv/git",
			want: "GITHUB_REPOSITORY=OWNER/NAME"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "clone")
			git(t, ".", "clone", "--quiet", r.dir, dir)
			version := test.version
			if test.before != "" {
				version = "v1.2.3"
				prepare := exec.Command("bash", "-euc", test.before)
				prepare.Dir = dir
				prepare.Env = append(
					os.Environ(),
					"GIT_AUTHOR_NAME=a",
					"GIT_AUTHOR_EMAIL=a@example.com",
					"GIT_COMMITTER_NAME=a",
					"GIT_COMMITTER_EMAIL=a@example.com",
				)
				if out, err := prepare.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			command := exec.Command("scripts/release.sh", version)
			command.Dir = dir
			command.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "../bin")+":"+os.Getenv("PATH"), "GITHUB_REPOSITORY=")
			out, err := command.CombinedOutput()
			if err == nil || !regexp.MustCompile("^release: .*"+test.want).Match(out) || bytes.Count(out, []byte("\n")) != 1 {
				t.Errorf("%v: %s\nwant %s", err, out, test.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "dist")); err == nil {
				t.Error("release.sh created dist")
			}
		})
	}
}

// --version of an unreleased program reports that it was built from source.
func TestVersion(t *testing.T) {
	e := setup(t)
	for _, program := range []string{"action-build", "action-snapshot", "action-test"} {
		got := e.run(t, invocation{program: program, args: []string{"--version"}}).stdout
		if want := program + " (built from source)\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// checkAttestations checks that GitHub has a provenance and an SBOM attestation of a program, which
// `gh attestation verify` reads.
func (r *releaseRepository) checkAttestations(t *testing.T, sum, name string) {
	t.Helper()
	var stored struct {
		Attestations []struct {
			Bundle struct {
				DSSEEnvelope struct{ Payload []byte } `json:"dsseEnvelope"`
			}
		}
	}
	r.get(t, "/attestations/sha256:"+sum, &stored)
	var types []string
	for _, attestation := range stored.Attestations {
		var statement struct {
			PredicateType string
			Subject       []struct {
				Name   string
				Digest map[string]string
			}
			Predicate map[string]any
		}
		if err := json.Unmarshal(attestation.Bundle.DSSEEnvelope.Payload, &statement); err != nil {
			t.Fatal(err)
		}
		for _, subject := range statement.Subject {
			if subject.Name == name && subject.Digest["sha256"] == sum {
				types = append(types, statement.PredicateType)
			}
		}
		if statement.PredicateType == "https://slsa.dev/provenance/v1" && statement.Predicate["aud"] != "sigstore" {
			t.Errorf("the provenance of %s does not contain the job's identity: %v", name, statement.Predicate)
		}
	}
	slices.Sort(types)
	types = slices.Compact(types) // each run of the workflow adds one of each type
	if !slices.Equal(types, []string{"https://cyclonedx.org/bom", "https://slsa.dev/provenance/v1"}) {
		t.Errorf("%s has the attestations %v", name, types)
	}
}
