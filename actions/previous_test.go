package actions

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// zipped returns an archive with a file of the name.
func zipped(t *testing.T, name, content string) []byte {
	t.Helper()
	var data bytes.Buffer
	writer := zip.NewWriter(&data)
	file, err := writer.Create(name)
	if err == nil {
		_, err = file.Write([]byte(content))
	}
	if err := errors.Join(err, writer.Close()); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// earlierRun returns the archive of the report of a run.
func earlierRun(t *testing.T, digest string) []byte {
	t.Helper()
	record := runrecord.Record{
		Format: runrecord.Version, Started: time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC),
		Run: &runrecord.Run{Repository: "acme/app", ID: "4711", Branch: "main"},
	}
	if digest != "" {
		record.Image = &runrecord.Image{Digest: digest, Names: []string{"hunter2-canary\a"}}
	}
	var data bytes.Buffer
	if err := record.Write(&data); err != nil {
		t.Fatal(err)
	}
	return zipped(t, recordFile, data.String())
}

// A run is compared with the last image of its branch, or of the branch that it will be merged into. What prevents that
// is one line in the log.
func TestPreviousArtifact(t *testing.T) {
	const zip = "/zip"
	type artifact struct {
		branch  string // default: main
		name    string // default: report-1
		archive []byte
	}
	image := func(digest string) []byte { return earlierRun(t, digest) }
	for _, test := range []struct {
		name      string
		artifacts []artifact // of successive runs
		env       map[string]string
		token     string // default: one with actions: read
		faults    []github.Fault
		local     string // digest in the directory of the report
		want      string // digest; "" for none
		log       string // part of the log; "" for nothing
	}{
		{name: "last run of the branch", artifacts: []artifact{
			{archive: image("sha256:1")}, {archive: image("sha256:2")}, {branch: "other", archive: image("sha256:3")},
		}, local: "sha256:9", want: "sha256:2"},
		{name: "last run without an image", artifacts: []artifact{
			{archive: image("sha256:1")}, {archive: image("")}, {archive: []byte("garbage")}, {archive: nil},
			{archive: zipped(t, "else.json", "{}")},
		}, want: "sha256:1"},
		{name: "without an image only", artifacts: []artifact{{archive: image("")}}, local: "sha256:9", want: "sha256:9",
			log: "No earlier record from the artifact report: read artifact report-1 of run 1: the record has no image"},
		{name: "malformed only", artifacts: []artifact{{archive: []byte("garbage")}}, log: "not a valid zip file"},
		{name: "base of a pull request", artifacts: []artifact{{archive: image("sha256:1")}}, want: "sha256:1",
			env: map[string]string{"GITHUB_HEAD_REF": "feature", "GITHUB_BASE_REF": "main"}},
		{name: "default branch", artifacts: []artifact{{branch: "trunk", archive: image("sha256:1")}}, want: "sha256:1"},
		{name: "no runs", log: "list the runs of ci.yml on main in acme/app: GitHub returned 404 Not Found"},
		{name: "no artifact", artifacts: []artifact{{name: "else", archive: image("sha256:1")}},
			log: "no earlier run of ci.yml on main or trunk has uploaded it"},
		{name: "another repository's workflow", log: "GITHUB_WORKFLOW_REF",
			env: map[string]string{"GITHUB_WORKFLOW_REF": "else/app/.github/workflows/ci.yml@refs/heads/main"}},
		{name: "outside GitHub Actions", log: "GITHUB_WORKFLOW_REF",
			env: map[string]string{"GITHUB_WORKFLOW_REF": "", "GITHUB_REPOSITORY": ""}},
		{name: "without the permission", artifacts: []artifact{{archive: image("sha256:1")}}, token: "no-actions",
			log: "Resource not accessible by integration (add `permissions: actions: read` to the job)"},
		{name: "expired after the list", faults: []github.Fault{{Path: zip, Times: 1, Status: http.StatusGone}},
			artifacts: []artifact{{archive: image("sha256:1")}, {archive: image("sha256:2")}}, want: "sha256:1"},
		{name: "unknown token", token: "no-such", log: "401 Unauthorized"},
		{name: "garbage", artifacts: []artifact{{archive: image("sha256:1")}}, log: "a web page",
			faults: []github.Fault{{Path: "/workflows/", Status: http.StatusOK, Body: "<html>"}}},
		{name: "rate limit", log: "its own rate limit",
			faults: []github.Fault{github.PrimaryLimit(http.StatusForbidden, time.Now().Add(time.Hour))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := github.Repository{Owner: "acme", Name: "app", Dir: t.TempDir()}
			s, err := github.Start(t.Context(), github.Options{
				Repositories: []github.Repository{app},
				JobTokens: []github.Token{
					{Value: readToken, Permissions: map[string]string{"actions": "read"}}, {Value: "no-actions"},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, a := range test.artifacts {
				run := github.Run{Workflow: "ci.yml", Branch: a.branch}
				if a.branch == "" {
					run.Branch = "main"
				}
				if a.name == "" {
					a.name = "report-1"
				}
				s.AddArtifact(s.AddRun(app, run), github.Artifact{Name: a.name, Archive: a.archive})
			}
			for _, fault := range test.faults {
				s.Fail(fault)
			}
			event := filepath.Join(t.TempDir(), "event.json")
			if err := os.WriteFile(event, []byte(`{"repository": {"default_branch": "trunk"}}`), 0o600); err != nil {
				t.Fatal(err)
			}
			env := map[string]string{
				"GITHUB_REPOSITORY": "acme/app", "GITHUB_API_URL": s.APIURL(), "GITHUB_EVENT_PATH": event,
				"GITHUB_WORKFLOW_REF": "acme/app/.github/workflows/ci.yml@refs/heads/main", "GITHUB_RUN_NUMBER": "99",
				"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main",
			}
			maps.Copy(env, test.env)
			job, _, stderr := testJob(t, env)
			job.Runner.Mask("hunter2-canary")
			report := inputs.Report{Dir: "results", Artifact: "report", GitHubToken: readToken}
			if test.token != "" {
				report.GitHubToken = test.token
			}
			if test.local != "" {
				writeLocalRecord(t, job, test.local)
			}
			wait := job.startPrevious(t.Context(), report)
			got := wait()
			switch {
			case wait() != got:
				t.Error("the second call returned another record")
			case (got != nil) != (test.want != "") || got != nil && got.Image.Digest != test.want:
				t.Errorf("got %+v", got)
			case test.log == "" && stderr.Len() > 0, strings.Count(stderr.String(), "\n") > 1,
				!strings.Contains(stderr.String(), test.log):
				t.Errorf("the log is\n%s", stderr)
			case got != nil && test.want != test.local && got.Image.Names[0] != "***␇":
				t.Errorf("the record was not cleaned: %q", got.Image.Names)
			}
		})
	}
}

// writeLocalRecord writes a record to the directory of the report.
func writeLocalRecord(t *testing.T, j job, digest string) {
	t.Helper()
	path := j.absolute(filepath.Join("results", recordFile))
	record := runrecord.Record{Format: runrecord.Version, Image: &runrecord.Image{Digest: digest}}
	var data bytes.Buffer
	err := errors.Join(record.Write(&data), os.MkdirAll(filepath.Dir(path), 0o755))
	if err := errors.Join(err, os.WriteFile(path, data.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// A canceled run does not wait for a server that does not answer, and a run waits for a limited time.
func TestPreviousArtifactSilence(t *testing.T) {
	app := github.Repository{Owner: "acme", Name: "app", Dir: t.TempDir()}
	s, err := github.Start(t.Context(), github.Options{Repositories: []github.Repository{app}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Fail(github.Fault{NoResponse: true})
	job, _, stderr := testJob(t, map[string]string{
		"GITHUB_REPOSITORY": "acme/app", "GITHUB_API_URL": s.APIURL(), "GITHUB_RUN_NUMBER": "1", "GITHUB_HEAD_REF": "main",
		"GITHUB_WORKFLOW_REF": "acme/app/.github/workflows/ci.yml@refs/heads/main",
	})
	ctx, cancel := context.WithCancel(t.Context())
	wait := job.startPrevious(ctx, inputs.Report{Dir: "results", Artifact: "report"})
	cancel()
	if record := wait(); record != nil || stderr.Len() > 0 {
		t.Errorf("got %+v, log %q", record, stderr)
	}
	limited, cancel := context.WithTimeoutCause(t.Context(), 0, errors.New("too late"))
	defer cancel()
	if record, err := job.downloadPrevious(limited, "report", ""); record != nil || err == nil ||
		err.Error() != "too late" {
		t.Errorf("got %+v, %v", record, err)
	}
}

func TestPreviousBranches(t *testing.T) {
	for _, test := range []struct {
		name  string
		event runner.Event
		env   map[string]string
		want  []string
	}{
		{"push", runner.Event{Default: "main"}, map[string]string{"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "a/b"},
			[]string{"a/b", "main"}},
		{"push to the default branch", runner.Event{Default: "main"},
			map[string]string{"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"}, []string{"main"}},
		{"schedule without a payload", runner.Event{},
			map[string]string{"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"}, []string{"main"}},
		{"tag", runner.Event{Default: "main"}, map[string]string{"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1"},
			[]string{"main"}},
		{"pull request", runner.Event{Pull: 7, Repository: "acme/app", HeadRepository: "acme/app", Default: "main"},
			map[string]string{"GITHUB_HEAD_REF": "topic", "GITHUB_BASE_REF": "release", "GITHUB_REF_TYPE": "branch",
				"GITHUB_REF_NAME": "7/merge"}, []string{"topic", "release"}},
		{"pull request of a fork's main", runner.Event{Pull: 7, Repository: "acme/app", HeadRepository: "you/app"},
			map[string]string{"GITHUB_HEAD_REF": "main", "GITHUB_BASE_REF": "release"}, []string{"release"}},
		{"unknown", runner.Event{}, nil, nil},
	} {
		got := previousBranches(test.event, func(name string) string { return test.env[name] })
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestWorkflowFile(t *testing.T) {
	for ref, want := range map[string]string{
		"acme/app/.github/workflows/ci.yml@refs/heads/main":            "ci.yml",
		"Acme/App/.github/workflows/a@b.yml@refs/pull/7/merge":         "a@b.yml",
		"acme/app/.github/workflows/ci.yml@refs/heads/x@refs/heads/y":  "ci.yml",
		"else/app/.github/workflows/ci.yml@refs/heads/main":            "",
		"acme/app/.github/workflows/@refs/heads/main":                  "",
		"acme/app/dynamic/github-code-scanning/codeql@refs/heads/main": "",
		"": "",
	} {
		if got, ok := workflowFile(ref, "acme/app"); ok != (want != "") || ok && got != want {
			t.Errorf("%s: got %q, want %q", ref, got, want)
		}
	}
}
