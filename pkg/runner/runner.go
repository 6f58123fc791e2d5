// Package runner writes logs, annotations, outputs and summaries: in GitHub Actions with workflow commands and files,
// elsewhere as plain text for a terminal.
//
// For workflow commands, see https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands. The
// output of builds and containers is untrusted: write it to [Runner.Untrusted], which prevents it from issuing
// commands.
//
// # Groups and untrusted output
//
// While commands are stopped, the Actions runner writes the line ##[group]TITLE unchanged to the log, which is what it
// writes for the command ::group::TITLE (actions/runner, src/Runner.Worker/ActionCommandManager.cs, TryProcessCommand
// and GroupingCommandExtension; Handlers/OutputManager.cs, OnDataReceived). The log page folds these lines. A Runner
// therefore stops commands once for all steps of a build and writes their groups in this form. It escapes the same
// lines in untrusted output.
//
// Groups do not nest: on the log page, a group ends the one before it, and a line ##[endgroup] without a group is shown
// (actions/toolkit issue 1001; robherley/actions-log-parser, src/parser.ts, by an author of that page).
package runner

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/org/sandbox-actions/pkg/safetext"
	"github.com/sethvargo/go-githubactions"
)

// Runner writes for the Actions runner if GITHUB_ACTIONS is "true". Otherwise it writes plain text to stderr. Its
// methods are safe for concurrent use. Create one with [New].
type Runner struct {
	// Label returns the text that stands for a level before a message on a terminal, such as "error:" in red. It is set
	// before the first message. Without it, the text is the level and a colon.
	Label func(level string) string

	getenv    func(string) string
	inActions bool
	action    *githubactions.Action // writes to command

	mu        sync.Mutex
	stdout    io.Writer
	stderr    io.Writer
	command   bytes.Buffer // buffers the workflow command that is being issued
	stopToken string       // resumes stopped workflow commands; "" if they are not stopped
	untrusted int          // number of writers of untrusted output that are in use
	group     string       // title of a group that has no lines yet, and is not written; "" for none
	inGroup   bool         // whether the title of a group was written that has not ended
	secrets   secrets
}

// New returns a Runner that writes to stdout and stderr and reads the environment through getenv.
func New(stdout, stderr io.Writer, getenv func(string) string) *Runner {
	r := &Runner{getenv: getenv, stdout: stdout, stderr: stderr, inActions: getenv("GITHUB_ACTIONS") == "true"}
	r.action = githubactions.New(githubactions.WithWriter(&r.command), githubactions.WithGetenv(getenv))
	return r
}

// InActions reports whether the output goes to the GitHub Actions runner or act.
func (r *Runner) InActions() bool { return r.inActions }

// Mask is [Runner.MaskAs] for a secret without a name.
func (r *Runner) Mask(secret string) { r.MaskAs("a secret", secret) }

// MaskAs redacts each line of secret in all further text from outside; a carriage return also ends a line. Call it
// before the first use of the secret. name describes the secret in errors, for example "the Doppler secret API_KEY".
// MaskAs ignores lines shorter than four bytes and those that are part of [fixedText], because masking every "1" or
// "json" would make the log unreadable.
//
// The program's own text, such as the format of a message and the path of an annotation, is not redacted.
func (r *Runner) MaskAs(name, secret string) {
	for _, line := range r.secrets.add(name, secret) {
		if r.inActions {
			r.issue(func(a *githubactions.Action) { a.AddMask(line) })
		}
	}
}

// FindSecret returns the name of a masked secret that s contains.
func (r *Runner) FindSecret(s string) (name string, found bool) { return r.secrets.find(s) }

// Redact returns s with every masked secret replaced by ***.
func (r *Runner) Redact(s string) string { return r.secrets.redact(s) }

// Clean returns an untrusted line with secrets redacted and control characters made visible.
func (r *Runner) Clean(line string) string { return safetext.Visible(r.Redact(line)) }

// Infof writes a message to the log. It redacts secrets in the arguments: strings, lists of strings, errors and
// fmt.Stringers.
func (r *Runner) Infof(format string, args ...any) {
	args = slices.Clone(args)
	for i, arg := range args {
		args[i] = r.redactArgument(arg)
	}
	r.writeLines(r.log(), fmt.Sprintf(format, args...))
}

