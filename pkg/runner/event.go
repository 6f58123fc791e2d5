package runner

import (
	"encoding/json"
	"os"
	"strings"
)

// Event is what started the run, as far as it says whose code is at hand. Names and payloads:
// https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows
type Event struct {
	Name       string // push, pull_request, …; "" outside of Actions
	Repository string // owner/name that the run is of
	Private    bool   // and whether that is private
	SHA        string // the commit that the run is of: of pull_request_target and workflow_run, one of the repository's own
	Base       string // the commit that a pull request is to be merged into

	Pull    int      // number of the pull request that the event is about; 0 for none
	Head    string   // owner/name that its code comes from; "" where the event does not say, or the fork is gone
	Commits []string // of that code: the head, and its merge with the base
}

// ReadEvent reads the event from the file at GITHUB_EVENT_PATH. What can not be read there stays empty.
func ReadEvent(getenv func(string) string) Event {
	e := Event{Name: getenv("GITHUB_EVENT_NAME"), Repository: getenv("GITHUB_REPOSITORY"), SHA: getenv("GITHUB_SHA")}
	type repository struct {
		FullName string `json:"full_name"`
		Private  bool   `json:"private"`
	}
	type commit struct {
		SHA  string     `json:"sha"`
		Repo repository `json:"repo"`
	}
	var payload struct {
		Repository repository `json:"repository"`
		Pull       *struct {
			Number int    `json:"number"`
			Head   commit `json:"head"`
			Base   commit `json:"base"`
			Merge  string `json:"merge_commit_sha"`
		} `json:"pull_request"`
		Run *struct {
			SHA   string     `json:"head_sha"`
			Head  repository `json:"head_repository"`
			Pulls []struct {
				Number int `json:"number"`
			} `json:"pull_requests"`
		} `json:"workflow_run"`
		Issue *struct {
			Number int              `json:"number"`
			Pull   *json.RawMessage `json:"pull_request"`
		} `json:"issue"`
	}
	data, err := os.ReadFile(getenv("GITHUB_EVENT_PATH"))
	if err != nil || json.Unmarshal(data, &payload) != nil {
		return e
	}
	if payload.Repository.FullName != "" {
		e.Repository, e.Private = payload.Repository.FullName, payload.Repository.Private
	}
	switch {
	case payload.Pull != nil:
		pull := payload.Pull
		e.Pull, e.Head, e.Base, e.Commits = pull.Number, pull.Head.Repo.FullName, pull.Base.SHA, known(pull.Head.SHA, pull.Merge)
	case payload.Run != nil:
		e.Head, e.Commits = payload.Run.Head.FullName, known(payload.Run.SHA)
		if len(payload.Run.Pulls) == 1 {
			e.Pull = payload.Run.Pulls[0].Number
		}
	case payload.Issue != nil && payload.Issue.Pull != nil:
		e.Pull = payload.Issue.Number
	case payload.Issue != nil:
		e.Head = e.Repository
	}
	return e
}

func known(shas ...string) (list []string) {
	for _, sha := range shas {
		if sha != "" {
			list = append(list, sha)
		}
	}
	return list
}

// Foreign says that the event's code is another repository's, or nobody knows whose.
func (e Event) Foreign() bool { return !strings.EqualFold(e.Head, e.Repository) }

// Fork says that the run is of a pull request from a fork: GitHub gives it no secrets and no OIDC token, unless a private repository's settings
// say otherwise.
func (e Event) Fork() bool {
	switch e.Name {
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		return e.Pull != 0 && e.Foreign()
	}
	return false
}

// Privileged says that anybody can start such a run, by a pull request or a comment, and that it has the repository's secrets all the same.
func (e Event) Privileged() bool {
	switch e.Name {
	case "pull_request_target", "workflow_run", "issue_comment":
		return true
	}
	return false
}
