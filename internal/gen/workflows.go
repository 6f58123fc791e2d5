package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// workflow is a reusable workflow that runs one action.
type workflow struct {
	File   string // in .github/workflows
	Action string
	Title  string // name of the workflow
	Job    string // name of the job

	Reads   string // comment that explains the permission contents: read
	Deploys bool   // whether it records deployments, and has the input environment

	Concurrency string // comment that explains the concurrency group
	Group       string // concurrency group

	Dispatch, Call, Secrets []field
	Outputs                 []actions.OutputField
	Artifact                string       // default name of the artifact with the report; empty if the action has none
	With                    []assignment // inputs of the action
	Repository, Commit      string       // expressions for the source of the action
}

// field is an input or a secret of a workflow.
type field struct{ Name, Help, Type, Default string }

// assignment passes a value to an input of the action.
type assignment struct{ Name, Value string }

// workflowConfig defines how a workflow differs from its action.
type workflowConfig struct {
	workflow
	rename   map[string]string // workflow input by action input, if the names differ
	dispatch []string          // inputs of workflow_dispatch, at most 10
	omitted  []string          // action inputs that are not workflow inputs
	own      []field           // workflow inputs that the action does not have
}

// sourceGroup is the part of a concurrency group that identifies the source of a build.
const sourceGroup = "${{ github.workflow }} ${{ inputs.ref || github.ref }} ${{ inputs.docker_platform }} " +
	"${{ inputs.image_name }} ${{ inputs.context }} ${{ inputs.dockerfile }} ${{ inputs.target }}"

var runsOn = field{"runs_on", "Runner: a label, or a JSON list of labels.", "string", `"ubuntu-latest"`}

// workflowConfigs contains the workflows by action name.
var workflowConfigs = map[string]workflowConfig{
	"build": {
		workflow: workflow{
			File: "build-docker-image.yml", Title: "Build Docker Image", Job: "Build ${{ inputs.docker_platform }}",
			Concurrency: "One build of the same source at a time: the next one finds every step cached.",
			Group:       "build-docker-image " + sourceGroup,
			Artifact:    "build-report",
		},
		rename: map[string]string{"platform": "docker_platform"},
		dispatch: []string{
			"ref", "docker_platform", "image_name", "doppler_config", "save", "context", "dockerfile", "target", "no_cache",
			"runs_on",
		},
		own: []field{runsOn},
	},
	"snapshot": {
		workflow: workflow{
			File: "build-daytona-snapshot.yml", Title: "Build Daytona Snapshot",
			Job:         "Snapshot for ${{ inputs.doppler_config }}",
			Concurrency: "One snapshot of a config and prefix at a time: Doppler records the last one.",
			Group: "build-daytona-snapshot ${{ github.repository }} ${{ inputs.doppler_config }} " +
				"${{ inputs.name_prefix || vars.SANDBOX_NAME_PREFIX }}",
			Artifact: "snapshot-report",
		},
		rename: map[string]string{"name": "snapshot_name"},
		dispatch: []string{
			"ref", "doppler_config", "snapshot_name", "cpu", "memory", "disk", "update_doppler", "image", "keep", "if_exists",
		},
		omitted: []string{"platform", "image_name", "environment"}, // callers need not grant deployments: write
		own:     []field{runsOn},
	},
	"promote": {
		workflow: workflow{
			File: "promote-daytona-snapshot.yml", Title: "Promote Daytona Snapshot", Job: "Promote to ${{ inputs.to }}",
			Reads: "to check out the action", Deploys: true,
			Concurrency: "One promotion to the same configs at a time.",
			Group:       "promote-daytona-snapshot ${{ github.repository }} ${{ inputs.to }}",
		},
		rename: map[string]string{"name": "snapshot_name", "environment": "deployment_environment"},
		dispatch: []string{
			"snapshot_name", "to", "doppler_config", "require_verified", "environment", "deployment_environment", "region",
			"image", "runs_on",
		},
		own: []field{
			{
				"environment", "GitHub environment of the job, whose protection rules and secrets apply. GitHub records a " +
					"deployment of the workflow's commit to it.",
				"string", `""`,
			},
			runsOn,
		},
	},
	"test": {
		workflow: workflow{
			File: "local-docker-test.yml", Title: "Local Docker Tests", Job: "Test ${{ inputs.docker_platform }}",
			Concurrency: "One test of the same source at a time: the next one finds every step cached.",
			Group:       "local-docker-test " + sourceGroup + " ${{ inputs.suite }} ${{ inputs.image }}",
			Artifact:    "test-results",
		},
		rename: map[string]string{"platform": "docker_platform", "command": "test_command"},
		dispatch: []string{
			"ref", "image_name", "docker_platform", "test_command", "suite", "image", "doppler_config", "no_cache", "parallel",
			"runs_on",
		},
		own: []field{runsOn},
	},
}

