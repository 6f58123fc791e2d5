package inputs

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func noEnv(string) string { return "" }

// buildSpec validates the given INPUT_* variables, with the defaults of GitHub Actions for the other inputs.
func buildSpec(t *testing.T, env Env, variables ...string) (BuildSpec, error) {
	t.Helper()
	in, _, err := parseBuild(t, nil, append([]string{"GITHUB_ACTIONS=true"}, variables...))
	if err != nil {
		return BuildSpec{}, err
	}
	return in.Spec(env)
}

// repository returns a directory with a Dockerfile, an empty file, and links that lead out of the directory.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"Dockerfile": "FROM scratch\n", "file": "x", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"out": "/etc", "dangling": "/nowhere/file"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInvalidInputs(t *testing.T) {
	dir := repository(t)
	digest := "a@sha256:" + strings.Repeat("0", 64)
	for _, test := range []struct {
		name, input, text string
		line              int
		value             string // in the error
		reason            string // a part of the error's text
	}{
		{"platform without a machine", "platform", "linux/riscv64", 0, "linux/riscv64", "set builder to a BuildKit"},
		{"one of two platforms", "platform", "linux/amd64,windows/amd64", 0, "windows/amd64", "not a supported platform"},
		{"boolean", "load", "maybe", 0, "maybe", "must be true or false"},
		{"duration without unit", "timeout", "30", 0, "30", "has no unit; write 30m or 30s"},
		{"timeout of zero", "timeout", "0s", 0, "0s", "must be positive, for example 30m"},
		{"comment", "comment", "-->", 0, "-->", "must be true, false, or a name"},
		{"builder scheme", "builder", "ftp://x", 0, "", "unix://"},
		{"builder without TLS", "builder", "tcp://builder:1234", 0, "", "BUILDKIT_CERT_PATH"},
		{"build argument", "build_args", "A=1\n\nB C=2", 3, "B C=2", "write NAME=VALUE"},
		{"build argument without a name", "build_args", "=1", 1, "=1", "write NAME=VALUE"},
		{"build argument without value", "build_args", "NOT_SET", 1, "NOT_SET", "environment variable is not set"},
		{"open quote", "build_args", "A=1\n\"B=2", 2, "", "close every quote"},
		{"label", "labels", "a=b\n=c", 2, "=c", "write NAME=VALUE"},
		{"annotation", "annotations", "layer:a", 1, "layer:a", "not an annotation"},
		{"annotation level", "annotations", "manifest,layer:a=b", 1, "manifest,layer:a=b", `the level "layer" is unknown`},
		{
			"annotation of another platform", "annotations", "manifest[linux/arm64]:a=b", 1, "manifest[linux/arm64]:a=b",
			"not in the input platform",
		},
		{"named context without source", "build_contexts", "base", 1, "base", "write NAME=DIRECTORY"},
		{"named context with a name of no image", "build_contexts", "Base=file", 1, "Base=file", "must be lowercase"},
		{"named context of an invalid image", "build_contexts", "a=docker-image://A", 1, "a=docker-image://A", "lowercase"},
		{"named context that BuildKit does not fetch", "build_contexts", "a=ftp://x", 1, "a=ftp://x", "does not fetch"},
		{"named context by SSH URL", "build_contexts", "a=ssh://git@x/y", 1, "a=ssh://git@x/y", "write git@HOST:PATH"},
		{"named context by short URL", "build_contexts", "a=github.com/x/y", 1, "a=github.com/x/y",
			"write https://github.com/x/y"},
		{"context that BuildKit does not fetch", "context", "docker-image://x", 0, "docker-image://x", "does not fetch"},
		{"context with an unknown query", "context", "https://x/y.git?z=1", 0, "https://x/y.git?z=1", "z"},
		{"Dockerfile from a URL", "dockerfile", "https://x/Dockerfile", 0, "https://x/Dockerfile", "is a URL"},
		{"Dockerfile that is a directory", "dockerfile", ".", 0, ".", "is a directory"},
		{"named context not found", "build_contexts", "base=missing", 0, "base=missing", "not a directory"},
		{"value in place of a secret", "secrets", "A=1\nhunter2hunter2", 2, "", "the secret has no ID"},
		{"secret ID with a space", "secrets", "hunter2 x=1", 1, "", "the secret has no ID"},
		{"duplicate secret", "secrets", "A=1\nA=2", 2, "", "duplicate secret A"},
		{"secret file is a directory", "secret_files", "key=.", 1, "key=.", "cannot be read"},
		{"epoch", "build_args", "SOURCE_DATE_EPOCH=abc", 0, "SOURCE_DATE_EPOCH=abc", "seconds since 1970"},
		{"SSH without agent", "ssh", "default", 1, "default", "SSH_AUTH_SOCK"},
		{"SSH socket not found", "ssh", "default=/missing.sock", 1, "default=/missing.sock", "cannot be read"},
		{"host", "add_hosts", "a=b", 1, "a=b", "IP address"},
		{"address without a host", "add_hosts", "10.0.0.1", 1, "10.0.0.1", "IP address"},
		{"address with a zone", "add_hosts", "a=fe80::1%eth0", 1, "a=fe80::1%eth0", "IP address"},
		{"attestation without a boolean", "attests", "type=sbom,disabled=x", 1, "type=sbom,disabled=x", "not true or false"},
		{"attestation without a value", "attests", "type=sbom,x", 1, "type=sbom,x", "without a value"},
		{"annotation with a space", "annotations", "a b=c", 1, "a b=c", "not an annotation"},
		{"entitlement", "allow", "root", 1, "root", "network.host or security.insecure"},
		{"network", "network", "bridge", 0, "bridge", "default, none or host"},
		{"host gateway on Depot", "add_hosts", "a:host-gateway", 1, "a:host-gateway", "not supported on Depot"},
		{"shared memory", "shm_size", "big", 0, "big", "512m"},
		{"ulimit", "ulimit", "nofile=a", 1, "nofile=a", "nofile=1024:2048"},
		{"attestation", "attests", "type=blood", 1, "type=blood", "type=sbom or type=provenance"},
		{"provenance", "provenance", "full", 0, "full", "mode=max"},
		{"SBOM", "sbom", "full", 0, "full", "generator=IMAGE"},
		{"image name", "image_name", "Upper:case", 0, "Upper:case", "not an image name"},
		{"image name with a digest", "image_name", digest, 0, digest, "must not contain a digest"},
		{"push", "push", "ghcr.io/a/b:1\nghcr.io/A", 2, "ghcr.io/A", "not an image reference"},
		{"push with a digest", "push", digest, 1, digest, "must not contain a digest"},
		{"push of a boolean", "push", "true", 1, "true", "references that docker/build-push-action takes as tags"},
		{"tags without save", "save_tags", "v1", 0, "v1", "save: true"},
		{"output without destination", "outputs", "type=local", 1, "", "dest="},
		{"output without a name to push", "outputs", "type=registry", 1, "", "name=REFERENCE"},
		{"default context without an event", "context", "{{defaultContext}}", 0, "{{defaultContext}}", "GitHub Actions"},
		{"named default context without an event", "build_contexts", "a={{defaultContext}}:b", 1,
			"a={{defaultContext}}:b", "GitHub Actions"},
		{"output type", "outputs", "type=zip,dest=x", 1, "", "zip"},
		{"ref like an option", "ref", "--upload-pack=x", 0, "", "--upload-pack=x"},
		{"submodules", "submodules", "all", 0, "all", "must be false, true or recursive"},
		{"ref with dots", "ref", "a..b", 0, "", "a..b"},
		{"ref with a line break", "ref", "a\nb", 0, "", `a\nb`},
		{"git context", "git_context", "a b", 0, "a b", "for example git"},
		{"context not found", "context", "missing", 0, "missing", "not found"},
		{"context is a file", "context", "file", 0, "file", "is a file"},
		{"context out of the repository", "context", "out", 0, "", `"out" is a symbolic link`},
		{"secret file out of the repository", "secret_files", "id=out/passwd", 1, "", `"out/passwd" is a symbolic link`},
		{"output out of the repository", "outputs", "type=local,dest=out/there", 1, "", "is a symbolic link"},
		{"output through a dangling link", "outputs", "type=local,dest=dangling", 1, "", "is a symbolic link"},
		{"Dockerfile not found", "dockerfile", "missing", 0, "missing", "not found"},
		{"Dockerfile out of the repository", "dockerfile", "out/passwd", 0, "", `"out/passwd" is a symbolic link`},
		{"empty Dockerfile", "dockerfile", "empty", 0, "empty", "is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: dir}, "INPUT_"+strings.ToUpper(test.input)+"="+test.text)
			if err == nil {
				_, err = spec.ReadSecrets()
			}
			if err == nil {
				_, err = spec.Resolve(dir)
			}
			assertInvalid(t, err, test.input, test.line, test.value, test.reason)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error contains a possible secret: %v", err)
			}
		})
	}
}

