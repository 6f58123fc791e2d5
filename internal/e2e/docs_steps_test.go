package e2e

import (
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// stepsBlock is a code block with steps of a job: ```yaml steps.
var stepsBlock = regexp.MustCompile("(?ms)^```yaml steps\n(.*?)^```$")

// Steps that documents show use this repository's actions, with inputs that these have.
func TestDocsSteps(t *testing.T) {
	shown := 0
	for _, document := range documents(t) {
		for _, m := range stepsBlock.FindAllStringSubmatch(read(t, "../../"+document), -1) {
			var steps []struct {
				Uses string
				With map[string]any
			}
			if err := yaml.Unmarshal([]byte(m[1]), &steps); err != nil {
				t.Errorf("%s: %v:\n%s", document, err, m[1])
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
				var action struct{ Inputs map[string]any }
				if err := yaml.Unmarshal([]byte(read(t, "../../"+name+"/action.yml")), &action); err != nil {
					t.Fatal(err)
				}
				for input := range step.With {
					if action.Inputs[input] == nil {
						t.Errorf("%s: action %s has no input %s", document, name, input)
					}
				}
			}
		}
	}
	if shown == 0 {
		t.Error("documents show no steps")
	}
}
