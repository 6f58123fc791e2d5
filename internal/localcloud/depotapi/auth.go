package depotapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/coreos/go-oidc/v3/oidc"
)

// TokenKind is the kind of token that authenticates a call.
type TokenKind string

// The kinds of tokens. A call with a missing or unknown token has the kind "".
const (
	ProjectToken      TokenKind = "project"
	OrganizationToken TokenKind = "organization"
	UserToken         TokenKind = "user"
	RunnerToken       TokenKind = "runner" // of Depot's own runners
	OIDCToken         TokenKind = "oidc"
	ForkToken         TokenKind = "fork"  // issued after the challenge for a pull request from a fork
	BuildToken        TokenKind = "build" // issued by CreateBuild for later calls of that build
)

// caller is the owner of a token.
type caller struct {
	kind       TokenKind
	project    string // set for a project token
	repository string // set for an OIDC or fork token: owner/name
	build      *build // set for a build token
}

// identify returns the owner of a request's token. It returns an unauthenticated error for an invalid token.
func (s *Server) identify(ctx context.Context, header http.Header) (caller, error) {
	token, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return caller{}, apiError(connect.CodeUnauthenticated, "missing API token")
	}
	who, err := s.lookUp(token)
	if err == nil && who.kind == "" && strings.Count(token, ".") == 2 {
		who, err = s.verify(ctx, token)
	}
	if err != nil {
		return caller{}, err
	}
	if who.kind == "" {
		return caller{}, apiError(connect.CodeUnauthenticated, "invalid API token")
	}
	s.note(ctx, func(c *Call) { c.Token = who.kind })
	return who, nil
}

// lookUp returns the owner of a token that Depot issued. For an unknown token, the kind of the caller is "".
func (s *Server) lookUp(token string) (caller, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, b := range s.builds {
		if b.token == token {
			return caller{kind: BuildToken, build: b}, nil
		}
	}
	for _, c := range s.forks {
		if c.token != "" && c.token == token {
			if c.aud != Audience {
				return caller{}, apiError(connect.CodeUnauthenticated, "invalid OIDC token: audience %s", c.aud)
			}
			if time.Now().After(c.expires) {
				return caller{}, apiError(connect.CodeUnauthenticated, "the token has expired")
			}
			return caller{kind: ForkToken, repository: c.repository}, nil
		}
	}
	for _, p := range s.options.Projects {
		if slices.Contains(p.Tokens, token) {
			return caller{kind: ProjectToken, project: p.ID}, nil
		}
	}
	switch {
	case slices.Contains(s.options.OrganizationTokens, token):
		return caller{kind: OrganizationToken}, nil
	case slices.Contains(s.options.UserTokens, token):
		return caller{kind: UserToken}, nil
	case slices.Contains(s.options.RunnerTokens, token):
		return caller{kind: RunnerToken}, nil
	}
	return caller{}, nil
}

// authorize returns the project with the ID, or the token's project if id is "". It returns a not_found error for an
// unknown project, and a permission_denied error if the caller cannot use it.
func (s *Server) authorize(who caller, id string) (Project, error) {
	if id == "" {
		switch who.kind {
		case ProjectToken:
			id = who.project
		case BuildToken:
			id = who.build.project
		default:
			return Project{}, apiError(connect.CodeInvalidArgument, "project_id is required")
		}
	}
	p, ok := s.project(id)
	if !ok {
		return Project{}, apiError(connect.CodeNotFound, "project %s not found", id)
	}
	switch who.kind {
	case OrganizationToken, UserToken, RunnerToken:
		return p, nil
	case ProjectToken:
		ok = who.project == id
	case BuildToken:
		ok = who.build.project == id
	default:
		// GitHub repository names are case-insensitive.
		ok = slices.ContainsFunc(p.Trust, func(trusted string) bool { return strings.EqualFold(trusted, who.repository) })
		if !ok {
			return Project{}, apiError(connect.CodePermissionDenied, "project %s has no trust relationship with %s",
				id, who.repository)
		}
	}
	if !ok {
		return Project{}, apiError(connect.CodePermissionDenied, "this token may not use project %s", id)
	}
	return p, nil
}

// verify verifies a token with the issuer that it names.
func (s *Server) verify(ctx context.Context, token string) (caller, error) {
	if len(s.issuers) == 0 {
		return caller{}, apiError(connect.CodeUnauthenticated, "OIDC tokens are not accepted")
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		return caller{}, apiError(connect.CodeUnauthenticated, "invalid OIDC token: %w", err)
	}
	for _, issuer := range s.issuers {
		if issuer.issuer == claims.Issuer {
			return issuer.verify(ctx, token)
		}
	}
	return caller{}, apiError(connect.CodeUnauthenticated, "invalid OIDC token: issuer %q is not trusted", claims.Issuer)
}

// identity verifies tokens of one OIDC issuer.
type identity struct {
	issuer string

	mutex    sync.Mutex
	verifier *oidc.IDTokenVerifier
}

// verify verifies the signature, issuer, audience and validity period of a GitHub OIDC token, and returns the
// workflow's repository.
// https://docs.github.com/en/actions/reference/security/oidc
func (i *identity) verify(ctx context.Context, token string) (caller, error) {
	verifier, err := i.discover(ctx)
	if err != nil {
		return caller{}, err
	}
	verified, err := verifier.Verify(ctx, token)
	if expired := (*oidc.TokenExpiredError)(nil); errors.As(err, &expired) {
		return caller{}, apiError(connect.CodeUnauthenticated, "the OIDC token has expired")
	}
	if err != nil {
		return caller{}, apiError(connect.CodeUnauthenticated, "invalid OIDC token: %w", err)
	}
	var claims struct {
		Repository string `json:"repository"`
	}
	if err := verified.Claims(&claims); err != nil || claims.Repository == "" {
		return caller{}, apiError(connect.CodeUnauthenticated, "invalid OIDC token: missing repository")
	}
	return caller{kind: OIDCToken, repository: claims.Repository}, nil
}

func (i *identity) discover(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.verifier == nil {
		// The provider keeps the HTTP client of this context but not its deadline.
		ctx = oidc.ClientContext(ctx, &http.Client{Timeout: 10 * time.Second})
		provider, err := oidc.NewProvider(ctx, i.issuer)
		if err != nil {
			return nil, apiError(connect.CodeUnavailable, "fetch the OIDC issuer's keys: %w", err)
		}
		i.verifier = provider.Verifier(&oidc.Config{ClientID: Audience, SupportedSigningAlgs: []string{oidc.RS256}})
	}
	return i.verifier, nil
}
