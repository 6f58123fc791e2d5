package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// These are messages of BuildKit's exporter. TestPushFails checks those of a real registry.
func TestClassifyPushFailure(t *testing.T) {
	const digest = "sha256:4014034294015035014034294015035014034294015035014034294015035010"
	const push = "failed to solve: failed to push ghcr.io/a/b:1: "
	request := Request{Platform: amd64, Dockerfile: "/src/Dockerfile", Push: []string{"ghcr.io/a/b:1", "docker.io/a/b:1"}}
	for _, test := range []struct {
		name, message string
		op            string
		status        int
		unauthorized  bool
		hint          string // part of it
	}{
		{
			"numbers in a digest", push + "unknown blob " + digest, "push ghcr.io/a/b:1", 0, false, "check that ghcr.io answers",
		},
		{
			"401", push + "unexpected status from HEAD request to https://ghcr.io/v2/: 401 Unauthorized",
			"push ghcr.io/a/b:1", 401, true, "log in to ghcr.io (docker login)",
		},
		{
			"403", push + "unexpected status from POST request to https://ghcr.io/v2/: 403 Forbidden",
			"push ghcr.io/a/b:1", 403, false, "grant this account permission to push to the repository",
		},
		{
			"denied without a status", push + "push access denied, repository does not exist or may require authorization: " +
				"server message: insufficient_scope: authorization failed",
			"push ghcr.io/a/b:1", 0, false, "grant this account permission to push to the repository",
		},
		{
			"404", push + "unexpected status from PUT request to https://ghcr.io/v2/: 404 Not Found",
			"push ghcr.io/a/b:1", 404, false, "check the name and the tag",
		},
		{
			"429", push + "unexpected status from HEAD request to https://ghcr.io/v2/: 429 Too Many Requests",
			"push ghcr.io/a/b:1", 429, false, "try again in a few minutes",
		},
		{
			"503", push + "unexpected status from HEAD request to https://ghcr.io/v2/: 503 Service Unavailable",
			"push ghcr.io/a/b:1", 503, false, "try again later",
		},
		{
			"rejected token request, without a reference",
			"failed to solve: failed to fetch oauth token: unauthorized: wrong user or password",
			"push ghcr.io/a/b:1, docker.io/a/b:1", 0, true, "log in to ghcr.io and docker.io (docker login)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := classifyError(t.Context(), request, &stepRecorder{}, status.Error(codes.Unknown, test.message))
			failure, ok := errors.AsType[*httpclient.APIError](err)
			if !ok || failure.Op != test.op || failure.Status != test.status || !strings.Contains(failure.Hint, test.hint) {
				t.Errorf("error = %#v", err)
			}
			if errors.Is(err, ErrUnauthorized) != test.unauthorized {
				t.Errorf("%v is ErrUnauthorized: %t, want %t", err, !test.unauthorized, test.unauthorized)
			}
			checkLine(t, err)
		})
	}
}

func TestClassifyBuilderError(t *testing.T) {
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	r := request(dir)
	for _, test := range []struct {
		name    string
		request Request
		err     error
		message string
		hint    string // part of it
	}{
		{
			"lost connection", r, status.Error(codes.Unavailable, "error reading from server: EOF"),
			"the connection to the builder was lost: error reading from server: EOF", "retry",
		},
		{
			"other", r, status.Error(codes.Unknown, "failed to solve: rpc error: code = Unknown desc = something\n\tnew"),
			"something new", "",
		},
		{
			"rejected login without a push", r, status.Error(codes.Unknown, "failed to fetch oauth token: denied"),
			"failed to fetch oauth token: denied", "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := classifyError(t.Context(), test.request, &stepRecorder{}, test.err)
			failure, ok := errors.AsType[*BuilderError](err)
			if !ok || failure.Message != test.message ||
				!strings.Contains(failure.Hint, test.hint) {
				t.Errorf("error = %#v", err)
			}
			checkLine(t, err)
		})
	}
	cause := errors.New("timed out")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := classifyError(ctx, r, &stepRecorder{}, errors.New("context canceled")); !errors.Is(err, cause) {
		t.Errorf("canceled: %v, want the cause", err)
	}
}

// The typed errors of a failed step survive the transfer over gRPC.
func TestClassifyBuildError(t *testing.T) {
	dockerfile := "FROM scratch\n\nRUN make \\\n  all\nCOPY a /\n"
	lines := func(first, last int32) *pb.Range {
		return &pb.Range{Start: &pb.Position{Line: first}, End: &pb.Position{Line: last}}
	}
	source := &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte(dockerfile)},
		Ranges: []*pb.Range{lines(4, 4), lines(3, 4)},
	}
	failed := errdefs.WithSource(&gateway.ExitError{ExitCode: 2, Err: errors.New("make failed")}, source)
	failed = fmt.Errorf("failed to solve: %w", errdefs.WrapVertex(failed, "sha256:x"))
	received := grpcerrors.FromGRPC(grpcerrors.ToGRPC(t.Context(), failed))
	err := classifyError(t.Context(), Request{Dockerfile: "/src/Dockerfile"}, &stepRecorder{}, received)
	failure, ok := errors.AsType[*BuildError](err)
	if !ok {
		t.Fatalf("error = %#v, want a BuildError", err)
	}
	if failure.File != "Dockerfile" || failure.Line != 3 || failure.EndLine != 4 || failure.ExitCode != 2 ||
		failure.Step != `RUN make \ all` || !strings.Contains(failure.Excerpt, ">>>") {
		t.Errorf("error = %+v", failure)
	}
	if !strings.HasPrefix(err.Error(), "Dockerfile:3 failed") {
		t.Errorf("error = %v, want file and line first", err)
	}
	checkLine(t, err)
}

