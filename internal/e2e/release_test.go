//go:build linux

package e2e

import (
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

// releases is a repository at the cloud's GitHub that has our files as they are, and makes releases of them.
type releaseRepository struct {
	*environment
	dir   string // its clone
	token string // may write to it
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
	git(t, ".", "clone", "--quiet", "--no-tags", e.ours, r.dir) // other tests have releases of their own
	git(t, r.dir, "clone", "--quiet", "--bare", r.dir, hub)
	git(t, r.dir, "remote", "set-url", "origin", "https://github.com/"+released)
	owner, name, _ := strings.Cut(released, "/")
	e.GitHub.Change(func(o *github.Options) {
		o.Repositories = append(o.Repositories, github.Repository{Owner: owner, Name: name, Dir: hub})
		o.JobTokens = append(
			o.JobTokens,
			github.Token{
				Value:       r.token,
				Repository:  released,
				Permissions: values{"contents": "write", "attestations": "write"},
			},
		)
	})
	return r
}

// workflow is the one that makes a release.
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

// tags are those that GitHub has, with their commits.
func (r *releaseRepository) tags(t *testing.T) map[string]string {
	t.Helper()
	tags := values{}
	for line := range strings.Lines(git(t, ".", "ls-remote", "--tags", r.GitHub.ServerURL()+"/"+released)) {
		sha, name, _ := strings.Cut(strings.TrimSpace(line), "\trefs/tags/")
		tags[name] = sha
	}
	return tags
}

// get reads what GitHub's API has to say.
func (r *releaseRepository) get(t *testing.T, path string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.download(t, r.GitHub.APIURL()+"/repos/"+released+path)), into); err != nil {
		t.Fatal(err)
	}
}

