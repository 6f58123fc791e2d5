package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

const (
	dopplerOIDCAudiencePrefix = "https://github.com/"
	dopplerToken              = "the Doppler token" // in messages
)

// ErrNoDopplerToken means that there is no token for Doppler.
var ErrNoDopplerToken = errors.New("no Doppler token: set doppler_token (a service token) or DOPPLER_TOKEN, or set " +
	"doppler_identity to authenticate with GitHub OIDC")

// serviceSecrets authenticate to services that only these programs call. Dockerfile steps do not need them.
var serviceSecrets = append([]string{"DAYTONA_API_KEY"}, depotVariables...)

// dopplerNames are the secrets with which Doppler describes a config in that config.
var dopplerNames = []string{"DOPPLER_PROJECT", "DOPPLER_ENVIRONMENT", "DOPPLER_CONFIG"}

// publicNames are secrets that are not masked: names, IDs and URLs that appear in logs and outputs.
var publicNames = append([]string{
	"DEPOT_PROJECT_ID", "DAYTONA_API_URL", "DAYTONA_ORG_ID", "DAYTONA_ORGANIZATION_ID",
	"DAYTONA_SNAPSHOT_NAME", "VITE_DAYTONA_SNAPSHOT_NAME", "DAYTONA_SNAPSHOT_NAME_HISTORY",
}, dopplerNames...)

// neverInjected are the secrets that `doppler run` does not set in the environment (DopplerHQ/cli d441d94,
// pkg/controllers/secrets.go, PrepareSecrets).
var neverInjected = []string{"PATH", "PS1", "HOME"}

// DopplerSource selects a Doppler config and lists the sources of credentials for it.
type DopplerSource struct {
	Config   string // the input doppler_config
	Project  string // the input doppler_project
	Token    string // the input doppler_token
	Identity string // the input doppler_identity

	Default    string   // config to read if nothing selects one; "" reads none without one of the inputs
	Optional   bool     // without a token, return no config instead of an error
	Public     []string // names of further secrets that are not masked
	Repository string   // owner/name of the repository that authenticates with OIDC
	Dir        string   // directory that selects the settings of the Doppler CLI
	InActions  bool
	Getenv     func(string) string // DOPPLER_*, HOME
	OIDC       OIDC
	HTTP       httpclient.Config         // of the requests to Doppler
	Mask       func(name, secret string) // masks a secret that errors refer to by name
	Logf       func(format string, args ...any)
}

// Doppler is a Doppler config that has been read. The zero value has no secrets.
type Doppler struct {
	Client    *doppler.Client   // nil without a config
	Secrets   map[string]string // by name
	Selected  string            // what selected the config, for messages
	TokenFrom string            // source of the token, for messages
}

// ReadDoppler authenticates to Doppler, reads the config and masks its secrets.
//
// The project, the config and the token are each the first of these that is set: the input, the environment
// (DOPPLER_PROJECT, DOPPLER_CONFIG, DOPPLER_TOKEN) and, outside GitHub Actions, the settings of the Doppler CLI. The
// input doppler_identity takes precedence over tokens of the environment. A service token implies its project and
// config and takes precedence over those of a later source.
//
// `doppler run` sets the environment to the secrets of a config. If that is the config to read, the values of the
// environment are used, and Doppler supplies only the names and the visibility of the secrets.
//
// Without a token, ReadDoppler returns [ErrNoDopplerToken], unless the config is optional.
func ReadDoppler(ctx context.Context, source DopplerSource) (Doppler, error) {
	inputs := []string{source.Config, source.Project, source.Token, source.Identity}
	if source.Default == "" && strings.Join(inputs, "") == "" {
		return Doppler{}, nil
	}
	selected, err := source.selectConfig(ctx)
	if err != nil {
		return Doppler{}, err
	}
	client := selected.client
	client.TokenSource = selected.tokenFrom
	switch {
	case client.Token != "":
		source.Mask(dopplerToken, client.Token)
	case source.Identity == "" && source.Optional:
		if selected.tokenErr != nil {
			source.Logf("%v", selected.tokenErr)
		}
		return Doppler{}, nil
	case source.Identity == "":
		return Doppler{}, fmt.Errorf("read %s: %w", client.Name(), cmp.Or(selected.tokenErr, ErrNoDopplerToken))
	default:
		client.Renew = source.login
		if client.Token, err = client.Renew(ctx); err != nil {
			return Doppler{}, err
		}
	}
	stored, err := client.Secrets(ctx)
	if err != nil {
		return Doppler{}, err
	}
	client.Project = cmp.Or(stored["DOPPLER_PROJECT"].Value, client.Project)
	client.Config = cmp.Or(stored["DOPPLER_CONFIG"].Value, client.Config)
	config := Doppler{&client, source.valuesOf(stored, source.isInjected(client)), selected.by, selected.tokenFrom}
	source.mask(stored, config.Secrets)
	source.Logf("Doppler token: from %s", selected.tokenFrom)
	source.Logf("Read %s (selected by %s)", client.Name(), selected.by)
	return config, nil
}

// selection is the config and the token that a source selects.
type selection struct {
	client    doppler.Client
	by        string // what selected the config
	tokenFrom string // source of the token
	tokenErr  error  // why the CLI's token is not available
}

