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

// checkLine checks that an error is one safe line without the password.
func checkLine(t *testing.T, err error) {
	t.Helper()
	if strings.ContainsAny(err.Error(), "\n\r\x1b") || strings.Contains(err.Error(), password) {
		t.Errorf("error is not one safe line: %q", err)
	}
}
