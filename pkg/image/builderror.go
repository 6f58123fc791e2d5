package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/org/sandbox-actions/pkg/safetext"
	"google.golang.org/grpc/codes"
)

// BuildError reports a Dockerfile with a failed step or an invalid line.
type BuildError struct {
	File     string // the Dockerfile as in [Request]
	Line     int    // of the instruction, from 1; 0 if BuildKit does not report it
	EndLine  int
	Excerpt  string // the instruction, marked, and the lines around it; "" if BuildKit does not send them
	Step     string // the instruction, for example "RUN make"; "" if Line is 0
	ExitCode int    // of the step's process; 0 if no process failed
	Message  string // BuildKit's message as one safe line
	Err      error
}

func (e *BuildError) Error() string {
	file := filepath.Base(e.File)
	if e.Line == 0 { // BuildKit reports no line for steps that fetch
		return fmt.Sprintf("%s: %s (fix the step that failed; see its output above)", file, e.Message)
	}
	return fmt.Sprintf("%s:%d: %s (fix this line; see the step's output above)", file, e.Line, e.Message)
}

func (e *BuildError) Unwrap() error { return e.Err }

// BuilderError reports a build that failed for a reason outside the Dockerfile: the connection, an output, the builder.
type BuilderError struct {
	Platform string
	Message  string // one safe line
	Hint     string // may be ""
	Err      error
}

func (e *BuilderError) Error() string {
	text := fmt.Sprintf("build for %s: %s", e.Platform, e.Message)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *BuilderError) Unwrap() error { return e.Err }

// maxMessage is the maximum length of a builder's or registry's message in an error, in characters.
const maxMessage = 1000

// classifyError converts an error of BuildKit to one of this package's types. If ctx has ended, it returns the cause.
func classifyError(ctx context.Context, r Request, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	message := buildkitMessage(err)
	sources := errdefs.Sources(err)
	_, inVertex := errors.AsType[*errdefs.VertexError](err)
	if !inVertex && isPushFailure(r, message, len(sources) > 0) {
		return pushFailure(ctx, r, message, err)
	}
	if len(sources) > 0 || inVertex {
		return newBuildError(r, sources, message, err)
	}
	failure := &BuilderError{Platform: r.Platform, Message: message, Err: err}
	if grpcerrors.Code(err) == codes.Unavailable {
		failure.Message = "the connection to the builder was lost: " + message
		failure.Hint = "retry; if it happens again, check the builder's log"
	}
	return failure
}

func newBuildError(r Request, sources []*errdefs.Source, message string, err error) *BuildError {
	e := &BuildError{File: r.Dockerfile, Message: message, Err: err}
	if exit, ok := errors.AsType[*gateway.ExitError](err); ok {
		e.ExitCode = int(exit.ExitCode)
	}
	for _, source := range sources {
		for _, lines := range source.Ranges {
			if e.Line == 0 || int(lines.Start.Line) < e.Line {
				e.Line = int(lines.Start.Line)
			}
			e.EndLine = max(e.EndLine, int(lines.End.Line))
		}
		var excerpt bytes.Buffer
		if source.Print(&excerpt) == nil {
			e.Excerpt = excerpt.String()
		}
		if source.Info != nil {
			e.Step = instruction(string(source.Info.Data), e.Line, e.EndLine)
		}
	}
	return e
}

// instruction returns the lines first to last of a Dockerfile, joined into one.
func instruction(dockerfile string, first, last int) string {
	lines := strings.Split(dockerfile, "\n")
	if first < 1 || last < first || first > len(lines) {
		return ""
	}
	return safetext.Line(strings.Join(lines[first-1:min(last, len(lines))], " "), maxMessage)
}

// prefix matches the prefixes that BuildKit's components add to a message.
var prefix = regexp.MustCompile(`^(failed to solve|rpc error: code = \w+ desc|dockerfile parse error on line \d+|` +
	`failed to read dockerfile) *[:=] *`)

// buildkitMessage returns BuildKit's message as one safe line without prefixes.
func buildkitMessage(err error) string {
	message := safetext.Line(err.Error(), maxMessage)
	for {
		shorter := prefix.ReplaceAllString(message, "")
		if shorter == message {
			return message
		}
		message = shorter
	}
}

// schedulerErrors are the texts of errors of BuildKit's scheduler, which have no type or code. The same build can
// succeed: moby/buildkit v0.34.2, solver/edge.go, and util/flightcontrol of v0.11; Depot's CLI repeats it, too
// (depot/cli b57f518, pkg/buildx/commands/build.go, shouldRetryError and retryRetryableErrors).
var schedulerErrors = []string{"inconsistent graph state", "failed to get state for index"}

const (
	maxSchedulerRetries = 5
	schedulerRetryWait  = 100 * time.Millisecond
)

func isSchedulerError(err error) bool {
	return slices.ContainsFunc(schedulerErrors, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// BuildKit reports a failed push as text only.
var (
	failedPush  = regexp.MustCompile(`failed to push (\S+): *`)
	failedToken = regexp.MustCompile(`failed to fetch (oauth|anonymous) token`)
)

// isPushFailure reports whether message is about a failed push. The error of a rejected login does not mention the
// push, but it has no source either.
func isPushFailure(r Request, message string, hasSource bool) bool {
	return failedPush.MatchString(message) || !hasSource && len(r.Push) > 0 && failedToken.MatchString(message)
}

// pushFailure returns the error of a push by BuildKit. If BuildKit does not report which reference failed, the error
// names all of them.
func pushFailure(ctx context.Context, r Request, message string, err error) error {
	references := r.Push
	if found := failedPush.FindStringSubmatch(message); found != nil {
		references = []string{found[1]}
		message = strings.Replace(message, found[0], "", 1)
	}
	return registryCall{op: pushOp, references: references}.failure(ctx, message, err)
}

// drain receives from status until Solve closes it.
func drain(status <-chan *client.SolveStatus) {
	for range status {
	}
}
