//go:build linux

package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
)

// Secrets that contain the name of a Doppler config's snapshot.
const (
	nameSecret   = "DAYTONA_SNAPSHOT_NAME"
	mirrorSecret = "VITE_DAYTONA_SNAPSHOT_NAME"
	mirrorValue  = "${DAYTONA_SNAPSHOT_NAME}"
)

const sleepDockerfile = "FROM debian:bookworm-slim\nCOPY Dockerfile /\nCMD [\"sleep\", \"60\"]\n"

// The first run creates a snapshot and records its name in Doppler. A second run reuses it and pushes nothing.
func TestSnapshot(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	run := func(inputs map[string]string) result {
		return e.mustRun(t, invocation{
			program:    "action-snapshot",
			dir:        dir,
			dockerfile: sleepDockerfile,
			inputs:     inputs,
			env:        values{"DAYTONA_API_KEY": "", "GITHUB_ACTOR": "octocat"},
		})
	}
	writeFile(t, dir, "Dockerfile", sleepDockerfile+"ENTRYPOINT [\"sleep\", \"600\"]\n") // required by Daytona
	e.Doppler.SetSecret(localcloud.Project, "dev", mirrorSecret, "stale")                // is mirrored because it exists
	one := run(nil)
	name := one.outputs["snapshot_name"]
	if !regexp.MustCompile(`^iterate-sandbox-\d{8}-\d{6}-[0-9a-f]{7}-octocat$`).MatchString(name) {
		t.Errorf("name %q", name)
	}
	if one.outputs["snapshot_state"] != "active" || one.outputs["reused"] != "false" ||
		one.outputs["doppler_updated"] != "true" ||
		len(one.outputs) != len(outputsOf(t, "snapshot")) {
		t.Errorf("outputs %v", one.outputs)
	}
	if got := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); got != name {
		t.Errorf("Doppler has %q", got)
	}
	if got := e.Doppler.Secret(localcloud.Project, "dev", mirrorSecret); got != mirrorValue {
		t.Errorf("%s is %q, want %q", mirrorSecret, got, mirrorValue)
	}
	if !strings.Contains(one.summary, name) || !strings.Contains(one.summary, one.outputs["digest"]) {
		t.Errorf("summary %s", one.summary)
	}
	before := len(e.Registry.Requests())
	two := run(nil)
	if two.outputs["snapshot_name"] != name || two.outputs["reused"] != "true" ||
		two.outputs["doppler_updated"] != "false" ||
		two.outputs["digest"] != one.outputs["digest"] {
		t.Errorf("outputs of the second run %v", two.outputs)
	}
	if requests := e.Registry.Requests()[before:]; len(requests) > 0 {
		t.Errorf("the second run sent requests to the registry: %q", requests)
	}
}
