// Package registry runs the distribution registry with token authentication
// (https://distribution.github.io/distribution/spec/auth/token/) and a mirror of Docker Hub.
package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/go-jose/go-jose/v4"
	"github.com/sirupsen/logrus"
)

// Account has access to the repositories below a prefix.
type Account struct {
	User, Password string
	Prefix         string    // "team" matches the repository team and those below it; "": all repositories
	Push           bool      // allows push in addition to pull
	Expires        time.Time // zero: never
}

// Registry is a running registry.
type Registry struct {
	Addr string // host:port, plain HTTP

	server   *http.Server
	served   chan struct{}
	signer   jose.Signer
	mu       sync.Mutex
	accounts []Account
	requests []string
	tap      func(*http.Request)
}

const (
	issuer  = "localcloud"
	service = "registry"
	keyID   = "localcloud"
	// tokenLifetime is short, so that clients must request another token during a long push.
	tokenLifetime = time.Minute
)

// Start starts a registry that stores its data in dir.
func Start(ctx context.Context, dir string, accounts ...Account) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{Addr: listener.Addr().String(), accounts: accounts, served: make(chan struct{})}
	app, err := r.app(ctx, dir)
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("start the registry: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", r.token)
	mux.Handle("/", app)
	handle := func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, request.Method+" "+request.URL.Path)
		tap := r.tap
		r.mu.Unlock()
		if tap != nil {
			tap(request)
		}
		// The challenge names the host of the request, so that clients of a proxy request their tokens from the proxy.
		request.Header.Set("X-Forwarded-Proto", "http")
		mux.ServeHTTP(w, request)
	}
	r.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(handle)}
	go func() {
		defer close(r.served)
		_ = r.server.Serve(listener) // returns an error after Stop
	}()
	return r, nil
}

func (r *Registry) app(ctx context.Context, dir string) (http.Handler, error) {
	logrus.SetOutput(io.Discard) // distribution uses the global logger
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	private := jose.JSONWebKey{Key: key, KeyID: keyID, Algorithm: string(jose.ES256), Use: "sig"}
	signingKey := jose.SigningKey{Algorithm: jose.ES256, Key: private}
	if r.signer, err = jose.NewSigner(signingKey, (&jose.SignerOptions{}).WithType("JWT")); err != nil {
		return nil, err
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{private.Public()}})
	if err != nil {
		return nil, err
	}
	keysFile := filepath.Join(dir, "jwks.json")
	if err := os.WriteFile(keysFile, keys, 0o600); err != nil {
		return nil, err
	}
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": {"rootdirectory": filepath.Join(dir, "blobs")},
			"delete":     {"enabled": true},
		},
		Auth: configuration.Auth{"token": {
			"realm": "http://" + r.Addr + "/token", "autoredirect": true, "autoredirectpath": "/token",
			"issuer": issuer, "service": service, "jwks": keysFile,
			"signingalgorithms": []any{string(jose.ES256)},
		}},
	}
	config.Log.Level = "panic"
	config.Log.AccessLog.Disabled = true
	config.HTTP.Secret = rand.Text()
	return handlers.NewApp(context.WithoutCancel(ctx), config), nil
}

// AddAccount adds an account.
func (r *Registry) AddAccount(a Account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounts = append(r.accounts, a)
}

// Requests returns the requests in order, each as "METHOD /path".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Tap makes the registry call f with each request before handling it. f must replace the body if it reads it. A nil f
// removes the current one.
func (r *Registry) Tap(f func(*http.Request)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tap = f
}

// stopTimeout is how long Stop waits for requests.
const stopTimeout = 5 * time.Second

// Stop stops the registry after it has handled its requests, which may still write to its directory.
func (r *Registry) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := r.server.Shutdown(ctx)
	if err != nil {
		err = r.server.Close()
	}
	<-r.served
	return err
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// token issues a token for a password, which clients send with basic authentication or in an OAuth 2.0 POST request.
// The token contains only the requested access that the account has, and may contain none.
func (r *Registry) token(w http.ResponseWriter, request *http.Request) {
	user, password, _ := request.BasicAuth()
	if request.Method == http.MethodPost && request.FormValue("grant_type") == "password" {
		user, password = request.FormValue("username"), request.FormValue("password")
	}
	account, ok := r.account(user, password)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="`+service+`"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong user or password"}]}`, http.StatusUnauthorized)
		return
	}
	if err := request.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	granted := []access{}
	for _, scopes := range request.Form["scope"] {
		for scope := range strings.FieldsSeq(scopes) {
			if a, err := account.grant(scope); err == nil {
				granted = append(granted, a)
			}
		}
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": issuer, "sub": user, "aud": service, "jti": rand.Text(), "access": granted,
		"iat": now.Unix(), "nbf": now.Add(-10 * time.Second).Unix(), "exp": now.Add(tokenLifetime).Unix(),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	signed, err := r.signer.Sign(claims)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have disconnected
		"token": text, "access_token": text,
		"expires_in": int(tokenLifetime.Seconds()), "issued_at": now.UTC().Format(time.RFC3339),
	})
}

func (r *Registry) account(user, password string) (Account, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.accounts {
		if a.User == user && a.Password == password && (a.Expires.IsZero() || time.Now().Before(a.Expires)) {
			return a, true
		}
	}
	return Account{}, false
}

// grant parses a scope, repository:NAME:ACTION,ACTION, and returns the part of it that the account has access to.
func (a Account) grant(scope string) (access, error) {
	kind, rest, _ := strings.Cut(scope, ":")
	i := strings.LastIndex(rest, ":")
	if kind != "repository" || i < 0 {
		return access{}, errors.New("not a repository scope")
	}
	granted := access{Type: kind, Name: rest[:i], Actions: []string{}}
	prefix := strings.TrimSuffix(a.Prefix, "/")
	if prefix != "" && granted.Name != prefix && !strings.HasPrefix(granted.Name, prefix+"/") {
		return granted, nil
	}
	for action := range strings.SplitSeq(rest[i+1:], ",") {
		if action == "pull" || a.Push {
			granted.Actions = append(granted.Actions, action)
		}
	}
	return granted, nil
}
