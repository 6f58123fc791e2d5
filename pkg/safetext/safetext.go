// Package safetext makes text from outside (servers, builds, containers) safe to show in a message or a log.
package safetext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns s as one line of at most limit characters (0: no limit). It folds white space, line breaks included,
// into single spaces, escapes characters that are not printable (control, bidirectional, zero width) as \u202e, and
// replaces invalid UTF-8 with U+FFFD. A longer text is cut and ends in "…". Line(Line(s)) equals Line(s).
func Line(s string, limit int) string {
	var line strings.Builder
	for word := range strings.FieldsSeq(s) {
		if line.Len() > 0 {
			line.WriteByte(' ')
		}
		for _, c := range word {
			switch {
			case unicode.IsGraphic(c):
				line.WriteRune(c)
			case c <= 0xffff:
				fmt.Fprintf(&line, `\u%04x`, c)
			default:
				fmt.Fprintf(&line, `\U%08x`, c)
			}
		}
	}
	text := line.String()
	if limit <= 0 || utf8.RuneCountInString(text) <= limit {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:limit-1]), " ") + "…"
}

// Visible returns a log line with its control characters replaced by their pictures (U+2400 and on), so that a terminal
// or a log viewer shows them instead of acting on them. Tabs stay.
func Visible(line string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\t':
			return c
		case c < ' ':
			return 0x2400 + c
		case c == 0x7f:
			return 0x2421
		case c >= 0x80 && c < 0xa0:
			return utf8.RuneError
		}
		return c
	}, line)
}
