package image

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What BuildKit says, and what we make of it. What a Dockerfile can cause is in testdata/dockerfiles, what a registry can in TestPushFails.
func TestExplain(t *testing.T) {
	const digest = "sha256:4014034294015035014034294015035014034294015035014034294015035010"
	request := Request{Platform: amd64, Dockerfile: "/src/Dockerfile", Push: []string{"ghcr.io/a/b:1", "docker.io/a/b:1"}}
	for _, test := range []struct {
		name, said   string
		code         codes.Code
		want         string
		unauthorized bool
	}{
		{"numbers in a digest", "failed to solve: failed to push ghcr.io/a/b:1: unknown blob " + digest, codes.Unknown,
			"push ghcr.io/a/b:1: unknown blob " + digest + ": check that ghcr.io answers and that the reference is right", false},
		{"401", "failed to solve: failed to push ghcr.io/a/b:1: unexpected status from HEAD request to https://ghcr.io/v2/: 401 Unauthorized", codes.Unknown,
			"log in to ghcr.io (docker login)", true},
		{"403", "failed to solve: failed to push ghcr.io/a/b:1: unexpected status from POST request to https://ghcr.io/v2/: 403 Forbidden", codes.Unknown,
			"push ghcr.io/a/b:1: the registry does not let this account push there", false},
		{"denied", "failed to solve: failed to push ghcr.io/a/b:1: push access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed", codes.Unknown,
			"push ghcr.io/a/b:1: the registry does not let this account push there", false},
		{"404", "failed to solve: failed to push ghcr.io/a/b:1: unexpected status from PUT request to https://ghcr.io/v2/: 404 Not Found", codes.Unknown,
			"the registry has no such image", false},
		{"429", "failed to solve: failed to push ghcr.io/a/b:1: unexpected status from HEAD request to https://ghcr.io/v2/: 429 Too Many Requests", codes.Unknown,
			"push ghcr.io/a/b:1: the registry asks to slow down (429)", false},
		{"503", "failed to solve: failed to push ghcr.io/a/b:1: unexpected status from HEAD request to https://ghcr.io/v2/: 503 Service Unavailable", codes.Unknown,
			"push ghcr.io/a/b:1: the registry fails", false},
		{"no token, and nobody knows for which", "failed to solve: failed to fetch oauth token: unauthorized: wrong user or password", codes.Unknown,
			"push ghcr.io/a/b:1, docker.io/a/b:1: the registry does not accept the login, or it may not push there (failed to fetch oauth token: unauthorized: wrong user or password): log in to ghcr.io and index.docker.io", true},
		{"the builder is gone", "error reading from server: EOF", codes.Unavailable,
			"the builder for linux/amd64 went away during the build (error reading from server: EOF): run it again", false},
		{"anything else", "failed to solve: rpc error: code = Unknown desc = something\n\tnew", codes.Unknown,
			"build for linux/amd64: something new", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := explain(t.Context(), request, status.Error(test.code, test.said))
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line with %q", err, test.want)
			}
			if errors.Is(err, ErrUnauthorized) != test.unauthorized {
				t.Errorf("%v is ErrUnauthorized: %v, want %v", err, !test.unauthorized, test.unauthorized)
			}
		})
	}
	cause := errors.New("the time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := explain(ctx, request, errors.New("context canceled")); !errors.Is(err, cause) {
		t.Errorf("canceled: %v, want the cause", err)
	}
}
