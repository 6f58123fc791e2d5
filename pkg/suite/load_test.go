package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Every problem is at its line, and says what to do.
func TestParseRefuses(t *testing.T) {
	const ok = "\n  - {name: b, run: 'true'}"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "1: the suite is empty: write tests"},
		{"comments only", "# nothing\n", "1: the suite is empty"},
		{"null", "null", "1: the suite is empty"},
		{"a list", "- a", "1: the suite must be a mapping (key: value), not a list"},
		{"text", "tests", `1: the suite must be a mapping (key: value), not "tests"`},
		{"no YAML", "tests:\n  - {name: a\n", "1: this is no YAML: did not find expected ',' or '}'"},
		{"a tab", "tests:\n\t- a", "2: this is no YAML"},
		{"two documents", "tests: [{name: a, run: 'true'}]\n---\ntests: []\n", "a suite is one YAML document"},
		{"no tests", "name: a\n", "1: the suite has no tests"},
		{"no test", "name: a\ntests: []", "2: tests must be a list with at least one test"},
		{"tests are text", "name: a\ntests: some", `2: tests must be a list with at least one test, not "some"`},
		{"unknown key", "test:" + ok, `1: the suite has no key "test": did you mean "tests"?`},
		{"unknown key of a test", "tests:\n  - name: a\n    comand: x", `3: a test has no key "comand": there are`},
		{"a near key of a test", "tests:\n  - name: a\n    run: x\n    stdot: x", `4: a test has no key "stdot": did you mean "stdout"?`},
		{"a near key of a step", "tests:\n- name: a\n  service:\n    steps:\n    - htp: {port: 1}", `5: an item of steps has no key "htp": did you mean "http"?`},
		{"a key twice", "tests:\n  - name: a\n    run: x\n    name: b", `4: a test has "name" already, on line 2: keep one`},
		{"a name twice", "tests:\n  - {name: b, run: x}" + ok, `3: a test called "b" is on line 2 already`},
		{"a name twice through a matrix", "tests:\n  - {name: 'b [A=1]', run: x}\n  - {name: b, matrix: {A: [1]}, run: x}", `3: a test called "b [A=1]" is on line 2 already`},
		{"no name", "tests:\n  - run: x", "2: a test needs a name"},
		{"an empty name", "tests:\n  - name:\n    run: x", "2: name is empty: give it a value, or leave it out"},
		{"a name of two lines", "tests:\n  - run: x\n    name: |\n      a\n      b", "3: a test needs a name: one line"},
		{"a name that is true", "tests:\n  - {name: true, run: x}", `2: name must be text (write it in quotes), not "true"`},
		{"nothing to do", "tests:\n  - name: a", `2: test "a" must have exactly one of image, files, run and service, not 0`},
		{"two things to do", "tests:\n  - {name: a, run: x, files: [{path: /a}]}", "exactly one of image, files, run and service, not 2"},
		{"bad regex", "tests:\n  - name: a\n    run: x\n    stdout:\n      include:\n        - ok\n        - '('", "7: parsing regexp: missing closing )"},
		{"bad regex in short", "tests:\n  - name: a\n    run: x\n    stdout: '[z-a]'", "4: parsing regexp: invalid character class range"},
		{"an exit code that is text", "tests:\n  - {name: a, run: x, exit: zero}", `2: exit must be a whole number from 0, not "zero"`},
		{"a negative exit code", "tests:\n  - {name: a, run: x, exit: -1}", `2: exit must be a whole number from 0, not "-1"`},
		{"a large exit code", "tests:\n  - name: a\n    run: x\n    exit: 256", "4: exit can not be 256: write 0 to 255"},
		{"a duration without a unit", "tests:\n  - {name: a, run: x, timeout: 30}", `2: a duration is written as 500ms, 30s or 2m, not "30"`},
		{"a size of many", "tests:\n  - {name: a, image: {max_size: lots}}", `2: a size is written as 4096, 10MB or 1GiB, not "lots"`},
		{"a flag that is text", "tests:\n  - {name: a, run: x, tty: 'yes'}", `2: tty must be true or false, not "yes"`},
		{"tags that are no list", "tests:\n  - {name: a, run: x, tags: slow}", `2: tags must be a list, not "slow": put it between [ and ]`},
		{"a bad tag", "tests:\n  - name: a\n    run: x\n    tags: [ok, 'not ok']", `4: tag "not ok" is no word`},
		{"an env of a list", "tests:\n  - {name: a, run: x, env: [A=b]}", "2: env must be a mapping (key: value), not a list"},
		{"an env of truth", "tests:\n  - {name: a, run: x, env: {A: true}}", `2: env.A must be text (write it in quotes), not "true"`},
		{"a bad env", "tests:\n  - {name: a, run: x, env: {A-B: c}}", `2: "A-B" can not be the name of an environment variable`},
		{"an empty command", "tests:\n  - {name: a, run: []}", "2: a command is empty"},
		{"a blank command", "tests:\n  - {name: a, run: ' '}", "2: a command is empty"},
		{"a command of a mapping", "tests:\n  - {name: a, run: {a: b}}", "2: a command must be text (write it in quotes), not a mapping"},
		{"a check that says nothing", "tests:\n  - {name: a, run: x, stdout: {}}", "2: a text's check says nothing"},
		{"a golden file that is not there", "tests:\n  - name: a\n    run: x\n    stdout:\n      golden: no.txt", `5: there is no "no.txt" beside the suite`},
		{"a mount that is not there", "tests:\n  - name: a\n    run: x\n    mounts:\n      - {source: no, target: /no}", `5: there is no "no" beside the suite`},
		{"a mount from anywhere", "tests:\n  - {name: a, run: x, mounts: [{source: /etc, target: /no}]}", "2: a mount needs a source beside the suite's file"},
		{"a network of one's own", "tests:\n  - name: a\n    run: x\n    network: host", `4: network can not be "host": write none or bridge`},
		{"privileges that are not", "defaults:\n  privileges: root\ntests:" + ok, `2: privileges can not be "root": write none or default or all`},
		{"a relative workdir", "tests:\n  - name: a\n    run: x\n    workdir: tmp", `4: workdir "tmp" must be an absolute path`},
		{"too many retries", "tests:\n  - name: a\n    run: x\n    retries: 50", "4: 50 retries hide what is wrong"},
		{"a large matrix", "tests:\n  - {name: a, run: x, matrix: {A: [1,2,3,4,5,6,7], B: [1,2,3,4,5,6,7], C: [1,2,3,4,5,6,7]}}", "2: the matrix of \"a\" makes more than 256 tests"},
		{"an empty matrix", "tests:\n  - {name: a, run: x, matrix: {A: []}}", "2: matrix.A must be an environment variable with a list of its values"},
		{"a session without a command", "tests:\n  - {name: a, session: s, files: [{path: /a}]}", `2: session of test "a" belongs to a command`},
		{"a session of two kinds", "tests:\n  - {name: a, session: s, run: x}\n  - {name: b, session: s, run: x, network: bridge}", `3: session "s" is one container, and this test asks for another one than the test on line 2`},
		{"a metadata test of nothing", "tests:\n  - {name: a, image: {}}", "2: image says nothing"},
		{"a bad port", "tests:\n  - name: a\n    image:\n      ports: [http]", `4: "http" is no port: write 8080, 8080/tcp or 53/udp`},
		{"a bad platform", "tests:\n  - {name: a, image: {platform: amd64}}", `2: "amd64" is no platform`},
		{"a value of a list", "tests:\n  - {name: a, image: {user: [a]}}", "2: a value must be text (write it in quotes), not a list"},
		{"a value of another form", "tests:\n  - {name: a, image: {user: {match: x}}}", `2: a value has no key "match": did you mean "matches"?`},
		{"a relative path", "tests:\n  - name: a\n    files:\n      - path: etc", `4: path "etc" must be absolute`},
		{"a bad pattern", "tests:\n  - name: a\n    files:\n      - path: '/etc/[a'", `4: "/etc/[a" is no pattern`},
		{"a mode in decimal", "tests:\n  - name: a\n    files:\n      - path: /a\n        mode: '0999'", `5: mode "0999" is written in quotes as "0644"`},
		{"a mode without quotes", "tests:\n  - {name: a, files: [{path: /a, mode: 0644}]}", `2: mode must be text (write it in quotes), not "0644"`},
		{"absent, and like something", "tests:\n  - {name: a, files: [{path: /a, absent: true, mode: '0644'}]}", "2: a file that must be absent can not be like something"},
		{"no files", "tests:\n  - {name: a, files: []}", "2: files is empty"},
		{"a trait that is not", "tests:\n  - {name: a, files: [{path: /a, having: [setuidd]}]}", `2: having can not be "setuidd"`},
		{"a service that is not looked at", "tests:\n  - {name: a, service: {command: [x]}}", "2: the service is not looked at"},
		{"a step of two", "tests:\n  - {name: a, service: {steps: [{run: x, restart: true}]}}", "2: a step must be exactly one of run, http, restart, stop and logs, not 2"},
		{"a step after the end", "tests:\n- name: a\n  service:\n    steps:\n    - stop: true\n    - run: x", "6: the service is stopped on line 5: only logs can follow"},
		{"a port that is none", "tests:\n  - {name: a, service: {ready: {port: 70000}}}", "2: port must be 1 to 65535, not 70000"},
		{"a port without a network", "tests:\n  - name: a\n    network: none\n    service: {ready: {port: 80}}", "3: ports of a container without a network can not be reached"},
		{"ready for nothing", "tests:\n  - {name: a, service: {ready: {within: 1s}}}", "2: ready says nothing"},
		{"several", "tests:\n  - {name: a, run: x, exit: no}\n  - {name: b, rum: x}", `2: exit must be a whole number from 0, not "no" (and 1 more)`},
		{"aliases without end", "tests:\n  - name: a\n    run: x\n    tags: &t [" + strings.Repeat("a,", 1000) + "]\n    setup: [" + strings.Repeat("*t,", 1000) + "]", "4: the file is larger than a suite may be: use fewer aliases"},
		{"merges without end", "tests:\n  - &a {name: a, run: x}\n  - &b {name: b, <<: [" + strings.Repeat("*a,", 1000) + "]}\n  - {name: c, <<: [" + strings.Repeat("*b,", 1000) + "]}", "the file is larger than a suite may be: use fewer aliases"},
		{"an alias of itself", "tests: &t [*t]", "1: a test must be a mapping (key: value), not a list"},
		{"a merge of itself", "tests:\n  - &a {name: a, run: x, <<: *a}", "2: the file is larger than a suite may be"},
		{"far too large", strings.Repeat("#", maxFile+1), "1: the file is larger than a suite may be"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("dir/tests.yaml", []byte(test.text))
			invalid := new(Invalid)
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "dir/tests.yaml:") || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
}

