package suite

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// WriteJUnit writes the report as JUnit XML in the format of Jenkins (junit-10.xsd), which other tools support too.
func (r *Report) WriteJUnit(w io.Writer) error {
	s := junit.Testsuite{Name: xmlText(r.Suite), Time: xmlSeconds(r.Duration), File: xmlText(r.File)}
	s.SetTimestamp(r.Started)
	s.AddProperty("image", xmlText(r.Image))
	s.AddProperty("seed", fmt.Sprint(r.Seed))
	for _, t := range r.Tests {
		c := junit.Testcase{
			Name:      xmlText(safetext.Line(t.Name, 0)),
			Classname: xmlText(t.Class),
			Time:      xmlSeconds(t.Duration),
		}
		if c.Classname == "" {
			c.Classname = s.Name
		}
		switch t.Status {
		case Skipped:
			result := &junit.Result{Message: xmlText(t.Reason)}
			if t.NotRun {
				c.Error = result // unlike a skipped test, it must not look like a success
			} else {
				c.Skipped = result
			}
		case Failed:
			c.Failure = &junit.Result{Type: "failure", Message: xmlText(t.summary()), Data: xmlText(t.details())}
		case Flaky:
			// JUnit has no status for flaky tests, so report the test as passed, with a note.
			note := fmt.Sprintf("flaky: passed on attempt %d; earlier failure:\n%s", t.Attempts, t.details())
			c.SystemOut = &junit.Output{Data: xmlText(note)}
		}
		s.AddTestcase(c)
	}
	if len(r.Incomplete) > 0 {
		s.SystemErr = &junit.Output{Data: xmlText(strings.Join(r.Incomplete, "\n"))}
	}
	suites := junit.Testsuites{Name: s.Name, Time: s.Time}
	suites.AddSuite(s)
	suites.Skipped = 0 // the schema allows this attribute only in testsuite
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	return suites.WriteXML(w)
}

// summary returns the first failure and the number of others, in one line.
func (t *Result) summary() string {
	if len(t.Failures) == 0 {
		return ""
	}
	return t.Failures[0].Message + andMore(len(t.Failures)-1)
}

// details returns all failures with their details.
func (t *Result) details() string {
	var b strings.Builder
	for i, f := range t.Failures {
		if i > 0 {
			b.WriteString("\n")
		}
		if t.File != "" && f.Line > 0 {
			fmt.Fprintf(&b, "%s:%d: ", t.File, f.Line)
		}
		b.WriteString(f.Message + "\n")
		if f.Detail != "" {
			b.WriteString(strings.TrimSuffix(f.Detail, "\n") + "\n")
		}
	}
	if t.Log != "" {
		fmt.Fprintf(&b, "Full container log: %s\n", t.Log)
	}
	return b.String()
}

func xmlSeconds(d time.Duration) string { return fmt.Sprintf("%.3f", max(d, 0).Seconds()) }

// xmlText replaces characters that are invalid in XML (https://www.w3.org/TR/xml/#charsets). The library writes CDATA,
// in which they cannot be escaped.
func xmlText(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\t', c == '\n', c >= 0x20 && c <= 0x7e, c >= 0xa0 && c <= 0xd7ff, c >= 0xe000 && c <= 0xfffd,
			c >= 0x10000 && c <= 0x10ffff:
			return c
		case c < 0x20:
			return 0x2400 + c // the symbol for the control character
		}
		return 0xfffd
	}, s)
}
