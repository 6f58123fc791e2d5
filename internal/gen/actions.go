package main

import (
	"fmt"
	"slices"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// action describes one of the three actions for its action.yml and for docs/reference.md.
type action struct {
	Name, Title, About string

	Inputs  []inputs.Field // available in workflows and on the command line
	Flags   []inputs.Field // available only on the command line
	Outputs []actions.OutputField
}

// loadActions returns the actions in the order of the docs: build, snapshot, test.
func loadActions() ([]action, error) {
	list := []action{
		{
			Name: "build", Title: "Build a sandbox image",
			About: "Builds an image on Depot with GitHub OIDC, loads it, pushes it, and outputs its digest.",
		},
		{
			Name: "snapshot", Title: "Create a Daytona snapshot",
			About: "Builds a sandbox image, pushes it from the builder to Daytona, and records the snapshot's name in Doppler.",
		},
		{
			Name: "test", Title: "Test a sandbox image",
			About: "Builds a sandbox image, loads it into the Docker Engine, and runs its test suite.",
		},
	}
	declared := []struct{ inputs, outputs any }{
		{&inputs.Build{}, actions.BuildOutputs{}},
		{&inputs.Snapshot{}, actions.SnapshotOutputs{}},
		{&inputs.Test{}, actions.TestOutputs{}},
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

// ownOutputs returns the outputs of an action that the action build does not have. For build, it returns all outputs.
func ownOutputs(a, build action) []actions.OutputField {
	if a.Name == build.Name {
		return a.Outputs
	}
	inBuild := func(o actions.OutputField) bool { return slices.Contains(build.Outputs, o) }
	return slices.DeleteFunc(slices.Clone(a.Outputs), inBuild)
}
