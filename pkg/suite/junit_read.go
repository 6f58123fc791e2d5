package suite

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// Limits of a JUnit file.
const (
	maxJUnit      = 1 << 30 // bytes to read
	maxJUnitTests = 200_000
	maxJUnitText  = 1 << 20 // bytes of an attribute or a text; the rest is dropped
	maxJUnitName  = 1000    // characters

	maxJUnitBuffer = 4 << 20 // bytes of a tag that consists of such characters as quotes
)

// Reasons why a file has no results.
var (
	errEmpty = errors.New("file is empty")
	errNoXML = errors.New("file has no complete XML element")
)

// notJUnitError reports an XML file of another format.
type notJUnitError struct{ root string }

func (e *notJUnitError) Error() string {
	return fmt.Sprintf("not JUnit: its root element is <%s>", e.root)
}

// readJUnit reads JUnit XML. The report is never nil: with an error, it has the results that precede the damage.
//
// Test frameworks write files that an XML parser refuses: with control characters, undeclared entities or unescaped
// text. The tokenizer for HTML accepts them and reads valid XML in the same way.
func readJUnit(r io.Reader) (*Report, error) {
	limited := &io.LimitedReader{R: r, N: maxJUnit + 1}
	z := html.NewTokenizer(newTextLimiter(decodeXML(limited)))
	z.AllowCDATA(true)
	z.SetMaxBuf(maxJUnitBuffer)
	p := &junitParser{report: &Report{}}
	for len(p.report.Tests) <= maxJUnitTests {
		switch kind := z.Next(); kind {
		case html.StartTagToken, html.SelfClosingTagToken:
			z.NextIsNotRawText() // <title> and <style> have no special meaning
			name, attributes := readTag(z)
			p.start(name, attributes)
			if kind == html.SelfClosingTagToken {
				p.end(name)
			}
		case html.EndTagToken:
			name, _ := readTag(z)
			p.end(name)
		case html.TextToken:
			if cdata, ok := bytes.CutPrefix(z.Raw(), []byte("<![CDATA[")); ok {
				p.addText(bytes.TrimSuffix(cdata, []byte("]]>"))) // z.Text would expand entities
			} else {
				p.addText(z.Text())
			}
		case html.ErrorToken:
			p.hasText = p.hasText || len(z.Raw()) > 0 // an incomplete tag
			err := z.Err()
			if errors.Is(err, html.ErrBufferExceeded) {
				err = fmt.Errorf("file has a tag of more than %d MiB", maxJUnitBuffer>>20)
			}
			if err == io.EOF && limited.N <= 0 {
				err = fmt.Errorf("file is larger than %d MiB", maxJUnit>>20)
			}
			return p.finish(err)
		}
	}
	return p.finish(fmt.Errorf("file has more than %d tests", maxJUnitTests))
}

var encodingDeclaration = regexp.MustCompile(`<\?xml\s[^>]*encoding\s*=\s*["']([^"']+)["']`)

// decodeXML converts XML to UTF-8. A byte order mark and the bytes of the first character take precedence over the
// declared encoding: .NET, for example, writes UTF-8 with the declaration of UTF-16. In UTF-8, it replaces invalid
// bytes.
func decodeXML(r io.Reader) io.Reader {
	buffered := bufio.NewReader(r)
	start, _ := buffered.Peek(1024) // fewer bytes at the end of the file
	var e encoding.Encoding = unicode.UTF8
	declared := encodingDeclaration.FindSubmatch(start)
	switch {
	case bytes.HasPrefix(start, []byte("<\x00")):
		e = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	case bytes.HasPrefix(start, []byte("\x00<")):
		e = unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	case declared != nil && !strings.Contains(strings.ToLower(string(declared[1])), "ascii"):
		found, name := charset.Lookup(string(declared[1]))
		if found != nil && !strings.HasPrefix(name, "utf-16") {
			e = found
		}
	}
	return transform.NewReader(buffered, unicode.BOMOverride(e.NewDecoder()))
}

// textLimiter passes XML through, except the part of each CDATA section, text and tag that exceeds maxJUnitText. Of
// that, it keeps the characters that can end it.
type textLimiter struct {
	r     *bufio.Reader
	cdata bool
	keep  int  // remaining bytes of "]]>"
	tag   bool // whether the position is in a tag or a comment
	quote byte // of an attribute; 0 outside
	size  int  // of the current section, text or tag
}

