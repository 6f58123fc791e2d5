package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Each problem has the line of the invalid value and its location in the test.
func TestParseInvalid(t *testing.T) {
	const ok = "\n  - {name: b, run: 'true'}"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "1: file is empty"},
		{"comments only", "# nothing\n", "1: file is empty"},
		{"null", "null", "1: file is empty"},
		{"list", "- a", "1: suite must be a mapping, not a list"},
		{"string", "tests", `1: suite must be a mapping, not "tests"`},
		{"unclosed YAML", "tests:\n  - {name: a\n", "1: invalid YAML: did not find expected ',' or '}'"},
		{"tab as indentation", "tests:\n\t- a", "2: invalid YAML: found character that cannot start any token"},
		{"two documents", "tests: [{name: a, run: 'true'}]\n---\ntests: []\n", "2: file has more than one YAML document"},
		{"no tests", "name: a\n", `1: suite: missing key "tests"`},
		{"empty tests", "name: a\ntests: []", "2: tests must not be empty"},
		{"tests as a string", "name: a\ntests: some", `2: tests must be a list, not "some"`},
		{"unknown key", "test:" + ok, `1: unknown key "test" in suite; did you mean "tests"?`},
		{"unknown key of a test", "tests:\n  - name: a\n    comand: x", `3: unknown key "comand" in test "a"`},
		{
			"misspelled key of a test",
			"tests:\n  - name: a\n    run: x\n    stdot: x",
			`4: unknown key "stdot" in test "a"; did you mean "stdout"?`,
		},
		{
			"misspelled key of a step",
			"tests:\n- name: a\n  service:\n    steps:\n    - htp: {port: 1}",
			`5: unknown key "htp" in service.steps[0]; did you mean "http"?`,
		},
		{"duplicate key", "tests:\n  - name: a\n    run: x\n    name: b", `4: duplicate key "name", first set on line 2`},
		{"duplicate name", "tests:\n  - {name: b, run: x}" + ok, `3: test name "b" is already used on line 2`},
		{
			"duplicate name from a matrix",
			"tests:\n  - {name: 'b [A=1]', run: x}\n  - {name: b, matrix: {A: [1]}, run: x}",
			`3: test name "b [A=1]" is already used on line 2`,
		},
		{"missing name", "tests:\n  - run: x", `2: test: missing key "name"`},
		{"null name", "tests:\n  - name:\n    run: x", "2: name is empty"},
		{"multi-line name", "tests:\n  - run: x\n    name: |\n      a\n      b", `3: name: invalid one-line name "a\nb"`},
		{"boolean name", "tests:\n  - {name: true, run: x}", "2: name must be a string, not true"},
		{
			"test without a check",
			"tests:\n  - name: a",
			`2: test "a" must have exactly one of image, files, service and run, not 0`,
		},
		{
			"test with two checks",
			"tests:\n  - {name: a, run: x, files: [{path: /a}]}",
			`2: test "a" must have exactly one of image, files, service and run, not 2`,
		},
		{
			"invalid regular expression in a list",
			"tests:\n  - name: a\n    run: x\n    stdout:\n      include:\n        - ok\n        - '('",
			"7: stdout.include[1]: invalid regular expression \"(\": missing closing ): `(`",
		},
		{
			"invalid regular expression in the short form",
			"tests:\n  - name: a\n    run: x\n    stdout: '[z-a]'",
			"4: stdout: invalid regular expression \"[z-a]\": invalid character class range: `z-a`",
		},
		{"exit code as a string", "tests:\n  - {name: a, run: x, exit: zero}", `2: exit must be an integer, not "zero"`},
		{"negative exit code", "tests:\n  - {name: a, run: x, exit: -1}", "2: exit must be 0 to 255, not -1"},
		{"exit code above 255", "tests:\n  - name: a\n    run: x\n    exit: 256", "4: exit must be 0 to 255, not 256"},
		{"duration without a unit", "tests:\n  - {name: a, run: x, timeout: 30}", "2: timeout: invalid duration 30"},
		{"invalid size", "tests:\n  - {name: a, image: {max_size: lots}}", `2: image.max_size: invalid size "lots"`},
		{"flag as a string", "tests:\n  - {name: a, run: x, tty: 'yes'}", `2: tty must be true or false, not "yes"`},
		{"tags as a string", "tests:\n  - {name: a, run: x, tags: slow}", `2: tags must be a list, not "slow"`},
		{
			"tag with a space",
			"tests:\n  - name: a\n    run: x\n    tags: [ok, 'not ok']",
			`4: tags[1]: invalid word "not ok"`,
		},
		{"env as a list", "tests:\n  - {name: a, run: x, env: [A=b]}", "2: env must be a mapping, not a list"},
		{
			"boolean env value",
			"tests:\n  - {name: a, run: x, env: {A: true}}",
			"2: env.A must be a string or a number, not true",
		},
		{
			"invalid env name",
			"tests:\n  - {name: a, run: x, env: {A=B: c}}",
			`2: env: invalid environment variable name "A=B"`,
		},
		{"empty command list", "tests:\n  - {name: a, run: []}", "2: run must not be empty"},
		{"blank command", "tests:\n  - {name: a, run: ' '}", `2: run: invalid command " "`},
		{"command as a mapping", "tests:\n  - {name: a, run: {a: b}}", "2: run must be a string or a list, not a mapping"},
		{"empty text check", "tests:\n  - {name: a, run: x, stdout: {}}", "2: stdout must not be empty"},
		{
			"missing golden file",
			"tests:\n  - name: a\n    run: x\n    stdout:\n      golden: no.txt",
			`5: stdout.golden: "no.txt" not found`,
		},
		{
			"missing mount source",
			"tests:\n  - name: a\n    run: x\n    mounts:\n      - {source: no, target: /no}",
			`5: mounts[0].source: "no" not found`,
		},
		{
			"absolute mount source",
			"tests:\n  - {name: a, run: x, mounts: [{source: /etc, target: /no}]}",
			`2: mounts[0].source: "/etc" must be relative to the suite's file`,
		},
		{
			"unknown network",
			"tests:\n  - name: a\n    run: x\n    network: host",
			`4: network must be none or bridge, not "host"`,
		},
		{
			"unknown privileges in the defaults",
			"defaults:\n  privileges: root\ntests:" + ok,
			`2: defaults.privileges must be none, default or all, not "root"`,
		},
		{
			"relative workdir",
			"tests:\n  - name: a\n    run: x\n    workdir: tmp",
			`4: workdir: invalid absolute path "tmp"`,
		},
		{"too many retries", "tests:\n  - name: a\n    run: x\n    retries: 50", "4: retries must be 0 to 10, not 50"},
		{
			"large matrix",
			"tests:\n  - {name: a, run: x, matrix: {A: [1,2,3,4,5,6,7], B: [1,2,3,4,5,6,7], C: [1,2,3,4,5,6,7]}}",
			`2: matrix of "a" expands to more than 256 tests`,
		},
		{"empty matrix values", "tests:\n  - {name: a, run: x, matrix: {A: []}}", "2: matrix.A must not be empty"},
		{
			"session without a command",
			"tests:\n  - {name: a, session: s, files: [{path: /a}]}",
			"2: session: requires a command",
		},
		{
			"session with two networks",
			"tests:\n  - {name: a, session: s, run: x}\n  - {name: b, session: s, run: x, network: bridge}",
			`3: session "s" has different container settings on line 2`,
		},
		{"empty image check", "tests:\n  - {name: a, image: {}}", "2: image must not be empty"},
		{
			"invalid exposed port",
			"tests:\n  - name: a\n    image:\n      ports: [http]",
			`4: image.ports[0]: invalid port "http"`,
		},
		{"invalid platform", "tests:\n  - {name: a, image: {platform: amd64}}", `2: image.platform: invalid value "amd64"`},
		{
			"value check as a list",
			"tests:\n  - {name: a, image: {user: [a]}}",
			"2: image.user must be a string, a number or a mapping, not a list",
		},
		{
			"misspelled key of a value check",
			"tests:\n  - {name: a, image: {user: {match: x}}}",
			`2: unknown key "match" in image.user; did you mean "matches"?`,
		},
		{
			"relative file path",
			"tests:\n  - name: a\n    files:\n      - path: etc",
			`4: files[0].path: invalid absolute path or pattern "etc"`,
		},
		{
			"invalid path pattern",
			"tests:\n  - name: a\n    files:\n      - path: '/etc/[a'",
			`4: files[0].path: invalid absolute path or pattern "/etc/[a": escape the characters [ ] { } ? \ with`,
		},
		{
			"invalid file mode",
			"tests:\n  - name: a\n    files:\n      - path: /a\n        mode: '0999'",
			`5: files[0].mode: invalid file mode "0999"`,
		},
		{
			"file mode without quotes",
			"tests:\n  - {name: a, files: [{path: /a, mode: 0644}]}",
			"2: files[0].mode must be a string, not 0644",
		},
		{
			"absent file with another check",
			"tests:\n  - {name: a, files: [{path: /a, absent: true, mode: '0644'}]}",
			"2: files[0]: an absent file cannot have other checks",
		},
		{"empty files", "tests:\n  - {name: a, files: []}", "2: files must not be empty"},
		{
			"unknown trait",
			"tests:\n  - {name: a, files: [{path: /a, having: [setuidd]}]}",
			"2: files[0].having[0] must be directory, empty, executable, file, setgid, setuid, sticky, symlink or",
		},
		{
			"service without checks",
			"tests:\n  - {name: a, service: {command: [x]}}",
			"2: service: nothing is checked",
		},
		{
			"step with two actions",
			"tests:\n  - {name: a, service: {steps: [{run: x, restart: true}]}}",
			"2: service.steps[0] must have exactly one of run, http, restart, stop and logs, not 2",
		},
		{
			"step after a stop",
			"tests:\n- name: a\n  service:\n    steps:\n    - stop: true\n    - run: x",
			"6: service.steps[1]: service is already stopped on line 5",
		},
		{
			"port out of range",
			"tests:\n  - {name: a, service: {ready: {port: 70000}}}",
			"2: service.ready.port must be 1 to 65535, not 70000",
		},
		{
			"port without a network",
			"tests:\n  - name: a\n    network: none\n    service: {ready: {port: 80}}",
			"3: network: ports are unreachable without a network",
		},
		{
			"readiness without a condition",
			"tests:\n  - {name: a, service: {ready: {within: 1s}}}",
			"2: service.ready: no condition is set",
		},
		{
			"readiness of a service that has exited",
			"tests:\n  - {name: a, service: {ready: {port: 80, exit: 0}}}",
			"2: service.ready.exit: a service that has exited is neither healthy nor reachable",
		},
		{
			"step of a service that has exited",
			"tests:\n- name: a\n  service:\n    ready: {exit: 0}\n    steps:\n    - restart: true\n    - run: x",
			"7: service.steps[1]: service has exited when it is ready; only logs and restart can follow",
		},
		{
			"several problems",
			"tests:\n  - {name: a, run: x, exit: no}\n  - {name: b, rum: x}",
			`2: exit must be an integer, not "no" (and 1 more)`,
		},
		{
			"exponential aliases",
			"tests:\n  - name: a\n    run: x\n    tags: &t [" + strings.Repeat("a,", 1000) + "]\n    setup: [" +
				strings.Repeat("*t,", 1000) + "]",
			"4: file has more than 200000 values; use fewer aliases or split it",
		},
		{
			"exponential merges",
			"tests:\n  - &a {name: a, run: x}\n  - &b {name: b, <<: [" + strings.Repeat("*a,", 1000) + "]}\n" +
				"  - {name: c, <<: [" + strings.Repeat("*b,", 1000) + "]}",
			"2: file has more than 200000 values; use fewer aliases or split it",
		},
		{"recursive alias", "tests: &t [*t]", "1: alias refers to a value that contains it"},
		{"recursive merge", "tests:\n  - &a {name: a, run: x, <<: *a}", "2: alias refers to a value that contains it"},
		{"file too large", strings.Repeat("#", maxFile+1), "1: file is larger than 1048576 bytes"},
		{
			"exit code of a test of files",
			"tests:\n  - {name: a, exit: 1, files: [{path: /a}]}",
			"2: exit: requires a command",
		},
		{
			"mount to the root directory",
			"tests:\n  - {name: a, run: x, mounts: [{source: ., target: //}]}",
			"2: mounts[0]: target must not be /",
		},
		{
			"mount without a target",
			"tests:\n  - {name: a, run: x, mounts: [{source: .}]}",
			`2: mounts[0]: missing key "target" (for example {source: fixtures, target: /fixtures})`,
		},
		{
			"environment of a step without a command",
			"tests:\n  - {name: a, service: {steps: [{logs: {stdout: a}, env: {A: b}}]}}",
			"2: service.steps[0]: exit, stdout, stderr, user, env and workdir require run",
		},
		{
			"retries of a restart",
			"tests:\n- name: a\n  service:\n    steps:\n    - restart: true\n      within: 1s",
			"6: service.steps[0].within: applies to run, http and logs only",
		},
		{"stop as a flag", "tests:\n  - {name: a, service: {steps: [stop: false]}}", "2: service.steps[0].stop must be true"},
		{"env value with a NUL", "tests:\n  - {name: a, run: x, env: {A: \"\\0\"}}", "2: env.A: invalid value without NUL"},
		{"hexadecimal port", "tests:\n  - {name: a, image: {ports: [0x10]}}", "2: image.ports[0]: invalid port 0x10"},
		{"hexadecimal exit code", "tests:\n  - {name: a, run: x, exit: 0x10}", "2: exit must be an integer, not 0x10"},
		{"hexadecimal size", "tests:\n  - {name: a, image: {max_size: 0x10}}", "2: image.max_size: invalid size 0x10"},
		{"infinite CPUs", "tests:\n  - {name: a, run: x, limits: {cpus: .inf}}", "2: limits.cpus must be a number, not .inf"},
		{"negative duration", "tests:\n  - {name: a, run: x, timeout: -1s}", `2: timeout: invalid duration "-1s"`},
		{"zero duration", "tests:\n  - {name: a, run: x, timeout: 0s}", `2: timeout: invalid duration "0s"`},
		{"unsupported tag", "tests:\n  - {name: a, run: !!binary eA==}", "2: YAML tag !!binary is not supported"},
		{"list as a key", "tests:\n  - {name: a, run: x, ? [a] : b}", "2: key must be a string, not a list"},
		{"merge of a string", "tests:\n  - {name: a, run: x, <<: b}", `2: merge key << must refer to a mapping, not "b"`},
		{
			"invalid env names in two tests",
			"tests:\n  - {name: a, run: x, env: {A=B: c}}\n  - {name: b, run: x, env: {C=D: c}}",
			`2: env: invalid environment variable name "A=B" (for example LOG_LEVEL) (and 1 more)`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("dir/tests.yaml", []byte(test.text))
			invalid := new(InvalidError)
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			if got := err.Error(); !strings.HasPrefix(got, "dir/tests.yaml:"+test.want) || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// A problem in the defaults is not repeated for each test.
func TestParseReportsDefaultsOnce(t *testing.T) {
	const text = "defaults:\n  mounts:\n    - {source: no, target: /no}\ntests: [{name: a, run: x}, {name: b, run: x}]"
	_, err := Parse("tests.yaml", []byte(text))
	invalid := new(InvalidError)
	if !errors.As(err, &invalid) || len(invalid.Problems) != 1 || invalid.Problems[0].Line != 3 {
		t.Errorf("got %v, want one problem on line 3", err)
	}
}

// An untrusted suite must not expose other files of the machine to its containers.
func TestParseFilesOutsideSuite(t *testing.T) {
	dir := t.TempDir()
	links := map[string]string{"out": "/etc", "key": "/proc/self/environ", "up": "..", "near": "fixtures"}
	for link, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "fixtures"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for source, allowed := range map[string]bool{
		"fixtures": true, "near": true, ".": true,
		"../..": false, "./../b": false, "out": false, "out/passwd": false, "up": false, "key": false,
	} {
		for _, use := range []string{"mounts: [{source: %q, target: /x}]", "stdout: {golden: %q}"} {
			text := fmt.Sprintf("tests:\n  - {name: a, run: x, "+use+"}", source)
			_, err := Parse(filepath.Join(dir, "tests.yaml"), []byte(text))
			if allowed && err != nil {
				t.Errorf("%s: %v", text, err)
			}
			if !allowed && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q cannot be used", source))) {
				t.Errorf("%s: got %v, want an error", text, err)
			}
		}
	}
}

