package runner

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/org/sandbox-actions/internal/runnerlog"
)

// FuzzUntrusted checks that untrusted text, written in pieces of any size, issues no commands, starts and ends no
// groups, and contains no secrets.
func FuzzUntrusted(f *testing.F) {
	for _, text := range hostile {
		f.Add(text, uint8(1))
	}
	f.Add("hunter2\nhunt\rer2 ::hunter2", uint8(3))
	f.Add(strings.Repeat("x", maxLine)+"::error::y", uint8(255))
	f.Fuzz(func(t *testing.T, text string, piece uint8) {
		r, stdout, _ := record(inActions)
		r.secrets.add("a secret", "hunter2")
		w := r.Untrusted()
		r.Group("first")
		r.Infof("a line")
		for chunk := range slices.Chunk([]byte(text), max(1, int(piece))) {
			if _, err := w.Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		r.Group("second " + text)
		r.Infof("%s", text)
		r.EndGroup()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r.Notice(Annotation{Message: "ours"})
		isOurs := func(command string) bool {
			return command == "::group::first" || command == "::notice::ours" || command == "::endgroup::" ||
				strings.HasPrefix(command, "::group::second ")
		}
		if got := runnerlog.Commands(stdout.String()); !slices.Contains(got, "::notice::ours") ||
			slices.ContainsFunc(got, func(command string) bool { return !isOurs(command) }) || len(got) > 5 {
			t.Errorf("commands %q in\n%s", got, stdout)
		}
		if got := groups(t, stdout.String()); len(got) != 2 || got[0] != "first" || !strings.HasPrefix(got[1], "second ") {
			t.Errorf("groups %q in\n%s", got, stdout)
		}
		isControl := func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' }
		if strings.ContainsFunc(stdout.String(), isControl) {
			t.Errorf("control characters in %q", stdout)
		}
		// Longer lines are split, which may split a secret.
		if strings.Contains(stdout.String(), "hunter2") && len(text) < maxLine {
			t.Errorf("a secret is in %q", stdout)
		}
	})
}

// FuzzQuotedText checks that untrusted text quoted in messages cannot issue commands.
func FuzzQuotedText(f *testing.F) {
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
		if got := runnerlog.Commands(stdout.String()); len(got) > 0 {
			t.Errorf("commands %q", got)
		}
		stdout.Reset()
		r.Warning(Annotation{Title: text, File: text, Line: 1, Message: text})
		r.Group(text)
		r.Infof("a line")
		got := runnerlog.Commands(stdout.String())
		if len(got) != 2 || !strings.HasPrefix(got[0], "::warning ") || !strings.HasPrefix(got[1], "::group::") {
			t.Errorf("commands %q, want a warning and a group", got)
		}
		r.EndGroup()
		groups(t, stdout.String())
		stdout.Reset()
		r.Fail(errors.New(text), Annotation{})
		if got := runnerlog.Commands(stderr.String()); len(got) > 0 {
			t.Errorf("commands %q on stderr", got)
		}
		if got := runnerlog.Commands(stdout.String()); len(got) != 1 || !strings.HasPrefix(got[0], "::error") {
			t.Errorf("commands %q, want one error", got)
		}
		groups(t, stdout.String())
	})
}
