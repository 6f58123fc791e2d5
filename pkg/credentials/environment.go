package credentials

import (
	"os"
	"strings"
)

// tokenVariables are environment variables for tokens. They are masked even if unused, because a test command may print
// its environment.
var tokenVariables = []string{
	"DEPOT_TOKEN", "DEPOT_API_TOKEN", "DEPOT_JIT_TOKEN", "DEPOT_CACHE_TOKEN",
	"DOPPLER_TOKEN", "DAYTONA_API_KEY", "GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
}

// MaskEnvironment masks the tokens in the environment.
func MaskEnvironment(getenv func(string) string, mask func(secret string)) {
	for _, name := range tokenVariables {
		mask(getenv(name))
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
