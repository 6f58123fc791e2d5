package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
)

// shownText bounds what a failure shows of a text: bytes.
const shownText = 4 << 10

// Failure is one thing that is not as the suite says.
type Failure struct {
	Line    int    // in the suite's file
	Message string // of ours, in one line; it quotes what the image said
	Detail  string // the text that was seen, or its difference from the expected one; the image's own, and never to be obeyed
}

// check holds what was seen, called name, against o. Dir is where golden files are.
func (o *output) check(name, seen, dir string) (failures []Failure) {
	fail := func(line int, detail, format string, args ...any) {
		failures = append(failures, Failure{line, fmt.Sprintf(format, args...), detail})
	}
	for _, p := range o.Include {
		if !p.MatchString(seen) {
			fail(p.Line, excerpt(seen), "%s does not match %s", name, strconv.Quote(p.String()))
		}
	}
	for _, p := range o.Exclude {
		if at := p.FindStringIndex(seen); at != nil {
			fail(p.Line, excerpt(seen), "%s must not match %s, and has %s", name, strconv.Quote(p.String()), strconv.Quote(shorten(seen[at[0]:at[1]], 200)))
		}
	}
	if o.Equals != nil && seen != *o.Equals {
		fail(o.Line, diff(*o.Equals, seen), "%s is not what equals says", name)
	}
	if o.Golden != "" {
		want, err := os.ReadFile(filepath.Join(dir, o.Golden))
		if err != nil {
			fail(o.Line, "", "%s can not be compared: %v", name, err)
		} else if seen != string(want) {
			fail(o.Line, diff(string(want), seen), "%s is not what %s holds", name, o.Golden)
		}
	}
	return failures
}

// compare says in what a value is another than v wants, "" when it is not. It is absent when it is not there.
func (v *value) compare(have string, there bool) string {
	switch {
	case v.absent && there:
		return fmt.Sprintf("is %s, and must not be there", strconv.Quote(shorten(have, 200)))
	case v.absent:
		return ""
	case !there && v.matches != nil:
		return fmt.Sprintf("is not there, and must match %s", strconv.Quote(v.matches.String()))
	case !there:
		return fmt.Sprintf("is not there, and must be %s", strconv.Quote(v.equals))
	case v.matches != nil && !v.matches.MatchString(have):
		return fmt.Sprintf("is %s, and must match %s", strconv.Quote(shorten(have, 200)), strconv.Quote(v.matches.String()))
	case v.matches == nil && have != v.equals:
		return fmt.Sprintf("is %s, and must be %s", strconv.Quote(shorten(have, 200)), strconv.Quote(v.equals))
	}
	return ""
}

// excerpt is a text's begin and end.
func excerpt(s string) string {
	if s == "" {
		return "(nothing)"
	}
	if len(s) <= shownText {
		return s
	}
	half := shownText / 2
	return fmt.Sprintf("%s\n… %d bytes left out …\n%s", strings.ToValidUTF8(s[:half], ""), len(s)-2*half, strings.ToValidUTF8(s[len(s)-half:], ""))
}

// diff is the unified difference of two texts. Long ones are cut first: finding a difference takes the product of their lengths.
func diff(want, seen string) string {
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(want), B: lines(seen), FromFile: "expected", ToFile: "seen", Context: 3,
	})
	if err != nil || text == "" {
		return excerpt(seen)
	}
	return excerpt(text)
}

// lines are at most a thousand lines of a text, each with its end.
func lines(s string) []string {
	const most = 1000
	list := strings.SplitAfterN(s, "\n", most+1)
	if len(list) > most {
		list = append(list[:most], "…\n")
	}
	for i, line := range list {
		list[i] = shorten(strings.TrimSuffix(line, "\n"), 1000) + "\n"
	}
	if last := len(list) - 1; list[last] == "\n" {
		return list[:last]
	}
	if !strings.HasSuffix(s, "\n") {
		list[len(list)-1] = strings.TrimSuffix(list[len(list)-1], "\n") + " (no newline at the end)\n"
	}
	return list
}