func newTextLimiter(r io.Reader) *textLimiter { return &textLimiter{r: bufio.NewReaderSize(r, 64<<10)} }

func (l *textLimiter) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c, err := l.r.ReadByte()
		if err != nil {
			return n, err
		}
		switch {
		case l.cdata && c == ']' && l.keep == 0 && l.hasPrefix("]>"):
			l.keep = len("]]>")
		case l.cdata:
		case c == '<':
			l.size, l.quote, l.cdata = 0, 0, l.hasPrefix("![CDATA[")
			l.tag = !l.cdata
		case l.tag && c == l.quote:
			l.quote = 0
		case l.tag && l.quote == 0 && (c == '"' || c == '\''):
			l.quote = c
		case l.tag && l.quote == 0 && c == '>':
			l.size, l.tag = -1, false
		}
		l.size++
		if l.size <= maxJUnitText || l.keep > 0 || l.tag && strings.IndexByte(`>"'/-`, c) >= 0 {
			p[n] = c
			n++
		}
		if l.keep > 0 {
			l.keep--
			l.cdata = l.keep > 0
		}
	}
	return n, nil
}

func (l *textLimiter) hasPrefix(s string) bool {
	next, _ := l.r.Peek(len(s)) // fewer bytes at the end of the file
	return string(next) == s
}

// readTag returns the name of the current tag without its namespace, and its attributes, all in lower case.
func readTag(z *html.Tokenizer) (name string, attributes map[string]string) {
	tag, more := z.TagName()
	name = string(tag)
	name = name[strings.LastIndexByte(name, ':')+1:]
	for more {
		var key, value []byte
		key, value, more = z.TagAttr()
		if attributes == nil {
			attributes = map[string]string{}
		}
		attributes[string(key)] = string(value)
	}
	return name, attributes
}

// junitParser collects the results of a JUnit file.
type junitParser struct {
	report  *Report
	root    string   // name of the first element
	hasText bool     // whether the file has anything but white space
	suites  []string // names of the open suites, outermost first
	found   bool     // whether there was a suite

	test     *Result // open testcase
	outcome  Status  // of the open testcase, unless it has failures; "" if unknown
	flaky    *Failure
	attempts int // failed attempts of the open testcase that have elements of their own

	element    string // open child of a testcase or testsuite; its content is text
	attributes map[string]string
	text       strings.Builder
}

// Children of testcase and testsuite that [junitParser] knows, in lower case. rerunFailure and flakyFailure are of
// Maven Surefire and Gradle: earlier attempts of a test that finally failed or passed.
var (
	failureElements = []string{"failure", "error"}
	rerunElements   = []string{"rerunfailure", "rerunerror"}
	flakyElements   = []string{"flakyfailure", "flakyerror"}
	otherElements   = []string{"skipped", "system-out", "system-err", "properties"}
	knownElements   = slices.Concat(failureElements, rerunElements, flakyElements, otherElements)
)

func (p *junitParser) start(name string, attributes map[string]string) {
	if p.root == "" {
		p.root = name
	}
	switch {
	case p.element != "":
	case name == "testsuites" || name == "testsuite":
		p.endTest()
		p.found = true
		p.suites = append(p.suites, junitLine(attributes["name"]))
	case len(p.suites) == 0:
	case name == "testcase":
		p.endTest()
		p.startTest(attributes)
	case slices.Contains(knownElements, name):
		p.element, p.attributes = name, attributes
		p.text.Reset()
	}
}

func (p *junitParser) end(name string) {
	switch {
	case p.element != "":
		if name == p.element {
			p.endElement()
		}
	case name == "testcase":
		p.endTest()
	case (name == "testsuites" || name == "testsuite") && len(p.suites) > 0:
		p.endTest()
		p.suites = p.suites[:len(p.suites)-1]
	}
}

func (p *junitParser) addText(text []byte) {
	p.hasText = p.hasText || len(bytes.TrimSpace(text)) > 0
	if p.element != "" && p.text.Len() < maxJUnitText {
		p.text.Write(text)
	}
}

// outcomes maps values of the attributes status and result. GoogleTest and CTest mark tests that did not run with
// these alone.
var outcomes = map[string]Status{
	"fail": Failed, "failed": Failed, "failure": Failed, "error": Failed,
	"notrun": Skipped, "disabled": Skipped, "skipped": Skipped, "suppressed": Skipped, "ignored": Skipped,
}