func TestWriteBelow(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	dir := t.TempDir()
	links := map[string]string{"junit.xml": outside, "logs": filepath.Dir(outside), "near.xml": "real.xml"}
	for link, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, allowed := range map[string]bool{
		"near.xml": true, "more/002-b.log": true, "junit.xml": false, "logs/001-a.log": false, "../outside": false,
	} {
		if err := WriteBelow(dir, name, []byte("x")); (err == nil) != allowed {
			t.Errorf("%s: got %v, want allowed %t", name, err, allowed)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, name)); allowed && string(data) != "x" {
			t.Errorf("%s contains %q", name, data)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(outside)); err != nil || len(left) > 0 {
		t.Errorf("files outside of the directory: %v, %v", left, err)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "no.yaml")
	invalid := filepath.Join(dir, "invalid.yaml")
	if err := os.WriteFile(invalid, []byte("test: []"), 0o644); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		missing: "test suite the/suite not found", dir: "the/suite: is a directory", invalid: "the/suite:1: ",
	} {
		_, err := Load(file, "the/suite")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), dir) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestDefaultsAndMerges(t *testing.T) {
	s, err := Parse("tests.yaml", []byte(`
defaults: {timeout: 5s, user: root, env: {A: 1, B: 2}, limits: {pids: 7}, tty: true}
tests:
  - &base {name: first, run: 'true', tags: [x]}
  - {<<: *base, name: second, env: {B: 3}, limits: {memory: 1MiB}, tty: false, timeout: 1m}
  - {<<: [*base], name: third, matrix: {C: [x, y]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, test := range s.Tests {
		got = append(got, fmt.Sprintf("%s %d %v %s %v %d %d %v %s", test.Name, test.Line, test.Tags, test.User,
			environ(test.Env), test.Limits.PIDs, test.Limits.Memory, test.TTY, time.Duration(test.Timeout)))
	}
	want := []string{
		"first 4 [x] root [A=1 B=2] 7 0 true 5s",
		"second 5 [x] root [A=1 B=3] 7 1048576 false 1m0s",
		"third [C=x] 6 [x] root [A=1 B=2 C=x] 7 0 true 5s",
		"third [C=y] 6 [x] root [A=1 B=2 C=y] 7 0 true 5s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBuiltInDefaults(t *testing.T) {
	s, err := Parse("tests.yaml", []byte("tests: [{name: a, run: 'true'}]"))
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{Timeout: Duration(time.Minute), Privileges: "none", Limits: Limits{PIDs: 512}}
	if got := s.Tests[0].Settings; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// compiledSchema compiles the schema like an editor, without the custom formats.
func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Schema)))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// asJSON converts YAML to the types of the schema's validator.
func asJSON(text []byte) (any, error) {
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		return nil, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
}

// The schema in an editor and Load agree: both accept the files in testdata/good and reject those in testdata/bad.
func TestSchemaAgreesOnFiles(t *testing.T) {
	schema := compiledSchema(t)
	for _, folder := range []string{"good", "bad"} {
		files, _ := filepath.Glob("testdata/" + folder + "/*.yaml")
		if len(files) < 3 {
			t.Fatalf("testdata/%s has only %d files", folder, len(files))
		}
		if folder == "good" {
			files = append(files, "../../sandbox/tests.yaml")
		}
		for _, file := range files {
			t.Run(file, func(t *testing.T) {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				value, err := asJSON(text)
				if err != nil {
					t.Fatal(err)
				}
				bySchema := schema.Validate(value)
				_, byLoad := Load(file, file)
				if (bySchema == nil) != (folder == "good") || (byLoad == nil) != (folder == "good") {
					t.Errorf("schema: %v; Load: %v", bySchema, byLoad)
				}
			})
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("testdata/good/tests.yaml", text)
		if err != nil {
			invalid := new(InvalidError)
			if !errors.As(err, &invalid) || invalid.Problems[0].Line < 1 || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		if len(s.Tests) == 0 {
			t.Error("suite without tests")
		}
		for _, test := range s.Tests {
			if test.Name == "" || test.Line < 1 {
				t.Errorf("test %q at line %d", test.Name, test.Line)
			}
		}
	})
}
