package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/runnerlog"
)

// record returns a Runner with the given environment, and buffers with its output.
func record(env map[string]string) (r *Runner, stdout, stderr *bytes.Buffer) {
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	return New(stdout, stderr, func(name string) string { return env[name] }), stdout, stderr
}

var inActions = map[string]string{"GITHUB_ACTIONS": "true"}

// groups returns the titles of the groups that the log page shows, which must be balanced.
func groups(t *testing.T, log string) []string {
	t.Helper()
	titles, err := runnerlog.Groups(log)
	if err != nil {
		t.Errorf("%v:\n%s", err, log)
	}
	return titles
}

// hostile contains text that issues commands to the Actions runner or a terminal.
var hostile = []string{
	"::add-mask::a",
	"::error::forged",
	"::set-output name=digest::forged",
	"::stop-commands::guess\n::guess::",
	"\r::error::after a carriage return",
	"text\r::warning::x",
	"##[error]old form",
	"in a line ##[add-mask]a",
	"line\n  ::error::two",
	"  ::notice::indented",
	"no newline at the end ::error::x",
	"\x1b[2J\x1b]0;title\x07",
	"::endgroup::",
	"##[endgroup]",
	"##[group]forged",
	"[group]forged",
	"text\n[group]forged\n##[endgroup]",
	"[endgroup]",
	"[ENDGROUP]\n[Group]forged",
	"text\r##[group]forged",
}

