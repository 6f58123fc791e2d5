package source

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-github/v62/github"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// ArtifactQuery selects artifacts of earlier runs of a workflow.
type ArtifactQuery struct {
	Workflow string // name of the file in .github/workflows
	Branch   string
	Before   int    // number of a run: only runs with lower numbers are searched
	Name     string // NAME also selects NAME-N, in which N is the attempt of the run
}

// Artifact is a zip archive that a run of a workflow has uploaded.
type Artifact struct {
	ID   int64
	Name string
	Run  int64 // ID of the run
	Size int64 // bytes

	attempt int // of the run; 0 if unknown
}

// Limits of a search.
const (
	maxListed  = 50       // runs of the branch; those of forks are among them
	maxRuns    = 5        // runs whose artifacts are listed
	maxPages   = 10       // of the artifacts of a run, with 100 each
	maxArchive = 64 << 20 // bytes
)

// Artifacts yields the artifacts that the query selects: those of the last run first, and of its last attempt first. It
// leaves out runs of other repositories, because a fork can give its branch any name. It ends after an error. A private
// repository needs a token with actions: read.
func (r Repository) Artifacts(ctx context.Context, q ArtifactQuery) iter.Seq2[Artifact, error] {
	return func(yield func(Artifact, error) bool) {
		runs, err := r.listRuns(ctx, q)
		if err != nil {
			yield(Artifact{}, err)
			return
		}
		for _, run := range runs {
			artifacts, err := r.listArtifacts(ctx, run, q.Name)
			if err != nil {
				yield(Artifact{}, err)
				return
			}
			for _, a := range artifacts {
				if !yield(a, nil) {
					return
				}
			}
		}
	}
}

// listRuns returns the IDs of the runs to search, the last one first.
func (r Repository) listRuns(ctx context.Context, q ArtifactQuery) (ids []int64, err error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	op := fmt.Sprintf("list the runs of %s on %s", q.Workflow, q.Branch)
	listed, err := call(ctx, r, op,
		func(c *github.Client) (*github.WorkflowRuns, *github.Response, error) {
			options := &github.ListWorkflowRunsOptions{
				Branch: q.Branch, ExcludePullRequests: true, ListOptions: github.ListOptions{PerPage: maxListed},
			}
			return c.Actions.ListWorkflowRunsByFileName(ctx, r.Owner, r.Name, url.PathEscape(q.Workflow), options)
		}, artifactHints...)
	if err == nil && listed == nil { // JSON's null
		err = r.unexpected(op, "the response is not in the API's format")
	}
	if err != nil {
		return nil, err
	}
	runs := slices.DeleteFunc(listed.WorkflowRuns, func(run *github.WorkflowRun) bool {
		return run.GetRunNumber() >= q.Before || run.GetHeadBranch() != q.Branch ||
			!strings.EqualFold(run.GetHeadRepository().GetFullName(), r.fullName())
	})
	slices.SortFunc(runs, func(a, b *github.WorkflowRun) int { return cmp.Compare(b.GetRunNumber(), a.GetRunNumber()) })
	for _, run := range runs[:min(len(runs), maxRuns)] {
		ids = append(ids, run.GetID())
	}
	return ids, nil
}

// listArtifacts returns the artifacts of a run that have the name and exist.
func (r Repository) listArtifacts(ctx context.Context, run int64, name string) ([]Artifact, error) {
	var found []Artifact
	for page := 1; page <= maxPages; {
		var next int
		listed, err := call(ctx, r, "list the artifacts of run "+strconv.FormatInt(run, 10),
			func(c *github.Client) (*github.ArtifactList, *github.Response, error) {
				options := &github.ListOptions{Page: page, PerPage: 100}
				artifacts, response, err := c.Actions.ListWorkflowRunArtifacts(ctx, r.Owner, r.Name, run, options)
				if err == nil {
					next = response.NextPage
				}
				return artifacts, response, err
			}, artifactHints...)
		if err != nil {
			return nil, err
		}
		for _, a := range listed.Artifacts {
			if attempt, ok := attemptOf(a.GetName(), name); ok && !a.GetExpired() {
				found = append(found, Artifact{a.GetID(), a.GetName(), run, a.GetSizeInBytes(), attempt})
			}
		}
		if next <= page {
			break
		}
		page = next
	}
	slices.SortStableFunc(found, func(a, b Artifact) int { return b.attempt - a.attempt })
	return found, nil
}

// attemptOf returns N of an artifact NAME-N, and 0 of NAME.
func attemptOf(artifact, name string) (attempt int, ok bool) {
	if artifact == name {
		return 0, true
	}
	suffix, ok := strings.CutPrefix(artifact, name+"-")
	attempt, err := strconv.Atoi(suffix)
	return attempt, ok && err == nil && attempt > 0 && strconv.Itoa(attempt) == suffix
}

// DownloadArtifact returns the archive of an artifact. It needs a token with actions: read, also for a public
// repository.
func (r Repository) DownloadArtifact(ctx context.Context, a Artifact) ([]byte, error) {
	if a.Size > maxArchive {
		return nil, fmt.Errorf("artifact %s of run %d is larger than %d MiB", a.Name, a.Run, maxArchive>>20)
	}
	op := fmt.Sprintf("download artifact %s of run %d", a.Name, a.Run)
	location, err := call(ctx, r, op, func(c *github.Client) (*url.URL, *github.Response, error) {
		return c.Actions.DownloadArtifact(ctx, r.Owner, r.Name, a.ID, 0)
	}, artifactHints...)
	if err != nil {
		return nil, err
	}
	return r.download(ctx, op, location)
}

// download reads a URL of GitHub's storage. The URL contains the credentials, and the storage refuses others.
func (r Repository) download(ctx context.Context, op string, location *url.URL) ([]byte, error) {
	config := r.HTTP
	config.Policy.MaxBody = cmp.Or(config.Policy.MaxBody, maxArchive)
	service := httpclient.Service{
		Name: "GitHub's storage", URL: location.Scheme + "://" + location.Host, Clock: config.Clock,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, service.Failure(ctx, op, nil, err, nil)
	}
	response, err := config.Client().Do(request)
	if err != nil {
		return nil, service.Failure(ctx, op, nil, err, nil)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, service.Failure(ctx, op, response, nil, nil)
	}
	return io.ReadAll(response.Body)
}

// artifactHints are for requests that need actions: read. GitHub answers 404 if the token cannot read the repository.
var artifactHints = []httpclient.Hint{
	{On: http.StatusForbidden, Message: "rate limit", Text: "use a github_token with its own rate limit"},
	{On: http.StatusForbidden, Text: "add `permissions: actions: read` to the job"},
	{On: http.StatusNotFound, Text: "add `permissions: actions: read` to the job"},
}
