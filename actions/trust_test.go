package actions

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// eventFile is the file at GITHUB_EVENT_PATH.
func eventFile(t *testing.T, payload string) string {
	t.Helper()
	if !json.Valid([]byte(payload)) {
		t.Fatalf("that is no JSON: %s", payload)
	}
	dir := t.TempDir()
	writeFile(t, dir, "event.json", payload)
	return filepath.Join(dir, "event.json")
}

const (
	headSHA  = "1111111111111111111111111111111111111111"
	mergeSHA = "2222222222222222222222222222222222222222"
	baseSHA  = "3333333333333333333333333333333333333333"
	eventSHA = "4444444444444444444444444444444444444444"
	otherSHA = "5555555555555555555555555555555555555555"
)

// pullFrom is the payload of a pull request's events, as GitHub sends it.
func pullFrom(head, headCommit string) string {
	repo := `{"full_name": "` + head + `"}`
	if head == "" {
		repo = "null" // the fork was deleted
	}
	return `{"repository": {"full_name": "acme/caller"}, "number": 7, "pull_request": {"number": 7, "merge_commit_sha": "` + mergeSHA + `",
		"head": {"sha": "` + headCommit + `", "ref": "main", "repo": ` + repo + `}, "base": {"sha": "` + baseSHA + `", "ref": "main", "repo": {"full_name": "acme/caller"}}}}`
}

func runOf(head string) string {
	return `{"repository": {"full_name": "acme/caller"}, "workflow_run": {"event": "pull_request", "head_sha": "` + headSHA + `", "head_branch": "main",
		"head_repository": {"full_name": "` + head + `"}, "pull_requests": []}}`
}

