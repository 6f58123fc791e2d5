package e2e

import (
	"io"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// workflowFile contains the parts of a reusable workflow that tests read.
type workflowFile struct {
	Name string
	On   struct {
		Dispatch struct {
			Inputs map[string]workflowInput
		} `yaml:"workflow_dispatch"`
		Call struct {
			Inputs  map[string]workflowInput
			Secrets map[string]any
			Outputs map[string]any
		} `yaml:"workflow_call"`
	}
	Jobs map[string]struct {
		Steps []struct {
			Uses string
			With values
		}
	}
}

type workflowInput struct {
	Description, Type string
	Default           any
}

// readWorkflow parses a workflow in .github/workflows.
func readWorkflow(t *testing.T, file string) (w workflowFile) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, "../../.github/workflows/"+file)), &w); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return w
}

// action returns the action that a workflow runs, and the inputs that it passes.
func (w workflowFile) action(t *testing.T) (name string, with values) {
	t.Helper()
	for _, job := range w.Jobs {
		for _, step := range job.Steps {
			if action, ok := strings.CutPrefix(step.Uses, "./.sandbox-actions/"); ok {
				return action, step.With
			}
		}
	}
	t.Fatalf("workflow %s runs no action", w.Name)
	return "", nil
}

// The workflows have the documented names, inputs and outputs. Dispatch inputs are identical to call inputs, except the
// name of the image.
func TestWorkflowContract(t *testing.T) {
	for file, promised := range map[string]struct {
		name    string
		inputs  map[string]any
		outputs []string
	}{
		"build-docker-image.yml": {"Build Docker Image", map[string]any{
			"ref": "", "docker_platform": "linux/amd64", "image_name": "iterate-sandbox:ci", "doppler_config": "", "save": false,
		}, []string{"image_ref", "digest", "git_sha"}},
		"build-daytona-snapshot.yml": {"Build Daytona Snapshot", map[string]any{
			"ref": "", "doppler_config": "dev", "snapshot_name": "", "cpu": "2", "memory": "4", "disk": "10",
			"update_doppler": true,
		}, []string{"snapshot_name", "digest", "git_sha"}},
		"promote-daytona-snapshot.yml": {"Promote Daytona Snapshot", map[string]any{
			"snapshot_name": "", "to": "", "doppler_config": "dev", "require_verified": false, "environment": "",
			"deployment_environment": "",
		}, []string{"snapshot_name", "digest", "git_sha", "previous_snapshot"}},
		"local-docker-test.yml": {"Local Docker Tests", map[string]any{
			"ref": "", "image_name": "iterate-sandbox:ci", "docker_platform": "linux/amd64", "test_command": "",
		}, []string{"tests_passed", "tests_failed", "digest"}},
	} {
		w := readWorkflow(t, file)
		if w.Name != promised.name {
			t.Errorf("%s: name %q, want %q", file, w.Name, promised.name)
		}
		if n := len(w.On.Dispatch.Inputs); n > 10 {
			t.Errorf("%s: %d dispatch inputs; older GitHub servers accept only 10", file, n)
		}
		for name, input := range w.On.Dispatch.Inputs {
			if name == "image_name" { // that of this repository, see sandbox.json
				input.Default = "sandbox:ci"
			}
			if w.On.Call.Inputs[name] != input {
				t.Errorf("%s: input %s: dispatch has %+v, call has %+v", file, name, input, w.On.Call.Inputs[name])
			}
		}
		for name, value := range promised.inputs {
			if got, ok := w.On.Dispatch.Inputs[name]; !ok || got.Default != value {
				t.Errorf("%s: input %s: got %+v, want default %v", file, name, got, value)
			}
		}
		for _, name := range promised.outputs {
			if w.On.Call.Outputs[name] == nil {
				t.Errorf("%s: missing output %s", file, name)
			}
		}
	}
}

// dispatchCommand is a `gh workflow run` command in the docs.
type dispatchCommand struct {
	document, workflow string
	inputs             values
}

