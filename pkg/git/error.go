package git

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
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
	Certificate         // the certificate of the server is not trusted, or not valid at this time
	NotTLS              // the server does not speak TLS
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
	{Unauthorized, []string{"could not read Username", "Authentication failed", "error: 401", "error: 403"}},
	// lib/vtls/gtls.c and lib/vtls/openssl.c of curl 7.88.1, and OpenSSL 3.0.17, crypto/x509/x509_txt.c
	{Certificate, []string{
		"certificate verification failed", "certificate expiration date", "certificate not activated",
		"SSL certificate problem", "certificate subject name",
	}},
	{NotTLS, []string{"unexpected TLS packet", "wrong version number"}}, // of GnuTLS and of OpenSSL
	{Moved, []string{"error: 301", "error: 302", "error: 307", "error: 308"}},
	{NotFound, []string{"error: 404"}},
	{Network, []string{ // "RPC failed" is a POST without a complete response (git v2.39.5, remote-curl.c: post_rpc)
		"RPC failed", "error: 408", "error: 50", "Could not resolve", "Failed to connect", "Couldn't connect",
		"Connection reset", "Connection refused", "timed out", "Operation too slow", "transfer closed", "Empty reply",
		"Recv failure", "Send failure", "HTTP/2 ", "SSL_ERROR_SYSCALL", "TLS connection was non-properly terminated",
		"unexpected eof", "early EOF", "unexpected disconnect", "hung up unexpectedly",
	}},
	{NotFound, []string{"not found"}},
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

	RetryAfter time.Duration // the wait that the server requests; known only with [Git.OutputWithRetry]
}

func (e *Error) Error() string { return fmt.Sprintf("git %s: %s", e.Op, e.Message) }
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same command may succeed later.
func (e *Error) Temporary() bool { return e.Cause == Network || e.Cause == RateLimited }

const maxMessage = 300

func newError(op, stderr string, err error, now time.Time) *Error {
	stderr, trace := splitTrace(stderr)
	e := &Error{Op: op, Message: safetext.Line(reason(stderr), maxMessage), ExitCode: -1, Err: err}
	e.RetryAfter = httpclient.RetryAfter(lastHeader(trace), now)
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

// reason returns the last line in which git reports an error. A line about a full disk, a rejected ref or a failed
// request takes precedence, because later errors follow from it.
func reason(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, isCause := range []func(line string) bool{
		func(line string) bool { return strings.Contains(line, "No space left on device") },
		func(line string) bool {
			return strings.HasPrefix(line, " ! ") || strings.HasPrefix(line, "error: RPC failed")
		},
	} {
		if i := slices.IndexFunc(lines, isCause); i >= 0 {
			return lines[i]
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

// tracePattern matches a line of GIT_TRACE_CURL, and the header of a response in it (git v2.39.5, trace.c:
// prepare_trace_line, and http.c: curl_trace).
var tracePattern = regexp.MustCompile(`^[0-9:.]{15} \S+:[0-9]+ +(?:<= Recv header: (.*))?`)

// splitTrace separates the headers of the responses in a trace of HTTP from git's other messages.
func splitTrace(stderr string) (messages string, headers []string) {
	var rest strings.Builder
	for line := range strings.Lines(stderr) {
		traced := tracePattern.FindStringSubmatch(line)
		switch {
		case traced == nil:
			rest.WriteString(line)
		case traced[1] != "":
			headers = append(headers, strings.TrimSpace(traced[1]))
		}
	}
	return rest.String(), headers
}

// lastHeader returns the header of the last of several responses.
func lastHeader(lines []string) http.Header {
	header := http.Header{}
	for _, line := range lines {
		if strings.HasPrefix(line, "HTTP/") {
			clear(header)
		}
		if name, value, ok := strings.Cut(line, ":"); ok {
			header.Add(name, strings.TrimSpace(value))
		}
	}
	return header
}
