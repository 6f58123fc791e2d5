package doppler

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Token grants access to configs. The prefix of its value is its kind:
// https://docs.doppler.com/reference/auth-token-formats
type Token struct {
	Value   string // dp.st.dev.…, dp.ct.…, dp.pt.…, dp.sa.…
	Access  []Access
	Expires time.Time // zero: never
}

// Access is access to one project or config.
type Access struct {
	Project string
	Config  string // "": all configs of the project
	Write   bool   // allows writes in addition to reads
}

// Kind is the kind of a token, as /v3/me returns it.
type Kind string

// The kinds of tokens.
const (
	Service        Kind = "service_token"
	CLI            Kind = "cli"
	Personal       Kind = "personal"
	ServiceAccount Kind = "service_account"
	OIDC           Kind = "service_account_identity" // issued for an OIDC token
)

var prefixes = map[string]Kind{
	"dp.st.": Service, "dp.ct.": CLI, "dp.pt.": Personal, "dp.sa.": ServiceAccount, "dp.said.": OIDC,
}

// Kind returns the kind of the token, or "" if its value has an unknown prefix.
func (t Token) Kind() Kind {
	for prefix, kind := range prefixes {
		if strings.HasPrefix(t.Value, prefix) {
			return kind
		}
	}
	return ""
}

// canRead reports whether Doppler returns a value of a visibility to the token: restricted values only to tokens that
// do not belong to a user.
func (t Token) canRead(v Visibility) bool {
	return v != Restricted || t.Kind() != CLI && t.Kind() != Personal
}

// check returns an error if Doppler does not issue such tokens.
func (t Token) check() error {
	switch t.Kind() {
	case "":
		return errors.New("invalid token: must have the prefix of a known kind, for example dp.st")
	case Service:
		if len(t.Access) != 1 || t.Access[0].Config == "" || !strings.HasPrefix(t.Value, "dp.st."+t.Access[0].Config+".") {
			return errors.New("invalid service token: must have access to one config and the prefix dp.st.CONFIG")
		}
	}
	return nil
}

// AddToken adds a token. It returns an error if Doppler does not issue such tokens.
func (s *Server) AddToken(t Token) error {
	if err := t.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, t)
	return nil
}

// Revoke revokes a token. It ignores unknown tokens.
func (s *Server) Revoke(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = slices.DeleteFunc(s.tokens, func(t Token) bool { return t.Value == value })
}

// token returns the token of a request: the bearer token, or the user name of basic authentication.
func (s *Server) token(r *http.Request) (Token, bool) {
	value, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		value, _, _ = r.BasicAuth()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if t.Value == value && (t.Expires.IsZero() || time.Now().Before(t.Expires)) {
			return t, true
		}
	}
	return Token{}, false
}

// canAccess reports whether the token can read or write a config. If config is "", access to any config of the project
// is sufficient.
func (t Token) canAccess(project, config string, write bool) bool {
	return slices.ContainsFunc(t.Access, func(a Access) bool {
		return a.Project == project && (a.Config == "" || config == "" || a.Config == config) && (a.Write || !write)
	})
}

// Identity is a service account that clients authenticate to with OIDC tokens:
// https://docs.doppler.com/docs/service-account-identities
type Identity struct {
	ID       string
	Audience string            // required claim aud
	Claims   map[string]string // required claims, such as sub; * is a wildcard
	Access   []Access          // access of its service account
	Lifetime time.Duration     // lifetime of issued tokens. Default: 1 hour
}

