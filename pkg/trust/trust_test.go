package trust

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
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

// byDependabot returns the payload of an event with Dependabot as its sender and as the author of the pull request.
func byDependabot(payload string) string {
	const bot = `"user": {"login": "dependabot[bot]"}, `
	payload = strings.Replace(payload, `"pull_request": {`, `"pull_request": {`+bot, 1)
	return `{"sender": {"login": "dependabot[bot]"}, ` + strings.TrimPrefix(payload, "{")
}

// workflowRunOf returns the payload of workflow_run after a run for a pull request from head.
func workflowRunOf(head string) string {
	return `{"repository": {"full_name": "acme/caller"}, "workflow_run": {"event": "pull_request",
		"head_sha": "` + headSHA + `", "head_branch": "main", "head_repository": {"full_name": "` + head + `"},
		"pull_requests": []}}`
}

// hub is a repository with a main branch, and the pull requests 7 from a fork and 8 from a branch.
type hub struct {
	published []string            // SHAs
	parents   map[string][]string // of every commit that GitHub knows
	err       error
}

func (h hub) IsPublished(_ context.Context, sha string) (bool, error) {
	return slices.Contains(h.published, sha), h.err
}

func (h hub) Parents(_ context.Context, sha string) ([]string, error) { return h.parents[sha], h.err }

const (
	branchSHA   = "6666666666666666666666666666666666666666" // head of pull request 8
	ownMergeSHA = "7777777777777777777777777777777777777777" // merge of pull request 8
	localSHA    = "8888888888888888888888888888888888888888" // unknown to GitHub, on the run's commit

	localMergeSHA = "9999999999999999999999999999999999999999" // unknown to GitHub, of the fork's head
	aboveMergeSHA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" // unknown to GitHub, on localMergeSHA
)

// workspaceParents are the parents of the commits that steps made.
var workspaceParents = map[string][]string{
	localSHA: {eventSHA}, localMergeSHA: {eventSHA, headSHA}, aboveMergeSHA: {localMergeSHA},
}

var callerHub = hub{
	published: []string{baseSHA, eventSHA, branchSHA},
	parents: map[string][]string{
		headSHA: {baseSHA}, mergeSHA: {baseSHA, headSHA}, otherSHA: {baseSHA, headSHA}, branchSHA: {baseSHA},
		ownMergeSHA: {baseSHA, branchSHA}, baseSHA: {}, eventSHA: {baseSHA},
	},
}

