package image

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Position is a place in a Dockerfile, or in its .dockerignore file.
type Position struct {
	File    string // as the user wrote it
	Line    int    // from 1; 0 if BuildKit does not report it
	EndLine int
	Excerpt string // the instruction, marked, and the lines around it; may be ""
}

// Where returns the position. Errors embed a Position, so that a caller can find it without knowing their types.
func (p Position) Where() Position { return p }

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// BuildError reports a Dockerfile with a failed step or an invalid line.
type BuildError struct {
	Position
	Step     string   // the instruction, for example "RUN make"
	Number   string   // of the step, for example 3/4 or builder 3/4; "" for an invalid line
	ExitCode int      // of the step's process; 0 if no process failed
	Output   []string // the last lines of the step's output, without control characters and secrets
	Message  string   // BuildKit's message as one safe line
	Hint     string   // may be ""
	Err      error
}

// MaxErrorLines is the maximum number of lines of output in the text of a [BuildError].
const MaxErrorLines = 3

func (e *BuildError) Error() string {
	text := e.Headline()
	if e.ExitCode != 0 {
		last := e.Output[max(0, len(e.Output)-MaxErrorLines):]
		quoted := make([]string, len(last))
		for i, line := range last {
			quoted[i] = "`" + safetext.Line(line, maxMessage/MaxErrorLines) + "`"
		}
		if len(last) == 0 {
			text += " and no output: " + safetext.Line(e.Step, maxMessage/MaxErrorLines)
		} else {
			text += "; last output: " + strings.Join(quoted, ", ")
		}
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Headline returns the error without output and hint.
func (e *BuildError) Headline() string {
	text := e.Position.String()
	if e.Number != "" {
		text += " (step " + e.Number + ")"
	}
	if e.ExitCode != 0 {
		return fmt.Sprintf("%s failed with exit code %d", text, e.ExitCode)
	}
	return text + ": " + e.Message
}

func (e *BuildError) Unwrap() error { return e.Err }

// ImageError reports an image that the builder cannot pull: a base image, one of COPY --from, or the frontend.
type ImageError struct {
	Position
	Reference string
	Context   string // the named context that names the image; "" for none
	Err       error  // an [*httpclient.APIError] or a [*CredentialError]
}

func (e *ImageError) Error() string {
	switch {
	case e.Context != "":
		return fmt.Sprintf("build context %s: %v", e.Context, e.Err)
	case e.Line == 0: // for example an SBOM generator
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Position, e.Err)
}

func (e *ImageError) Unwrap() error { return e.Err }

// MissingFileError reports a COPY or ADD of a file that does not exist.
type MissingFileError struct {
	Position
	Instruction string // COPY or ADD
	Path        string // as in the Dockerfile
	From        string // the stage, image or named context; "" for the build context
	Context     string // the build context, as in [Request]
	Existing    string // path of the file without symbolic links; "" if the file does not exist
	IgnoredBy   string // the .dockerignore file that excludes the existing file
	Err         error
}

func (e *MissingFileError) Error() string {
	text := fmt.Sprintf("%s: %s %s: ", e.Position, e.Instruction, e.Path)
	switch {
	case e.From != "":
		return text + fmt.Sprintf("not in %s (correct the path, or create the file in %[1]s)", e.From)
	case e.IgnoredBy != "":
		return text + fmt.Sprintf("excluded by %s (add the line !%s to it)", e.IgnoredBy, e.Existing)
	}
	return text + fmt.Sprintf("not in the build context (`%s`), or excluded by .dockerignore (paths are relative to the "+
		"input context)", e.Context)
}

func (e *MissingFileError) Unwrap() error { return e.Err }

// FetchError reports a URL or a git repository that the builder cannot fetch: of ADD, or of a build context.
type FetchError struct {
	Position        // Line is 0 for a context
	URL      string // "" if it is unknown
	Message  string
	Hint     string
	Err      error
}

func (e *FetchError) Error() string {
	text := "fetch " + e.URL
	if e.Line != 0 {
		text = e.Position.String() + ": " + text
	}
	return fmt.Sprintf("%s: %s (%s)", text, e.Message, e.Hint)
}

func (e *FetchError) Unwrap() error { return e.Err }

// SecretError reports a build secret that a step needs and that the build does not have.
type SecretError struct {
	Position
	ID  string
	Err error
}

func (e *SecretError) Error() string {
	return fmt.Sprintf("%s needs the secret %s: add it to the input secrets, secret_envs or secret_files, or to the "+
		"Doppler config",
		e.Position, e.ID)
}

func (e *SecretError) Unwrap() error { return e.Err }

// SSHError reports an SSH agent that a step needs and that the build does not have.
type SSHError struct {
	Position
	ID  string
	Err error
}

func (e *SSHError) Error() string {
	return fmt.Sprintf("%s needs the SSH agent %s: add %s to the input ssh", e.Position, e.ID, e.ID)
}

func (e *SSHError) Unwrap() error { return e.Err }

// IgnoreFileError reports an invalid pattern in a .dockerignore file.
type IgnoreFileError struct {
	Position
	Pattern string
	Err     error
}

func (e *IgnoreFileError) Error() string {
	return fmt.Sprintf("%s: invalid pattern %q: %v (close the bracket or escape it as \\[; a pattern cannot end with \\)",
		e.Position, e.Pattern, filepath.ErrBadPattern)
}

func (e *IgnoreFileError) Unwrap() error { return e.Err }

// TargetError reports a stage that the Dockerfile does not have.
type TargetError struct {
	File   string
	Target string
	Stages []string // the stages with a name
	Err    error
}

func (e *TargetError) Error() string {
	hint := "remove the input target, or add AS " + e.Target + " to the stage in the Dockerfile"
	if len(e.Stages) > 0 {
		hint = "set the input target to one of: " + strings.Join(e.Stages, ", ")
	}
	return fmt.Sprintf("stage %q not found in %s (%s)", e.Target, e.File, hint)
}

func (e *TargetError) Unwrap() error { return e.Err }

// EntitlementError reports a step that needs an entitlement which the build or the builder does not grant.
type EntitlementError struct {
	Position
	Name      string // network.host or security.insecure
	ByBuilder bool   // whether the builder refuses it
	Err       error
}

func (e *EntitlementError) Error() string {
	if e.ByBuilder {
		return fmt.Sprintf("the builder does not allow %s (remove it from the input allow, or allow it in the "+
			"configuration of buildkitd)", e.Name)
	}
	return fmt.Sprintf("%s needs the entitlement %s (add it to the input allow)", e.Position, e.Name)
}

func (e *EntitlementError) Unwrap() error { return e.Err }

// ContextError reports a build context or Dockerfile that this machine cannot send to the builder.
type ContextError struct {
	Context string // for example "the build context app"
	Message string
	Hint    string
	Err     error
}

func (e *ContextError) Error() string {
	return fmt.Sprintf("read %s: %s (%s)", e.Context, e.Message, e.Hint)
}

func (e *ContextError) Unwrap() error { return e.Err }

// OutputError reports an output that cannot be written on this machine.
type OutputError struct {
	Message string
	Hint    string
	Err     error
}

func (e *OutputError) Error() string {
	return fmt.Sprintf("write the outputs: %s (%s)", e.Message, e.Hint)
}

func (e *OutputError) Unwrap() error { return e.Err }

// BuilderError reports a build that failed for another reason, such as the connection or the builder.
type BuilderError struct {
	Message string // one safe line
	Hint    string // may be ""
	Err     error
}

func (e *BuilderError) Error() string {
	if e.Hint == "" {
		return "build: " + e.Message
	}
	return fmt.Sprintf("build: %s (%s)", e.Message, e.Hint)
}

func (e *BuilderError) Unwrap() error { return e.Err }

// maxMessage is the maximum length of a builder's or registry's message in an error, in characters.
const maxMessage = 1000

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
