package e2e

import (
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// movingRow is a row of a table in docs/moving.md.
type movingRow struct {
	name    string
	depot   bool   // whether depot/build-push-action has it
	docker  bool   // whether docker/build-push-action has it
	here    string // the input or output here; empty for none
	differs string
}

// movingRows returns the rows of the table in docs/moving.md whose header begins with a column.
func movingRows(t *testing.T, column string) (rows []movingRow) {
	t.Helper()
	_, table, ok := strings.Cut(read(t, "../../docs/moving.md"), "| "+column+" | of | here |")
	if !ok {
		t.Fatalf("docs/moving.md has no table of %ss", column)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	pattern := regexp.MustCompile("(?m)^\\| `([A-Za-z_-]+)` \\| (both|depot|docker) \\|" + // name, of
		"(?: (?:`([a-z_]+)`)? ?\\|)? (.*) ?\\|$") // here, what differs; a variable has only the last one
	for _, m := range pattern.FindAllStringSubmatch(table, -1) {
		rows = append(rows, movingRow{
			name: m[1], depot: m[2] != "docker", docker: m[2] != "depot", here: m[3], differs: strings.TrimSpace(m[4]),
		})
	}
	if want := strings.Count(table, "\n| `"); len(rows) != want {
		t.Fatalf("the table of %ss has %d rows, of which %d are valid", column, want, len(rows))
	}
	return rows
}

// docs/moving.md has a row for each input, output and variable of docker/build-push-action and depot/build-push-action,
// and maps them only to existing inputs and outputs.
func TestMovingDocs(t *testing.T) {
	var upstream map[string]struct{ Inputs, Outputs, Variables []string }
	if err := yaml.Unmarshal([]byte(read(t, "testdata/build-push-actions.yaml")), &upstream); err != nil {
		t.Fatal(err)
	}
	docker, depot := upstream["docker/build-push-action"], upstream["depot/build-push-action"]
	for _, table := range []struct {
		column        string
		here          []string
		docker, depot []string
	}{
		{"input", inputsOf(t, "build"), docker.Inputs, depot.Inputs},
		{"output", outputsOf(t, "build"), docker.Outputs, depot.Outputs},
		{"variable", nil, docker.Variables, depot.Variables},
	} {
		var ofDocker, ofDepot []string
		for _, row := range movingRows(t, table.column) {
			if row.docker {
				ofDocker = append(ofDocker, row.name)
			}
			if row.depot {
				ofDepot = append(ofDepot, row.name)
			}
			if row.here != "" && !slices.Contains(table.here, row.here) {
				t.Errorf("%s: unknown input or output %s", row.name, row.here)
			}
			if row.here == "" && row.differs == "" {
				t.Errorf("%s has neither a counterpart nor a reason", row.name)
			}
		}
		for _, list := range []struct{ got, want []string }{{ofDocker, table.docker}, {ofDepot, table.depot}} {
			slices.Sort(list.got)
			slices.Sort(list.want)
			if len(list.want) == 0 || !slices.Equal(list.got, list.want) {
				t.Errorf("rows for %q, want %q", list.got, list.want)
			}
		}
	}
	_, text, _ := strings.Cut(read(t, "../../docs/moving.md"), "```diff")
	example, text, _ := strings.Cut(text, "```")
	_, scripts, _ := strings.Cut(text, "| the script |")
	all := slices.Concat(inputsOf(t, "snapshot"), inputsOf(t, "test"), inputsOf(t, "promote"), []string{"uses"})
	found := regexp.MustCompile("(?m)^\\+ +(?:- )?([a-z_]+):|`([a-z_]+):[^`/]*`").
		FindAllStringSubmatch(example+scripts, -1)
	for _, m := range found {
		if name := m[1] + m[2]; !slices.Contains(all, name) {
			t.Errorf("unknown input %s", name)
		}
	}
	if len(found) < 12 {
		t.Errorf("docs/moving.md: found only %d inputs", len(found))
	}
}

// movingInput is the case of an input's row in docs/moving.md.
type movingInput struct {
	value string // as in a workflow for the other action; empty if there is no counterpart here
	with  values // further inputs
	got   func(inputs.BuildSpec) any
	want  any
	err   string // part of the error, if the value is refused
}

// movingInputs has a case for each row: the value, and what it becomes here.
func movingInputs(dir string) map[string]movingInput {
	request := func(field string) func(inputs.BuildSpec) any {
		return func(s inputs.BuildSpec) any { return reflect.ValueOf(s.Request).FieldByName(field).Interface() }
	}
	spec := func(field string) func(inputs.BuildSpec) any {
		return func(s inputs.BuildSpec) any { return reflect.ValueOf(s).FieldByName(field).Interface() }
	}
	secrets := func(s inputs.BuildSpec) any {
		values, err := s.ReadSecrets()
		if err != nil {
			return err
		}
		return values
	}
	none := func(inputs.BuildSpec) any { return nil }
	return map[string]movingInput{
		"add-hosts": {
			value: "docker:10.180.0.1,host.docker.internal:host-gateway", with: values{"builder": "unix:///run/buildkit.sock"},
			got: request("AddHosts"), want: []string{"docker=10.180.0.1", "host.docker.internal=host-gateway"},
		},
		"allow": {
			value: "network.host,security.insecure", got: request("Allow"), want: []string{"network.host", "security.insecure"},
		},
		"annotations": {
			value: "manifest,index:a=b\nindex-descriptor:c=d", with: values{"push": "ghcr.io/a/b"},
			got:  func(s inputs.BuildSpec) any { return s.Annotations("linux/amd64") },
			want: values{"annotation.a": "b", "annotation-index.a": "b", "annotation-index-descriptor.c": "d"},
		},
		"attests": {
			value: "type=sbom,generator=image\ntype=provenance,mode=max", got: request("Attestations"),
			want: values{"sbom": "generator=image", "provenance": "mode=max"},
		},
		"build-args": {value: "A=1,2\nB=", got: request("BuildArgs"), want: values{"A": "1,2", "B": ""}},
		"build-contexts": {
			value: "a=docker-image://alpine\nb={{defaultContext}}:lib",
			got:   func(s inputs.BuildSpec) any { return []values{s.Request.Contexts, s.EventContexts} },
			want:  []values{{"a": "docker-image://alpine"}, {"b": "lib"}},
		},
		"build-platform": {
			with: values{"platform": "linux/amd64,linux/arm64,linux/arm/v7"}, got: spec("Platforms"),
			want: []string{"linux/amd64", "linux/arm64", "linux/arm/v7"},
		},
		"builder":         {value: "my-buildx-builder", err: "unix://"},
		"buildx-fallback": {got: none},
		"cache-from":      {got: none},
		"cache-to":        {got: none},
		"call":            {got: none},
		"cgroup-parent":   {value: "group", got: request("CgroupParent"), want: "group"},
		"context": {
			value: "{{defaultContext}}:docker", got: func(s inputs.BuildSpec) any { return []any{s.Context, s.EventCommit} },
			want: []any{"docker", true},
		},
		"file": {
			value: "app.Dockerfile", with: values{"context": "{{defaultContext}}:docker"}, got: spec("Dockerfile"),
			want: "docker/app.Dockerfile",
		},
		"github-token": {value: "ghs_1", got: spec("GitHubToken"), want: "ghs_1"},
		"labels": {
			value: "a=b,c\nd=e", got: func(s inputs.BuildSpec) any { return []any{s.Request.Labels, s.DefaultLabels} },
			want: []any{values{"a": "b,c", "d": "e"}, true},
		},
		"lint":             {got: none},
		"lint-fail-on":     {got: none},
		"load":             {got: spec("Load"), want: true},
		"network":          {value: "host", got: request("Allow"), want: []string{"network.host"}},
		"no-cache":         {value: "true", got: request("NoCache"), want: true},
		"no-cache-filters": {value: "a,b", got: request("NoCacheFilters"), want: []string{"a", "b"}},
		"outputs": {
			value: "type=cacheonly\ntype=docker\nout\ntype=oci,dest=a.tar", with: values{"load": "false"},
			got:  func(s inputs.BuildSpec) any { return []any{s.Load, s.Outputs} },
			want: []any{true, []string{"out", `type=oci,dest=a.tar,"name=sandbox:ci"`}},
		},
		"platforms": {
			value: "linux/arm64/v8,linux/386,linux/arm/v7", got: spec("Platforms"),
			want: []string{"linux/arm64", "linux/386", "linux/arm/v7"},
		},
		"project": {value: "abc123", got: spec("DepotProject"), want: "abc123"},
		"provenance": {
			with: values{"push": "ghcr.io/a/b"}, got: request("Attestations"),
			want: values{"provenance": "mode=min,inline-only=true"},
		},
		"pull":      {value: "true", got: request("Pull"), want: true},
		"push":      {value: "true", err: "takes as tags"},
		"save":      {value: "true", got: spec("Save"), want: true},
		"save-tag":  {value: "v1", with: values{"save": "true"}, got: spec("SaveTags"), want: []string{"v1"}},
		"save-tags": {value: "v1,v2", with: values{"save": "true"}, got: spec("SaveTags"), want: []string{"v1", "v2"}},
		"sbom":      {value: "generator=image", got: request("Attestations"), want: values{"sbom": "generator=image"}},
		"sbom-dir":  {with: values{"sbom": "true"}, got: request("Attestations"), want: values{"sbom": ""}},
		"secret-envs": {
			value: "A=SET,B=NOT_SET", got: secrets, want: values{"A": "of the environment"},
		},
		"secret-files": {value: "A=./file\nB=missing", got: secrets, want: values{"A": "of the file"}},
		"secrets":      {value: "A=string\n\"B=1\n2\"\nC=", got: secrets, want: values{"A": "string", "B": "1\n2"}},
		"shm-size":     {value: "2g", got: request("ShmSize"), want: int64(2 << 30)},
		"ssh": {
			value: "default=" + dir + "/file," + dir + "/file", got: request("SSH"),
			want: []image.SSH{{ID: "default", Paths: []string{dir + "/file", dir + "/file"}}},
		},
		"tags": {
			value: "name/app:1,name/app:2\nghcr.io/name/app", got: spec("Push"),
			want: []string{"docker.io/name/app:1", "docker.io/name/app:2", "ghcr.io/name/app:latest"},
		},
		"target": {value: "stage", got: request("Target"), want: "stage"},
		"token":  {value: "depot_1", got: spec("DepotToken"), want: "depot_1"},
		"ulimit": {value: "nofile=1024:1024", got: request("Ulimits"), want: []string{"nofile=1024:1024"}},
	}
}

// Each input of docker/build-push-action and depot/build-push-action has the effect that its row in docs/moving.md
// states.
func TestMovingInputs(t *testing.T) {
	dir := writeFiles(t, values{"file": "of the file"})
	environ := values{"GITHUB_ACTIONS": "true", "GITHUB_SHA": "1", "SET": "of the environment"}
	cases, known := movingInputs(dir), inputsOf(t, "build")
	rows := movingRows(t, "input")
	if len(rows) != len(cases) {
		t.Errorf("%d rows, %d cases", len(rows), len(cases))
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			test, ok := cases[row.name]
			if !ok {
				t.Fatal("the row has no case")
			}
			set := merge(values{}, test.with)
			if own := strings.ReplaceAll(row.name, "-", "_"); row.here == "" && slices.Contains(known, own) {
				t.Errorf("the row states that there is no input %s", own)
			}
			if test.value != "" {
				set[row.here] = test.value
			}
			spec, err := buildSpec(dir, environ, set)
			switch {
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), "input "+row.here) || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v, want an error about %s with %q", err, row.here, test.err)
				}
			case err != nil:
				t.Error(err)
			default:
				if got := test.got(spec); !reflect.DeepEqual(got, test.want) {
					t.Errorf("%#v, want %#v", got, test.want)
				}
			}
		})
	}
}

// buildSpec validates inputs of the build action.
func buildSpec(dir string, environ, set values) (inputs.BuildSpec, error) {
	variables := maps.Clone(environ)
	for name, value := range set {
		variables["INPUT_"+strings.ToUpper(name)] = value
	}
	var list []string
	for name, value := range variables {
		list = append(list, name+"="+value)
	}
	var in inputs.Build
	if _, err := (inputs.Source{Program: "action-build", Environ: list}).Parse(&in); err != nil {
		return inputs.BuildSpec{}, err
	}
	return in.Spec(inputs.Env{Dir: filepath.Clean(dir), Getenv: func(name string) string { return variables[name] }})
}