// handleAuth serves token information, OIDC login and token revocation.
func (s *Server) handleAuth(mux *http.ServeMux) {
	s.handle(mux, "GET /v3/me", func(_ *http.Request, t Token) (map[string]any, error) {
		return map[string]any{ // like Doppler, without the token's permissions
			"workplace": workplace, "type": t.Kind(), "token_preview": t.Value[:6] + "…" + t.Value[len(t.Value)-3:],
			"slug": "local", "name": "local", "created_at": created, "last_seen_at": created,
		}, nil
	})
	s.handle(mux, "GET /v3/workplace", func(*http.Request, Token) (map[string]any, error) {
		return map[string]any{"workplace": workplace}, nil
	})
	mux.HandleFunc("POST /v3/auth/oidc", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Identity, Token string }
		if json.NewDecoder(r.Body).Decode(&body) != nil {
			errorf(http.StatusBadRequest, "Please provide a valid JSON body").send(w)
			return
		}
		identity, err := s.identity.verify(r.Context(), body.Identity, body.Token)
		if err != nil {
			sendError(w, err)
			return
		}
		lifetime := cmp.Or(identity.Lifetime, time.Hour)
		t := Token{Value: "dp.said." + rand.Text() + rand.Text(), Access: identity.Access, Expires: time.Now().Add(lifetime)}
		if err := s.AddToken(t); err != nil {
			sendError(w, err)
			return
		}
		expires := t.Expires.UTC().Format(time.RFC3339)
		send(w, http.StatusOK, map[string]any{"token": t.Value, "expires_at": expires, "success": true})
	})
	mux.HandleFunc("POST /v3/auth/revoke", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Token string }
		if json.NewDecoder(r.Body).Decode(&body) != nil {
			errorf(http.StatusBadRequest, "Please provide a valid JSON body").send(w)
			return
		}
		s.Revoke(body.Token)
		send(w, http.StatusOK, map[string]any{"success": true})
	})
}

var workplace = map[string]string{"id": "local", "slug": "local", "name": "Local cloud"}

// identities verifies tokens of one OIDC issuer.
type identities struct {
	issuer string
	list   []Identity

	mu       sync.Mutex
	provider *oidc.Provider
}

// verify returns the identity with the ID if the token's signature, issuer, audience, validity period and claims are
// valid for it. The error messages are guesses.
func (i *identities) verify(ctx context.Context, id, token string) (Identity, error) {
	n := slices.IndexFunc(i.list, func(identity Identity) bool { return identity.ID == id })
	if n < 0 {
		return Identity{}, errorf(http.StatusUnauthorized, "Could not find requested identity '%s'", id)
	}
	identity := i.list[n]
	provider, err := i.discover(ctx)
	if err != nil {
		return Identity{}, err
	}
	config := &oidc.Config{ClientID: identity.Audience, SupportedSigningAlgs: []string{oidc.RS256}}
	verified, err := provider.Verifier(config).Verify(ctx, token)
	if expired := (*oidc.TokenExpiredError)(nil); errors.As(err, &expired) {
		return Identity{}, errorf(http.StatusUnauthorized, "The OIDC token has expired")
	}
	if err != nil {
		return Identity{}, errorf(http.StatusUnauthorized, "Invalid OIDC token: %s", err)
	}
	var claims map[string]any
	if err := verified.Claims(&claims); err != nil {
		return Identity{}, errorf(http.StatusUnauthorized, "Invalid OIDC token: %s", err)
	}
	for name, want := range identity.Claims {
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), `\*`, ".*") + "$"
		if claim, ok := claims[name].(string); !ok || !regexp.MustCompile(pattern).MatchString(claim) {
			return Identity{}, errorf(http.StatusUnauthorized,
				"The claim '%s' of the OIDC token does not match the identity", name)
		}
	}
	return identity, nil
}

func (i *identities) discover(ctx context.Context) (*oidc.Provider, error) {
	if i.issuer == "" {
		return nil, errorf(http.StatusUnauthorized, "No identity trusts this issuer")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.provider == nil {
		// The provider keeps the HTTP client of this context but not its deadline.
		provider, err := oidc.NewProvider(oidc.ClientContext(ctx, &http.Client{Timeout: 10 * time.Second}), i.issuer)
		if err != nil {
			return nil, fmt.Errorf("fetch the keys of the OIDC issuer: %w", err)
		}
		i.provider = provider
	}
	return i.provider, nil
}