// A suite may come with a stranger's pull request: it shows its containers nothing of this machine but what came with it.
func TestParseRefusesWhatIsElsewhere(t *testing.T) {
	dir := t.TempDir()
	for link, to := range map[string]string{"out": "/etc", "key": "/proc/self/environ", "up": "..", "near": "fixtures"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "fixtures"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for source, refused := range map[string]bool{"../..": true, "./../b": true, "out": true, "out/passwd": true, "up": true, "key": true, "fixtures": false, "near": false, ".": false} {
		for _, test := range []string{"mounts: [{source: %q, target: /x}]", "stdout: {golden: %q}"} {
			_, err := Parse(filepath.Join(dir, "tests.yaml"), fmt.Appendf(nil, "tests:\n  - {name: a, run: x, "+test+"}", source))
			want := fmt.Sprintf("2: %q can not be used", source)
			if refused != (err != nil) || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, refused must be %t", fmt.Sprintf(test, source), err, refused)
			}
		}
	}
}

func TestWriteBelow(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	dir := t.TempDir()
	for link, to := range map[string]string{"junit.xml": outside, "logs": filepath.Dir(outside), "near.xml": "real.xml"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, refused := range map[string]bool{"junit.xml": true, "logs/001-a.log": true, "../outside": true, "near.xml": false, "more/002-b.log": false} {
		if err := WriteBelow(dir, name, []byte("x")); refused != (err != nil) {
			t.Errorf("%s: %v, refused must be %t", name, err, refused)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(outside)); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	for file, want := range map[string]string{"no.yaml": "there is no test suite " + dir + "/no.yaml: write one", ".": "is a directory"} {
		if _, err := Load(filepath.Join(dir, file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
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
		got = append(got, fmt.Sprintf("%s %d %v %s %v %d %d %v", test.Name, test.Line, test.Tags, test.User, pairs(test.Env), test.Limits.PIDs, test.Limits.Memory, test.TTY))
	}
	want := []string{
		"first 4 [x] root [A=1 B=2] 7 0 true", "second 5 [x] root [A=1 B=3] 7 1048576 false",
		"third [C=x] 6 [x] root [A=1 B=2 C=x] 7 0 true", "third [C=y] 6 [x] root [A=1 B=2 C=y] 7 0 true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

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

// asJSON is a YAML text as the schema's validator takes it.
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

// What editors accept is what Load accepts, and the other way round. The files in testdata/good are accepted by both; what each in
// testdata/bad is called after, both refuse.
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
				_, byLoad := Load(file)
				if (bySchema == nil) != (folder == "good") || (byLoad == nil) != (folder == "good") {
					t.Errorf("the schema says %v, Load says %v", bySchema, byLoad)
				}
			})
		}
	}
}

// Every object of the schema has the keys of its Go struct.
func TestSchemaAgreesOnKeys(t *testing.T) {
	var schema struct {
		Properties map[string]any
		Defs       map[string]struct {
			Properties map[string]any
			OneOf      []struct{ Properties map[string]any }
		} `json:"$defs"`
	}
	if err := json.Unmarshal(Schema, &schema); err != nil {
		t.Fatal(err)
	}
	properties := func(name string) map[string]any {
		def := schema.Defs[name]
		if def.Properties == nil {
			for _, form := range def.OneOf {
				if form.Properties != nil {
					return form.Properties
				}
			}
		}
		return def.Properties
	}
	nested := func(name, key string) map[string]any {
		property, _ := properties(name)[key].(map[string]any)
		if forms, ok := property["oneOf"].([]any); ok {
			property, _ = forms[1].(map[string]any)
		}
		object, _ := property["properties"].(map[string]any)
		return object
	}
	for _, pair := range []struct {
		name   string
		object map[string]any
		of     any
	}{
		{"the suite", schema.Properties, document{}}, {"settings", properties("settings"), settings{}}, {"test", properties("test"), Test{}},
		{"image", properties("image"), imageCheck{}}, {"files", properties("files"), fileCheck{}}, {"service", properties("service"), service{}},
		{"step", properties("step"), step{}}, {"http", properties("http"), httpCheck{}}, {"output", properties("output"), output{}},
		{"between", properties("between"), between{}}, {"mount", properties("mount"), mount{}}, {"limits", properties("limits"), limits{}},
		{"ready", nested("service", "ready"), ready{}}, {"stop", nested("step", "stop"), stop{}}, {"logs", nested("step", "logs"), logs{}},
	} {
		got := slices.Sorted(maps.Keys(pair.object))
		want := keysOf(fieldsOf(reflect.New(reflect.TypeOf(pair.of)).Elem()))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %q, the struct %q", pair.name, got, want)
		}
	}
	var having struct{ Enum []string }
	property, _ := json.Marshal(properties("files")["having"].(map[string]any)["items"])
	if err := json.Unmarshal(property, &having); err != nil || !slices.Equal(slices.Sorted(slices.Values(having.Enum)), traitNames()) {
		t.Errorf("the schema's having is %q, want %q", having.Enum, traitNames())
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
			invalid := new(Invalid)
			if !errors.As(err, &invalid) || invalid.Problems[0].Line < 1 || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		if len(s.Tests) == 0 {
			t.Error("a suite without tests")
		}
		for _, test := range s.Tests {
			if test.Name == "" || test.Line < 1 {
				t.Errorf("test %q at line %d", test.Name, test.Line)
			}
		}
	})
}
