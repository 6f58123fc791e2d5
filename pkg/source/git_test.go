package source

import (
	"slices"
	"testing"
)

// git gets what it works with, and nothing that is none of its business.
func TestEnvironment(t *testing.T) {
	needs := []string{
		"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "XDG_CONFIG_HOME=/x", "SSH_AUTH_SOCK=/agent", "SSL_CERT_FILE=/ca.pem", "GIT_SSL_CAINFO=/ca.pem", "GIT_PROXY_SSL_CAINFO=/ca.pem",
		"HTTPS_PROXY=http://proxy", "https_proxy=http://proxy", "http_proxy=http://proxy", "no_proxy=localhost", "ALL_PROXY=socks5://proxy",
	}
	others := []string{
		"GITHUB_TOKEN=a", "INPUT_SECRETS=a=b", "DEPOT_TOKEN=a", "MY_PATH=a", "HOMEBREW_GITHUB_API_TOKEN=a", "NPM_TOKEN=PATH=a", "GIT_DIR=/other", "GIT_CONFIG_COUNT=1", "GIT_TRACE_CURL=1",
		"GIT_ASKPASS=/evil", "LD_PRELOAD=/evil", "PATHS=a", "=PATH=a",
	}
	if got := environment(append(slices.Clone(needs), others...)); !slices.Equal(got, needs) {
		t.Errorf("%q, want %q", got, needs)
	}
}