// neverPassed lists action inputs that no workflow has. Callers cannot provide files or variables on the runner, need
// not grant pull-requests: write for comment and actions: read for previous_artifact, and the workflows decide whether
// to load the image.
var neverPassed = []string{
	"secret_envs", "secret_files", "ssh", "outputs", "load", "github_token", "report_dir", "previous_record",
	"previous_artifact", "comment",
}

// workflowHelp overrides the help of inputs that work differently in a workflow, which has no checkout of the caller's
// repository and reads its variables.
var workflowHelp = map[string]string{
	"ref": "Branch, tag, commit SHA (full or short), refs/pull/N/merge, refs/pull/N/head or #N. " +
		"Default: the run's commit.",
	"image": "Existing image to use instead of building: a registry reference, for example the output image_ref of a " +
		"build with save.",
	"report": "Upload the report of the run as an artifact: report.html for a browser, and record.json for scripts. " +
		"It is also uploaded if the run fails.",
	"context":         "Build context: a directory of the repository, or a URL that the builder fetches.",
	"build_args":      "Build arguments in addition to GITHUB_REPOSITORY, NAME=VALUE. One per line.",
	"build_contexts":  "Named contexts, NAME=DIRECTORY, docker-image:// or a URL. One per line.",
	"doppler_config":  "Doppler config that supplies credentials and build secrets.",
	"update_doppler":  "Set doppler_secret to the name of the snapshot, if there is a Doppler token.",
	"doppler_project": "Doppler project. Default: the variable DOPPLER_PROJECT. A service token implies its project.",
	"doppler_identity": "Identity of a Doppler service account to authenticate with GitHub OIDC. " +
		"Default: the variable DOPPLER_IDENTITY.",
	"environment": "GitHub environment for which to record a deployment of the snapshot's commit. Use another name " +
		"than in environment, for which GitHub records a deployment itself.",
	"depot_project": "Depot project ID. Default: the variable DEPOT_PROJECT_ID, then depot.json.",
}

// workflowDefault overrides the defaults of inputs.
var workflowDefault = map[string]string{"git_context": "git", "update_doppler": "true"}

// actionDefault is workflowDefault for the inputs of one action.
var actionDefault = map[string]map[string]string{
	"snapshot": {"doppler_config": inputs.DefaultDopplerConfig},
	"promote":  {"doppler_config": inputs.DefaultDopplerConfig},
}

// secrets contains the inputs that callers pass as secrets.
var secrets = map[string]field{
	"doppler_token":   {Name: "DOPPLER_TOKEN", Help: "Service token of doppler_config. Not needed with doppler_identity"},
	"depot_token":     {Name: "DEPOT_TOKEN", Help: "Depot token. Not needed if Depot trusts the repository (OIDC)"},
	"secrets":         {Name: "BUILD_SECRETS", Help: "Build secrets, ID=VALUE, one per line"},
	"daytona_api_key": {Name: "DAYTONA_API_KEY", Help: "Daytona API key. Not needed if Doppler holds it"},
}

// commonSecrets contains the secrets that every workflow has.
var commonSecrets = []field{
	{
		Name: "DOCKER_AUTH_CONFIG",
		Help: `Registry logins to pull base images and to push, in the format of Docker's config.json: ` +
			`{"auths": {"HOST": {"auth": "base64 of USER:PASSWORD"}}}`,
	},
	{Name: "SANDBOX_ACTIONS_TOKEN", Help: "Token that can read this workflow's repository, if it is private"},
}

// expressions contains the values of action inputs that differ from ${{ inputs.NAME }}.
var expressions = map[string]string{
	"ref":              "${{ inputs.ref || github.sha }} # always set: the workspace contains the action, not the source",
	"update_doppler":   "${{ !inputs.update_doppler && 'false' || '' }} # true is the default, which needs no token",
	"doppler_project":  "${{ inputs.doppler_config && (inputs.doppler_project || vars.DOPPLER_PROJECT) || '' }}",
	"doppler_identity": "${{ inputs.doppler_config && (inputs.doppler_identity || vars.DOPPLER_IDENTITY) || '' }}",
	"doppler_token": "${{ inputs.doppler_config == 'prd' && secrets.DOPPLER_TOKEN_PRD || " +
		"inputs.doppler_config && secrets.DOPPLER_TOKEN || '' }}",
	"to_token":      "${{ inputs.to == 'prd' && secrets.DOPPLER_TOKEN_PRD || '' }}",
	"depot_project": "${{ inputs.depot_project || vars.DEPOT_PROJECT_ID }} # then depot.json",
	"name_prefix":   "${{ inputs.name_prefix || vars.SANDBOX_NAME_PREFIX }} # then the repository's name",
	"build_args":    "|\n            GITHUB_REPOSITORY\n            ${{ inputs.build_args }}",
	"git_context":   "${{ inputs.git_context || 'git' }}",
}

