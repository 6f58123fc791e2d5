package e2e

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Steps in the docs (code blocks of the language "yaml steps") use this repository's actions with existing inputs.
func TestDocsSteps(t *testing.T) {
	shown := 0
	for _, document := range documents(t) {
		for _, block := range codeBlocks(t, document, "yaml steps") {
			var steps []struct {
				Uses string
				With map[string]any
			}
			if err := yaml.Unmarshal([]byte(block), &steps); err != nil {
				t.Errorf("%s: %v:\n%s", document, err, block)
				continue
			}
			for _, step := range steps {
				shown++
				name, ok := strings.CutPrefix(step.Uses, "org/sandbox-actions/")
				name, version, _ := strings.Cut(name, "@")
				if !ok || version != "v1" {
					t.Errorf("%s: step uses %q, want org/sandbox-actions/ACTION@v1", document, step.Uses)
					continue
				}
				known := inputsOf(t, name)
				for input := range step.With {
					if !slices.Contains(known, input) {
						t.Errorf("%s: action %s has no input %s", document, name, input)
					}
				}
			}
		}
	}
	if shown == 0 {
		t.Error("the docs show no steps")
	}
}
