package github

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/google/go-github/v62/github"
)

// The lists of a public repository are public; a download always requires actions: read.
func TestArtifactPermissions(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	s.Change(func(o *Options) {
		for name, repository := range map[string]string{"actions": "", "actions-app": "octo/app"} {
			o.JobTokens = append(o.JobTokens, Token{
				Value: name, Repository: repository, Permissions: map[string]string{"actions": "read"},
			})
		}
	})
	for _, test := range []struct {
		name, token  string
		private      bool
		list, status int // 0: success
	}{
		{"private", "actions", true, 0, 0},
		{"private, without the permission", "app-reads", true, 403, 403},
		{"private, of another repository", "lib", true, 404, 404},
		{"private, without a token", "", true, 404, 404},
		{"public", "actions", false, 0, 0},
		{"public, without the permission", "writes", false, 0, 403},
		{"public, of another repository", "actions-app", false, 0, 403},
		{"public, without a token", "", false, 0, 403},
		{"unknown token", "no-such", false, 401, 401},
		{"personal token", "reads", true, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			repository := Repository{Owner: "octo", Name: "lib"}
			if test.private {
				repository.Name = "app"
			}
			run := s.AddRun(repository, Run{Workflow: "ci.yml", Branch: "main"})
			s.AddArtifact(run, Artifact{Name: "report", Archive: []byte("zip")})
			c := client(t, s, test.token)
			_, _, runsErr := c.Actions.ListWorkflowRunsByFileName(t.Context(), "octo", repository.Name, "ci.yml", nil)
			_, _, listErr := c.Actions.ListWorkflowRunArtifacts(t.Context(), "octo", repository.Name, run.ID, nil)
			reader := client(t, s, "reads").Actions
			list, _, err := reader.ListWorkflowRunArtifacts(t.Context(), "octo", repository.Name, run.ID, nil)
			if err != nil || statusOf(runsErr) != test.list || statusOf(listErr) != test.list {
				t.Fatalf("%v; %v; %v", runsErr, listErr, err)
			}
			_, response, err := c.Actions.DownloadArtifact(t.Context(), "octo", repository.Name, list.Artifacts[0].GetID(), 0)
			if (err == nil) != (test.status == 0) || test.status > 0 && response.StatusCode != test.status {
				t.Errorf("the download: %v", err)
			}
		})
	}
}

// statusOf returns the status of a refused request, and 0 without an error.
func statusOf(err error) int {
	if refused := (*api.ErrorResponse)(nil); errors.As(err, &refused) {
		return refused.Response.StatusCode
	}
	return 0
}

func TestListRuns(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	app := Repository{Owner: "octo", Name: "app"}
	for range 31 {
		s.AddRun(app, Run{Workflow: "ci.yml", Branch: "main", Conclusion: "success"})
	}
	s.AddRun(app, Run{Workflow: "ci.yml", Branch: "main", Status: "in_progress", HeadRepository: "you/app"})
	s.AddRun(app, Run{Workflow: "ci.yml", Branch: "other", Conclusion: "failure", HeadDeleted: true})
	other := s.AddRun(app, Run{Workflow: "other.yml", Branch: "main"})
	c := client(t, s, "reads")
	for _, test := range []struct {
		options api.ListWorkflowRunsOptions
		total   int
		numbers []int // of the first runs
		head    string
		next    int // page
	}{
		{api.ListWorkflowRunsOptions{}, 33, []int{33, 32, 31}, "", 2},
		{api.ListWorkflowRunsOptions{Branch: "main", ExcludePullRequests: true}, 32, []int{32, 31, 30}, "you/app", 2},
		{api.ListWorkflowRunsOptions{Branch: "main", Status: "completed"}, 31, []int{31, 30}, "octo/app", 2},
		{api.ListWorkflowRunsOptions{Status: "failure"}, 1, []int{33}, "", 0},
		{api.ListWorkflowRunsOptions{Branch: "none"}, 0, nil, "", 0},
	} {
		runs, response, err := c.Actions.ListWorkflowRunsByFileName(t.Context(), "octo", "app", "ci.yml", &test.options)
		if err != nil || runs.GetTotalCount() != test.total || response.NextPage != test.next {
			t.Errorf("%+v: %d runs, page %d, %v", test.options, runs.GetTotalCount(), response.NextPage, err)
			continue
		}
		var numbers []int
		for _, run := range runs.WorkflowRuns[:len(test.numbers)] {
			numbers = append(numbers, run.GetRunNumber())
		}
		if !slices.Equal(numbers, test.numbers) ||
			len(numbers) > 0 && runs.WorkflowRuns[0].GetHeadRepository().GetFullName() != test.head {
			t.Errorf("%+v: runs %v", test.options, numbers)
		}
	}
	if _, _, err := c.Actions.ListWorkflowRunsByFileName(t.Context(), "octo", "app", "no.yml", nil); statusOf(err) != 404 {
		t.Errorf("unknown workflow: %v", err)
	}
	if other.Number != 1 {
		t.Errorf("the first run of another workflow has the number %d", other.Number)
	}
}

// The storage refuses the token, and a URL after a minute.
func TestDownloadArtifact(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	app := Repository{Owner: "octo", Name: "app"}
	run := s.AddRun(app, Run{Workflow: "ci.yml", Branch: "main"})
	s.AddArtifact(run, Artifact{Name: "expired", Expired: true})
	s.AddArtifact(run, Artifact{Name: "report", Archive: []byte("zip")})
	c := client(t, s, "reads")
	listed, _, err := c.Actions.ListWorkflowRunArtifacts(t.Context(), "octo", "app", run.ID, nil)
	if err != nil || len(listed.Artifacts) != 2 || listed.Artifacts[0].GetName() != "report" ||
		!listed.Artifacts[1].GetExpired() || listed.Artifacts[0].GetSizeInBytes() != 3 {
		t.Fatalf("%v, %v", listed, err)
	}
	download := func(lifetime time.Duration, authorization string) (int, string) {
		s.Change(func(o *Options) { o.DownloadURLLifetime = lifetime })
		location, _, err := c.Actions.DownloadArtifact(t.Context(), "octo", "app", listed.Artifacts[0].GetID(), 0)
		if err != nil || "http://"+location.Host == s.ServerURL() {
			t.Fatalf("%v, %v", location, err)
		}
		response, body := get(t, location.String(), authorization)
		return response.StatusCode, body
	}
	if status, body := download(0, ""); status != 200 || body != "zip" {
		t.Errorf("got %d %q", status, body)
	}
	if status, _ := download(0, "Bearer reads"); status != 400 {
		t.Errorf("with the token: %d", status)
	}
	if status, body := download(-time.Second, ""); status != 403 || !strings.Contains(body, "time frame") {
		t.Errorf("after its lifetime: %d %s", status, body)
	}
	_, response, err := c.Actions.DownloadArtifact(t.Context(), "octo", "app", listed.Artifacts[1].GetID(), 0)
	if err == nil || response.StatusCode != http.StatusGone {
		t.Errorf("an expired artifact: %v", err)
	}
}
