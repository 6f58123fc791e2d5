package suite

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is the outcome of a test.
type Status string

// Outcomes of a test. A flaky test failed at first and passed on a retry: it does not count as passed, and does not
// fail the run.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
	Flaky   Status = "flaky"
)

// Report contains the results of a run. Total is the sum of the other counts.
type Report struct {
	Suite    string // name of the suite
	File     string // path of the suite
	Image    string // ID of the tested image
	Seed     uint64 // seed of the order
	Started  time.Time
	Duration time.Duration

	Total, Passed, Failed, Skipped, Flaky int

	Outages int // failed tests that may pass in another run, because their sandbox failed

	Tests      []*Result // in the order of the suite
	Incomplete []string  // why results may be missing; one line each, without secrets
}

// Result is the result of one test.
type Result struct {
	Name     string
	Class    string // class name of a test that [ReadJUnitFiles] read; otherwise ""
	File     string // path of the suite; "" for a test of another program
	Line     int    // in File; 0 if unknown
	Tags     []string
	Status   Status
	Attempts int    // 0 if the test did not run
	Reason   string // why the test was skipped
	NotRun   bool   // whether the run ended before the test did; Status is then Skipped
	Duration time.Duration
	Failures []Failure // of the last failed attempt
	Log      string    // path of the file with the container's output; may be ""
}

// skip marks a test as skipped.
func (r *Result) skip(reason string) {
	r.Status, r.Reason, r.Attempts, r.Failures = Skipped, reason, 0, nil
}

// Annotation is a message about a line of the suite.
type Annotation struct {
	File    string
	Line    int
	Title   string
	Message string // may quote output of the image
	Warning bool   // true for a flaky test, false for a failed one
}

// Annotations returns one annotation for each failure.
func (r *Report) Annotations() []Annotation {
	var list []Annotation
	for _, t := range r.Tests {
		if t.Status != Failed && t.Status != Flaky {
			continue
		}
		for _, f := range t.Failures {
			flaky := t.Status == Flaky
			a := Annotation{File: t.File, Line: f.Line, Title: t.Name, Message: f.Message, Warning: flaky}
			if a.Line == 0 {
				a.Line = t.Line
			}
			if t.File == "" { // nothing else identifies the test in plain text
				a.Title = t.title()
				a.Message = a.Title + ": " + a.Message
			}
			if flaky {
				a.Message = fmt.Sprintf("flaky: passed on attempt %d; earlier failure: %s", t.Attempts, a.Message)
			}
			list = append(list, a)
		}
	}
	return list
}

// Line summarizes the report in one line: "12 tests: 10 passed, 1 failed, 1 skipped (3.2s)".
func (r *Report) Line() string {
	parts := []string{fmt.Sprintf("%d passed", r.Passed)}
	for _, more := range []struct {
		n    int
		name string
	}{{r.Failed, "failed"}, {r.Flaky, "flaky"}, {r.Skipped, "skipped"}} {
		if more.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", more.n, more.name))
		}
	}
	return fmt.Sprintf("%d tests: %s (%s)", r.Total, strings.Join(parts, ", "), seconds(r.Duration))
}

// Add appends the results of another report, such as one from [ReadJUnitFiles].
func (r *Report) Add(other *Report) {
	r.Tests = append(r.Tests, other.Tests...)
	r.count()
}

// Clean applies clean to each line of text in the report. It removes secrets from a report that [ReadJUnitFiles] read.
func (r *Report) Clean(clean func(line string) string) {
	for _, t := range r.Tests {
		t.Name, t.Class, t.Reason = clean(t.Name), clean(t.Class), clean(t.Reason)
		for i := range t.Failures {
			f := &t.Failures[i]
			f.Message, f.Detail = cleanLines(f.Message, clean), cleanLines(f.Detail, clean)
		}
	}
}

func (r *Report) count() {
	count := func(s Status) (n int) {
		for _, t := range r.Tests {
			if t.Status == s {
				n++
			}
		}
		return n
	}
	isOutage := func(f Failure) bool { return f.outage }
	r.Outages = 0
	for _, t := range r.Tests {
		if t.Status == Failed && slices.ContainsFunc(t.Failures, isOutage) {
			r.Outages++
		}
	}
	r.Total = len(r.Tests)
	r.Passed, r.Failed, r.Skipped, r.Flaky = count(Passed), count(Failed), count(Skipped), count(Flaky)
}

// failed returns the failed tests, followed by the flaky ones.
func (r *Report) failed() []*Result {
	var list []*Result
	for _, status := range []Status{Failed, Flaky} {
		for _, t := range r.Tests {
			if t.Status == status {
				list = append(list, t)
			}
		}
	}
	return slices.Clip(list)
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