func assertInvalid(t *testing.T, err error, input string, line int, value, reason string) {
	t.Helper()
	invalid := (*Error)(nil)
	if !errors.As(err, &invalid) {
		t.Fatalf("%v, want an error about %s", err, input)
	}
	if invalid.Input != input || invalid.Line != line || invalid.Value != value || !strings.Contains(err.Error(), reason) {
		t.Errorf("%+v\n%v\nwant input %s, line %d, value %q, reason %q", *invalid, err, input, line, value, reason)
	}
}

func TestErrorText(t *testing.T) {
	for want, err := range map[string]error{
		`input load: "maybe" must be true or false`: Errorf("load", "maybe", "must be true or false"),
		`input labels, line 2: "=c" has no name`:    itemErrorf("labels", Item{"=c", 2}, "has no name"),
		`input ref: not found`:                      Wrap("ref", errors.New("not found")),
		`input outputs, line 3: type zip is unsupported`: wrapItem(
			"outputs", Item{"", 3}, errors.New("type zip is unsupported"),
		),
	} {
		if err.Error() != want {
			t.Errorf("%s, want %s", err, want)
		}
	}
}

func TestInputsThatDependOnOthers(t *testing.T) {
	env := Env{Getenv: noEnv, Dir: t.TempDir()}
	_, err := buildSpec(t, env, "INPUT_SAVE=true", "INPUT_BUILDER=unix:///run/buildkit.sock")
	assertInvalid(t, err, "save", 0, "true", "builder: depot")
	_, err = buildSpec(t, env, "INPUT_SAVE=true", "INPUT_SAVE_TAGS=a b")
	assertInvalid(t, err, "save_tags", 1, "a b", "not a tag")
	if _, err = buildSpec(t, env, "INPUT_BUILDER=unix:///run/buildkit.sock", "INPUT_PLATFORM=linux/riscv64"); err != nil {
		t.Errorf("another platform on a self-hosted BuildKit: %v", err)
	}
	if _, err = buildSpec(t, env, "INPUT_BUILDER=tcp://b:1", "INPUT_ALLOW_PLAINTEXT_BUILDER=true"); err != nil {
		t.Errorf("allow_plaintext_builder: %v", err)
	}
}

