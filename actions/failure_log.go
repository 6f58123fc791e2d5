package actions

import (
	"errors"
	"fmt"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// logFailure ends the log of a failed build with the last lines of the failed step's output and the lines of the
// Dockerfile. They are not part of a group, so that the log page shows them without a click.
func logFailure(job job, err error) {
	position, ok := positionOf(err)
	if !ok {
		return
	}
	out := job.Runner.Untrusted()
	defer out.Close()
	failed := (*image.BuildError)(nil)
	// At a prompt, BuildKit's display shows the output.
	if job.Runner.InActions() && errors.As(err, &failed) && len(failed.Output) > 0 {
		fmt.Fprintf(out, "Last output of %s:\n", safetext.Line(failed.Step, 100))
		for _, line := range failed.Output {
			fmt.Fprintln(out, line)
		}
	}
	if position.Excerpt != "" {
		fmt.Fprint(out, position.Excerpt)
	}
}
