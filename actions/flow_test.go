package actions

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/source"
	"github.com/org/sandbox-actions/pkg/suite"
)

// testJob returns a job with an environment, and the buffers that receive its standard output and standard error.
func testJob(t *testing.T, environ map[string]string) (job, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string { return environ[name] }
	env := Env{Runner: runner.New(&stdout, &stderr, getenv), Getenv: getenv, Dir: t.TempDir(), Stdout: &stdout}
	return job{Env: env, Scratch: t.TempDir(), Event: runner.ReadEvent(getenv), Started: time.Now()}, &stdout, &stderr
}

func TestExitCodes(t *testing.T) {
	failed := errors.New("failed")
	for _, test := range []struct {
		name   string
		err    error
		code   int
		stderr string
	}{
		{"success", nil, 0, ""},
		{"help", fmt.Errorf("parse: %w", inputs.ErrHelp), 0, ""},
		{"failure", failed, 1, "error: failed\n"},
		{"a command's exit code", fmt.Errorf("test: %w", &ExitError{7, failed}), 7, "error: test: failed\n"},
		{"already reported", &ExitError{Code: 3}, 3, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, stderr := testJob(t, nil)
			if code := report(job.Runner, test.err); code != test.code || stderr.String() != test.stderr {
				t.Errorf("code %d, stderr %q; want %d, %q", code, stderr, test.code, test.stderr)
			}
		})
	}
}

func TestBuildErrorIsAnnotatedAtItsLine(t *testing.T) {
	job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
	report(job.Runner, fmt.Errorf("build: %w", &image.BuildError{
		Position: image.Position{File: "sandbox/Dockerfile", Line: 3, EndLine: 4}, ExitCode: 2,
		Output: []string{"one", "two", "three", "::error::four"},
	}))
	for _, field := range []string{
		"file=sandbox/Dockerfile", "line=3", "endLine=4", "%0Aone%0Atwo%0Athree%0A::error::four",
	} {
		if !strings.Contains(stdout.String(), field) {
			t.Errorf("%q lacks %s", stdout, field)
		}
	}
	if lines := strings.Count(stdout.String(), "\n"); lines != 1 {
		t.Errorf("%d lines, want one command: %q", lines, stdout)
	}
}

func contentOf(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// The last lines of a failed step end the log, outside of a group.
func TestReportFailure(t *testing.T) {
	job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
	job.Runner.Mask("hunter2-hunter2")
	failed := &image.BuildError{
		Position: image.Position{File: "Dockerfile", Line: 3, Excerpt: "   3 | >>> RUN make hunter2-hunter2\n"},
		Step:     "RUN make hunter2-hunter2", ExitCode: 2, Output: []string{"```", "::error::forged"},
	}
	stdout.Reset()
	logFailure(job, fmt.Errorf("build: %w", failed))
	log := regexp.MustCompile(`\w{26}`).ReplaceAllString(stdout.String(), "TOKEN")
	const wantLog = "::stop-commands::TOKEN\nLast output of RUN make ***:\n```\n::error::forged\n" +
		"   3 | >>> RUN make ***\n" +
		"::TOKEN::\n"
	if log != wantLog {
		t.Errorf("the log is\n%s", stdout)
	}
	stdout.Reset()
	logFailure(job, errors.New("not of the build"))
	if stdout.Len() > 0 {
		t.Errorf("the log is\n%s", stdout)
	}
}

func TestLoadPlatform(t *testing.T) {
	for _, test := range []struct {
		platforms []string
		native    string
		want      string // empty: an error
	}{
		{[]string{"linux/arm64"}, "linux/amd64", "linux/arm64"},
		{[]string{"linux/amd64", "linux/arm64"}, "linux/arm64", "linux/arm64"},
		{[]string{"linux/amd64", "linux/arm64"}, "linux/riscv64", ""},
	} {
		got, err := loadPlatform(test.platforms, test.native)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q on %s: %q, %v; want %q", test.platforms, test.native, got, err, test.want)
		}
	}
}

