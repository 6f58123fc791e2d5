package suite

import (
	"fmt"
	"io"
	"strings"
)

// Progress shows how a run gets on: a line for each test, or on a terminal one line that changes, and a line for each test that did not pass.
// Its Test is for Options.Progress.
type Progress struct {
	Log      io.Writer // of our own text
	Terminal bool      // Log is one
	Width    int       // of the terminal, in characters; 0: 80
}

// Test tells of a test that has ended.
func (p *Progress) Test(r *Result, done, total int) {
	line := fmt.Sprintf("%-7s %s (%s)", r.Status, r.title(), seconds(r.Duration))
	switch {
	case r.Status == Skipped:
		line = fmt.Sprintf("%-7s %s: %s", r.Status, r.title(), visible(r.Reason))
	case r.Attempts > 1:
		line += fmt.Sprintf(", attempt %d", r.Attempts)
	}
	if !p.Terminal {
		fmt.Fprintln(p.Log, line)
		return
	}
	const clear = "\r\x1b[K"
	if r.Status != Passed {
		fmt.Fprintf(p.Log, "%s%s\n", clear, line)
	}
	width := p.Width
	if width <= 0 {
		width = 80
	}
	fmt.Fprint(p.Log, clear)
	if done < total {
		status := []rune(fmt.Sprintf("[%d/%d] %s", done, total, r.title()))
		fmt.Fprint(p.Log, string(status[:min(len(status), width-1)]))
	}
}

// WriteText writes the report for a person: what failed, with what was seen, and the counts. What the image said goes to theirs, which must
// see to it that nobody obeys it; our own lines go to ours.
func (r *Report) WriteText(ours, theirs io.Writer) error {
	for _, t := range r.failed() {
		where := ""
		if t.File != "" {
			where = fmt.Sprintf(" (%s:%d)", t.File, t.Line)
		}
		state := "FAILED"
		if t.Status == Flaky {
			state = fmt.Sprintf("FLAKY, passed at attempt %d; before", t.Attempts)
		}
		if _, err := fmt.Fprintf(ours, "\n%s: %s%s\n", state, visible(t.title()), where); err != nil {
			return err
		}
		for line := range strings.Lines(t.details()) {
			if _, err := fmt.Fprintf(theirs, "    %s\n", strings.TrimSuffix(line, "\n")); err != nil {
				return err
			}
		}
	}
	order := ""
	if r.Seed != 0 {
		order = fmt.Sprintf("order %d\n", r.Seed)
	}
	_, err := fmt.Fprintf(ours, "\n%s%s\n", order, r.Line())
	return err
}