// A failed pull of a base image is reported at its line, even if the build has a push.
func TestClassifyPullFailure(t *testing.T) {
	source := &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM ghcr.io/a/private\n")},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}},
	}
	failed := errdefs.WithSource(errors.New("failed to fetch oauth token: denied"), source)
	received := grpcerrors.FromGRPC(grpcerrors.ToGRPC(t.Context(), failed))
	err := classifyError(
		t.Context(),
		Request{Dockerfile: "/src/Dockerfile", Push: []string{"ghcr.io/a/b:1"}},
		&stepRecorder{},
		received,
	)
	failure, ok := errors.AsType[*BuildError](err)
	if !ok || failure.Line != 1 || failure.Step != "FROM ghcr.io/a/private" || failure.ExitCode != 0 {
		t.Errorf("error = %#v, want a BuildError of line 1", err)
	}
}

// These are messages that no build of the tests produces: of Docker Hub, of TLS, of a full disk, of unreadable files.
func TestClassifyStep(t *testing.T) {
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM debian:12\nRUN make\n"})
	const metadata = "[internal] load metadata for docker.io/library/debian:12"
	const pull = `Dockerfile:1: pull debian:12: `
	for _, test := range []struct{ name, step, message, want string }{
		{
			"rate limit of Docker Hub", "[1/2] FROM docker.io/library/debian:12@sha256:3a6a",
			"failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/" +
				"debian/manifests/sha256:3a6a: 429 Too Many Requests - Server message: toomanyrequests: Rate limit reached.",
			pull + "docker.io returned 429 Too Many Requests: toomanyrequests: Rate limit " +
				"reached. (try again in a few minutes, or log in for a higher limit)",
		},
		{
			"private image of Docker Hub", metadata, "failed to resolve source metadata for docker.io/library/debian:12: " +
				"pull access denied, repository does not exist or may require authorization: server message: " +
				"insufficient_scope: authorization failed",
			pull + "pull access denied, repository does not exist or may require authorization: server message: " +
				"insufficient_scope: authorization failed (grant this account permission to pull from the repository, or log in " +
				"to docker.io with another account)",
		},
		{
			"certificate", metadata, `failed to do request: Head "https://registry-1.docker.io/v2/library/debian/manifests/` +
				`12": tls: failed to verify certificate: x509: certificate signed by unknown authority`,
			pull + "tls: failed to verify certificate: x509: certificate signed by unknown authority (check the TLS " +
				"certificate of docker.io, and that the builder trusts it)",
		},
		{
			"no login", metadata, "failed to authorize: failed to fetch oauth token: unauthorized: wrong user",
			pull + "failed to fetch oauth token: unauthorized: wrong user (log in to docker.io (docker " +
				"login) with valid credentials that may pull from the repository)",
		},
		{
			"full disk in a step", "[2/2] RUN make", "failed to create temp dir: mkdir /tmp/x: no space left on device",
			"Dockerfile:2 (step 2/2): failed to create temp dir: mkdir /tmp/x: no space left on device (" + diskFullHint + ")",
		},
		{
			"full disk in an export", "exporting to image", "write blob: no space left on device",
			"build: write blob: no space left on device (" + diskFullHint + ")",
		},
		{
			"unreadable file", "[internal] load build context", "error from sender: open data/key: permission denied",
			"read the build context: open data/key: permission denied (make the file readable, or exclude " +
				"it in .dockerignore)",
		},
		{
			"unreadable file of a named context", "[context assets] load from client", "open key: permission denied",
			"read the build context assets: open key: permission denied (make the file readable, or exclude it in " +
				".dockerignore)",
		},
		{
			"entitlement of the builder", "", "granting entitlement network.host is not allowed by build daemon configuration",
			"the builder does not allow network.host (remove it from the input allow, or allow it in the configuration of " +
				"buildkitd)",
		},
		{
			"private repository", "[internal] load git source https://user:hunter2@github.com/a/b.git",
			"git stderr:\nfatal: could not read Username for 'https://github.com': terminal prompts disabled\n: exit status 128",
			"fetch https://user:***@github.com/a/b.git: fatal: could not read Username for 'https://github.com': terminal " +
				"prompts disabled (add the secret GIT_AUTH_TOKEN with a token that can read the repository)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			steps := &stepRecorder{}
			if test.step != "" {
				status := step(test.step, 0, 1, fails(test.message))
				steps.record(&status)
			}
			err := status.Error(codes.Unknown, "failed to solve: "+test.message)
			if got := classifyError(t.Context(), request(dir), steps, err); got.Error() != test.want {
				t.Errorf("got  %v\nwant %s", got, test.want)
			}
		})
	}
}

// checkLine checks that an error is one safe line without the password.
func checkLine(t *testing.T, err error) {
	t.Helper()
	if strings.ContainsAny(err.Error(), "\n\r\x1b") || strings.Contains(err.Error(), password) {
		t.Errorf("error is not one safe line: %q", err)
	}
}