// On the command line, a directory that is not a git repository is built without the git context, unless the input
// requires it.
func TestGitContextWithoutCommit(t *testing.T) {
	job, _, _ := testJob(t, nil)
	job.Dir, job.Scratch = t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(job.Dir, "Dockerfile"), []byte("FROM scratch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := inputs.BuildSpec{Context: ".", Dockerfile: "Dockerfile", GitContext: "git", GitContextOptional: true}
	checkout, err := openCheckout(t.Context(), job, spec)
	if err != nil {
		t.Fatal(err)
	}
	found, err := resolveSource(t.Context(), job, spec, credentials.Doppler{}, checkout)
	if err == nil {
		found, err = fetchSource(t.Context(), job, spec, credentials.Doppler{}, found)
	}
	if err != nil || found.Paths.Contexts["git"] != "" {
		t.Errorf("optional: contexts %v, %v", found.Paths.Contexts, err)
	}
	spec.GitContextOptional = false
	_, err = resolveSource(t.Context(), job, spec, credentials.Doppler{}, checkout)
	if invalid := (*inputs.Error)(nil); !errors.As(err, &invalid) || invalid.Input != "git_context" {
		t.Errorf("required: got %v, want an error of git_context", err)
	}
}

func TestCompression(t *testing.T) {
	local := "unix:///b"
	for _, test := range []struct {
		name string
		spec inputs.BuildSpec
		want image.Compression
	}{
		{"loaded", inputs.BuildSpec{Load: true}, image.ZstdFast},
		{"neither loaded nor published", inputs.BuildSpec{}, image.ZstdFast},
		{"loaded and pushed", inputs.BuildSpec{Load: true, Push: []string{"a"}}, image.Gzip},
		{"saved", inputs.BuildSpec{Save: true}, image.Gzip},
		{"exported", inputs.BuildSpec{Outputs: []string{"type=oci,dest=a"}}, image.Gzip},
		{"several platforms", inputs.BuildSpec{Platforms: []string{"linux/amd64", "linux/arm64"}}, image.Gzip},
		{"loaded from a local builder", inputs.BuildSpec{Builder: local, Load: true}, image.Uncompressed},
		{"pushed by a local builder", inputs.BuildSpec{Builder: local, Load: true, Push: []string{"a"}}, image.Gzip},
		{"snapshot of a local builder", inputs.BuildSpec{Builder: local}, image.Gzip},
		{"remote builder", inputs.BuildSpec{Builder: "tcp://builder.example:1234", Load: true}, image.ZstdFast},
	} {
		if got, _ := compression(test.spec); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestReferences(t *testing.T) {
	const saved = "registry.depot.dev/project:build"
	push := []string{"ghcr.io/a/b:1", "localhost:5000/c:2"}
	for _, test := range []struct {
		name     string
		spec     inputs.BuildSpec
		tags     []string // of the lease
		push     []string
		imageRef string
	}{
		{"loaded only", inputs.BuildSpec{Load: true, ImageName: "a:ci"}, nil, nil, "a:ci"},
		{"built only", inputs.BuildSpec{ImageName: "a:ci"}, nil, nil, ""},
		{"pushed", inputs.BuildSpec{Push: push, Load: true, ImageName: "a:ci"}, nil, push, push[0] + "@sha256:1"},
		{"saved", inputs.BuildSpec{Save: true, SaveTags: []string{"v1"}}, []string{saved, "registry.depot.dev/project:v1"},
			[]string{saved, "registry.depot.dev/project:v1"}, saved + "@sha256:1"},
		{"saved and pushed", inputs.BuildSpec{Save: true, Push: push}, []string{saved},
			[]string{saved, push[0], push[1]}, push[0] + "@sha256:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			lease := &builder.Lease{Tags: test.tags}
			if got := pushReferences(test.spec, lease); !slices.Equal(got, test.push) {
				t.Errorf("push to %q, want %q", got, test.push)
			}
			if got := imageRef(test.spec, lease, "sha256:1"); got != test.imageRef {
				t.Errorf("image_ref %q, want %q", got, test.imageRef)
			}
			if !slices.Equal(lease.Tags, test.tags) {
				t.Errorf("the lease's tags became %q", lease.Tags)
			}
		})
	}
}

// Contexts that may hold other files, or files of other people, do not share a copy at the builder.
func TestSharedKey(t *testing.T) {
	base, _, _ := testJob(t, nil)
	base.Event = runner.Event{Name: "push", Repository: "a/b"}
	spec := inputs.BuildSpec{Context: "."}
	commit := buildSource{Repository: "a/b", Commit: source.Commit{SHA: "1"}, Tree: source.Tree{Dir: "/tmp/1", SHA: "1"}}
	type change = func(*job, *inputs.BuildSpec, *session, *buildSource)
	key := func(change change) string {
		job, spec, session, source := base, spec, session{}, commit
		change(&job, &spec, &session, &source)
		return sharedKey(job, spec, session, source, "linux/amd64")
	}
	same := key(func(*job, *inputs.BuildSpec, *session, *buildSource) {})
	for name, change := range map[string]change{
		"temporary directory": func(_ *job, _ *inputs.BuildSpec, _ *session, s *buildSource) { s.Tree.Dir = "/tmp/2" },
		"another commit":      func(_ *job, _ *inputs.BuildSpec, _ *session, s *buildSource) { s.Commit.SHA = "2" },
		"another event": func(j *job, _ *inputs.BuildSpec, _ *session, _ *buildSource) {
			j.Event.Name = "schedule"
		},
	} {
		if key(change) != same {
			t.Errorf("%s: does not share the copy", name)
		}
	}
	workspace := func(dir, svc string) change {
		return func(_ *job, _ *inputs.BuildSpec, _ *session, s *buildSource) {
			s.Commit, s.Tree.Dir = source.Commit{}, dir
			s.Paths.Contexts = map[string]string{"svc": svc}
		}
	}
	fork := func(repository string, pull int) change {
		return func(j *job, _ *inputs.BuildSpec, _ *session, _ *buildSource) {
			j.Event = runner.Event{Name: "pull_request", Repository: "a/b", HeadRepository: repository, Pull: pull}
		}
	}
	untrusted := func(sha string) change {
		return func(_ *job, _ *inputs.BuildSpec, s *session, b *buildSource) { s.Untrusted, b.Commit.SHA = true, sha }
	}
	untrustedWorkspace := func(_ *job, _ *inputs.BuildSpec, s *session, b *buildSource) {
		s.Untrusted, b.Commit = true, source.Commit{}
	}
	noCache := func(_ *job, s *inputs.BuildSpec, _ *session, _ *buildSource) { s.Request.NoCache = true }
	keys := []string{
		same, sharedKey(base, spec, session{}, commit, "linux/arm64"),
		key(func(_ *job, s *inputs.BuildSpec, _ *session, _ *buildSource) { s.Context = "app" }),
		key(func(_ *job, s *inputs.BuildSpec, _ *session, _ *buildSource) {
			s.Request.Contexts = map[string]string{"svc": "a"}
		}),
		key(func(_ *job, s *inputs.BuildSpec, _ *session, _ *buildSource) {
			s.Request.Contexts = map[string]string{"svc": "b"}
		}),
		key(func(_ *job, _ *inputs.BuildSpec, _ *session, s *buildSource) { s.Repository = "a/c" }),
		key(workspace("/tmp/1", "/tmp/1/a")), key(workspace("/tmp/1", "/tmp/1/b")), key(workspace("/tmp/2", "/tmp/1/a")),
		key(fork("evil/b", 7)), key(fork("evil/b", 8)), key(untrusted("1")), key(untrusted("2")), key(noCache), key(noCache),
		key(untrustedWorkspace), key(untrustedWorkspace),
	}
	run := func(scratch string) string {
		return key(func(j *job, spec *inputs.BuildSpec, s *session, source *buildSource) {
			workspace("/tmp/1", scratch+"/git")(j, spec, s, source)
			j.Scratch = scratch
		})
	}
	if run("/tmp/sandbox-actions-1") != run("/tmp/sandbox-actions-2") {
		t.Error("two runs with a checkout do not share the copy of the git context")
	}
	for i, a := range keys {
		if slices.Contains(keys[:i], a) {
			t.Errorf("key %d is the same as one before", i)
		}
	}
}

// Another job on the machine cannot make a test pass by giving the name of the image to another one.
func TestReplacedImage(t *testing.T) {
	hash := func(digit string) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(digit, 64)} }
	subject := testSubject{Name: "app:ci", Build: BuildOutputs{ImageID: hash("1").String()}}
	if err := checkNotReplaced(subject, hash("1")); err != nil {
		t.Error(err)
	}
	if err := checkNotReplaced(subject, hash("2")); err == nil || !strings.Contains(err.Error(), "image_name") {
		t.Errorf("got %v, want an error for the other image", err)
	}
}

