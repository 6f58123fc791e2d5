package actions

import (
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"
)

// reusable is one of our workflows: an action with a machine, a checkout of itself, and secrets by their names.
type reusable struct {
	File, Action, Title, Job, Why, Group string

	inputs   inputs
	result   any
	names    map[string]string // of the action's inputs, where the workflow calls them otherwise
	dispatch []string          // inputs that are asked for in the browser, ten at most
	leftOut  []string          // what is the workflow's business, or of the runner's own files and environment, which no caller has
	own      []input           // of the workflow itself
}

// runsOn is where a workflow's job runs.
var runsOn = input{"runs_on", "Runner: a label, or a JSON list of labels.", "ubuntu-latest"}

var reusables = []reusable{
	{
		File: "build-docker-image.yml", Action: "build", Title: "Build Docker Image", Job: "Build ${{ inputs.docker_platform }}",
		Why:    "One build of the same thing at a time: the second finds everything cached.",
		Group:  "build-docker-image ${{ github.workflow }} ${{ inputs.ref || github.ref }} ${{ inputs.docker_platform }} ${{ inputs.image_name }} ${{ inputs.context }} ${{ inputs.dockerfile }} ${{ inputs.target }}",
		inputs: &BuildInputs{}, result: BuildResult{}, names: map[string]string{"platform": "docker_platform"},
		dispatch: []string{"ref", "docker_platform", "image_name", "doppler_config", "save", "context", "dockerfile", "target", "no_cache", "runs_on"},
		own:      []input{runsOn},
	},
	{
		File: "build-daytona-snapshot.yml", Action: "snapshot", Title: "Build Daytona Snapshot", Job: "Snapshot for ${{ inputs.doppler_config }}",
		Why:    "One at a time for each config and prefix: the last one is what Doppler names.",
		Group:  "build-daytona-snapshot ${{ github.repository }} ${{ inputs.doppler_config }} ${{ inputs.name_prefix || 'iterate-sandbox' }}",
		inputs: &SnapshotInputs{}, result: SnapshotResult{}, names: map[string]string{"name": "snapshot_name"},
		dispatch: []string{"ref", "doppler_config", "snapshot_name", "cpu", "memory", "disk", "update_doppler", "image", "keep", "if_exists"},
		leftOut:  []string{"platform", "image_name"}, own: []input{runsOn},
	},
	{
		File: "local-docker-test.yml", Action: "test", Title: "Local Docker Tests", Job: "Test ${{ inputs.docker_platform }}",
		Why:    "One test of the same thing at a time: the second finds everything cached.",
		Group:  "local-docker-test ${{ github.workflow }} ${{ inputs.ref || github.ref }} ${{ inputs.docker_platform }} ${{ inputs.image_name }} ${{ inputs.context }} ${{ inputs.dockerfile }} ${{ inputs.target }} ${{ inputs.suite }} ${{ inputs.image }}",
		inputs: &TestInputs{}, result: TestResult{}, names: map[string]string{"platform": "docker_platform", "command": "test_command"},
		dispatch: []string{"ref", "image_name", "docker_platform", "test_command", "suite", "image", "doppler_config", "no_cache", "parallel", "runs_on"},
		leftOut:  []string{"report_dir"},
		own:      []input{{"artifact_name", "Name of the artifact with the results; another one for each call of the same run.", "test-results"}, runsOn},
	},
}

// neverPassed are inputs that no workflow takes: the runner's files and environment are not the caller's, and where an image is loaded
// follows from what becomes of it.
var neverPassed = []string{"secret_envs", "secret_files", "ssh", "outputs", "load", "github_token"}

