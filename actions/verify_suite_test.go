package actions

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// Doppler names a snapshot only if its suite passes. Tests that fail because of Daytona do not delete it.
func TestVerifySuite(t *testing.T) {
	const passes = "  - {name: metadata, image: {entrypoint: [/init], max_layers: 1, platform: linux/amd64}}\n"
	for _, test := range []struct {
		name   string
		tests  string
		fault  cloudaytona.Fault
		left   bool
		want   string
		report string // part of the JUnit report
	}{
		{name: "passes", tests: passes, report: `tests="1" failures="0"`},
		{
			name: "skips", tests: passes + "  - {name: tty, tty: true, run: id}\n  - {name: size, image: {max_size: 1MB}}\n",
			report: `<skipped message="not supported in a Daytona sandbox: tty">`,
		},
		{
			name: "fails", tests: passes + "  - {name: shell, image: {user: app}}\n", report: `failures="1"`,
			want: "does not work: 1 of 2 tests of suite.yaml failed in a sandbox … junit.xml",
		},
		{
			name: "a command fails", tests: "  - {name: command, run: id}\n", report: `failures="1"`, // simulated: no output
			want: "does not work: 1 of 1 tests of suite.yaml failed",
		},
		{
			name: "sandboxes fail", tests: "  - {name: command, run: id}\n", report: `failures="1"`, left: true,
			want: "sandboxes failed during 1 of 1 tests … was not deleted", fault: cloudaytona.Fault{
				Path: "/process/execute", Status: 502, Body: "<html>",
			},
		},
		{name: "invalid", tests: "  - {name: command}\n", left: true, want: "verify: suite.yaml:2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startVerifying(t, nil)
			c.spec.Verify, c.spec.VerifySuite, c.suite = inputs.VerifySuite, "suite.yaml", "tests:\n"+test.tests
			if test.fault.Path != "" { // after the boot
				c.client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					if strings.HasSuffix(r.URL.Path, "/session/entrypoint") {
						c.Fail(test.fault)
					}
					return http.DefaultTransport.RoundTrip(r)
				})
			}
			got := c.verify(t.Context(), t, "old")
			assertVerified(t, c, got, test.want)
			if names := c.names(t); (len(names) > 0) != (test.left || test.want == "") {
				t.Errorf("the snapshots are %q", names)
			}
			report, err := os.ReadFile(filepath.Join(got.reports, "test-results", "junit.xml"))
			if !strings.Contains(string(report), test.report) || (err == nil) != (test.report != "") {
				t.Errorf("%v: the report lacks %q:\n%s", err, test.report, report)
			}
		})
	}
}

// An invalid suite is refused before anything is built.
func TestCheckVerifySuite(t *testing.T) {
	job, _, _ := testJob(t, nil)
	spec := inputs.SnapshotSpec{Image: "app:1", Verify: inputs.VerifySuite, VerifySuite: "none.yaml"}
	if err := checkVerifySuite(job, spec, buildSource{}); err == nil ||
		!strings.Contains(err.Error(), "input verify: test suite none.yaml not found") {
		t.Error(err)
	}
	spec.VerifySuite = "../../etc/passwd"
	if err := checkVerifySuite(job, spec, buildSource{}); err == nil {
		t.Error("a suite outside of the workspace is accepted")
	}
	spec.Image = "" // and the commit is not fetched yet
	if err := checkVerifySuite(job, spec, buildSource{}); err != nil {
		t.Error(err)
	}
}