// actionExpressions is expressions for the inputs of one action. Without a Doppler token, the default config is not
// passed, because the snapshot does not need one then.
var actionExpressions = map[string]map[string]string{"snapshot": {
	"doppler_config": "${{ (inputs.doppler_config != 'dev' || inputs.doppler_identity || vars.DOPPLER_IDENTITY || " +
		"secrets.DOPPLER_TOKEN) && inputs.doppler_config || '' }}",
}}

// newWorkflow returns the reusable workflow of an action.
func newWorkflow(a action) (workflow, error) {
	config := workflowConfigs[a.Name]
	w := config.workflow
	w.Action = a.Name
	w.Reads = cmp.Or(w.Reads, "to resolve and fetch ref")
	w.Repository = "${{ job.workflow_sha && job.workflow_repository || " +
		"vars.SANDBOX_ACTIONS_REF && vars.SANDBOX_ACTIONS_REPOSITORY || github.repository }}"
	w.Commit = "${{ job.workflow_repository && job.workflow_sha || " +
		"vars.SANDBOX_ACTIONS_REPOSITORY && vars.SANDBOX_ACTIONS_REF || github.sha }}"
	for _, input := range a.Inputs {
		if slices.Contains(neverPassed, input.Name) || slices.Contains(config.omitted, input.Name) {
			continue
		}
		if secret, ok := secrets[input.Name]; ok {
			w.Secrets = append(w.Secrets, secret)
			if input.Name == "doppler_token" {
				w.Secrets = append(w.Secrets, field{
					Name: "DOPPLER_TOKEN_PRD", Help: "Service token of the config prd, if it differs from DOPPLER_TOKEN",
				})
			}
			w.pass(input.Name, "${{ secrets."+secret.Name+" }}")
			continue
		}
		if input.Name == "to_token" { // one of the secrets above
			w.pass(input.Name, "")
			continue
		}
		name := input.Name
		if renamed, ok := config.rename[name]; ok {
			name = renamed
		}
		if value, ok := actionDefault[a.Name][input.Name]; ok {
			input.Default = value
		}
		w.Call = append(w.Call, newField(name, input))
		w.pass(input.Name, "${{ inputs."+name+" }}")
		if input.Name == "save" && a.Name == "build" {
			w.pass("load", "${{ !inputs.save && !inputs.push }} # saved and pushed images are pulled when needed")
		}
	}
	if w.Artifact != "" {
		w.Call = append(w.Call, field{
			"artifact_name", "Name of the artifact with the report. Use a different name for each call in a run.", "string",
			strconv.Quote(w.Artifact),
		})
	}
	w.Call = append(w.Call, config.own...)
	w.Secrets = append(w.Secrets, commonSecrets...)
	for _, name := range config.dispatch {
		i := slices.IndexFunc(w.Call, func(f field) bool { return f.Name == name })
		if i < 0 {
			return workflow{}, fmt.Errorf("%s: unknown dispatch input %s", w.File, name)
		}
		w.Dispatch = append(w.Dispatch, w.Call[i])
	}
	for _, o := range a.Outputs {
		onRunner := []string{"image_name", "report", "report_html", "record"} // they refer to data on the runner
		if !slices.Contains(onRunner, o.Name) {
			w.Outputs = append(w.Outputs, o)
		}
	}
	return w, nil
}

// presetImageName sets the default of the input image_name if a person starts the workflow, which is only possible in
// this repository. Other repositories call it.
func (w *workflow) presetImageName(name string) {
	for i := range w.Dispatch {
		if w.Dispatch[i].Name == "image_name" {
			w.Dispatch[i].Default = strconv.Quote(name)
		}
	}
}

// pass sets an input of the action to value, or to the value in actionExpressions or expressions if it has one.
func (w *workflow) pass(name, value string) {
	if expression, ok := actionExpressions[w.Action][name]; ok {
		value = expression
	} else if expression, ok := expressions[name]; ok {
		value = expression
	}
	w.With = append(w.With, assignment{name, value})
}

// newField returns the workflow input for an action input.
func newField(name string, input inputs.Field) field {
	f := field{Name: name, Help: input.Help, Type: "string", Default: input.Default}
	if help, ok := workflowHelp[input.Name]; ok {
		f.Help = help
	}
	if value, ok := workflowDefault[input.Name]; ok {
		f.Default = value
	}
	if f.Default == "true" || f.Default == "false" {
		f.Type = "boolean"
	} else {
		f.Default = strconv.Quote(f.Default)
	}
	return f
}
