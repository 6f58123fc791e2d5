package e2e

import (
	"maps"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// actionFile is the contract of an action as GitHub reads it.
type actionFile struct {
	Inputs  map[string]struct{ Default string }
	Outputs map[string]struct{ Value string }
	Runs    struct {
		Steps []struct{ Shell, Run string }
	}
}

// readAction parses action.yml of the action build, snapshot or test.
func readAction(t *testing.T, name string) (a actionFile) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, "../../"+name+"/action.yml")), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// inputsOf returns the names of an action's inputs, sorted.
func inputsOf(t *testing.T, name string) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(readAction(t, name).Inputs))
}

// outputsOf returns the names of an action's outputs, sorted.
func outputsOf(t *testing.T, name string) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(readAction(t, name).Outputs))
}
