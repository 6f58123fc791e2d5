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

// Secrets of a Doppler config that contain the name of the snapshot.
const (
	SnapshotNameSecret = "DAYTONA_SNAPSHOT_NAME"
	MirroredNameSecret = "VITE_DAYTONA_SNAPSHOT_NAME" // a reference to SnapshotNameSecret, for Vite
	MirroredNameValue  = "${" + SnapshotNameSecret + "}"
)

const (
	dopplerCLITimeout         = 5 * time.Second
	dopplerOIDCAudiencePrefix = "https://github.com/"
)

// ErrNoDopplerToken means that there is no token for Doppler.
var ErrNoDopplerToken = errors.New("no Doppler token: set doppler_token (a service token) or DOPPLER_TOKEN, or set " +
	"doppler_identity to authenticate with GitHub OIDC")

// serviceSecrets authenticate to services that only these programs call. Dockerfile steps do not need them.
var serviceSecrets = []string{"DEPOT_TOKEN", "DAYTONA_API_KEY"}

// publicNames are secrets that are not masked: names, IDs and URLs that appear in logs and outputs.
var publicNames = []string{
	SnapshotNameSecret, MirroredNameSecret, "DEPOT_PROJECT_ID", "DAYTONA_API_URL", "DAYTONA_ORG_ID",
	"DAYTONA_ORGANIZATION_ID", "DOPPLER_PROJECT", "DOPPLER_ENVIRONMENT", "DOPPLER_CONFIG",
}

// DopplerSource selects a Doppler config and lists the sources of credentials for it.
type DopplerSource struct {
	Config   string // "" means the config of the token
	Project  string // "" means the project of the token
	Token    string // the input doppler_token
	Identity string // the input doppler_identity

	Optional   bool   // without a token, return no config instead of an error
	Repository string // owner/name of the repository that authenticates with OIDC
	Dir        string // working directory of the Doppler CLI, which selects its settings
	InActions  bool
	Getenv     func(string) string // DOPPLER_TOKEN, DOPPLER_API_HOST
	OIDC       OIDC
	Mask       func(secret string)
}

// Doppler is a Doppler config that has been read. The zero value has no secrets.
type Doppler struct {
	Client  *doppler.Client   // nil without a config
	Secrets map[string]string // by name
}

// ReadDoppler authenticates to Doppler, reads the config and masks its secrets. The input doppler_token takes
// precedence. Otherwise ReadDoppler logs in with the identity, if there is one, or uses DOPPLER_TOKEN or, outside
// GitHub Actions, the token of the Doppler CLI. Without a token it returns [ErrNoDopplerToken], unless the config is
// optional. If no field selects a config or a credential, it returns the zero value.
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

// HasDopplerToken reports whether the input or DOPPLER_TOKEN provides a token.
func HasDopplerToken(input string, getenv func(string) string) bool {
	return input != "" || getenv("DOPPLER_TOKEN") != ""
}

// isPublic reports whether a secret is not masked. Masking a boolean such as "1" would garble every log.
func isPublic(name, value string) bool {
	_, err := strconv.ParseBool(value)
	return err == nil || slices.Contains(publicNames, name)
}

// login exchanges a GitHub OIDC token for a Doppler token of the identity.
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

// cliSetting returns a setting stored by `doppler login` or `doppler setup`, or "".
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
