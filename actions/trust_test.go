package actions

import (
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// allow_untrusted_secrets gives the build the secrets of Doppler. The code stays untrusted: it must not share its copy
// of the context with builds of the repository's own code.
func TestUntrustedSecrets(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		job, stdout, _ := testJob(t, map[string]string{
			"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "workflow_run", "GITHUB_REPOSITORY": "a/b",
		})
		spec := inputs.BuildSpec{Context: ".", AllowUntrustedRef: true, AllowUntrustedSecrets: allowed}
		doppler := credentials.Doppler{Secrets: map[string]string{"KEY": "value"}}
		untrusted, err := checkTrusted(t.Context(), job, spec, doppler, buildSource{})
		if err != nil || !untrusted {
			t.Errorf("allow_untrusted_secrets %t: untrusted %t, %v", allowed, untrusted, err)
		}
		if noticed := strings.Contains(stdout.String(), "gets no secrets of Doppler"); noticed == allowed {
			t.Errorf("allow_untrusted_secrets %t: log %q", allowed, stdout)
		}
		secrets, err := buildSecrets(job, spec, session{Doppler: doppler, Untrusted: untrusted}, buildSource{})
		if _, found := secrets["KEY"]; err != nil || found != allowed {
			t.Errorf("allow_untrusted_secrets %t: secrets %v, %v", allowed, secrets, err)
		}
	}
}
