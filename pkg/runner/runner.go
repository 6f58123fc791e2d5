// Package runner speaks to whoever runs the program: the GitHub Actions runner, through its workflow commands and
// files, or a person at a terminal, in plain text.
//
// The commands are described in
// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands. All that comes out of a build
// or a container is data: it is written through [Runner.Untrusted], and no line of it can act as a command.
package runner

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sethvargo/go-githubactions"
)

// idTokenTimeout bounds one request for an OIDC token; the runner answers in well under a second.
const idTokenTimeout = 20 * time.Second

// Runner writes for the Actions runner when GITHUB_ACTIONS is "true", else for a person: results to stdout, everything
// else to stderr. Its methods may be called from several goroutines. Make one with [New].
type Runner struct {
	getenv    func(string) string
	inActions bool
	action    *githubactions.Action // writes to a buffer that command flushes to stdout

	mu      sync.Mutex
	stdout  io.Writer
	stderr  io.Writer
	command bytes.Buffer // what the library wrote of the command being issued
	stopped string       // the token that resumes workflow commands; empty while the runner obeys them
	secrets secrets
}

// New makes a Runner that writes to stdout and stderr and reads the environment through getenv.
func New(stdout, stderr io.Writer, getenv func(string) string) *Runner {
	r := &Runner{getenv: getenv, stdout: stdout, stderr: stderr, inActions: getenv("GITHUB_ACTIONS") == "true"}
	r.action = githubactions.New(
		githubactions.WithWriter(&r.command),
		githubactions.WithGetenv(getenv),
		githubactions.WithHTTPClient(&http.Client{Timeout: idTokenTimeout}),
	)
	return r
}

// InActions reports whether a GitHub Actions runner (or act) reads what is written.
func (r *Runner) InActions() bool { return r.inActions }

// Mask makes each line of secret unreadable in all that is written from now on. A carriage return ends a line, too. Call it before
// the secret is used for anything. Lines of fewer than four bytes are left alone: hiding every "1" hides everything.
func (r *Runner) Mask(secret string) {
	for _, line := range r.secrets.add(secret) {
		if r.inActions {
			r.issue(func(a *githubactions.Action) { a.AddMask(line) })
		}
	}
}

// Redact returns s with every masked secret replaced by ***.
func (r *Runner) Redact(s string) string { return r.secrets.redact(s) }

// Clean returns a line that others made so that it can be shown: redacted, with control characters as their pictures.
func (r *Runner) Clean(line string) string { return visible(r.Redact(line)) }

// Infof writes one line of our own.
func (r *Runner) Infof(format string, args ...any) {
	r.line(r.log(), fmt.Sprintf(format, args...))
}

// Annotation is a remark that Actions shows on the run's page and beside the file.
type Annotation struct {
	Title   string
	File    string // relative to the repository's root; empty when it is about no file
	Line    int    // first line, from 1; 0 when it is about no line
	EndLine int    // last line; 0 when there is one
	Message string
}

// Notice remarks on something worth knowing.
func (r *Runner) Notice(a Annotation) { r.annotate("notice", a) }

// Warning remarks on something that works and should be changed.
func (r *Runner) Warning(a Annotation) { r.annotate("warning", a) }

// Error says why the run failed.
func (r *Runner) Error(a Annotation) { r.annotate("error", a) }

func (r *Runner) annotate(level string, a Annotation) {
	a.Message = r.Redact(a.Message)
	if !r.inActions {
		where := ""
		if a.File != "" {
			where = a.File + ":"
			if a.Line > 0 {
				where += strconv.Itoa(a.Line) + ":"
			}
			where += " "
		}
		r.line(r.stderr, level+": "+where+a.Message)
		return
	}
	fields := map[string]string{}
	set := func(name, value string) {
		if value != "" && value != "0" {
			fields[name] = r.Redact(value)
		}
	}
	set("title", a.Title)
	set("file", a.File)
	set("line", strconv.Itoa(a.Line))
	set("endLine", strconv.Itoa(a.EndLine))
	r.issue(func(action *githubactions.Action) {
		action = action.WithFieldsMap(fields)
		switch level {
		case "notice":
			action.Noticef("%s", a.Message)
		case "warning":
			action.Warningf("%s", a.Message)
		default:
			action.Errorf("%s", a.Message)
		}
	})
}

// Fail reports the error that ends the program: one sentence on standard error and, in Actions, one annotation, at the place
// that at names if it names one.
func (r *Runner) Fail(err error, at Annotation) {
	at.Message = strings.TrimSpace(err.Error())
	if r.inActions {
		r.annotate("error", at)
	}
	r.line(r.stderr, "error: "+at.Message)
}