// A commit is trusted if a branch or tag of the repository contains it, in every run that has secrets.
func TestCommits(t *testing.T) {
	const (
		comment = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7,
			"pull_request": {"url": "https://api.github.com/repos/acme/caller/pulls/7"}}}`
		issue = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7}}`
		plain = `{"repository": {"full_name": "acme/caller"}}`

		branch, tag = "refs/heads/main", "refs/tags/v1"
		merge, head = "refs/pull/7/merge", "refs/pull/7/head"

		ofFork   = "code from pull request #7 from the fork evil/caller"
		unknown  = "is commit " + otherSHA + ", which no branch or tag of acme/caller contains"
		ofPull   = "is code from pull request #7"
		ownMerge = "refs/pull/8/merge"
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
		{"SHA of a branch", "pull_request_target", fork, branchSHA, "", ""},
		{"the fork's merge", "pull_request_target", fork, mergeSHA, merge, ofFork},
		{"the fork's merge, newer than the event", "pull_request_target", fork, otherSHA, merge, ofPull},
		{"the fork's head", "pull_request_target", fork, headSHA, head, ofFork},
		{"SHA of the head", "pull_request_target", fork, headSHA, "", ofFork},
		{"SHA of the merge", "pull_request_target", fork, mergeSHA, "", ofFork},
		{"unknown SHA", "pull_request_target", fork, otherSHA, "", unknown},
		{"pull request of a branch", "pull_request_target", fork, ownMergeSHA, ownMerge, ""},
		{"a deleted fork", "pull_request_target", deleted, headSHA, head, "code from pull request #7 from a fork,"},
		{"merge of the repository's own branch", "pull_request_target", own, mergeSHA, merge, ""},
		{"head of the repository's own branch", "pull_request_target", own, headSHA, "", ""},
		{"newer merge of the repository's own branch", "pull_request_target", own, otherSHA, merge, ""},
		{"repository in another case", "pull_request_target", pullRequestFrom("ACME/Caller"), headSHA, "", ""},
		{"unreadable event", "pull_request_target", `[]`, otherSHA, "", unknown},
		{"unreadable event, branch", "pull_request_target", `[]`, otherSHA, branch, ""},

		{
			"workflow_run: the fork's head", "workflow_run", workflowRunOf("evil/caller"), headSHA, "",
			"code from the fork evil/caller",
		},
		{"workflow_run: the pull request", "workflow_run", workflowRunOf("evil/caller"), otherSHA, head, ofPull},
		{"workflow_run: branch", "workflow_run", workflowRunOf("evil/caller"), otherSHA, branch, ""},
		{"workflow_run: the repository's own head", "workflow_run", workflowRunOf("acme/caller"), headSHA, "", ""},
		{"comment on a pull request", "issue_comment", comment, otherSHA, merge, ofPull},
		{"comment on a pull request, branch", "issue_comment", comment, otherSHA, branch, ""},
		{"comment on an issue, pull request", "issue_comment", issue, otherSHA, merge, ofPull},
		{"comment on an issue, SHA", "issue_comment", issue, otherSHA, "", unknown},
		{"issue", "issues", issue, otherSHA, "", unknown},
		{"comment in a discussion", "discussion_comment", plain, otherSHA, "", unknown},
		{"repository_dispatch", "repository_dispatch", plain, otherSHA, "", unknown},

		{"workflow_dispatch: pull request of a fork", "workflow_dispatch", plain, mergeSHA, merge, ofPull},
		{"workflow_dispatch: head of a fork", "workflow_dispatch", plain, headSHA, head, ofPull},
		{"workflow_dispatch: SHA of a fork", "workflow_dispatch", plain, otherSHA, "", unknown},
		{"workflow_dispatch: pull request of a branch", "workflow_dispatch", plain, ownMergeSHA, ownMerge, ""},
		{"workflow_dispatch: head of a branch", "workflow_dispatch", plain, branchSHA, "refs/pull/8/head", ""},
		{"workflow_dispatch: SHA of a branch", "workflow_dispatch", plain, branchSHA, "", ""},
		{"push: SHA of a fork", "push", plain, otherSHA, "", unknown},
		{"merge queue", "merge_group", plain, eventSHA, "", ""},
		{"merge queue: SHA of a fork", "merge_group", plain, otherSHA, "", unknown},
		// Anyone can make Dependabot the actor of an event of a fork, with a comment that has Dependabot rebase it.
		{"Dependabot on a fork", "pull_request_target", byDependabot(fork), headSHA, head, ofFork},
		{"Dependabot's branch", "pull_request_target", byDependabot(own), headSHA, "", ""},
		{"Dependabot", "pull_request", own, eventSHA, "", ""},

		{"a fork's pull_request has no secrets", "pull_request", fork, mergeSHA, merge, ""},
		{"outside GitHub Actions", "", `{}`, otherSHA, merge, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := Code{Ref: "REF", Commit: source.Commit{SHA: test.sha, Ref: test.ref}}
			err := Check(t.Context(), callerHub, readEvent(t, test.event, test.payload), code)
			assertRefused(t, err, test.refused)
			if err != nil && !strings.HasPrefix(err.Error(), `input ref: "REF" is `) {
				t.Errorf("the error does not name the input: %v", err)
			}
		})
	}
}

// Without an answer from GitHub, no commit is trusted.
func TestGitHubFails(t *testing.T) {
	failure := errors.New("GitHub is down")
	event := runner.Event{Name: "workflow_dispatch", Repository: "acme/caller", SHA: eventSHA}
	for _, commit := range []source.Commit{{SHA: otherSHA}, {SHA: mergeSHA, Ref: "refs/pull/7/merge"}} {
		err := Check(t.Context(), hub{err: failure}, event, Code{Ref: "REF", Commit: commit})
		if !errors.Is(err, failure) {
			t.Errorf("%v: got %v, want the failure", commit, err)
		}
	}
}

// The files of a workspace are those of a trusted workflow, unless anyone can trigger it.
func TestWorkspace(t *testing.T) {
	for _, test := range []struct {
		name, event, sha string
		refused          string
	}{
		{"the run's commit", "push", eventSHA, ""},
		{"no commit", "push", "", ""},
		{"another branch", "push", branchSHA, ""},
		{"a commit that a step made", "push", localSHA, ""},
		{"a step merged a fork", "workflow_dispatch", localMergeSHA, "the workspace contains commit " + headSHA},
		{"a commit on that merge", "workflow_dispatch", aboveMergeSHA, "the workspace contains commit " + headSHA},
		{"checkout of a fork's pull request", "workflow_dispatch", mergeSHA, "the workspace is commit " + mergeSHA},
		{"files of the run's commit and others", "workflow_run", eventSHA, "the workspace may hold code from a fork"},
		{"no commit, triggered by anyone", "issue_comment", "", "the workspace may hold code from a fork"},
	} {
		t.Run(test.name, func(t *testing.T) {
			event := runner.Event{Name: test.event, Repository: "acme/caller", SHA: eventSHA}
			code := Code{Commit: source.Commit{SHA: test.sha}, Workspace: true}
			code.Parents = func(_ context.Context, sha string) ([]string, error) { return workspaceParents[sha], nil }
			assertRefused(t, Check(t.Context(), callerHub, event, code), test.refused)
		})
	}
}

