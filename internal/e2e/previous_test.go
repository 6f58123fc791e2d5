//go:build linux

package e2e

import (
	"archive/zip"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// The second build of a branch is compared with the first one, whose report is an artifact.
func TestPreviousArtifact(t *testing.T) {
	e := setup(t)
	const workflow, token = "compared.yml", "ghs_reads_actions"
	e.GitHub.Change(func(o *github.Options) {
		o.JobTokens = append(o.JobTokens, github.Token{
			Value: token, Repository: callerRepository, Permissions: values{"contents": "read", "actions": "read"},
		})
	})
	repository := github.Repository{Owner: "acme", Name: "caller"}
	build := func(content string) (result, *runrecord.Record, github.Run) {
		run := e.GitHub.AddRun(repository, github.Run{Workflow: workflow, Branch: "topic", Status: "in_progress"})
		dir := t.TempDir()
		r := e.mustRun(t, invocation{
			dockerfile: fromDebian + "RUN echo " + content + " > /content\n",
			inputs: values{
				"report": "true", "report_dir": dir, "previous_artifact": "report", "github_token": token, "load": "false",
			},
			env: values{
				"GITHUB_WORKFLOW_REF": callerRepository + "/.github/workflows/" + workflow + "@refs/heads/topic",
				"GITHUB_REF_TYPE":     "branch", "GITHUB_REF_NAME": "topic", "GITHUB_RUN_ID": strconv.FormatInt(run.ID, 10),
				"GITHUB_RUN_NUMBER": strconv.Itoa(run.Number), "GITHUB_RUN_ATTEMPT": "1",
			},
		})
		e.GitHub.AddArtifact(run, github.Artifact{Name: "report-1", Archive: archive(t, dir)})
		record, err := runrecord.Read(strings.NewReader(read(t, filepath.Join(dir, "record.json"))))
		if err != nil {
			t.Fatal(err)
		}
		return r, record, run
	}
	r, first, run := build("one")
	if first.Changes != nil || !strings.Contains(r.stdout, "no earlier run of compared.yml on topic has uploaded it") {
		t.Errorf("the first build is compared with %+v:\n%s", first.Changes, r.stdout)
	}
	r, second, _ := build("twelve")
	want := []runrecord.FileChange{{Path: "content", Before: 4, After: 7}}
	if c := second.Changes; c == nil || c.Digest != first.Image.Digest || !slices.Equal(c.Platforms[0].Files, want) {
		t.Errorf("the second build is compared with %+v:\n%s", second.Changes, r.stdout)
	}
	compared := "/acme/caller/actions/runs/" + strconv.FormatInt(run.ID, 10) + ") on `topic`.\n"
	if !strings.Contains(r.summary, "#### Changes since ") || !strings.Contains(r.summary, compared) {
		t.Errorf("the summary is\n%s", r.summary)
	}
}

// archive returns a zip archive of a directory.
func archive(t *testing.T, dir string) []byte {
	t.Helper()
	var data bytes.Buffer
	writer := zip.NewWriter(&data)
	err := writer.AddFS(os.DirFS(dir))
	if err := errors.Join(err, writer.Close()); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}
