package trust

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

const (
	headSHA  = "1111111111111111111111111111111111111111"
	mergeSHA = "2222222222222222222222222222222222222222"
	baseSHA  = "3333333333333333333333333333333333333333"
	eventSHA = "4444444444444444444444444444444444444444"
	otherSHA = "5555555555555555555555555555555555555555"
)

// readEvent returns the event of a run of acme/caller with this payload.
func readEvent(t *testing.T, name, payload string) runner.Event {
	t.Helper()
	if !json.Valid([]byte(payload)) {
		t.Fatalf("invalid JSON: %s", payload)
	}
	file := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(file, []byte(payload), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := map[string]string{
		"GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": file, "GITHUB_REPOSITORY": "acme/caller", "GITHUB_SHA": eventSHA,
	}
	return runner.ReadEvent(func(name string) string { return environ[name] })
}

// pullRequestFrom returns the payload of an event of a pull request from head; "" for a deleted fork.
func pullRequestFrom(head string) string {
	repo := `{"full_name": "` + head + `"}`
	if head == "" {
		repo = "null"
	}
	return `{"repository": {"full_name": "acme/caller"}, "number": 7, "pull_request": {"number": 7,
		"merge_commit_sha": "` + mergeSHA + `", "head": {"sha": "` + headSHA + `", "ref": "main", "repo": ` + repo + `},
		"base": {"sha": "` + baseSHA + `", "ref": "main", "repo": {"full_name": "acme/caller"}}}}`
}

// workflowRunOf returns the payload of workflow_run after a run for a pull request from head.
func workflowRunOf(head string) string {
	return `{"repository": {"full_name": "acme/caller"}, "workflow_run": {"event": "pull_request",
		"head_sha": "` + headSHA + `", "head_branch": "main", "head_repository": {"full_name": "` + head + `"},
		"pull_requests": []}}`
}

func TestCommits(t *testing.T) {
	const (
		comment = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7,
			"pull_request": {"url": "https://api.github.com/repos/acme/caller/pulls/7"}}}`
		issue = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7}}`
		plain = `{"repository": {"full_name": "acme/caller"}}`

		branch, tag = "refs/heads/main", "refs/tags/v1"
		merge, head = "refs/pull/7/merge", "refs/pull/7/head"

		ofFork = "code from pull request #7 from the fork evil/caller"
	)
	fork, own, deleted := pullRequestFrom("evil/caller"), pullRequestFrom("acme/caller"), pullRequestFrom("")
	for _, test := range []struct {
		name, event, payload string
		sha, ref             string
		refused              string // empty: trusted
	}{
		{"branch", "pull_request_target", fork, otherSHA, branch, ""},
		{"tag", "pull_request_target", fork, otherSHA, tag, ""},
		{"the run's commit", "pull_request_target", fork, eventSHA, "", ""},
		{"the base commit", "pull_request_target", fork, baseSHA, "", ""},
		{"the fork's merge", "pull_request_target", fork, mergeSHA, merge, ofFork},
		{"the fork's merge, newer than the event", "pull_request_target", fork, otherSHA, merge, ofFork},
		{"the fork's head", "pull_request_target", fork, headSHA, head, ofFork},
		{"SHA of the head", "pull_request_target", fork, headSHA, "", ofFork},
		{"SHA of the merge", "pull_request_target", fork, mergeSHA, "", ofFork},
		{"a branch that points at the head", "pull_request_target", fork, headSHA, branch, ofFork},
		{
			"unknown SHA", "pull_request_target", fork, otherSHA, "",
			"a commit that no branch or tag contains, which may be " + ofFork,
		},
		{"another pull request", "pull_request_target", fork, otherSHA, "refs/pull/8/merge", "code from pull request #8"},
		{"a deleted fork", "pull_request_target", deleted, headSHA, head, "code from pull request #7 from a fork,"},
		{"merge of the repository's own branch", "pull_request_target", own, mergeSHA, merge, ""},
		{"head of the repository's own branch", "pull_request_target", own, headSHA, "", ""},
		{
			"own pull request, ref of another", "pull_request_target", own, otherSHA, "refs/pull/8/head",
			"code from pull request #8",
		},
		{"repository in another case", "pull_request_target", pullRequestFrom("ACME/Caller"), headSHA, "", ""},
		{"unreadable event", "pull_request_target", `[]`, otherSHA, "", "which may be code from a fork"},
		{"unreadable event, branch", "pull_request_target", `[]`, otherSHA, branch, ""},

		{
			"workflow_run: the fork's head", "workflow_run", workflowRunOf("evil/caller"), headSHA, "",
			"code from the fork evil/caller",
		},
		{
			"workflow_run: the pull request", "workflow_run", workflowRunOf("evil/caller"), otherSHA, head,
			"code from pull request #7",
		},
		{"workflow_run: branch", "workflow_run", workflowRunOf("evil/caller"), otherSHA, branch, ""},
		{"workflow_run: the repository's own head", "workflow_run", workflowRunOf("acme/caller"), headSHA, "", ""},
		{"comment on a pull request", "issue_comment", comment, otherSHA, merge, "code from pull request #7 from a fork,"},
		{"comment on a pull request, branch", "issue_comment", comment, otherSHA, branch, ""},
		{"comment on an issue, pull request", "issue_comment", issue, otherSHA, merge, "code from pull request #7"},
		{"comment on an issue", "issue_comment", issue, otherSHA, "", ""},

		{"pull_request has no secrets", "pull_request", fork, mergeSHA, merge, ""},
		{"workflow_dispatch", "workflow_dispatch", plain, otherSHA, merge, ""},
		{"push", "push", plain, otherSHA, "", ""},
		{"outside GitHub Actions", "", `{}`, otherSHA, merge, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := Code{Ref: "REF", Commit: source.Commit{SHA: test.sha, Ref: test.ref}, Dir: t.TempDir()}
			err := Check(t.Context(), readEvent(t, test.event, test.payload), code)
			assertRefused(t, err, test.refused)
			if err != nil && !strings.HasPrefix(err.Error(), `input ref: "REF" is `) {
				t.Errorf("the error does not name the input: %v", err)
			}
		})
	}
}

