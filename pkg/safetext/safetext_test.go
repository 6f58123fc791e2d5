package safetext

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for _, test := range []struct {
		name, text string
		limit      int
		want       string
	}{
		{"plain", "access denied", 0, "access denied"},
		{"empty", "", 10, ""},
		{"white space", "  a \t\r\n b\u2028c\u00a0d\x0b ", 0, "a b c d"},
		{"escape sequence", "\x1b[31mred", 0, `\u001b[31mred`},
		{"bidirectional", "a\u202eb\u2066c", 0, `a\u202eb\u2066c`},
		{"zero width", "a\u200bb\ufeffc", 0, `a\u200bb\ufeffc`},
		{"tag character", "a\U000e0041", 0, `a\U000e0041`},
		{"C1 control", "a\u009bb", 0, `a\u009bb`},
		{"invalid UTF-8", "a\xffb", 0, "a\ufffdb"},
		{"at the limit", "äbc", 3, "äbc"},
		{"over the limit", "äbcd", 3, "äb…"},
		{"cut after a space", "ab cd", 4, "ab…"},
		{"limit of one", "ab", 1, "…"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Line(test.text, test.limit); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestVisible(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"plain", "übung 1", "übung 1"},
		{"tab", "a\tb", "a\tb"},
		{"escape sequence", "\x1b[2J", "␛[2J"},
		{"line feed", "a\nb", "a␊b"},
		{"delete", "a\x7f", "a␡"},
		{"C1 control", "a\u009bb", "a\ufffdb"},
		{"no-break space", "a\u00a0b", "a\u00a0b"},
		{"invalid UTF-8", "a\xff", "a\ufffd"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Visible(test.text); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\x1b\u202e \xff\u2028b", 5)
	f.Add(strings.Repeat("ä ", 100), 20)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		got := Line(text, limit)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(c rune) bool { return !unicode.IsGraphic(c) }) {
			t.Errorf("unsafe: %q", got)
		}
		if limit > 0 && utf8.RuneCountInString(got) > limit {
			t.Errorf("got %d characters, want at most %d", utf8.RuneCountInString(got), limit)
		}
		if again := Line(got, limit); again != got {
			t.Errorf("not idempotent: %q, then %q", got, again)
		}
		if strings.ContainsFunc(Visible(text), func(c rune) bool { return unicode.IsControl(c) && c != '\t' }) {
			t.Errorf("control character in %q", Visible(text))
		}
	})
}

func TestURLSecrets(t *testing.T) {
	for text, want := range map[string][]string{
		"https://user:password@host/path":              {"password"},
		"https://ghp_token@github.com/a/b.git#main":    {"ghp_token"},
		"app=https://x-access-token:a%40b@host":        {"a%40b", "a@b"},
		"HTTP://proxy-user:one@host, http://two@other": {"one", "two"},
		"ssh://git@github.com/a/b.git":                 nil,
		"git@github.com:a/b.git":                       nil,
		"https://host/a:b@c":                           nil,
		"https://host?mail=a:b@c":                      nil,
		"docker-image://ghcr.io/a/b@sha256:0":          nil,
	} {
		if got := URLSecrets(text); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
