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
	"golang.org/x/crypto/nacl/sign"
	"google.golang.org/grpc"
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
		return types.AuthConfig{}, fmt.Errorf("read the credentials for %s from Docker's configuration: %w", host, err)
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

// provider returns BuildKit's session attachable for registry credentials.
func (a Auth) provider() (session.Attachable, error) {
	find := func(
		ctx context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck,
	) (types.AuthConfig, error) {
		return a.find(ctx, host)
	}
	provider := authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: find})
	server, ok := provider.(auth.AuthServer)
	if !ok {
		return nil, errors.New("BuildKit's auth provider does not implement auth.AuthServer")
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // does not fail
	return &tokenAuthority{AuthServer: server, seed: seed}, nil
}

// tokenAuthority proves to the builder that this session requested a token. BuildKit's implementation stores the seed
// of the proof in Docker's configuration directory; this one keeps it in memory.
type tokenAuthority struct {
	auth.AuthServer
	seed []byte
}

// Register implements session.Attachable.
func (a *tokenAuthority) Register(server *grpc.Server) { auth.RegisterAuthServer(server, a) }

func (a *tokenAuthority) key(host string, salt []byte) ed25519.PrivateKey {
	mac := hmac.New(sha256.New, a.seed)
	fmt.Fprintf(mac, "%d %s %s", len(host), host, salt)
	return ed25519.NewKeyFromSeed(mac.Sum(nil))
}

// GetTokenAuthority implements auth.AuthServer.
func (a *tokenAuthority) GetTokenAuthority(
	_ context.Context, r *auth.GetTokenAuthorityRequest,
) (*auth.GetTokenAuthorityResponse, error) {
	public := a.key(r.Host, r.Salt)[32:]
	return &auth.GetTokenAuthorityResponse{PublicKey: public}, nil
}

// VerifyTokenAuthority implements auth.AuthServer.
func (a *tokenAuthority) VerifyTokenAuthority(
	_ context.Context, r *auth.VerifyTokenAuthorityRequest,
) (*auth.VerifyTokenAuthorityResponse, error) {
	signed := sign.Sign(nil, r.Payload, (*[64]byte)(a.key(r.Host, r.Salt)))
	return &auth.VerifyTokenAuthorityResponse{Signed: signed}, nil
}
