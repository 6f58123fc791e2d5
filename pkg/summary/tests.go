package summary

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// foldedTests is the number of tests from which their table is folded, because the failures are above it.
const foldedTests = 10

// failedTests returns the tests of a run in which some failed or are missing.
func failedTests(r *runrecord.Record) string {
	if hasProblems(r.Tests) {
		return tests(r)
	}
	return ""
}

func hasProblems(t *runrecord.Tests) bool { return t != nil && (t.Failed > 0 || len(t.Incomplete) > 0) }

// passedTests returns the tests of another run.
func passedTests(r *runrecord.Record) string {
	if r.Tests == nil || hasProblems(r.Tests) {
		return ""
	}
	return tests(r)
}

// tests returns the failures, and a table of all tests: failed ones first.
func tests(r *runrecord.Record) string {
	t := r.Tests
	const counts = "| total | passed | failed | flaky | skipped | time |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n"
	numbers := fmt.Sprintf("%s| %s | %s | %s | %s | %s | %s |", counts,
		digits(t.Total), digits(t.Passed), digits(t.Failed), digits(t.Flaky), digits(t.Skipped), humanize.Seconds(t.Seconds))
	incomplete := messages(strings.Join(t.Incomplete, "\n"))
	if incomplete != "" {
		incomplete = join("❌ Results may be missing:", incomplete)
	}
	return join("#### "+cmp.Or(code(t.Suite), "Tests"), numbers, incomplete, testFailures(r), testTable(r))
}

// testFailures returns each failed or flaky test with its failed checks.
func testFailures(r *runrecord.Record) string {
	var text strings.Builder
	failed := slices.DeleteFunc(sortedTests(r.Tests), func(t runrecord.Test) bool { return len(t.Failures) == 0 })
	for i, t := range failed {
		part := "\n" + testFailure(r, t)
		if text.Len()+len(part) > maxFailures {
			fmt.Fprintf(&text, "\n… and %s.\n", count(len(failed)-i, "more failed test"))
			break
		}
		text.WriteString(part)
	}
	return strings.TrimPrefix(text.String(), "\n")
}

// Limits of the failures of one test.
const (
	maxChecks = 10
	maxDetail = 8 << 10 // bytes
)

func testFailure(r *runrecord.Record, t runrecord.Test) string {
	flaky := ""
	if t.Status == "flaky" {
		flaky = fmt.Sprintf("passed on attempt %d", t.Attempts)
	}
	parts := []string{"##### " + line(mark(t.Status)+" "+code(testName(t)), place(r, t.File, t.Line, 0), flaky)}
	for _, f := range t.Failures[:min(len(t.Failures), maxChecks)] {
		where := ""
		if f.Line > 0 && f.Line != t.Line {
			where = place(r, t.File, f.Line, 0)
		}
		language := "text"
		if strings.Contains("\n"+f.Detail, "\n--- expected\n+++ actual\n") {
			language = "diff"
		}
		if !strings.Contains(f.Message, "\n") {
			parts = append(parts, line(prose(f.Message), where), block(language, f.Detail, maxDetail))
		} else {
			parts = append(parts, where, block(language, f.Message+"\n"+f.Detail, maxDetail))
		}
	}
	if more := len(t.Failures) - maxChecks; more > 0 {
		parts = append(parts, fmt.Sprintf("… and %s.", count(more, "more failed check")))
	}
	return join(parts...)
}

// testTable returns all tests, failed ones first.
func testTable(r *runrecord.Record) string {
	all := sortedTests(r.Tests)
	row := func(i int) []string {
		t, note := all[i], code(all[i].Reason)
		if t.Attempts > 1 {
			note = count(t.Attempts, "attempt")
		}
		return []string{mark(t.Status), code(testName(t)), humanize.Seconds(t.Seconds), note}
	}
	rows := table("| | test | time | |\n| --- | --- | ---: | --- |\n", len(all), row, maxTests, "test")
	if len(all) <= foldedTests && r.Tests.Failed+r.Tests.Flaky == 0 {
		return rows
	}
	return details("All "+count(len(all), "test"), rows)
}

// sortedTests returns a copy of the tests: failed ones, flaky ones, passed ones, skipped ones.
func sortedTests(t *runrecord.Tests) []runrecord.Test {
	order := []string{"failed", "flaky", "passed", "skipped"}
	return slices.SortedStableFunc(slices.Values(t.Tests), func(a, b runrecord.Test) int {
		return cmp.Compare(slices.Index(order, a.Status), slices.Index(order, b.Status))
	})
}

// testName returns the test's name after its class, if it has one.
func testName(t runrecord.Test) string {
	if t.Class == "" {
		return t.Name
	}
	return t.Class + ": " + t.Name
}

func mark(status string) string {
	switch status {
	case "passed":
		return "✅"
	case "failed":
		return "❌"
	case "flaky":
		return "⚠️"
	case "skipped":
		return "⏭️"
	}
	return "❔"
}
