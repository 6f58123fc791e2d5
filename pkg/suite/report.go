package suite

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is how a test ended.
type Status string

// A flaky test failed first, and passed when it was tried again: it is not among the passed, and does not fail the run.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
	Flaky   Status = "flaky"
)

// Report is what came of a run. Total is the sum of the other counts.
type Report struct {
	Suite    string
	File     string // of the suite, as it was given
	Image    string // id
	Seed     uint64
	Started  time.Time
	Duration time.Duration

	Total, Passed, Failed, Skipped, Flaky int

	Tests []*Result // in the suite's order
}

// Result is what came of one test.
type Result struct {
	Name     string
	Class    string // of a test that [ReadJUnit] read; "" otherwise
	File     string // of the suite; "" when it came from elsewhere
	Line     int    // in File; 0 when that is not known
	Tags     []string
	Status   Status
	Attempts int    // 0 when it was not run
	Reason   string // why it was skipped
	Duration time.Duration
	Failures []Failure // of the last attempt that failed
	Log      string    // file with all that its container printed; "" when none was kept
}

// Annotation is a remark to be shown at a line of the suite.
type Annotation struct {
	File    string
	Line    int
	Title   string
	Message string // what the image said is quoted in it
	Warning bool   // of a flaky test; else of a failed one
}

// Annotations are one for each failure.
func (r *Report) Annotations() []Annotation {
	var list []Annotation
	for _, t := range r.Tests {
		if t.Status != Failed && t.Status != Flaky {
			continue
		}
		for _, f := range t.Failures {
			a := Annotation{File: t.File, Line: f.Line, Title: t.Name, Message: f.Message, Warning: t.Status == Flaky}
			if a.Line == 0 {
				a.Line = t.Line
			}
			if t.Status == Flaky {
				a.Message = fmt.Sprintf("flaky: it passed only at attempt %d; before: %s", t.Attempts, f.Message)
			}
			list = append(list, a)
		}
	}
	return list
}

// Line is the report in one line: "12 tests: 10 passed, 1 failed, 1 skipped (3.2s)".
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

// Add takes the results of another report, such as one that [ReadJUnit] read, into this one.
func (r *Report) Add(other *Report) {
	r.Tests = append(r.Tests, other.Tests...)
	r.count()
}

// Clean applies clean to each line that the report's author wrote, to take secrets out of a report that [ReadJUnit] read.
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
	r.Total = len(r.Tests)
	r.Passed, r.Failed, r.Skipped, r.Flaky = count(Passed), count(Failed), count(Skipped), count(Flaky)
}

// failed are the tests to look at, the flaky ones last.
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
