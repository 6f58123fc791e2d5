package image

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fakeRegistry answers with a challenge, and issues tokens that name their scopes.
type fakeRegistry struct {
	*httptest.Server
	challenge string // %s stands for its URL

	mu       sync.Mutex
	requests []string // path, user and password
}

func startFakeRegistry(t *testing.T, challenge string) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{challenge: challenge}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		f.mu.Lock()
		f.requests = append(f.requests, strings.TrimSpace(r.URL.Path+" "+user+":"+password))
		f.mu.Unlock()
		if r.URL.Path == "/token" {
			fmt.Fprintf(w, `{"token": "token for %s", "expires_in": 100}`, strings.Join(r.URL.Query()["scope"], " "))
			return
		}
		w.Header().Set("WWW-Authenticate", strings.ReplaceAll(f.challenge, "%s", f.URL))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRegistry) host() string { return f.Listener.Addr().String() }

func (f *fakeRegistry) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

const bearer = `Bearer realm="%s/token",service="fake"`

// authFor returns the attachable of a build that pulls team/base and pushes team/app at a registry with a login.
func authFor(registry *fakeRegistry, logins ...string) *builderAuth {
	images := namedImages{}
	images.add(registry.host()+"/team/base:1", "pull")
	images.add(registry.host()+"/team/app:1", "pull", "push")
	a := Auth{}
	for _, host := range append(logins, registry.host()) {
		a.Credentials = append(a.Credentials, Credential{Host: host, Username: "user", Password: "password"})
	}
	return a.provider(images).(*builderAuth)
}

// A builder gets a token that allows only what the build needs, and never the password.
func TestBuilderGetsTokens(t *testing.T) {
	writeDockerConfig(t, `{}`)
	registry := startFakeRegistry(t, bearer)
	b := authFor(registry)
	if _, err := b.GetTokenAuthority(t.Context(), &auth.GetTokenAuthorityRequest{Host: registry.host()}); err != nil {
		t.Fatal(err)
	}
	got, err := b.FetchToken(t.Context(), &auth.FetchTokenRequest{
		Host: registry.host(), Realm: "https://evil.example/token", Service: "evil",
		Scopes: []string{
			"repository:team/base:pull,push", "repository:team/app:pull,push,delete", "repository:team/private:pull",
			"registry:catalog:*",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "token for repository:team/base:pull repository:team/app:pull,push"
	if got.Token != want || got.ExpiresIn != 100 {
		t.Errorf("got %q for %d s, want %q for 100 s", got.Token, got.ExpiresIn, want)
	}
	if !slices.Contains(registry.seen(), "/token user:password") {
		t.Errorf("requests %q, want one for a token with the login", registry.seen())
	}
	credentials, err := b.Credentials(t.Context(), &auth.CredentialsRequest{Host: registry.host()})
	if err != nil || credentials.Username != "" || credentials.Secret != "" {
		t.Errorf("got the login %v, %v", credentials, err)
	}
	challenges := slices.DeleteFunc(registry.seen(), func(request string) bool {
		return !strings.HasPrefix(request, "/v2/")
	})
	if len(challenges) != 1 {
		t.Errorf("requested the challenge %d times, want once", len(challenges))
	}
}

// A builder that requests the login of a registry that the build does not name gets nothing, and causes no request.
func TestBuilderCannotTakeOtherLogins(t *testing.T) {
	writeDockerConfig(t, `{"auths": {"ghcr.io": {"username": "x", "password": "github-token"}}}`)
	registry, other := startFakeRegistry(t, bearer), startFakeRegistry(t, `Basic realm="other"`)
	b := authFor(registry, other.host())
	for _, host := range []string{"ghcr.io", other.host()} {
		_, err := b.GetTokenAuthority(t.Context(), &auth.GetTokenAuthorityRequest{Host: host})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: token authority: %v", host, err)
		}
		credentials, err := b.Credentials(t.Context(), &auth.CredentialsRequest{Host: host})
		if err != nil || credentials.Secret != "" {
			t.Errorf("%s: got the login %v, %v", host, credentials, err)
		}
		_, err = b.FetchToken(t.Context(), &auth.FetchTokenRequest{
			Host: host, Realm: other.URL + "/token", Scopes: []string{"repository:team/app:pull"},
		})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: token: %v", host, err)
		}
	}
	if got := other.seen(); len(got) > 0 {
		t.Errorf("sent %q to a host that only the builder named", got)
	}
}

// A registry with basic authentication has no tokens.
func TestBuilderGetsBasicLogin(t *testing.T) {
	writeDockerConfig(t, `{}`)
	registry := startFakeRegistry(t, `Basic realm="fake"`)
	b := authFor(registry)
	credentials, err := b.Credentials(t.Context(), &auth.CredentialsRequest{Host: registry.host()})
	if err != nil || credentials.Username != "user" || credentials.Secret != "password" {
		t.Errorf("got %v, %v; want the login", credentials, err)
	}
	_, err = b.GetTokenAuthority(t.Context(), &auth.GetTokenAuthorityRequest{Host: registry.host()})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("token authority: %v", err)
	}
}

