package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	reader "github.com/joshdk/go-junit"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/unicode"
)

// outline returns a line for each result: its status, title, attempts and failures.
func outline(r *Report) string {
	var b strings.Builder
	for _, t := range r.Tests {
		fmt.Fprintf(&b, "%s %s", t.Status, t.title())
		if t.Attempts > 1 {
			fmt.Fprintf(&b, " x%d", t.Attempts)
		}
		if t.Reason != "" {
			fmt.Fprintf(&b, " (%s)", t.Reason)
		}
		for _, f := range t.Failures {
			fmt.Fprintf(&b, " [%s|%s]", f.Message, f.Detail)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func lines(list ...string) string { return strings.Join(list, "\n") + "\n" }

// The shapes of the files that test frameworks write.
func TestReadJUnit(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{
			"jest",
			`<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="jest tests" tests="2" failures="1" errors="0" time="1.5">
  <testsuite name="math" errors="0" failures="1" skipped="0" timestamp="2026-11-25T03:00:00" time="0.4" tests="2">
    <testcase classname="math adds" name="math adds" time="0.002"></testcase>
    <testcase classname="math divides" name="math divides" time="0.001">
      <failure>Error: expect(received).toBe(expected)

    at Object.toBe (/app/math.test.js:8:15)</failure>
    </testcase>
  </testsuite>
</testsuites>`,
			lines("passed math adds: math adds", "failed math divides: math divides "+
				"[Error: expect(received).toBe(expected)|Error: expect(received).toBe(expected)\n\n"+
				"    at Object.toBe (/app/math.test.js:8:15)]"),
		},
		{
			"pytest",
			`<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1"
				failures="0" skipped="2" tests="4" time="0.1" hostname="h"><properties><property name="a" value="b"/></properties>
				<testcase classname="tests.test_a" name="test_x[1-&quot;]" time="0.001"><system-out>out</system-out></testcase>
				<testcase classname="" name="tests.test_b" time="0.000"><error message="collection failure">E   x</error></testcase>
				<testcase classname="tests.test_a" name="test_s" time="0"><skipped type="pytest.skip" message="later">a.py:3: later
				</skipped></testcase><testcase classname="tests.test_a" name="test_f" time="0">
				<skipped type="pytest.xfail" message="" /></testcase></testsuite></testsuites>`,
			lines(`passed tests.test_a: test_x[1-"]`, "failed pytest: tests.test_b [collection failure|E   x]",
				"skipped tests.test_a: test_s (later)", "skipped tests.test_a: test_f"),
		},
		{
			"surefire with reruns",
			`<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" name="a.T" time="1,234.5" tests="3" errors="1">
				<properties><property name="java.version" value="21"/></properties>
				<testcase name="flaky" classname="a.T" time="0.3"><flakyFailure message="first" type="java.lang.AssertionError">
					<stackTrace><![CDATA[java.lang.AssertionError: first]]></stackTrace><system-out>x</system-out></flakyFailure>
					<flakyError message="second" type="E"><stackTrace>E: second</stackTrace></flakyError></testcase>
				<testcase name="broken" classname="a.T" time="0"><error message="no" type="E"><![CDATA[E: no &lt;]]></error>
					<rerunError message="no" type="E"><stackTrace>E: no</stackTrace></rerunError>
					<rerunFailure message="no" type="E"><stackTrace>E: no</stackTrace></rerunFailure></testcase>
				<testcase name="without a message" classname="a.T"><failure type="java.lang.AssertionError"/></testcase>
			</testsuite>`,
			lines("flaky a.T: flaky x3 [second|E: second]", "failed a.T: broken x3 [no|E: no &lt;]",
				"failed a.T: without a message [java.lang.AssertionError|]"),
		},
		{
			"go-junit-report and gotestsum",
			`<testsuites tests="2" failures="1"><testsuite tests="2" failures="1" time="0.160" name="package/name">
				<properties><property name="go.version" value="1.0"></property></properties>
				<testcase classname="name" name="TestOne" time="0.020"><failure message="Failed" type="">file_test.go:11: Error
file_test.go:12: multiline</failure></testcase>
				<testcase classname="name" name="TestTwo/sub test" time="0.130"></testcase></testsuite></testsuites>`,
			lines("failed name: TestOne [Failed|file_test.go:11: Error\nfile_test.go:12: multiline]",
				"passed name: TestTwo/sub test"),
		},
		{
			"bazel",
			`<?xml version="1.0" encoding="UTF-8"?><testsuites><testsuite name="//pkg:t" tests="1" failures="0" errors="1">
				<testcase name="//pkg:t" status="run" duration="3" time="3"><error message="exited with error code 1"></error>
				</testcase><system-out>Generated test.log:<![CDATA[<testcase name="in a log"><failure/>]]></system-out>
				</testsuite></testsuites>`,
			lines("failed //pkg:t: //pkg:t [exited with error code 1|]"),
		},
		{
			"GoogleTest and CTest",
			`<testsuites><testsuite name="S"><testcase name="a" status="run" result="completed" classname="S"/>
				<testcase name="b" status="notrun" result="suppressed" classname="S"/>
				<testcase name="c" status="fail"/><testcase name="d" status="disabled"/></testsuite></testsuites>`,
			lines("passed S: a", "skipped S: b (notrun)", "failed S: c [failed without a message|]", "skipped S: d (disabled)"),
		},
		{
			"PHPUnit: nested suites",
			`<testsuites><testsuite name="a"><testsuite name="b"><testcase name="x"/></testsuite>
				<testcase name="y"/></testsuite></testsuites>`,
			lines("passed b: x", "passed a: y"),
		},
		{
			"a suite that did not start",
			`<testsuite name="a.T" errors="1"><error message="no class" type="E">E: no class</error>
				<testcase name="x"/></testsuite>`,
			lines("failed a.T [no class|E: no class]", "passed a.T: x"),
		},
		{"no declaration, several roots", `<testsuite><testcase name="x"/></testsuite>
			<?xml version="1.0"?><testsuite name="b"><testcase name="y"/></testsuite>`, lines("passed x", "passed b: y")},
		{"text before the document", "Starting…\n<testsuite name='a'><testcase name='x'/></testsuite>", lines("passed a: x")},
		{"namespace", `<j:testsuite xmlns:j="j" name="a"><j:testcase name="x"><j:failure message="m"/></j:testcase>
			</j:testsuite>`,
			lines("failed a: x [m|]")},
		{"several failures", `<testsuite name="a"><testcase name="x"><failure message="1"/><error message="2"/>
			<skipped/></testcase></testsuite>`, lines("failed a: x [1|] [2|]")},
		{"commented out", `<testsuite name="a"><!-- <testcase name="x"/> --><testcase name="y"/></testsuite>`,
			lines("passed a: y")},
		{"markup in output", `<testsuite name="a"><testcase name="x"><system-out><error>no</error><testcase name="z"/>
			</system-out><properties><failure/></properties></testcase><system-err><failure/></system-err></testsuite>`,
			lines("passed a: x")},
		{"HTML elements", `<testsuite name="a"><title/><style/><testcase name="x"><script/></testcase></testsuite>`,
			lines("passed a: x")},
		{"line breaks", `<testsuite name="a"><testcase name="x&#10;::error::no" classname="c&#13;&#10;d"/></testsuite>`,
			lines("passed c d: x ::error::no")},
		{"invalid counts", `<testsuite name="a" tests="many" failures="-1" time="1e999"><testcase name="x" time="NaN"/>
			</testsuite>`,
			lines("passed a: x")},
		{"colors", "<testsuite name='a'><testcase name='x'><failure message='\x1b[31mbad\x1b[0m'>\x1b[1;31mred\x1b[0m\x01" +
			"</failure></testcase><testcase name='y&#27;'/></testsuite>",
			lines("failed a: x [bad|red\x01]", `passed a: y\u001b`)},
		{"unescaped text", `<testsuite name="a"><testcase name="x < y" classname="R&D &nope;">
			<failure message="want <b>">1 < 2 && ]]></failure></testcase></testsuite>`,
			lines("failed R&D &nope;: x < y [want <b>|1 < 2 && ]]>]")},
		{"invalid UTF-8", "<testsuite name=\"a\"><testcase name=\"\xfcber\"/></testsuite>", lines("passed a: \ufffdber")},
		{"entity expansion", `<!DOCTYPE t [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>
			<testsuite name="a"><testcase name="&b;&f;"/></testsuite>`, lines("passed a: &b;&f;")},
		{"no tests", `<testsuites/>`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := readJUnit(strings.NewReader(test.text))
			if got := outline(r); err != nil || got != test.want {
				t.Errorf("%v, got\n%swant\n%s", err, got, test.want)
			}
			// An XML parser counts the same tests in the files that it accepts.
			suites, err := reader.Ingest([]byte(test.text))
			if err != nil {
				return
			}
			count := 0
			for _, s := range suites {
				count += s.Totals.Tests
			}
			if count != r.Total && test.name != "a suite that did not start" { // another library ignores that failure
				t.Errorf("another library counts %d tests", count)
			}
		})
	}
}

func TestReadJUnitEncodings(t *testing.T) {
	utf16 := func(e unicode.Endianness, bom unicode.BOMPolicy) encoding.Encoding { return unicode.UTF16(e, bom) }
	for _, test := range []struct {
		declared string
		bytes    encoding.Encoding
		name     string
	}{
		{"", unicode.UTF8, "grün 測試"}, {"utf8", unicode.UTF8, "grün 測試"}, {"UTF-8", unicode.UTF8BOM, "grün 測試"},
		{"us-ascii", unicode.UTF8, "grün"}, {"ISO-8859-1", charmap.ISO8859_1, "grün"}, {"latin1", charmap.ISO8859_1, "grün"},
		{"windows-1252", charmap.Windows1252, "5 €"}, {"cp1251", charmap.Windows1251, "тест"},
		{"Shift_JIS", japanese.ShiftJIS, "テスト"}, {"klingon", unicode.UTF8, "grün"},
		{"utf-16", utf16(unicode.LittleEndian, unicode.UseBOM), "grün"},
		{"UTF-16", utf16(unicode.BigEndian, unicode.UseBOM), "grün"},
		{"UTF-16", utf16(unicode.LittleEndian, unicode.IgnoreBOM), "grün"},
		{"", utf16(unicode.BigEndian, unicode.IgnoreBOM), "grün"},
		// Wrong declarations.
		{"utf-16", unicode.UTF8, "grün"}, {"utf-8", utf16(unicode.LittleEndian, unicode.UseBOM), "grün"},
	} {
		t.Run(test.declared+" "+test.name, func(t *testing.T) {
			text := `<testsuite name="a"><testcase name="` + test.name + `"/></testsuite>`
			if test.declared != "" {
				text = `<?xml version="1.0" encoding='` + test.declared + "'?>\n" + text
			}
			data, err := test.bytes.NewEncoder().String(text)
			if err != nil {
				t.Fatal(err)
			}
			r, err := readJUnit(strings.NewReader(data))
			if want := "passed a: " + test.name + "\n"; err != nil || outline(r) != want {
				t.Errorf("%v, got %swant %s", err, outline(r), want)
			}
		})
	}
}

// Results that precede the damage are read.
func TestReadDamagedJUnit(t *testing.T) {
	const whole = `<testsuites><testsuite name="a"><testcase name="x"/><testcase name="y">` +
		`<failure message="m">text</failure></testcase></testsuite></testsuites>`
	cut := func(at string) string { return whole[:strings.Index(whole, at)+len(at)] }
	const x, y = "passed a: x\n", "failed a: y [m|text]\n"
	for _, test := range []struct{ name, text, want, err string }{
		{"empty", "", "", "file is empty"},
		{"blank", " \n", "", "file is empty"},
		{"declaration only", `<?xml version="1.0"?>`, "", "file is empty"},
		{"text", "connection refused\n", "", "no complete XML element"},
		{"binary", "\x00\x01\x02\xff", "", "no complete XML element"},
		{"HTML", "<!DOCTYPE html><html><p>502<br></html>", "", "root element is <html>"},
		{"coverage", "<coverage><testcase/><failure/></coverage>", "", "root element is <coverage>"},
		{"cut in the first tag", cut("<testsui"), "", "no complete XML element"},
		{"cut in a suite", cut(`<testsuite name="a">`), "", "cut off (tests read: 0)"},
		{"cut in a tag", cut(`<testcase name="x`), "", "cut off (tests read: 0)"},
		{"cut in a test", cut(`<testcase name="y">`), x, "cut off (tests read: 1)"},
		{"cut in a failure", cut(">text"), x + y, "cut off (tests read: 2)"},
		{"cut after a test", cut("</testcase>"), x + y, "cut off (tests read: 2)"},
		{"cut after a suite", cut("</testsuite>"), x + y, "cut off (tests read: 2)"},
		{"end tags missing", `<testsuite name="a"><testcase name="x"><testcase name="y"></testsuite>`,
			x + "passed a: y\n", ""},
		{"end tags too many", `<testsuite name="a"><testcase name="x"/></testcase></testsuite></testsuite></b>`, x, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := readJUnit(strings.NewReader(test.text))
			if got := outline(r); got != test.want || (err == nil) != (test.err == "") {
				t.Errorf("%v, got\n%swant\n%s", err, got, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %s", err, test.err)
			}
		})
	}
	broken := errors.New("disk error")
	r, err := readJUnit(io.MultiReader(strings.NewReader(cut("</testcase>")), &failingReader{broken}))
	if !errors.Is(err, broken) || outline(r) != x+y {
		t.Errorf("%v, %s", err, outline(r))
	}
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

// repeat is a reader of a text that is repeated n times.
func repeat(text string, n int) io.Reader {
	var list []io.Reader
	for range n {
		list = append(list, strings.NewReader(text))
	}
	return io.MultiReader(list...)
}

// Long texts and attributes take little memory, and do not hide the results after them.
func TestReadJUnitWithLongTexts(t *testing.T) {
	log := strings.Repeat("2026-11-25 it's a log & more ]] \n", 1<<10)
	for _, test := range []struct {
		name, start, content, end string
		bytes                     int
		err                       string
	}{
		{"CDATA", `<system-out><![CDATA[`, log, `]]></system-out>`, maxJUnitBuffer, ""},
		{"CDATA of markup", `<system-out><![CDATA[`, strings.Repeat(`]] ><"`, 1<<10), `]]]></system-out>`,
			maxJUnitBuffer, ""},
		{"text", `<failure message="m">`, log, `</failure>`, maxJUnitBuffer, ""},
		{"text of quotes", `<failure message="m">`, strings.Repeat(`"'/-`, 1<<10), `</failure>`, maxJUnitBuffer, ""},
		{"attribute", `<failure message="`, log, `"/>`, 2 * maxJUnitText, ""},
		{"attribute of markup", `<failure message="`, strings.Repeat("> it's ", 1<<10), `"/>`, 2 * maxJUnitText, ""},
		{"comment", `<!-- `, log, ` -->`, 2 * maxJUnitText, ""},
		{"quotes", `<failure message="`, strings.Repeat("'", 1<<10), `"/>`, maxJUnitBuffer, "more than 4 MiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := readJUnit(io.MultiReader(strings.NewReader(`<testsuite name="a"><testcase name="x">`+test.start),
				repeat(test.content, test.bytes/len(test.content)+1),
				strings.NewReader(test.end+`</testcase><testcase name="y"/></testsuite>`)))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || r.Total != 2 || r.Tests[1].Name != "y" {
				t.Fatalf("%v, %s", err, r.Line())
			}
			for _, f := range r.Tests[0].Failures {
				if len(f.Message) > 4*maxJUnitName || len(f.Detail) > 2*maxExcerpt {
					t.Errorf("message of %d bytes, details of %d", len(f.Message), len(f.Detail))
				}
			}
		})
	}
	t.Run("too many tests", func(t *testing.T) {
		tests := strings.Repeat("<testcase/>", 1000)
		r, err := readJUnit(io.MultiReader(strings.NewReader("<testsuite>"), repeat(tests, maxJUnitTests/1000+1)))
		if err == nil || !strings.Contains(err.Error(), "more than 200000 tests") || r.Total < maxJUnitTests {
			t.Errorf("%v, %s", err, r.Line())
		}
	})
}

func TestParseSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1.5": 1500 * time.Millisecond, "0,5": 500 * time.Millisecond, "0,125": 125 * time.Millisecond,
		"1,234.5": 1234500 * time.Millisecond, "1,234": 1234 * time.Second, "1,234,567": 1234567 * time.Second,
		" 2 ": 2 * time.Second, "1.5s": 1500 * time.Millisecond,
		"1e-3": time.Millisecond, "": 0, "-1": 0, "NaN": 0, "Inf": 0, "1e309": 0, "1e12": 0, "many": 0, "-3s": 0,
	} {
		if got := parseSeconds(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// reportDir returns a directory with files.
func reportDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "[results]*")
	writeReports(t, dir, files)
	return dir
}

func writeReports(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func suiteOf(name string) string {
	return `<testsuite name="s"><testcase name="` + name + `"/></testsuite>`
}

// ReadJUnitFiles reads what changed since the listing, in all subdirectories, whatever its modification time.
func TestReadJUnitFiles(t *testing.T) {
	dir := reportDir(t, map[string]string{
		"old.xml": suiteOf("old"), "sub/old.xml": suiteOf("old"), "appended.xml": suiteOf("a"), "rewritten.xml": suiteOf("b"),
		"touched.xml": suiteOf("c"), "replaced.xml": suiteOf("h"),
	})
	before := ListXMLFiles(dir)
	past := time.Now().Add(-time.Hour)
	replacement := filepath.Join(t.TempDir(), "replacement.xml")
	writeReports(t, filepath.Dir(replacement), map[string]string{"replacement.xml": suiteOf("H")})
	if err := os.Rename(replacement, filepath.Join(dir, "replaced.xml")); err != nil {
		t.Fatal(err)
	}
	writeReports(t, dir, map[string]string{
		"appended.xml": suiteOf("a") + suiteOf("a2"), "rewritten.xml": suiteOf("B"), "copied.xml": suiteOf("d"),
		"sub/deeper/TEST-e.XML": suiteOf("e"), "junit.xml": suiteOf("f"),
		"junit-command.xml": suiteOf("f2"),
		"coverage.xml":      "<coverage/>", "notes.txt": suiteOf("no"), "empty.xml": "",
		"cut.xml": suiteOf("g")[:50] + "<testcase",
	})
	for name, at := range map[string]time.Time{
		"copied.xml": past, "rewritten.xml": past, "touched.xml": past.Add(time.Minute),
		"appended.xml": before["appended.xml"].ModTime(), "replaced.xml": before["replaced.xml"].ModTime(),
	} {
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	found := ReadJUnitFiles(t.Context(), dir, before, "junit.xml")
	var names []string
	for _, result := range found.Report.Tests {
		names = append(names, result.Name)
	}
	if want := []string{"a", "a2", "d", "g", "f", "f2", "H", "B", "e", "c"}; !slices.Equal(names, want) {
		t.Errorf("tests %q, want %q", names, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "junit.xml")); err == nil || found.Renamed != "junit-command-2.xml" {
		t.Errorf("the file with the reserved name was renamed to %q, %v", found.Renamed, err)
	}
	if want := []string{"old.xml", "sub/old.xml"}; !slices.Equal(found.Old, want) {
		t.Errorf("old files %q, want %q", found.Old, want)
	}
	if len(found.Ignored) != 1 || found.Ignored[0].File != "coverage.xml" {
		t.Errorf("%+v", found)
	}
	if len(found.Damaged) != 2 || found.Damaged[0].File != "cut.xml" || !errors.Is(found.Damaged[1], errEmpty) {
		t.Errorf("damaged files %v", found.Damaged)
	}
	r := sample()
	r.Add(found.Report)
	if r.Total != 15 || r.Passed != 11 || r.Failed != 2 {
		t.Error(r.Line())
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(dir, "absent")} {
		if found := ReadJUnitFiles(t.Context(), dir, ListXMLFiles(dir), "junit.xml"); found.Report != nil ||
			len(found.Damaged) > 0 {
			t.Errorf("%+v", found)
		}
	}
}

// Links and special files are named, but not opened: they could lead out of the directory or block.
func TestReadJUnitFilesOpensRegularFilesOnly(t *testing.T) {
	outside := reportDir(t, map[string]string{"a.xml": suiteOf("outside")})
	dir := reportDir(t, map[string]string{"real.xml": suiteOf("real"), "dir.xml/in.xml": suiteOf("in")})
	for link, target := range map[string]string{
		"out.xml": filepath.Join(outside, "a.xml"), "out": outside, "near.xml": "real.xml", "loop": ".",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.xml"), 0o644); err != nil {
		t.Fatal(err)
	}
	found := ReadJUnitFiles(t.Context(), dir, nil, "junit.xml")
	if outline(found.Report) != lines("passed s: in", "passed s: real") {
		t.Error(outline(found.Report))
	}
	var named []string
	for _, ignored := range found.Ignored {
		named = append(named, ignored.File)
	}
	if want := []string{"loop", "near.xml", "out", "out.xml", "pipe.xml"}; !slices.Equal(named, want) {
		t.Errorf("named %q, want %q", named, want)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"pipe.xml", "out.xml"} { // replaced after the listing
		if r, err := readJUnitFile(t.Context(), root, name); r != nil || err == nil {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestReadJUnitFilesNamesUnreadableFiles(t *testing.T) {
	dir := reportDir(t, map[string]string{"a.xml": suiteOf("a"), "b\n::error::.xml": "", "sub/c.xml": suiteOf("c")})
	for _, name := range []string{"a.xml", "sub"} {
		if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(filepath.Join(dir, name), 0o755)
	}
	for _, parent := range []string{filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} { // of the test
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var found JUnitFiles
	testdaemons.AsNobody(t, func() { found = ReadJUnitFiles(t.Context(), dir, nil, "junit.xml") })
	var denied []string
	for _, damaged := range found.Damaged {
		if errors.Is(damaged, fs.ErrPermission) {
			denied = append(denied, damaged.File)
		} else if damaged.File != "b ::error::.xml" {
			t.Error(damaged)
		}
	}
	if want := []string{"sub", "a.xml"}; !slices.Equal(denied, want) {
		t.Errorf("permission denied for %q, want %q", denied, want)
	}
}

func TestReadJUnitFilesStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	found := ReadJUnitFiles(ctx, reportDir(t, map[string]string{"a.xml": suiteOf("a")}), nil, "junit.xml")
	if len(found.Damaged) != 1 || !errors.Is(found.Damaged[0], stopped) {
		t.Errorf("%+v", found)
	}
}
