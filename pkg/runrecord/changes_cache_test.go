package runrecord

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// build is a build of a Dockerfile. Steps that begin with ! were not cached.
type build struct {
	dockerfile string
	steps      []string
	files      map[string]string
	args       map[string]string
	inputs     []Input
}

func (b build) record() *Record {
	r := &Record{
		Inputs: b.inputs, Image: &Image{},
		Source: &Source{Definition: b.dockerfile, Files: b.files, BuildArgs: HashBuildArgs(b.args, redactSecret)},
	}
	for i, name := range b.steps {
		name, executed := strings.CutPrefix(name, "!")
		r.Steps = append(r.Steps, Step{Name: name, Offset: float64(i + 1), Cached: !executed})
	}
	return r
}

func redactSecret(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }

// The tests with real builds are in package imagecontent. These cases do not occur there.
func TestCacheBreakUnknown(t *testing.T) {
	const from = "[1/3] FROM docker.io/library/debian:12@sha256:1"
	simple := build{
		dockerfile: "FROM debian:12\nCOPY src /src\nRUN make\n",
		steps:      []string{from, "[2/3] COPY src /src", "[3/3] RUN make"},
		files:      map[string]string{"src/a": "100644 1"},
	}
	changed := func(change func(*build)) build {
		b := simple
		b.steps, b.files = slices.Clone(b.steps), maps.Clone(b.files)
		b.steps[1], b.steps[2] = "!"+b.steps[1], "!"+b.steps[2]
		b.files["src/a"] = "100644 2"
		change(&b)
		return b
	}
	found := &CacheBreak{Step: "[2/3] COPY src /src", Line: 2, Files: []string{"src/a"}}
	for _, test := range []struct {
		name          string
		before, after build
		want          *CacheBreak
	}{
		{"file", simple, changed(func(*build) {}), found},
		{"pruned cache", simple, changed(func(b *build) { b.files = simple.files }), nil},
		{"new instruction before the changed file", simple, changed(func(b *build) {
			b.dockerfile = "FROM debian:12\nRUN first\nCOPY src /src\n"
			b.steps = []string{from, "![2/3] RUN first", "![3/3] COPY src /src"}
		}), &CacheBreak{Step: "[2/3] RUN first", Line: 2, Instruction: true}},
		{"file whose content is unknown", simple, changed(func(b *build) { b.files["src/a"] = "" }), nil},
		{"files unknown", simple, changed(func(b *build) { b.files = nil }), nil},
		{"files of one run unknown", changed(func(b *build) { b.files = nil }), changed(func(*build) {}), nil},
		{"folded directory", simple, changed(func(b *build) {
			b.files = FoldFiles(b.files)
		}), &CacheBreak{Step: "[2/3] COPY src /src", Line: 2, Files: []string{"src/"}}},
		{"folded without a change", simple, changed(func(b *build) { b.files = FoldFiles(simple.files) }), nil},
		{"no_cache", simple, changed(func(b *build) { b.inputs = []Input{{Name: "no_cache", Value: "true"}} }), nil},
		{
			"no_cache_filters", simple, changed(func(b *build) { b.inputs = []Input{{Name: "no_cache_filters", Value: "x"}} }),
			nil,
		},
		{
			"no_cache: false", simple, changed(func(b *build) { b.inputs = []Input{{Name: "no_cache", Value: "false"}} }), found,
		},
		{"Dockerfile unknown", simple, changed(func(b *build) { b.dockerfile = "" }), nil},
		{"invalid Dockerfile", simple, changed(func(b *build) { b.dockerfile = "FROM\n" }), nil},
		{"triggers of the base image", simple, changed(func(b *build) {
			b.steps = []string{from, "[2/4] ONBUILD RUN x", "![3/4] COPY src /src", "![4/4] RUN make"}
		}), nil},
		{"step that the previous run did not reach", build{
			dockerfile: simple.dockerfile, steps: []string{from}, files: simple.files,
		}, changed(func(*build) {}), nil},
		{"platform in the name", simple, changed(func(b *build) {
			for i := range b.steps {
				b.steps[i] = strings.Replace(b.steps[i], "[", "[linux/amd64 ", 1)
			}
		}), &CacheBreak{Step: "[linux/amd64 2/3] COPY src /src", Line: 2, Files: []string{"src/a"}}},
		{"linked copy with its merge", simple, changed(func(b *build) {
			b.dockerfile = strings.Replace(b.dockerfile, "COPY src", "COPY --link src", 1)
			b.steps = []string{from, "![2/3] COPY --link src /src", "![2/3] LINK COPY --link src /src", "![3/3] RUN make"}
		}), &CacheBreak{Step: "[2/3] COPY --link src /src", Line: 2, Instruction: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := findCacheBreak(test.before.record(), test.after.record())
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// Arguments and variables on which the step RUN or COPY depends.
func TestCacheBreakVariables(t *testing.T) {
	for _, test := range []struct {
		name          string
		before, after string // instructions between FROM and the step
		step          string
		old, new      map[string]string // build arguments
		args, earlier []string
	}{
		{"argument", "ARG V", "ARG V", "RUN x", map[string]string{"V": "1"}, map[string]string{"V": "2"}, []string{"V"}, nil},
		{"argument is new", "ARG V", "ARG V", "RUN x", nil, map[string]string{"V": "2"}, []string{"V"}, nil},
		{"argument is gone", "ARG V", "ARG V", "RUN x", map[string]string{"V": "2"}, nil, []string{"V"}, nil},
		{
			"secret argument", "ARG V", "ARG V", "RUN x", map[string]string{"V": "hunter2"}, map[string]string{"V": "2"}, nil,
			nil,
		},
		{
			"argument that is not declared", "", "", "RUN x", map[string]string{"V": "1"}, map[string]string{"V": "2"}, nil, nil,
		},
		{"argument that a variable replaces", "ARG V\nENV V=3", "ARG V\nENV V=3", "RUN x",
			map[string]string{"V": "1"}, map[string]string{"V": "2"}, nil, nil},
		{"argument in a variable", "ARG V\nENV W=a$V", "ARG V\nENV W=a$V", "RUN x",
			map[string]string{"V": "1"}, map[string]string{"V": "2"}, []string{"V"}, nil},
		{"argument that a copy does not name", "ARG V", "ARG V", "COPY src /", map[string]string{"V": "1"},
			map[string]string{"V": "2"}, nil, nil},
		{"argument that a copy names", "ARG V", "ARG V", "COPY src /$V", map[string]string{"V": "1"},
			map[string]string{"V": "2"}, []string{"V"}, nil},
		{"default of an argument", "ARG V=1", "ARG V=2", "RUN x", nil, nil, nil, []string{"ARG V=1", "ARG V=2"}},
		{"default that is overridden", "ARG V=1", "ARG V=2", "RUN x", map[string]string{
			"V": "9",
		}, map[string]string{"V": "9"},
			nil, nil},
		{"variable", "ENV V=1", "ENV V=2", "RUN x", nil, nil, nil, []string{"ENV V=1", "ENV V=2"}},
		{"variable that a copy does not name", "ENV V=1", "ENV V=2", "COPY src /", nil, nil, nil, nil},
		{"variable that a copy names", "ENV V=1\nENV W=$V", "ENV V=2\nENV W=$V", "COPY src /${W}", nil, nil, nil,
			[]string{"ENV V=1", "ENV V=2"}},
		{"user", "USER a", "USER b", "RUN x", nil, nil, nil, []string{"USER a", "USER b"}},
		{"user before a copy", "USER a", "USER b", "COPY src /", nil, nil, nil, nil},
		{"shell", `SHELL ["a"]`, `SHELL ["b"]`, "RUN x", nil, nil, nil, []string{`SHELL ["a"]`, `SHELL ["b"]`}},
		{"shell of another form", `SHELL ["a"]`, `SHELL ["b"]`, `RUN ["x"]`, nil, nil, nil, nil},
		{"label", "LABEL a=b", "LABEL a=c", "RUN x", nil, nil, nil, nil},
		{"command", "CMD a", "ENTRYPOINT c", "RUN x", nil, nil, nil, nil},
		{"comment", "ENV V=1", "# comment\nENV \\\n # comment\n V=1", "RUN x", nil, nil, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			record := func(instructions string, args map[string]string, step string) *Record {
				return build{
					dockerfile: "FROM scratch\n" + instructions + "\n" + test.step + "\n",
					steps:      []string{step}, args: args,
				}.record()
			}
			name := "[1/1] " + test.step
			got := findCacheBreak(record(test.before, test.old, name), record(test.after, test.new, "!"+name))
			if got == nil {
				got = &CacheBreak{}
			}
			if !slices.Equal(got.BuildArgs, test.args) || !slices.Equal(got.Earlier, test.earlier) || got.Instruction {
				t.Errorf("got %+v, want the arguments %q and the instructions %q", got, test.args, test.earlier)
			}
		})
	}
}

// Arguments before the first stage.
func TestCacheBreakGlobalArguments(t *testing.T) {
	for _, test := range []struct {
		name, before, after string
		want                []string
	}{
		{
			"inherited default", "ARG V=1\nFROM scratch\nARG V\n", "ARG V=2\nFROM scratch\nARG V\n",
			[]string{"ARG V=1", "ARG V=2"},
		},
		{"own default", "ARG V=1\nFROM scratch\nARG V=3\n", "ARG V=2\nFROM scratch\nARG V=3\n", nil},
		{"not declared in the stage", "ARG V=1\nFROM scratch\n", "ARG V=2\nFROM scratch\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := build{dockerfile: test.before + "RUN x\n", steps: []string{"[1/1] RUN x"}}
			after := build{dockerfile: test.after + "RUN x\n", steps: []string{"![1/1] RUN x"}}
			got := findCacheBreak(before.record(), after.record())
			if got == nil {
				got = &CacheBreak{}
			}
			if !slices.Equal(got.Earlier, test.want) {
				t.Errorf("got %q, want %q", got.Earlier, test.want)
			}
		})
	}
}

func TestContextSources(t *testing.T) {
	for _, test := range []struct {
		instruction, step string
		changed           string
		want              bool
	}{
		{"COPY . /", "", "a/b", true},
		{"COPY ./ /", "", "a/b", true},
		{"COPY /a /", "", "a/b", true},
		{"COPY ../a /", "", "a/b", true},
		{"COPY a /", "", "ab", false},
		{"COPY a/b/c /", "", "a/b", false},
		{"COPY *.go /", "", "a.go", true},
		{"COPY *.go /", "", "a/b.go", false},
		{"COPY a*/b /", "", "abc/b/c", true},
		{"COPY --parents **/*.go /", "", "a/b/c.go", true},
		{"COPY --exclude=*.md . /", "", "README.md", false},
		{"COPY --exclude=*.md . /", "", "README.txt", true},
		{"COPY --exclude=b . /", "", "a/b", false}, // relative to a source that may be the directory a
		{"COPY --exclude=b . /", "", "a/", false},
		{"COPY a/ /", "", "a/", true},
		{"COPY a/b /", "", "a/", false},
		{"COPY $X /", "COPY a /", "a", true},
		{"COPY $X /", "COPY *** /", "a", false}, // a secret
		{"COPY $X /", "COPY $X /", "a", false},
		{"COPY --from=other a /", "", "a", false},
		{"COPY [\"a b\", \"/\"]", "", "a b", true},
		{"ADD a /", "", "a", true},
		{"ADD https://example.com/a /", "", "a", false},
		{"ADD https://github.com/a/b.git /", "", "a", false},
		{"ADD git@github.com:a/b.git /", "", "git@github.com:a/b.git", false},
		{"RUN --mount=type=bind,source=a,target=/a x", "", "a/b", true},
		{"RUN --mount=target=/a x", "", "a/b", true},
		{"RUN --mount=type=bind,from=other,target=/a x", "", "a/b", false},
		{"RUN --mount=type=cache,target=/a x", "", "a/b", false},
		{"RUN --mount=type=$X,target=/a x", "", "a/b", false},
		{"RUN --mount=source=$X,target=/a x", "RUN --mount=source=b,target=/a x", "b/c", true},
		{"RUN x", "", "a/b", false},
		{"WORKDIR /x", "", "a/b", false},
	} {
		t.Run(test.instruction+" "+test.changed, func(t *testing.T) {
			d := parseDockerfile("FROM scratch\n" + test.instruction + "\n")
			c := cacheComparison{
				previous: &Record{Source: &Source{Files: map[string]string{test.changed: "1"}}},
				current:  &Record{Source: &Source{Files: map[string]string{test.changed: "2"}}},
			}
			files := c.changedSources(Step{Name: "[1/1] " + test.step}, d.stages[0].instructions[0])
			if got := len(files) == 1; got != test.want {
				t.Errorf("got %q", files)
			}
		})
	}
}

func TestLocateSteps(t *testing.T) {
	const definition = "# syntax=docker/dockerfile:1\nARG V=1\nFROM debian AS Build\nRUN \\\n  a\nFROM build\n" +
		"WORKDIR /\nWORKDIR /app\nENV A=b\nCOPY <<EOF /x\ntext\nEOF\nFROM scratch\nCOPY --from=1 /x /\n"
	steps := []Step{
		{Name: "[internal] load build definition from Dockerfile"}, {Name: "[build 1/2] FROM docker.io/library/debian"},
		{Name: "[build 2/2] RUN   a"}, {Name: "[linux/amd64 stage-1 1/3] WORKDIR /app"},
		{Name: "[linux/amd64->arm64 stage-1 2/3] COPY <<EOF /x"}, {Name: "[stage-2 1/1] COPY --from=1 /x /"},
		{Name: "[stage-2 1/1] RUN other"}, {Name: "[stage-9 1/1] RUN other"}, {Name: "exporting to image"},
	}
	LocateSteps(steps, definition)
	want := map[int]Step{2: {Stage: "build", Line: 4}, 3: {Stage: "stage-1", Line: 8}, 4: {Stage: "stage-1", Line: 10},
		5: {Stage: "stage-2", Line: 14}}
	for i, s := range steps {
		if s.Stage != want[i].Stage || s.Line != want[i].Line {
			t.Errorf("%s: got stage %q, line %d; want %q, %d", s.Name, s.Stage, s.Line, want[i].Stage, want[i].Line)
		}
	}
	single := []Step{{Name: "[ 2/12] RUN x"}, {Name: "[2/2] RUN x"}}
	LocateSteps(single, "FROM debian AS only\nRUN x\n")
	if single[0].Line != 0 || single[1].Line != 2 || single[1].Stage != "" {
		t.Errorf("got %+v", single)
	}
}

func TestHashBuildArgs(t *testing.T) {
	got := HashBuildArgs(map[string]string{"A": "1", "B": "1", "C": "2", "TOKEN": "x-hunter2"}, redactSecret)
	if got["A"] == "" || got["A"] != got["B"] || got["A"] == got["C"] || got["TOKEN"] != "" || len(got) != 4 {
		t.Errorf("got %q", got)
	}
}