func TestInvalidSnapshotInputs(t *testing.T) {
	valid := Snapshot{
		Build:      Build{Platform: List{{"linux/amd64", 1}}, Builder: "depot", Timeout: time.Minute},
		NamePrefix: "sandbox", CPU: "2", Memory: "4", Disk: "10", GPU: "0", IfExists: "reuse", Attempts: 3,
		SnapshotSecret: SnapshotSecret{"DAYTONA_SNAPSHOT_NAME"},
	}
	if _, err := valid.Spec(Env{Getenv: noEnv, Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		change        func(*Snapshot)
		input, reason string
	}{
		{"platform", func(in *Snapshot) { in.Platform = List{{"linux/arm64", 1}} }, "platform", "linux/amd64 only"},
		{
			"two platforms", func(in *Snapshot) { in.Platform = append(in.Platform, Item{"linux/arm64", 1}) }, "platform",
			"linux/amd64 only",
		},
		{"load", func(in *Snapshot) { in.Load, in.ImageName = true, List{{"a:b", 1}} }, "load", "remove it"},
		{"name", func(in *Snapshot) { in.Name = "a b" }, "name", "a b"},
		{"prefix", func(in *Snapshot) { in.NamePrefix = "" }, "name_prefix", "empty"},
		{"entry point", func(in *Snapshot) { in.Entrypoint = `a "b` }, "entrypoint", "close every quote"},
		{"entry point without a program", func(in *Snapshot) { in.Entrypoint = `"" a` }, "entrypoint", "no program"},
		{"entry point of android", func(in *Snapshot) { in.Entrypoint, in.SandboxClass = "a", "android" }, "entrypoint",
			"sandbox_class: android"},
		{"gpu", func(in *Snapshot) { in.GPU = "-1" }, "gpu", `"-1" must be 0 or`},
		{"sandbox class", func(in *Snapshot) { in.SandboxClass = "Linux VM" }, "sandbox_class", "linux-vm"},
		{"sandbox class windows", func(in *Snapshot) { in.SandboxClass = "windows" }, "sandbox_class", "from an image"},
		{"if_exists", func(in *Snapshot) { in.IfExists = "skip" }, "if_exists", "reuse, replace or fail"},
		{"verify", func(in *Snapshot) { in.Verify = "always" }, "verify", `"always" must be off, boot, suite, or the path`},
		{"verify android", func(in *Snapshot) { in.Verify, in.SandboxClass = "boot", "android" }, "verify", "write off"},
		{"keep", func(in *Snapshot) { in.Keep = -1 }, "keep", `"-1" must be 0 to keep all`},
		{"cpu is a word", func(in *Snapshot) { in.CPU = "two" }, "cpu", `"two" must be a whole, positive number of cores`},
		{"cpu is a fraction", func(in *Snapshot) { in.CPU = "1.5" }, "cpu", `"1.5"`},
		{"no memory", func(in *Snapshot) { in.Memory = "0" }, "memory", "number of GB"},
		{"negative disk", func(in *Snapshot) { in.Disk = "-1" }, "disk", "number of GB"},
		{"disk beyond the API's range", func(in *Snapshot) { in.Disk = "2147483648" }, "disk", "2147483648"},
		{"secret", func(in *Snapshot) { in.DopplerSecret = "name" }, "doppler_secret", "upper-case letters"},
		{"reserved secret", func(in *Snapshot) { in.DopplerSecret = "DOPPLER_X" }, "doppler_secret", "reserved"},
		{"mirror", func(in *Snapshot) { in.DopplerMirror = "VITE-X" }, "doppler_mirror", "upper-case letters"},
		{"mirror of itself", func(in *Snapshot) { in.DopplerMirror = in.DopplerSecret }, "doppler_mirror", "must differ"},
		{"configs", func(in *Snapshot) { in.DopplerConfigs = List{{"a.b.c", 1}} }, "doppler_configs", "PROJECT.CONFIG"},
		{
			"configs that are not updated", func(in *Snapshot) {
				in.DopplerConfigs, in.UpdateDoppler = List{{"prd", 1}}, new(bool)
			}, "doppler_configs", "needs update_doppler",
		},
		{"dry run", func(in *Snapshot) { in.DryRun = true }, "dry_run", "--keep N"},
		{"attempts", func(in *Snapshot) { in.Attempts = 0 }, "attempts", `"0" must be at least 1`},
		{"dry run that makes room", func(in *Snapshot) { in.DryRun, in.MakeRoom, in.Keep = true, true, 1 }, "make_room",
			"remove --dry-run"},
		{"two regions", func(in *Snapshot) { in.Region = "us,eu" }, "region", "eu: region=eu"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := valid
			test.change(&in)
			_, err := in.Spec(Env{Getenv: noEnv, Dir: t.TempDir()})
			invalid := (*Error)(nil)
			if !errors.As(err, &invalid) || invalid.Input != test.input || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("%v, want an error about %s with %q", err, test.input, test.reason)
			}
		})
	}
}