func (r *Runner) redactArgument(arg any) any {
	switch value := arg.(type) {
	case error, fmt.Stringer:
		return r.Redact(fmt.Sprint(value))
	case []string:
		redacted := make([]string, len(value))
		for i, text := range value {
			redacted[i] = r.Redact(text)
		}
		return redacted
	}
	if value := reflect.ValueOf(arg); value.Kind() == reflect.String { // also of a named type
		return r.Redact(value.String())
	}
	return arg
}

// Annotation is a message that GitHub shows on the run's page and at a position in a file.
type Annotation struct {
	Title   string
	File    string // relative to the repository's root; "" for none
	Line    int    // first line, from 1; 0 for none
	EndLine int    // last line; 0 if it is Line
	Message string
}

// Notice writes a notice annotation.
func (r *Runner) Notice(a Annotation) { r.annotate("notice", a) }

// Warning writes a warning annotation, for a problem that does not fail the run.
func (r *Runner) Warning(a Annotation) { r.annotate("warning", a) }

// Error writes an error annotation, for a problem that fails the run.
func (r *Runner) Error(a Annotation) { r.annotate("error", a) }

func (r *Runner) annotate(level string, a Annotation) {
	message := r.Redact(a.Message)
	if !r.inActions {
		r.writeLabeled(level, a.position()+message)
		return
	}
	fields := map[string]string{}
	set := func(name, value string) {
		if value != "" && value != "0" {
			fields[name] = value
		}
	}
	set("title", r.Redact(a.Title))
	set("file", a.File)
	set("line", strconv.Itoa(a.Line))
	set("endLine", strconv.Itoa(a.EndLine))
	lines := strings.Split(message, "\n") // the runner writes them to the log
	for i, line := range lines {
		lines[i] = escapeMarkers(safetext.Visible(line))
	}
	message = strings.Join(lines, "\n")
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

// position returns the prefix "file:line: " for plain text messages, or "" without a file.
func (a Annotation) position() string {
	switch {
	case a.File == "":
		return ""
	case a.Line > 0:
		return fmt.Sprintf("%s:%d: ", a.File, a.Line)
	}
	return a.File + ": "
}

// Fail reports the error that ends the program, once: on stderr or, in GitHub Actions, as an annotation with the fields
// of at, which the runner also shows in the log. The message of at follows the error in the annotation.
func (r *Runner) Fail(err error, at Annotation) {
	text := strings.TrimSpace(err.Error())
	if !r.inActions {
		r.writeLabeled("error", r.Redact(text))
		return
	}
	r.EndGroup() // the log page shows the lines of a group only after a click
	at.Message = strings.TrimSpace(text + "\n" + at.Message)
	r.annotate("error", at)
}

// writeLabeled writes a redacted message after its level to stderr.
func (r *Runner) writeLabeled(level, text string) {
	label := level + ":"
	if r.Label != nil {
		label = r.Label(level)
	}
	r.writePrefixed(r.stderr, label+" ", text)
}

// Group starts a collapsible group with a title. It ends at EndGroup or at the next group, because groups do not nest.
// A group without lines is not written.
func (r *Runner) Group(title string) {
	title = r.Clean(title)
	if !r.inActions {
		r.writeLines(r.stderr, "==> "+title)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endGroup()
	r.group = escapeMarkers(title)
}

// EndGroup ends the current group, if there is one.
func (r *Runner) EndGroup() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endGroup()
}

// startGroup writes the title of a group before its first line. The caller holds the mutex, as for endGroup.
func (r *Runner) startGroup() {
	switch {
	case r.group == "":
		return
	case r.stopToken != "":
		fmt.Fprintf(r.stdout, "##[group]%s\n", r.group)
	default:
		r.writeCommand(func(a *githubactions.Action) { a.Group(r.group) })
	}
	r.group, r.inGroup = "", true
}

func (r *Runner) endGroup() {
	r.group = ""
	switch {
	case !r.inGroup:
		return
	case r.stopToken != "":
		fmt.Fprintln(r.stdout, "##[endgroup]")
	default:
		r.writeCommand(func(a *githubactions.Action) { a.EndGroup() })
	}
	r.inGroup = false
}

// Log returns a writer for trusted log output, such as a progress display. It redacts secrets line by line. Close
// writes an unfinished last line.
func (r *Runner) Log() io.WriteCloser {
	return &lineWriter{emit: func(line string) { r.writeLines(r.log(), r.Redact(line)) }}
}

// Untrusted returns a writer for the output of builds and containers. It redacts secrets and makes control characters
// visible. From the first line until Close, workflow commands are stopped with an unguessable token, except for a
// moment when the Runner issues one. Close writes an unfinished last line.
func (r *Runner) Untrusted() io.WriteCloser {
	w := &untrustedWriter{runner: r}
	w.emit = w.writeLine
	return w
}

// untrustedWriter is the writer of [Runner.Untrusted].
type untrustedWriter struct {
	lineWriter
	runner *Runner
	inUse  bool // whether it has written a line since it was closed
}

func (w *untrustedWriter) writeLine(line string) {
	r := w.runner
	line = r.Clean(line)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.inActions {
		fmt.Fprintln(r.stderr, line)
		return
	}
	if !w.inUse {
		w.inUse = true
		r.untrusted++
	}
	r.startGroup()
	if r.stopToken == "" {
		r.stopToken = rand.Text()
		fmt.Fprintf(r.stdout, "::stop-commands::%s\n", r.stopToken)
	}
	fmt.Fprintln(r.stdout, escapeMarkers(line))
}

// Close implements [io.Closer].
func (w *untrustedWriter) Close() error {
	err := w.lineWriter.Close()
	r := w.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	if !w.inUse {
		return err
	}
	w.inUse = false
	if r.untrusted--; r.untrusted == 0 {
		r.resumeCommands()
	}
	return err
}

// Output is an output of the step.
type Output struct{ Name, Value string }

// SecretOutputError reports an output that contains a masked secret. GitHub would not pass it to another job.
type SecretOutputError struct{ Output, Secret string }

func (e *SecretOutputError) Error() string {
	return fmt.Sprintf("output %s contains %s (change one of them; if a Doppler secret is not sensitive, set its "+
		"visibility to unmasked)", e.Output, e.Secret)
}

// Outputs sets outputs of the step if GITHUB_OUTPUT is set. If one contains a secret, it writes none of them and
// returns a [*SecretOutputError]. It does not use the library's SetOutput, because a value that contains its fixed
// delimiter could forge other outputs.
func (r *Runner) Outputs(outputs ...Output) error {
	text := ""
	for _, o := range outputs {
		if secret, found := r.FindSecret(o.Value); found {
			return &SecretOutputError{o.Name, secret}
		}
		delimiter := "EOF_" + rand.Text()
		text += fmt.Sprintf("%s<<%s\n%s\n%s\n", o.Name, delimiter, o.Value, delimiter)
	}
	if path := r.getenv("GITHUB_OUTPUT"); path != "" {
		return appendFile(path, text)
	}
	return nil
}

// Summary appends Markdown to the job summary. It does nothing if GITHUB_STEP_SUMMARY is not set.
func (r *Runner) Summary(markdown string) error {
	path := r.getenv("GITHUB_STEP_SUMMARY")
	if path == "" || markdown == "" {
		return nil
	}
	return appendFile(path, r.Redact(markdown)+"\n")
}

// log returns the stream for messages. GitHub Actions merges stdout and stderr; elsewhere stdout is only for outputs.
func (r *Runner) log() io.Writer {
	if r.inActions {
		return r.stdout
	}
	return r.stderr
}

// writeLines writes a redacted message. It escapes control characters and workflow commands, because a message may
// quote untrusted text.
func (r *Runner) writeLines(w io.Writer, text string) { r.writePrefixed(w, "", text) }

// writePrefixed is [Runner.writeLines] with a prefix that is written as it is.
func (r *Runner) writePrefixed(w io.Writer, prefix, text string) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = safetext.Visible(line)
		if r.inActions {
			lines[i] = escapeCommand(lines[i])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startGroup()
	fmt.Fprintln(w, prefix+strings.Join(lines, "\n"))
}

// issue resumes workflow commands and runs command, which writes one command through the library.
func (r *Runner) issue(command func(*githubactions.Action)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumeCommands()
	r.writeCommand(command)
}

// writeCommand copies the command that the library writes to stdout.
func (r *Runner) writeCommand(command func(*githubactions.Action)) {
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