func assertRefused(t *testing.T, err error, refused string) {
	t.Helper()
	untrusted := (*UntrustedError)(nil)
	switch {
	case refused == "" && err != nil:
		t.Errorf("refused: %v", err)
	case refused != "" && !errors.As(err, &untrusted):
		t.Errorf("%v, want an UntrustedError: %s", err, refused)
	case refused != "" && !strings.Contains(err.Error(), refused):
		t.Errorf("%v, want %s", err, refused)
	}
}

func TestUntrustedErrorText(t *testing.T) {
	err := &UntrustedError{"the directory /pr is a checkout of evil/caller",
		runner.Event{Name: "pull_request_target", Repository: "acme/caller"}}
	const want = "the directory /pr is a checkout of evil/caller, and this run (pull_request_target) has secrets of " +
		"acme/caller that the code could read: build it in a workflow triggered by pull_request, or set " +
		"allow_untrusted_ref: true after a review"
	if err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	command := exec.Command("git", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.example", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b.example")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// The usual way for untrusted code to get into a build is a checkout of a pull request in the workspace.
func TestCheckouts(t *testing.T) {
	dir := t.TempDir()
	hub, work := filepath.Join(dir, "hub"), filepath.Join(dir, "work")
	git(t, dir, "init", "--quiet", "--initial-branch=main", hub)
	commit := func(message string) string {
		git(t, hub, "commit", "--quiet", "--allow-empty", "--message="+message)
		return git(t, hub, "rev-parse", "HEAD")
	}
	oldest := commit("first")
	git(t, hub, "tag", "v1")
	atEvent := commit("the event's commit")
	git(t, hub, "checkout", "--quiet", "-b", "fork")
	head := commit("head of the pull request")
	git(t, hub, "update-ref", "refs/pull/7/head", head)
	newer := commit("pushed after the event")
	git(t, hub, "update-ref", "refs/pull/7/merge", newer)
	git(t, hub, "checkout", "--quiet", "main")
	git(t, hub, "branch", "--quiet", "-D", "fork")
	git(t, hub, "config", "uploadpack.allowAnySHA1InWant", "true")
	commit("main after the event")
	event := runner.Event{
		Name: "pull_request_target", Repository: "acme/caller", SHA: atEvent, Pull: 7, HeadRepository: "evil/caller",
		Commits: []string{head, mergeSHA},
	}

	const (
		ofFork = "code from pull request #7 from the fork evil/caller"
		main   = "+refs/heads/main:refs/remotes/origin/main"
		noRef  = ", which no branch or tag contains and which may be " + ofFork
	)
	for _, test := range []struct {
		name     string
		fetch    string // argument of git fetch, as actions/checkout passes it; empty for a directory without git
		origin   string // URL of the remote; empty for acme/caller
		below    bool   // the checkout is in work/pr, below a checkout of the event's commit
		contexts []string
		dirs     []string
		refused  string
	}{
		{name: "the run's commit", fetch: atEvent},
		{name: "the run's commit, repository in another case", fetch: atEvent, origin: "https://github.com/ACME/Caller"},
		{name: "a branch that has moved", fetch: main},
		{name: "a tag", fetch: "+refs/tags/v1:refs/tags/v1"},
		{name: "an older commit without a ref", fetch: oldest + ":refs/heads/x", refused: "a checkout of " + oldest + noRef},
		{name: "the head", fetch: head, refused: "a checkout of " + ofFork},
		{name: "the head as a branch", fetch: "+refs/pull/7/head:refs/heads/pr", refused: "a checkout of " + ofFork},
		{
			name: "the merge, newer than the event", fetch: "+refs/pull/7/merge:refs/remotes/pull/7/merge",
			refused: "a checkout of " + newer + noRef,
		},
		{
			name: "the fork's branch", fetch: main, origin: "https://github.com/evil/caller",
			refused: "a checkout of evil/caller",
		},
		{name: "no checkout", refused: "not a git checkout, and may hold " + ofFork},
		{
			name: "context below", fetch: head, below: true, contexts: []string{"pr"},
			refused: "the directory WORK/pr is a checkout of " + ofFork,
		},
		{
			name: "absolute context", fetch: head, below: true, contexts: []string{"WORK/pr"},
			refused: "the directory WORK/pr is a checkout of " + ofFork,
		},
		{
			name: "other directory", fetch: head, below: true, dirs: []string{"WORK/pr"},
			refused: "the directory WORK/pr is a checkout of " + ofFork,
		},
		{name: "unused checkout below", fetch: head, below: true},
		{name: "missing context", fetch: atEvent, contexts: []string{"missing"}},
		{name: "URL of the fork", fetch: atEvent, contexts: []string{"https://github.com/Evil/caller.git#main"},
			refused: `the context "https://github.com/Evil/caller.git#main" is ` + ofFork},
		{
			name: "URL of the fork over SSH", fetch: atEvent, contexts: []string{"git@github.com:evil/caller"},
			refused: "is " + ofFork,
		},
		{name: "URL of the pull request", fetch: atEvent,
			contexts: []string{"https://github.com/acme/caller.git#refs/pull/7/merge"}, refused: "is " + ofFork},
		{
			name: "URL of another repository", fetch: atEvent,
			contexts: []string{"https://github.com/moby/buildkit.git#v0.20.0"},
		},
		{name: "URL of another repository over SSH", fetch: atEvent, contexts: []string{"git@github.com:moby/buildkit"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.RemoveAll(work); err != nil {
				t.Fatal(err)
			}
			clone := func(directory, fetch string) {
				git(t, dir, "init", "--quiet", directory)
				git(t, directory, "fetch", "--quiet", "--no-tags", "--depth=1", hub, fetch)
				git(t, directory, "checkout", "--quiet", "--detach", "FETCH_HEAD")
				origin := test.origin
				if origin == "" {
					origin = "https://github.com/acme/caller"
				}
				git(t, directory, "remote", "add", "origin", origin)
			}
			switch {
			case test.below:
				clone(work, atEvent)
				clone(filepath.Join(work, "pr"), test.fetch)
			case test.fetch != "":
				clone(work, test.fetch)
			default:
				if err := os.Mkdir(work, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			code := Code{Dir: work, Contexts: atWork(work, test.contexts), Directories: atWork(work, test.dirs)}
			assertRefused(t, Check(t.Context(), event, code), strings.ReplaceAll(test.refused, "WORK", work))
		})
	}

	// If a commit is built, relative contexts are part of it, but absolute ones are still checked.
	clone := filepath.Join(work, "pr")
	if err := os.RemoveAll(work); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "--quiet", clone)
	git(t, clone, "fetch", "--quiet", hub, head)
	git(t, clone, "checkout", "--quiet", "--detach", "FETCH_HEAD")
	code := Code{Commit: source.Commit{SHA: atEvent}, Dir: work, Contexts: []string{"pr"}}
	assertRefused(t, Check(t.Context(), event, code), "")
	code.Contexts = []string{clone}
	assertRefused(t, Check(t.Context(), event, code), "the directory "+clone+" is a checkout of "+ofFork)
}

// The base commit of a pull request belongs to the repository, also if no ref of the checkout names it.
func TestCheckoutOfBaseCommit(t *testing.T) {
	work := t.TempDir()
	git(t, work, "init", "--quiet")
	git(t, work, "commit", "--quiet", "--allow-empty", "--message=base")
	event := runner.Event{
		Name: "pull_request_target", Repository: "acme/caller", SHA: eventSHA, Pull: 7, HeadRepository: "evil/caller",
		BaseSHA: git(t, work, "rev-parse", "HEAD"),
	}
	assertRefused(t, Check(t.Context(), event, Code{Dir: work}), "")
	event.BaseSHA = otherSHA
	assertRefused(t, Check(t.Context(), event, Code{Dir: work}), "which no branch or tag contains")
}

// A pull request from a branch of the repository may use any directory of the workspace.
func TestDirectoriesOfInternalPullRequests(t *testing.T) {
	event := runner.Event{
		Name: "pull_request_target", Repository: "acme/caller", SHA: eventSHA, Pull: 7, HeadRepository: "acme/caller",
	}
	assertRefused(t, Check(t.Context(), event, Code{Dir: t.TempDir()}), "")
	event.HeadRepository = "evil/caller"
	assertRefused(t, Check(t.Context(), event, Code{Dir: t.TempDir()}), "not a git checkout")
}

func atWork(work string, paths []string) (list []string) {
	for _, path := range paths {
		list = append(list, strings.ReplaceAll(path, "WORK", work))
	}
	return list
}

func TestCheckForkPermissions(t *testing.T) {
	event := runner.Event{Name: "pull_request", Repository: "acme/caller", Pull: 7, HeadRepository: "friend/caller"}
	failed := errors.New("registry is down")
	for _, test := range []struct {
		name    string
		needs   Needs
		canPush bool
		err     error
		refused string
	}{
		{name: "a build only"},
		{name: "save", needs: Needs{Save: true}, refused: "input save: "},
		{
			name: "Doppler", needs: Needs{DopplerConfig: "dev"},
			refused: `input doppler_config: reading "dev" needs a Doppler token`,
		},
		{
			name: "push", needs: Needs{Push: []string{"ghcr.io/a/b:1"}},
			refused: "input push: permission denied for ghcr.io/a/b:1",
		},
		{name: "push to an open registry", needs: Needs{Push: []string{"ghcr.io/a/b:1"}}, canPush: true},
		{name: "push to a registry that is down", needs: Needs{Push: []string{"ghcr.io/a/b:1"}}, err: failed},
		{name: "snapshot", needs: Needs{Daytona: true}, refused: "a snapshot needs a Daytona API key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := CheckForkPermissions(event, test.needs, func(string) (bool, error) { return test.canPush, test.err })
			denied := (*ForkError)(nil)
			switch {
			case test.err != nil:
				if !errors.Is(err, test.err) {
					t.Errorf("%v, want %v", err, test.err)
				}
			case test.refused == "":
				if err != nil {
					t.Error(err)
				}
			case !errors.As(err, &denied) || !strings.HasPrefix(err.Error(), test.refused) ||
				!strings.Contains(err.Error(), "this run is for pull request #7 from the fork friend/caller"):
				t.Errorf("%v, want %s", err, test.refused)
			}
		})
	}
}
