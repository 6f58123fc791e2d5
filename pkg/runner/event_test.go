package runner

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestReadEvent(t *testing.T) {
	const repository = `"repository": {"full_name": "acme/app", "private": true}`
	fork := Event{Repository: "acme/app", Private: true, Pull: 7, HeadRepository: "you/app", Commits: []string{"h"}}
	for _, test := range []struct {
		name, event, payload       string
		want                       Event
		external, fork, privileged bool
	}{
		{
			name: "push", event: "push",
			payload: `{"repository": {"full_name": "acme/app", "default_branch": "trunk"}, "ref": "refs/heads/main"}`,
			want:    Event{Repository: "acme/app", Default: "trunk"}, external: true,
		},
		{
			name: "pull request of a branch", event: "pull_request",
			payload: `{` + repository + `, "pull_request": {"number": 7, "merge_commit_sha": "m",
				"head": {"sha": "h", "repo": {"full_name": "acme/app"}}, "base": {"sha": "b"}}}`,
			want: Event{
				Repository: "acme/app", Private: true, Pull: 7, HeadRepository: "acme/app",
				BaseSHA: "b", Commits: []string{"h", "m"},
			},
		},
		{
			name: "pull request of a fork without a merge commit", event: "pull_request",
			payload: `{` + repository + `, "pull_request": {"number": 7, "merge_commit_sha": null,
				"head": {"sha": "h", "repo": {"full_name": "you/app"}}}}`,
			want: fork, external: true, fork: true,
		},
		{
			name: "review of a deleted fork's pull request", event: "pull_request_review",
			payload: `{` + repository + `, "pull_request": {"number": 7, "head": {"sha": "h", "repo": null}}}`,
			want:    Event{Repository: "acme/app", Private: true, Pull: 7, Commits: []string{"h"}}, external: true, fork: true,
		},
		{
			name: "review comment on a fork's pull request", event: "pull_request_review_comment",
			payload: `{` + repository + `, "comment": {"id": 1}, "pull_request": {"number": 7,
				"head": {"sha": "h", "repo": {"full_name": "you/app"}}}}`,
			want: fork, external: true, fork: true,
		},
		{
			name: "pull_request_target of a fork", event: "pull_request_target",
			payload: `{` + repository + `, "pull_request": {"number": 7,
				"head": {"sha": "h", "repo": {"full_name": "you/app"}}}}`,
			want: fork, external: true, privileged: true,
		},
		{
			name: "workflow_run of one pull request", event: "workflow_run",
			payload: `{` + repository + `, "workflow_run": {"head_sha": "h", "head_repository": {"full_name": "Acme/App"},
				"pull_requests": [{"number": 7}]}}`,
			want: Event{
				Repository: "acme/app", Private: true, Pull: 7, HeadRepository: "Acme/App", Commits: []string{"h"},
			},
			privileged: true,
		},
		{
			name: "workflow_run of several pull requests", event: "workflow_run",
			payload: `{` + repository + `, "workflow_run": {"head_sha": "h", "head_repository": {"full_name": "acme/app"},
				"pull_requests": [{"number": 7}, {"number": 8}]}}`,
			want:       Event{Repository: "acme/app", Private: true, HeadRepository: "acme/app", Commits: []string{"h"}},
			privileged: true,
		},
		{
			name: "workflow_run of a fork, which lists no pull requests", event: "workflow_run",
			payload: `{` + repository + `, "workflow_run": {"head_sha": "h", "head_repository": {"full_name": "you/app"},
				"pull_requests": []}}`,
			want:     Event{Repository: "acme/app", Private: true, HeadRepository: "you/app", Commits: []string{"h"}},
			external: true, privileged: true,
		},
		{
			name: "comment on a pull request", event: "issue_comment",
			payload: `{` + repository + `, "issue": {"number": 7, "pull_request": {}}}`,
			want:    Event{Repository: "acme/app", Private: true, Pull: 7}, external: true, privileged: true,
		},
		{
			name: "comment on an issue", event: "issue_comment", payload: `{` + repository + `, "issue": {"number": 7}}`,
			want: Event{Repository: "acme/app", Private: true, HeadRepository: "acme/app"}, privileged: true,
		},
		{
			name: "truncated JSON", event: "pull_request_target", payload: `{`,
			want: Event{Repository: "of/env"}, external: true, privileged: true,
		},
		{
			name: "unexpected type", event: "pull_request", payload: `{"pull_request": "seven"}`,
			want: Event{Repository: "of/env"}, external: true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "event.json")
			if err := os.WriteFile(file, []byte(test.payload), 0o600); err != nil {
				t.Fatal(err)
			}
			environ := map[string]string{
				"GITHUB_EVENT_NAME": test.event, "GITHUB_EVENT_PATH": file, "GITHUB_REPOSITORY": "of/env", "GITHUB_SHA": "s",
			}
			test.want.Name, test.want.SHA = test.event, "s"
			e := ReadEvent(func(name string) string { return environ[name] })
			if !reflect.DeepEqual(e, test.want) {
				t.Errorf("got\n%+v\nwant\n%+v", e, test.want)
			}
			if e.IsExternal() != test.external || e.IsFork() != test.fork || e.IsPrivileged() != test.privileged {
				t.Errorf("external %t, fork %t, privileged %t", e.IsExternal(), e.IsFork(), e.IsPrivileged())
			}
		})
	}
	if e := ReadEvent(func(string) string { return "" }); !reflect.DeepEqual(e, Event{}) {
		t.Errorf("outside of Actions: %+v", e)
	}
}
