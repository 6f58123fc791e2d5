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

// Issuer is the OIDC issuer of Actions.
func (s *Server) Issuer() string { return s.url + "/oidc" }

// IDTokenRequestURL is ACTIONS_ID_TOKEN_REQUEST_URL as a job with `id-token: write` has it.
func (s *Server) IDTokenRequestURL() string { return s.url + "/oidc/token?api-version=2.0" }

// IDTokenRequestToken is ACTIONS_ID_TOKEN_REQUEST_TOKEN.
func (s *Server) IDTokenRequestToken() string { return s.bearer }

// handleOIDC serves discovery, keys, and tokens for who has the job's bearer.
// https://docs.github.com/en/actions/reference/security/oidc
func (s *Server) handleOIDC(mux *http.ServeMux) {
	mux.HandleFunc("GET /oidc/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		supported := []string{"sub", "aud", "exp", "iat", "iss", "jti", "nbf", "environment", "repository_owner"}
		for name := range s.defaultClaims() {
			supported = append(supported, name)
		}
		send(w, r, http.StatusOK, map[string]any{
			"issuer": s.Issuer(), "jwks_uri": s.Issuer() + "/.well-known/jwks", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public", "pairwise"}, "id_token_signing_alg_values_supported": []string{"RS256"},
			"scopes_supported": []string{"openid"}, "claims_supported": supported,
		})
	})
	mux.HandleFunc("GET /oidc/.well-known/jwks", func(w http.ResponseWriter, r *http.Request) {
		send(w, r, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: keyID, Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /oidc/token", func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare([]byte(token), []byte(s.bearer)) == 0 {
			send(w, r, http.StatusUnauthorized, map[string]string{"message": "the job's token is missing or wrong"})
			return
		}
		token, err := s.Mint(r.URL.Query().Get("audience"), nil)
		if err != nil {
			send(w, r, http.StatusInternalServerError, map[string]string{"message": err.Error()})
			return
		}
		send(w, r, http.StatusOK, map[string]any{"count": len(token), "value": token})
	})
}

// Mint makes a token, signed by the issuer's key. "" is the default audience; change may spoil the claims.
func (s *Server) Mint(audience string, change func(claims map[string]any)) (string, error) {
	return mint(s.key, s.claims(audience, change))
}

// Forge makes a token that says the same and is signed by another's key, under the name of the issuer's.
func (s *Server) Forge(audience string) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	return mint(key, s.claims(audience, nil))
}

// defaultClaims are GitHub's of a dispatched workflow on the default branch of the first repository; [Options].Claims go over them.
func (s *Server) defaultClaims() map[string]string {
	claims := map[string]string{
		"repository": "org/sandbox-actions", "repository_id": "1", "repository_owner_id": "2", "repository_visibility": "private",
		"ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "false", "head_ref": "", "base_ref": "",
		"sha": strings.Repeat("0", 40), "workflow": "Build", "actor": "octocat", "actor_id": "3", "event_name": "workflow_dispatch",
		"run_id": "1", "run_number": "1", "run_attempt": "1", "runner_environment": "github-hosted",
	}
	o := s.now()
	if len(o.Repositories) > 0 {
		claims["repository"] = o.Repositories[0].Owner + "/" + o.Repositories[0].Name
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
	// The subject names the environment of the job; without one, the event if that is a pull request; else the ref.
	subject := "ref:" + text["ref"]
	if text["event_name"] == "pull_request" {
		subject = "pull_request"
	}
	if text["environment"] != "" {
		subject = "environment:" + text["environment"]
	}
	now := time.Now()
	claims := map[string]any{
		"iss": s.Issuer(), "aud": audience, "sub": "repo:" + text["repository"] + ":" + subject, "repository_owner": owner,
		"jti": rand.Text(), "iat": now.Unix(), "nbf": now.Add(-10 * time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	for name, value := range text {
		claims[name] = value
	}
	if change != nil {
		change(claims)
	}
	return claims
}

const keyID = "actions"

func mint(key *rsa.PrivateKey, claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: keyID}}, (&jose.SignerOptions{}).WithType("JWT"))
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