// If anyone can trigger the run, everything comes from the commit: a URL may name a commit of a fork in many ways, and
// other directories may hold an artifact.
func TestSources(t *testing.T) {
	for source, refused := range map[string]string{
		".": "", "app": "", "docker-image://docker.io/library/debian:12": "",
		"https://github.com/acme/caller.git#" + headSHA:              "is fetched from elsewhere",
		"https://github.com/acme/caller/archive/" + headSHA + ".zip": "is fetched from elsewhere",
		"https://github.com/acme/caller.git?ref=" + headSHA:          "is fetched from elsewhere",
		"git@github.com:evil/caller":                                 "is fetched from elsewhere",
		"github.com/evil/caller":                                     "is fetched from elsewhere",
		"HTTPS://github.com/evil/caller.git":                         "is fetched from elsewhere",
		"someone@github.com:evil/caller.git":                         "is fetched from elsewhere",
		"ssh://git@github.com/evil/caller":                           "is fetched from elsewhere",
		"ftp://github.com/evil/caller":                               "is fetched from elsewhere",
		"oci-layout://artifact":                                      "is not a path in the repository",
		"/work/artifact":                                             "is not a path in the repository",
		"../artifact":                                                "is not a path in the repository",
		"app/../../artifact":                                         "is not a path in the repository",
		"app/../lib":                                                 "",
	} {
		t.Run(source, func(t *testing.T) {
			event := runner.Event{Name: "workflow_run", Repository: "acme/caller", SHA: eventSHA}
			code := Code{Commit: commitAt(eventSHA), Sources: []string{source}}
			assertRefused(t, Check(t.Context(), callerHub, event, code), refused)
			event.Name = "push"
			if strings.Contains(source, "acme/caller") {
				refused = "names a commit that may be from a fork"
			} else {
				refused = ""
			}
			assertRefused(t, Check(t.Context(), callerHub, event, code), refused)
		})
	}
}

// In other runs, a URL of the repository is trusted if what it names is.
func TestURLs(t *testing.T) {
	for source, refused := range map[string]string{
		"https://github.com/acme/caller.git":                      "",
		"https://github.com/acme/caller.git#main:app":             "",
		"https://github.com/acme/caller.git#" + eventSHA:          "",
		"https://github.com/acme/caller.git#" + branchSHA:         "",
		"https://github.com/other/tool.git#" + headSHA:            "",
		"https://github.com/acme/caller.git#refs/pull/7/merge":    "may be code from a fork",
		"https://github.com/Acme/Caller.git#pull/7/head:app":      "may be code from a fork",
		"https://github.com/acme/caller.git?ref=refs/pull/7/head": "may be code from a fork",
		"github.com/acme/caller#" + headSHA:                       "names a commit that may be from a fork",
		"someone@github.com:acme/caller.git#" + headSHA:           "names a commit that may be from a fork",
		"git@github.com:acme/caller.git#" + headSHA:               "names a commit that may be from a fork",
		"https://github.com/acme/caller/tarball/" + headSHA:       "names a commit that may be from a fork",
	} {
		t.Run(source, func(t *testing.T) {
			event := runner.Event{Name: "workflow_dispatch", Repository: "acme/caller", SHA: eventSHA}
			code := Code{Commit: commitAt(eventSHA), Sources: []string{source}}
			assertRefused(t, Check(t.Context(), callerHub, event, code), refused)
		})
	}
	// The context of docker/build-push-action in a run of a pull request.
	own := readEvent(t, "pull_request", pullRequestFrom("acme/caller"))
	code := Code{Sources: []string{"https://github.com/acme/caller.git#refs/pull/7/merge"}}
	assertRefused(t, Check(t.Context(), callerHub, own, code), "")
}

func commitAt(sha string) source.Commit { return source.Commit{SHA: sha} }

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
		"acme/caller that the code could read (build it in a workflow triggered by pull_request, or set " +
		"allow_untrusted_ref: true after a review)"
	if err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
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
