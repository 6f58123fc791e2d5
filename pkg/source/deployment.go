package source

import (
	"context"

	"github.com/google/go-github/v62/github"
)

// Deployment states, see https://docs.github.com/en/rest/deployments/statuses.
const (
	DeploymentInProgress = "in_progress"
	DeploymentSuccess    = "success"
	DeploymentFailure    = "failure"
	DeploymentInactive   = "inactive" // replaced by another deployment
)

// Deployment is a request to record that a commit is deployed to an environment.
type Deployment struct {
	Ref         string // branch, tag or SHA in the repository
	Environment string
	Description string // at most 140 characters
	Payload     any    // JSON for other tools; may be nil
}

// CreateDeployment records a deployment without a status and returns its ID. It neither merges the default branch into
// the ref nor requires commit statuses, as GitHub does by default. It needs a token with deployments: write.
func (r Repository) CreateDeployment(ctx context.Context, d Deployment) (id int64, err error) {
	if err := r.validate(); err != nil {
		return 0, err
	}
	created, err := call(ctx, r, "record a deployment to "+d.Environment,
		func(c *github.Client) (*github.Deployment, *github.Response, error) {
			return c.Repositories.CreateDeployment(ctx, r.Owner, r.Name, &github.DeploymentRequest{
				Ref: &d.Ref, Environment: &d.Environment, Description: &d.Description, Payload: d.Payload,
				AutoMerge: github.Bool(false), RequiredContexts: &[]string{},
			})
		})
	return created.GetID(), err
}

// DeploymentStatus is a status of a deployment.
type DeploymentStatus struct {
	State          string
	Description    string // at most 140 characters
	LogURL         string
	EnvironmentURL string
}

// SetDeploymentStatus adds a status to a deployment. The state success makes earlier deployments to the environment
// inactive, unless it is a production environment.
func (r Repository) SetDeploymentStatus(ctx context.Context, id int64, s DeploymentStatus) error {
	_, err := call(ctx, r, "set the deployment status "+s.State,
		func(c *github.Client) (*github.DeploymentStatus, *github.Response, error) {
			return c.Repositories.CreateDeploymentStatus(ctx, r.Owner, r.Name, id, &github.DeploymentStatusRequest{
				State: &s.State, Description: &s.Description, LogURL: &s.LogURL, EnvironmentURL: &s.EnvironmentURL,
			})
		})
	return err
}
