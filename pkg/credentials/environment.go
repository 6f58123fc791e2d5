package credentials

import (
	"os"
	"strings"
)

// tokenVariables may hold credentials. They are masked even if a run does not use them: a test command may print its
// environment.
var tokenVariables = []string{
	"DEPOT_TOKEN", "DOPPLER_TOKEN", "DAYTONA_API_KEY", "GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
}

// MaskEnvironment masks every token that the environment holds.
func MaskEnvironment(getenv func(string) string, mask func(secret string)) {
	for _, name := range tokenVariables {
		mask(getenv(name))
	}
}

// WithholdInputs removes the inputs and the access to the job's OIDC tokens from this process's environment, so that no
// program it starts inherits them. The returned lookup still knows the environment as it was.
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

// HasDepotToken reports whether a Depot token is given: by the input or by DEPOT_TOKEN.
func HasDepotToken(input string, getenv func(string) string) bool {
	return input != "" || getenv("DEPOT_TOKEN") != ""
}
