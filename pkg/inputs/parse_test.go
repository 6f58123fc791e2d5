package inputs

import (
	"bytes"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// parseBuild reads build inputs as action-build does.
func parseBuild(t *testing.T, args, environ []string) (Build, []string, error) {
	t.Helper()
	var in Build
	warnings, err := Source{Program: "action-build", Args: args, Environ: environ, Stdout: &bytes.Buffer{}}.Parse(&in)
	return in, warnings, err
}

func TestLists(t *testing.T) {
	for _, test := range []struct {
		name, text string
		list       []string // split at commas
		lines      []string // commas kept
	}{
		{"one", "a", []string{"a"}, []string{"a"}},
		{"lines", "a\nb\n", []string{"a", "b"}, []string{"a", "b"}},
		{"commas", "a,b\nc", []string{"a", "b", "c"}, []string{"a,b", "c"}},
		{"blank lines and spaces", "\n  a \n\n\tb\n", []string{"a", "b"}, []string{"a", "b"}},
		{"comments", "# one\na\n  # two\nb#c", []string{"a", "b#c"}, []string{"a", "b#c"}},
		{"quoted comma", `"a,b",c`, []string{"a,b", "c"}, []string{"a,b,c"}},
		{"quoted line break", "\"A=1\n2\"\nB=3", []string{"A=1\n2", "B=3"}, []string{"A=1\n2", "B=3"}},
		{"doubled quotes", `"A=say ""yes"""`, []string{`A=say "yes"`}, []string{`A=say "yes"`}},
		{"bare quotes", `A={"b": 1}`, []string{`A={"b": 1}`}, []string{`A={"b": 1}`}},
		{"spaces after commas", "A=b, c", []string{"A=b", "c"}, []string{"A=b, c"}},
		{"Windows line breaks", "a\r\nb\r\n", []string{"a", "b"}, []string{"a", "b"}},
		{"byte order mark", "\ufeff\"A=1\"\nB", []string{"A=1", "B"}, []string{"A=1", "B"}},
		{"empty", "\n \n", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, _, err := parseBuild(t, nil, []string{"INPUT_ALLOW=" + test.text, "INPUT_LABELS=" + test.text})
			if err != nil {
				t.Fatal(err)
			}
			if got := Texts(in.Allow); !reflect.DeepEqual(got, test.list) {
				t.Errorf("List %q, want %q", got, test.list)
			}
			if got := Texts(in.Labels); !reflect.DeepEqual(got, test.lines) {
				t.Errorf("Lines %q, want %q", got, test.lines)
			}
		})
	}
}

func TestRepeatedFlagAppends(t *testing.T) {
	in, _, err := parseBuild(t, []string{"--labels", "a=1", "--labels", "b=2\nc=3"}, nil)
	if want := []string{"a=1", "b=2", "c=3"}; err != nil || !slices.Equal(Texts(in.Labels), want) {
		t.Errorf("labels %q, %v; want %q", Texts(in.Labels), err, want)
	}
}

