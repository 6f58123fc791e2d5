package actions

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// parse reads inputs as the program does.
func parse(t *testing.T, args, environ []string) (*BuildInputs, []string, error) {
	t.Helper()
	var in BuildInputs
	warnings, err := Inputs{Program: "action-build", Args: args, Environ: environ, Stdout: &bytes.Buffer{}}.Parse(&in)
	return &in, warnings, err
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
		{"windows", "a\r\nb\r\n", []string{"a", "b"}, []string{"a", "b"}},
		{"empty", "\n \n", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, _, err := parse(t, nil, []string{"INPUT_ALLOW=" + test.text, "INPUT_LABELS=" + test.text})
			if err != nil {
				t.Fatal(err)
			}
			if got := Texts(in.Allow); !reflect.DeepEqual(got, test.list) {
				t.Errorf("split at commas: %q, want %q", got, test.list)
			}
			if got := Texts(in.Labels); !reflect.DeepEqual(got, test.lines) {
				t.Errorf("by lines: %q, want %q", got, test.lines)
			}
		})
	}
	in, _, err := parse(t, []string{"--labels", "a=1", "--labels", "b=2\nc=3"}, nil)
	if err != nil || !reflect.DeepEqual(Texts(in.Labels), []string{"a=1", "b=2", "c=3"}) {
		t.Errorf("a flag given twice: %q, %v", Texts(in.Labels), err)
	}
}

func TestWhereInputsComeFrom(t *testing.T) {
	here := "linux/" + runtime.GOARCH
	for _, test := range []struct {
		name          string
		args, environ []string
		platform      string
		image         string
		load          bool
	}{
		{"a prompt", nil, nil, here, "iterate-sandbox:local", true},
		{"in actions", nil, []string{"GITHUB_ACTIONS=true"}, "linux/amd64", "iterate-sandbox:ci", true},
		{"variables of a developer", nil, []string{"SANDBOX_BUILD_PLATFORM=linux/arm64", "LOCAL_DOCKER_IMAGE_NAME=mine:dev"}, "linux/arm64", "mine:dev", true},
		{"inputs", nil, []string{"GITHUB_ACTIONS=true", "INPUT_PLATFORM=linux/arm64", "INPUT_IMAGE_NAME=x:y", "INPUT_LOAD=false", "SANDBOX_BUILD_PLATFORM=linux/amd64"}, "linux/arm64", "x:y", false},
		{"empty inputs are not given", nil, []string{"GITHUB_ACTIONS=true", "INPUT_PLATFORM=", "INPUT_IMAGE_NAME= ", "INPUT_LOAD="}, "linux/amd64", "iterate-sandbox:ci", true},
		{"flags win", []string{"--platform", "linux/amd64", "--no-load", "--image-name=f:1"}, []string{"INPUT_PLATFORM=linux/arm64", "INPUT_LOAD=true"}, "linux/amd64", "f:1", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, _, err := parse(t, test.args, test.environ)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(Texts(in.Platform), ","); got != test.platform || in.ImageName != test.image || in.Load != test.load {
				t.Errorf("platform %s, image %s, load %t; want %s, %s, %t", got, in.ImageName, in.Load, test.platform, test.image, test.load)
			}
		})
	}
}