var (
	dispatchLine = regexp.MustCompile(`(?m)^gh workflow run (\S+)(.*)$`)
	dispatchFlag = regexp.MustCompile(`^ -f ([a-z_]+)=('[^']*'|[^\s'"]+)`)
)

// dispatchCommands returns the commands in all documents. Each argument must have the form `-f NAME=VALUE`.
func dispatchCommands(t *testing.T) (found []dispatchCommand) {
	t.Helper()
	for _, document := range documents(t) {
		for _, m := range dispatchLine.FindAllStringSubmatch(read(t, "../../"+document), -1) {
			command := dispatchCommand{document, m[1], values{}}
			rest := m[2]
			for flag := dispatchFlag.FindStringSubmatch(rest); flag != nil; flag = dispatchFlag.FindStringSubmatch(rest) {
				command.inputs[flag[1]] = strings.Trim(flag[2], "'")
				rest = strings.TrimPrefix(rest, flag[0])
			}
			if rest != "" {
				t.Errorf("%s: %s: cannot parse %q", document, m[0], rest)
			}
			found = append(found, command)
		}
	}
	return found
}

// Each `gh workflow run` command in the docs uses an existing workflow, existing inputs and valid values. The docs
// show a command for each workflow.
func TestDispatchCommands(t *testing.T) {
	shown := map[string]bool{}
	for _, command := range dispatchCommands(t) {
		shown[command.workflow] = true
		if read(t, filepath.Join("../../.github/workflows", command.workflow)) == "" {
			t.Errorf("%s: unknown workflow %s", command.document, command.workflow)
			continue
		}
		w := readWorkflow(t, command.workflow)
		if w.On.Call.Inputs == nil { // release.yml runs no action
			for name := range command.inputs {
				if _, ok := w.On.Dispatch.Inputs[name]; !ok {
					t.Errorf("%s: %s has no input %s", command.document, command.workflow, name)
				}
			}
			continue
		}
		environ := []string{"GITHUB_ACTIONS=true"}
		action, with := w.action(t)
		for name, value := range command.inputs {
			if _, ok := w.On.Dispatch.Inputs[name]; !ok {
				t.Errorf("%s: %s has no input %s", command.document, command.workflow, name)
			}
			for input, passed := range with {
				if passed == "${{ inputs."+name+" }}" {
					environ = append(environ, inputs.Variable(input)+"="+value)
				}
			}
		}
		if err := validateInputs(t, action, environ); err != nil {
			t.Errorf("%s: %v: %v", command.document, command, err)
		}
	}
	for _, file := range []string{
		"build-docker-image.yml", "build-daytona-snapshot.yml", "local-docker-test.yml", "promote-daytona-snapshot.yml",
	} {
		if !shown[file] {
			t.Errorf("the docs show no gh workflow run for %s, only for %q", file, slices.Sorted(maps.Keys(shown)))
		}
	}
}

// validateInputs parses the inputs of an action, and validates those of the build or of promote.
func validateInputs(t *testing.T, action string, environ []string) error {
	t.Helper()
	target := map[string]any{
		"build": &inputs.Build{}, "snapshot": &inputs.Snapshot{}, "test": &inputs.Test{}, "promote": &inputs.Promote{},
	}[action]
	warnings, err := inputs.Source{Program: "action-" + action, Environ: environ, Stdout: io.Discard}.Parse(target)
	if err != nil || len(warnings) > 0 {
		t.Errorf("%q: warnings %q", environ, warnings)
		return err
	}
	if promote, ok := target.(*inputs.Promote); ok {
		_, err := promote.Spec()
		return err
	}
	build, ok := target.(*inputs.Build)
	if !ok {
		build = reflect.ValueOf(target).Elem().FieldByName("Build").Addr().Interface().(*inputs.Build)
	}
	_, err = build.Spec(inputs.Env{Getenv: func(string) string { return "" }, Dir: t.TempDir()})
	return err
}
