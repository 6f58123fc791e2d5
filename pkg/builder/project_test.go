package builder

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindProject(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string // below the root; a link when it begins with ->
		dir   string
		env   string
		want  string
		err   string // DIR is the root
	}{
		{name: "here", files: map[string]string{"depot.json": `{"id": "abc123"}`}, want: "abc123"},
		{name: "above", files: map[string]string{"depot.json": `{"id": "abc123"}`}, dir: "a/b/c", want: "abc123"},
		{name: "the nearest", files: map[string]string{"depot.json": `{"id": "far"}`, "a/depot.json": `{"id": "near"}`}, dir: "a/b", want: "near"},
		{name: "DEPOT_PROJECT_ID before all", files: map[string]string{"depot.json": `{`}, env: "environment", want: "environment"},
		{name: "depot.yml", files: map[string]string{"depot.yml": "id: abc123\n"}, want: "abc123"},
		{name: "what else it holds", files: map[string]string{"depot.json": `{"id": "abc123", "name": "sandbox"}`}, want: "abc123"},
		{name: "none", err: ErrNoProject.Error()},
		{name: "without id", files: map[string]string{"depot.json": `{}`}, err: `"DIR/depot.json" names no project: it holds {"id": "…"}, as ` + "`depot init` writes it"},
		{name: "empty", files: map[string]string{"depot.json": ``}, err: `"DIR/depot.json" names no project: it holds {"id": "…"}, as ` + "`depot init` writes it"},
		{name: "garbage", files: map[string]string{"depot.json": "{"}, err: `"DIR/depot.json" can not be understood: it holds {"id": "…"}, as ` + "`depot init` writes it"},
		{name: "a list", files: map[string]string{"depot.json": "[1,\n2]"}, err: `"DIR/depot.json" can not be understood: it holds {"id": "…"}, as ` + "`depot init` writes it"},
		{name: "an id of two lines", files: map[string]string{"depot.json": `{"id": "a\n::set-output name=x::y"}`},
			err: `"DIR/depot.json" names a project "a\n::set-output name=x::y", which no project is called: copy the id from the project's page at Depot`},
		{name: "a folder", files: map[string]string{"depot.json/file": ""}, err: `"DIR/depot.json" is no file of a project: it is a small file that holds {"id": "…"}, as ` + "`depot init` writes it"},
		{name: "a link to a device", files: map[string]string{"depot.json": "->/dev/zero"}, err: `"DIR/depot.json" is no file of a project: it is a small file that holds {"id": "…"}, as ` + "`depot init` writes it"},
		{name: "too large", files: map[string]string{"depot.json": strings.Repeat(" ", maxProjectFile+1)}, err: `"DIR/depot.json" is no file of a project: it is a small file that holds {"id": "…"}, as ` + "`depot init` writes it"},
		{name: "a link to another's secrets", files: map[string]string{"depot.json": "->secret", "secret": "root:$6$salt:0:0:/root\n"},
			err: `"DIR/depot.json" can not be understood: it holds {"id": "…"}, as ` + "`depot init` writes it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for file, content := range test.files {
				file = filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if target, ok := strings.CutPrefix(content, "->"); ok {
					if err := os.Symlink(target, file); err != nil {
						t.Fatal(err)
					}
				} else if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			dir := filepath.Join(root, test.dir)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Chdir(dir)
			for _, from := range []string{dir, "."} { // an absolute folder, and a relative one
				got, err := FindProject(from, environment(map[string]string{"DEPOT_PROJECT_ID": test.env}))
				said := ""
				if err != nil {
					said = strings.ReplaceAll(err.Error(), root, "DIR")
				}
				if got != test.want || said != test.err {
					t.Errorf("from %s: %q, %s; want %q, %s", from, got, said, test.want, test.err)
				}
			}
			if _, err := FindProject(dir, environment(nil)); test.err == ErrNoProject.Error() && !errors.Is(err, ErrNoProject) {
				t.Errorf("%v is not ErrNoProject", err)
			}
		})
	}
}

// FuzzFindProject: whatever a depot.json holds, what is taken for an id is one word, and a refusal one sentence.
func FuzzFindProject(f *testing.F) {
	for _, seed := range []string{`{"id": "abc123"}`, `{"id": ""}`, `{"id": 1}`, `{"id": null}`, `{"id": ["a"]}`, `{"id": "a b"}`, `{"id":"\u0000"}`, "id: abc", "id: |\n  a\n  b\n", "{", "", "&a [*a]", "\xff", "!!binary aWQ=", `{"id":"a"}{"id":"b"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "depot.json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := FindProject(dir, environment(nil))
		switch {
		case err != nil && (id != "" || strings.ContainsAny(err.Error(), "\n\r\x1b\x00")):
			t.Errorf("%q, %q", id, err)
		case err == nil && (id == "" || strings.ContainsAny(id, " \t\n\r\x1b\x00")):
			t.Errorf("the id is %q", id)
		}
	})
}