// Whose code a commit is, in runs that anybody can start and that have secrets.
func TestForeignCommits(t *testing.T) {
	fork, own, gone := pullFrom("evil/caller", headSHA), pullFrom("acme/caller", headSHA), pullFrom("", headSHA)
	const comment = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7, "pull_request": {"url": "https://api.github.com/repos/acme/caller/pulls/7"}}}`
	const issue = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7}}`
	branch, tag := "refs/heads/main", "refs/tags/v1"
	for _, test := range []struct {
		name, event, payload string
		commit               source.Commit
		refused              string // "": it is built
	}{
		{"a branch", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: branch}, ""},
		{"a tag", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: tag}, ""},
		{"the run's own commit", "pull_request_target", fork, source.Commit{SHA: eventSHA}, ""},
		{"the base's commit", "pull_request_target", fork, source.Commit{SHA: baseSHA}, ""},
		{"the fork's merge", "pull_request_target", fork, source.Commit{SHA: mergeSHA, Ref: "refs/pull/7/merge"}, `"REF" is code of the pull request #7 from the fork evil/caller, and this run (pull_request_target) has secrets of acme/caller`},
		{"the fork's merge, newer than the event", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, "code of the pull request #7 from the fork evil/caller"},
		{"the fork's head", "pull_request_target", fork, source.Commit{SHA: headSHA, Ref: "refs/pull/7/head"}, "code of the pull request #7 from the fork evil/caller"},
		{"the SHA of the head", "pull_request_target", fork, source.Commit{SHA: headSHA}, "code of the pull request #7 from the fork evil/caller"},
		{"the SHA of the merge", "pull_request_target", fork, source.Commit{SHA: mergeSHA}, "code of the pull request #7 from the fork evil/caller"},
		{"a branch that is the head", "pull_request_target", fork, source.Commit{SHA: headSHA, Ref: branch}, "code of the pull request #7 from the fork evil/caller"},
		{"a SHA that could be anybody's", "pull_request_target", fork, source.Commit{SHA: otherSHA}, "a commit that no branch or tag names, which may be code of the pull request #7 from the fork evil/caller"},
		{"another pull request", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: "refs/pull/8/merge"}, "code of the pull request #8"},
		{"a fork that is gone", "pull_request_target", gone, source.Commit{SHA: headSHA, Ref: "refs/pull/7/head"}, "code of the pull request #7 from a fork,"},
		{"our own branch's merge", "pull_request_target", own, source.Commit{SHA: mergeSHA, Ref: "refs/pull/7/merge"}, ""},
		{"our own branch's head", "pull_request_target", own, source.Commit{SHA: headSHA}, ""},
		{"another pull request, from a run of our own", "pull_request_target", own, source.Commit{SHA: otherSHA, Ref: "refs/pull/8/head"}, "code of the pull request #8"},
		{"a name in other letters", "pull_request_target", pullFrom("ACME/Caller", headSHA), source.Commit{SHA: headSHA}, ""},
		{"an event that can not be read", "pull_request_target", `[]`, source.Commit{SHA: otherSHA}, "which may be code of a fork"},
		{"an event that can not be read, a branch", "pull_request_target", `[]`, source.Commit{SHA: otherSHA, Ref: branch}, ""},

		{"after a fork's run: its head", "workflow_run", runOf("evil/caller"), source.Commit{SHA: headSHA}, "code of the fork evil/caller, and this run (workflow_run)"},
		{"after a fork's run: its pull request", "workflow_run", runOf("evil/caller"), source.Commit{SHA: otherSHA, Ref: "refs/pull/7/head"}, "code of the pull request #7"},
		{"after a fork's run: a branch", "workflow_run", runOf("evil/caller"), source.Commit{SHA: otherSHA, Ref: branch}, ""},
		{"after our own run", "workflow_run", runOf("acme/caller"), source.Commit{SHA: headSHA}, ""},
		{"a comment on a pull request", "issue_comment", comment, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, "code of the pull request #7 from a fork,"},
		{"a comment, and a branch", "issue_comment", comment, source.Commit{SHA: otherSHA, Ref: branch}, ""},
		{"a comment on an issue, and a pull request", "issue_comment", issue, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, "code of the pull request #7"},
		{"a comment on an issue", "issue_comment", issue, source.Commit{SHA: otherSHA}, ""},

		{"a pull request, which has no secrets", "pull_request", fork, source.Commit{SHA: mergeSHA, Ref: "refs/pull/7/merge"}, ""},
		{"dispatched by who may", "workflow_dispatch", `{"repository": {"full_name": "acme/caller"}}`, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, ""},
		{"a push", "push", `{"repository": {"full_name": "acme/caller"}}`, source.Commit{SHA: otherSHA}, ""},
		{"a person", "", `{}`, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			environ := map[string]string{"GITHUB_EVENT_NAME": test.event, "GITHUB_EVENT_PATH": eventFile(t, test.payload), "GITHUB_REPOSITORY": "acme/caller", "GITHUB_SHA": eventSHA}
			for _, allowed := range []bool{false, true} {
				b := &build{Program: &Program{Dir: t.TempDir()}, commit: test.commit, event: runner.ReadEvent(func(name string) string { return environ[name] })}
				b.in = &BuildInputs{Ref: "REF", AllowUntrustedRef: allowed, Context: ".", Dockerfile: "Dockerfile"}
				trusted(t, b.trust(t.Context()), test.refused, allowed)
			}
		})
	}
}

func trusted(t *testing.T, err error, refused string, allowed bool) {
	t.Helper()
	switch {
	case refused == "" || allowed:
		if err != nil {
			t.Errorf("allowed: %t; %v", allowed, err)
		}
	case err == nil:
		t.Errorf("it is built, want %s", refused)
	case !strings.Contains(err.Error(), refused) || !strings.HasSuffix(err.Error(), "or, if it was reviewed, set allow_untrusted_ref: true") || strings.Contains(err.Error(), "\n"):
		t.Errorf("it says\n%s\nwant\n%s", err, refused)
	}
}

