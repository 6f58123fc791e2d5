package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// DepotAudience is the audience of OIDC tokens for Depot.
const DepotAudience = "https://depot.dev"

// ErrNoDepotToken means that there is no token for Depot.
var ErrNoDepotToken = errors.New(
	"no Depot token: run `depot login`, set DEPOT_TOKEN or depot_token, " +
		"or run in GitHub Actions to authenticate with OIDC",
)

// Depot finds the token for authenticating to Depot.
type Depot struct {
	Input  string                           // the input depot_token
	Getenv func(string) string              // variables for tokens, the user's home, and the event that started the run
	OIDC   OIDC                             // its HTTP configuration also applies to requests to Depot
	Logf   func(format string, args ...any) // required: Depot reads the challenge for a fork's pull request from the log

	ClaimURL          string        // "" means the default
	ChallengeTimeout  time.Duration // for all challenges of one call; default 10 min
	ChallengeInterval time.Duration // between the lines that show a challenge; default 1 s
}

// depotToken is a token and its source, for the log.
type depotToken struct{ source, value string }

// Token is like [Depot.Find], and logs the source of the token.
func (d Depot) Token(ctx context.Context) (string, error) {
	token, source, err := d.Find(ctx)
	if err == nil {
		d.Logf("Authenticating to Depot with %s", source)
	}
	return token, err
}

// Find returns the first of these tokens that exists, and its source: the input, DEPOT_TOKEN, DEPOT_API_TOKEN, the
// token of `depot login` (outside GitHub Actions), an OIDC token, and those of Depot's own runners, DEPOT_JIT_TOKEN and
// DEPOT_CACHE_TOKEN. This is the order of depot/cli b57f518, pkg/helpers/token.go.
//
// GitHub issues no OIDC tokens for pull requests from forks; if the base repository is public, Find proves the run's
// identity to Depot with a challenge in the run's log. Find returns [ErrNoDepotToken] outside GitHub Actions,
// [ErrNoIDToken] in a job without the permission, the cause of ctx, or an error that wraps an *[httpclient.APIError].
func (d Depot) Find(ctx context.Context) (value, source string, err error) {
	token, err := d.staticToken()
	if err == nil && token.value == "" {
		token, err = d.issuedToken(ctx)
	}
	if err != nil && context.Cause(ctx) != nil {
		return "", "", context.Cause(ctx)
	}
	if err != nil {
		return "", "", err
	}
	return token.value, token.source, nil
}

// staticToken returns the token that the user provides, or the zero token.
func (d Depot) staticToken() (depotToken, error) {
	token, err := firstToken(depotToken{"the input depot_token", d.Input}, d.variable("DEPOT_TOKEN"),
		d.variable("DEPOT_API_TOKEN"))
	// In GitHub Actions, another job of the runner may have left a login, with which the build would run elsewhere.
	if err != nil || token.value != "" || d.Getenv("GITHUB_ACTIONS") == "true" {
		return token, err
	}
	return d.loginToken()
}

// issuedToken returns a token that the CI system issued for this job.
func (d Depot) issuedToken(ctx context.Context) (depotToken, error) {
	runner, invalid := firstToken(d.variable("DEPOT_JIT_TOKEN"), d.variable("DEPOT_CACHE_TOKEN"))
	token, err := d.oidcToken(ctx)
	switch {
	case err == nil || context.Cause(ctx) != nil || invalid == nil && runner.value == "":
		return token, err
	case invalid != nil:
		return depotToken{}, invalid
	case !errors.Is(err, ErrNoIDToken) && !errors.Is(err, ErrNoDepotToken):
		d.Logf("%v", err)
	}
	return runner, nil
}

func (d Depot) oidcToken(ctx context.Context) (depotToken, error) {
	if !d.OIDC.Available() {
		token, err := d.forkToken(ctx)
		return depotToken{"a token for a pull request from a fork", token}, err
	}
	token, err := d.OIDC.Token(ctx, DepotAudience)
	if err != nil {
		return depotToken{}, fmt.Errorf("authenticate to Depot without depot_token: %w", err)
	}
	return depotToken{"an OIDC token" + issuedBy(token), token}, nil
}

// issuedBy returns " of ISSUER": https://token.actions.githubusercontent.com, or https://identity.depot.dev in Depot
// CI. https://depot.dev/docs/ci/oidc
func issuedBy(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(data, &claims) != nil || claims.Issuer == "" {
		return ""
	}
	return " of " + safetext.Line(claims.Issuer, 200)
}

func (d Depot) variable(name string) depotToken { return depotToken{name, d.Getenv(name)} }

// firstToken returns the first token that is not empty, without white space around it. It returns an error for a
// malformed token.
func firstToken(tokens ...depotToken) (depotToken, error) {
	for _, token := range tokens {
		token.value = strings.TrimSpace(token.value)
		if strings.ContainsFunc(token.value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return depotToken{}, fmt.Errorf("%s: invalid token: contains white space or non-ASCII characters (copy it again)",
				strings.TrimPrefix(token.source, "the "))
		}
		if token.value != "" {
			return token, nil
		}
	}
	return depotToken{}, nil
}

// loginToken returns the token that `depot login` wrote. Its value is "" if the user is not logged in.
func (d Depot) loginToken() (depotToken, error) {
	const op = "read the token of `depot login`"
	file := d.loginFile()
	data, err := readSettingsFile(file)
	if err != nil {
		return depotToken{}, fmt.Errorf("%s: %w (run `depot login` again, or set DEPOT_TOKEN)", op, err)
	}
	var config struct {
		Token string `yaml:"api_token"`
	}
	if yaml.Unmarshal(data, &config) != nil { // the parser's error would quote the file
		return depotToken{}, fmt.Errorf("%s: %q is not valid YAML (run `depot login` again)", op, file)
	}
	return firstToken(depotToken{fmt.Sprintf("the token of `depot login` in %q", file), config.Token})
}

// loginFile returns the path of depot.yaml in the user's configuration directory, or "" if that is unknown. Depot CLI
// finds it with github.com/adrg/xdg, which reads XDG_CONFIG_HOME on macOS, too.
func (d Depot) loginFile() string {
	dir := d.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		dir = userConfigDir(d.Getenv)
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "depot", "depot.yaml")
}

// depotVariables are the environment variables for Depot tokens.
var depotVariables = []string{"DEPOT_TOKEN", "DEPOT_API_TOKEN", "DEPOT_JIT_TOKEN", "DEPOT_CACHE_TOKEN"}

// HasDepotToken reports whether a token is available without OIDC.
func HasDepotToken(input string, getenv func(string) string) bool {
	for _, name := range depotVariables {
		if getenv(name) != "" {
			return true
		}
	}
	login, err := Depot{Getenv: getenv}.loginToken()
	return input != "" || err == nil && login.value != ""
}
