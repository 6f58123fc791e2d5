package actions

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/grace"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// deployment is a deployment that GitHub shows on the page of the repository. The zero value records nothing. Failures
// to record it are warnings, because the snapshot is active.
type deployment struct {
	repository  source.Repository
	id          int64
	environment string
	snapshot    string
}

// startDeployment records that a snapshot is about to be named for an environment. GitHub shows the commit of the
// snapshot or, if it is not a commit of the repository, that of the run.
func startDeployment(ctx context.Context, job job, token, environment string, record namingRecord) deployment {
	if environment == "" {
		return deployment{}
	}
	owner, name, ok := strings.Cut(job.Event.Repository, "/")
	if !ok {
		warnUndeployed(job, environment, "GITHUB_REPOSITORY is not set")
		return deployment{}
	}
	defer startActivity(ctx, "GitHub to record a deployment")()
	token = credentials.GitHubToken(token, job.Getenv, job.Runner.Mask)
	d := deployment{credentials.Repository(owner, name, token, job.Getenv), 0, environment, record.Name}
	request := source.Deployment{
		Environment: environment, Description: describe("Snapshot " + record.Name),
		Payload: map[string]string{"snapshot": record.Name, "digest": record.Digest, "action": record.Action},
	}
	request.Ref = cmp.Or(strings.TrimSuffix(record.Commit, "-dirty"), job.Event.SHA)
	var err error
	if d.id, err = d.repository.CreateDeployment(ctx, request); isUnknownRef(err) && job.Event.SHA != "" {
		job.Runner.Infof("The deployment to %s is recorded for the commit of the run, because %s is not a commit of %s",
			environment, request.Ref, job.Event.Repository)
		request.Ref = job.Event.SHA
		d.id, err = d.repository.CreateDeployment(ctx, request)
	}
	if err != nil {
		warnUndeployed(job, environment, deploymentProblem(err))
		return deployment{}
	}
	d.set(ctx, job, source.DeploymentInProgress, request.Description)
	return d
}

// isUnknownRef reports whether GitHub does not know the ref of a deployment. The other fields are valid.
func isUnknownRef(err error) bool { return httpclient.Status(err) == http.StatusUnprocessableEntity }

// deploymentGrace is how long a canceled run takes to record the result of a deployment.
const deploymentGrace = 2 * time.Second

// finish records the result of naming the snapshot.
func (d deployment) finish(ctx context.Context, job job, update dopplerUpdate, err error) {
	if d.id == 0 {
		return
	}
	ctx, stop := grace.Extend(ctx, deploymentGrace, nil)
	defer stop()
	switch {
	case err != nil:
		d.set(ctx, job, source.DeploymentFailure, "Doppler does not name snapshot "+d.snapshot)
	case len(update.Outdated) > 0 && len(update.Outdated) == len(update.Written)+len(update.Unchanged):
		d.set(ctx, job, source.DeploymentInactive, "Doppler names a newer snapshot than "+d.snapshot)
	default:
		d.set(ctx, job, source.DeploymentSuccess, "Snapshot "+d.snapshot)
	}
}

func (d deployment) set(ctx context.Context, job job, state, description string) {
	log := ""
	if run := job.Getenv("GITHUB_RUN_ID"); run != "" {
		log = fmt.Sprintf("%s/%s/actions/runs/%s", cmp.Or(job.Getenv("GITHUB_SERVER_URL"), "https://github.com"),
			job.Event.Repository, run)
	}
	err := d.repository.SetDeploymentStatus(ctx, d.id, source.DeploymentStatus{
		State: state, Description: describe(description), LogURL: log,
	})
	if err != nil {
		warnUndeployed(job, d.environment, deploymentProblem(err))
	}
}

// describe shortens the description of a deployment to GitHub's limit.
func describe(text string) string {
	const limit = 140 // characters; the text is ASCII
	return text[:min(len(text), limit)]
}

func deploymentProblem(err error) string {
	if status := httpclient.Status(err); status == http.StatusForbidden || status == http.StatusNotFound {
		return "the GitHub token lacks a permission; add `permissions: deployments: write` to the job"
	}
	return err.Error()
}

func warnUndeployed(job job, environment, problem string) {
	job.Runner.Warning(runner.Annotation{
		Title: "The deployment was not recorded", Message: fmt.Sprintf("Deployment to %s: %s", environment, problem),
	})
}
