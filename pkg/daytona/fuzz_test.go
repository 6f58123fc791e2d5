package daytona

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzSnapshotError checks that an error is one printable line for any reason and log.
func FuzzSnapshotError(f *testing.F) {
	for _, seed := range []string{
		"GET http://r/v2/a/manifests/1: MANIFEST_UNKNOWN", "\x1b[31m::error::x\u2028", "", "\xff", strings.Repeat("ä", 900),
	} {
		f.Add(seed, "")
		f.Add("", seed)
		f.Add("", "line\n"+seed)
	}
	f.Fuzz(func(t *testing.T, reason, log string) {
		text := (&SnapshotError{Snapshot: Snapshot{Name: "x", State: Failed, Reason: reason}, Log: log}).Error()
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsGraphic(c) }) {
			t.Errorf("unsafe: %q", text)
		}
		if utf8.RuneCountInString(text) > 700 {
			t.Errorf("got %d characters", utf8.RuneCountInString(text))
		}
	})
}
