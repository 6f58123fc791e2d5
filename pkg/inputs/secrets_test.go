package inputs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/image"
)

func TestSecrets(t *testing.T) {
	dir := repository(t)
	env := Env{
		Dir:    dir,
		Getenv: func(name string) string { return map[string]string{"NPM": "n", "SOURCE_DATE_EPOCH": "7"}[name] },
	}
	spec, err := buildSpec(t, env, "INPUT_SECRETS=A=1=2", "INPUT_SECRET_ENVS=TOKEN=NPM,NPM", "INPUT_SECRET_FILES=key=file")
	if err != nil {
		t.Fatal(err)
	}
	got, err := spec.ReadSecrets()
	if want := map[string]string{"A": "1=2", "TOKEN": "n", "NPM": "n", "key": "x"}; err != nil ||
		!reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if epoch := spec.Request.BuildArgs["SOURCE_DATE_EPOCH"]; epoch != "7" {
		t.Errorf("SOURCE_DATE_EPOCH %q", epoch)
	}
}

// A run for a fork or Dependabot gets empty secrets. They are left out, and only steps that require them fail.
func TestSecretsWithoutAValue(t *testing.T) {
	variables := map[string]string{}
	env := Env{Dir: repository(t), Getenv: func(name string) string { return variables[name] }}
	spec, err := buildSpec(t, env, "INPUT_SECRETS=A=1\nTOKEN=\nTOKEN=2", "INPUT_SECRET_ENVS=NPM=NOT_SET",
		"INPUT_SECRET_FILES=.npmrc=missing\nkey=file")
	if err != nil {
		t.Fatal(err)
	}
	got, err := spec.ReadSecrets()
	if want := map[string]string{"A": "1", "TOKEN": "2", "key": "x"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	want := []string{
		"input secrets, line 2: the secret TOKEN is left out: its value is empty",
		"input secret_envs, line 1: the secret NPM is left out: the environment variable NOT_SET is not set",
		"input secret_files, line 1: the secret .npmrc is left out: the file missing does not exist",
	}
	if !reflect.DeepEqual(spec.Warnings, want) {
		t.Errorf("warnings %q, want %q", spec.Warnings, want)
	}
	spec, err = buildSpec(t, env, "INPUT_SECRETS=hunter2+/"+strings.Repeat("x", 70)+"=")
	if err != nil || len(spec.Warnings) != 1 || strings.Contains(spec.Warnings[0], "hunter2") {
		t.Errorf("a value in place of the ID: %q, %v", spec.Warnings, err)
	}
	env.Fork = true
	spec, err = buildSpec(t, env, "INPUT_SECRETS=TOKEN=")
	if err != nil || !strings.Contains(strings.Join(spec.Warnings, ""), "a pull request from a fork") {
		t.Errorf("fork: %q, %v", spec.Warnings, err)
	}
	env.Fork, variables["GITHUB_ACTOR"] = false, "dependabot[bot]"
	spec, err = buildSpec(t, env, "INPUT_SECRETS=TOKEN=")
	if err != nil || !strings.Contains(strings.Join(spec.Warnings, ""), "secrets of Dependabot") {
		t.Errorf("Dependabot: %q, %v", spec.Warnings, err)
	}
}

// BuildKit passes the bytes of a secret, and a Dockerfile can use any ID.
func TestSecretsAreVerbatim(t *testing.T) {
	spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: t.TempDir()},
		"INPUT_SECRETS=\"CRLF=a\r\nb\"\r\n.npmrc=x\r\nid+1=y\n\"QUOTES=a \"\"b\"\"\r\n,c\"")
	if err != nil {
		t.Fatal(err)
	}
	got, err := spec.ReadSecrets()
	want := map[string]string{"CRLF": "a\r\nb", ".npmrc": "x", "id+1": "y", "QUOTES": "a \"b\"\r\n,c"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestSSH(t *testing.T) {
	dir := t.TempDir()
	key := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := key("a"), key("b=c")
	agent := func(id string, paths ...string) image.SSH { return image.SSH{ID: id, Paths: paths} }
	for text, want := range map[string][]image.SSH{
		"default":                        {agent("default")},
		"default,other":                  {agent("default"), agent("other")},
		"default=" + a + "," + b:         {agent("default", a, b)},
		"default=" + a + ",github=" + b:  {agent("default", a), agent("github", b)},
		"default\ngithub=" + b + "," + a: {agent("default"), agent("github", b, a)},
		"x=" + a + "\nx=" + b:            {agent("x", a, b)},
		"default\ndefault=" + a:          {agent("default", a)},
		"default=" + a + "\ndefault":     {agent("default", a)},
		"=" + a:                          {agent("default", a)},
	} {
		env := Env{Dir: dir, Getenv: func(name string) string {
			return map[string]string{"SSH_AUTH_SOCK": "/run/agent.sock"}[name]
		}}
		spec, err := buildSpec(t, env, "INPUT_SSH="+text)
		if err != nil || !reflect.DeepEqual(spec.Request.SSH, want) {
			t.Errorf("%s: %v, %v; want %v", text, spec.Request.SSH, err, want)
		}
	}
}
