package actions

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/source"
	"github.com/org/sandbox-actions/pkg/summary"
)

// commentTimeout limits how long a comment may delay the end of a run.
const commentTimeout = time.Minute

// comment shows the result in a comment on the run's pull request. Failures are notices, because the job summary shows
// the result, too.
func (j job) comment(ctx context.Context, record *runrecord.Record) {
	switch {
	case !j.Report.Comment.On, record.Run == nil:
		return
	case record.Run.Pull == 0:
		j.Runner.Infof("No comment: the event %s has no pull request", record.Run.Event)
		return
	case ctx.Err() != nil:
		j.Runner.Infof("No comment: the run was canceled")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commentTimeout)
	defer cancel()
	owner, name, _ := strings.Cut(record.Run.Repository, "/")
	token := credentials.GitHubToken(j.Report.GitHubToken, j.Getenv, j.Runner.Mask)
	comment := source.Comment{Key: j.commentKey(j.Report.Comment.Name), Body: summary.Comment(record)}
	comment.Run, _ = strconv.ParseInt(record.Run.ID, 10, 64)
	comment.Attempt, _ = strconv.ParseInt(record.Run.Attempt, 10, 64)
	err := credentials.Repository(owner, name, token, j.Getenv).PutComment(ctx, record.Run.Pull, comment)
	switch {
	case errors.Is(err, source.ErrNewerComment):
		j.Runner.Infof("No comment: a later run has updated it")
	case err != nil:
		j.Runner.Notice(runner.Annotation{Title: "The result is not in a comment", Message: j.commentProblem(err)})
	}
}

// commentKey identifies the comment of a step: steps, jobs and programs that run at the same time write comments of
// their own.
func (e Env) commentKey(name string) string {
	workflow, _, _ := strings.Cut(e.Getenv("GITHUB_WORKFLOW_REF"), "@") // OWNER/NAME/PATH@REF
	// In a composite action, GITHUB_ACTION ends with the ID of the inner step, after that of the outer one.
	step := e.Getenv("GITHUB_ACTION")
	if i := strings.LastIndexByte(step, '.'); i >= 0 {
		step = step[:i]
	}
	values := url.Values{"program": {e.Program}, "workflow": {workflow}, "job": {e.Getenv("GITHUB_JOB")}, "step": {step}}
	if name != "" {
		values.Set("name", name)
	}
	return values.Encode()
}

func (e Env) commentProblem(err error) string {
	status := httpclient.Status(err)
	switch {
	case status != http.StatusForbidden && status != http.StatusNotFound:
		return err.Error()
	case runner.ReadEvent(e.Getenv).IsFork():
		return "GitHub gives a pull request from a fork a token that cannot write; see the job summary"
	}
	return "the GitHub token lacks a permission; add `permissions: pull-requests: write` to the job"
}
