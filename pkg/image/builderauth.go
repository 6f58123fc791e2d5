package image

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"golang.org/x/crypto/nacl/sign"
	"golang.org/x/net/publicsuffix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// builderAuth gives a builder access only to the images that its build names. The builder is not trusted with logins:
// it could request those of any registry, or name its own server as the issuer of tokens. Therefore builderAuth
// requests the challenge of a registry itself, exchanges the login for a token with only the required scopes, and sends
// no request to a host that only the builder names. A registry with basic authentication issues no tokens: the builder
// gets the login.
type builderAuth struct {
	auth      Auth
	images    namedImages
	transport http.RoundTripper
	seed      []byte

	mu         sync.Mutex
	challenges map[string]*transport.Challenge // by registry
}

// provider returns BuildKit's session attachable for registry credentials.
func (a Auth) provider(images namedImages) session.Attachable {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // does not fail
	return &builderAuth{
		auth: a, images: images, transport: registryClient{}.transport(), seed: seed,
		challenges: map[string]*transport.Challenge{},
	}
}

// Register implements session.Attachable.
func (b *builderAuth) Register(server *grpc.Server) { auth.RegisterAuthServer(server, b) }

// login returns the login for a registry of the build, and the registry's challenge. Without a login for it, ok is
// false, and the builder authenticates anonymously.
func (b *builderAuth) login(
	ctx context.Context, host string,
) (login types.AuthConfig, registry name.Registry, challenge *transport.Challenge, ok bool, err error) {
	if !b.images.hasRegistry(host) {
		return login, registry, nil, false, nil
	}
	login, err = b.auth.find(ctx, host)
	if err != nil || login.Password == "" && login.IdentityToken == "" && login.RegistryToken == "" {
		return login, registry, nil, false, err
	}
	if registry, err = name.NewRegistry(host); err != nil {
		return login, registry, nil, false, err
	}
	challenge, err = b.challenge(ctx, registry)
	if err != nil {
		return login, registry, nil, false, fmt.Errorf("authenticate to %s: %w (the registry must be reachable from this "+
			"machine)", host, err)
	}
	return login, registry, challenge, true, nil
}

// challenge returns the challenge of a registry, and keeps it, because a builder requests several tokens in one build.
func (b *builderAuth) challenge(ctx context.Context, registry name.Registry) (*transport.Challenge, error) {
	host := registry.RegistryStr()
	b.mu.Lock()
	known := b.challenges[host]
	b.mu.Unlock()
	if known != nil {
		return known, nil
	}
	challenge, err := transport.Ping(ctx, registry, b.transport)
	if err == nil {
		b.mu.Lock()
		b.challenges[host] = challenge
		b.mu.Unlock()
	}
	return challenge, err
}

// GetTokenAuthority implements auth.AuthServer. Unavailable means that the builder authenticates itself, anonymously or
// with basic authentication.
func (b *builderAuth) GetTokenAuthority(
	ctx context.Context, r *auth.GetTokenAuthorityRequest,
) (*auth.GetTokenAuthorityResponse, error) {
	_, _, challenge, ok, err := b.login(ctx, r.Host)
	if err != nil {
		return nil, err
	}
	if !ok || !isBearer(challenge) {
		return nil, status.Errorf(codes.Unavailable, "no token for %s", r.Host)
	}
	return &auth.GetTokenAuthorityResponse{PublicKey: b.key(r.Host, r.Salt)[32:]}, nil
}

// VerifyTokenAuthority implements auth.AuthServer. It proves to the builder that this session requested a token.
func (b *builderAuth) VerifyTokenAuthority(
	_ context.Context, r *auth.VerifyTokenAuthorityRequest,
) (*auth.VerifyTokenAuthorityResponse, error) {
	signed := sign.Sign(nil, r.Payload, (*[64]byte)(b.key(r.Host, r.Salt)))
	return &auth.VerifyTokenAuthorityResponse{Signed: signed}, nil
}

func (b *builderAuth) key(host string, salt []byte) ed25519.PrivateKey {
	mac := hmac.New(sha256.New, b.seed)
	fmt.Fprintf(mac, "%d %s %s", len(host), host, salt)
	return ed25519.NewKeyFromSeed(mac.Sum(nil))
}

// FetchToken implements auth.AuthServer. It ignores the realm and the service in the request.
func (b *builderAuth) FetchToken(ctx context.Context, r *auth.FetchTokenRequest) (*auth.FetchTokenResponse, error) {
	scopes := b.images.allowedScopes(r.Host, r.Scopes)
	if len(scopes) == 0 {
		return nil, status.Errorf(codes.PermissionDenied, "the build does not name %s in %s",
			strings.Join(r.Scopes, " "), r.Host)
	}
	login, registry, challenge, ok, err := b.login(ctx, r.Host)
	switch {
	case err != nil:
		return nil, err
	case !ok || !isBearer(challenge):
		return nil, status.Errorf(codes.Unavailable, "no token for %s", r.Host)
	case login.RegistryToken != "":
		return &auth.FetchTokenResponse{Token: login.RegistryToken}, nil
	}
	if err := checkRealm(registry, challenge); err != nil {
		return nil, err
	}
	token, err := transport.Exchange(ctx, registry, authenticator(login), b.transport, scopes, challenge)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch oauth token: %w", err) // as in BuildKit, see failedToken
	}
	response := &auth.FetchTokenResponse{Token: token.Token, ExpiresIn: int64(token.ExpiresIn)}
	if response.Token == "" {
		response.Token = token.AccessToken
	}
	return response, nil
}

// Credentials implements auth.AuthServer. It returns a login only for a registry with basic authentication.
func (b *builderAuth) Credentials(ctx context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	login, _, challenge, ok, err := b.login(ctx, r.Host)
	if err != nil || !ok || !strings.EqualFold(challenge.Scheme, "basic") {
		return &auth.CredentialsResponse{}, err
	}
	return &auth.CredentialsResponse{Username: login.Username, Secret: login.Password}, nil
}

func isBearer(challenge *transport.Challenge) bool {
	return strings.EqualFold(challenge.Scheme, "bearer")
}

// checkRealm returns an error unless the issuer of tokens is on the same host as the registry, or in the same domain,
// as auth.docker.io is for registry-1.docker.io. It must use HTTPS, except on this machine.
func checkRealm(registry name.Registry, challenge *transport.Challenge) error {
	realm, err := url.Parse(challenge.Parameters["realm"])
	if err != nil || realm.Host == "" {
		return fmt.Errorf("authenticate to %s: invalid realm %q", registry.RegistryStr(), challenge.Parameters["realm"])
	}
	host := (&url.URL{Host: registry.RegistryStr()}).Hostname()
	issuer := realm.Hostname()
	if realm.Scheme != "https" && !isLoopback(issuer) {
		return fmt.Errorf("authenticate to %s: the issuer of tokens, %s, does not use HTTPS", host, realm.Redacted())
	}
	if issuer == host || isLoopback(issuer) && isLoopback(host) || sameDomain(issuer, host) {
		return nil
	}
	return fmt.Errorf("authenticate to %s: the issuer of tokens, %s, does not belong to the registry", host, issuer)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sameDomain reports whether two hosts are in one domain that one owner has registered.
func sameDomain(a, b string) bool {
	if net.ParseIP(a) != nil || net.ParseIP(b) != nil {
		return false
	}
	ownerA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	ownerB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && ownerA == ownerB
}