func (p *junitParser) startTest(attributes map[string]string) {
	p.test = &Result{
		Name: junitLine(attributes["name"]), Class: junitLine(attributes["classname"]),
		Duration: parseSeconds(attributes["time"]),
	}
	if p.test.Class == "" {
		p.test.Class = p.suites[len(p.suites)-1]
	}
	p.flaky, p.attempts = nil, 0
	p.outcome = outcomes[strings.ToLower(attributes["status"])]
	if p.outcome == "" {
		p.outcome = outcomes[strings.ToLower(attributes["result"])]
	}
	if p.outcome == Skipped {
		p.test.Reason = junitLine(attributes["status"])
	}
}

// endTest adds the open testcase, if there is one, to the report.
func (p *junitParser) endTest() {
	t := p.test
	if t == nil {
		return
	}
	p.test = nil
	t.Attempts = 1 + p.attempts
	switch {
	case len(t.Failures) > 0:
		t.Status = Failed
	case p.outcome == Skipped:
		t.Status, t.Attempts = Skipped, 0
	case p.outcome == Failed:
		t.Status, t.Failures = Failed, []Failure{{Message: "failed without a message"}}
	case p.flaky != nil:
		t.Status, t.Failures = Flaky, []Failure{*p.flaky}
	default:
		t.Status = Passed
	}
	p.report.Tests = append(p.report.Tests, t)
}

// endElement adds the open child of a testcase or testsuite to the testcase. A failure outside of a testcase becomes a
// test of its own: some frameworks report a suite that could not start in this way.
func (p *junitParser) endElement() {
	name := p.element
	p.element = ""
	message := junitLine(p.attributes["message"])
	text := strings.TrimSpace(escapeSequence.ReplaceAllString(p.text.String(), ""))
	failure := func() Failure {
		f := Failure{Message: message}
		if text != "" {
			f.Detail = excerpt(strings.ToValidUTF8(text, "\ufffd"))
		}
		for _, other := range []string{text, p.attributes["type"], "failed without a message"} {
			if f.Message == "" {
				first, _, _ := strings.Cut(other, "\n")
				f.Message = junitLine(first)
			}
		}
		return f
	}
	switch {
	case slices.Contains(failureElements, name):
		if p.test == nil {
			p.startTest(map[string]string{"name": p.suites[len(p.suites)-1]})
			p.test.Class = ""
			defer p.endTest()
		}
		p.test.Failures = append(p.test.Failures, failure())
	case p.test == nil:
	case slices.Contains(rerunElements, name):
		p.attempts++
		p.outcome = Failed
	case slices.Contains(flakyElements, name):
		p.attempts++
		f := failure()
		p.flaky = &f
	case name == "skipped":
		p.outcome = Skipped
		if message == "" {
			message = junitLine(text)
		}
		p.test.Reason = message
	}
}

// escapeSequence matches terminal sequences, such as colors.
var escapeSequence = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]`)

func junitLine(s string) string {
	return safetext.Line(escapeSequence.ReplaceAllString(s, ""), maxJUnitName)
}

// finish returns the report, and an error if the end of the file is missing. A test without its end counts only if it
// has failed already.
func (p *junitParser) finish(err error) (*Report, error) {
	if slices.Contains(failureElements, p.element) || slices.Contains(rerunElements, p.element) {
		p.endElement()
	}
	if p.test != nil && (len(p.test.Failures) > 0 || p.outcome == Failed) {
		p.endTest()
	}
	p.report.count()
	switch {
	case err != io.EOF:
	case p.root == "" && !p.hasText:
		err = errEmpty
	case p.root == "":
		err = errNoXML
	case !p.found:
		err = &notJUnitError{safetext.Line(p.root, 50)}
	case len(p.suites) > 0:
		err = fmt.Errorf("file is cut off (tests read: %d)", p.report.Total)
	default:
		err = nil
	}
	return p.report, err
}

// parseSeconds parses a duration in seconds. Frameworks that format it for a locale write 1,234.5 or 0,5. It returns 0
// for an invalid value.
func parseSeconds(s string) time.Duration {
	integer, fraction, comma := strings.Cut(s, ",")
	if comma && !strings.ContainsAny(fraction, ",.") && (len(fraction) != 3 || integer == "0") {
		s = integer + "." + fraction
	}
	seconds, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(s), ",", ""), 64)
	if err != nil {
		d, _ := time.ParseDuration(s)
		return max(d, 0)
	}
	if !(seconds >= 0 && seconds < 1e9) { // also excludes NaN
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}
