package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// docs/moving.md has a row for each input and output of docker/build-push-action and depot/build-push-action, and maps
// them only to existing inputs and outputs.
func TestMovingDocs(t *testing.T) {
	text := read(t, "../../docs/moving.md")
	var upstream map[string]struct{ Inputs, Outputs []string }
	if err := yaml.Unmarshal([]byte(read(t, "testdata/build-push-actions.yaml")), &upstream); err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (both|depot|docker) \\| (?:`([a-z_]+)`)? ?\\| (.*) ?\\|$")
	part := func(from, to string) string {
		_, after, _ := strings.Cut(text, from)
		before, _, found := strings.Cut(after, to)
		if !found {
			t.Fatalf("docs/moving.md has no section from %q to %q", from, to)
		}
		return before
	}
	for _, table := range []struct {
		rows              string
		here              []string
		ofDepot, ofDocker []string
	}{
		{part("| input |", "| output |"), inputsOf(t, "build"), upstream["depot/build-push-action"].Inputs,
			upstream["docker/build-push-action"].Inputs},
		{part("| output |", "## "), outputsOf(t, "build"), upstream["depot/build-push-action"].Outputs,
			upstream["docker/build-push-action"].Outputs},
	} {
		var depot, docker []string
		for _, m := range row.FindAllStringSubmatch(table.rows, -1) {
			if m[2] != "docker" {
				depot = append(depot, m[1])
			}
			if m[2] != "depot" {
				docker = append(docker, m[1])
			}
			if m[3] != "" && !slices.Contains(table.here, m[3]) {
				t.Errorf("%s: unknown input or output %s", m[1], m[3])
			}
			if m[3] == "" && m[4] == "" {
				t.Errorf("%s has neither a counterpart nor a reason", m[1])
			}
		}
		for _, list := range []struct{ got, want []string }{{depot, table.ofDepot}, {docker, table.ofDocker}} {
			slices.Sort(list.got)
			slices.Sort(list.want)
			if len(list.want) == 0 || !slices.Equal(list.got, list.want) {
				t.Errorf("rows for %q, want %q", list.got, list.want)
			}
		}
	}
	_, scripts, _ := strings.Cut(text, "| the script |")
	all := append(append(inputsOf(t, "snapshot"), inputsOf(t, "test")...), "uses")
	found := regexp.MustCompile("(?m)^\\+ +(?:- )?([a-z_]+):|`([a-z_]+):[^`/]*`").
		FindAllStringSubmatch(part("```diff", "| input |")+scripts, -1)
	for _, m := range found {
		if name := m[1] + m[2]; !slices.Contains(all, name) {
			t.Errorf("unknown input %s", name)
		}
	}
	if len(found) < 12 {
		t.Errorf("docs/moving.md: found only %d inputs", len(found))
	}
}
