package credentials

import (
	"os"
	"strings"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// tokenVariables are environment variables for tokens. They are masked even if unused, because a test command may print
// its environment.
var tokenVariables = []string{
	"DEPOT_TOKEN", "DEPOT_API_TOKEN", "DEPOT_JIT_TOKEN", "DEPOT_CACHE_TOKEN",
	"DOPPLER_TOKEN", "DAYTONA_API_KEY", "GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
}

// proxyVariables are environment variables for URLs that may contain a password.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}

// MaskEnvironment masks the tokens, and the passwords of proxies, in the environment.
func MaskEnvironment(getenv func(string) string, mask func(name, secret string)) {
	for _, name := range tokenVariables {
		mask("the variable "+name, getenv(name))
	}
	for _, name := range proxyVariables {
		for _, secret := range safetext.URLSecrets(getenv(name)) {
			mask("the password in the variable "+name, secret)
		}
	}
}

// WithholdInputs removes the inputs and the variables for requesting OIDC tokens from this process's environment, so
// that child processes do not inherit them. The returned function looks up variables in environ, including those.
func WithholdInputs(environ []string) (getenv func(string) string) {
	values := map[string]string{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		values[name] = value
		if strings.HasPrefix(name, "INPUT_") || strings.HasPrefix(name, "ACTIONS_ID_TOKEN_REQUEST_") {
			_ = os.Unsetenv(name) // the name comes from the environment, so it is valid
		}
	}
	return func(name string) string { return values[name] }
}
