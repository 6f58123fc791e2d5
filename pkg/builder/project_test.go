package builder

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindProject(t *testing.T) {
	const (
		regular = `read "DIR/depot.json": not a regular file`
		invalid = `parse "DIR/depot.json": invalid project file`
		missing = `parse "DIR/depot.json": missing project ID`
	)
	for _, test := range []struct {
		name  string
		files map[string]string // paths below the root; a value with the prefix -> is a symbolic link target
		dir   string
		env   string
		want  string
		err   string // its prefix, with DIR for the root
	}{
		{name: "in the directory", files: map[string]string{"depot.json": `{"id": "abc123"}`}, want: "abc123"},
		{name: "in a parent", files: map[string]string{"depot.json": `{"id": "abc123"}`}, dir: "a/b/c", want: "abc123"},
		{
			name: "nearest", files: map[string]string{"depot.json": `{"id": "far"}`, "a/depot.json": `{"id": "near"}`},
			dir: "a/b", want: "near",
		},
		{name: "environment first", files: map[string]string{"depot.json": `{`}, env: "environment", want: "environment"},
		{name: "YAML", files: map[string]string{"depot.yml": "id: abc123\n"}, want: "abc123"},
		{name: "other fields", files: map[string]string{"depot.json": `{"id": "abc123", "name": "app"}`}, want: "abc123"},
		{name: "no file", err: ErrNoProject.Error()},
		{name: "no ID", files: map[string]string{"depot.json": `{}`}, err: missing},
		{name: "empty file", files: map[string]string{"depot.json": ``}, err: missing},
		{name: "truncated", files: map[string]string{"depot.json": "{"}, err: invalid},
		{name: "list", files: map[string]string{"depot.json": "[1,\n2]"}, err: invalid},
		{
			name: "ID with a line break", files: map[string]string{"depot.json": `{"id": "a\n::set-output name=x::y"}`},
			err: `parse "DIR/depot.json": invalid project ID "a\n::set-output name=x::y"`,
		},
		{
			name: "ID with a space", files: map[string]string{"depot.json": `{"id": "a b"}`},
			err: `parse "DIR/depot.json": invalid project ID`,
		},
		{name: "directory", files: map[string]string{"depot.json/file": ""}, err: regular},
		{name: "link to a device", files: map[string]string{"depot.json": "->/dev/zero"}, err: regular},
		{name: "largest file", files: map[string]string{"depot.json": padded(maxProjectFile)}, want: "abc123"},
		{name: "too large", files: map[string]string{"depot.json": padded(maxProjectFile + 1)}, err: regular},
		{
			name: "link to a secret", err: invalid,
			files: map[string]string{"depot.json": "->secret", "secret": "root:$6$salt:0:0:/root\n"},
		},
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
			for _, from := range []string{dir, "."} {
				got, _, err := FindProject(environment(map[string]string{"DEPOT_PROJECT_ID": test.env}), t.Logf, from)
				message := ""
				if err != nil {
					message = strings.ReplaceAll(err.Error(), root, "DIR")
				}
				if got != test.want || (message == "") != (test.err == "") || !strings.HasPrefix(message, test.err) {
					t.Errorf("from %s: got %q, %q; want %q, %q", from, got, message, test.want, test.err)
				}
				if strings.Contains(message, "salt") {
					t.Errorf("the error quotes the file: %q", message)
				}
				if errors.Is(err, ErrNoProject) != (test.err == ErrNoProject.Error()) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// The Dockerfile and the context of a part of a monorepo may be below different project files.
func TestFindProjectInDirectories(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		dirs  []string
		want  string // ID, or the prefix of the error
		log   string // substring
	}{
		{
			"below the root", map[string]string{"apps/api/depot.json": "id: api"}, []string{"apps/api/docker", "apps/api"},
			"api", "",
		},
		{"second directory", map[string]string{"apps/api/depot.json": "id: api"}, []string{"docker", "apps/api"}, "api", ""},
		{"directory is missing", map[string]string{"depot.json": "id: root"}, []string{"apps/api"}, "root", ""},
		{
			"first directory wins", map[string]string{"depot.json": "id: root", "apps/api/depot.json": "id: api"},
			[]string{
				"docker", "apps/api",
			}, "root", `Using the Depot project root of "DIR/depot.json"; "DIR/apps/api/depot.json" names api`,
		},
		{
			"same project twice", map[string]string{"depot.json": "id: api", "apps/api/depot.json": "id: api"},
			[]string{"docker", "apps/api"}, "api", "",
		},
		{
			"invalid file of the first", map[string]string{"docker/depot.json": "[", "apps/depot.json": "id: api"},
			[]string{"docker", "apps"}, `parse "DIR/docker/depot.json"`, "",
		},
		{
			"invalid file of the second", map[string]string{"docker/depot.json": "id: api", "apps/depot.json": "["},
			[]string{"docker", "apps"}, "api", "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for file, content := range test.files {
				file = filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var dirs []string
			for _, dir := range test.dirs {
				dirs = append(dirs, filepath.Join(root, dir))
			}
			j := &journal{}
			got, _, err := FindProject(environment(nil), j.logf, dirs...)
			if err != nil {
				got = err.Error()
			}
			got = strings.ReplaceAll(got, root, "DIR")
			log := strings.ReplaceAll(strings.Join(j.log(), "\n"), root, "DIR")
			if !strings.HasPrefix(got, test.want) || log != test.log {
				t.Errorf("got %q, logged %q; want %q, %q", got, log, test.want, test.log)
			}
		})
	}
}

// padded returns a valid project file of n bytes.
func padded(n int) string {
	const content = `{"id": "abc123"}`
	return content + strings.Repeat(" ", n-len(content))
}

// FuzzFindProject checks that an ID is one word and an error is one line.
func FuzzFindProject(f *testing.F) {
	for _, seed := range []string{
		`{"id": "abc123"}`, `{"id": ""}`, `{"id": 1}`, `{"id": null}`, `{"id": ["a"]}`, `{"id": "a b"}`, `{"id":"\u0000"}`,
		"id: abc", "id: |\n  a\n  b\n", "{", "", "&a [*a]", "\xff", "!!binary aWQ=", `{"id":"a"}{"id":"b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "depot.json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		id, _, err := FindProject(environment(nil), t.Logf, dir)
		switch {
		case err != nil && (id != "" || strings.ContainsAny(err.Error(), "\n\r\x1b\x00")):
			t.Errorf("got %q, %q", id, err)
		case err == nil && (id == "" || strings.ContainsAny(id, " \t\n\r\x1b\x00")):
			t.Errorf("got ID %q", id)
		}
	})
}