func TestLineNumbersOfItems(t *testing.T) {
	in, _, err := parseBuild(t, nil, []string{"INPUT_LABELS=# comment\na=1\n\"b=\n2\"\n\nc=3"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Lines{{"a=1", 2}, {"b=\n2", 3}, {"c=3", 6}}); !reflect.DeepEqual(in.Labels, want) {
		t.Errorf("labels %v, want %v", in.Labels, want)
	}
}

func TestPrecedence(t *testing.T) {
	native := "linux/" + runtime.GOARCH
	for _, test := range []struct {
		name          string
		args, environ []string
		platform      string
		image         string
		load          bool
	}{
		{"terminal", nil, nil, native, "sandbox:local", true},
		{"GitHub Actions", nil, []string{"GITHUB_ACTIONS=true"}, "linux/amd64", "sandbox:ci", true},
		{"variables of a developer", nil,
			[]string{"SANDBOX_BUILD_PLATFORM=linux/arm64", "LOCAL_DOCKER_IMAGE_NAME=mine:dev"}, "linux/arm64", "mine:dev", true},
		{"inputs before variables of a developer", nil, []string{
			"GITHUB_ACTIONS=true", "INPUT_PLATFORM=linux/arm64", "INPUT_IMAGE_NAME=x:y", "INPUT_LOAD=false",
			"SANDBOX_BUILD_PLATFORM=linux/amd64", "LOCAL_DOCKER_IMAGE_NAME=mine:dev",
		}, "linux/arm64", "x:y", false},
		{"empty inputs count as not set", nil,
			[]string{
				"GITHUB_ACTIONS=true", "INPUT_PLATFORM=", "INPUT_IMAGE_NAME= ", "INPUT_LOAD=",
			}, "linux/amd64", "sandbox:ci", true},
		{"flags before inputs", []string{"--platform", "linux/amd64", "--no-load", "--image-name=f:1"},
			[]string{"INPUT_PLATFORM=linux/arm64", "INPUT_LOAD=true", "INPUT_IMAGE_NAME=x:y"}, "linux/amd64", "f:1", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, _, err := parseBuild(t, test.args, test.environ)
			if err != nil {
				t.Fatal(err)
			}
			platform, image := strings.Join(Texts(in.Platform), ","), strings.Join(Texts(in.ImageName), ",")
			if platform != test.platform || image != test.image || in.Load != test.load {
				t.Errorf("platform %s, image_name %s, load %t; want %s, %s, %t",
					platform, image, in.Load, test.platform, test.image, test.load)
			}
		})
	}
}

func TestDefaultsOfEachCommand(t *testing.T) {
	parse := func(target any, environ ...string) {
		t.Helper()
		if _, err := (Source{Environ: environ, Stdout: &bytes.Buffer{}}).Parse(target); err != nil {
			t.Fatal(err)
		}
	}
	const actions, developer = "GITHUB_ACTIONS=true", "LOCAL_DOCKER_IMAGE_NAME=mine:dev"

	var snapshot, terminalSnapshot, ownSnapshot Snapshot
	parse(&snapshot, actions, developer)
	parse(&terminalSnapshot)
	parse(
		&ownSnapshot,
		developer,
		"DAYTONA_DEFAULT_SNAPSHOT_CPU=8",
		"DAYTONA_DEFAULT_SNAPSHOT_MEMORY=16",
		"DAYTONA_DEFAULT_SNAPSHOT_DISK=50",
	)
	if snapshot.Load || snapshot.DopplerConfig != "" || snapshot.Image != "" {
		t.Errorf("snapshot: load %t, doppler_config %q, image %q", snapshot.Load, snapshot.DopplerConfig, snapshot.Image)
	}
	if got := Texts(terminalSnapshot.Platform); terminalSnapshot.Image != "sandbox:local" ||
		!slices.Equal(got, []string{SnapshotPlatform}) {
		t.Errorf("snapshot at a terminal: image %q, platform %q", terminalSnapshot.Image, got)
	}
	if s := ownSnapshot; s.Image != "mine:dev" || s.CPU != "8" || s.Memory != "16" || s.Disk != "50" {
		t.Errorf("snapshot of a developer: image %q, cpu %s, memory %s, disk %s", s.Image, s.CPU, s.Memory, s.Disk)
	}

	var test, terminalTest Test
	parse(&test, actions, developer)
	parse(&terminalTest, developer)
	if !test.Load || test.DopplerConfig != "" || test.Image != "" || test.Suite != DefaultSuite {
		t.Errorf(
			"test: load %t, doppler_config %q, image %q, suite %q",
			test.Load,
			test.DopplerConfig,
			test.Image,
			test.Suite,
		)
	}
	if terminalTest.Image != "mine:dev" {
		t.Errorf("test at a terminal: image %q", terminalTest.Image)
	}

	var list ListSnapshots
	parse(&list, actions)
	if list.DopplerConfig != "" || list.NamePrefix != "sandbox" {
		t.Errorf("list: doppler_config %q, name_prefix %q", list.DopplerConfig, list.NamePrefix)
	}
	var shell Shell
	parse(&shell)
	if shell.Image != "sandbox:local" {
		t.Errorf("shell: image %q", shell.Image)
	}
}

