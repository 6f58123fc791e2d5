package actions

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write action.yml and the tables of docs/ from the code")

// input is one field of an inputs struct, as its readers see it.
type input struct{ name, help, value string }

func inputsOf(t *testing.T, target inputs) []input {
	t.Helper()
	parser, err := kong.New(target, target.vars())
	if err != nil {
		t.Fatal(err)
	}
	var list []input
	for _, f := range parser.Model.Flags {
		if f.Name == "help" || f.Tag.Has("prompt") { // of a prompt only
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
	for _, field := range reflect.VisibleFields(reflect.TypeOf(result)) {
		if !field.Anonymous {
			list = append(list, input{name: field.Tag.Get("output"), help: field.Tag.Get("help")})
		}
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
	fmt.Fprintf(&s, `runs:
  using: composite
  steps:
    - if: runner.os == 'Windows'
      shell: bash
      run: |
        echo "::error::This action does not run on Windows: have the job run on Linux or macOS"
        exit 1
    - id: %s
      shell: /bin/sh -e {0} # which an earlier step can not replace, and which reads no BASH_ENV
      run: exec /bin/sh "$GITHUB_ACTION_PATH/../actions/run.sh" %s
      env:
`, name, name)
	for _, i := range inputs {
		fmt.Fprintf(&s, "        INPUT_%s: ${{ inputs.%s }}\n", strings.ToUpper(i.name), i.name)
	}
	return s.String()
}

func rowsOf(head string, rows []input, withDefault bool) string {
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

// contracts are the actions, each with its structs and its words in the marketplace.
var contracts = []struct {
	name, title, about string
	inputs             inputs
	result             any
}{
	{"build", "Build a sandbox image", "Builds an image on Depot with GitHub OIDC, loads it, pushes it, and emits its digest.", &BuildInputs{}, BuildResult{}},
	{"snapshot", "Make a Daytona snapshot", "Builds a sandbox image, pushes it from the builder to Daytona, and has Doppler name the snapshot.", &SnapshotInputs{}, SnapshotResult{}},
	{"test", "Test a sandbox image", "Builds a sandbox image, loads it into the Docker Engine, and runs its test suite.", &TestInputs{}, TestResult{}},
}

// TestContract holds flags, variables, action.yml and the tables of docs/reference.md together.
func TestContract(t *testing.T) {
	build, built := inputsOf(t, &BuildInputs{}), outputsOf(BuildResult{})
	for _, c := range contracts {
		inputs, outputs := inputsOf(t, c.inputs), outputsOf(c.result)
		same(t, "../"+c.name+"/action.yml", func([]byte) string { return actionYAML(c.name, c.title, c.about, inputs, outputs) })
		same(t, "../docs/reference.md", func(old []byte) string {
			ownInputs, ownOutputs := inputs, outputs
			if c.name != "build" { // the tables have what the others add to build's
				ownInputs, ownOutputs = without(inputs, build), without(outputs, built)
			}
			text := string(old)
			for marker, rows := range map[string]string{
				c.name + " inputs":  rowsOf("input", ownInputs, true),
				c.name + " outputs": rowsOf("output", ownOutputs, false),
			} {
				between := regexp.MustCompile(`(?s)(<!-- ` + marker + ` -->\n).*?(<!-- end -->)`)
				if !between.MatchString(text) {
					t.Errorf("docs/reference.md has no place for the %s", marker)
				}
				text = between.ReplaceAllString(text, "${1}"+strings.ReplaceAll(rows, "$", "$$")+"${2}")
			}
			return text
		})
	}
}

// without leaves out the rows that are in others, unless they have another default.
func without(rows, others []input) []input {
	return slices.DeleteFunc(slices.Clone(rows), func(row input) bool { return slices.Contains(others, row) })
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
		t.Errorf("%s does not agree with the code: run go test ./actions -run Contract -update", file)
	}
}

// The contract of the mission: these names and defaults are promised.
func TestPromisedInputsAndOutputs(t *testing.T) {
	build := map[string]string{
		"ref": "", "allow_untrusted_ref": "false", "platform": "linux/amd64", "doppler_config": "", "doppler_project": "", "doppler_token": "", "doppler_identity": "",
		"context": ".", "dockerfile": "Dockerfile", "target": "", "image_name": "iterate-sandbox:ci",
		"build_args": "", "build_contexts": "", "labels": "", "annotations": "", "secrets": "", "secret_envs": "", "secret_files": "",
		"ssh": "", "allow": "", "add_hosts": "", "no_cache_filters": "", "outputs": "", "attests": "",
		"no_cache": "false", "pull": "false", "provenance": "", "sbom": "", "network": "", "shm_size": "", "ulimit": "", "cgroup_parent": "",
		"git_context": "", "load": "true", "push": "", "save": "false", "save_tags": "", "depot_project": "", "depot_token": "",
		"builder": "depot", "github_token": "${{ github.token }}", "timeout": "30m",
	}
	built := "digest image_id image_ref image_name platforms git_sha git_ref build_id build_url project_id cached_steps total_steps metadata"
	for _, test := range []struct {
		inputs inputs
		adds   map[string]string
		result any
		emits  string
	}{
		{&BuildInputs{}, nil, BuildResult{}, built},
		{&SnapshotInputs{}, map[string]string{
			"load": "false", "doppler_config": "dev", "image": "", "name": "", "name_prefix": "iterate-sandbox", "cpu": "2", "memory": "4", "disk": "10",
			"entrypoint": "", "region": "", "if_exists": "reuse", "keep": "0", "update_doppler": "true",
			"daytona_api_key": "", "daytona_organization_id": "", "daytona_api_url": "",
		}, SnapshotResult{}, built + " snapshot_name snapshot_id snapshot_state snapshot_size_gb reused doppler_updated"},
		{&TestInputs{}, map[string]string{"image": "", "suite": "sandbox/tests.yaml", "command": "", "parallel": "cores", "report_dir": "test-results"},
			TestResult{}, built + " tests_total tests_passed tests_failed tests_skipped report"},
	} {
		promised := maps.Clone(build)
		maps.Copy(promised, test.adds)
		inputs := inputsOf(t, test.inputs)
		if len(inputs) != len(promised) {
			t.Errorf("%T: %d inputs, want %d", test.inputs, len(inputs), len(promised))
		}
		for _, i := range inputs {
			if value, ok := promised[i.name]; !ok || value != i.value {
				t.Errorf("%T: input %s has the default %q; promised: %t %q", test.inputs, i.name, i.value, ok, value)
			}
		}
		var names []string
		for _, o := range outputsOf(test.result) {
			names = append(names, o.name)
		}
		if got := strings.Join(names, " "); got != test.emits {
			t.Errorf("%T: outputs %s, want %s", test.result, got, test.emits)
		}
	}
}