func TestUnknownInputsNameTheNearest(t *testing.T) {
	_, warnings, err := parse(t, nil, []string{"INPUT_PLATFROM=linux/amd64", "INPUT_BUILD_ARG=A=1", "INPUT_REF=main"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"there is no input platfrom: did you mean platform?", "there is no input build_arg: did you mean build_args?"}
	if !reflect.DeepEqual(warnings, want) {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
}

func TestHelpNamesEveryInput(t *testing.T) {
	var out bytes.Buffer
	_, err := Inputs{Program: "action-build", Args: []string{"--help"}, Stdout: &out}.Parse(&BuildInputs{})
	if !errors.Is(err, ErrHelp) {
		t.Fatal(err)
	}
	for _, i := range inputsOf(t, &BuildInputs{}) {
		if !strings.Contains(out.String(), "--"+strings.ReplaceAll(i.name, "_", "-")) && !strings.Contains(out.String(), "--[no-]"+i.name) {
			t.Errorf("--help says nothing of %s", i.name)
		}
	}
}

func TestMissingArgument(t *testing.T) {
	_, err := Inputs{Program: "action-test convert", Stdout: &bytes.Buffer{}}.Parse(&ConvertInputs{})
	if want := "the argument <file> is missing: Suite of container-structure-test, schema 2.0.0."; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	for _, words := range [][]string{nil, {"--", "ls"}, {"ls", "-l"}} { // those of a shell need not be there
		if _, err := (Inputs{Program: "action-test shell", Args: words, Stdout: &bytes.Buffer{}}).Parse(&ShellInputs{}); err != nil {
			t.Errorf("shell %q: %v", words, err)
		}
	}
}

// What cannot be right is refused with its name, its value and what would be right, before anybody is asked.
func TestWrongInputs(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"Dockerfile": "FROM scratch\n", "file": "x", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"out": "/etc", "dangling": "/nowhere/file"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ name, input, value, sentence string }{
		{"platform", "PLATFORM", "linux/riscv64", `input platform: "linux/riscv64" is not a platform that can be built: write linux/amd64, linux/arm64 or both`},
		{"one bad platform of two", "PLATFORM", "linux/amd64,windows/amd64", `input platform: "windows/amd64" is not a platform that can be built`},
		{"load", "LOAD", "maybe", `input load: bool value must be true, 1, yes, false, 0 or no but got "maybe"`},
		{"timeout without unit", "TIMEOUT", "30", `input timeout: expected duration but got "30"`},
		{"no timeout", "TIMEOUT", "0s", `input timeout: "0s" is no time to wait: write for example 30m`},
		{"builder scheme", "BUILDER", "ftp://x", `input builder: `},
		{"build argument", "BUILD_ARGS", "A=1\n\nB C=2", `input build_args, line 3: "B C=2" is no build argument: write NAME=VALUE`},
		{"build argument without value", "BUILD_ARGS", "NOT_SET_ANYWHERE", `input build_args, line 1: "NOT_SET_ANYWHERE" has no value, and the environment has none for it`},
		{"open quote", "BUILD_ARGS", "A=1\n\"B=2", `input build_args: line 2: extraneous or missing " in quoted-field`},
		{"label", "LABELS", "a=b\n=c", `input labels, line 2: "=c" has no name: write NAME=VALUE`},
		{"annotation", "ANNOTATIONS", "layer:a", `input annotations, line 1: "layer:a" is no annotation`},
		{"annotation of another platform", "ANNOTATIONS", "manifest[linux/arm64]:a=b", `is for a platform that is not built`},
		{"named context", "BUILD_CONTEXTS", "base", `input build_contexts, line 1: "base" is no named context`},
		{"named context that is not there", "BUILD_CONTEXTS", "base=missing", `input build_contexts: "base=missing" is no folder that is there`},
		{"secret without value", "SECRETS", "A=1\nTOKEN=", `input secrets, line 2: the secret TOKEN has no value: write ID=VALUE, and see that the value is not empty`},
		{"a value where ids are", "SECRETS", "hunter2hunter2", `input secrets, line 1: the secret of that line has no value`},
		{"secret without source", "SECRET_ENVS", "TOKEN=NOT_SET_ANYWHERE", `input secret_envs, line 1: "TOKEN=NOT_SET_ANYWHERE" has no source: the variable NOT_SET_ANYWHERE is not set`},
		{"secret file", "SECRET_FILES", "key=missing", `input secret_files, line 1: "key=missing" can not be read: `},
		{"ssh without agent", "SSH", "default", `input ssh, line 1: "default" has no source: start an agent`},
		{"ssh socket", "SSH", "default=/missing.sock", `input ssh, line 1: "default=/missing.sock" names what is not there`},
		{"host", "ADD_HOSTS", "a=b", `input add_hosts, line 1: "a=b" is no host: write NAME=ADDRESS, with an IP address`},
		{"entitlement", "ALLOW", "root", `input allow, line 1: "root" is no entitlement: write network.host or security.insecure`},
		{"network", "NETWORK", "bridge", `input network: "bridge" is unknown: write default, none or host`},
		{"host network", "NETWORK", "host", `input network: "host" needs the input allow: network.host`},
		{"shared memory", "SHM_SIZE", "big", `input shm_size: "big" is no size: write for example 512m or 2g`},
		{"limit", "ULIMIT", "nofile=a", `input ulimit, line 1: "nofile=a" is no limit`},
		{"attestation", "ATTESTS", "type=blood", `input attests, line 1: "type=blood" has no type that is known`},
		{"provenance", "PROVENANCE", "full", `input provenance: "full" is unknown: write true, false or attributes such as mode=max`},
		{"image name", "IMAGE_NAME", "Upper:case", `input image_name: "Upper:case" is no image name`},
		{"image name with a digest", "IMAGE_NAME", "a@sha256:" + strings.Repeat("0", 64), `holds a digest, which only the build can know`},
		{"push", "PUSH", "ghcr.io/a/b:1\nghcr.io/A", `input push, line 2: "ghcr.io/A" is no image reference`},
		{"save elsewhere", "SAVE", "true", `input save: "true" keeps the image in Depot's registry, and the input builder is not depot`},
		{"save tags", "SAVE_TAGS", "a b", `input save_tags, line 1: "a b" is no tag`},
		{"save tags without save", "SAVE_TAGS", "v1", `input save_tags: "v1" needs the input save: true`},
		{"output", "OUTPUTS", "type=local", `input outputs, line 1: "type=local" needs dest=PATH`},
		{"output type", "OUTPUTS", "type=zip,dest=x", `has the unknown type "zip"`},
		{"ref that is an option", "REF", "--upload-pack=x", `input ref: the ref "--upload-pack=x" begins with "-"`},
		{"ref with dots", "REF", "a..b", `holds ".."`},
		{"ref with a line break", "REF", "a\nb", `input ref: the ref "a\nb" holds a space or a line break`},
		{"git context name", "GIT_CONTEXT", "a b", `input git_context: "a b" must be a name such as git`},
		{"context", "CONTEXT", "missing", `input context: "missing" is not there`},
		{"context that is a file", "CONTEXT", "file", `input context: "file" is a file: it must be a folder`},
		{"context that leads out", "CONTEXT", "out", `input context: "out" is a link that leads out of the repository`},
		{"secret file that leads out", "SECRET_FILES", "id=out/passwd", `input secret_files, line 1: "out/passwd" is a link that leads out of the repository`},
		{"output that leads out", "OUTPUTS", "type=local,dest=out/there", `/out/there" is a link that leads out of the repository`},
		{"output that leads nowhere", "OUTPUTS", "type=local,dest=dangling", `/dangling" is a link that leads out of the repository`},
		{"dockerfile", "DOCKERFILE", "missing", `input dockerfile: "missing" is not there`},
		{"empty dockerfile", "DOCKERFILE", "empty", `input dockerfile: "empty" is empty`},
	} {
		t.Run(test.name, func(t *testing.T) {
			environ := []string{"GITHUB_ACTIONS=true", "INPUT_" + test.input + "=" + test.value}
			if test.name == "save elsewhere" {
				environ = append(environ, "INPUT_BUILDER=unix:///run/buildkit.sock")
			}
			in, _, err := parse(t, nil, environ)
			var p *plan
			if err == nil {
				p, err = check(in, func(string) string { return "" }, dir)
			}
			if err == nil {
				err = p.locate(dir)
			}
			if err == nil || !strings.Contains(err.Error(), test.sentence) {
				t.Errorf("%v, want %s", err, test.sentence)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the sentence holds what may be a secret: %v", err)
			}
		})
	}
}