func TestUntrustedTextIssuesNoCommands(t *testing.T) {
	for _, text := range hostile {
		t.Run(text, func(t *testing.T) {
			r, stdout, _ := record(inActions)
			r.Group("outer")
			w := r.Untrusted()
			for _, c := range []byte(text) { // byte by byte, as from a slow pipe
				if _, err := w.Write([]byte{c}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			r.Notice(Annotation{Message: "ours"})
			r.EndGroup()
			want := []string{"::group::outer", "::notice::ours", "::endgroup::"}
			if got := runnerlog.Commands(stdout.String()); !slices.Equal(got, want) {
				t.Errorf("commands %q in\n%s", got, stdout)
			}
			if got := groups(t, stdout.String()); !slices.Equal(got, []string{"outer"}) {
				t.Errorf("groups %q in\n%s", got, stdout)
			}
			if strings.ContainsAny(stdout.String(), "\x1b\x07\r") {
				t.Errorf("control characters in %q", stdout)
			}
		})
	}
}

func TestStopTokensAreNotReused(t *testing.T) {
	r, stdout, _ := record(inActions)
	for range 3 {
		w := r.Untrusted()
		_, _ = io.WriteString(w, "data\n")
		_ = w.Close()
		r.Infof("ours")
	}
	tokens := stopTokens.FindAllStringSubmatch(stdout.String(), -1)
	if len(tokens) != 3 || tokens[0][1] == tokens[1][1] || tokens[1][1] == tokens[2][1] {
		t.Errorf("got tokens %v, want three distinct long tokens", tokens)
	}
}

// Commands are stopped once for all groups of untrusted output.
func TestGroupsOfUntrustedOutput(t *testing.T) {
	for _, test := range []struct {
		name  string
		write func(r *Runner, w io.WriteCloser)
		want  string
	}{
		{
			"several groups",
			func(r *Runner, w io.WriteCloser) {
				_, _ = io.WriteString(w, "before\n")
				r.Group("::error::one\n##[group]two")
				_, _ = io.WriteString(w, "a\n::error::b\n##[group]c\n[endgroup]\n")
				r.EndGroup()
				r.Infof("between ::endgroup::\n##[endgroup]")
				r.Group("three") // has no lines, so it is not written
				r.EndGroup()
				r.EndGroup() // has ended already
			},
			"::stop-commands::TOKEN1\nbefore\n##[group]::error::one␊##\\[group]two\na\n::error::b\n##\\[group]c\n" +
				"\\[endgroup]\n##[endgroup]\nbetween ::endgroup::\n##\\[endgroup]\n::TOKEN1::\n",
		},
		{
			"group before the first line",
			func(r *Runner, w io.WriteCloser) {
				r.Group("one")
				_, _ = io.WriteString(w, "a\n")
				r.Group("two") // ends the first one
				_, _ = io.WriteString(w, "b\n")
				r.EndGroup()
			},
			"::group::one\n::stop-commands::TOKEN1\na\n##[endgroup]\n##[group]two\nb\n##[endgroup]\n::TOKEN1::\n",
		},
		{
			"masks and annotations",
			func(r *Runner, w io.WriteCloser) {
				r.Group("one")
				_, _ = io.WriteString(w, "a\n")
				r.Mask("hunter2")
				_, _ = io.WriteString(w, "hunter2\n")
				r.Warning(Annotation{Message: "careful"})
				r.EndGroup()
				_, _ = io.WriteString(w, "unfinished")
			},
			"::group::one\n::stop-commands::TOKEN1\na\n::TOKEN1::\n::add-mask::hunter2\n::stop-commands::TOKEN2\n***\n" +
				"::TOKEN2::\n::warning::careful\n::endgroup::\n::stop-commands::TOKEN3\nunfinished\n::TOKEN3::\n",
		},
		{
			"another writer",
			func(r *Runner, w io.WriteCloser) {
				_, _ = io.WriteString(w, "a\n")
				other := r.Untrusted()
				_, _ = io.WriteString(other, "b\n")
				_ = other.Close()
				_ = other.Close() // has no effect
				_, _ = io.WriteString(w, "c\n")
			},
			"::stop-commands::TOKEN1\na\nb\nc\n::TOKEN1::\n",
		},
		{
			"failure in a group",
			func(r *Runner, w io.WriteCloser) {
				r.Group("one")
				_, _ = io.WriteString(w, "a\n")
				r.Fail(errors.New("cause"), Annotation{})
			},
			"::group::one\n::stop-commands::TOKEN1\na\n##[endgroup]\n::TOKEN1::\n::error::cause\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, stdout, _ := record(inActions)
			w := r.Untrusted()
			test.write(r, w)
			_ = w.Close()
			got := stdout.String()
			for i, token := range stopTokens.FindAllStringSubmatch(got, -1) {
				got = strings.ReplaceAll(got, token[1], fmt.Sprint("TOKEN", i+1))
			}
			if got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			groups(t, got)
		})
	}
}

var stopTokens = regexp.MustCompile(`::stop-commands::(\w{26,})\n`)

type word string

func TestSecretsAreRedacted(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": filepath.Join(dir, "output"),
		"GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary"),
	}
	r, stdout, stderr := record(env)
	r.Mask("hunter2hunter2\n-----KEY-----\nab\n")
	r.Mask("hunter2")
	for _, test := range []struct {
		name  string
		write func() error
		want  string // the redacted line
	}{
		{"message", func() error { r.Infof("is %s", "hunter2"); return nil }, "is ***"},
		{"short line", func() error { r.Infof("ab"); return nil }, "ab"},
		{"annotation", func() error { r.Warning(Annotation{Message: "-----KEY-----"}); return nil }, "::warning::***"},
		{
			"title", func() error { r.Notice(Annotation{Title: "a hunter2", Message: "m"}); return nil },
			"::notice title=a ***::m",
		},
		{"message with a named type", func() error { r.Infof("is %s", word("hunter2")); return nil }, "is ***"},
		{
			"message with a list", func() error { r.Infof("is %q", []string{"a", "hunter2"}); return nil },
			`is ["a" "***"]`,
		},
		{
			"message of an error", func() error { r.Infof("is %v", errors.New("hunter2")); return nil }, "is ***",
		},
		{"group", func() error { r.Group("hunter2"); r.Infof("a"); return nil }, "::group::***"},
		{"log", func() error { return writeAll(r.Log(), "is hunter2") }, "is ***"},
		{"untrusted, in pieces", func() error { return writeAll(r.Untrusted(), "is hunt", "er2 here") }, "is *** here"},
		{"failure", func() error { r.Fail(errors.New("no hunter2"), Annotation{}); return nil }, "::error::no ***"},
		{"summary", func() error { return r.Summary("is hunter2") }, "is ***"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout.Reset()
			stderr.Reset()
			if err := test.write(); err != nil {
				t.Fatal(err)
			}
			written := stdout.String() + stderr.String()
			for _, name := range []string{"GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"} {
				data, err := os.ReadFile(env[name])
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				written += string(data)
			}
			if strings.Contains(written, "hunter2") || strings.Contains(written, "KEY") {
				t.Errorf("a secret is in\n%s", written)
			}
			if !slices.Contains(strings.Split(written, "\n"), test.want) {
				t.Errorf("got\n%s\nwant the line %q", written, test.want)
			}
		})
	}
}

func writeAll(w io.WriteCloser, parts ...string) error {
	for _, part := range parts {
		if _, err := io.WriteString(w, part); err != nil {
			return err
		}
	}
	return w.Close()
}

// Redacting a secret that is a prefix of another one must not leave the rest of the longer one readable, in any order
// of masking.
func TestLongestSecretFirst(t *testing.T) {
	secrets := []string{"abcd", "abcdefgh", "abcdef"}
	for _, order := range [][]int{{0, 1, 2}, {1, 0, 2}, {2, 0, 1}, {0, 2, 1}} {
		r, _, _ := record(nil)
		for _, i := range order {
			r.Mask(secrets[i])
		}
		for _, secret := range secrets {
			if got := r.Redact("<" + secret + ">"); got != "<***>" {
				t.Errorf("order %v: %q became %q", order, secret, got)
			}
		}
	}
}

