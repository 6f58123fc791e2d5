package suite

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
)

// FuzzReadJUnit checks that every test in an untrusted file is counted once and shown in one line, and that writing the
// report as JUnit and reading it again yields the same results. JUnit has no status for flaky tests.
func FuzzReadJUnit(f *testing.F) {
	for _, seed := range []string{
		`<testsuites><testsuite name="s"><testcase name="a" classname="c" time="0.1"/>` +
			`<testcase name="b"><failure message="m">detail</failure></testcase></testsuite></testsuites>`,
		`<testsuite><testcase name="a"><skipped message="why"/></testcase>` +
			`<testsuite name="inner"><testcase name="b"><error>e</error></testcase></testsuite></testsuite>`,
		`<testsuite><testcase name="line&#10;break ::error::x">` +
			`<failure message="&#27;[31m"><![CDATA[ ]]&gt; ]]></failure></testcase></testsuite>`,
		`<testsuite tests="9" failures="-1"/>`, `<testsuite><testcase/></testsuite>`, `<testsuite`,
		`<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><testsuite><testcase name="&a;"/></testsuite>`,
		"<testsuite name='\xff'><testcase name='\xff' time='1e309'/></testsuite>",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _ := readJUnit(bytes.NewReader(data)) // with an error, too, the results are valid
		if n := r.Passed + r.Failed + r.Skipped + r.Flaky; n != r.Total || n != len(r.Tests) {
			t.Errorf("%d tests: %+v", len(r.Tests), r)
		}
		for _, test := range r.Tests {
			texts := []string{test.Name, test.Class, test.Reason}
			for _, failure := range test.Failures {
				texts = append(texts, failure.Message)
			}
			text := strings.Join(texts, "")
			if strings.ContainsFunc(text, unicode.IsControl) || strings.ContainsRune(text, '\u2028') {
				t.Errorf("%q is not one line", text)
			}
			if (test.Status == Failed || test.Status == Flaky) != (len(test.Failures) > 0) {
				t.Errorf("%q %s with %d failures", test.Name, test.Status, len(test.Failures))
			}
		}
		var written bytes.Buffer
		if err := r.WriteJUnit(&written); err != nil {
			t.Fatal(err)
		}
		second, err := readJUnit(bytes.NewReader(written.Bytes()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, &written)
		}
		if second.Passed != r.Passed+r.Flaky || second.Failed != r.Failed || second.Skipped != r.Skipped {
			t.Errorf("%s became %s in\n%s", r.Line(), second.Line(), &written)
		}
		for i, test := range second.Tests {
			if test.Name != r.Tests[i].Name {
				t.Errorf("the test %q became %q", r.Tests[i].Name, test.Name)
			}
		}
	})
}
