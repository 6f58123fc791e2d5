package image

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// StepName holds the parts of the name that BuildKit shows for a step of a Dockerfile, such as
// "[linux/amd64 builder 2/5] RUN make".
type StepName struct {
	Platform    string // "" if there is only one
	Stage       string // stage-N for one without a name; "" if the Dockerfile has only one
	Index       int    // of the step in its stage, from 1
	Total       int    // steps of the stage
	Instruction string // RUN
}

var stepParts = regexp.MustCompile(`^\[(?:([^\] ]+/[^\] ]+) )?(?:([^\] ]+) )? *(\d+)/(\d+)\] (?:LINK |ONBUILD )*(\S+)`)

// ParseStepName parses the name of a step. ok is false for an internal step, which is not one of the Dockerfile.
func ParseStepName(name string) (parts StepName, ok bool) {
	match := stepParts.FindStringSubmatch(name)
	if match == nil {
		return StepName{}, false
	}
	index, indexErr := strconv.Atoi(match[3])
	total, totalErr := strconv.Atoi(match[4])
	return StepName{match[1], match[2], index, total, match[5]}, indexErr == nil && totalErr == nil
}

// StepLine returns the line of a step's instruction, from 1. It returns 0 if the line is unknown, for example because
// another frontend than BuildKit's counts the steps.
//
// BuildKit does not report the lines of steps, but it numbers the instructions that create one, and the FROM of a base
// image (moby/buildkit v0.34.2, frontend/dockerfile/dockerfile2llb/convert.go, cmdTotal and prefixCommand).
func (d *Dockerfile) StepLine(step StepName) int {
	stage := d.stage(step.Stage)
	if stage == nil {
		return 0
	}
	var counted []instructions.Command
	for _, command := range stage.Commands {
		switch command.(type) {
		case *instructions.AddCommand, *instructions.CopyCommand, *instructions.RunCommand, *instructions.WorkdirCommand:
			counted = append(counted, command)
		}
	}
	name, location := "FROM", stage.Location
	switch base := step.Total - len(counted); {
	case base < 0, base > 1, step.Index > step.Total: // more with ONBUILD instructions of the base image
		return 0
	case step.Index > base:
		command := counted[step.Index-base-1]
		name, location = command.Name(), command.Location()
	}
	if !strings.EqualFold(name, step.Instruction) || len(location) == 0 {
		return 0
	}
	return location[0].Start.Line
}

// stage returns the stage with the name that BuildKit shows, or nil if there is not exactly one.
func (d *Dockerfile) stage(name string) (found *instructions.Stage) {
	for i, stage := range d.stages {
		isNamed := stage.Name == name && name != "" || stage.Name == "" && name == "stage-"+strconv.Itoa(i)
		if !isNamed && (name != "" || len(d.stages) > 1) {
			continue
		}
		if found != nil {
			return nil
		}
		found = &d.stages[i]
	}
	return found
}
