package runner

import (
	"encoding/json"
	"os"
	"strings"
)

// Event is the event that started the run, reduced to the origin of the code that the run handles. Event names and
// payloads:
// https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows
type Event struct {
	Name       string // push, pull_request, …; "" outside of Actions
	Repository string // owner/name of the workflow's repository
	Private    bool   // whether Repository is private
	SHA        string // GITHUB_SHA; for pull_request_target and workflow_run, a commit of Repository itself
	BaseSHA    string // the commit that a pull request is to be merged into

	Pull           int      // number of the pull request that the event is about; 0 for none, or for several
	HeadRepository string   // owner/name that its code comes from; "" if unknown, or if the fork was deleted
	Commits        []string // SHAs of its code: the head, and the merge of head and base
}

// payload is the part of the event's JSON that is read.
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
	FullName string `json:"full_name"`
	Private  bool   `json:"private"`
}

type commitPayload struct {
	SHA  string            `json:"sha"`
	Repo repositoryPayload `json:"repo"`
}

// ReadEvent reads the event from the environment and the file at GITHUB_EVENT_PATH. Fields stay empty when the file
// cannot be read or parsed.
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

// IsExternal reports whether the event's code comes from another repository, or from an unknown one.
func (e Event) IsExternal() bool { return !strings.EqualFold(e.HeadRepository, e.Repository) }

// IsFork reports whether the run is of a pull request from a fork. GitHub gives such a run neither secrets nor an
// OIDC token, unless the settings of a private repository allow it.
func (e Event) IsFork() bool {
	switch e.Name {
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		return e.Pull != 0 && e.IsExternal()
	}
	return false
}

// IsPrivileged reports whether anyone can start such a run, by a pull request or a comment, although it has the
// repository's secrets.
func (e Event) IsPrivileged() bool {
	switch e.Name {
	case "pull_request_target", "workflow_run", "issue_comment":
		return true
	}
	return false
}