// A snapshot updates Doppler unless that is turned off. It fails without a token only if an input requires Doppler.
func TestDopplerRecord(t *testing.T) {
	names := DopplerRecord{
		Secret: "DAYTONA_SNAPSHOT_NAME", Mirror: "VITE_DAYTONA_SNAPSHOT_NAME", History: "DAYTONA_SNAPSHOT_NAME_HISTORY",
	}
	unrecorded := names
	unrecorded.History = ""
	required := names
	required.Required = true
	own := DopplerRecord{Secret: "NAME", Mirror: "PUBLIC_NAME", CreateMirror: true, History: "NAME_HISTORY"}
	several := required
	several.Configs = []DopplerConfigName{{"", "dev"}, {"website", "prd"}}
	for _, test := range []struct {
		name, args string
		update     bool
		want       DopplerRecord
	}{
		{"default", "", true, names},
		{"explicit", "--update-doppler", true, required},
		{"off", "--no-update-doppler", false, names},
		{"config", "--doppler-config=prd", true, required},
		{"config, off", "--doppler-config=prd --no-update-doppler", false, names},
		{"identity", "--doppler-identity=id", true, required},
		{"other names", "--doppler-secret=NAME --doppler-mirror=PUBLIC_NAME", true, own},
		{"no history", "--no-doppler-history", true, unrecorded},
		{"several configs", "--doppler-configs=dev,website.prd", true, several},
	} {
		t.Run(test.name, func(t *testing.T) {
			var in Snapshot
			environ := []string{"GITHUB_ACTIONS=true", "INPUT_UPDATE_DOPPLER=", "INPUT_DOPPLER_CONFIG="}
			source := Source{Args: strings.Fields(test.args), Environ: environ, Stdout: io.Discard}
			if _, err := source.Parse(&in); err != nil {
				t.Fatal(err)
			}
			spec, err := in.Spec(Env{Getenv: noEnv, Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			if spec.UpdateDoppler != test.update || !reflect.DeepEqual(spec.Record, test.want) {
				t.Errorf("update %t, record %+v; want %t, %+v", spec.UpdateDoppler, spec.Record, test.update, test.want)
			}
			if spec.Doppler.Default != "dev" ||
				!slices.Equal(spec.Doppler.Public, []string{test.want.Secret, test.want.Mirror, test.want.Secret + "_HISTORY"}) {
				t.Errorf("default %q, public %q", spec.Doppler.Default, spec.Doppler.Public)
			}
		})
	}
}

func TestSandboxClassAndGPU(t *testing.T) {
	in := Snapshot{
		Build:      Build{Platform: List{{"linux/amd64", 1}}, Builder: "depot", Timeout: time.Minute},
		NamePrefix: "sandbox", CPU: "2", Memory: "4", Disk: "10", GPU: "1", SandboxClass: "linux-vm",
		IfExists: "reuse", Attempts: 3, SnapshotSecret: SnapshotSecret{"DAYTONA_SNAPSHOT_NAME"},
	}
	spec, err := in.Spec(Env{Getenv: noEnv, Dir: t.TempDir()})
	if err != nil || spec.GPU != 1 || spec.SandboxClass != "linux-vm" {
		t.Errorf("gpu %d, class %q, %v", spec.GPU, spec.SandboxClass, err)
	}
}

func TestVerifyInput(t *testing.T) {
	in := Snapshot{
		Build:      Build{Platform: List{{"linux/amd64", 1}}, Builder: "depot", Timeout: time.Minute},
		NamePrefix: "sandbox", CPU: "2", Memory: "4", Disk: "10", GPU: "0", IfExists: "reuse", Attempts: 3,
		SnapshotSecret: SnapshotSecret{"DAYTONA_SNAPSHOT_NAME"},
	}
	for value, want := range map[string]struct {
		mode  Verify
		suite string
	}{
		"": {VerifyDefault, ""}, "off": {VerifyOff, ""}, "false": {VerifyOff, ""}, "boot": {VerifyBoot, ""},
		"suite": {VerifySuite, DefaultSuite}, "a/b.yml": {VerifySuite, "a/b.yml"},
	} {
		in.Verify = value
		spec, err := in.Spec(Env{Getenv: noEnv, Dir: t.TempDir()})
		if err != nil || spec.Verify != want.mode || spec.VerifySuite != want.suite {
			t.Errorf("%q: got %q, %q, %v", value, spec.Verify, spec.VerifySuite, err)
		}
	}
}

func TestInvalidTestInputs(t *testing.T) {
	valid := Test{
		Build: Build{
			Platform:  List{{"linux/amd64", 1}},
			Builder:   "depot",
			Timeout:   time.Minute,
			Load:      true,
			ImageName: List{{"a:b", 1}},
		},
		Suite: DefaultSuite, Parallel: "cores",
	}
	dir := repository(t)
	spec, err := valid.Spec(Env{Getenv: noEnv, Dir: dir})
	if err != nil || spec.Parallel < 1 || spec.Seed == 0 {
		t.Fatalf("%v; parallel %d, seed %d", err, spec.Parallel, spec.Seed)
	}
	for _, test := range []struct {
		name          string
		change        func(*Test)
		input, reason string
	}{
		{"nothing to run", func(in *Test) { in.Suite = NoSuite }, "suite", "set command"},
		{"load", func(in *Test) { in.Load = false }, "load", "remove it"},
		{"no containers", func(in *Test) { in.Parallel = "0" }, "parallel", "such as 4"},
		{"parallel", func(in *Test) { in.Parallel = "all" }, "parallel", "such as 4"},
		{"run", func(in *Test) { in.Run = "(" }, "run", "not a regular expression"},
		{"seed", func(in *Test) { in.Seed = "x" }, "seed", "number that an earlier run printed"},
		{"report directory", func(in *Test) { in.ReportDir = "out/x" }, "report_dir", "symbolic link"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := valid
			test.change(&in)
			_, err := in.Spec(Env{Getenv: noEnv, Dir: dir})
			invalid := (*Error)(nil)
			if !errors.As(err, &invalid) || invalid.Input != test.input || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("%v, want an error about %s with %q", err, test.input, test.reason)
			}
		})
	}
	command := valid
	command.Suite, command.Command, command.Seed, command.Parallel = NoSuite, "true", "7", "3"
	if spec, err := command.Spec(Env{Getenv: noEnv, Dir: dir}); err != nil || spec.Seed != 7 || spec.Parallel != 3 {
		t.Errorf("%v; seed %d, parallel %d", err, spec.Seed, spec.Parallel)
	}
}

