package runner

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// record makes a Runner with an environment and returns what it writes.
func record(env map[string]string) (r *Runner, stdout, stderr *bytes.Buffer) {
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	return New(stdout, stderr, func(name string) string { return env[name] }), stdout, stderr
}

var inActions = map[string]string{"GITHUB_ACTIONS": "true"}

// commands returns what the Actions runner would obey in a log while commands are not stopped, by its own rules: a
// line that begins with :: after any space, or has ##[ anywhere.
// https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
func commands(log string) []string {
	var found []string
	token := ""
	for _, line := range strings.FieldsFunc(log, func(c rune) bool { return c == '\n' || c == '\r' }) {
		line = strings.TrimSpace(line)
		switch {
		case token != "" && line == "::"+token+"::":
			token = ""
		case token != "":
		case strings.HasPrefix(line, "::stop-commands::"):
			token = strings.TrimPrefix(line, "::stop-commands::")
		case strings.HasPrefix(line, "::"), strings.Contains(line, "##["):
			found = append(found, line)
		}
	}
	return found
}

// hostile are texts that the runner would obey, if it read them as they are.
var hostile = []string{
	"::add-mask::a", "::error::forged", "::set-output name=digest::forged", "::stop-commands::guess\n::guess::",
	"\r::error::after a carriage return", "text\r::warning::x", "##[error]old form", "in a line ##[add-mask]a", "line\n  ::error::two", "  ::notice::indented",
	"no newline at the end ::error::x", "\x1b[2J\x1b]0;title\x07", "::endgroup::",
}

func TestUntrustedTextNeverActs(t *testing.T) {
	for _, text := range hostile {
		t.Run(text, func(t *testing.T) {
			r, stdout, _ := record(inActions)
			w := r.Untrusted()
			// In pieces, as a pipe delivers it.
			for _, c := range []byte(text) {
				if _, err := w.Write([]byte{c}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			r.Notice(Annotation{Message: "ours"})
			if got := commands(stdout.String()); len(got) != 1 || got[0] != "::notice::ours" {
				t.Errorf("the runner obeys %q in\n%s", got, stdout)
			}
			if strings.ContainsAny(stdout.String(), "\x1b\x07\r") {
				t.Errorf("control characters are left in %q", stdout)
			}
		})
	}
}

func TestStopTokensAreNeverReused(t *testing.T) {
	r, stdout, _ := record(inActions)
	for range 3 {
		w := r.Untrusted()
		_, _ = io.WriteString(w, "data\n")
		_ = w.Close()
		r.Infof("ours")
	}
	tokens := regexp.MustCompile(`::stop-commands::(\w{26,})\n`).FindAllStringSubmatch(stdout.String(), -1)
	if len(tokens) != 3 || tokens[0][1] == tokens[1][1] || tokens[1][1] == tokens[2][1] {
		t.Errorf("want three different long tokens, have %v", tokens)
	}
}

func TestSecretsAreUnreadable(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": filepath.Join(dir, "out"), "GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary"),
	}
	r, stdout, stderr := record(env)
	r.Mask("hunter2hunter2\n-----KEY-----\nab\n")
	r.Mask("hunter2")
	stdout.Reset() // the masks themselves
	r.Infof("token hunter2hunter2 and %s", "hunter2")
	r.Warning(Annotation{Message: "-----KEY-----"})
	r.Group("hunter2")
	w := r.Untrusted()
	_, _ = io.WriteString(w, "hunt")
	_, _ = io.WriteString(w, "er2 in pieces")
	_ = w.Close()
	r.Fail(errors.New("no hunter2"), Annotation{})
	if err := errors.Join(r.Output("x", "hunter2"), r.Summary("hunter2")); err != nil {
		t.Fatal(err)
	}
	left := stdout.String() + stderr.String()
	for _, name := range []string{"GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"} {
		b, err := os.ReadFile(env[name])
		if err != nil {
			t.Fatal(err)
		}
		left += string(b)
	}
	if strings.Contains(left, "hunter2") || strings.Contains(left, "KEY") {
		t.Errorf("a secret is readable in\n%s", left)
	}
	if strings.Count(left, "***") != 9 {
		t.Errorf("want nine redactions in\n%s", left)
	}
}

// A secret is seen before control characters become pictures, and a carriage return ends a line of it as it ends
// one of the log.
func TestSecretsWithControlCharacters(t *testing.T) {
	for name, secret := range map[string]string{
		"escape": "begin\x1b[31mend", "tab": "begin\tend", "carriage return": "begin\rends", "lines of Windows": "begin\r\nends", "C1": "begin\u0085end", "no UTF-8": "begin\xffend",
	} {
		t.Run(name, func(t *testing.T) {
			r, stdout, _ := record(inActions)
			r.Mask(secret)
			stdout.Reset() // the masks themselves
			w := r.Untrusted()
			_, _ = io.WriteString(w, "it is "+secret+" there\n")
			_ = w.Close()
			if got := stdout.String(); strings.Contains(got, "begin") || strings.Contains(got, "end") ||
				!strings.Contains(got, "***") {
				t.Errorf("a secret is readable in %q", got)
			}
		})
	}
}

func TestMaskIsACommandOnlyInActions(t *testing.T) {
	r, stdout, stderr := record(nil)
	r.Mask("secret-value")
	if stdout.Len()+stderr.Len() > 0 {
		t.Errorf("a mask was printed to a person: %s%s", stdout, stderr)
	}
	r, stdout, _ = record(inActions)
	r.Mask("one-line\ntwo%line\n")
	if want := "::add-mask::one-line\n::add-mask::two%25line\n"; stdout.String() != want {
		t.Errorf("want %q, have %q", want, stdout)
	}
}

func TestOutputsCannotForgeOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	r, _, _ := record(map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": path})
	value := "a\n_GitHubActionsFileCommandDelimeter_\ndigest=forged\nEOF\ndigest<<EOF\nforged\nEOF"
	if err := r.Output("metadata", value); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name, rest, _ := strings.Cut(string(file), "<<")
	delimiter, rest, _ := strings.Cut(rest, "\n")
	got, after, found := strings.Cut(rest, "\n"+delimiter+"\n")
	if name != "metadata" || got != value || after != "" || !found {
		t.Errorf("the file reads %q=%q, then %q", name, got, after)
	}
}

func TestForAPerson(t *testing.T) {
	r, stdout, stderr := record(nil)
	r.Infof("building")
	r.Warning(Annotation{File: "Dockerfile", Line: 3, Message: "old form"})
	r.Group("solve")
	r.EndGroup()
	if err := r.Output("digest", "sha256:1"); err != nil {
		t.Fatal(err)
	}
	r.Fail(errors.New("no builder"), Annotation{})
	if want := "building\nwarning: Dockerfile:3: old form\n==> solve\nerror: no builder\n"; stderr.String() != want {
		t.Errorf("stderr: want %q, have %q", want, stderr)
	}
	if want := "digest=sha256:1\n"; stdout.String() != want {
		t.Errorf("stdout: want %q, have %q", want, stdout)
	}
}