// saidOtherwise are inputs that mean a little more in a workflow, which has variables and no checkout of the caller's.
var saidOtherwise = map[string]input{
	"ref":              {"ref", "Branch, tag, SHA (full or short), refs/pull/N/merge, refs/pull/N/head or #N. Empty: the commit that the run is of.", ""},
	"image":            {"image", "Take this image instead of building: a reference in a registry, such as the output image_ref of a build with save.", ""},
	"context":          {"context", "Build context: a folder of the repository, or a URL that the builder fetches.", "."},
	"git_context":      {"git_context", "Name of an extra build context that holds the commit's .git, byte for byte the same on every machine.", "git"},
	"build_args":       {"build_args", "Build arguments besides GITHUB_REPOSITORY, NAME=VALUE. One a line.", ""},
	"build_contexts":   {"build_contexts", "Named contexts, NAME=FOLDER, docker-image:// or a URL. One a line.", ""},
	"doppler_project":  {"doppler_project", "Doppler project. Else the variable DOPPLER_PROJECT; a service token has its own.", ""},
	"doppler_identity": {"doppler_identity", "Identity of a Doppler service account that is entered with GitHub OIDC. Else the variable DOPPLER_IDENTITY.", ""},
	"depot_project":    {"depot_project", "Depot project. Else the variable DEPOT_PROJECT_ID, or depot.json.", ""},
}

// fromSecrets are inputs that a caller gives as secrets.
var fromSecrets = map[string]input{
	"doppler_token":   {"DOPPLER_TOKEN", "Service token of doppler_config; none where Doppler is entered with OIDC (doppler_identity)", ""},
	"depot_token":     {"DEPOT_TOKEN", "Only where Depot is not entered with OIDC", ""},
	"secrets":         {"BUILD_SECRETS", "Build secrets, ID=VALUE, one a line", ""},
	"daytona_api_key": {"DAYTONA_API_KEY", "Only where Doppler does not hold it", ""},
}

// expressions are how a workflow passes what is not simply its input.
var expressions = map[string]string{
	"ref":              "${{ inputs.ref || github.sha }} # a ref always: the workspace holds the action, not what is built",
	"doppler_project":  "${{ inputs.doppler_config && (inputs.doppler_project || vars.DOPPLER_PROJECT) || '' }}",
	"doppler_identity": "${{ inputs.doppler_config && (inputs.doppler_identity || vars.DOPPLER_IDENTITY) || '' }}",
	"doppler_token":    "${{ inputs.doppler_config == 'prd' && secrets.DOPPLER_TOKEN_PRD || inputs.doppler_config && secrets.DOPPLER_TOKEN || '' }}",
	"depot_project":    "${{ inputs.depot_project || vars.DEPOT_PROJECT_ID }} # else depot.json",
	"build_args":       "|\n            GITHUB_REPOSITORY\n            ${{ inputs.build_args }}",
	"git_context":      "${{ inputs.git_context || 'git' }}",
}

// field is an entry of a mapping in a workflow.
type field struct{ Name, Help, Type, Default, Value string }

func fieldOf(i input) field {
	f := field{Name: i.name, Help: i.help, Type: "string", Default: strconv.Quote(i.value)}
	if i.value == "true" || i.value == "false" {
		f.Type, f.Default = "boolean", i.value
	}
	return f
}

