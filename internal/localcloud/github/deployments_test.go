package github

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	api "github.com/google/go-github/v62/github"
)

// By default, GitHub merges the default branch into the ref. A deployment needs an existing ref and the permission.
func TestCreateDeployment(t *testing.T) {
	s, _, first, second, _ := startPublisher(t)
	noMerge := func(r api.DeploymentRequest) *api.DeploymentRequest {
		r.AutoMerge, r.RequiredContexts = api.Bool(false), &[]string{}
		return &r
	}
	for _, test := range []struct {
		name, token string
		request     *api.DeploymentRequest
		sha         string
		status      int
		message     string
	}{
		{name: "SHA", token: "deploys", request: noMerge(api.DeploymentRequest{Ref: &first}), sha: first},
		{name: "branch", token: "deploys", request: &api.DeploymentRequest{Ref: api.String("main")}, sha: second},
		{
			name: "merge by default", token: "deploys", request: &api.DeploymentRequest{Ref: &first},
			status: http.StatusConflict, message: "Conflict merging main into",
		},
		{
			name: "unknown ref", token: "deploys", request: noMerge(api.DeploymentRequest{Ref: api.String("no-such")}),
			status: http.StatusUnprocessableEntity, message: "No ref found for: no-such",
		},
		{
			name: "contexts", token: "deploys", status: http.StatusConflict, message: "Commit status checks failed",
			request: &api.DeploymentRequest{Ref: api.String("main"), RequiredContexts: &[]string{"ci"}},
		},
		{
			name: "long description", token: "deploys", status: http.StatusUnprocessableEntity, message: "too long",
			request: noMerge(api.DeploymentRequest{Ref: &first, Description: api.String(strings.Repeat("x", 141))}),
		},
		{
			name: "no permission", token: "writes", request: noMerge(api.DeploymentRequest{Ref: &first}),
			status: http.StatusForbidden, message: "Resource not accessible by integration",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			created, _, err := client(t, s, test.token).Repositories.CreateDeployment(t.Context(), "octo", "app", test.request)
			refused := (*api.ErrorResponse)(nil)
			if errors.As(err, &refused) != (test.status != 0) || created.GetSHA() != test.sha {
				t.Fatalf("%v, %v", created, err)
			}
			if test.status != 0 && (refused.Response.StatusCode != test.status || !strings.Contains(err.Error(), test.message)) {
				t.Errorf("got %v, want %d %q", err, test.status, test.message)
			}
		})
	}
}

// A successful deployment makes the earlier ones to the environment inactive, except to production.
func TestDeploymentStatuses(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	c := client(t, s, "deploys")
	for _, environment := range []string{"prd", "prd", "production", "production"} {
		created, _, err := c.Repositories.CreateDeployment(t.Context(), "octo", "app",
			&api.DeploymentRequest{Ref: api.String("main"), Environment: &environment})
		if err != nil {
			t.Fatal(err)
		}
		for _, state := range []string{"in_progress", "success"} {
			_, _, err := c.Repositories.CreateDeploymentStatus(t.Context(), "octo", "app", created.GetID(),
				&api.DeploymentStatusRequest{State: &state})
			if err != nil {
				t.Fatal(err)
			}
		}
		_, _, err = c.Repositories.CreateDeploymentStatus(t.Context(), "octo", "app", created.GetID(),
			&api.DeploymentStatusRequest{State: api.String("done")})
		if err == nil {
			t.Error("an unknown state is accepted")
		}
	}
	var states []string
	for _, d := range s.Deployments("Octo", "app") {
		states = append(states, d.Environment+" "+d.State())
	}
	want := []string{"prd inactive", "prd success", "production success", "production success"}
	if !slices.Equal(states, want) {
		t.Errorf("got %q, want %q", states, want)
	}
	listed, _, err := c.Repositories.ListDeployments(t.Context(), "octo", "app",
		&api.DeploymentsListOptions{Environment: "prd"})
	if err != nil || len(listed) != 2 {
		t.Fatalf("listed %v, %v", listed, err)
	}
	statuses, _, err := c.Repositories.ListDeploymentStatuses(t.Context(), "octo", "app", listed[1].GetID(), nil)
	if err != nil || len(statuses) != 3 || statuses[0].GetState() != "inactive" {
		t.Errorf("statuses %v, %v", statuses, err)
	}
}
