package dockerengine

import (
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
)

// StartError reports that the engine could not start a program in a container.
type StartError struct {
	// Exit is the exit code with which docker run and shells report a program that does not exist (127) or cannot be
	// executed (126). It is 0 if the cause is not the program, but for example a mount.
	Exit  int
	Cause string // reported by the engine's runtime, without the names of the components that passed it on
}

func (e *StartError) Error() string {
	switch e.Exit {
	case exitNotExecutable:
		return fmt.Sprintf("cannot execute %s (check the file's mode and the user)", e.Cause)
	case exitNotFound:
		return fmt.Sprintf("cannot execute %s (check the command and the image)", e.Cause)
	}
	return e.Cause
}

const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// newStartError returns the error for the message of an engine that could not start a program. It does not use the exit
// code that the engine determined: Docker 20.10 reports 126 for a missing program of an exec, and all report 126 or 127
// for causes such as a mount.
func newStartError(message string) *StartError {
	cause, isProgram := strings.CutPrefix(runtimeCause(message), "exec: ") // the format of Go's os/exec
	e := &StartError{Cause: cause}
	switch {
	case !isProgram:
	case strings.Contains(cause, exec.ErrNotFound.Error()), strings.Contains(cause, syscall.ENOENT.Error()):
		e.Exit = exitNotFound
	default:
		e.Exit = exitNotExecutable
	}
	return e
}

// componentPrefix matches what each component puts before the cause of a failed start. There are no codes for these
// causes: dockerd itself searches the text (daemon/errors.go in moby/moby v2.0.0-beta.24, setExitCodeFromError). The
// prefixes are those of dockerd (daemon/start.go), containerd (core/runtime/v2, cmd/containerd-shim-runc-v2), and runc
// (libcontainer/process_linux.go in v1.5; *_linux.go:LINE before v1.1).
var componentPrefix = regexp.MustCompile(`^(Error response from daemon|failed to create task for container|` +
	`failed to create shim( task)?|OCI runtime (create|exec|start) failed|runc (create|start) failed|exec failed|` +
	`unable to start container process|error during container init|\w+_linux\.go:\d+|` +
	`(starting container process|exec command|container init|running exec setns process for init) caused): *`)

// mountHint is what dockerd appends to every message that contains "not a directory", also without a mount.
const mountHint = ": Are you trying to mount a directory onto a file (or vice-versa)? " +
	"Check if the specified host path exists and is the expected type"

// Causes that runc (libcontainer/rootfs_linux.go, init_linux.go) describes in terms of its implementation.
var (
	mountFailure   = regexp.MustCompile(`^(?:error )?mounting (".*?") to rootfs at (".*?")(?: caused)?: .*?([^:]+)$`)
	workDirFailure = regexp.MustCompile(`^chdir to cwd \((".*?")\) set in config.json failed`)
)

// runtimeCause returns the innermost cause of a failed start.
func runtimeCause(message string) string {
	cause := strings.TrimSpace(message)
	for prefix := "-"; prefix != ""; cause = cause[len(prefix):] {
		prefix = componentPrefix.FindString(cause)
	}
	cause = strings.TrimSuffix(cause, mountHint)
	cause = strings.TrimSuffix(cause, ": unknown") // the code of containerd's gRPC error
	cause = mountFailure.ReplaceAllString(cause, "mount $1 on $2:$3")
	return workDirFailure.ReplaceAllString(cause, "working directory $1")
}

// asStartError returns a [*StartError] if the engine answered that it cannot start a container. It returns other errors
// unchanged.
func asStartError(err error) error {
	// Engines answer 400 or, if they do not know the text of the cause, 500.
	if cerrdefs.IsInvalidArgument(err) || cerrdefs.IsInternal(err) {
		return newStartError(err.Error())
	}
	return err
}

// beginning records the first bytes that pass through it.
type beginning struct {
	io.Writer
	bytes []byte
}

// maxBeginning is more than the engine prints when it cannot start a program.
const maxBeginning = 4 << 10

func (b *beginning) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p[:min(len(p), maxBeginning-len(b.bytes))]...)
	return b.Writer.Write(p)
}
