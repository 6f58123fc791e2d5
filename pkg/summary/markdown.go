package summary

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// Limits of code spans in characters.
const (
	maxCode  = 300
	maxProse = 2000
)

// code returns text as a code span in one line, or "" without text. In a code span, GitHub interprets neither Markdown
// nor HTML, URLs, mentions and references to issues.
func code(text string) string { return codeUpTo(text, maxCode) }

// prose returns a message as a code span, which wraps like other text.
func prose(text string) string { return codeUpTo(text, maxProse) }

func codeUpTo(text string, limit int) string {
	text = safetext.Line(text, limit)
	if text == "" {
		return ""
	}
	fence := fenceFor(text, "`")
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " "
	}
	return fence + text + fence
}

// codes returns each text as a code span.
func codes(texts []string) string {
	var spans []string
	for _, text := range texts[:min(len(texts), maxCodes)] {
		if span := code(text); span != "" {
			spans = append(spans, span)
		}
	}
	if more := len(texts) - maxCodes; more > 0 {
		spans = append(spans, fmt.Sprintf("%d more", more))
	}
	return strings.Join(spans, ", ")
}

// maxCodes is the maximum number of code spans in a list.
const maxCodes = 20

// fenceFor returns a fence of at least the length of shortest, which is longer than every fence in text.
func fenceFor(text, shortest string) string {
	for strings.Contains(text, shortest) {
		shortest += "`"
	}
	return shortest
}

// block returns text as a code block of a language, or "" without text. It shows control characters as symbols, and at
// most the last limit bytes.
func block(language, text string, limit int) string {
	text = strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), " \t\n")
	if text == "" {
		return ""
	}
	omitted := 0
	var lines []string
	for line := range strings.Lines(text) {
		line = safetext.Visible(strings.ToValidUTF8(strings.TrimSuffix(line, "\n"), "\ufffd"))
		lines = append(lines, cut(line, maxLine))
	}
	size := 0
	for i := len(lines) - 1; i >= 0; i-- {
		if size += len(lines[i]) + 1; size > limit {
			omitted = i + 1
			break
		}
	}
	text = strings.Join(lines[omitted:], "\n")
	fence := fenceFor(text, "```")
	block := fmt.Sprintf("%s%s\n%s\n%s\n", fence, language, text, fence)
	if omitted > 0 {
		block = fmt.Sprintf("The first %s are omitted; see the log.\n\n%s", count(omitted, "line"), block)
	}
	return block
}

// maxLine is the maximum number of bytes of a line in a code block.
const maxLine = 2000

// cut shortens text to at most limit bytes.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit - len("…")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// link returns a link with Markdown as its text, or only the text if target is not an HTTP or HTTPS URL, or is too long
// for a page.
func link(text, target string) string {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(target) > maxURL {
		return text
	}
	escape := strings.NewReplacer(
		"(",
		"%28",
		")",
		"%29",
		"|",
		"%7C",
		"<",
		"%3C",
		">",
		"%3E",
		"`",
		"%60",
		"*",
		"%2A",
		"_",
		"%5F",
		`\`,
		"%5C",
		"[",
		"%5B",
		"]",
		"%5D",
		"~",
		"%7E",
	)
	return fmt.Sprintf("[%s](%s)", text, escape.Replace(u.String()))
}

// maxURL is the maximum length of a URL in a link.
const maxURL = 2000

// details returns Markdown that is folded under a title without hostile text.
func details(title, markdown string) string {
	if markdown == "" {
		return ""
	}
	return fmt.Sprintf("<details><summary>%s</summary>\n\n%s\n</details>\n", title, strings.TrimRight(markdown, "\n")+"\n")
}

// table returns a Markdown table of n rows, or "" without rows. header is its first two lines. Rows that would make it
// longer than limit bytes are omitted, and counted in a line below it as "N more things".
func table(header string, n int, row func(i int) []string, limit int, thing string) string {
	if n == 0 {
		return ""
	}
	var t strings.Builder
	t.WriteString(header)
	for i := range n {
		line := tableRow(row(i))
		if t.Len()+len(line) > limit {
			fmt.Fprintf(&t, "\n… and %s.\n", count(n-i, "more "+thing))
			break
		}
		t.WriteString(line)
	}
	return t.String()
}

// tableRow returns a row of a table with cells of Markdown. It escapes pipes: in a table, `\|` is a literal pipe, also
// in a code span, see https://github.github.com/gfm/#example-200.
func tableRow(cells []string) string {
	line := "|"
	for _, cell := range cells {
		line += " " + strings.ReplaceAll(cell, "|", `\|`) + " |"
	}
	return line + "\n"
}

// facts returns a table of names and values, without those that have no value. The first one is the header, because
// GitHub shows an empty row for a table without one.
func facts(pairs ...[2]string) string {
	pairs = slices.DeleteFunc(pairs, func(pair [2]string) bool { return pair[1] == "" })
	if len(pairs) == 0 {
		return ""
	}
	header := tableRow(pairs[0][:]) + "| :--- | :--- |\n"
	row := func(i int) []string { return pairs[i+1][:] }
	return cmp.Or(table(header, len(pairs)-1, row, maxFacts, "row"), header)
}

// maxFacts is the maximum size of a table of names and values in bytes.
const maxFacts = 48 << 10

// join joins the parts that are not empty, with an empty line between them.
func join(parts ...string) string {
	var kept []string
	for _, part := range parts {
		if part != "" {
			kept = append(kept, strings.TrimRight(part, "\n")+"\n")
		}
	}
	return strings.Join(kept, "\n")
}

// line joins the parts that are not empty to one line.
func line(parts ...string) string {
	var kept []string
	for _, part := range parts {
		if part != "" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, " · ")
}

// count returns a number and a noun, in the plural unless the number is 1.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%s %ss", digits(n), noun)
}

// digits returns a number with thousands separators.
func digits(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// shellWord returns an argument of a shell command.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
