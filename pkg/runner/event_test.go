package runner

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestReadEvent(t *testing.T) {
	const repository = `"repository": {"full_name": "acme/app", "private": true}`
	for _, test := range []struct {
		name, event, payload      string
		want                      Event
		foreign, fork, privileged bool
	}{
		{name: "push", event: "push", payload: `{` + repository + `, "ref": "refs/heads/main"}`, want: Event{Repository: "acme/app", Private: true}, foreign: true},
		{name: "pull request", event: "pull_request", payload: `{` + repository + `, "pull_request": {"number": 7, "merge_commit_sha": "m", "head": {"sha": "h", "repo": {"full_name": "acme/app"}}, "base": {"sha": "b"}}}`,
			want: Event{Repository: "acme/app", Private: true, Pull: 7, Head: "acme/app", Base: "b", Commits: []string{"h", "m"}}},
		{name: "pull request of a fork, not merged yet", event: "pull_request", payload: `{` + repository + `, "pull_request": {"number": 7, "merge_commit_sha": null, "head": {"sha": "h", "repo": {"full_name": "you/app"}}}}`,
			want: Event{Repository: "acme/app", Private: true, Pull: 7, Head: "you/app", Commits: []string{"h"}}, foreign: true, fork: true},
		{name: "pull request of a fork that is gone", event: "pull_request_review", payload: `{` + repository + `, "pull_request": {"number": 7, "head": {"sha": "h", "repo": null}}}`,
			want: Event{Repository: "acme/app", Private: true, Pull: 7, Commits: []string{"h"}}, foreign: true, fork: true},
		{name: "target", event: "pull_request_target", payload: `{` + repository + `, "pull_request": {"number": 7, "head": {"sha": "h", "repo": {"full_name": "you/app"}}}}`,
			want: Event{Repository: "acme/app", Private: true, Pull: 7, Head: "you/app", Commits: []string{"h"}}, foreign: true, privileged: true},
		{name: "after a run", event: "workflow_run", payload: `{` + repository + `, "workflow_run": {"head_sha": "h", "head_repository": {"full_name": "Acme/App"}, "pull_requests": [{"number": 7}]}}`,
			want: Event{Repository: "acme/app", Private: true, Pull: 7, Head: "Acme/App", Commits: []string{"h"}}, privileged: true},
		{name: "comment on a pull request", event: "issue_comment", payload: `{` + repository + `, "issue": {"number": 7, "pull_request": {}}}`,
			want: Event{Repository: "acme/app", Private: true, Pull: 7}, foreign: true, privileged: true},
		{name: "comment on an issue", event: "issue_comment", payload: `{` + repository + `, "issue": {"number": 7}}`,
			want: Event{Repository: "acme/app", Private: true, Head: "acme/app"}, privileged: true},
		{name: "garbage", event: "pull_request_target", payload: `{`, want: Event{Repository: "of/env"}, foreign: true, privileged: true},
		{name: "other types", event: "pull_request", payload: `{"pull_request": "seven"}`, want: Event{Repository: "of/env"}, foreign: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "event.json")
			if err := os.WriteFile(file, []byte(test.payload), 0o600); err != nil {
				t.Fatal(err)
			}
			environ := map[string]string{"GITHUB_EVENT_NAME": test.event, "GITHUB_EVENT_PATH": file, "GITHUB_REPOSITORY": "of/env", "GITHUB_SHA": "s"}
			test.want.Name, test.want.SHA = test.event, "s"
			e := ReadEvent(func(name string) string { return environ[name] })
			if !reflect.DeepEqual(e, test.want) {
				t.Errorf("got\n%+v\nwant\n%+v", e, test.want)
			}
			if e.Foreign() != test.foreign || e.Fork() != test.fork || e.Privileged() != test.privileged {
				t.Errorf("foreign %t, fork %t, privileged %t", e.Foreign(), e.Fork(), e.Privileged())
			}
		})
	}
	if e := ReadEvent(func(string) string { return "" }); !reflect.DeepEqual(e, Event{}) {
		t.Errorf("outside of Actions: %+v", e)
	}
}
