package inputs

import (
	"reflect"
	"testing"
)

func TestAttestations(t *testing.T) {
	const push = "INPUT_PUSH=ghcr.io/a/b:1"
	for _, test := range []struct {
		name      string
		variables []string
		want      map[string]string
	}{
		{"loaded only", nil, map[string]string{}},
		{"pushed", []string{push}, map[string]string{"provenance": defaultProvenance}},
		{"saved", []string{"INPUT_SAVE=true"}, map[string]string{"provenance": defaultProvenance}},
		{"pushed without", []string{push, "INPUT_PROVENANCE=false"}, map[string]string{}},
		{
			"pushed, with attests", []string{push, "INPUT_ATTESTS=type=provenance,mode=max"},
			map[string]string{"provenance": "mode=max"},
		},
		{
			"provenance before attests", []string{"INPUT_ATTESTS=type=provenance,mode=max", "INPUT_PROVENANCE=mode=min"},
			map[string]string{"provenance": "mode=min"},
		},
		{"disabled", []string{"INPUT_ATTESTS=type=sbom,disabled=true"}, map[string]string{}},
		{
			"short form", []string{"INPUT_ATTESTS=sbom", "INPUT_PROVENANCE=true"},
			map[string]string{"sbom": "", "provenance": ""},
		},
		{
			"quoted attribute", []string{`INPUT_ATTESTS="type=sbom,""generator=a,b"""`},
			map[string]string{"sbom": `"generator=a,b"`},
		},
		{"upper case", []string{"INPUT_ATTESTS=Type=sbom,Disabled=0,generator=a"}, map[string]string{"sbom": "generator=a"}},
		{"generator", []string{"INPUT_SBOM=generator=a/b"}, map[string]string{"sbom": "generator=a/b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()}, test.variables...)
			if err != nil || !reflect.DeepEqual(spec.Request.Attestations, test.want) {
				t.Errorf("%v, %v; want %v", spec.Request.Attestations, err, test.want)
			}
		})
	}
}

// A provenance attestation names the workflow run as its builder, as that of docker/build-push-action does.
func TestProvenanceInActions(t *testing.T) {
	const push = "INPUT_PUSH=ghcr.io/a/b:1"
	const id = "builder-id=https://github.example/a/b/actions/runs/7/attempts/2"
	variables := map[string]string{
		"GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7",
		"GITHUB_RUN_ATTEMPT": "2",
	}
	env := Env{Dir: t.TempDir(), Getenv: func(name string) string { return variables[name] }}
	for _, test := range []struct{ variable, want string }{
		{"INPUT_PROVENANCE=", defaultProvenance + "," + id},
		{"INPUT_PROVENANCE=true", id},
		{"INPUT_PROVENANCE=mode=max", "mode=max," + id},
		{"INPUT_ATTESTS=type=provenance,mode=max", "mode=max," + id},
		{"INPUT_PROVENANCE=builder-id=mine,mode=max", "builder-id=mine,mode=max"},
		{"INPUT_PROVENANCE=false", ""},
	} {
		spec, err := buildSpec(t, env, push, test.variable)
		if got := spec.Request.Attestations["provenance"]; err != nil || got != test.want {
			t.Errorf("%s: %s, %v; want %s", test.variable, got, err, test.want)
		}
	}
	variables["BUILDX_NO_DEFAULT_ATTESTATIONS"] = "1"
	for variable, want := range map[string]int{"INPUT_PROVENANCE=": 0, "INPUT_PROVENANCE=true": 1, "INPUT_SBOM=true": 1} {
		spec, err := buildSpec(t, env, push, variable)
		if err != nil || len(spec.Request.Attestations) != want {
			t.Errorf("%s without default attestations: %v, %v", variable, spec.Request.Attestations, err)
		}
	}
}
