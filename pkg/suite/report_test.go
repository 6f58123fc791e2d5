package suite

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	reader "github.com/joshdk/go-junit"
)

var update = flag.Bool("update", false, "write the golden files")

// sample returns a report with a test of every status, and with hostile text.
func sample() *Report {
	const file = "sandbox/tests.yaml"
	r := &Report{
		Suite: "sandbox image", File: file, Image: "sha256:" + strings.Repeat("ab", 32), Seed: 7,
		Started: time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC), Duration: 12345 * time.Millisecond,
		Tests: []*Result{
			{
				Name: "git | works", File: file, Line: 3, Tags: []string{"tools"}, Status: Passed, Attempts: 1,
				Duration: 120 * time.Millisecond,
			},
			{Name: "not now", File: file, Line: 9, Status: Skipped, Reason: "waits for <issue> 7"},
			{
				Name: "other text", File: file, Line: 12, Status: Failed, Attempts: 1, Duration: time.Second,
				Log: "test-results/logs/003-other-text.log",
				Failures: []Failure{
					{Line: 14, Message: "exit code is 1, want 0"},
					{Line: 15, Message: "stdout differs from equals", Detail: diff("a\nb\nc\n", "a\nB\nc")},
				},
			},
			{
				Name: "hostile", File: file, Line: 20, Status: Failed, Attempts: 3, Duration: 61 * time.Second,
				Failures: []Failure{{Line: 21, Message: "exit code is 1, want 0", Detail: hostile}},
			},
			{
				Name: "unreliable", File: file, Line: 30, Status: Flaky, Attempts: 2, Duration: 2 * time.Second,
				Failures: []Failure{{Line: 31, Message: `stdout does not match "^ready"`, Detail: "not yet"}},
			},
		},
	}
	r.count()
	return r
}

// hostile contains workflow commands, Markdown, HTML, XML and terminal sequences.
const hostile = "::error::no\n```\n</details>\n# big <script>alert(1)</script>\n]]></failure>" +
	"\x1b[2J\x00\xff\u0085\ufffe ::stop-commands::x"

func TestGoldenReports(t *testing.T) {
	for name, write := range map[string]func(*Report, io.Writer) error{
		"report.xml": (*Report).WriteJUnit,
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

// Output of the image is written only to the stream for untrusted text.
func TestTextSeparatesUntrustedOutput(t *testing.T) {
	var log, untrusted bytes.Buffer
	if err := sample().WriteText(&log, &untrusted); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"::error::", "stop-commands", "\x1b"} {
		if strings.Contains(log.String(), part) || !strings.Contains(untrusted.String(), part) {
			t.Errorf("%q is in the wrong stream", part)
		}
	}
	for line := range strings.Lines(untrusted.String()) {
		if strings.HasPrefix(line, "::") {
			t.Errorf("%q starts with a workflow command", line)
		}
	}
}

// validateJUnit validates a file against the schema in testdata.
func validateJUnit(t *testing.T, file string) error {
	t.Helper()
	if _, err := exec.LookPath("xmllint"); err != nil && testing.Short() {
		t.Skip("needs xmllint; run without -short")
	}
	out, err := exec.Command("xmllint", "--noout", "--schema", "testdata/junit.xsd", file).CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run xmllint (scripts/setup.sh test installs it): %v", err)
	}
	if err != nil {
		t.Log(string(out))
	}
	return err
}