func TestGitContext(t *testing.T) {
	dir := repository(t)
	for _, test := range []struct {
		name     string
		inputs   []string
		want     string
		optional bool
	}{
		{"GitHub Actions", []string{"GITHUB_ACTIONS=true"}, "", false},
		{"command line", nil, "git", true},
		{"auto", []string{"GITHUB_ACTIONS=true", "INPUT_GIT_CONTEXT=auto"}, "git", true},
		{"auto with a context of that name", []string{"INPUT_BUILD_CONTEXTS=git=."}, "", false},
		{"none", []string{"INPUT_GIT_CONTEXT=none"}, "", false},
		{"name", []string{"INPUT_GIT_CONTEXT=history"}, "history", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, _, err := parseBuild(t, nil, test.inputs)
			if err != nil {
				t.Fatal(err)
			}
			spec, err := in.Spec(Env{Getenv: noEnv, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if spec.GitContext != test.want || spec.GitContextOptional != test.optional {
				t.Errorf("got %q, optional %t; want %q, %t", spec.GitContext, spec.GitContextOptional, test.want, test.optional)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{
		"Dockerfile": "FROM root", "app/Dockerfile": "FROM app", "sandbox/Dockerfile": "FROM sandbox", "lib/x": "",
		"common/Dockerfile": "FROM common", "lower/dockerfile": "FROM lower",
		"both/dockerfile": "", "both/Dockerfile": "FROM a",
	}, map[string]string{
		"linked/Dockerfile": "../common/Dockerfile", "linked/.dockerignore": "../lib/x", "folder": "common",
		"absolute/Dockerfile": filepath.Join(dir, "common/Dockerfile"),
	})
	below := func(name string) string { return filepath.Join(dir, name) }
	const git = "https://github.com/moby/buildkit.git#v0.20.0"
	for _, test := range []struct {
		name                string
		variables           []string
		context, dockerfile string // relative to dir
		contexts            map[string]string
	}{
		{"sandbox/Dockerfile without one in the context", []string{"INPUT_CONTEXT=lib"}, "lib", "sandbox/Dockerfile", nil},
		{"the context's Dockerfile first", []string{"INPUT_CONTEXT=app"}, "app", "app/Dockerfile", nil},
		{
			"dockerfile of the root", []string{"INPUT_CONTEXT=app", "INPUT_DOCKERFILE=Dockerfile"}, "app", "Dockerfile", nil,
		},
		{
			"dockerfile of the root with ./", []string{"INPUT_CONTEXT=app", "INPUT_DOCKERFILE=./Dockerfile"}, "app",
			"Dockerfile", nil,
		},
		{
			"dockerfile of the context", []string{"INPUT_CONTEXT=./app", "INPUT_DOCKERFILE=app/Dockerfile"}, "app",
			"app/Dockerfile", nil,
		},
		{
			"absolute dockerfile", []string{"INPUT_CONTEXT=lib", "INPUT_DOCKERFILE=" + below("app/Dockerfile")}, "lib",
			"app/Dockerfile", nil,
		},
		{"lower case", []string{"INPUT_CONTEXT=lower"}, "lower", "lower/dockerfile", nil},
		{"lower case for a path", []string{"INPUT_DOCKERFILE=lower/Dockerfile"}, ".", "lower/dockerfile", nil},
		{"upper case first", []string{"INPUT_CONTEXT=both"}, "both", "both/Dockerfile", nil},
		{"link to another folder", []string{"INPUT_CONTEXT=linked"}, "linked", "linked/Dockerfile", nil},
		{"absolute link", []string{"INPUT_DOCKERFILE=absolute/Dockerfile"}, ".", "absolute/Dockerfile", nil},
		{"through a linked folder", []string{"INPUT_CONTEXT=folder"}, "folder", "folder/Dockerfile", nil},
		{"remote context", []string{"INPUT_CONTEXT=" + git}, git, "", nil},
		{
			"remote context with a local Dockerfile",
			[]string{"INPUT_CONTEXT=git@example.com:a/b", "INPUT_DOCKERFILE=" + below("app/Dockerfile")},
			"git@example.com:a/b", "app/Dockerfile", nil,
		},
		{
			"named contexts",
			[]string{"INPUT_BUILD_CONTEXTS=library/a:latest=lib\nb=docker-image://alpine\nc=oci-layout://lib\n" +
				"d=git@github.com:a/b"},
			".", "Dockerfile", map[string]string{
				"a": below("lib"), "b": "docker-image://alpine", "c": "oci-layout://" + below("lib"), "d": "git@github.com:a/b",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: dir}, test.variables...)
			if err != nil {
				t.Fatal(err)
			}
			want := Paths{Context: test.context, Dockerfile: "Dockerfile", Contexts: map[string]string{}}
			if !IsRemote(test.context) {
				want.Context = below(test.context)
			}
			if test.dockerfile != "" {
				want.Dockerfile = below(test.dockerfile)
			}
			maps.Copy(want.Contexts, test.contexts)
			for range 2 { // Resolve must not modify the spec
				got, err := spec.Resolve(dir)
				if (got.Definition != nil) != (test.dockerfile != "") {
					t.Errorf("definition %v", got.Definition)
				}
				got.Definition = nil
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%+v, %v; want %+v", got, err, want)
				}
			}
		})
	}
}

// writeTree writes files and symbolic links below a directory.
func writeTree(t *testing.T, dir string, files, links map[string]string) {
	t.Helper()
	write := func(name, content string, write func(content, path string) error) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := write(content, path); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		write(name, content, func(content, path string) error { return os.WriteFile(path, []byte(content), 0o644) })
	}
	for name, target := range links {
		write(name, target, os.Symlink)
	}
}

