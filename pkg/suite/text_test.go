package suite

import (
	"regexp"
	"strings"
	"testing"
)

func TestMismatch(t *testing.T) {
	const newline = `: $ does not match before a final newline, write `
	const lines = `: ^ and $ match at each line only with (?m) at the start`
	for _, test := range []struct{ pattern, text, want string }{
		{"a", "hello", `/f: "hello" does not match "a"`},
		{"a", "", `/f does not match "a"`},
		{"a", "\n", `/f does not match "a"`},
		{"a", "b\nc\n", `/f does not match "a"`},
		{"^a", strings.Repeat("b", maxQuoted+1), `/f does not match "^a"`},
		{"^hello$", "hello\n", `/f: "hello\n" does not match "^hello$"` + newline + `\n$`},
		{"^hello$", "hello\r\n", `/f: "hello\r\n" does not match "^hello$"` + newline + `\r\n$`},
		{"b$", "a\nb\n", `/f does not match "b$"` + newline + `\n$`},
		{"^b$", "a\nb\n", `/f does not match "^b$"` + lines},
		{"^b", "a\nb\nc", `/f does not match "^b"` + lines},
		{"^b$", strings.Repeat("x\n", maxHinted) + "b\n", `/f does not match "^b$"`},
	} {
		pattern := Pattern{Regexp: regexp.MustCompile(test.pattern)}
		if got := pattern.mismatch("/f", test.text); got != test.want {
			t.Errorf("%q: got  %s, want %s", test.text, got, test.want)
		}
	}
}
