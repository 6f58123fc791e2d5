package image

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/moby/buildkit/session/auth/authprovider"
)

// Credential is the login for one registry.
type Credential struct {
	Host, Username, Password string
}

// Auth authenticates to registries with Credentials, or else with Docker's configuration and its credential helpers.
// Passwords stay in this process: the builder gets tokens, unless a registry does not support them.
type Auth struct {
	Credentials []Credential
	Mask        func(secret string) // called with each secret of Docker's configuration before its use; may be nil
}

// Resolve implements go-containerregistry's authn.Keychain.
func (a Auth) Resolve(target authn.Resource) (authn.Authenticator, error) {
	found, err := a.find(context.Background(), target.RegistryStr())
	if err != nil {
		return nil, err
	}
	if found == (types.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authenticator(found), nil
}

func authenticator(login types.AuthConfig) authn.Authenticator {
	return authn.FromConfig(authn.AuthConfig{
		Username: login.Username, Password: login.Password, Auth: login.Auth,
		IdentityToken: login.IdentityToken, RegistryToken: login.RegistryToken,
	})
}

func (a Auth) find(ctx context.Context, host string) (types.AuthConfig, error) {
	if host == "index.docker.io" {
		host = authprovider.DockerHubRegistryHost
	}
	for _, c := range a.Credentials {
		if c.Host == host {
			return types.AuthConfig{ServerAddress: host, Username: c.Username, Password: c.Password}, nil
		}
	}
	file, err := config.Load(config.Dir())
	if err != nil {
		return types.AuthConfig{}, fmt.Errorf("read Docker's configuration: %w", err)
	}
	found, err := authprovider.LoadAuthConfig(file)(ctx, host, nil, nil)
	if err != nil {
		return types.AuthConfig{}, newCredentialError(file, host, err)
	}
	if a.Mask != nil {
		for _, secret := range []string{found.Password, found.IdentityToken, found.RegistryToken} {
			if secret != "" {
				a.Mask(secret)
			}
		}
	}
	return found, nil
}

// CredentialError reports that Docker's configuration has a credential helper which does not work.
type CredentialError struct {
	Text string
	Err  error
}

func (e *CredentialError) Error() string { return e.Text }
func (e *CredentialError) Unwrap() error { return e.Err }

// credentialText matches the text of a [*CredentialError] in a message of BuildKit.
var credentialText = regexp.MustCompile(`get the credentials for .*$`)

func newCredentialError(file *configfile.ConfigFile, host string, err error) error {
	helper := file.CredentialHelpers[host]
	if helper == "" {
		helper = file.CredentialsStore
	}
	program, setting := "docker-credential-"+helper, "credsStore or credHelpers"
	cause := err.Error()
	if _, missing := exec.LookPath(program); missing != nil {
		cause = program + " is not installed"
	}
	return &CredentialError{Err: err, Text: fmt.Sprintf("get the credentials for %s from Docker's configuration: %s "+
		"(install %s, or remove it from %s in %s and run docker login)", host, cause, program, setting, file.Filename)}
}