// A message about a missing Dockerfile names one that exists.
func TestDockerfileNotFound(t *testing.T) {
	for _, test := range []struct{ file, context, dockerfile, value, reason string }{
		{"app/Dockerfile", "app", "Dockerfile", "Dockerfile", "write app/Dockerfile"},
		{"app/dockerfile", "app", "./Dockerfile", "./Dockerfile", "write app/dockerfile"},
		{"app/dev.Dockerfile", "app", "dev.Dockerfile", "dev.Dockerfile", "write app/dev.Dockerfile"},
		{"Dockerfile", "app", "", "app/Dockerfile", "write Dockerfile"},
		{"sandbox/Dockerfile", ".", "Dockerfile", "Dockerfile", "write sandbox/Dockerfile"},
		{"x", ".", "", "Dockerfile", "relative to the repository root"},
	} {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{test.file: "FROM a", "app/x": ""}, nil)
		spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: dir}, "INPUT_CONTEXT="+test.context,
			"INPUT_DOCKERFILE="+test.dockerfile)
		if err == nil {
			_, err = spec.Resolve(dir)
		}
		assertInvalid(t, err, "dockerfile", 0, test.value, test.reason)
	}
}

// Files that the build reads through links are below the root. One that BuildKit would not find is an error.
func TestLinksOutOfTheRepository(t *testing.T) {
	for _, test := range []struct{ link, target, input, reason string }{
		{"Dockerfile", "/etc/passwd", "dockerfile", "out of the repository"},
		{"Dockerfile", "missing", "dockerfile", "does not exist"},
		{"Dockerfile.dockerignore", "/etc/passwd", "dockerfile", "out of the repository"},
		{".dockerignore", "/etc/passwd", "context", "out of the repository"},
		{".dockerignore", "missing", "context", "does not exist"},
		{"lib/.dockerignore", "/etc/passwd", "build_contexts", "out of the repository"},
	} {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"Dockerfile": "FROM a", "lib/x": ""}, nil)
		if err := os.RemoveAll(filepath.Join(dir, test.link)); err != nil {
			t.Fatal(err)
		}
		writeTree(t, dir, nil, map[string]string{test.link: test.target})
		spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: dir}, "INPUT_BUILD_CONTEXTS=lib=lib")
		if err == nil {
			_, err = spec.Resolve(dir)
		}
		assertInvalid(t, err, test.input, 0, "", test.reason)
	}
}

