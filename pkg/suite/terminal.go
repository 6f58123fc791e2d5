package suite

import (
	"fmt"
	"io"
	"strings"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// Progress displays the progress of a run: a line for each test or, on a terminal, a status line and a line for each
// test that did not pass. Pass its Test method as Options.Progress.
type Progress struct {
	Log      io.Writer
	Terminal bool // whether Log is a terminal
	Width    int  // of the terminal, in characters; 0 for 80
}

// Test displays a finished test.
func (p *Progress) Test(r *Result, done, total int) {
	line := fmt.Sprintf("%-7s %s (%s)", r.Status, r.title(), seconds(r.Duration))
	switch {
	case r.Status == Skipped:
		line = fmt.Sprintf("%-7s %s: %s", r.Status, r.title(), safetext.Line(r.Reason, 0))
	case r.Attempts > 1:
		line += fmt.Sprintf(", attempt %d", r.Attempts)
	}
	if !p.Terminal {
		fmt.Fprintln(p.Log, line)
		return
	}
	const clearLine = "\r\x1b[K"
	if r.Status != Passed {
		fmt.Fprintf(p.Log, "%s%s\n", clearLine, line)
	}
	width := p.Width
	if width <= 0 {
		width = 80
	}
	fmt.Fprint(p.Log, clearLine)
	if done < total {
		status := []rune(fmt.Sprintf("[%d/%d] %s", done, total, r.title()))
		fmt.Fprint(p.Log, string(status[:min(len(status), width-1)]))
	}
}

// WriteText writes the report as plain text: the failures with their details, and the counts. Output of the image goes
// to untrusted, which must prevent it from acting as workflow commands; everything else goes to log.
func (r *Report) WriteText(log, untrusted io.Writer) error {
	for _, t := range r.failed() {
		where := ""
		if t.File != "" {
			where = fmt.Sprintf(" (%s:%d)", t.File, t.Line)
		}
		state := "FAILED"
		if t.Status == Flaky {
			state = fmt.Sprintf("FLAKY (passed on attempt %d)", t.Attempts)
		}
		if _, err := fmt.Fprintf(log, "\n%s: %s%s\n", state, t.title(), where); err != nil {
			return err
		}
		for line := range strings.Lines(t.details()) {
			if _, err := fmt.Fprintf(untrusted, "    %s\n", strings.TrimSuffix(line, "\n")); err != nil {
				return err
			}
		}
	}
	seed := ""
	if r.Seed != 0 {
		seed = fmt.Sprintf("seed %d\n", r.Seed)
	}
	_, err := fmt.Fprintf(log, "\n%s%s\n", seed, r.Line())
	return err
}

// title returns the test's name in one line, after its class if it has one.
func (t *Result) title() string {
	if t.Class == "" {
		return safetext.Line(t.Name, 0)
	}
	return safetext.Line(t.Class+": "+t.Name, 0)
}