// Group folds what follows, until EndGroup, under title. Groups do not nest.
func (r *Runner) Group(title string) {
	if !r.inActions {
		r.line(r.stderr, "==> "+title)
		return
	}
	r.issue(func(a *githubactions.Action) { a.Group(r.Redact(title)) })
}

// EndGroup ends the group.
func (r *Runner) EndGroup() {
	if r.inActions {
		r.issue(func(a *githubactions.Action) { a.EndGroup() })
	}
}

// Log returns a writer for text of our own that a library prints: redacted, line by line. Close writes what is left
// of an unfinished line.
func (r *Runner) Log() io.WriteCloser {
	return &lineWriter{emit: func(line string) { r.line(r.log(), line) }}
}

// Untrusted returns a writer for text that others made, such as a build's output. Whatever the text says, the Actions
// runner obeys none of it: commands are stopped by a token that cannot be guessed, control characters are made
// visible, secrets are redacted. Close writes what is left of an unfinished line.
func (r *Runner) Untrusted() io.WriteCloser {
	return &lineWriter{emit: func(line string) {
		line = r.Clean(line)
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.inActions {
			fmt.Fprintln(r.stderr, line)
			return
		}
		if r.stopped == "" {
			r.stopped = rand.Text()
			fmt.Fprintf(r.stdout, "::stop-commands::%s\n", r.stopped)
		}
		fmt.Fprintln(r.stdout, line)
	}}
}

// Output publishes one result: to the step's outputs in Actions (GITHUB_OUTPUT), as a line name=value on stdout
// otherwise. The library's own writer is not used, because its delimiter is fixed and a value could end itself.
func (r *Runner) Output(name, value string) error {
	value = r.Redact(value)
	path := r.getenv("GITHUB_OUTPUT")
	if path == "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, err := fmt.Fprintf(r.stdout, "%s=%s\n", name, strings.ReplaceAll(value, "\n", "%0A"))
		return err
	}
	delimiter := "EOF_" + rand.Text()
	return appendFile(path, fmt.Sprintf("%s<<%s\n%s\n%s\n", name, delimiter, value, delimiter))
}

// Summary adds Markdown to the job's summary page; without one (GITHUB_STEP_SUMMARY) it does nothing.
func (r *Runner) Summary(markdown string) error {
	path := r.getenv("GITHUB_STEP_SUMMARY")
	if path == "" {
		return nil
	}
	return appendFile(path, r.Redact(markdown)+"\n")
}

// ErrNoIDToken says that the job may not ask for an OIDC token, for want of the permission `id-token: write`.
var ErrNoIDToken = errors.New("the job has no OIDC token to give")

// IDToken asks the Actions runner for an OIDC token for audience and masks it. It answers [ErrNoIDToken] where there is
// none to ask for.
func (r *Runner) IDToken(ctx context.Context, audience string) (string, error) {
	if r.getenv("ACTIONS_ID_TOKEN_REQUEST_URL") == "" || r.getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN") == "" {
		return "", ErrNoIDToken
	}
	r.Mask(r.getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
	var token string
	var err error
	for attempt, wait := 1, 500*time.Millisecond; ; attempt, wait = attempt+1, 2*wait {
		if token, err = r.action.GetIDToken(ctx, audience); err == nil || attempt == 3 {
			break
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("ask GitHub for an OIDC token: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
	if err == nil && token == "" {
		err = errors.New("the answer holds no token")
	}
	if err != nil {
		return "", fmt.Errorf("ask GitHub for an OIDC token for %s: %s", audience, r.Redact(err.Error()))
	}
	r.Mask(token)
	return token, nil
}

// log is where our own text goes: Actions shows one stream, a person's stdout is kept for results.
func (r *Runner) log() io.Writer {
	if r.inActions {
		return r.stdout
	}
	return r.stderr
}

// line writes one line that is ours, after commands have been resumed. It quotes names that others chose, so no terminal and no runner
// obeys it.
func (r *Runner) line(w io.Writer, text string) {
	lines := strings.Split(r.Redact(text), "\n")
	for i, line := range lines {
		lines[i] = visible(line)
		if r.inActions {
			lines[i] = inert(lines[i])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resume()
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// issue runs the library with commands resumed, and writes what it made.
func (r *Runner) issue(command func(*githubactions.Action)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resume()
	r.command.Reset()
	command(r.action)
	_, _ = r.stdout.Write(r.command.Bytes())
}

func (r *Runner) resume() {
	if r.stopped != "" {
		fmt.Fprintf(r.stdout, "::%s::\n", r.stopped)
		r.stopped = ""
	}
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
