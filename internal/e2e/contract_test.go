package e2e

import (
	"maps"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// actionFile is the content of action.yml.
type actionFile struct {
	Inputs  map[string]struct{ Default string }
	Outputs map[string]struct{ Value string }
	Runs    struct {
		Steps []struct{ Shell, Run string }
	}
}

// readAction parses action.yml of an action.
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

// The actions have the documented input names and defaults and output names.
func TestActionContract(t *testing.T) {
	buildInputs := values{
		"ref": "", "allow_untrusted_ref": "false", "allow_untrusted_secrets": "false", "submodules": "",
		"lfs": "true", "platform": "linux/amd64",
		"doppler_config": "", "doppler_project": "", "doppler_token": "", "doppler_identity": "",
		"context": ".", "dockerfile": "", "target": "", "image_name": "sandbox:ci",
		"build_args": "", "build_contexts": "", "labels": "", "default_labels": "true", "annotations": "",
		"secrets": "", "secret_envs": "", "secret_files": "", "ssh": "", "allow": "", "add_hosts": "",
		"no_cache_filters": "", "outputs": "", "attests": "", "no_cache": "false", "pull": "false",
		"provenance": "", "sbom": "", "network": "", "shm_size": "", "ulimit": "", "cgroup_parent": "",
		"git_context": "", "load": "true", "push": "", "save": "false", "save_tags": "",
		"depot_project": "", "depot_token": "", "builder": "depot", "allow_plaintext_builder": "false",
		"github_token": "${{ github.token }}", "timeout": "30m", "doctor": "false",
		"report": "false", "report_dir": "", "previous_record": "", "previous_artifact": "",
		"comment": "false",
	}
	buildOutputs := []string{
		"digest", "image_id", "image_ref", "image_name", "platforms", "git_sha", "git_ref", "build_id", "build_url",
		"project_id", "cached_steps", "total_steps", "metadata", "report_html", "record",
	}
	for name, own := range map[string]struct {
		inputs     values
		outputs    []string
		standalone bool // does not extend build
	}{
		"build": {},
		"promote": {
			standalone: true,
			inputs: values{
				"name": "", "to": "", "require_verified": "false", "image": "", "region": "", "environment": "",
				"doppler_config": "", "doppler_project": "", "doppler_token": "", "doppler_identity": "", "to_token": "",
				"doppler_secret": "DAYTONA_SNAPSHOT_NAME", "doppler_mirror": "", "doppler_history": "true",
				"daytona_api_key": "", "daytona_organization_id": "", "daytona_api_url": "",
				"github_token": "${{ github.token }}", "timeout": "30m",
			},
			outputs: []string{
				"snapshot_name", "snapshot_id", "digest", "git_sha", "previous_snapshot", "doppler_updated",
			},
		},
		"snapshot": {
			inputs: values{
				"load": "false", "image": "", "expect_image_id": "", "name": "", "name_prefix": "",
				"cpu": "2", "memory": "4", "disk": "10", "gpu": "0", "sandbox_class": "", "entrypoint": "", "region": "",
				"variants": "", "attempts": "3", "make_room": "false", "if_exists": "reuse", "keep": "0",
				"keep_failed": "false", "verify": "",
				"update_doppler": "", "doppler_secret": "DAYTONA_SNAPSHOT_NAME", "doppler_mirror": "", "doppler_configs": "",
				"doppler_history": "true", "environment": "",
				"daytona_api_key": "", "daytona_organization_id": "", "daytona_api_url": "",
			},
			outputs: []string{
				"snapshot_name", "snapshot_id", "snapshot_state", "snapshot_size_gb", "reused", "verified", "snapshots",
				"doppler_updated",
			},
		},
		"test": {
			inputs: values{
				"image": "", "suite": "sandbox/tests.yaml", "allow_privileged": "false", "command": "",
				"parallel": "cores",
			},
			outputs: []string{"tests_total", "tests_passed", "tests_failed", "tests_skipped", "report"},
		},
	} {
		want, wantOutputs := merge(buildInputs, own.inputs), slices.Concat(buildOutputs, own.outputs)
		if own.standalone {
			want, wantOutputs = own.inputs, own.outputs
		}
		got := values{}
		for input, declared := range readAction(t, name).Inputs {
			got[input] = declared.Default
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: inputs %v, want %v", name, got, want)
		}
		outputs := slices.Sorted(slices.Values(wantOutputs))
		if got := outputsOf(t, name); !slices.Equal(got, outputs) {
			t.Errorf("%s: outputs %q, want %q", name, got, outputs)
		}
	}
}