// Secrets are redacted before control characters are replaced. A carriage return ends a line in a secret as in the log.
func TestSecretsWithControlCharacters(t *testing.T) {
	for name, secret := range map[string]string{
		"escape": "begin\x1b[31mend", "tab": "begin\tend", "carriage return": "begin\rends", "CRLF": "begin\r\nends",
		"C1": "begin\u0085end", "invalid UTF-8": "begin\xffend",
	} {
		t.Run(name, func(t *testing.T) {
			r, stdout, _ := record(inActions)
			r.Mask(secret)
			stdout.Reset() // remove the add-mask commands
			if err := writeAll(r.Untrusted(), "it is "+secret+" here\n"); err != nil {
				t.Fatal(err)
			}
			got := stdout.String()
			if strings.Contains(got, "begin") || strings.Contains(got, "end") || !strings.Contains(got, "***") {
				t.Errorf("a secret is in %q", got)
			}
		})
	}
}

func TestMask(t *testing.T) {
	r, stdout, stderr := record(nil)
	r.Mask("secret-value")
	if stdout.Len()+stderr.Len() > 0 {
		t.Errorf("Mask wrote output outside GitHub Actions: %s%s", stdout, stderr)
	}
	r, stdout, _ = record(inActions)
	r.Mask("  one-line \ntwo%line\nabc\nabcd\n")
	r.Mask("one-line") // already masked
	if want := "::add-mask::one-line\n::add-mask::two%25line\n::add-mask::abcd\n"; stdout.String() != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
}

// readOutputs parses a GITHUB_OUTPUT file like the Actions runner.
func readOutputs(t *testing.T, path string) (names, values []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for rest := string(data); rest != ""; {
		name, after, _ := strings.Cut(rest, "<<")
		delimiter, after, _ := strings.Cut(after, "\n")
		value, after, found := strings.Cut(after, "\n"+delimiter+"\n")
		if !found {
			t.Fatalf("no delimiter %q in %q", delimiter, rest)
		}
		names, values = append(names, name), append(values, value)
		rest = after
	}
	return names, values
}

func TestOutputs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	r, stdout, _ := record(map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": path})
	wantNames, wantValues := []string{"metadata", "digest", "empty"}, []string{
		// This value would forge an output with the library's fixed delimiter.
		"a\n_GitHubActionsFileCommandDelimeter_\ndigest=forged\nEOF\ndigest<<EOF\nforged\nEOF",
		"sha256:1",
		"",
	}
	var outputs []Output
	for i, name := range wantNames {
		outputs = append(outputs, Output{name, wantValues[i]})
	}
	if err := r.Outputs(outputs...); err != nil {
		t.Fatal(err)
	}
	names, values := readOutputs(t, path)
	if !slices.Equal(names, wantNames) || !slices.Equal(values, wantValues) {
		t.Errorf("got %q = %q", names, values)
	}
	if stdout.Len() > 0 {
		t.Errorf("written to stdout: %q", stdout)
	}
}

// An output that contains a secret is an error that names both, and no output is written.
func TestSecretInOutput(t *testing.T) {
	for _, inActions := range []string{"true", "false"} {
		path := filepath.Join(t.TempDir(), "output")
		env := map[string]string{"GITHUB_ACTIONS": inActions}
		if inActions == "true" {
			env["GITHUB_OUTPUT"] = path
		}
		r, stdout, _ := record(env)
		r.MaskAs("the Doppler secret APP", "first\nweb-sandbox")
		stdout.Reset()
		err := r.Outputs(Output{"digest", "sha256:1"}, Output{"snapshot_name", "web-sandbox-1"})
		leak := (*SecretOutputError)(nil)
		if !errors.As(err, &leak) || *leak != (SecretOutputError{"snapshot_name", "the Doppler secret APP"}) ||
			!strings.Contains(err.Error(), "snapshot_name") || !strings.Contains(err.Error(), "APP") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || stdout.Len() > 0 {
			t.Errorf("outputs were written: %v, %q", err, stdout)
		}
	}
}

// Secrets are redacted in values, not in the program's own sentences, and not in the path of an annotation.
func TestOwnTextIsNotRedacted(t *testing.T) {
	r, stdout, _ := record(inActions)
	r.Mask("sandbox")
	stdout.Reset()
	r.Infof("A sandbox of %s", "sandbox")
	r.Error(Annotation{File: "sandbox/Dockerfile", Line: 3, Message: "in sandbox"})
	want := "A sandbox of ***\n::error file=sandbox/Dockerfile,line=3::in ***\n"
	if stdout.String() != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
}