// What lies in the workspace is looked at, too: a checkout of a pull request is the usual way in.
func TestForeignCheckouts(t *testing.T) {
	dir := t.TempDir()
	hub, work := filepath.Join(dir, "hub"), filepath.Join(dir, "work")
	git(t, dir, "init", "--quiet", "--initial-branch=main", hub)
	commit := func(message string) string {
		git(t, hub, "commit", "--quiet", "--allow-empty", "--message="+message)
		return git(t, hub, "rev-parse", "HEAD")
	}
	oldest := commit("first")
	git(t, hub, "tag", "v1")
	begin := commit("begin") // which the event is of
	git(t, hub, "checkout", "--quiet", "-b", "fork")
	head := commit("head")
	git(t, hub, "update-ref", "refs/pull/7/head", head)
	newer := commit("pushed after the event")
	git(t, hub, "update-ref", "refs/pull/7/merge", newer)
	git(t, hub, "checkout", "--quiet", "main")
	git(t, hub, "branch", "--quiet", "-D", "fork")
	git(t, hub, "config", "uploadpack.allowAnySHA1InWant", "true")
	commit("main has moved")
	event := runner.Event{Name: "pull_request_target", Repository: "acme/caller", SHA: begin, Pull: 7, HeadRepository: "evil/caller", Commits: []string{head, mergeSHA}}
	const of = "code of the pull request #7 from the fork evil/caller"

	for _, test := range []struct {
		name    string
		fetch   []string // arguments of git fetch, as actions/checkout has them
		origin  string   // "" for acme/caller
		inputs  BuildInputs
		folder  string // of the checkout; "" for the workspace
		refused string
	}{
		{name: "the run's own commit", fetch: []string{begin}},
		{name: "a branch that has moved", fetch: []string{"+refs/heads/main:refs/remotes/origin/main"}},
		{name: "a tag", fetch: []string{"+refs/tags/v1:refs/tags/v1"}},
		{name: "an older commit that nothing names", fetch: []string{oldest + ":refs/heads/x"}, refused: "a checkout of " + oldest + ", which no branch or tag names"},
		{name: "the head", fetch: []string{head}, refused: "a checkout of " + of},
		{name: "the head as a branch", fetch: []string{"+refs/pull/7/head:refs/heads/pr"}, refused: "a checkout of " + of},
		{name: "the merge, newer than the event", fetch: []string{"+refs/pull/7/merge:refs/remotes/pull/7/merge"}, refused: "a checkout of " + newer + ", which no branch or tag names, and which may be " + of},
		{name: "the fork's branch", fetch: []string{"+refs/heads/main:refs/remotes/origin/main"}, origin: "https://github.com/evil/caller", refused: "a checkout of evil/caller"},
		{name: "no checkout", refused: "no checkout of a known commit, and may hold " + of},
		{name: "the head beside our own", fetch: []string{head}, folder: "pr", inputs: BuildInputs{Context: "pr"}, refused: "the folder WORK/pr is a checkout of " + of},
		{name: "only its Dockerfile", fetch: []string{head}, folder: "pr", inputs: BuildInputs{Dockerfile: "pr/Dockerfile"}, refused: "the folder WORK/pr is a checkout of " + of},
		{name: "a named context", fetch: []string{head}, folder: "pr", inputs: BuildInputs{BuildContexts: Lines{{Text: "app=pr"}}}, refused: "the folder WORK/pr is a checkout of " + of},
		{name: "beside it, and not used", fetch: []string{head}, folder: "pr"},
		{name: "the fork's URL", fetch: []string{begin}, inputs: BuildInputs{Context: "https://github.com/Evil/caller.git#main"}, refused: `the context "https://github.com/Evil/caller.git#main" is ` + of},
		{name: "the pull request's URL", fetch: []string{begin}, inputs: BuildInputs{Context: "https://github.com/acme/caller.git#refs/pull/7/merge"}, refused: "is " + of},
		{name: "another's URL", fetch: []string{begin}, inputs: BuildInputs{Context: "https://github.com/moby/buildkit.git#v0.20.0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.RemoveAll(work); err != nil {
				t.Fatal(err)
			}
			clone := func(folder string, fetch ...string) {
				git(t, dir, "init", "--quiet", folder)
				git(t, folder, "fetch", "--quiet", "--no-tags", "--depth=1", hub, fetch[0])
				git(t, folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
				git(t, folder, "remote", "add", "origin", first(test.origin, "https://github.com/acme/caller"))
			}
			switch {
			case test.folder != "":
				clone(work, begin)
				clone(filepath.Join(work, test.folder), test.fetch...)
			case test.fetch != nil:
				clone(work, test.fetch...)
			default:
				if err := os.Mkdir(work, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, allowed := range []bool{false, true} {
				in := test.inputs
				in.AllowUntrustedRef, in.Context, in.Dockerfile = allowed, first(in.Context, "."), first(in.Dockerfile, "Dockerfile")
				b := &build{Program: &Program{Dir: work}, event: event, in: &in}
				trusted(t, b.trust(t.Context()), strings.ReplaceAll(test.refused, "WORK", work), allowed)
			}
		})
	}
}