// selectConfig selects the config and the token: see [ReadDoppler].
func (s DopplerSource) selectConfig(ctx context.Context) (selection, error) {
	type level struct{ project, config, token, configName, tokenName string }
	levels := []level{
		{s.Project, s.Config, s.Token, "doppler_config", "doppler_token"},
		{
			s.Getenv("DOPPLER_PROJECT"), s.Getenv("DOPPLER_CONFIG"), s.Getenv("DOPPLER_TOKEN"), "DOPPLER_CONFIG",
			"DOPPLER_TOKEN",
		},
		{config: s.Getenv("DOPPLER_ENVIRONMENT"), configName: "DOPPLER_ENVIRONMENT"}, // its root config has the same name
	}
	var cli dopplerCLISettings
	if !s.InActions {
		var err error
		if cli, err = readDopplerCLI(s.Dir, s.Getenv); err != nil {
			return selection{}, err
		}
		levels = append(levels, level{cli.Project, cli.Config, cli.Token, "doppler setup", "doppler login"})
	}
	selected := selection{client: doppler.Client{Host: cmp.Or(s.Getenv("DOPPLER_API_HOST"), cli.Host), HTTP: s.HTTP}}
	if s.Token == "" && s.Identity != "" {
		selected.tokenFrom = "doppler_identity"
	}
	client := &selected.client
	for _, level := range levels {
		client.Project = cmp.Or(client.Project, level.project)
		if client.Config == "" && level.config != "" {
			client.Config, selected.by = level.config, level.configName
		}
		if selected.tokenFrom != "" || level.token == "" {
			continue
		}
		client.Token, selected.tokenFrom = level.token, level.tokenName
		if strings.HasPrefix(client.Token, keyringPrefix) && level.token == cli.Token {
			client.Token, selected.tokenErr = dopplerKeyring(ctx, s.Dir)
		}
		if client.Config == "" && doppler.IsServiceToken(client.Token) {
			selected.by = "the service token in " + level.tokenName
			return selected, nil
		}
	}
	if client.Config == "" {
		client.Config, selected.by = s.Default, "default"
	}
	return selected, nil
}

// isInjected reports whether `doppler run` has set the environment to the secrets of the config. It then also sets
// DOPPLER_ENVIRONMENT.
func (s DopplerSource) isInjected(client doppler.Client) bool {
	return s.Getenv("DOPPLER_ENVIRONMENT") != "" && s.Getenv("DOPPLER_PROJECT") == client.Project &&
		s.Getenv("DOPPLER_CONFIG") == client.Config
}

// valuesOf returns the values of secrets: those of the environment if they are injected, otherwise those in Doppler.
func (s DopplerSource) valuesOf(stored map[string]doppler.Secret, injected bool) map[string]string {
	values := map[string]string{}
	var withheld []string
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		value := ""
		if injected && !slices.Contains(neverInjected, name) {
			value = s.Getenv(name)
		}
		if value = cmp.Or(value, stored[name].Value); value != "" || !stored[name].Withheld {
			values[name] = value
		} else {
			withheld = append(withheld, name)
		}
	}
	if len(withheld) > 0 {
		s.Logf("Doppler returns the restricted secrets %s only to service tokens and service accounts",
			strings.Join(withheld, ", "))
	}
	return values
}

// mask masks the secrets that are not public, both as stored in Doppler and as used. Like Doppler's own action, it
// masks every visibility except unmasked (DopplerHQ/secrets-fetch-action 558a97f, index.js). Masked is Doppler's
// default, so a setting with the value of a public one is not masked either, unless it is restricted.
func (s DopplerSource) mask(stored map[string]doppler.Secret, used map[string]string) {
	isPublic := func(name string) bool {
		return stored[name].Visibility == doppler.Unmasked || slices.Contains(publicNames, name) ||
			slices.Contains(s.Public, name)
	}
	owner, repository, _ := strings.Cut(s.Repository, "/")
	public := []string{owner, repository, s.Repository, s.Getenv("GITHUB_REF_NAME"), s.Getenv("GITHUB_ACTOR")}
	for name, secret := range stored {
		if isPublic(name) {
			public = append(public, secret.Value, used[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		for _, value := range []string{stored[name].Value, used[name]} {
			hasPublicValue := stored[name].Visibility != doppler.Restricted && slices.Contains(public, value)
			if !isPublic(name) && !hasPublicValue && !isFlag(value) {
				s.Mask("the Doppler secret "+name, value)
			}
		}
	}
}

// isFlag reports whether a value is a boolean, which is not masked: it would hide every "1" or "true" of a log.
func isFlag(value string) bool {
	_, err := strconv.ParseBool(value)
	return err == nil
}

// HasDopplerToken reports whether the input or DOPPLER_TOKEN provides a token.
func HasDopplerToken(input string, getenv func(string) string) bool {
	return input != "" || getenv("DOPPLER_TOKEN") != ""
}

// login exchanges a GitHub OIDC token for a Doppler token of the identity.
func (s DopplerSource) login(ctx context.Context) (string, error) {
	owner, _, _ := strings.Cut(s.Repository, "/")
	id, err := s.OIDC.Token(ctx, dopplerOIDCAudiencePrefix+owner)
	if err != nil {
		return "", fmt.Errorf("input doppler_identity: %w", err)
	}
	token, err := doppler.Client{Host: s.Getenv("DOPPLER_API_HOST"), HTTP: s.HTTP}.Login(ctx, s.Identity, id)
	if err == nil {
		s.Mask(dopplerToken, token)
	}
	return token, err
}

// Over returns a getenv function that looks up the config's secrets before getenv.
func (d Doppler) Over(getenv func(string) string) func(string) string {
	return func(name string) string {
		if value := d.Secrets[name]; value != "" {
			return value
		}
		return getenv(name)
	}
}

// BuildSecrets returns the secrets for Dockerfile steps: all except serviceSecrets.
func (d Doppler) BuildSecrets() map[string]string {
	secrets := map[string]string{}
	for name, value := range d.Secrets {
		if !slices.Contains(serviceSecrets, name) {
			secrets[name] = value
		}
	}
	return secrets
}