// Values that are part of every run's outputs are not masked.
func TestFixedTextIsNotMasked(t *testing.T) {
	r, stdout, _ := record(inActions)
	for _, value := range []string{"json", "linux", "amd64", "true", "active", "sha256"} {
		r.Mask(value)
	}
	metadata := `{"containerimage.digest": "sha256:1", "mediaType": "application/vnd.oci.image.manifest.v1+json"}`
	if stdout.Len() > 0 || r.Redact(metadata) != metadata {
		t.Errorf("masked %q", stdout)
	}
}

func TestSummaries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary")
	r, _, _ := record(map[string]string{"GITHUB_STEP_SUMMARY": path})
	if err := errors.Join(r.Summary("# One"), r.Summary("# Two")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "# One\n# Two\n" {
		t.Errorf("got %q, %v", data, err)
	}
	r, stdout, stderr := record(nil)
	if err := r.Summary("# One"); err != nil || stdout.Len()+stderr.Len() > 0 {
		t.Errorf("without a file: %v, %q, %q", err, stdout, stderr)
	}
}

func TestCommandsInActions(t *testing.T) {
	r, stdout, stderr := record(inActions)
	r.Warning(Annotation{Title: "Check", File: "Dockerfile", Line: 3, EndLine: 5, Message: "two\nlines"})
	r.Error(Annotation{Message: "m"})
	want := "::warning endLine=5,file=Dockerfile,line=3,title=Check::two%0Alines\n::error::m\n"
	if stdout.String() != want || stderr.Len() > 0 {
		t.Errorf("got %q and %q, want %q", stdout, stderr, want)
	}
	stdout.Reset()
	r.Group("solve")
	r.Mask("hunter2") // not a line
	r.Infof("a")
	r.EndGroup()
	if want := "::add-mask::hunter2\n::group::solve\na\n::endgroup::\n"; stdout.String() != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
	stdout.Reset()
	r.Fail(errors.New("cause\n"), Annotation{File: "Dockerfile", Line: 3})
	if stdout.String() != "::error file=Dockerfile,line=3::cause\n" || stderr.Len() > 0 {
		t.Errorf("got %q and %q", stdout, stderr)
	}
}

func TestOutsideActions(t *testing.T) {
	r, stdout, stderr := record(nil)
	r.Infof("building")
	r.Notice(Annotation{Message: "note"})
	r.Warning(Annotation{File: "Dockerfile", Line: 3, Message: "old form"})
	r.Error(Annotation{File: "Dockerfile", Message: "wrong"})
	r.Group("solve")
	r.EndGroup()
	if err := writeAll(r.Untrusted(), "::output\x07"); err != nil {
		t.Fatal(err)
	}
	if err := r.Outputs(Output{"digest", "sha256:1"}, Output{"tags", "a\nb"}); err != nil {
		t.Fatal(err)
	}
	r.Fail(errors.New("no builder"), Annotation{})
	wantLog := `building
notice: note
warning: Dockerfile:3: old form
error: Dockerfile: wrong
==> solve
::output␇
error: no builder
`
	if stderr.String() != wantLog {
		t.Errorf("stderr: got %q, want %q", stderr, wantLog)
	}
	if stdout.Len() > 0 {
		t.Errorf("stdout: got %q", stdout)
	}
	if r.InActions() {
		t.Error("InActions is true")
	}
}

func TestInfofEscapesCommands(t *testing.T) {
	r, stdout, stderr := record(inActions)
	r.Infof("first\n::error::quoted\n  ##[group]x\x1b")
	if want := "first\n\\::error::quoted\n  ##\\[group]x␛\n"; stdout.String() != want || stderr.Len() > 0 {
		t.Errorf("got %q and %q, want %q", stdout, stderr, want)
	}
}

func TestLongLinesAreSplit(t *testing.T) {
	var lines []string
	w := &lineWriter{emit: func(line string) { lines = append(lines, line) }}
	text := strings.Repeat("x", maxLine)
	if err := writeAll(w, text, "", "yy\n\nlast"); err != nil {
		t.Fatal(err)
	}
	want := []string{text + "yy", "", "last"}
	if !slices.Equal(lines, want) {
		t.Errorf("got %d lines", len(lines))
	}
	lines = nil
	if err := writeAll(w, text, "z", "\r\nend\r"); err != nil {
		t.Fatal(err)
	}
	if want := []string{text, "z", "", "end"}; !slices.Equal(lines, want) {
		t.Errorf("got %d lines, want %d", len(lines), len(want))
	}
}
