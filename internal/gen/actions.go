package main

import (
	"fmt"
	"slices"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// action describes an action for its action.yml and for docs/reference.md.
type action struct {
	Name, Title, About string
	Arguments          string // of run.sh
	ExtendsBuild       bool   // whether it has the inputs and outputs of build, too

	Inputs  []inputs.Field // available in workflows and on the command line
	Flags   []inputs.Field // available only on the command line
	Outputs []actions.OutputField
}

// loadActions returns the actions in the order of the docs: build, snapshot, test, promote.
func loadActions() ([]action, error) {
	list := []action{
		{
			Name: "build", Title: "Build a sandbox image", Arguments: "build",
			About: "Builds an image on Depot with GitHub OIDC, loads it, pushes it, and outputs its digest.",
		},
		{
			Name: "snapshot", Title: "Create a Daytona snapshot", Arguments: "snapshot", ExtendsBuild: true,
			About: "Builds a sandbox image, pushes it from the builder to Daytona, and records the snapshot's name in Doppler.",
		},
		{
			Name: "test", Title: "Test a sandbox image", Arguments: "test", ExtendsBuild: true,
			About: "Builds a sandbox image, loads it into the Docker Engine, and runs its test suite.",
		},
		{
			Name: "promote", Title: "Promote a Daytona snapshot", Arguments: "snapshot promote",
			About: "Names an existing Daytona snapshot in other Doppler configs, without building anything.",
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
