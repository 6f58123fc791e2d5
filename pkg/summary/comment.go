package summary

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Limits of a comment.
const (
	maxCommentFailures = 10        // failed tests
	maxCommentBlock    = 4 << 10   // bytes of an excerpt, an output or a table
	maxComment         = 60 * 1000 // bytes; GitHub refuses a comment of more than 65,536 characters
)

// Comment returns a comment on the run's pull request: the result, the difference in size, the failed tests, and how to
// try the snapshot. It has at most maxComment bytes, for which it omits parts.
func Comment(r *runrecord.Record) string {
	head, link := join("### "+title(r), headline(r)), runLink(r)
	comment := head
	for _, part := range []string{
		commentFailure(r), commentTests(r), commentSnapshots(r), commentSizes(r), cacheMiss(r),
	} {
		if longer := join(comment, part); len(longer)+len(link) < maxComment {
			comment = longer
		}
	}
	return join(comment, link)
}

// runLink returns a link to the run's page.
func runLink(r *runrecord.Record) string {
	if r.Run == nil || r.Run.ID == "" {
		return ""
	}
	page := []string{"actions", "runs", r.Run.ID}
	if r.Run.Attempt != "" {
		page = append(page, "attempts", r.Run.Attempt)
	}
	return link("Summary and log", repositoryURL(r, page...))
}

// commentFailure returns the failure of a run with the last lines of the output. Failed tests have their own part.
func commentFailure(r *runrecord.Record) string {
	e := r.Error
	if e == nil || r.Tests != nil && r.Tests.Failed > 0 {
		return ""
	}
	message, _, _ := strings.Cut(strings.TrimSpace(e.Message), "\n")
	return join(messages(message), place(r, e.File, e.Line, e.EndLine), block("text", e.Excerpt, maxCommentBlock),
		block("text", lastLines(e.Output, 15), maxCommentBlock))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// commentSizes returns the difference in size and packages of each platform.
func commentSizes(r *runrecord.Record) string {
	if r.Changes == nil || r.Image == nil {
		return ""
	}
	changed := slices.DeleteFunc(slices.Clone(r.Image.Platforms), func(p runrecord.PlatformImage) bool {
		change, ok := changeOf(r, p.Platform)
		return !ok || change.Size == 0 && len(change.Packages) == 0
	})
	row := func(i int) []string {
		p := changed[i]
		change, _ := changeOf(r, p.Platform)
		return []string{
			code(
				p.Platform,
			), humanize.Size(p.Size - change.Size), humanize.Size(p.Size), humanize.SizeChange(change.Size), packageNumbers(change),
		}
	}
	const header = "| platform | before | now | difference | packages |\n| --- | ---: | ---: | ---: | --- |\n"
	return table(header, len(changed), row, maxCommentBlock, "platform")
}

// commentTests returns the number of tests, and the failed ones with the first message of each.
func commentTests(r *runrecord.Record) string {
	t := r.Tests
	if t == nil {
		return ""
	}
	var failed []string
	for _, test := range sortedTests(t) {
		if test.Status != "failed" {
			continue
		}
		if len(failed) == maxCommentFailures {
			failed = append(failed, fmt.Sprintf("- %s more", digits(t.Failed-maxCommentFailures)))
			break
		}
		message := ""
		if len(test.Failures) > 0 {
			message, _, _ = strings.Cut(strings.TrimSpace(test.Failures[0].Message), "\n")
		}
		failed = append(failed, "- "+line(mark(test.Status)+" "+code(testName(test)), place(r, test.File, test.Line, 0),
			code(message)))
	}
	counts := fmt.Sprintf("Tests: %s passed, %s failed, %s flaky, %s skipped",
		digits(t.Passed), digits(t.Failed), digits(t.Flaky), digits(t.Skipped))
	return join(counts, strings.Join(failed, "\n"))
}

// commentSnapshots returns how to start a sandbox of each snapshot.
func commentSnapshots(r *runrecord.Record) string {
	if len(r.Snapshots) == 0 || r.Error != nil {
		return ""
	}
	return join("Try it:", strings.TrimPrefix(nextCommands(r), "#### Next\n\n"))
}
