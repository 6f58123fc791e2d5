package main

import (
	"fmt"
	"slices"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// action is one of the three actions, as its action.yml and its tables in docs/reference.md show it.
type action struct {
	Name, Title, About string

	Inputs  []inputs.Field // of a workflow
	Flags   []inputs.Field // of the command line only
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

// withoutFields returns the fields that others lacks or declares with another default.
func withoutFields(fields, others []inputs.Field) []inputs.Field {
	return slices.DeleteFunc(slices.Clone(fields), func(field inputs.Field) bool { return slices.Contains(others, field) })
}

// ownOutputs returns the outputs of an action that build does not have, or all outputs of build.
func ownOutputs(a, build action) []actions.OutputField {
	if a.Name == build.Name {
		return a.Outputs
	}
	inBuild := func(o actions.OutputField) bool { return slices.Contains(build.Outputs, o) }
	return slices.DeleteFunc(slices.Clone(a.Outputs), inBuild)
}