// workflow is the whole of a workflow's file.
func (w reusable) workflow(t *testing.T) string {
	t.Helper()
	data := struct {
		reusable
		Dispatch, Call, Secrets, Outputs, With []field
		Repository, Commit                     string
	}{
		reusable:   w,
		Repository: "${{ job.workflow_sha && job.workflow_repository || vars.SANDBOX_ACTIONS_REF && vars.SANDBOX_ACTIONS_REPOSITORY || github.repository }}",
		Commit:     "${{ job.workflow_repository && job.workflow_sha || vars.SANDBOX_ACTIONS_REPOSITORY && vars.SANDBOX_ACTIONS_REF || github.sha }}",
	}
	for _, i := range inputsOf(t, w.inputs) {
		if slices.Contains(neverPassed, i.name) || slices.Contains(w.leftOut, i.name) {
			continue
		}
		passed := field{Name: i.name, Value: expressions[i.name]}
		if secret, ok := fromSecrets[i.name]; ok {
			data.Secrets = append(data.Secrets, fieldOf(secret))
			if i.name == "doppler_token" {
				data.Secrets = append(data.Secrets, field{Name: "DOPPLER_TOKEN_PRD", Help: "Service token of the config prd, where that is another one"})
			}
			if passed.Value == "" {
				passed.Value = "${{ secrets." + secret.name + " }}"
			}
			data.With = append(data.With, passed)
			continue
		}
		if other, ok := saidOtherwise[i.name]; ok {
			i = other
		}
		if name := w.names[i.name]; name != "" {
			i.name = name
		}
		if passed.Value == "" {
			passed.Value = "${{ inputs." + i.name + " }}"
		}
		data.Call, data.With = append(data.Call, fieldOf(i)), append(data.With, passed)
		if i.name == "save" && w.Action == "build" {
			data.With = append(data.With, field{Name: "load", Value: "${{ !inputs.save && !inputs.push }} # what is in a registry is pulled by whoever needs it; else loading shows that it can be"})
		}
	}
	for _, own := range w.own {
		data.Call = append(data.Call, fieldOf(own))
	}
	data.Secrets = append(data.Secrets,
		field{Name: "DOCKER_AUTH_CONFIG", Help: "Logins of other registries, to pull base images and to push, as in Docker's config.json: {\"auths\": {\"HOST\": {\"auth\": \"base64 of USER:PASSWORD\"}}}"},
		field{Name: "SANDBOX_ACTIONS_TOKEN", Help: "Token that may read the repository of this workflow, where that is private"})
	for _, name := range w.dispatch {
		at := slices.IndexFunc(data.Call, func(f field) bool { return f.Name == name })
		if at < 0 {
			t.Fatalf("%s: there is no input %s", w.File, name)
		}
		data.Dispatch = append(data.Dispatch, data.Call[at])
	}
	for _, o := range outputsOf(w.result) {
		if o.name != "image_name" && o.name != "report" { // of a machine that is gone then
			data.Outputs = append(data.Outputs, fieldOf(o))
		}
	}
	var s strings.Builder
	text := read(t, "../internal/e2e/testdata/workflow.yml.tmpl")
	if err := template.Must(template.New(w.File).Delims("[[", "]]").Parse(text)).Execute(&s, data); err != nil {
		t.Fatal(err)
	}
	return s.String()
}

// TestContractOfWorkflows holds the workflows together with the structs and with each other.
func TestContractOfWorkflows(t *testing.T) {
	for _, w := range reusables {
		same(t, "../.github/workflows/"+w.File, func([]byte) string { return w.workflow(t) })
	}
}

// workflowFile is what tests read of a workflow.
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
}

type workflowInput struct {
	Description, Type string
	Default           any
}

