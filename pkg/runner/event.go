package runner

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Event describes the event that triggered the run and the origin of its code. For event names and payloads, see
// https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows
type Event struct {
	Name       string // push, pull_request, …; "" outside GitHub Actions
	Repository string // owner/name of the workflow's repository
	Private    bool   // whether Repository is private
	Default    string // default branch of Repository; "" if unknown
	SHA        string // GITHUB_SHA; for pull_request_target and workflow_run, a commit of Repository itself
	BaseSHA    string // head of the pull request's base branch

	Pull           int      // number of the event's pull request; 0 for none or several
	HeadRepository string   // owner/name of the repository of its code; "" if unknown or deleted
	Commits        []string // SHAs of its code: the head, and its merge with the base
}

// payload contains the fields of the event's JSON that Event needs.
type payload struct {
	Repository  repositoryPayload `json:"repository"`
	PullRequest *struct {
		Number   int           `json:"number"`
		Head     commitPayload `json:"head"`
		Base     commitPayload `json:"base"`
		MergeSHA string        `json:"merge_commit_sha"`
	} `json:"pull_request"`
	WorkflowRun *struct {
		HeadSHA        string            `json:"head_sha"`
		HeadRepository repositoryPayload `json:"head_repository"`
		PullRequests   []struct {
			Number int `json:"number"`
		} `json:"pull_requests"`
	} `json:"workflow_run"`
	Issue *struct {
		Number      int              `json:"number"`
		PullRequest *json.RawMessage `json:"pull_request"` // present if the issue is a pull request
	} `json:"issue"`
}

type repositoryPayload struct {
	FullName      string `json:"full_name"`
	Private       bool   `json:"private"`
	DefaultBranch string `json:"default_branch"`
}

type commitPayload struct {
	SHA  string            `json:"sha"`
	Repo repositoryPayload `json:"repo"`
}

// ReadEvent reads the event from the environment and the file at GITHUB_EVENT_PATH. If the file cannot be read or
// parsed, only the fields from the environment are set.
func ReadEvent(getenv func(string) string) Event {
	e := Event{Name: getenv("GITHUB_EVENT_NAME"), Repository: getenv("GITHUB_REPOSITORY"), SHA: getenv("GITHUB_SHA")}
	var p payload
	data, err := os.ReadFile(getenv("GITHUB_EVENT_PATH"))
	if err != nil || json.Unmarshal(data, &p) != nil {
		return e
	}
	if p.Repository.FullName != "" {
		e.Repository, e.Private = p.Repository.FullName, p.Repository.Private
	}
	e.Default = p.Repository.DefaultBranch
	switch {
	case p.PullRequest != nil:
		e.Pull = p.PullRequest.Number
		e.HeadRepository = p.PullRequest.Head.Repo.FullName
		e.BaseSHA = p.PullRequest.Base.SHA
		e.Commits = nonEmpty(p.PullRequest.Head.SHA, p.PullRequest.MergeSHA)
	case p.WorkflowRun != nil:
		e.HeadRepository = p.WorkflowRun.HeadRepository.FullName
		e.Commits = nonEmpty(p.WorkflowRun.HeadSHA)
		if len(p.WorkflowRun.PullRequests) == 1 {
			e.Pull = p.WorkflowRun.PullRequests[0].Number
		}
	case p.Issue != nil && p.Issue.PullRequest != nil:
		e.Pull = p.Issue.Number
	case p.Issue != nil:
		e.HeadRepository = e.Repository
	}
	return e
}

func nonEmpty(values ...string) (list []string) {
	for _, value := range values {
		if value != "" {
			list = append(list, value)
		}
	}
	return list
}

// IsExternal reports whether the event's code comes from another or an unknown repository.
func (e Event) IsExternal() bool { return !strings.EqualFold(e.HeadRepository, e.Repository) }

// IsFork reports whether a pull request from a fork triggered the run. GitHub provides neither secrets nor OIDC tokens
// to such a run, unless the settings of a private repository allow it.
func (e Event) IsFork() bool {
	switch e.Name {
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		return e.Pull != 0 && e.IsExternal()
	}
	return false
}

// IsPrivileged reports whether the event gives a run the repository's secrets although anyone can trigger it, with a
// pull request, an issue or a comment. Only people with write access trigger the other events, or the run has no
// secrets, see [Event.IsFork]. An unknown event counts as privileged.
func (e Event) IsPrivileged() bool {
	switch e.Name {
	case "", "create", "delete", "merge_group", "pull_request", "pull_request_review", "pull_request_review_comment",
		"push", "release", "schedule", "workflow_dispatch":
		return false
	}
	return true
}

// PullRef returns the ref of the merge of the event's pull request.
func (e Event) PullRef() string { return fmt.Sprintf("refs/pull/%d/merge", e.Pull) }