func TestUnknownInputs(t *testing.T) {
	_, warnings, err := parseBuild(t, nil, []string{"INPUT_PLATFROM=linux/amd64", "INPUT_BUILD_ARG=A=1", "INPUT_REF=main"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"unknown input build_arg; did you mean build_args?", "unknown input platfrom; did you mean platform?"}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
}

func TestNoUnusedHelpTexts(t *testing.T) {
	used := map[string]bool{}
	for _, target := range []any{
		&Build{}, &Snapshot{}, &Test{}, &Shell{}, &ListSnapshots{}, &DeleteSnapshot{}, &Promote{},
	} {
		fields, err := Fields(target)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range fields {
			used[field.Name] = true
		}
	}
	for name := range help {
		if !used[name] {
			t.Errorf("help has a text for %s, which is not an input", name)
		}
	}
}

func TestFields(t *testing.T) {
	fields, err := Fields(&Test{})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]Field{}
	for _, field := range fields {
		byName[field.Name] = field
	}
	for name, want := range map[string]Field{
		"depot_token":  {Flag: "depot-token", Secret: true},
		"github_token": {Flag: "github-token", Default: "${{ github.token }}", Secret: true},
		"secrets":      {Flag: "secrets", Secret: true},
		"load":         {Flag: "load", Default: "true", Bool: true},
		"no_cache":     {Flag: "no-cache", Default: "false", Bool: true},
		"ssh":          {Flag: "ssh"},
		"timeout":      {Flag: "timeout", Default: "30m"},
		"seed":         {Flag: "seed", CLIOnly: true},
	} {
		want.Name, want.Help = name, byName[name].Help
		if byName[name] != want {
			t.Errorf("%s: %+v, want %+v", name, byName[name], want)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"--", "ls"}, {"ls", "-l"}} {
		var shell Shell
		if _, err := (Source{Program: "action-test shell", Args: args, Stdout: &bytes.Buffer{}}).Parse(&shell); err != nil {
			t.Errorf("shell %q: %v", args, err)
		}
		if !slices.Equal(shell.Cmd, args) {
			t.Errorf("shell %q: command %q", args, shell.Cmd)
		}
	}
}

// Only values are masked: masking a name instead would hide it in every message and leave the value in the log.
func TestSecretValues(t *testing.T) {
	in, _, err := parseBuild(t, nil, []string{
		"INPUT_SECRETS=TOKEN=hunter2=x\nOTHER=correct horse", "INPUT_DOPPLER_TOKEN=dp.st.1",
		"INPUT_DEPOT_TOKEN=depot", "INPUT_GITHUB_TOKEN=ghs",
		"INPUT_CONTEXT=https://x:in-context@git.example/a.git", "INPUT_BUILD_CONTEXTS=a=https://in-list@git.example/a.git",
	})
	if err != nil {
		t.Fatal(err)
	}
	var urlSecrets []string
	want := map[string]string{
		"the build secret TOKEN": "hunter2=x", "the build secret OTHER": "correct horse", "the input depot_token": "depot",
		"the input doppler_token": "dp.st.1", "the input github_token": "ghs",
	}
	got := SecretValues(&in)
	for description, secret := range got {
		if strings.HasPrefix(description, "password ") {
			urlSecrets = append(urlSecrets, secret)
			delete(got, description)
		}
	}
	slices.Sort(urlSecrets)
	if !maps.Equal(got, want) || !slices.Equal(urlSecrets, []string{"in-context", "in-list"}) {
		t.Errorf("secrets %q, want %q", got, want)
	}
	got = SecretValues(Snapshot{Daytona: Daytona{DaytonaAPIKey: "dtn"}})
	if got["the input daytona_api_key"] != "dtn" {
		t.Errorf("secrets of a snapshot %q lack the Daytona key", got)
	}
}
