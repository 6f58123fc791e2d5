// Package safetext makes untrusted text from servers, builds and containers safe to print in messages and logs.
package safetext

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns s as one line of at most limit characters; 0 means no limit. It replaces runs of white space and line
// breaks with single spaces, non-printable characters (control, bidirectional, zero width) with escapes such as \u202e,
// and invalid UTF-8 with U+FFFD. It truncates longer text and appends "…". Line is idempotent.
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

// Visible returns a log line with control characters replaced by their Unicode symbols (from U+2400), so that a
// terminal or log viewer shows them instead of interpreting them. It keeps tabs.
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

var userinfo = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*)://([^\s/?#@:]+)(?::([^\s/?#@]*))?@`)

// URLSecrets returns the passwords of all URLs in text, and the user names of HTTP URLs without a password, which are
// tokens: in the form in which they are written, and decoded.
func URLSecrets(text string) (secrets []string) {
	for _, match := range userinfo.FindAllStringSubmatch(text, -1) {
		secret := match[3]
		if secret == "" && strings.HasPrefix(strings.ToLower(match[1]), "http") {
			secret = match[2]
		}
		if secret == "" {
			continue
		}
		secrets = append(secrets, secret)
		if decoded, err := url.PathUnescape(secret); err == nil && decoded != secret {
			secrets = append(secrets, decoded)
		}
	}
	return secrets
}
