package suite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each file of testdata/convert is one of container-structure-test's, and becomes what is beside it, the warnings as comments.
func TestConvert(t *testing.T) {
	files, _ := filepath.Glob("testdata/convert/*.yaml")
	if len(files) < 20 {
		t.Fatalf("only %d files", len(files))
	}
	schema := compiledSchema(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			from, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			to, warnings, err := Convert(from)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, w := range warnings {
				fmt.Fprintf(&got, "# line %d: %s\n", w.Line, w.Message)
			}
			got.Write(to)
			golden := strings.TrimSuffix(file, "yaml") + "golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("(go test -update writes it)\n%s", diff(string(want), got.String()))
			}
			if _, err := Parse("testdata/good/tests.yaml", to); err != nil {
				t.Error(err)
			}
			value, err := asJSON(to)
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(value); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConvertRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "1: the suite is empty"},
		{"no version", "commandTests: []", "1: schemaVersion is \"\": only files of container-structure-test's schema 2.0.0"},
		{"an older version", "schemaVersion: 1.0.0", `1: schemaVersion is "1.0.0"`},
		{"unknown key", "schemaVersion: 2.0.0\ncommandTest: []", `2: the file has no key "commandTest": did you mean "commandTests"?`},
		{"unknown key of a test", "schemaVersion: 2.0.0\ncommandTests:\n- name: a\n  cmd: x", `4: an item of commandTests has no key "cmd"`},
		{"no command", "schemaVersion: 2.0.0\ncommandTests:\n- name: a", `3: the command test "a" has no command`},
		{"no name", "schemaVersion: 2.0.0\ncommandTests:\n- command: a", `3: a test has no name`},
		{"no path", "schemaVersion: 2.0.0\nfileExistenceTests:\n- name: a", `3: a test of a file has no path`},
		{"a bad regex", "schemaVersion: 2.0.0\nfileContentTests:\n- name: a\n  path: /a\n  expectedContents: ['(']", `5: parsing regexp: missing closing )`},
		{"a bad mode", "schemaVersion: 2.0.0\nfileExistenceTests:\n- {name: a, path: /a, permissions: '0644'}", `3: permissions "0644" are not written as -rw-r--r--`},
		{"executable by all", "schemaVersion: 2.0.0\nfileExistenceTests:\n- {name: a, path: /a, isExecutableBy: all}", `3: isExecutableBy can not be "all"`},
		{"an empty setup", "schemaVersion: 2.0.0\ncommandTests:\n- {name: a, command: x, setup: [[]]}", `3: a setup command of "a" is empty`},
		{"nothing in it", "schemaVersion: 2.0.0", "1: the file holds no test that can be converted"},
		{"licenses alone", "schemaVersion: 2.0.0\nlicenseTests: [{debian: true}]", "1: the file holds no test that can be converted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Convert([]byte(test.text))
			invalid := new(Invalid)
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

// What was converted tests the same: a file that is right for an image passes, and each test of it fails when it asks for something else.
func TestConvertedRuns(t *testing.T) {
	from, err := os.ReadFile("testdata/convert/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	to, _, err := Convert(from)
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, string(to), nil)
	onBoth(t, func(t *testing.T, m *machine) {
		r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Engine: m, Parallel: 4})
		if err != nil {
			t.Fatal(err)
		}
		if r.Total != 12 || r.Passed != 12 {
			for _, result := range r.failed() {
				t.Errorf("%s: %s", result.Name, result.details())
			}
			t.Error(r.Line())
		}
	})
}

func FuzzConvert(f *testing.F) {
	files, _ := filepath.Glob("testdata/convert/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		to, _, err := Convert(text)
		if err != nil {
			return
		}
		_, err = Parse("testdata/good/tests.yaml", to)
		// Mounts are looked for beside the suite, and there are none beside this one.
		if err != nil && !strings.Contains(err.Error(), "beside the suite") && !strings.Contains(err.Error(), "larger than") {
			t.Errorf("%v in\n%s", err, to)
		}
	})
}
