package github

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer returns the URL of the OIDC issuer.
func (s *Server) Issuer() string { return s.url + "/oidc" }

// IDTokenRequestURL returns ACTIONS_ID_TOKEN_REQUEST_URL for a job with `id-token: write`.
func (s *Server) IDTokenRequestURL() string { return s.url + "/oidc/token?api-version=2.0" }

// IDTokenRequestToken returns ACTIONS_ID_TOKEN_REQUEST_TOKEN.
func (s *Server) IDTokenRequestToken() string { return s.oidcToken }

// handleOIDC serves OIDC discovery, the issuer's keys, and tokens. A token requires the job's bearer token.
// https://docs.github.com/en/actions/reference/security/oidc
func (s *Server) handleOIDC(mux *http.ServeMux) {
	mux.HandleFunc("GET /oidc/.well-known/openid-configuration", s.serveDiscovery)
	mux.HandleFunc("GET /oidc/.well-known/jwks", func(w http.ResponseWriter, r *http.Request) {
		key := jose.JSONWebKey{Key: s.oidcKey.Public(), KeyID: oidcKeyID, Algorithm: "RS256", Use: "sig"}
		sendJSON(w, r, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
	})
	mux.HandleFunc("GET /oidc/token", s.serveToken)
}

func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	claims := []string{"sub", "aud", "exp", "iat", "iss", "jti", "nbf", "environment", "repository_owner"}
	for name := range s.defaultClaims() {
		claims = append(claims, name)
	}
	sendJSON(w, r, http.StatusOK, map[string]any{
		"issuer":                                s.Issuer(),
		"jwks_uri":                              s.Issuer() + "/.well-known/jwks",
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public", "pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid"},
		"claims_supported":                      claims,
	})
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare([]byte(bearer), []byte(s.oidcToken)) == 0 {
		sendJSON(w, r, http.StatusUnauthorized, map[string]string{"message": "missing or invalid bearer token"})
		return
	}
	token, err := s.Mint(r.URL.Query().Get("audience"), nil)
	if err != nil {
		sendJSON(w, r, http.StatusInternalServerError, map[string]string{"message": err.Error()})
		return
	}
	sendJSON(w, r, http.StatusOK, map[string]any{"count": len(token), "value": token})
}

// SetLifetime sets the validity period of tokens, relative to the time of the request, as if the issuer's clock were
// wrong. Zero values restore the default.
func (s *Server) SetLifetime(notBefore, expires time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notBefore, s.expires = notBefore, expires
}

// Mint returns a token signed by the issuer. An audience of "" means the default audience. change, which may be nil,
// edits the claims.
func (s *Server) Mint(audience string, change func(claims map[string]any)) (string, error) {
	return signToken(s.oidcKey, s.claims(audience, change))
}

// Forge returns a token with the same claims and key ID, but signed with another key.
func (s *Server) Forge(audience string) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	return signToken(key, s.claims(audience, nil))
}

// defaultClaims returns the claims of a dispatched workflow on the main branch of the first repository, overridden by
// [Options].Claims.
func (s *Server) defaultClaims() map[string]string {
	claims := map[string]string{
		"repository": "org/sandbox-actions", "repository_id": "1", "repository_visibility": "private",
		"repository_owner_id": "2", "actor": "octocat", "actor_id": "3",
		"ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "false", "head_ref": "", "base_ref": "",
		"sha": strings.Repeat("0", 40), "workflow": "Build", "event_name": "workflow_dispatch",
		"run_id": "1", "run_number": "1", "run_attempt": "1", "runner_environment": "github-hosted",
	}
	o := s.currentOptions()
	if len(o.Repositories) > 0 {
		claims["repository"] = o.Repositories[0].fullName()
		if !o.Repositories[0].Private {
			claims["repository_visibility"] = "public"
		}
	}
	maps.Copy(claims, o.Claims)
	for _, name := range []string{"workflow", "job_workflow"} {
		if claims[name+"_ref"] == "" {
			claims[name+"_ref"] = claims["repository"] + "/.github/workflows/build.yml@" + claims["ref"]
		}
		if claims[name+"_sha"] == "" {
			claims[name+"_sha"] = claims["sha"]
		}
	}
	return claims
}

func (s *Server) claims(audience string, change func(map[string]any)) map[string]any {
	text := s.defaultClaims()
	owner, _, _ := strings.Cut(text["repository"], "/")
	if audience == "" {
		audience = "https://github.com/" + owner
	}
	// The subject contains the job's environment if it has one, otherwise the pull_request event or the ref.
	subject := "ref:" + text["ref"]
	if text["event_name"] == "pull_request" {
		subject = "pull_request"
	}
	if text["environment"] != "" {
		subject = "environment:" + text["environment"]
	}
	now := time.Now()
	s.mu.Lock()
	notBefore, expires := s.notBefore, s.expires
	s.mu.Unlock()
	if expires == 0 {
		notBefore, expires = -10*time.Minute, 5*time.Minute
	}
	claims := map[string]any{
		"iss": s.Issuer(), "aud": audience, "sub": "repo:" + text["repository"] + ":" + subject, "repository_owner": owner,
		"jti": rand.Text(), "iat": now.Unix(), "nbf": now.Add(notBefore).Unix(),
		"exp": now.Add(expires).Unix(),
	}
	for name, value := range text {
		claims[name] = value
	}
	if change != nil {
		change(claims)
	}
	return claims
}

const oidcKeyID = "actions"

// signToken returns a signed JWT.
func signToken(key *rsa.PrivateKey, claims map[string]any) (string, error) {
	signing := jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: oidcKeyID}}
	signer, err := jose.NewSigner(signing, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
