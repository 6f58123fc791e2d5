package git

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// ErrNotInstalled is returned if the git program is not found.
var ErrNotInstalled = errors.New("git is not installed: install it (apt-get install git)")

// Cause is the reason for a failure of git, derived from its messages.
type Cause int

// Causes of git failures.
const (
	Unknown       Cause = iota
	Network             // no connection, a broken connection, or a server error
	RateLimited         // the server returned 429
	Unauthorized        // the server requires or rejects credentials
	Moved               // the server redirected; tokens are not sent after a redirect
	NotFound            // the repository does not exist or is not visible to the token
	MissingCommit       // the server does not have the commit
	NotGit              // the response is not from a git server
	InvalidPath         // the commit contains a path that git refuses to write, such as .git/config
	DiskFull
)

// causes maps git's messages on stderr (with LC_ALL=C) to causes, because git reports failures only as text. The first
// match applies.
var causes = []struct {
	cause Cause
	texts []string
}{
	{DiskFull, []string{"No space left", "Out of diskspace", "isk quota"}},
	{RateLimited, []string{"error: 429"}},
	{Network, []string{
		"Could not resolve host", "Failed to connect", "Connection reset", "Connection refused", "Connection timed out",
		"Operation timed out", "Operation too slow", "early EOF", "RPC failed", "unexpected disconnect",
		"hung up unexpectedly", "Empty reply", "error: 50", "TLS connection was non-properly terminated",
	}},
	{Unauthorized, []string{"could not read Username", "Authentication failed", "error: 401", "error: 403"}},
	{Moved, []string{"error: 301", "error: 302", "error: 307", "error: 308"}},
	{NotFound, []string{"not found", "error: 404"}},
	{MissingCommit, []string{"not our ref", "remote ref", "no such remote"}},
	{NotGit, []string{
		"is this a git repository", "dumb http transport", "protocol error", "bad line length",
		"invalid server response", "expected flush",
	}},
	{InvalidPath, []string{"invalid path"}},
}

// Error reports a failed git command.
type Error struct {
	Op       string // git command, such as "fetch"
	Cause    Cause
	Message  string // git's message, as one line that is safe to print
	ExitCode int    // -1 if a signal killed git or it did not start
	Attempts int    // number of attempts; 0 means one
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("git %s: %s", e.Op, e.Message) }
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same command may succeed later.
func (e *Error) Temporary() bool { return e.Cause == Network || e.Cause == RateLimited }

const maxMessage = 300

func newError(op, stderr string, err error) *Error {
	e := &Error{Op: op, Message: safetext.Line(reason(stderr), maxMessage), ExitCode: -1, Err: err}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		e.ExitCode = exit.ExitCode()
	} else {
		e.Message = err.Error() // git did not start
	}
	if e.Message == "" {
		e.Message = err.Error()
	}
	for _, row := range causes {
		for _, text := range row.texts {
			if strings.Contains(e.Message, text) {
				e.Cause = row.cause
				return e
			}
		}
	}
	return e
}

// reason returns the last line in which git reports an error. A line about a full disk or a rejected ref takes
// precedence, because later errors follow from it.
func reason(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, line := range lines {
		if strings.Contains(line, "No space left on device") || strings.HasPrefix(line, " ! ") {
			return line
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		for _, prefix := range []string{"fatal:", "error:", "remote:"} {
			if strings.HasPrefix(lines[i], prefix) {
				return lines[i]
			}
		}
	}
	return lines[len(lines)-1]
}
