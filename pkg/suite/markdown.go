package suite

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"regexp"
	"strings"
)

// Bounds of a summary: GitHub shows one of 1 MiB.
const (
	shownFailures = 50
	shownRows     = 500
)

// WriteMarkdown writes the report for a job's summary: what failed is open, with the difference of expected and seen; the rest is folded.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b bytes.Buffer
	mark := "✅"
	switch {
	case r.Failed > 0:
		mark = "❌"
	case r.Flaky > 0:
		mark = "⚠️"
	}
	fmt.Fprintf(&b, "### %s %s\n\n", mark, escape(r.Suite))
	b.WriteString("| total | passed | failed | flaky | skipped | time |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n")
	fmt.Fprintf(&b, "| %d | %d | %d | %d | %d | %s |\n", r.Total, r.Passed, r.Failed, r.Flaky, r.Skipped, seconds(r.Duration))
	failed := r.failed()
	for i, t := range failed {
		if i == shownFailures {
			fmt.Fprintf(&b, "\n… and %d more.\n", len(failed)-i)
			break
		}
		fmt.Fprintf(&b, "\n#### %s %s\n\n", marks[t.Status], escape(t.title()))
		if t.Status == Flaky {
			fmt.Fprintf(&b, "Flaky: it passed only at attempt %d. Before:\n\n", t.Attempts)
		}
		text := shorten(visible(t.details()), 2*shownText)
		kind := "text"
		if strings.Contains(text, "\n--- expected\n+++ seen\n") {
			kind = "diff"
		}
		fence := fenceFor(text)
		fmt.Fprintf(&b, "%s%s\n%s\n%s\n", fence, kind, strings.TrimSuffix(text, "\n"), fence)
	}
	fmt.Fprintf(&b, "\n<details><summary>All %d tests</summary>\n\n| | test | time | |\n| --- | --- | ---: | --- |\n", r.Total)
	for i, t := range r.Tests {
		if i == shownRows {
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
		fmt.Fprintf(&b, "\nImage `%s`, order `%d`.\n", r.Image, r.Seed)
	}
	_, err := w.Write(b.Bytes())
	return err
}

var marks = map[Status]string{Passed: "✅", Failed: "❌", Skipped: "⏭️", Flaky: "⚠️"}

// title is the test's name, with its class where it has one.
func (t *Result) title() string {
	if t.Class == "" {
		return t.Name
	}
	return t.Class + ": " + t.Name
}

var markdownSigns = regexp.MustCompile("[\\\\`*_{}\\[\\]()#+!|~@:-]")

// escape is text that is shown as it is, in one line.
func escape(s string) string {
	s = visible(strings.Join(strings.Fields(shorten(s, 300)), " "))
	return html.EscapeString(markdownSigns.ReplaceAllString(s, `\$0`))
}

// visible is text without what a terminal or a log viewer would obey.
func visible(s string) string { return xmlText(s) }

// fenceFor is a fence that the text can not close.
func fenceFor(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence
}
