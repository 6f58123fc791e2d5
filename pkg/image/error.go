package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// BuildError is a Dockerfile that can not be built: a step that failed, or a line that means nothing.
type BuildError struct {
	File    string // the Dockerfile as [Request] names it
	Line    int    // from 1; 0 when BuildKit did not say
	EndLine int
	Excerpt string // the lines around it, marked; "" when BuildKit did not send them
	Vertex  string // digest of the step that failed; "" when none did
	Message string // BuildKit's, on one line
	err     error
}

func (e *BuildError) Error() string {
	file := filepath.Base(e.File)
	if e.Line == 0 { // of a step that fetches something, BuildKit tells no line
		return fmt.Sprintf("%s: %s: mend the step that the log above shows as failed", file, e.Message)
	}
	return fmt.Sprintf("%s:%d: %s: mend that line; what the step wrote is in the log above", file, e.Line, e.Message)
}

func (e *BuildError) Unwrap() error { return e.err }

var (
	prefixes = regexp.MustCompile(`^(failed to solve|rpc error: code = \w+ desc|dockerfile parse error on line \d+|failed to read dockerfile) *[:=] *`)
	noFile   = regexp.MustCompile(`failed to read dockerfile: .*no such file or directory`)
)

// explain turns what BuildKit answered into one sentence.
func explain(ctx context.Context, r Request, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	message := oneLine(err.Error())
	if noFile.MatchString(err.Error()) {
		return &said{fmt.Sprintf("there is no Dockerfile %s: name the one to build from in the input dockerfile", r.Dockerfile), err}
	}
	sources := errdefs.Sources(err)
	vertex := new(errdefs.VertexError)
	failed := errors.As(err, &vertex)
	if !failed && strings.Contains(message, "failed to push") || len(sources) == 0 && !failed && len(r.Push) > 0 && noToken.MatchString(message) {
		return pushError(ctx, r, message, err)
	}
	if len(sources) == 0 && !failed {
		if grpcerrors.Code(err) == codes.Unavailable {
			return &said{fmt.Sprintf("the builder for %s went away during the build (%s): run it again; if it stays away, look at the builder's log", r.Platform, message), err}
		}
		return &said{fmt.Sprintf("build for %s: %s", r.Platform, message), err}
	}
	e := &BuildError{File: r.Dockerfile, Message: message, err: err}
	if failed {
		e.Vertex = vertex.Digest
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
	}
	return e
}

var (
	pushed  = regexp.MustCompile(`failed to push (\S+): *`) // how BuildKit names the reference
	noToken = regexp.MustCompile(`failed to fetch (oauth|anonymous) token`)
)

// pushError is what became of BuildKit's push. Where it does not say which reference failed, it was one of those.
func pushError(ctx context.Context, r Request, message string, err error) error {
	reference := strings.Join(r.Push, ", ")
	if found := pushed.FindStringSubmatch(message); found != nil {
		reference = found[1]
		message = strings.Replace(message, found[0], "", 1)
	}
	return registryError(ctx, "push", reference, &said{message, err})
}

// said is an error in one sentence of ours, with what it was made from.
type said struct {
	sentence string
	err      error
}

func (e *said) Error() string { return e.sentence }
func (e *said) Unwrap() error { return e.err }

// oneLine is BuildKit's message without what its layers put before it, on one line.
func oneLine(message string) string {
	message = strings.Join(strings.FieldsFunc(message, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }), " ")
	for {
		short := prefixes.ReplaceAllString(message, "")
		if short == message {
			return message
		}
		message = short
	}
}
