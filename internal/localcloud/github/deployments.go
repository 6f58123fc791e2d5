package github

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// https://docs.github.com/en/rest/deployments
var deploymentEndpoints = []endpoint{
	{"GET /deployments", readDeployments, (*call).listDeployments, "deployments/deployments#list-deployments"},
	{"POST /deployments", writeDeployments, withBody((*call).createDeployment),
		"deployments/deployments#create-a-deployment"},
	{"GET /deployments/{id}/statuses", readDeployments, (*call).listDeploymentStatuses,
		"deployments/statuses#list-deployment-statuses"},
	{"POST /deployments/{id}/statuses", writeDeployments, withBody((*call).createDeploymentStatus),
		"deployments/statuses#create-a-deployment-status"},
}

// Deployment is a recorded deployment.
type Deployment struct {
	Ref, SHA, Environment, Description string

	Payload  json.RawMessage
	Statuses []DeploymentStatus // in order of creation
	id       int64
	created  time.Time
}

// DeploymentStatus is a status of a deployment.
type DeploymentStatus struct {
	State          string `json:"state"`
	Description    string `json:"description"`
	LogURL         string `json:"log_url"`
	EnvironmentURL string `json:"environment_url"`
}

// State returns the state of the last status, or "" without one.
func (d Deployment) State() string {
	if len(d.Statuses) == 0 {
		return ""
	}
	return d.Statuses[len(d.Statuses)-1].State
}

// Deployments returns the deployments of a repository in order of creation.
func (s *Server) Deployments(owner, name string) []Deployment {
	s.storeMu.Lock()
	defer s.storeMu.Unlock()
	var list []Deployment
	if store := s.stores[storeKey(owner+"/"+name)]; store != nil {
		for _, d := range store.deployments {
			copied := *d
			copied.Statuses = slices.Clone(d.Statuses)
			list = append(list, copied)
		}
	}
	return list
}

type createDeploymentBody struct {
	Ref              string          `json:"ref"`
	AutoMerge        *bool           `json:"auto_merge"`
	RequiredContexts *[]string       `json:"required_contexts"`
	Payload          json.RawMessage `json:"payload"`
	Environment      string          `json:"environment"`
	Description      string          `json:"description"`
}

// maxDescription is the maximum length of a description, in characters.
const maxDescription = 140

// createDeployment refuses what GitHub would do by default: merge the default branch into a ref that is behind it. The
// stand-in has no commit statuses, so required contexts are never met.
func (c *call) createDeployment(body createDeploymentBody) (any, error) {
	if body.Ref == "" {
		return nil, missingField("ref")
	}
	if utf8.RuneCountInString(body.Description) > maxDescription {
		return nil, invalidFields(fieldError{Resource: "Deployment", Code: "custom", Field: "description",
			Message: "description is too long (maximum is 140 characters)"})
	}
	tip, err := c.repository.resolveTarget(c.ctx(), body.Ref)
	if err != nil {
		tip, err = c.repository.commit(c.ctx(), "refs/tags/"+body.Ref)
	}
	if err != nil {
		return nil, unprocessable(fmt.Sprintf("No ref found for: %s", body.Ref))
	}
	if merge := body.AutoMerge == nil || *body.AutoMerge; merge {
		branch := c.repository.defaultBranch(c.ctx())
		head, err := c.repository.resolveTarget(c.ctx(), branch)
		if err == nil && head.SHA != tip.SHA {
			return nil, &apiError{status: http.StatusConflict,
				message: "Conflict merging " + branch + " into " + body.Ref + "."}
		}
	}
	if body.RequiredContexts != nil && len(*body.RequiredContexts) > 0 {
		return nil, &apiError{status: http.StatusConflict, message: "Conflict: Commit status checks failed for " +
			body.Ref + "."}
	}
	store := c.store()
	d := &Deployment{
		Ref: body.Ref, SHA: tip.SHA, Environment: cmp.Or(body.Environment, "production"), Description: body.Description,
		Payload: body.Payload, id: c.newID(), created: time.Now(),
	}
	store.deployments = append(store.deployments, d)
	return c.showDeployment(d), nil
}

func (c *call) showDeployment(d *Deployment) map[string]any {
	url := c.apiURL("/deployments/" + strconv.FormatInt(d.id, 10))
	return map[string]any{
		"id": d.id, "url": url, "ref": d.Ref, "sha": d.SHA, "task": "deploy", "payload": d.Payload,
		"environment": d.Environment, "original_environment": d.Environment, "description": d.Description,
		"created_at": d.created, "statuses_url": url + "/statuses", "transient_environment": false,
		"production_environment": d.Environment == "production",
	}
}

func (c *call) listDeployments() (any, error) {
	query, list := c.request.URL.Query(), page{}
	for _, d := range slices.Backward(c.store().deployments) {
		if wanted := query.Get("environment"); wanted == "" || wanted == d.Environment {
			list = append(list, c.showDeployment(d))
		}
	}
	return list, nil
}

// deployment returns the deployment in the request path, and its store.
func (c *call) deployment() (*store, *Deployment, error) {
	store := c.store()
	for _, d := range store.deployments {
		if strconv.FormatInt(d.id, 10) == c.request.PathValue("id") {
			return store, d, nil
		}
	}
	return nil, nil, errNotFound
}

var deploymentStates = []string{"error", "failure", "inactive", "in_progress", "queued", "pending", "success"}

// createDeploymentStatus adds a status. Success makes earlier successful deployments to the same environment inactive,
// except to production.
func (c *call) createDeploymentStatus(body DeploymentStatus) (any, error) {
	store, d, err := c.deployment()
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(deploymentStates, body.State):
		return nil, invalidFields(fieldError{Resource: "DeploymentStatus", Code: "custom", Field: "state",
			Message: "state is not included in the list"})
	case utf8.RuneCountInString(body.Description) > maxDescription:
		return nil, invalidFields(fieldError{Resource: "DeploymentStatus", Code: "custom", Field: "description",
			Message: "description is too long (maximum is 140 characters)"})
	}
	d.Statuses = append(d.Statuses, body)
	if body.State == "success" && d.Environment != "production" {
		for _, earlier := range store.deployments {
			if earlier.id < d.id && earlier.Environment == d.Environment && earlier.State() == "success" {
				earlier.Statuses = append(earlier.Statuses, DeploymentStatus{State: "inactive"})
			}
		}
	}
	return c.showStatus(d, body), nil
}

func (c *call) showStatus(d *Deployment, s DeploymentStatus) map[string]any {
	return map[string]any{
		"id": d.id, "state": s.State, "description": s.Description, "log_url": s.LogURL,
		"environment_url": s.EnvironmentURL, "environment": d.Environment,
		"deployment_url": c.apiURL("/deployments/" + strconv.FormatInt(d.id, 10)),
	}
}

func (c *call) listDeploymentStatuses() (any, error) {
	_, d, err := c.deployment()
	if err != nil {
		return nil, err
	}
	list := page{}
	for _, s := range slices.Backward(d.Statuses) {
		list = append(list, c.showStatus(d, s))
	}
	return list, nil
}