func TestJUnitIsValid(t *testing.T) {
	hostileReport := &Report{Suite: hostile, File: hostile, Tests: []*Result{
		{Name: hostile, Status: Failed, Failures: []Failure{{Message: hostile, Detail: hostile}}},
		{Name: "s", Status: Skipped, Reason: hostile},
	}}
	stopped := &Report{
		Suite: "stopped early", Incomplete: []string{hostile, "timed out"},
		Tests: []*Result{
			{Name: "a", Status: Passed},
			{Name: "b", Status: Skipped, NotRun: true, Reason: "not run: timed out"},
		},
	}
	for _, r := range []*Report{sample(), hostileReport, {Suite: "empty"}, stopped} {
		r.count()
		file := filepath.Join(t.TempDir(), "junit.xml")
		var b bytes.Buffer
		if err := r.WriteJUnit(&b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := validateJUnit(t, file); err != nil {
			t.Errorf("%s: %v", r.Suite, err)
		}
		// Another library reads the same results.
		suites, err := reader.IngestFile(file)
		if err != nil || len(suites) != 1 {
			t.Fatal(suites, err)
		}
		got := suites[0].Totals
		if got.Tests != r.Total || got.Failed != r.Failed || got.Skipped+got.Error != r.Skipped ||
			got.Passed != r.Passed+r.Flaky {
			t.Errorf("got %+v, want %s", got, r.Line())
		}
		if incomplete := len(r.Incomplete) > 0; (got.Error > 0) != incomplete || (suites[0].SystemErr != "") != incomplete {
			t.Errorf("%s: %d errors, system-err %q", r.Suite, got.Error, suites[0].SystemErr)
		}
	}
	invalid := filepath.Join(t.TempDir(), "invalid.xml")
	text := `<testsuites skipped="1"><testsuite name="a"/></testsuites>`
	if err := os.WriteFile(invalid, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if validateJUnit(t, invalid) == nil {
		t.Error("the schema accepts an invalid file")
	}
}

// Clean applies to every text, line by line.
func TestReportClean(t *testing.T) {
	r := &Report{Tests: []*Result{{
		Name: "secret a", Class: "secret b", Reason: "secret c",
		Failures: []Failure{{Message: "secret d", Detail: "secret e\nx secret f"}},
	}}}
	r.Clean(func(line string) string {
		if strings.Contains(line, "\n") {
			t.Errorf("%q has several lines", line)
		}
		return strings.ReplaceAll(line, "secret", "*")
	})
	want := Result{Name: "* a", Class: "* b", Reason: "* c", Failures: []Failure{{Message: "* d", Detail: "* e\nx * f"}}}
	if !reflect.DeepEqual(*r.Tests[0], want) {
		t.Errorf("got %+v, want %+v", r.Tests[0], want)
	}
}

func TestAnnotations(t *testing.T) {
	r := sample()
	r.Tests = append(r.Tests, &Result{
		Name: "other", Status: Failed, File: "f", Line: 5, Failures: []Failure{{Message: "m"}}, // failure without a line
	})
	const file = "sandbox/tests.yaml"
	want := []Annotation{
		{File: file, Line: 14, Title: "other text", Message: "exit code is 1, want 0"},
		{File: file, Line: 15, Title: "other text", Message: "stdout differs from equals"},
		{File: file, Line: 21, Title: "hostile", Message: "exit code is 1, want 0"},
		{
			File: file, Line: 31, Title: "unreliable", Warning: true,
			Message: `flaky: passed on attempt 2; earlier failure: stdout does not match "^ready"`,
		},
		{File: "f", Line: 5, Title: "other", Message: "m"},
	}
	if got := r.Annotations(); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestProgress(t *testing.T) {
	var plain, terminal bytes.Buffer
	r := sample()
	for i, result := range r.Tests {
		(&Progress{Log: &plain}).Test(result, i+1, len(r.Tests))
		(&Progress{Log: &terminal, Terminal: true, Width: 17}).Test(result, i+1, len(r.Tests))
	}
	const skipped, text = "skipped not now: waits for <issue> 7\n", "failed  other text (1s)\n"
	const hostile, flaky = "failed  hostile (1m1s), attempt 3\n", "flaky   unreliable (2s), attempt 2\n"
	want := "passed  git | works (120ms)\n" + skipped + text + hostile + flaky
	if plain.String() != want {
		t.Errorf("got %q, want %q", plain.String(), want)
	}
	const clearLine = "\r\x1b[K"
	want = clearLine + "[1/5] git | work" + // one character less than the width
		clearLine + skipped + clearLine + "[2/5] not now" +
		clearLine + text + clearLine + "[3/5] other text" +
		clearLine + hostile + clearLine + "[4/5] hostile" +
		clearLine + flaky + clearLine
	if terminal.String() != want {
		t.Errorf("got %q, want %q", terminal.String(), want)
	}
}

func TestDiff(t *testing.T) {
	for _, test := range []struct{ want, have, diff string }{
		{"a\n", "b\n", "--- expected\n+++ actual\n@@ -1 +1 @@\n-a\n+b\n"},
		{"a\n", "a", "--- expected\n+++ actual\n@@ -1 +1 @@\n-a\n+a (no newline at the end)\n"},
		{"", "a\n", "--- expected\n+++ actual\n@@ -0,0 +1 @@\n+a\n"},
	} {
		if got := diff(test.want, test.have); got != test.diff {
			t.Errorf("%q and %q: got %q, want %q", test.want, test.have, got, test.diff)
		}
	}
	if long := diff(strings.Repeat("a\n", 1e6), strings.Repeat("b\n", 1e6)); len(long) > 2*maxExcerpt {
		t.Errorf("difference has %d bytes", len(long))
	}
}

func TestExcerpt(t *testing.T) {
	if got := excerpt(""); got != "(empty)" {
		t.Errorf("got %q", got)
	}
	exact := strings.Repeat("x", maxExcerpt)
	if got := excerpt(exact); got != exact {
		t.Errorf("%d bytes are shortened", len(exact))
	}
	long := "start" + strings.Repeat("x", maxExcerpt) + "end"
	got := excerpt(long)
	ends := strings.HasPrefix(got, "start") && strings.HasSuffix(got, "end")
	if !ends || !strings.Contains(got, "\n… 8 bytes omitted …\n") {
		t.Errorf("got %q", got)
	}
}

func TestXMLText(t *testing.T) {
	for r := rune(0); r < 0x10010; r++ {
		if r == 0x400 {
			r = 0xd700 // skip a range of valid characters
		}
		s := xmlText(string(r))
		if err := xml.Unmarshal([]byte("<a><![CDATA["+s+"]]></a>"), new(string)); err != nil {
			t.Fatalf("%U becomes %q: %v", r, s, err)
		}
	}
}