// ourWorkflow reads one of our workflows by the name of its file.
func ourWorkflow(t *testing.T, file string) (w workflowFile) {
	t.Helper()
	data, err := os.ReadFile("../.github/workflows/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &w); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return w
}

// The workflows of the mission: these names and defaults are promised, and whoever dispatches has what a caller has.
func TestPromisedWorkflows(t *testing.T) {
	for file, promised := range map[string]struct {
		name    string
		inputs  map[string]any
		outputs string
	}{
		"build-docker-image.yml": {"Build Docker Image", map[string]any{
			"ref": "", "docker_platform": "linux/amd64", "image_name": "iterate-sandbox:ci", "doppler_config": "", "save": false,
		}, "image_ref digest git_sha"},
		"build-daytona-snapshot.yml": {"Build Daytona Snapshot", map[string]any{
			"ref": "", "doppler_config": "dev", "snapshot_name": "", "cpu": "2", "memory": "4", "disk": "10", "update_doppler": true,
		}, "snapshot_name digest git_sha"},
		"local-docker-test.yml": {"Local Docker Tests", map[string]any{
			"ref": "", "image_name": "iterate-sandbox:ci", "docker_platform": "linux/amd64", "test_command": "",
		}, "tests_passed tests_failed digest"},
	} {
		w := ourWorkflow(t, file)
		if w.Name != promised.name {
			t.Errorf("%s is called %q", file, w.Name)
		}
		if n := len(w.On.Dispatch.Inputs); n > 10 {
			t.Errorf("%s: %d inputs to dispatch: older servers of GitHub take 10", file, n)
		}
		for name, input := range w.On.Dispatch.Inputs {
			if w.On.Call.Inputs[name] != input {
				t.Errorf("%s: dispatched, %s is %+v; called, %+v", file, name, input, w.On.Call.Inputs[name])
			}
		}
		for name, value := range promised.inputs {
			if got, ok := w.On.Dispatch.Inputs[name]; !ok || got.Default != value {
				t.Errorf("%s: input %s: %t, %+v, want %v", file, name, ok, got, value)
			}
		}
		for name := range strings.FieldsSeq(promised.outputs) {
			if w.On.Call.Outputs[name] == nil {
				t.Errorf("%s has no output %s", file, name)
			}
		}
	}
}

// recipe is one `gh workflow run`.
type recipe struct {
	workflow string
	inputs   map[string]string
}

var (
	recipeForm = regexp.MustCompile(`(?m)^gh workflow run (\S+)(.*)$`)
	recipeArg  = regexp.MustCompile(`^ -f ([a-z_]+)=('[^']*'|[^\s'"]+)`)
)

// recipesIn are those of a document. An argument that is none of `-f NAME=VALUE` is an error.
func recipesIn(t *testing.T, document string) (found []recipe) {
	t.Helper()
	for _, m := range recipeForm.FindAllStringSubmatch(document, -1) {
		r := recipe{m[1], map[string]string{}}
		rest := m[2]
		for arg := recipeArg.FindStringSubmatch(rest); arg != nil; arg = recipeArg.FindStringSubmatch(rest) {
			r.inputs[arg[1]] = strings.Trim(arg[2], "'")
			rest = strings.TrimPrefix(rest, arg[0])
		}
		if rest != "" {
			t.Errorf("%s: %q can not be read", m[0], rest)
		}
		found = append(found, r)
	}
	return found
}

// Every recipe names a workflow, and inputs that it has, with values that the action takes; and every input that can be given by hand has a recipe.
func TestRecipes(t *testing.T) {
	shown := map[string]bool{}
	for _, r := range recipesIn(t, read(t, "../docs/recipes.md")) {
		at := slices.IndexFunc(reusables, func(w reusable) bool { return w.File == r.workflow })
		if at < 0 {
			t.Errorf("there is no workflow %s", r.workflow)
			continue
		}
		w := reusables[at]
		dispatch := ourWorkflow(t, r.workflow).On.Dispatch.Inputs
		environ := []string{"GITHUB_ACTIONS=true"}
		for name, value := range r.inputs {
			shown[r.workflow+" "+name] = true
			if _, ok := dispatch[name]; !ok {
				t.Errorf("%s has no input %s", r.workflow, name)
			}
			for action, workflow := range w.names {
				if workflow == name {
					name = action
				}
			}
			if !slices.ContainsFunc(w.own, func(i input) bool { return i.name == name }) {
				environ = append(environ, Variable(name)+"="+value)
			}
		}
		in := reflect.New(reflect.TypeOf(w.inputs).Elem()).Interface().(inputs)
		warnings, err := Inputs{Program: "action-" + w.Action, Environ: environ, Stdout: io.Discard}.Parse(in)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%v: %v %q", r, err, warnings)
			continue
		}
		build, ok := in.(*BuildInputs)
		if !ok {
			build = reflect.ValueOf(in).Elem().FieldByName("BuildInputs").Addr().Interface().(*BuildInputs)
		}
		if _, err := check(build, func(string) string { return "" }, t.TempDir()); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
	for _, w := range reusables {
		for _, name := range w.dispatch {
			if !shown[w.File+" "+name] {
				t.Errorf("docs/recipes.md does not show the input %s of %s", name, w.File)
			}
		}
	}
}
