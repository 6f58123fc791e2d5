package credentials

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/doppler"
)

// The secrets of a Doppler config that hold the name of the snapshot.
const (
	SnapshotNameSecret        = "DAYTONA_SNAPSHOT_NAME"
	MirroredNameSecret        = "VITE_DAYTONA_SNAPSHOT_NAME" // a reference to the former
	MirroredNameValue         = "${" + SnapshotNameSecret + "}"
	dopplerCLITimeout         = 5 * time.Second
	dopplerOIDCAudiencePrefix = "https://github.com/"
)

// ErrNoDopplerToken means that no source has a token for Doppler.
var ErrNoDopplerToken = errors.New("no Doppler token: set doppler_token (a service token) or DOPPLER_TOKEN, or set " +
	"doppler_identity to authenticate with GitHub OIDC")

// serviceSecrets authenticate to services that the programs call and no step of a Dockerfile does.
var serviceSecrets = []string{"DEPOT_TOKEN", "DAYTONA_API_KEY"}

// publicNames are secrets of a Doppler config that are shown: names, IDs and addresses that appear in logs and outputs.
var publicNames = []string{
	SnapshotNameSecret, MirroredNameSecret, "DEPOT_PROJECT_ID", "DAYTONA_API_URL", "DAYTONA_ORG_ID",
	"DAYTONA_ORGANIZATION_ID", "DOPPLER_PROJECT", "DOPPLER_ENVIRONMENT", "DOPPLER_CONFIG",
}

// DopplerSource says which Doppler config to read and how to authenticate.
type DopplerSource struct {
	Config   string // empty: the token's own
	Project  string // empty: the token's own
	Token    string // the input doppler_token
	Identity string // the input doppler_identity

	Optional   bool   // without a token, read nothing and return no error
	Repository string // owner/name whose workflow authenticates with OIDC
	Dir        string // where the Doppler CLI looks for its configuration
	InActions  bool
	Getenv     func(string) string // DOPPLER_TOKEN, DOPPLER_API_HOST
	OIDC       OIDC
	Mask       func(secret string)
}

// Doppler is a Doppler config that was read. The zero value is no config.
type Doppler struct {
	Client  *doppler.Client   // nil without a config
	Secrets map[string]string // by name
}

// ReadDoppler authenticates to Doppler, reads the config and masks its secrets. The token is, in this order: the input;
// without an identity DOPPLER_TOKEN and, outside GitHub Actions, the Doppler CLI's; otherwise one for the identity.
// Without any it returns [ErrNoDopplerToken], unless the config is optional or none is asked for.
func ReadDoppler(ctx context.Context, source DopplerSource) (Doppler, error) {
	if source.Config == "" && source.Project == "" && source.Token == "" && source.Identity == "" {
		return Doppler{}, nil
	}
	client := doppler.Client{
		Host: source.Getenv("DOPPLER_API_HOST"), Project: source.Project, Config: source.Config, Token: source.Token,
	}
	if client.Token == "" && source.Identity == "" {
		client.Token = source.Getenv("DOPPLER_TOKEN")
	}
	if client.Token == "" && source.Identity == "" && !source.InActions {
		client.Token = source.cliSetting(ctx, "token")
		if client.Project == "" && client.Token != "" {
			client.Project = source.cliSetting(ctx, "project")
		}
	}
	switch {
	case client.Token != "":
		source.Mask(client.Token)
	case source.Identity == "" && source.Optional:
		return Doppler{}, nil
	case source.Identity == "":
		return Doppler{}, fmt.Errorf("read Doppler config %q: %w", source.Config, ErrNoDopplerToken)
	default:
		client.Renew = source.login
		var err error
		if client.Token, err = client.Renew(ctx); err != nil {
			return Doppler{}, err
		}
	}
	secrets, err := client.Secrets(ctx)
	if err != nil {
		return Doppler{}, err
	}
	for name, value := range secrets {
		if !isPublic(name, value) {
			source.Mask(value)
		}
	}
	return Doppler{&client, secrets}, nil
}

// HasDopplerToken reports whether a token is given: by the input or by DOPPLER_TOKEN.
func HasDopplerToken(input string, getenv func(string) string) bool {
	return input != "" || getenv("DOPPLER_TOKEN") != ""
}

// isPublic reports whether a secret of a config is shown. Masking a boolean would hide half of every log.
func isPublic(name, value string) bool {
	_, err := strconv.ParseBool(value)
	return err == nil || slices.Contains(publicNames, name)
}

// login exchanges a GitHub OIDC token for a token of the identity.
func (s DopplerSource) login(ctx context.Context) (string, error) {
	owner, _, _ := strings.Cut(s.Repository, "/")
	id, err := s.OIDC.Token(ctx, dopplerOIDCAudiencePrefix+owner)
	if err != nil {
		return "", fmt.Errorf("input doppler_identity: %w", err)
	}
	token, err := doppler.Client{Host: s.Getenv("DOPPLER_API_HOST")}.Login(ctx, s.Identity, id)
	if err == nil {
		s.Mask(token)
	}
	return token, err
}

// cliSetting returns a setting that `doppler login` or `doppler setup` stored; empty without one.
func (s DopplerSource) cliSetting(ctx context.Context, setting string) string {
	ctx, cancel := context.WithTimeout(ctx, dopplerCLITimeout)
	defer cancel()
	command := exec.CommandContext(ctx, "doppler", "configure", "get", setting, "--plain", "--no-check-version")
	command.Dir = s.Dir
	out, err := command.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// Over returns an environment in which the config's secrets take precedence over getenv.
func (d Doppler) Over(getenv func(string) string) func(string) string {
	return func(name string) string {
		if value := d.Secrets[name]; value != "" {
			return value
		}
		return getenv(name)
	}
}

// BuildSecrets returns the secrets that a Dockerfile's steps may use: all but those for services that the programs
// call.
func (d Doppler) BuildSecrets() map[string]string {
	secrets := map[string]string{}
	for name, value := range d.Secrets {
		if !slices.Contains(serviceSecrets, name) {
			secrets[name] = value
		}
	}
	return secrets
}
