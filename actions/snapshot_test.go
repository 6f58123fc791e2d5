package actions

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
)

const small = "FROM debian:bookworm-slim\nCOPY Dockerfile /\nCMD [\"sleep\", \"60\"]\n"

func TestSnapshotName(t *testing.T) {
	at := time.Date(2026, 11, 25, 3, 4, 5, 0, time.FixedZone("", 3600))
	const sha = "0123456789abcdef0123456789abcdef01234567"
	for _, test := range []struct {
		name, prefix, sha string
		dirty             bool
		person, want      string
	}{
		{"plain", "iterate-sandbox", sha, false, "octocat", "iterate-sandbox-20261125-020405-0123456-octocat"},
		{"dirty", "iterate-sandbox", sha, true, "octocat", "iterate-sandbox-20261125-020405-0123456-dirty-octocat"},
		{"a name of several words", "p", sha, false, "Ada Lovelace <ada@example.com>", "p-20261125-020405-0123456-Ada-Lovelace-ada-example.com"},
		{"a name in other letters", "p", sha, false, "Ада", "p-20261125-020405-0123456-unknown"},
		{"a bot", "p", sha, false, "dependabot[bot]", "p-20261125-020405-0123456-dependabot-bot"},
		{"long", strings.Repeat("p", 300), sha, false, strings.Repeat("u", 300), strings.Repeat("p", 64) + "-20261125-020405-0123456-" + strings.Repeat("u", 39)},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := snapshotName(test.prefix, at, test.sha, test.dirty, test.person)
			if got != test.want || len(got) > maxName {
				t.Errorf("%s (%d), want %s", got, len(got), test.want)
			}
		})
	}
}

// From a Dockerfile to a name in Doppler, twice: the second time nothing is made and nothing is pushed.
func TestSnapshot(t *testing.T) {
	w := cloud(t)
	dir := t.TempDir()
	run := func(inputs map[string]string) outcome {
		return w.succeed(t, invocation{program: "action-snapshot", dir: dir, docker: small, inputs: inputs, env: map[string]string{"DAYTONA_API_KEY": "", "GITHUB_ACTOR": "octocat"}})
	}
	writeFile(t, dir, "Dockerfile", small+"ENTRYPOINT [\"sleep\", \"600\"]\n") // Daytona says which one it took
	one := run(nil)
	name := one.outputs["snapshot_name"]
	if !regexp.MustCompile(`^iterate-sandbox-\d{8}-\d{6}-[0-9a-f]{7}-octocat$`).MatchString(name) {
		t.Errorf("name %q", name)
	}
	if one.outputs["snapshot_state"] != "active" || one.outputs["reused"] != "false" || one.outputs["doppler_updated"] != "true" || len(one.outputs) != len(outputsOf(SnapshotResult{})) {
		t.Errorf("outputs %v", one.outputs)
	}
	if got := w.Doppler.Secret(localcloud.Project, "dev", nameSecret); got != name {
		t.Errorf("Doppler names %q", got)
	}
	if got := w.Doppler.Secret(localcloud.Project, "dev", mirrorSecret); got != mirrorValue {
		t.Errorf("Doppler's mirror is %q", got)
	}
	if !strings.Contains(one.summary, name) || !strings.Contains(one.summary, one.outputs["digest"]) {
		t.Errorf("summary %s", one.summary)
	}
	before := len(w.Registry.Requests())
	two := run(nil)
	if two.outputs["snapshot_name"] != name || two.outputs["reused"] != "true" || two.outputs["doppler_updated"] != "false" || two.outputs["digest"] != one.outputs["digest"] {
		t.Errorf("outputs of the second run %v", two.outputs)
	}
	if requests := w.Registry.Requests()[before:]; len(requests) > 0 {
		t.Errorf("the registry was asked in the second run: %q", requests)
	}
}
