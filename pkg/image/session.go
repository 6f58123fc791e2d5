package image

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/auth/authprovider"
	buildsecrets "github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"golang.org/x/crypto/nacl/sign"
	"google.golang.org/grpc"
)

// Credential opens one registry.
type Credential struct {
	Host, Username, Password string
}

// Auth is how registries are entered: with Credentials, else with those of Docker's configuration and its credential helpers.
// Passwords stay in this process: the builder gets tokens for what it pulls and pushes, unless a registry knows no tokens.
type Auth struct {
	Credentials []Credential
	Mask        func(secret string) // called with each password before it is used; may be nil
}

// Resolve implements go-containerregistry's Keychain.
func (a Auth) Resolve(target authn.Resource) (authn.Authenticator, error) {
	found, err := a.find(context.Background(), target.RegistryStr())
	if err != nil {
		return nil, err
	}
	if found == (types.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: found.Username, Password: found.Password, Auth: found.Auth,
		IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
	}), nil
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
		return types.AuthConfig{}, fmt.Errorf("look for a credential for %s in Docker's configuration: %w", host, err)
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

func (a Auth) provider() (session.Attachable, error) {
	library, ok := authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: func(ctx context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck) (types.AuthConfig, error) {
			return a.find(ctx, host)
		},
	}).(auth.AuthServer)
	if !ok {
		return nil, errors.New("BuildKit's registry authentication has changed its shape")
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	return &authority{AuthServer: library, seed: seed}, nil
}

// authority proves to the builder that a token asked for earlier is ours. The library keeps the seed of that proof in
// Docker's configuration folder; ours lives as long as the build, so nothing is written.
type authority struct {
	auth.AuthServer
	seed []byte
}

func (a *authority) Register(server *grpc.Server) { auth.RegisterAuthServer(server, a) }

func (a *authority) key(host string, salt []byte) ed25519.PrivateKey {
	mac := hmac.New(sha256.New, a.seed)
	fmt.Fprintf(mac, "%d %s %s", len(host), host, salt)
	return ed25519.NewKeyFromSeed(mac.Sum(nil))
}

func (a *authority) GetTokenAuthority(_ context.Context, r *auth.GetTokenAuthorityRequest) (*auth.GetTokenAuthorityResponse, error) {
	return &auth.GetTokenAuthorityResponse{PublicKey: a.key(r.Host, r.Salt)[32:]}, nil
}

func (a *authority) VerifyTokenAuthority(_ context.Context, r *auth.VerifyTokenAuthorityRequest) (*auth.VerifyTokenAuthorityResponse, error) {
	return &auth.VerifyTokenAuthorityResponse{Signed: sign.Sign(nil, r.Payload, (*[64]byte)(a.key(r.Host, r.Salt)))}, nil
}

// secretStore answers what a step asks for.
type secretStore map[string]func() ([]byte, error)

func secrets(values map[string]func() ([]byte, error)) session.Attachable {
	return secretsprovider.NewSecretProvider(secretStore(values))
}

func (s secretStore) GetSecret(_ context.Context, id string) ([]byte, error) {
	read, ok := s[id]
	if !ok {
		return nil, fmt.Errorf("secret %s: %w", id, buildsecrets.ErrNotFound)
	}
	return read()
}

func agents(list []SSH) ([]session.Attachable, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var configs []sshprovider.AgentConfig
	for _, s := range list {
		configs = append(configs, sshprovider.AgentConfig{ID: s.ID, Paths: s.Paths})
	}
	provider, err := sshprovider.NewSSHAgentProvider(configs)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w: start an agent (SSH_AUTH_SOCK), or name a socket or a key that exists", err)
	}
	return []session.Attachable{provider}, nil
}
