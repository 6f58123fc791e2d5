// Package runner writes for whoever runs the program: the GitHub Actions runner, through its workflow commands and
// files, or a person at a terminal, as plain text.
//
// Workflow commands: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands. The
// output of a build or a container is data: it is written through [Runner.Untrusted], where no line acts as a
// command.
package runner

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/org/sandbox-actions/pkg/safetext"
	"github.com/sethvargo/go-githubactions"
)

// Runner writes for the Actions runner if GITHUB_ACTIONS is "true", and for a person otherwise: results to stdout,
// everything else to stderr. Its methods are safe for concurrent use. Create one with [New].
type Runner struct {
	getenv    func(string) string
	inActions bool
	action    *githubactions.Action // writes to command

	mu        sync.Mutex
	stdout    io.Writer
	stderr    io.Writer
	command   bytes.Buffer // the library's output for the command being issued
	stopToken string       // resumes workflow commands; "" while the runner processes them
	secrets   secrets
}

// New returns a Runner that writes to stdout and stderr and reads the environment through getenv.
func New(stdout, stderr io.Writer, getenv func(string) string) *Runner {
	r := &Runner{getenv: getenv, stdout: stdout, stderr: stderr, inActions: getenv("GITHUB_ACTIONS") == "true"}
	r.action = githubactions.New(githubactions.WithWriter(&r.command), githubactions.WithGetenv(getenv))
	return r
}

// InActions reports whether a GitHub Actions runner (or act) reads the output.
func (r *Runner) InActions() bool { return r.inActions }

// Mask hides each line of secret in everything written from now on; a carriage return ends a line, too. Call it
// before the first use of the secret. Lines of fewer than four bytes are not masked: hiding every "1" would hide
// most of the log.
func (r *Runner) Mask(secret string) {
	for _, line := range r.secrets.add(secret) {
		if r.inActions {
			r.issue(func(a *githubactions.Action) { a.AddMask(line) })
		}
	}
}

// Redact returns s with every masked secret replaced by ***.
func (r *Runner) Redact(s string) string { return r.secrets.redact(s) }

// Clean makes a line from an untrusted source safe to show: redacted, with control characters visible.
func (r *Runner) Clean(line string) string { return safetext.Visible(r.Redact(line)) }

// Infof writes to the log.
func (r *Runner) Infof(format string, args ...any) {
	r.writeLines(r.log(), fmt.Sprintf(format, args...))
}

// Annotation is a message that Actions shows on the run's page and at a place in a file.
type Annotation struct {
	Title   string
	File    string // relative to the repository's root; "" for none
	Line    int    // first line, from 1; 0 for none
	EndLine int    // last line; 0 if there is one line
	Message string
}

// Notice writes an annotation for information.
func (r *Runner) Notice(a Annotation) { r.annotate("notice", a) }

// Warning writes an annotation for a problem that does not fail the run.
func (r *Runner) Warning(a Annotation) { r.annotate("warning", a) }

// Error writes an annotation for the reason the run fails.
func (r *Runner) Error(a Annotation) { r.annotate("error", a) }

func (r *Runner) annotate(level string, a Annotation) {
	if !r.inActions {
		r.writeLines(r.stderr, level+": "+a.position()+a.Message)
		return
	}
	message := r.Redact(a.Message)
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
			action.Noticef("%s", message)
		case "warning":
			action.Warningf("%s", message)
		default:
			action.Errorf("%s", message)
		}
	})
}

// position is the prefix "file:line: " of a message for a person; "" without a file.
func (a Annotation) position() string {
	switch {
	case a.File == "":
		return ""
	case a.Line > 0:
		return fmt.Sprintf("%s:%d: ", a.File, a.Line)
	}
	return a.File + ": "
}

// Fail reports the error that ends the program: on standard error and, in Actions, as one annotation at the place
// that at names.
func (r *Runner) Fail(err error, at Annotation) {
	at.Message = strings.TrimSpace(err.Error())
	if r.inActions {
		r.annotate("error", at)
	}
	r.writeLines(r.stderr, "error: "+at.Message)
}

// Group folds the output up to EndGroup under title. Groups do not nest.
func (r *Runner) Group(title string) {
	if !r.inActions {
		r.writeLines(r.stderr, "==> "+title)
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

// Log returns a writer for a library's own messages, such as a progress display: redacted line by line. Close
// writes an unfinished last line.
func (r *Runner) Log() io.WriteCloser {
	return &lineWriter{emit: func(line string) { r.writeLines(r.log(), line) }}
}

// Untrusted returns a writer for the output of builds and containers. No line of it acts as a workflow command:
// commands are stopped with a token that cannot be guessed, secrets are redacted, control characters made visible.
// Close writes an unfinished last line.
func (r *Runner) Untrusted() io.WriteCloser {
	return &lineWriter{emit: func(line string) {
		line = r.Clean(line)
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.inActions {
			fmt.Fprintln(r.stderr, line)
			return
		}
		if r.stopToken == "" {
			r.stopToken = rand.Text()
			fmt.Fprintf(r.stdout, "::stop-commands::%s\n", r.stopToken)
		}
		fmt.Fprintln(r.stdout, line)
	}}
}

// Output sets an output: of the step in Actions (GITHUB_OUTPUT), as a line name=value on stdout otherwise. It does
// not use the library's writer, whose fixed delimiter lets a value forge further outputs.
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

// Summary appends Markdown to the job summary. Without one (GITHUB_STEP_SUMMARY) it does nothing.
func (r *Runner) Summary(markdown string) error {
	path := r.getenv("GITHUB_STEP_SUMMARY")
	if path == "" {
		return nil
	}
	return appendFile(path, r.Redact(markdown)+"\n")
}

// log is the stream for messages: Actions shows stdout and stderr as one, a person's stdout is for results.
func (r *Runner) log() io.Writer {
	if r.inActions {
		return r.stdout
	}
	return r.stderr
}

// writeLines writes the program's own message, with workflow commands resumed. A message may quote untrusted names,
// so that its lines must not act on a terminal or on the Actions runner.
func (r *Runner) writeLines(w io.Writer, text string) {
	lines := strings.Split(r.Redact(text), "\n")
	for i, line := range lines {
		lines[i] = safetext.Visible(line)
		if r.inActions {
			lines[i] = escapeCommand(lines[i])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumeCommands()
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// issue writes the workflow command that the library creates.
func (r *Runner) issue(command func(*githubactions.Action)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumeCommands()
	r.command.Reset()
	command(r.action)
	_, _ = r.stdout.Write(r.command.Bytes())
}

func (r *Runner) resumeCommands() {
	if r.stopToken != "" {
		fmt.Fprintf(r.stdout, "::%s::\n", r.stopToken)
		r.stopToken = ""
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