// Without a login, the builder authenticates anonymously.
func TestBuilderIsAnonymous(t *testing.T) {
	writeDockerConfig(t, `{}`)
	registry := startFakeRegistry(t, bearer)
	b := authFor(registry)
	b.auth.Credentials = nil
	_, err := b.GetTokenAuthority(t.Context(), &auth.GetTokenAuthorityRequest{Host: registry.host()})
	if status.Code(err) != codes.Unavailable || len(registry.seen()) > 0 {
		t.Errorf("%v, requests %q", err, registry.seen())
	}
}

func TestUnreachableRegistry(t *testing.T) {
	writeDockerConfig(t, `{}`)
	registry := startFakeRegistry(t, bearer)
	b := authFor(registry)
	b.transport = http.DefaultTransport
	registry.Close()
	_, err := b.Credentials(t.Context(), &auth.CredentialsRequest{Host: registry.host()})
	if err == nil || !strings.Contains(err.Error(), "must be reachable from this machine") {
		t.Errorf("got %v", err)
	}
}

func TestCheckRealm(t *testing.T) {
	for _, test := range []struct{ registry, realm, want string }{
		{"registry-1.docker.io", "https://auth.docker.io/token", ""},
		{"ghcr.io", "https://ghcr.io/token", ""},
		{"registry.gitlab.example.co.uk", "https://gitlab.example.co.uk/jwt/auth", ""},
		{"127.0.0.1:5000", "http://127.0.0.1:5001/token", ""},
		{"registry.example:5000", "https://registry.example/token", ""},
		{"ghcr.io", "https://evil.example/token", "does not belong to the registry"},
		{"a.github.io", "https://b.github.io/token", "does not belong to the registry"},
		{"192.0.2.1", "https://192.0.2.2/token", "does not belong to the registry"},
		{"ghcr.io", "https://127.0.0.1/token", "does not belong to the registry"},
		{"ghcr.io", "http://ghcr.io/token", "does not use HTTPS"},
		{"ghcr.io", "/token", "invalid realm"},
		{"ghcr.io", "", "invalid realm"},
	} {
		registry, err := name.NewRegistry(test.registry)
		if err != nil {
			t.Fatal(err)
		}
		err = checkRealm(registry, &transport.Challenge{Parameters: map[string]string{"realm": test.realm}})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s, %s: %v; want %q", test.registry, test.realm, err, test.want)
		}
	}
}

func TestNamedImages(t *testing.T) {
	dir := writeFiles(t, map[string]string{"Dockerfile": `# syntax=ghcr.io/acme/frontend:1
ARG REGISTRY=registry.example
ARG BASE=${REGISTRY}/team/base:1
ARG OVERRIDDEN=wrong.example/x
FROM $BASE AS build
RUN --mount=type=bind,from=mount.example/tool,target=/tool true
FROM ${OVERRIDDEN}
COPY --from=build / /a
COPY --from=copy.example:5000/files@sha256:` + strings.Repeat("a", 64) + ` / /b
FROM debian:12
`})
	dockerfile, err := ReadDockerfile(filepath.Join(dir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	r := Request{
		Context: dir, Definition: dockerfile,
		Push:      []string{"push.example/app:1", "registry.example/team/base:2"},
		Contexts:  map[string]string{"other": "docker-image://context.example/x:1", "files": dir},
		BuildArgs: map[string]string{"OVERRIDDEN": "right.example/x", "BUILDKIT_SYNTAX": "syntax.example/y"},
		Attestations: map[string]string{
			"sbom": "generator=scanner.example/z:1,format=spdx",
		},
	}
	pull, push := []string{"pull"}, []string{"pull", "push"}
	want := namedImages{
		"ghcr.io": {"acme/frontend": pull}, "registry.example": {"team/base": push}, "mount.example": {"tool": pull},
		"right.example": {"x": pull}, "copy.example:5000": {"files": pull}, "push.example": {"app": push},
		"context.example": {"x": pull}, "syntax.example": {"y": pull}, "scanner.example": {"z": pull},
		"registry-1.docker.io": {"library/debian": pull, "library/build": pull, "docker/buildkit-syft-scanner": pull},
	}
	if got := r.namedImages(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	r = Request{Context: "https://example.com/repository.git", Dockerfile: "Dockerfile"}
	if got := r.namedImages(); len(got) > 0 {
		t.Errorf("remote context: %v", got)
	}
}