// The image records build arguments, so a run warns about those that look like secrets.
func TestSecretArguments(t *testing.T) {
	job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
	job.Runner.Mask("masked-value")
	stdout.Reset()
	spec := inputs.BuildSpec{}
	spec.Request.BuildArgs = map[string]string{
		"NPM_TOKEN": "1", "DB_PASSWORD": "2", "API_KEY": "3", "GITHUB_SECRET_2": "4", "SSH_KEY": "5", "URL": "x masked-value",
		"VERSION": "1", "MONKEY": "2", "PUBLIC_KEY": "3", "EMPTY_TOKEN": "", "AUTHOR": "4", "TOKENIZER": "5",
		"CACHE_KEY": "6",
	}
	warnSecretArguments(job, spec)
	got := stdout.String()
	if want := "API_KEY, DB_PASSWORD, GITHUB_SECRET_2, NPM_TOKEN, SSH_KEY, URL: "; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	stdout.Reset()
	spec.Request.BuildArgs = map[string]string{"VERSION": "1"}
	if warnSecretArguments(job, spec); stdout.Len() > 0 {
		t.Errorf("got %s for a public argument", stdout)
	}
}

// Secrets of the inputs take precedence over Doppler, and values from variables and files are masked.
func TestBuildSecrets(t *testing.T) {
	job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true", "VARIABLE": "value-of-a-variable"})
	if err := os.WriteFile(filepath.Join(job.Dir, "key"), []byte("value-of-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := inputs.Build{
		Platform: inputs.List{{Text: "linux/amd64"}}, Builder: "depot", Timeout: time.Minute,
		Secrets: inputs.Lines{{Text: "TOKEN=input"}}, SecretEnvs: inputs.List{{Text: "ENV=VARIABLE"}},
		SecretFiles: inputs.Lines{{Text: "FILE=key"}},
	}.Spec(job.validation())
	if err != nil {
		t.Fatal(err)
	}
	s := session{Doppler: credentials.Doppler{Secrets: map[string]string{
		"TOKEN": "doppler", "OTHER": "doppler", "DEPOT_TOKEN": "depot", "DAYTONA_API_KEY": "daytona",
	}}}
	secrets, err := buildSecrets(job, spec, s, buildSource{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for id, read := range secrets {
		value, err := read()
		if err != nil {
			t.Fatal(err)
		}
		got[id] = string(value)
	}
	want := map[string]string{
		"TOKEN": "input", "OTHER": "doppler", "ENV": "value-of-a-variable", "FILE": "value-of-a-file\n",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, masked := range []string{"::add-mask::value-of-a-variable\n", "::add-mask::value-of-a-file\n"} {
		if !strings.Contains(stdout.String(), masked) {
			t.Errorf("missing %q in %q", masked, stdout)
		}
	}
}

func TestIsDenied(t *testing.T) {
	for status, want := range map[int]bool{
		http.StatusUnauthorized: true, http.StatusForbidden: true, http.StatusNotFound: false,
	} {
		if got := isDenied(fmt.Errorf("push: %w", &transport.Error{StatusCode: status})); got != want {
			t.Errorf("%d: %t", status, got)
		}
	}
	if isDenied(errors.New("403 Forbidden")) {
		t.Error("isDenied matched the text of an error")
	}
}

func TestForkNeeds(t *testing.T) {
	push := []string{"ghcr.io/a/b:1"}
	for _, test := range []struct {
		name     string
		spec     inputs.SnapshotSpec
		environ  map[string]string
		build    []any // save, Doppler config
		snapshot []any // Doppler config, Daytona
	}{
		{"no credentials", inputs.SnapshotSpec{
			BuildSpec: inputs.BuildSpec{Save: true, Doppler: inputs.Doppler{DopplerConfig: "dev"}}, UpdateDoppler: true,
		},
			nil, []any{true, "dev"}, []any{"dev", true}},
		{"identity only", inputs.SnapshotSpec{BuildSpec: inputs.BuildSpec{Doppler: inputs.Doppler{DopplerIdentity: "id"}}},
			nil, []any{false, "id"}, []any{"id", true}},
		{"tokens in the environment", inputs.SnapshotSpec{
			BuildSpec: inputs.BuildSpec{Save: true, Doppler: inputs.Doppler{DopplerConfig: "dev"}},
		},
			map[string]string{"DEPOT_TOKEN": "d", "DOPPLER_TOKEN": "t"}, []any{false, ""}, []any{"", false}},
		{"Daytona key without Doppler", inputs.SnapshotSpec{BuildSpec: inputs.BuildSpec{
			Doppler: inputs.Doppler{DopplerConfig: "dev"},
		},
			Daytona: inputs.Daytona{DaytonaAPIKey: "k"}}, nil, []any{false, "dev"}, []any{"", false}},
		{"Daytona key with Doppler to update", inputs.SnapshotSpec{BuildSpec: inputs.BuildSpec{
			Doppler: inputs.Doppler{DopplerConfig: "dev"},
		},
			Daytona: inputs.Daytona{DaytonaAPIKey: "k"}, UpdateDoppler: true, Record: inputs.DopplerRecord{Required: true}}, nil,
			[]any{false, "dev"}, []any{"dev", false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, _ := testJob(t, test.environ)
			test.spec.Push = push
			build := buildNeeds(job, test.spec.BuildSpec)
			if got := []any{
				build.Save, build.DopplerConfig,
			}; !reflect.DeepEqual(got, test.build) || build.Daytona || !slices.Equal(build.Push, push) {
				t.Errorf("build needs %+v, want %v", build, test.build)
			}
			snapshot := snapshotNeeds(job, test.spec)
			if got := []any{snapshot.DopplerConfig, snapshot.Daytona}; !reflect.DeepEqual(got, test.snapshot) {
				t.Errorf("snapshot needs %+v, want %v", snapshot, test.snapshot)
			}
		})
	}
}

func TestLayoutDirectory(t *testing.T) {
	for name, want := range map[string]string{
		"oci-layout://out": "out", "./out:tag": "./out:tag", "../out": "../out", "/out": "/out", "out": "", "ghcr.io/a/b": "",
	} {
		got, ok := layoutDirectory(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %t; want %q", name, got, ok, want)
		}
	}
}

func TestTestFailure(t *testing.T) {
	failing := &suite.Report{Total: 3, Failed: 1}
	for _, test := range []struct {
		name    string
		report  *suite.Report
		command string
		exit    int
		code    int // 0: no error; 1: an error without an exit code
	}{
		{"passed", &suite.Report{Total: 3}, "", 0, 0},
		{"failed", failing, "", 0, 1},
		{"failed with a command", failing, "c", 5, 5},
		{"command failed", &suite.Report{Total: 3}, "c", 5, 5},
		{"command without reports", &suite.Report{}, "c", 0, 0},
		{"no tests", &suite.Report{}, "", 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, _ := testJob(t, nil)
			err := testFailure(inputs.TestSpec{Command: test.command}, test.report, "junit.xml", test.exit)
			if code := report(job.Runner, err); code != test.code {
				t.Errorf("%v: code %d, want %d", err, code, test.code)
			}
		})
	}
}

func TestShellCommand(t *testing.T) {
	for _, test := range []struct{ args, want []string }{
		{nil, []string{"bash", "-l"}}, {[]string{"--"}, []string{"bash", "-l"}},
		{[]string{"--", "ls", "-l"}, []string{"ls", "-l"}}, {[]string{"ls"}, []string{"ls"}},
	} {
		if got := shellCommand(inputs.Shell{Cmd: test.args}); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.args, got, test.want)
		}
	}
}

func TestRelativeTo(t *testing.T) {
	for _, test := range []struct {
		path  string
		roots []string
		want  string
	}{
		{"/a/b/c", []string{"/a"}, "b/c"}, {"/a/b/c", []string{"", "/a/b"}, "c"},
		{"/a/b", []string{"/x"}, "/a/b"}, {"/a/b", []string{"/x", "/a"}, "b"},
	} {
		if got := relativeTo(test.path, test.roots...); got != test.want {
			t.Errorf("%s in %q: %s, want %s", test.path, test.roots, got, test.want)
		}
	}
	job, _, _ := testJob(t, nil)
	if got := job.absolute("a"); got != filepath.Join(job.Dir, "a") || job.absolute("/a") != "/a" {
		t.Errorf("absolute: %s, %s", got, job.absolute("/a"))
	}
}

// The fields of docker buildx's metadata file are at the top, for one platform and for several.
func TestMetadataJSON(t *testing.T) {
	amd64 := &image.Result{Platform: "linux/amd64", Metadata: map[string]string{
		"a": "1", exptypes.ExporterImageDescriptorKey: "eyJzaXplIjoxfQ==", // {"size":1}
	}}
	arm64 := &image.Result{Platform: "linux/arm64", Metadata: map[string]string{"a": "eyJzaXplIjoxfQ=="}}
	spec := inputs.BuildSpec{Push: []string{"ghcr.io/a/b:1", "ghcr.io/a/b:2"}}
	descriptor, err := partial.Descriptor(empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(descriptor)
	if err != nil {
		t.Fatal(err)
	}
	for want, built := range map[string]builtImage{
		`{"a":"1","containerimage.descriptor":{"size":1}}`: {Results: []*image.Result{amd64}},
		`{"containerimage.descriptor":` + string(data) +
			`,"containerimage.digest":"sha256:2","image.name":"ghcr.io/a/b:1,ghcr.io/a/b:2",` +
			`"linux/amd64":{"a":"1","containerimage.descriptor":{"size":1}},` +
			`"linux/arm64":{"a":"eyJzaXplIjoxfQ=="}}`: {
			Results: []*image.Result{amd64, arm64}, Index: empty.Index, Digest: "sha256:2", Lease: &builder.Lease{},
		},
	} {
		if got, err := metadataJSON(spec, built); got != want || err != nil {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

func TestEnvOutput(t *testing.T) {
	job, stdout, _ := testJob(t, nil)
	job.Output = inputs.EnvOutput
	outputs := SnapshotOutputs{
		BuildOutputs: BuildOutputs{Digest: "sha256:1", CachedSteps: 2}, SnapshotSizeGB: 1.5, Reused: true,
	}
	run := runrecord.Record{Outputs: outputList(outputs)}
	if err := job.present(t.Context(), run, nil); err != nil {
		t.Fatal(err)
	}
	fields := OutputFields(outputs)
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(stdout.String()), "\n") {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	for i, field := range fields {
		if field.Help == "" || i >= len(names) || names[i] != field.Name {
			t.Errorf("output %d: %+v is described, %q was written", i, field, names)
		}
	}
	if len(names) != len(fields) {
		t.Errorf("%d outputs were written, %d are described", len(names), len(fields))
	}
	for _, line := range []string{"digest=sha256:1\n", "cached_steps=2\n", "snapshot_size_gb=1.5\n", "reused=true\n"} {
		if !strings.Contains(stdout.String(), line) {
			t.Errorf("outputs lack %q", line)
		}
	}
	for _, outputs := range []any{BuildOutputs{}, TestOutputs{}} {
		for _, field := range OutputFields(outputs) {
			if field.Help == "" {
				t.Errorf("%T: %s has no help text", outputs, field.Name)
			}
		}
	}
}
