package actions

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write action.yml and the README's tables from the structs")

// input is one field of an inputs struct, as its readers see it.
type input struct{ name, help, value string }

func inputsOf(t *testing.T, target any) []input {
	t.Helper()
	parser, err := kong.New(target)
	if err != nil {
		t.Fatal(err)
	}
	var list []input
	for _, f := range parser.Model.Flags {
		if f.Name == "help" {
			continue
		}
		value := f.Default
		switch {
		case f.Name == "github-token":
			value = "${{ github.token }}"
		case value == "" && f.IsBool():
			value = "false"
		}
		list = append(list, input{strings.ReplaceAll(f.Name, "-", "_"), f.Help, value})
	}
	return list
}

func outputsOf(result any) []input {
	var list []input
	for i := range reflect.TypeOf(result).NumField() {
		tag := reflect.TypeOf(result).Field(i).Tag
		list = append(list, input{name: tag.Get("output"), help: tag.Get("help")})
	}
	return list
}

// actionYAML is the whole of build/action.yml.
func actionYAML(name, title, description string, inputs, outputs []input) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Made from actions/inputs.go: go test ./actions -run Contract -update\nname: %s\ndescription: %s\nbranding:\n  icon: package\n  color: blue\ninputs:\n", title, description)
	for _, i := range inputs {
		fmt.Fprintf(&s, "  %s:\n    description: %q\n    default: %q\n", i.name, i.help, i.value)
	}
	s.WriteString("outputs:\n")
	for _, o := range outputs {
		fmt.Fprintf(&s, "  %s:\n    description: %q\n    value: ${{ steps.%s.outputs.%s }}\n", o.name, o.help, name, o.name)
	}
	fmt.Fprintf(&s, "runs:\n  using: composite\n  steps:\n    - id: %s\n      shell: bash\n      run: exec \"$GITHUB_ACTION_PATH/../actions/run.sh\" %s\n      env:\n", name, name)
	for _, i := range inputs {
		fmt.Fprintf(&s, "        INPUT_%s: ${{ inputs.%s }}\n", strings.ToUpper(i.name), i.name)
	}
	return s.String()
}

func table(head string, rows []input, withDefault bool) string {
	var s strings.Builder
	if withDefault {
		fmt.Fprintf(&s, "| %s | default | meaning |\n| --- | --- | --- |\n", head)
	} else {
		fmt.Fprintf(&s, "| %s | meaning |\n| --- | --- |\n", head)
	}
	for _, r := range rows {
		value := ""
		if r.value != "" {
			value = "`" + r.value + "`"
		}
		if withDefault {
			fmt.Fprintf(&s, "| `%s` | %s | %s |\n", r.name, value, strings.ReplaceAll(r.help, "|", "\\|"))
		} else {
			fmt.Fprintf(&s, "| `%s` | %s |\n", r.name, strings.ReplaceAll(r.help, "|", "\\|"))
		}
	}
	return s.String()
}

// TestContract holds flags, variables, action.yml and the README's tables together.
func TestContract(t *testing.T) {
	inputs, outputs := inputsOf(t, &BuildInputs{}), outputsOf(BuildResult{})
	same(t, "../build/action.yml", func([]byte) string {
		return actionYAML("build", "Build a sandbox image", "Builds an image on Depot with GitHub OIDC, loads it, pushes it, and emits its digest.", inputs, outputs)
	})
	same(t, "../README.md", func(old []byte) string {
		text := string(old)
		for marker, table := range map[string]string{
			"build inputs":  table("input", inputs, true),
			"build outputs": table("output", outputs, false),
		} {
			between := regexp.MustCompile(`(?s)(<!-- ` + marker + ` -->\n).*?(<!-- end -->)`)
			if !between.MatchString(text) {
				t.Errorf("README.md has no place for the %s", marker)
			}
			text = between.ReplaceAllString(text, "${1}"+strings.ReplaceAll(table, "$", "$$")+"${2}")
		}
		return text
	})
}

func same(t *testing.T, file string, made func(old []byte) string) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	want := made(old)
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(old, []byte(want)) {
		t.Errorf("%s does not agree with the structs: run go test ./actions -run Contract -update", file)
	}
}

// The contract of the mission: these names and defaults are promised.
func TestPromisedInputsAndOutputs(t *testing.T) {
	promised := map[string]string{
		"ref": "", "platform": "linux/amd64", "doppler_config": "", "doppler_project": "", "doppler_token": "", "doppler_identity": "",
		"context": ".", "dockerfile": "Dockerfile", "target": "", "image_name": "iterate-sandbox:ci",
		"build_args": "", "build_contexts": "", "labels": "", "annotations": "", "secrets": "", "secret_envs": "", "secret_files": "",
		"ssh": "", "allow": "", "add_hosts": "", "no_cache_filters": "", "outputs": "", "attests": "",
		"no_cache": "false", "pull": "false", "provenance": "", "sbom": "", "network": "", "shm_size": "", "ulimit": "", "cgroup_parent": "",
		"git_context": "", "load": "true", "push": "", "save": "false", "save_tags": "", "depot_project": "", "depot_token": "",
		"builder": "depot", "github_token": "${{ github.token }}", "timeout": "30m",
	}
	inputs := inputsOf(t, &BuildInputs{})
	if len(inputs) != len(promised) {
		t.Errorf("%d inputs, want %d", len(inputs), len(promised))
	}
	for _, i := range inputs {
		if value, ok := promised[i.name]; !ok || value != i.value {
			t.Errorf("input %s has the default %q; promised: %t %q", i.name, i.value, ok, value)
		}
	}
	var names []string
	for _, o := range outputsOf(BuildResult{}) {
		names = append(names, o.name)
	}
	want := "digest image_id image_ref image_name platforms git_sha git_ref build_id build_url project_id cached_steps total_steps metadata"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("outputs %s, want %s", got, want)
	}
}

// An expression in a script is how a title or a branch name becomes a command.
func TestNoExpressionInScripts(t *testing.T) {
	for _, file := range []string{"../build/action.yml", "../.github/workflows/build-docker-image.yml"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var document any
		if err := yaml.Unmarshal(data, &document); err != nil {
			t.Fatal(err)
		}
		scripts := 0
		var walk func(any)
		walk = func(node any) {
			switch node := node.(type) {
			case map[string]any:
				for key, value := range node {
					if script, ok := value.(string); ok && key == "run" {
						scripts++
						if strings.Contains(script, "${{") {
							t.Errorf("%s: an expression in a script: %s", file, script)
						}
					}
					if uses, ok := value.(string); ok && key == "uses" && !strings.HasPrefix(uses, "./") && !regexp.MustCompile(`@[0-9a-f]{40}$`).MatchString(uses) {
						t.Errorf("%s: %s is not pinned by a full SHA", file, uses)
					}
					walk(value)
				}
			case []any:
				for _, value := range node {
					walk(value)
				}
			}
		}
		walk(document)
		if scripts == 0 && strings.HasSuffix(file, "action.yml") {
			t.Errorf("%s: no script was found", file)
		}
	}
}
