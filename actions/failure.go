package actions

import (
	"errors"
	"strings"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// reportFailure ends the log of a failed build with the last lines of the failed step's output as a group, so that they
// are not followed by other steps, and the lines of the Dockerfile.
func reportFailure(job job, err error) {
	position, ok := positionOf(err)
	if !ok {
		return
	}
	output, step := "", ""
	if failed := (*image.BuildError)(nil); errors.As(err, &failed) {
		output, step = strings.Join(failed.Output, "\n"), safetext.Line(failed.Step, 100)
	}
	if output != "" && job.Runner.InActions() { // elsewhere, BuildKit's display repeats the output
		job.Runner.Group("Last output of " + step)
		writeUntrusted(job.Runner, output)
		job.Runner.EndGroup()
	}
	if position.Excerpt != "" {
		writeUntrusted(job.Runner, position.Excerpt)
	}
}
