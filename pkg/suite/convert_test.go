package suite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testdata/convert contains files of container-structure-test, each with the converted suite. Comments in the suite are
// the warnings.
func TestConvert(t *testing.T) {
	files, _ := filepath.Glob("testdata/convert/*.[yj]*")
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
			to, warnings, err := Convert(file, from)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, w := range warnings {
				fmt.Fprintf(&got, "# line %d: %s\n", w.Line, w.Message)
			}
			got.Write(to)
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + ".golden"
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
				t.Errorf("%s differs (go test -update writes it):\n%s", golden, diff(string(want), got.String()))
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

func TestConvertInvalid(t *testing.T) {
	const version = "schemaVersion: 2.0.0\n"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "1: schemaVersion is missing"},
		{"no version", "commandTests: []", "1: schemaVersion is missing (add schemaVersion: 2.0.0)"},
		{"unknown version", "schemaVersion: 3.0.0", `1: schemaVersion is "3.0.0"; only versions 1.0.0 and 2.0.0`},
		{"version as a number", "schemaVersion: 2.0", `1: schemaVersion is "2.0"`},
		{
			"unknown key", version + "commandTest: []", `2: unknown key "commandTest" in the file; did you mean "commandTests"?`,
		},
		{
			"unknown key of a test", version + "commandTests:\n- name: a\n  cmd: x",
			`4: unknown key "cmd" in commandTests[0]; use args, command`,
		},
		{"no command", version + "commandTests:\n- name: a", `3: command test "a" has no command`},
		{"no name", version + "commandTests:\n- command: a", "3: test has no name"},
		{"no path", version + "fileExistenceTests:\n- name: a", "3: file test has no path"},
		{
			"invalid regular expression", version + "fileContentTests:\n- name: a\n  path: /a\n  expectedContents: ['(']",
			"5: fileContentTests[0].expectedContents[0]: invalid regular expression",
		},
		{
			"invalid regular expression of a label",
			version + "metadataTest:\n  labels:\n  - {key: a, value: '(', isRegex: true}",
			"4: metadataTest.labels[0]: invalid regular expression",
		},
		{
			"octal permissions", version + "fileExistenceTests:\n- {name: a, path: /a, permissions: '0644'}",
			`3: no file has the permissions "0644" (for example -rw-r--r--`,
		},
		{
			"executable by all", version + "fileExistenceTests:\n- {name: a, path: /a, isExecutableBy: all}",
			`3: isExecutableBy must be owner, group, other or any, not "all"`,
		},
		{
			"empty setup", version + "commandTests:\n- {name: a, command: x, setup: [[]]}",
			`3: setup command of "a" is empty`,
		},
		{
			"exit code above 255", version + "commandTests:\n- {name: a, command: x, exitCode: 256}",
			"3: exitCode must be 0 to 255, not 256",
		},
		{
			"environment variable without a name", version + "globalEnvVars:\n- {key: '', value: x}",
			`3: invalid environment variable ""`,
		},
		{"invalid port", version + "metadataTest: {exposedPorts: [http]}", `2: port "http" never matches`},
		{"no tests", version, "1: file has no tests that can be converted"},
		{"license test without files", version + "licenseTests: [{}]", "1: file has no tests that can be converted"},
		{"invalid YAML", version + "commandTests: [", "2: invalid YAML: did not find expected node content"},
		{"string for a list", version + "commandTests:\n- {args: x}", `3: "x" must be a list of strings`},
		{"list for a string", version + "commandTests:\n- {name: [x]}", "3: a list must be a string"},
		{
			"boolean in quotes", version + "fileExistenceTests:\n- {shouldExist: 'yes'}",
			`3: "yes" must be true or false, without`,
		},
		{"duplicate key", version + "commandTests:\n- {name: a, name: b}", `3: duplicate key "name"; remove one`},
		{"file that the engine creates", version + "fileExistenceTests:\n- {name: a, path: /etc/hosts, shouldExist: no}",
			"3: /etc/hosts always exists, because the engine creates it",
		},
		{"relative mount", version + "containerRunOptions:\n  bindMounts: [./a:/a]\ncommandTests: [{name: a, command: b}]",
			`3: containerRunOptions.bindMounts: engines reject "./a:/a"`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Convert("structure.yaml", []byte(test.text))
			invalid := new(InvalidError)
			if !errors.As(err, &invalid) || !strings.HasPrefix(err.Error(), "structure.yaml:"+test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// A converted suite passes with the image that the original describes.
func TestConvertedSuiteRuns(t *testing.T) {
	source, err := os.ReadFile("testdata/convert/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	converted, _, err := Convert("structure.yaml", source)
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, string(converted), nil)
	onBoth(t, func(t *testing.T, m *machine) {
		r, err := Run(t.Context(), s, Options{Image: debian, ImageID: m.debian, Target: m.target(), Parallel: 4})
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
		f.Add(text, ".yaml")
	}
	text, err := os.ReadFile("testdata/convert/json-keys.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, ".json")
	f.Fuzz(func(t *testing.T, text []byte, extension string) {
		to, _, err := Convert("structure"+extension, text)
		if err != nil {
			return
		}
		_, err = Parse("testdata/good/tests.yaml", to)
		// The suite may be too large, or mount files that do not exist here.
		if err != nil && !strings.Contains(err.Error(), "].source: ") && !strings.Contains(err.Error(), "; split it") {
			t.Errorf("%v in\n%s", err, to)
		}
	})
}
