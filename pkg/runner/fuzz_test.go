package runner

import (
	"slices"
	"strings"
	"testing"
	"unicode"
)

// FuzzUntrusted: whatever others print, in whatever pieces it comes, the runner obeys our own commands only, and
// reads no secret.
func FuzzUntrusted(f *testing.F) {
	for _, text := range hostile {
		f.Add(text, uint8(1))
	}
	f.Add("hunter2\nhunt\rer2 ::hunter2", uint8(3))
	f.Add(strings.Repeat("x", maxLine)+"::error::y", uint8(255))
	f.Fuzz(func(t *testing.T, text string, piece uint8) {
		r, stdout, _ := record(inActions)
		r.secrets.add("hunter2")
		w := r.Untrusted()
		for chunk := range slices.Chunk([]byte(text), max(1, int(piece))) {
			if _, err := w.Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r.Notice(Annotation{Message: "ours"})
		if got := commands(stdout.String()); !slices.Equal(got, []string{"::notice::ours"}) {
			t.Errorf("the runner obeys %q in\n%s", got, stdout)
		}
		if strings.ContainsFunc(
			stdout.String(),
			func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' },
		) {
			t.Errorf("control characters are left in %q", stdout)
		}
		if strings.Contains(stdout.String(), "hunter2") &&
			len(text) < maxLine { // a line is cut at that length, whatever is there
			t.Errorf("a secret is readable in %q", stdout)
		}
	})
}

// FuzzOurLines: a sentence of ours quotes names that others chose, and is no command for that.
func FuzzOurLines(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, stdout, stderr := record(inActions)
		r.Infof("%s", text)
		r.Infof("Built %s", text)
		w := r.Log()
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		if got := commands(stdout.String()); len(got) > 0 {
			t.Errorf("the runner obeys %q", got)
		}
		stdout.Reset()
		r.Warning(Annotation{Title: text, File: text, Line: 1, Message: text})
		r.Group(text)
		got := commands(stdout.String())
		if len(got) != 2 || !strings.HasPrefix(got[0], "::warning ") || !strings.HasPrefix(got[1], "::group::") {
			t.Errorf("the runner obeys %q, and should a warning and a group", got)
		}
		stdout.Reset()
		r.Fail(errorString(text), Annotation{})
		if got := commands(stderr.String()); len(got) > 0 {
			t.Errorf("on standard error the runner obeys %q", got)
		}
		if got := commands(stdout.String()); len(got) != 1 || !strings.HasPrefix(got[0], "::error") {
			t.Errorf("the runner obeys %q, and should one error", got)
		}
	})
}

type errorString string

func (e errorString) Error() string { return string(e) }
