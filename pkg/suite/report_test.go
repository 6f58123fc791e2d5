package suite

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	reader "github.com/joshdk/go-junit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a report with a test of every status, and with all that an image can say to do harm.
func sample() *Report {
	r := &Report{
		Suite: "sandbox image", File: "sandbox/tests.yaml", Image: "sha256:" + strings.Repeat("ab", 32), Seed: 7,
		Started: time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC), Duration: 12345 * time.Millisecond,
		Tests: []*Result{
			{Name: "git | works", File: "sandbox/tests.yaml", Line: 3, Tags: []string{"tools"}, Status: Passed, Attempts: 1, Duration: 120 * time.Millisecond},
			{Name: "not now", File: "sandbox/tests.yaml", Line: 9, Status: Skipped, Reason: "waits for <issue> 7"},
			{Name: "another text", File: "sandbox/tests.yaml", Line: 12, Status: Failed, Attempts: 1, Duration: time.Second, Log: "test-results/logs/003-another-text.log",
				Failures: []Failure{
					{Line: 14, Message: "the exit code is 1, want 0"},
					{Line: 15, Message: "stdout is not what equals says", Detail: diff("a\nb\nc\n", "a\nB\nc")},
				}},
			{Name: "hostile", File: "sandbox/tests.yaml", Line: 20, Status: Failed, Attempts: 3, Duration: 61 * time.Second,
				Failures: []Failure{{Line: 21, Message: "the exit code is 1, want 0", Detail: hostile}}},
			{Name: "now and then", File: "sandbox/tests.yaml", Line: 30, Status: Flaky, Attempts: 2, Duration: 2 * time.Second,
				Failures: []Failure{{Line: 31, Message: `stdout does not match "^ready"`, Detail: "not yet"}}},
		},
	}
	r.count()
	return r
}

const hostile = "::error::no\n```\n</details>\n# big <script>alert(1)</script>\n]]></failure>\x1b[2J\x00\xff\u0085\ufffe ::stop-commands::x"

func TestGoldenReports(t *testing.T) {
	for name, write := range map[string]func(*Report, io.Writer) error{
		"report.md": (*Report).WriteMarkdown, "report.xml": (*Report).WriteJUnit, "report.json": (*Report).WriteJSON,
		"report.txt": func(r *Report, w io.Writer) error { return r.WriteText(w, w) },
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := write(sample(), &got); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("%s differs (go test -update writes it):\n%s", file, diff(string(want), got.String()))
			}
		})
	}
}

// A line of what an image printed is never in our own stream, where it could act.
func TestTextKeepsTheirsApart(t *testing.T) {
	var ours, theirs bytes.Buffer
	if err := sample().WriteText(&ours, &theirs); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"::error::", "stop-commands", "\x1b"} {
		if strings.Contains(ours.String(), part) || !strings.Contains(theirs.String(), part) {
			t.Errorf("%q is in the wrong stream", part)
		}
	}
	for line := range strings.Lines(theirs.String()) {
		if strings.HasPrefix(line, "::") {
			t.Errorf("%q begins as a command", line)
		}
	}
}

// validate holds a file against the schema in testdata.
func validate(t *testing.T, file string) error {
	t.Helper()
	out, err := exec.Command("xmllint", "--noout", "--schema", "testdata/junit.xsd", file).CombinedOutput()
	if _, ran := err.(*exec.ExitError); err != nil && !ran {
		t.Fatalf("%v (scripts/packages.sh installs it)", err)
	}
	if err != nil {
		t.Log(string(out))
	}
	return err
}

func TestJUnitIsValid(t *testing.T) {
	for _, r := range []*Report{sample(), {Suite: hostile, File: hostile, Tests: []*Result{{Name: hostile, Status: Failed, Failures: []Failure{{Message: hostile, Detail: hostile}}}, {Name: "s", Status: Skipped, Reason: hostile}}}, {Suite: "empty"}} {
		r.count()
		file := filepath.Join(t.TempDir(), "junit.xml")
		var b bytes.Buffer
		if err := r.WriteJUnit(&b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := validate(t, file); err != nil {
			t.Errorf("%s: %v", r.Suite, err)
		}
		// Another program's reader sees the same.
		suites, err := reader.IngestFile(file)
		if err != nil || len(suites) != 1 {
			t.Fatal(suites, err)
		}
		if got := suites[0].Totals; got.Tests != r.Total || got.Failed != r.Failed || got.Skipped != r.Skipped || got.Passed != r.Passed+r.Flaky {
			t.Errorf("%+v is read, want %s", got, r.Line())
		}
	}
	wrong := filepath.Join(t.TempDir(), "wrong.xml")
	if err := os.WriteFile(wrong, []byte(`<testsuites skipped="1"><testsuite name="a"/></testsuites>`), 0o644); err != nil {
		t.Fatal(err)
	}
	if validate(t, wrong) == nil {
		t.Error("the schema allows everything")
	}
}

func TestReadJUnit(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
		err              string
	}{
		{"jest", `<testsuites><testsuite name="a"><testcase name="x" classname="c" time="0.5"/><testcase name="y"><failure message="no">at line 3</failure></testcase></testsuite></testsuites>`, "2 tests: 1 passed, 1 failed (500ms)", ""},
		{"pytest", `<testsuites><testsuite name="pytest" errors="1"><testcase name="x"><error message="e"/></testcase><testcase name="s"><skipped message="later"/></testcase></testsuite></testsuites>`, "2 tests: 0 passed, 1 failed, 1 skipped (0s)", ""},
		{"a suite alone", `<testsuite name="a"><testcase name="x"/></testsuite>`, "1 tests: 1 passed (0s)", ""},
		{"suites in suites", `<testsuites><testsuite name="a"><testsuite name="b"><testcase name="x"/></testsuite><testcase name="y"/></testsuite></testsuites>`, "2 tests: 2 passed (0s)", ""},
		{"names of lines", `<testsuite name="a"><testcase name="x&#10;::error::no" classname="c&#13;&#10;d"/></testsuite>`, "1 tests: 1 passed (0s)", ""},
		{"no test", `<testsuites/>`, "0 tests: 0 passed (0s)", ""},
		{"other XML", `<coverage/>`, "", "it holds no testsuite"},
		{"half of it", `<testsuites><testsuite name="a"><testcase`, "", "XML syntax error"},
		{"nothing", ``, "", "it holds no testsuite"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "junit.xml")
			if err := os.WriteFile(file, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			r, err := ReadJUnit(file)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), file) {
					t.Errorf("%v, want %s", err, test.err)
				}
				return
			}
			if err != nil || r.Line() != test.want {
				t.Errorf("%s, %v, want %s", r.Line(), err, test.want)
			}
			for _, result := range r.Tests {
				if strings.ContainsAny(result.title(), "\r\n") {
					t.Errorf("%q is not one line", result.title())
				}
			}
		})
	}
}