func TestIsRemote(t *testing.T) {
	for context, want := range map[string]bool{
		".": false, "app": false, "/a/b": false, "./github.com/a/b": false, "a:b": false, "GitHub.com/a/b": false,
		"github.com/a/b": true, "https://a/b.tar": true, "HTTPS://a/b.git": true, "http://a/b.git#x:y": true,
		"git://a/b": true, "ssh://git@a/b": true, "git@a:b/c": true, "someone@a:b/c.git": true,
		"https://a/b.git?unknown=1": true, "docker-image://a": true, "oci-layout://a": true, "ftp://a": true,
	} {
		if got := IsRemote(context); got != want {
			t.Errorf("%s: %t, want %t", context, got, want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	for _, test := range []struct{ text, builder, want string }{
		{"amd64,linux/arm64,linux/amd64", "depot", "linux/amd64,linux/arm64"},
		{"linux/arm64/v8,linux/arm64", "depot", "linux/arm64"},
		{"linux/386,linux/arm/v7,linux/arm,linux/arm/v6", "depot", "linux/386,linux/arm/v7,linux/arm/v6"},
		{"linux/x86_64,linux/aarch64", "depot", "linux/amd64,linux/arm64"},
		{"local", "depot", "linux/" + runtime.GOARCH},
		{"linux/riscv64,s390x", "unix:///run/buildkit.sock", "linux/riscv64,linux/s390x"},
	} {
		spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()},
			"INPUT_PLATFORM="+test.text, "INPUT_BUILDER="+test.builder)
		if got := strings.Join(spec.Platforms, ","); err != nil || got != test.want {
			t.Errorf("%s on %s: %s, %v; want %s", test.text, test.builder, got, err, test.want)
		}
	}
}

// The values that docker/build-push-action accepts as push build nothing.
func TestPushIsNotABoolean(t *testing.T) {
	env := Env{Getenv: noEnv, Dir: t.TempDir()}
	for _, value := range []string{"true", "false", "True", "FALSE"} {
		_, err := buildSpec(t, env, "INPUT_PUSH="+value)
		assertInvalid(t, err, "push", 1, value, "leave push empty to push nothing")
	}
	spec, err := buildSpec(t, env, "INPUT_PUSH=ghcr.io/a/b:1,ghcr.io/a/b:2\nghcr.io/a/c\n", "INPUT_SAVE=true",
		"INPUT_SAVE_TAGS=v1,v2")
	if want := []string{"ghcr.io/a/b:1", "ghcr.io/a/b:2", "ghcr.io/a/c:latest"}; err != nil ||
		!slices.Equal(spec.Push, want) || !slices.Equal(spec.SaveTags, []string{"v1", "v2"}) {
		t.Errorf("push %q, save_tags %q, %v; want %q", spec.Push, spec.SaveTags, err, want)
	}
}

func TestImageNames(t *testing.T) {
	for _, test := range []struct {
		name      string
		variables []string
		want      string // names, comma-separated
		load      bool
		outputs   []string
	}{
		{"default", nil, "sandbox:ci", true, nil},
		{"several", []string{"INPUT_IMAGE_NAME=app:1,app:latest\nlocalhost:5000/app"}, "app:1,app:latest,localhost:5000/app",
			true, nil},
		{"output type=docker", []string{"INPUT_LOAD=false", "INPUT_OUTPUTS=type=docker"}, "sandbox:ci", true, nil},
		{"output type=docker with a name", []string{"INPUT_LOAD=false", "INPUT_OUTPUTS=type=docker,name=app:1"}, "app:1",
			true, nil},
		{"output type=cacheonly", []string{"INPUT_LOAD=false", "INPUT_OUTPUTS=type=cacheonly"}, "sandbox:ci", false,
			nil},
		{"archive", []string{"INPUT_IMAGE_NAME=a:1,b:1", "INPUT_OUTPUTS=type=docker,dest=a.tar\ntype=oci,dest=b.tar,name=c"},
			"a:1,b:1", true, []string{`type=docker,dest=a.tar,"name=a:1,b:1"`, "type=oci,dest=b.tar,name=c"}},
		{"archive of a pushed image", []string{"INPUT_PUSH=ghcr.io/a/b:1", "INPUT_OUTPUTS=type=oci,dest=b.tar\nout"},
			"sandbox:ci", true, []string{`type=oci,dest=b.tar,"name=ghcr.io/a/b:1"`, "out"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()}, test.variables...)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(test.want, ",")
			if got := strings.Join(spec.ImageNames, ","); got != test.want || spec.ImageName != first ||
				spec.Load != test.load || !slices.Equal(spec.Outputs, test.outputs) {
				t.Errorf("names %s, first %s, load %t, outputs %q; want %s, %t, %q",
					got, spec.ImageName, spec.Load, spec.Outputs, test.want, test.load, test.outputs)
			}
		})
	}
	_, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()}, "INPUT_LOAD=false", "INPUT_OUTPUTS=type=docker,name=A")
	assertInvalid(t, err, "outputs", 1, "", "must be lowercase")
}

// Depot's machines have no host that a build could reach; that of your own BuildKit is known when it is connected.
func TestHostsAndNetwork(t *testing.T) {
	spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()},
		"INPUT_ADD_HOSTS=a:10.180.0.1,10.180.0.2,b=[::1],::2,c:host-gateway", "INPUT_BUILDER=unix:///run/buildkit.sock",
		"INPUT_NETWORK=host")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a=10.180.0.1", "a=10.180.0.2", "b=::1", "b=::2", "c=host-gateway"}
	if !slices.Equal(spec.Request.AddHosts, want) {
		t.Errorf("hosts %q, want %q", spec.Request.AddHosts, want)
	}
	if want := []string{"network.host"}; !slices.Equal(spec.Request.Allow, want) {
		t.Errorf("network: host allows %q, want %q", spec.Request.Allow, want)
	}
}
