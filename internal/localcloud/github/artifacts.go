package github

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// https://docs.github.com/en/rest/actions/workflow-runs and https://docs.github.com/en/rest/actions/artifacts
//
// The lists of a public repository need no permission, the download needs actions: read: in src/rest/data of
// github.com/github/docs, allowsPublicRead is true only for the lists.
var artifactEndpoints = []endpoint{
	{"GET /actions/workflows/{file}/runs", readActions, (*call).listRuns,
		"actions/workflow-runs#list-workflow-runs-for-a-workflow"},
	{"GET /actions/runs/{id}/artifacts", readActions, (*call).listArtifacts,
		"actions/artifacts#list-workflow-run-artifacts"},
	{"GET /actions/artifacts/{id}/{format}", downloadArtifacts, (*call).downloadArtifact,
		"actions/artifacts#download-an-artifact"},
}

// Run is a run of a workflow.
type Run struct {
	ID             int64  // set by [Server.AddRun]
	Number         int    // set by [Server.AddRun]: counts the runs of the workflow from 1
	Workflow       string // name of the file in .github/workflows
	Branch         string
	HeadRepository string // OWNER/NAME of the repository that has the branch; default: the run's repository
	HeadDeleted    bool   // whether HeadRepository was deleted
	Status         string // default: completed
	Conclusion     string

	artifacts []*artifact
}

// Artifact is a zip archive that a run has uploaded.
type Artifact struct {
	Name    string
	Archive []byte
	Expired bool
}

type artifact struct {
	asset
	expired bool
}

// AddRun adds a run after those that the workflow already has, and returns it with its ID and its number.
func (s *Server) AddRun(repository Repository, run Run) Run {
	s.storeMu.Lock()
	defer s.storeMu.Unlock()
	store := s.storeOf(repository)
	run.ID, run.Number = s.newID(), 1
	for _, other := range store.runs {
		if other.Workflow == run.Workflow {
			run.Number++
		}
	}
	run.HeadRepository = cmp.Or(run.HeadRepository, repository.fullName())
	run.Status = cmp.Or(run.Status, "completed")
	store.runs = append(store.runs, &run)
	return run
}

// AddArtifact adds an artifact to a run that [Server.AddRun] has returned.
func (s *Server) AddArtifact(run Run, added Artifact) {
	s.storeMu.Lock()
	defer s.storeMu.Unlock()
	for _, store := range s.stores {
		if found := store.run(run.ID); found != nil {
			found.artifacts = append(found.artifacts, &artifact{asset{
				id: s.newID(), name: added.Name, contentType: "application/zip", content: added.Archive,
				digest: fmt.Sprintf("sha256:%x", sha256.Sum256(added.Archive)), uploaded: time.Now().UTC().Truncate(time.Second),
				object: Artifacts + rand.Text(),
			}, added.Expired})
		}
	}
}

// run returns the run with the ID, or nil.
func (s *store) run(id int64) *Run {
	if i := slices.IndexFunc(s.runs, func(r *Run) bool { return r.ID == id }); i >= 0 {
		return s.runs[i]
	}
	return nil
}

// listRuns lists the last runs first. status is a status or a conclusion. A workflow exists if it has runs.
func (c *call) listRuns() (any, error) {
	query, file := c.request.URL.Query(), c.request.PathValue("file")
	runs, exists := countedPage{name: "workflow_runs"}, false
	for _, run := range slices.Backward(c.store().runs) {
		if run.Workflow != file {
			continue
		}
		exists = true
		status := query.Get("status")
		if branch := query.Get("branch"); branch != "" && branch != run.Branch ||
			status != "" && status != run.Status && status != run.Conclusion {
			continue
		}
		runs.items = append(runs.items, c.showRun(run))
	}
	if !exists {
		return nil, errNotFound
	}
	return runs, nil
}

func (c *call) showRun(run *Run) map[string]any {
	id := strconv.FormatInt(run.ID, 10)
	body := map[string]any{
		"id": run.ID, "run_number": run.Number, "run_attempt": 1, "head_branch": run.Branch,
		"path": ".github/workflows/" + run.Workflow, "status": run.Status, "conclusion": nil,
		"url": c.apiURL("/actions/runs/" + id), "artifacts_url": c.apiURL("/actions/runs/" + id + "/artifacts"),
		"html_url":        c.url + "/" + c.repository.fullName() + "/actions/runs/" + id,
		"repository":      map[string]string{"full_name": c.repository.fullName()},
		"head_repository": nil,
	}
	if run.Conclusion != "" {
		body["conclusion"] = run.Conclusion
	}
	if !run.HeadDeleted {
		body["head_repository"] = map[string]string{"full_name": run.HeadRepository}
	}
	return body
}

// listArtifacts lists the last artifacts of a run first.
func (c *call) listArtifacts() (any, error) {
	id, _ := strconv.ParseInt(c.request.PathValue("id"), 10, 64)
	run := c.store().run(id)
	if run == nil {
		return nil, errNotFound
	}
	artifacts := countedPage{name: "artifacts"}
	for _, a := range slices.Backward(run.artifacts) {
		if name := c.request.URL.Query().Get("name"); name != "" && name != a.name {
			continue
		}
		address := c.apiURL("/actions/artifacts/" + strconv.FormatInt(a.id, 10))
		artifacts.items = append(artifacts.items, map[string]any{
			"id": a.id, "name": a.name, "size_in_bytes": len(a.content), "digest": a.digest, "expired": a.expired,
			"url": address, "archive_download_url": address + "/zip", "created_at": a.uploaded,
			"workflow_run": map[string]any{"id": run.ID, "head_branch": run.Branch},
		})
	}
	return artifacts, nil
}

// Artifacts is the prefix of the paths of artifacts on the asset host.
const Artifacts = "/actions-results/"

// downloadArtifact redirects to the archive. The URL expires after a minute.
func (c *call) downloadArtifact() (any, error) {
	for _, run := range c.store().runs {
		for _, a := range run.artifacts {
			switch {
			case strconv.FormatInt(a.id, 10) != c.request.PathValue("id") || c.request.PathValue("format") != "zip":
			case a.expired:
				return nil, &apiError{status: http.StatusGone, message: "Artifact has expired"}
			default:
				return redirect(c.signedURL(a.object, a.name+".zip", a.contentType, time.Minute)), nil
			}
		}
	}
	return nil, errNotFound
}
