package source

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	standin "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

const (
	actionsToken = "actions-token"
	noActions    = "no-actions-token"
)

// startRuns starts a stand-in with a private and a public repository, and returns it with a client for the first one.
func startRuns(t *testing.T) (*standin.Server, standin.Repository, Repository) {
	t.Helper()
	app := standin.Repository{Owner: "octo", Name: "app", Dir: t.TempDir(), Private: true}
	s, err := standin.Start(t.Context(), standin.Options{
		Repositories: []standin.Repository{app, {Owner: "octo", Name: "public", Dir: app.Dir}},
		JobTokens: []standin.Token{
			{Value: actionsToken, Permissions: map[string]string{"contents": "read", "actions": "read"}},
			{Value: noActions, Permissions: map[string]string{"contents": "read"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, app, Repository{
		Owner: "octo", Name: "app", Token: actionsToken, APIURL: s.APIURL(), ServerURL: s.ServerURL(),
		HTTP: httpclient.Config{Clock: &fakeclock.Clock{}},
	}
}

// artifactNames returns the names of the artifacts that a query selects.
func artifactNames(t *testing.T, r Repository, q ArtifactQuery) (names []string) {
	t.Helper()
	for a, err := range r.Artifacts(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, a.Name)
	}
	return names
}

func TestArtifacts(t *testing.T) {
	s, app, client := startRuns(t)
	add := func(run standin.Run, names ...string) {
		if run.Workflow == "" {
			run.Workflow = "ci.yml"
		}
		added := s.AddRun(app, run)
		for _, name := range names {
			name, isExpired := strings.CutSuffix(name, " (expired)")
			s.AddArtifact(added, standin.Artifact{Name: name, Expired: isExpired})
		}
	}
	const fork, deleted = "fork", "deleted"
	add(standin.Run{Branch: "main"}, "report-99")
	add(standin.Run{Branch: "attempts"}, "report", "report-1", "report-10", "report-9", "report-2 (expired)")
	add(standin.Run{Branch: "others"},
		"report-", "report-x", "report-0", "report-01", "report--1", "report-1-1", "reports", "Report")
	add(standin.Run{Branch: "latest", Conclusion: "success"}, "report-1")
	add(standin.Run{Branch: "latest", Conclusion: "failure"}, "report-2")
	add(standin.Run{Branch: "latest", Status: "in_progress"}, "report-3")
	add(standin.Run{Branch: "latest", Workflow: "other.yml"}, "report-4")
	add(standin.Run{Branch: "latest", HeadRepository: "you/app"}, "report-5")
	add(standin.Run{Branch: "latest", HeadDeleted: true}, "report-6")
	for _, branch := range []string{fork, deleted, "many"} {
		add(standin.Run{Branch: branch}, "report-1")
		for range 7 {
			add(standin.Run{
				Branch: branch, HeadRepository: map[string]string{fork: "you/app"}[branch], HeadDeleted: branch == deleted,
			})
		}
	}
	big := make([]string, 101)
	for i := range big {
		big[i] = "other"
	}
	add(standin.Run{Branch: "pages"}, append([]string{"report-1"}, big...)...)
	add(standin.Run{Branch: "spaces", Workflow: "my #1.yml"}, "report-1")
	for _, test := range []struct {
		name, branch string
		workflow     string
		before       int
		want         []string
	}{
		{name: "attempts", branch: "attempts", want: []string{"report-10", "report-9", "report-1", "report"}},
		{name: "other names", branch: "others"},
		{name: "last run first, however it ended", branch: "latest", want: []string{"report-3", "report-2", "report-1"}},
		{name: "later runs", branch: "latest", before: 5, want: []string{"report-1"}},
		{name: "runs of forks do not count", branch: fork, want: []string{"report-1"}},
		{name: "runs of deleted forks do not count", branch: deleted, want: []string{"report-1"}},
		{name: "too many runs ago", branch: "many"},
		{name: "second page", branch: "pages", want: []string{"report-1"}},
		{name: "no runs", branch: "none"},
		{name: "name of the file", branch: "spaces", workflow: "my #1.yml", want: []string{"report-1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := ArtifactQuery{Workflow: "ci.yml", Branch: test.branch, Before: 1000, Name: "report"}
			if test.workflow != "" {
				q.Workflow = test.workflow
			}
			if test.before > 0 {
				q.Before = test.before
			}
			if got := artifactNames(t, client, q); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The token goes to the API only, and errors name neither it nor the signed URL.
func TestDownloadArtifact(t *testing.T) {
	archive := bytes.Repeat([]byte("zip"), 1000)
	const runs, artifacts = "/workflows/", "/artifacts"
	tooLarge := standin.Fault{Path: standin.Artifacts, Status: 200, Body: strings.Repeat("x", 1<<20+1)}
	for _, test := range []struct {
		name    string
		token   string // default: actionsToken
		public  bool
		faults  []standin.Fault
		ok      bool
		status  int    // of the error
		message string // part of the error
	}{
		{name: "success", ok: true},
		{name: "public", public: true, ok: true},
		{name: "public, without the permission", public: true, token: noActions, status: 403, message: "actions: read"},
		{name: "without the permission", token: noActions, status: 403,
			message: "add `permissions: actions: read` to the job"},
		{name: "unknown token", token: "no-such", status: 401, message: "has not expired"},
		{name: "without access", faults: []standin.Fault{{Path: runs, Status: 404, Body: `{"message":"Not Found"}`}},
			status: 404, message: "actions: read"},
		{name: "rate limit", faults: []standin.Fault{standin.PrimaryLimit(403, time.Now().Add(time.Hour))},
			status: 403, message: "its own rate limit"},
		{name: "outages", ok: true, faults: []standin.Fault{
			{Path: runs, Times: 1, Status: 500}, {Path: runs, Times: 1, Status: 429}, {Path: artifacts, Times: 1, Hangup: true},
			{Path: standin.Artifacts, Times: 2, Status: 503}, {Path: standin.Artifacts, Times: 1, Truncate: 5},
		}},
		{name: "outage", faults: []standin.Fault{{Path: artifacts, Status: 502}}, status: 502, message: "githubstatus"},
		{name: "outage of the storage", faults: []standin.Fault{{Path: standin.Artifacts, Status: 500}}, status: 500,
			message: "GitHub's storage"},
		{name: "unreachable storage", faults: []standin.Fault{{Path: standin.Artifacts, Hangup: true}},
			message: "cannot reach"},
		{name: "web page", faults: []standin.Fault{{Path: runs, Status: 200, Body: "<html>"}}, status: 200,
			message: "a web page"},
		{name: "null", faults: []standin.Fault{{Path: runs, Status: 200, Body: "null"}}, status: 200, message: "format"},
		{name: "list of null", faults: []standin.Fault{{Path: runs, Status: 200, Body: `{"workflow_runs":[null]}`}},
			message: "no artifact"},
		{name: "artifacts of null", faults: []standin.Fault{{Path: artifacts, Status: 200, Body: `{"artifacts":[null]}`}},
			message: "no artifact"},
		{name: "no location", faults: []standin.Fault{{Path: "/zip", Status: 302}}, message: "unsupported protocol"},
		{name: "other location", faults: []standin.Fault{{Path: "/zip", Status: 301, Header: map[string]string{
			"Location": "http://localhost:1/"}}}, status: 301},
		{name: "expired after the list", faults: []standin.Fault{{Path: "/zip", Status: 410,
			Body: `{"message":"Artifact has expired"}`}}, status: 410, message: "has expired"},
		{name: "larger than listed", faults: []standin.Fault{tooLarge}, message: "larger than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, app, client := startRuns(t)
			client.HTTP.Policy.MaxBody = 1 << 20
			if test.token != "" {
				client.Token = test.token
			}
			if test.public {
				app.Name, client.Name = "public", "public"
			}
			s.AddArtifact(s.AddRun(app, standin.Run{Workflow: "ci.yml", Branch: "main"}),
				standin.Artifact{Name: "report", Archive: archive})
			for _, fault := range test.faults {
				s.Fail(fault)
			}
			got, err := download(t, client)
			if test.ok {
				if err != nil || !bytes.Equal(got, archive) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
			} else if err == nil || httpclient.Status(err) != test.status || !strings.Contains(err.Error(), test.message) {
				t.Fatalf("got %v, want %d %q", err, test.status, test.message)
			}
			if err != nil && (strings.Contains(err.Error(), client.Token) || strings.Contains(err.Error(), "sig=")) {
				t.Errorf("the error has a secret: %v", err)
			}
			for _, r := range s.Requests() {
				if strings.HasPrefix(r.Path, standin.Artifacts) && r.HasToken {
					t.Errorf("the token was sent to the storage: %+v", r)
				}
			}
		})
	}
	big := Artifact{Name: "report", Size: maxArchive + 1}
	if _, err := (Repository{Owner: "octo", Name: "app"}).DownloadArtifact(t.Context(), big); err == nil ||
		!strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("a large artifact: %v", err)
	}
}

// download downloads the first artifact of the branch main.
func download(t *testing.T, r Repository) ([]byte, error) {
	q := ArtifactQuery{Workflow: "ci.yml", Branch: "main", Before: 2, Name: "report"}
	for a, err := range r.Artifacts(t.Context(), q) {
		if err != nil {
			return nil, err
		}
		return r.DownloadArtifact(t.Context(), a)
	}
	return nil, errors.New("no artifact")
}