// What a command wrote into the folder is counted, what an earlier one left and what we wrote is not.
func TestReadJUnitFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[results]*")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Minute)
	for name, text := range map[string]string{
		"a.xml": `<testsuite name="a"><testcase name="x"/></testsuite>`, "b.xml": `<testsuite name="b"><testcase name="y"><failure/></testcase></testsuite>`,
		"old.xml": `<testsuite name="c"><testcase name="z"/></testsuite>`, "ours.xml": `<testsuite name="d"><testcase name="w"/></testsuite>`,
		"coverage.xml": `<coverage/>`, "notes.txt": "<testsuite",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(dir, "old.xml"), began.Add(-time.Hour), began.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	found, err := ReadJUnitFiles(dir, began, "ours.xml")
	if err != nil || found.Line() != "2 tests: 1 passed, 1 failed (0s)" {
		t.Fatal(found, err)
	}
	r := sample()
	r.Add(found)
	if r.Total != 7 || r.Passed != 2 || r.Failed != 3 || r.Skipped != 1 || r.Flaky != 1 {
		t.Error(r.Line())
	}
	if found, err := ReadJUnitFiles(t.TempDir(), began); found != nil || err != nil {
		t.Error(found, err)
	}
}

func TestProgress(t *testing.T) {
	var plain, terminal bytes.Buffer
	r := sample()
	for i, result := range r.Tests {
		(&Progress{Log: &plain}).Test(result, i+1, len(r.Tests))
		(&Progress{Log: &terminal, Terminal: true, Width: 20}).Test(result, i+1, len(r.Tests))
	}
	want := "passed  git | works (120ms)\nskipped not now: waits for <issue> 7\nfailed  another text (1s)\nfailed  hostile (1m1s), attempt 3\nflaky   now and then (2s), attempt 2\n"
	if plain.String() != want {
		t.Errorf("%q, want %q", plain.String(), want)
	}
	const clear = "\r\x1b[K"
	want = clear + "[1/5] git | works" + clear + "skipped not now: waits for <issue> 7\n" + clear + "[2/5] not now" +
		clear + "failed  another text (1s)\n" + clear + "[3/5] another text" + clear + "failed  hostile (1m1s), attempt 3\n" + clear + "[4/5] hostile" +
		clear + "flaky   now and then (2s), attempt 2\n" + clear
	if terminal.String() != want {
		t.Errorf("%q, want %q", terminal.String(), want)
	}
}

func TestJSONIsJSON(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Seed  string
		Total int
		Tests []struct{ Status string }
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got.Seed != "7" || got.Total != 5 || got.Tests[4].Status != "flaky" {
		t.Error(got, err)
	}
}

func TestDiff(t *testing.T) {
	for _, test := range []struct{ want, seen, diff string }{
		{"a\n", "b\n", "--- expected\n+++ seen\n@@ -1 +1 @@\n-a\n+b\n"},
		{"a\n", "a", "--- expected\n+++ seen\n@@ -1 +1 @@\n-a\n+a (no newline at the end)\n"},
		{"", "a\n", "--- expected\n+++ seen\n@@ -0,0 +1 @@\n+a\n"},
	} {
		if got := diff(test.want, test.seen); got != test.diff {
			t.Errorf("%q and %q: %q, want %q", test.want, test.seen, got, test.diff)
		}
	}
	if long := diff(strings.Repeat("a\n", 1e6), strings.Repeat("b\n", 1e6)); len(long) > 2*maxExcerpt {
		t.Errorf("a difference of %d bytes", len(long))
	}
}

func TestXMLText(t *testing.T) {
	for r := rune(0); r < 0x10010; r++ {
		if r == 0x400 {
			r = 0xd700 // what lies between is all alike
		}
		s := xmlText(string(r))
		if err := xml.Unmarshal([]byte("<a><![CDATA["+s+"]]></a>"), new(string)); err != nil {
			t.Fatalf("%U becomes %q: %v", r, s, err)
		}
	}
}
