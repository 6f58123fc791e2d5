package main

import (
	"fmt"
	"slices"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// action describes an action for its action.yml and for docs/reference.md.
type action struct {
	Name, Title  string
	About        string // at most 125 characters, the limit of GitHub's marketplace
	Icon         string // of GitHub's list of Feather icons
	Arguments    string // of run.sh
	ExtendsBuild bool   // whether it has the inputs and outputs of build, too

	Inputs  []inputs.Field // available in workflows and on the command line
	Flags   []inputs.Field // available only on the command line
	Outputs []actions.OutputField
}

// loadActions returns the actions in the order of the docs: build, snapshot, test, promote.
func loadActions() ([]action, error) {
	list := []action{
		{
			Name: "build", Title: "Build a sandbox image", Arguments: "build", Icon: "package",
			About: "Builds an image on Depot or your own BuildKit, loads and pushes it, and outputs its digest. " +
				"No stored tokens.",
		},
		{
			Name: "snapshot", Title: "Create a Daytona snapshot", Arguments: "snapshot", Icon: "camera", ExtendsBuild: true,
			About: "Builds an image or takes one, makes it a verified Daytona snapshot, and records its name in Doppler.",
		},
		{
			Name: "test", Title: "Test a sandbox image", Arguments: "test", Icon: "check-circle", ExtendsBuild: true,
			About: "Builds an image or takes one, loads it into Docker, and runs a YAML suite of tests and your " +
				"command against it.",
		},
		{
			Name: "promote", Title: "Promote a Daytona snapshot", Arguments: "snapshot promote", Icon: "chevrons-up",
			About: "Names a Daytona snapshot that exists in other Doppler configs, for example of production. Builds nothing.",
		},
	}
	declared := []struct{ inputs, outputs any }{
		{&inputs.Build{}, actions.BuildOutputs{}},
		{&inputs.Snapshot{}, actions.SnapshotOutputs{}},
		{&inputs.Test{}, actions.TestOutputs{}},
		{&inputs.Promote{}, actions.PromoteOutputs{}},
	}
	for i := range list {
		fields, err := inputs.Fields(declared[i].inputs)
		if err != nil {
			return nil, fmt.Errorf("read the inputs of %s: %w", list[i].Name, err)
		}
		for _, field := range fields {
			if field.CLIOnly {
				list[i].Flags = append(list[i].Flags, field)
			} else {
				list[i].Inputs = append(list[i].Inputs, field)
			}
		}
		list[i].Outputs = actions.OutputFields(declared[i].outputs)
	}
	return list, nil
}

// withoutFields returns the fields that are not in others, or that differ from the field in others.
func withoutFields(fields, others []inputs.Field) []inputs.Field {
	return slices.DeleteFunc(slices.Clone(fields), func(field inputs.Field) bool { return slices.Contains(others, field) })
}

// ownOutputs returns the outputs of an action, without those of build if it extends build.
func ownOutputs(a, build action) []actions.OutputField {
	if !a.ExtendsBuild {
		return a.Outputs
	}
	inBuild := func(o actions.OutputField) bool { return slices.Contains(build.Outputs, o) }
	return slices.DeleteFunc(slices.Clone(a.Outputs), inBuild)
}
