package suite

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	reader "github.com/joshdk/go-junit"
	"github.com/jstemmer/go-junit-report/v2/junit"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// maxJUnit is the maximum size of a JUnit file to read, in bytes.
const maxJUnit = 64 << 20

// WriteJUnit writes the report as JUnit XML in the format of Jenkins (junit-10.xsd), which other tools support too.
func (r *Report) WriteJUnit(w io.Writer) error {
	s := junit.Testsuite{Name: xmlText(r.Suite), Time: xmlSeconds(r.Duration), File: xmlText(r.File)}
	s.SetTimestamp(r.Started)
	s.AddProperty("image", r.Image)
	s.AddProperty("seed", fmt.Sprint(r.Seed))
	for _, t := range r.Tests {
		c := junit.Testcase{Name: xmlText(t.Name), Classname: xmlText(t.Class), Time: xmlSeconds(t.Duration)}
		if c.Classname == "" {
			c.Classname = s.Name
		}
		switch t.Status {
		case Skipped:
			c.Skipped = &junit.Result{Message: xmlText(t.Reason)}
		case Failed:
			c.Failure = &junit.Result{Type: "failure", Message: xmlText(t.summary()), Data: xmlText(t.details())}
		case Flaky:
			// JUnit has no status for flaky tests, so report the test as passed, with a note.
			note := fmt.Sprintf("flaky: passed on attempt %d; earlier failure:\n%s", t.Attempts, t.details())
			c.SystemOut = &junit.Output{Data: xmlText(note)}
		}
		s.AddTestcase(c)
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

// ReadJUnit reads a JUnit XML file that another program wrote.
func ReadJUnit(file string) (*Report, error) {
	fail := func(err error) (*Report, error) {
		return nil, fmt.Errorf("read the JUnit file %s: %w", file, err)
	}
	f, err := os.Open(file)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJUnit+1))
	switch {
	case err != nil:
		return fail(err)
	case len(data) > maxJUnit:
		return fail(fmt.Errorf("file is larger than %d MiB", maxJUnit>>20))
	case !bytes.Contains(data, []byte("<testsuite")):
		return fail(errNoTestsuite)
	}
	suites, err := reader.Ingest(data)
	if err != nil {
		return fail(err)
	}
	r := &Report{Suite: filepath.Base(file), File: file}
	for _, s := range suites {
		r.ingest(s)
	}
	r.count()
	return r, nil
}

var errNoTestsuite = errors.New("file has no testsuite element")

// ingest adds the tests of a suite and of its nested suites.
func (r *Report) ingest(s reader.Suite) {
	for _, t := range s.Tests {
		result := &Result{
			Name: safetext.Line(t.Name, 0), Class: safetext.Line(t.Classname, 0),
			Duration: t.Duration, Status: Passed, Attempts: 1,
		}
		if result.Class == "" {
			result.Class = safetext.Line(s.Name, 0)
		}
		switch t.Status {
		case reader.StatusSkipped:
			result.Status, result.Reason, result.Attempts = Skipped, safetext.Line(t.Message, 0), 0
		case reader.StatusFailed, reader.StatusError:
			result.Status = Failed
			f := Failure{Message: safetext.Line(t.Message, 0)}
			if t.Error != nil {
				f.Detail = excerpt(strings.TrimSpace(t.Error.Error()))
			}
			if f.Message == "" {
				first, _, _ := strings.Cut(f.Detail, "\n")
				f.Message = safetext.Line(first, 0)
			}
			result.Failures = []Failure{f}
		}
		r.Duration += t.Duration
		r.Tests = append(r.Tests, result)
	}
	for _, inner := range s.Suites {
		r.ingest(inner)
	}
}

// ReadJUnitFiles reads the JUnit files in dir that were modified at or after since, except those with the given names.
// It ignores other XML files. If there are no JUnit files, it returns nil.
func ReadJUnitFiles(dir string, since time.Time, except ...string) (*Report, error) {
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.xml"))
	if err != nil {
		return nil, err
	}
	var all *Report
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || slices.Contains(except, filepath.Base(file)) {
			continue
		}
		if err == nil && (!info.Mode().IsRegular() || info.ModTime().Before(since)) {
			continue
		}
		r, err := ReadJUnit(file)
		switch {
		case errors.Is(err, errNoTestsuite):
		case err != nil:
			return nil, err
		case all == nil:
			all = r
		default:
			all.Add(r)
		}
	}
	return all, nil
}

func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}
