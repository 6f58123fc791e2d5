package suite

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"regexp"
	"strings"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// Limits of a job summary. GitHub discards one of more than 1 MiB.
const (
	maxSummaryFailures = 50
	maxSummaryRows     = 500
	maxSummaryBytes    = 768 << 10
)

// WriteMarkdown writes the report for a job summary: the failures with a diff of expected and actual text, and a
// collapsed table of all tests.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b bytes.Buffer
	mark := "✅"
	switch {
	case r.Failed > 0, len(r.Incomplete) > 0:
		mark = "❌"
	case r.Flaky > 0:
		mark = "⚠️"
	}
	fmt.Fprintf(&b, "### %s %s\n\n", mark, escape(r.Suite))
	b.WriteString("| total | passed | failed | flaky | skipped | time |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n")
	fmt.Fprintf(&b, "| %d | %d | %d | %d | %d | %s |\n",
		r.Total, r.Passed, r.Failed, r.Flaky, r.Skipped, seconds(r.Duration))
	for _, reason := range r.Incomplete {
		fmt.Fprintf(&b, "\n❌ Results may be missing: %s\n", escape(reason))
	}
	failed := r.failed()
	for i, t := range failed {
		if i == maxSummaryFailures || b.Len() > maxSummaryBytes/2 {
			fmt.Fprintf(&b, "\n… and %d more.\n", len(failed)-i)
			break
		}
		fmt.Fprintf(&b, "\n#### %s %s\n\n", marks[t.Status], escape(t.title()))
		if t.Status == Flaky {
			fmt.Fprintf(&b, "Flaky: passed on attempt %d. Earlier failure:\n\n", t.Attempts)
		}
		text := truncate(cleanLines(t.details(), safetext.Visible), 2*maxExcerpt)
		kind := "text"
		if strings.Contains(text, "\n--- expected\n+++ actual\n") {
			kind = "diff"
		}
		fence := fenceFor(text)
		fmt.Fprintf(&b, "%s%s\n%s\n%s\n", fence, kind, strings.TrimSuffix(text, "\n"), fence)
	}
	fmt.Fprintf(&b, "\n<details><summary>All %d tests</summary>\n\n", r.Total)
	b.WriteString("| | test | time | |\n| --- | --- | ---: | --- |\n")
	for i, t := range r.Tests {
		if i == maxSummaryRows || b.Len() > maxSummaryBytes {
			fmt.Fprintf(&b, "| | … and %d more | | |\n", len(r.Tests)-i)
			break
		}
		note := escape(t.Reason)
		if t.Attempts > 1 {
			note = fmt.Sprintf("%d attempts", t.Attempts)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", marks[t.Status], escape(t.title()), seconds(t.Duration), note)
	}
	b.WriteString("\n</details>\n")
	if r.Seed != 0 {
		fmt.Fprintf(&b, "\nImage `%s`, seed `%d`.\n", r.Image, r.Seed)
	}
	_, err := w.Write(b.Bytes())
	return err
}

var marks = map[Status]string{Passed: "✅", Failed: "❌", Skipped: "⏭️", Flaky: "⚠️"}

// title returns the test's name in one line, after its class if it has one.
func (t *Result) title() string {
	if t.Class == "" {
		return safetext.Line(t.Name, 0)
	}
	return safetext.Line(t.Class+": "+t.Name, 0)
}

// markdownSpecial matches characters with a meaning in Markdown.
var markdownSpecial = regexp.MustCompile("[\\\\`*_{}\\[\\]()#+!|~@:-]")

// escape returns Markdown that renders s literally, in one line.
func escape(s string) string {
	return html.EscapeString(markdownSpecial.ReplaceAllString(safetext.Line(s, 300), `\$0`))
}

// fenceFor returns a code fence that the text does not contain.
func fenceFor(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence
}