func (r *releaseRepository) download(t *testing.T, address string) string {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", address, answer.Status, err)
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

// The whole workflow, from a commit to the moved v1, by act; and the same release made in another folder without a
// network, to the byte.
func TestRelease(t *testing.T) {
	e := setup(t)
	r := e.releaseRepository(t)
	r.env["RELEASE_PLATFORMS"] = "linux/amd64 darwin/arm64"
	head := git(t, r.dir, "rev-parse", "HEAD")

	// A byte of what GitHub hands out is another one.
	const flipped = "action-test-linux-amd64"
	r.GitHub.Fail(github.Fault{Path: "/releases/download/v1.2.0/" + flipped, Status: http.StatusOK, Body: "flipped"})
	said := flipped + " of v1.2.0 at GitHub has the SHA-256 "
	log := r.actFailing(t, r.workflow("v1.2.0"), said)
	r.GitHub.Heal()
	if !strings.Contains(log, said) {
		t.Fatalf("a flipped byte went unseen: %s", log)
	}
	before := r.tags(t)
	commit := before["v1.2.0"]
	if !maps.Equal(before, values{"v1.2.0": commit}) {
		t.Errorf("GitHub has the tags %v", before)
	}
	var cut, made release
	r.get(t, "/releases/tags/v1.2.0", &cut)

	log, ok := r.act(t, r.workflow("v1.2.0"))
	if !ok {
		t.Fatal(log)
	}
	if tags := r.tags(t); !maps.Equal(tags, values{"v1.2.0": commit, "v1": commit}) {
		t.Errorf("GitHub has the tags %v, and the release is %s", tags, commit)
	}
	r.get(t, "/releases/tags/v1.2.0", &made)
	if made.ID != cut.ID || !slices.Equal(made.Assets, cut.Assets) {
		t.Errorf("what was there was made again: %v, %v", cut, made)
	}
	var names []string
	assets := values{}
	for _, asset := range made.Assets {
		names = append(names, asset.Name)
		assets[asset.Name] = r.download(t, asset.URL)
	}
	slices.Sort(names)
	if want := []string{
		"action-build-darwin-arm64", "action-build-linux-amd64", "action-snapshot-darwin-arm64",
		"action-snapshot-linux-amd64", "action-test-darwin-arm64", "action-test-linux-amd64",
		"checksums.txt", "licenses.tar.gz", "sbom.cdx.json",
	}; !slices.Equal(names, want) {
		t.Errorf("the assets are %q", names)
	}
	if !strings.Contains(made.Body, "The first release.") || !strings.Contains(made.Body, "- release ("+head[:12]+")") ||
		!strings.Contains(made.Body, "`@"+commit+" # v1.2.0`") {
		t.Errorf("the changelog is %s", made.Body)
	}
	for _, program := range []string{"action-build", "action-snapshot", "action-test"} {
		if !strings.Contains(
			log,
			program+" v1.2.0 from "+r.GitHub.ServerURL()+"/"+released+"/releases/download/v1.2.0/"+program+"-linux-amd64",
		) {
			t.Errorf("%s of the release was not run: %s", program, log)
		}
		for _, platform := range []string{"linux-amd64", "darwin-arm64"} {
			sum := sha256.Sum256([]byte(assets[program+"-"+platform]))
			r.attested(t, hex.EncodeToString(sum[:]), program+"-"+platform)
		}
	}

	t.Run("the same in another folder", func(t *testing.T) {
		elsewhere := filepath.Join(t.TempDir(), "a folder of another name")
		git(t, ".", "clone", "--quiet", r.dir, elsewhere)
		if out, err := r.make(t, elsewhere, "v1.2.0"); err != nil {
			t.Fatal(out)
		}
		if got := git(t, elsewhere, "rev-parse", "v1.2.0"); got != commit {
			t.Errorf("the commit is %s, want %s", got, commit)
		}
		for name, want := range assets {
			if got := read(t, filepath.Join(elsewhere, "dist/v1.2.0", name)); got != want {
				t.Errorf("%s has other bytes", name)
			}
		}
		if status := git(t, elsewhere, "status", "--porcelain"); status != "" {
			t.Errorf("the checkout is not as it was: %s", status)
		}
		if got := git(t, elsewhere, "diff", "--name-status", head, commit); got != "A\tactions/checksums.txt" {
			t.Errorf("the release's commit differs by %s", got)
		}
		if got := git(t, elsewhere, "show", commit+":actions/checksums.txt"); got != strings.TrimSpace(
			assets["checksums.txt"],
		) {
			t.Errorf("the release's commit has the sums %s", got)
		}
		// Nor has what a step builds of that commit, where it can not have the asset: run.sh runs nothing else.
		git(t, elsewhere, "checkout", "--quiet", commit)
		r.GitHub.Fail(github.Fault{Path: "/releases/download/", Status: http.StatusNotFound})
		defer r.GitHub.Heal()
		command := exec.Command("sh", "actions/run.sh", "build", "--version")
		command.Dir = elsewhere
		command.Env = append(os.Environ(), "GITHUB_SERVER_URL="+r.GitHub.ServerURL(), "RUNNER_TOOL_CACHE=")
		if out, err := command.CombinedOutput(); err != nil ||
			!strings.Contains(string(out), " answers 404: the release is gone") ||
			!strings.HasSuffix(string(out), "\naction-build v1.2.0\n") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("an older line", func(t *testing.T) {
		r.env["RELEASE_PLATFORMS"] = "linux/amd64"
		if log, ok := r.act(t, r.workflow("v1.1.9")); !ok ||
			!strings.Contains(log, "v1 stays v1.2.0, which is newer than v1.1.9") {
			t.Errorf("it ended so: %s", log)
		}
		if tags := r.tags(t); tags["v1"] != commit || tags["v1.1.9"] == "" {
			t.Errorf("GitHub has the tags %v", tags)
		}
	})
}

// What is no release is refused before anything is built, in one sentence.
func TestReleaseRefused(t *testing.T) {
	r := setup(t).releaseRepository(t)
	for _, test := range []struct {
		name, version string
		before        string // done in the clone
		want          string
	}{
		{name: "no version", want: `VERSION=v1.2.3`},
		{name: "a version without v", version: "1.2.3", want: `"1.2.3"`},
		{name: "a version with a leading zero", version: "v1.02.3", want: `"v1.02.3"`},
		{name: "another kind of candidate", version: "v1.2.3-beta", want: `"v1.2.3-beta"`},
		{name: "a script", version: "v1.2.3;id", want: `"v1.2.3;id"`},
		{name: "a changed file", before: "echo >>README.md", want: "git status"},
		{name: "a new file", before: "echo >new.go", want: "git status"},
		{name: "a tag on another commit", before: "git tag v1.2.3", want: "v1.2.3 .*another commit"},
		{name: "the commit of a release", before: "touch actions/checksums.txt; git add .; git commit -qm release",
			want: `HEAD\^`},
		{name: "a clone without a past", before: "git fetch -q --depth=1 . HEAD; git rev-parse HEAD >.git/shallow",
			want: "git fetch --unshallow"},
		{name: "another Go",
			before: "git commit -qm go --allow-empty; mkdir ../bin; printf '#!/bin/sh\necho go1.99.1\n' >../bin/go; chmod +x ../bin/go",
			want:   `go[0-9.]+ .*https://go.dev/dl`},
		{name: "no repository at GitHub", before: "git remote set-url origin /srv/git", want: "GITHUB_REPOSITORY=OWNER/NAME"},
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
			if said := string(out); err == nil || !regexp.MustCompile("^release: .*"+test.want).MatchString(said) ||
				strings.Count(said, "\n") != 1 {
				t.Errorf("%v: %s\nwant %s", err, said, test.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "dist")); err == nil {
				t.Error("it began")
			}
		})
	}
}

// A program that is of no release says so.
func TestVersion(t *testing.T) {
	e := setup(t)
	for _, program := range []string{"action-build", "action-snapshot", "action-test"} {
		if got, want := e.run(t, invocation{program: program, args: []string{"--version"}}).stdout, program+" (built from source)\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// make makes a release as at a prompt.
func (r *releaseRepository) make(t *testing.T, dir, version string) (string, error) {
	t.Helper()
	command := exec.Command("make", "--silent", "release", "VERSION="+version)
	command.Dir = dir
	command.Env = append(
		os.Environ(),
		"GITHUB_SERVER_URL="+r.GitHub.ServerURL(),
		"GITHUB_REPOSITORY="+released,
		"RELEASE_PLATFORMS="+r.env["RELEASE_PLATFORMS"],
	)
	out, err := command.CombinedOutput()
	return string(out), err
}

// attested sees that GitHub keeps a provenance and a list of parts of a file, as `gh attestation verify` asks for them.
func (r *releaseRepository) attested(t *testing.T, sum, name string) {
	t.Helper()
	var kept struct {
		Attestations []struct {
			Bundle struct {
				DSSEEnvelope struct{ Payload []byte } `json:"dsseEnvelope"`
			}
		}
	}
	r.get(t, "/attestations/sha256:"+sum, &kept)
	var types []string
	for _, attestation := range kept.Attestations {
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
			t.Errorf("%s is not signed for with the job's identity: %v", name, statement.Predicate)
		}
	}
	slices.Sort(types)
	types = slices.Compact(types) // each run of the workflow attests
	if !slices.Equal(types, []string{"https://cyclonedx.org/bom", "https://slsa.dev/provenance/v1"}) {
		t.Errorf("%s is attested as %v", name, types)
	}
}
