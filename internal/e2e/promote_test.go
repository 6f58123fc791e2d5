//go:build linux

package e2e

import (
	"regexp"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/daytona"
)

// The dispatched workflow promotes a snapshot with the token of prd, and records a deployment.
func TestPromoteWorkflow(t *testing.T) {
	e := setup(t)
	e.Daytona.Put(daytona.Snapshot{
		Organization: localcloud.DaytonaOrganization, Name: "promoted-1",
		Digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	})
	defer e.deleteSnapshot(t, "promoted-1")
	defer e.Doppler.SetSecret(localcloud.Project, "prd", nameSecret, "")
	before := len(e.GitHub.Deployments("org", "sandbox-actions"))
	log, ok := e.act(t, actRun{
		dir: e.ours, withGo: true, workflow: "promote-daytona-snapshot.yml", token: e.GitHubWriteToken,
		inputs: values{
			"snapshot_name": "promoted-1", "to": "prd", "environment": "production", "deployment_environment": "sandbox-prd",
		},
		secrets: values{"DOPPLER_TOKEN": e.DopplerToken, "DOPPLER_TOKEN_PRD": e.DopplerTokenPRD},
	})
	if !ok {
		t.Fatalf("the workflow failed:\n%s", log)
	}
	for _, want := range []string{
		`::set-output:: snapshot_name=promoted-1`, `::set-output:: doppler_updated=true`,
		`snapshot promoted-1 was verified`,
	} {
		if !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("the log does not match %s", want)
		}
	}
	if name := e.Doppler.Secret(localcloud.Project, "prd", nameSecret); name != "promoted-1" {
		t.Errorf("prd names %q", name)
	}
	deployments := e.GitHub.Deployments("org", "sandbox-actions")[before:]
	if len(deployments) != 1 || deployments[0].Environment != "sandbox-prd" || deployments[0].State() != "success" ||
		deployments[0].SHA != git(t, e.ours, "rev-parse", "HEAD") {
		t.Errorf("deployments %+v", deployments)
	}
}
