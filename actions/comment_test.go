package actions

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// A run comments on its pull request if it may, and never fails because of it.
func TestComment(t *testing.T) {
	dir := t.TempDir()
	script := "git init -q -b main; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first; " +
		"git update-ref refs/pull/7/head HEAD"
	command := exec.CommandContext(t.Context(), "sh", "-ec", script)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const pull, fork = `{"pull_request":{"number":7,"head":{"repo":{"full_name":"acme/app"}}},"repository":{"full_name":"acme/app"}}`,
		`{"pull_request":{"number":7,"head":{"repo":{"full_name":"else/app"}}},"repository":{"full_name":"acme/app"}}`
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name, event, payload string
		permission           string
		report               inputs.Report
		ctx                  context.Context
		log                  string // of the run
		comments             int
	}{
		{name: "on", event: "pull_request", payload: pull, permission: "write",
			report: inputs.Report{Comment: inputs.Comment{On: true}}, comments: 1},
		{name: "off", event: "pull_request", payload: pull, permission: "write"},
		{name: "push", event: "push", payload: `{}`, permission: "write",
			report: inputs.Report{Comment: inputs.Comment{On: true}}, log: "No comment: the event push has no pull request"},
		{name: "no permission", event: "pull_request", payload: pull, permission: "read",
			report: inputs.Report{Comment: inputs.Comment{On: true}},
			log:    "::notice title=The result is not in a comment::the GitHub token lacks a permission; add `permissions: pull-requests: write`"},
		{name: "fork", event: "pull_request", payload: fork, permission: "read",
			report: inputs.Report{Comment: inputs.Comment{On: true}},
			log:    "::notice title=The result is not in a comment::GitHub gives a pull request from a fork a token that cannot write"},
		{name: "canceled", event: "pull_request", payload: pull, permission: "write", ctx: canceled,
			report: inputs.Report{Comment: inputs.Comment{On: true}}, log: "No comment: the run was canceled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := github.Start(t.Context(), github.Options{
				Repositories: []github.Repository{{Owner: "acme", Name: "app", Dir: dir}},
				JobTokens: []github.Token{{Value: readToken, Permissions: map[string]string{
					"contents": "read", "pull-requests": test.permission,
				}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			files := t.TempDir()
			payload, summary := filepath.Join(files, "event.json"), filepath.Join(files, "summary")
			if err := os.WriteFile(payload, []byte(test.payload), 0o600); err != nil {
				t.Fatal(err)
			}
			job, stdout, stderr := testJob(t, map[string]string{
				"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": test.event, "GITHUB_EVENT_PATH": payload,
				"GITHUB_REPOSITORY": "acme/app", "GITHUB_API_URL": s.APIURL(), "GITHUB_SERVER_URL": s.ServerURL(),
				"GITHUB_RUN_ID": "42", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "image", "GITHUB_ACTION": "build.__run",
				"GITHUB_WORKFLOW_REF": "acme/app/.github/workflows/ci.yml@refs/heads/main", "GITHUB_STEP_SUMMARY": summary,
			})
			job.Program, job.Report = "action-build", test.report
			job.Report.GitHubToken = readToken
			if test.ctx == nil {
				test.ctx = t.Context()
			}
			run := runrecord.Record{Image: &runrecord.Image{Names: []string{"app:ci"}}}
			if err := job.present(test.ctx, run, nil); err != nil {
				t.Error(err)
			}
			if log := stdout.String() + stderr.String(); !strings.Contains(log, test.log) ||
				strings.Contains(log, "not in a comment") != strings.Contains(test.log, "not in a comment") {
				t.Errorf("the log is\n%s", log)
			}
			if !strings.HasPrefix(contentOf(t, summary), "### ✅ Built `app:ci`\n") {
				t.Errorf("the summary is\n%s", contentOf(t, summary))
			}
			comments := s.Comments("acme", "app")
			if len(comments) != test.comments {
				t.Fatalf("got %d comments", len(comments))
			}
			const first = "<!-- sandbox-actions job=image&program=action-build&step=build&" +
				"workflow=acme%2Fapp%2F.github%2Fworkflows%2Fci.yml run=42.1 -->\n### ✅ Built `app:ci`\n"
			if test.comments > 0 && !strings.HasPrefix(comments[0].Body, first) {
				t.Errorf("the comment is\n%s", comments[0].Body)
			}
		})
	}
}

// DOCKER_BUILD_SUMMARY turns the summary off, also that of a failure.
func TestSummaryOff(t *testing.T) {
	summary := filepath.Join(t.TempDir(), "summary")
	for value, want := range map[string]bool{"false": false, "0": false, "": true, "true": true, "maybe": true} {
		if err := os.RemoveAll(summary); err != nil {
			t.Fatal(err)
		}
		job, _, _ := testJob(t, map[string]string{"GITHUB_STEP_SUMMARY": summary, "DOCKER_BUILD_SUMMARY": value})
		_ = job.present(t.Context(), runrecord.Record{}, os.ErrClosed)
		if _, err := os.Stat(summary); (err == nil) != want {
			t.Errorf("%q: %v", value, err)
		}
	}
}
