package depotapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/coreos/go-oidc/v3/oidc"
)

// TokenKind says what a call was authenticated with.
type TokenKind string

// The kinds of tokens. A call without one, or with one that nobody knows, has the kind "".
const (
	ProjectToken      TokenKind = "project"
	OrganizationToken TokenKind = "organization"
	UserToken         TokenKind = "user"
	OIDCToken         TokenKind = "oidc"
	ForkToken         TokenKind = "fork"  // made by the challenge for pull requests from forks
	BuildToken        TokenKind = "build" // made by CreateBuild, for the other calls of that build
)

// caller is who a token belongs to.
type caller struct {
	kind       TokenKind
	project    string // of a project token
	repository string // owner/name, of an OIDC or a fork token
	build      *build // of a build token
}

// identify says whose token a request carries. Every token that is not good is answered by unauthenticated.
func (s *Server) identify(ctx context.Context, header http.Header) (caller, error) {
	token, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return caller{}, refuse(connect.CodeUnauthenticated, "missing API token")
	}
	who, err := s.lookUp(token)
	if err == nil && who.kind == "" && strings.Count(token, ".") == 2 {
		who, err = s.identity.verify(ctx, token)
	}
	if err != nil {
		return caller{}, err
	}
	if who.kind == "" {
		return caller{}, refuse(connect.CodeUnauthenticated, "invalid API token")
	}
	s.note(ctx, func(c *Call) { c.Token = who.kind })
	return who, nil
}

// lookUp finds a token among those that Depot made.
func (s *Server) lookUp(token string) (caller, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, b := range s.builds {
		if b.token == token {
			return caller{kind: BuildToken, build: b}, nil
		}
	}
	for _, c := range s.forks {
		if c.token == token {
			if time.Now().After(c.expires) {
				return caller{}, refuse(connect.CodeUnauthenticated, "the token has expired")
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
	}
	return caller{}, nil
}

// authorize finds the project that the caller asks for, and lets it in, or not. A project that does not exist is
// not found; one that does, and is not the caller's, is denied.
func (s *Server) authorize(who caller, id string) (Project, error) {
	if id == "" {
		switch who.kind {
		case ProjectToken:
			id = who.project
		case BuildToken:
			id = who.build.project
		default:
			return Project{}, refuse(connect.CodeInvalidArgument, "project_id is required")
		}
	}
	p, ok := s.project(id)
	if !ok {
		return Project{}, refuse(connect.CodeNotFound, "project %s not found", id)
	}
	switch who.kind {
	case OrganizationToken, UserToken:
		return p, nil
	case ProjectToken:
		ok = who.project == id
	case BuildToken:
		ok = who.build.project == id
	default:
		// GitHub does not tell upper from lower case in names.
		ok = slices.ContainsFunc(p.Trust, func(trusted string) bool { return strings.EqualFold(trusted, who.repository) })
		if !ok {
			return Project{}, refuse(
				connect.CodePermissionDenied,
				"project %s has no trust relationship with %s",
				id,
				who.repository,
			)
		}
	}
	if !ok {
		return Project{}, refuse(connect.CodePermissionDenied, "this token may not use project %s", id)
	}
	return p, nil
}

// identity checks tokens of one OIDC issuer.
type identity struct {
	issuer string

	mutex    sync.Mutex
	verifier *oidc.IDTokenVerifier
}

// verify checks a GitHub OIDC token: signature against the issuer's published keys, issuer, audience, time. What it
// says of the workflow's repository is then true.
// https://docs.github.com/en/actions/reference/security/oidc
func (i *identity) verify(ctx context.Context, token string) (caller, error) {
	verifier, err := i.discover(ctx)
	if err != nil {
		return caller{}, err
	}
	verified, err := verifier.Verify(ctx, token)
	if expired := (*oidc.TokenExpiredError)(nil); errors.As(err, &expired) {
		return caller{}, refuse(connect.CodeUnauthenticated, "the OIDC token has expired")
	}
	if err != nil {
		return caller{}, refuse(connect.CodeUnauthenticated, "invalid OIDC token: %w", err)
	}
	var claims struct {
		Repository string `json:"repository"`
	}
	if err := verified.Claims(&claims); err != nil || claims.Repository == "" {
		return caller{}, refuse(connect.CodeUnauthenticated, "invalid OIDC token: it names no repository")
	}
	return caller{kind: OIDCToken, repository: claims.Repository}, nil
}

func (i *identity) discover(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	if i.issuer == "" {
		return nil, refuse(connect.CodeUnauthenticated, "OIDC tokens are not accepted")
	}
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.verifier == nil {
		// The provider keeps the client of this context for as long as it lives, and nothing else of it.
		ctx = oidc.ClientContext(ctx, &http.Client{Timeout: 10 * time.Second})
		provider, err := oidc.NewProvider(ctx, i.issuer)
		if err != nil {
			return nil, refuse(connect.CodeUnavailable, "ask the OIDC issuer for its keys: %w", err)
		}
		i.verifier = provider.Verifier(&oidc.Config{ClientID: Audience, SupportedSigningAlgs: []string{oidc.RS256}})
	}
	return i.verifier, nil
}
