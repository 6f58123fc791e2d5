package suite

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/pmezard/go-difflib/difflib"

	"github.com/org/sandbox-actions/pkg/safefile"
)

// Maximum lengths of quotes in a failure, in bytes.
const (
	maxExcerpt = 4 << 10
	maxQuoted  = 200
)

// Failure is one failed check of a test.
type Failure struct {
	Line    int    // in the suite's file
	Message string // one line; may quote output of the image
	Detail  string // output of the image, or its diff to the expected text; untrusted
	skip    bool   // the target does not support the test; Message is the reason
	outage  bool   // the target failed, so that another run may pass
}

// check compares text with c. name describes the text in messages; dir is the base directory of golden files.
func (c *TextCheck) check(name, text, dir string) (failures []Failure) {
	fail := func(line int, detail, format string, args ...any) {
		failures = append(failures, Failure{Line: line, Message: fmt.Sprintf(format, args...), Detail: detail})
	}
	for _, p := range c.Include {
		if !p.MatchString(text) {
			fail(p.Line, excerpt(text), "%s", p.mismatch(name, text))
		}
	}
	for _, p := range c.Exclude {
		if at := p.FindStringIndex(text); at != nil {
			pattern, match := strconv.Quote(p.String()), quote(text[at[0]:at[1]])
			fail(p.Line, excerpt(text), "%s must not match %s, but contains %s", name, pattern, match)
		}
	}
	if c.Equals != nil && text != *c.Equals {
		fail(c.Line, diff(*c.Equals, text), "%s differs from equals", name)
	}
	if c.Golden != "" {
		const maxGolden = 64 << 20 // bytes
		want, err := safefile.Read(filepath.Join(dir, c.Golden), maxGolden)
		if err != nil {
			fail(c.Line, "", "%s cannot be compared: %v", name, err)
		} else if text != string(want) {
			fail(c.Line, diff(string(want), text), "%s differs from %s", name, c.Golden)
		}
	}
	return failures
}

// maxHinted is the maximum length of a text for which mismatch looks for the mistake in a pattern, in bytes.
const maxHinted = 1 << 20

// mismatch describes a text that the pattern does not match. It quotes a text of one short line, and explains the two
// common mistakes: $ before a final newline, and ^ or $ at a line of a longer text.
func (p *Pattern) mismatch(name, text string) string {
	if line := strings.TrimRight(text, "\r\n"); line != "" && len(line) <= maxQuoted && !strings.Contains(line, "\n") {
		name += ": " + strconv.Quote(text)
	}
	message := fmt.Sprintf("%s does not match %s", name, strconv.Quote(p.String()))
	if len(text) > maxHinted {
		return message
	}
	for _, end := range []string{"\n", "\r\n"} {
		if rest, ok := strings.CutSuffix(text, end); ok && p.MatchString(rest) {
			end = strings.Trim(strconv.Quote(end), `"`)
			return fmt.Sprintf("%s: $ does not match before a final newline, write %s$", message, end)
		}
	}
	if lines, err := regexp.Compile("(?m)" + p.String()); err == nil && lines.MatchString(text) {
		return message + ": ^ and $ match at each line only with (?m) at the start"
	}
	return message
}

// compare describes how a value differs from v. It returns "" if it does not.
func (v *ValueCheck) compare(have string, present bool) string {
	switch {
	case v.absent && present:
		return fmt.Sprintf("is %s, but must not be set", quote(have))
	case v.absent:
		return ""
	case !present && v.matches != nil:
		return fmt.Sprintf("is not set, want a match of %s", strconv.Quote(v.matches.String()))
	case !present:
		return fmt.Sprintf("is not set, want %s", strconv.Quote(v.equals))
	case v.matches != nil && !v.matches.MatchString(have):
		return fmt.Sprintf("is %s, want a match of %s", quote(have), strconv.Quote(v.matches.String()))
	case v.matches == nil && have != v.equals:
		return fmt.Sprintf("is %s, want %s", quote(have), strconv.Quote(v.equals))
	}
	return ""
}

func quote(s string) string { return strconv.Quote(truncate(s, maxQuoted)) }

// excerpt returns a short text unchanged, and the start and the end of a long one.
func excerpt[T string | []byte](s T) string {
	if len(s) == 0 {
		return "(empty)"
	}
	if len(s) <= maxExcerpt {
		return string(s)
	}
	half := maxExcerpt / 2
	start, end := strings.ToValidUTF8(string(s[:half]), ""), strings.ToValidUTF8(string(s[len(s)-half:]), "")
	return fmt.Sprintf("%s\n… %d bytes omitted …\n%s", start, len(s)-2*half, end)
}

// diff returns the unified diff of two texts.
func diff(want, have string) string {
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: diffLines(want), B: diffLines(have), FromFile: "expected", ToFile: "actual", Context: 3,
	})
	if err != nil || text == "" {
		return excerpt(have)
	}
	return excerpt(text)
}

// diffLines splits a text into lines for diff. It limits their number and length to bound the time of the diff.
func diffLines(s string) []string {
	const maxLines, maxLine = 1000, 1000
	lines := strings.SplitAfterN(s, "\n", maxLines+1)
	if len(lines) > maxLines {
		lines = append(lines[:maxLines], "…\n")
	}
	for i, line := range lines {
		lines[i] = truncate(strings.TrimSuffix(line, "\n"), maxLine) + "\n"
	}
	last := len(lines) - 1
	if lines[last] == "\n" {
		return lines[:last]
	}
	if !strings.HasSuffix(s, "\n") {
		lines[last] = strings.TrimSuffix(lines[last], "\n") + " (no newline at the end)\n"
	}
	return lines
}
