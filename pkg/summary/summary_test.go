package summary

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"

	"github.com/org/sandbox-actions/pkg/runrecord"
)

var update = flag.Bool("update", false, "write the golden files")

func TestGolden(t *testing.T) {
	for name, record := range records() {
		for kind, render := range map[string]func(*runrecord.Record) string{"": Markdown, ".comment": Comment} {
			got, file := render(record), filepath.Join("testdata", name+kind+".md")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs (go test ./pkg/summary -update writes it):\n%s", file, got)
			}
		}
	}
}

// A record of a run that ended early has few fields.
func TestEmptyRecord(t *testing.T) {
	for _, r := range []*runrecord.Record{
		{}, {Program: "action-build", ExitCode: 1}, {Error: &runrecord.Error{Message: "no"}},
		{Image: &runrecord.Image{}, Tests: &runrecord.Tests{}, Changes: &runrecord.Changes{}, Source: &runrecord.Source{}},
		{Run: &runrecord.Run{}, Doppler: &runrecord.Doppler{}, Snapshots: []runrecord.Snapshot{{}}},
		{Run: &runrecord.Run{}, Source: &runrecord.Source{Dirty: true}, Error: &runrecord.Error{File: "../x", Line: 3}},
	} {
		for _, markdown := range []string{Markdown(r), Comment(r)} {
			if !strings.HasPrefix(markdown, "### ") || strings.Contains(markdown, "[]") || strings.Contains(markdown, "\n\n\n") {
				t.Errorf("got %q", markdown)
			}
		}
	}
}

// hostile texts would change a page if they were not escaped.
var hostile = []string{
	"a | b \\| c \\\\| d |", "`tick` ``two`` ```three", "`", "```\n</details>\n# heading\n```", "<script>alert(1)</script><b>",
	"<details><summary>x", "--> <!-- x", "@octocat and @acme/team", "#1 GH-2 acme/shop#3 " + sha,
	"https://evil.example www.evil.example a@evil.example", "[text](https://evil.example) ![x](y) [^1] [x]",
	"**bold** _it_ ~~no~~ \\*", "\x1b[31mred\x1b[0m \x00\x07\r\n next", "- list\n1. one\n> quote\n    code\n---\n===\n\n| a |\n|---|",
	"a\u2028b\u202ec\u200b", ":smile: $x$ $$y$$ &amp; &#64; \xff", "%%{init: {}}%% section x: 1, 2; title y #35; ﬂ°°58¶ß click a",
}

// fill sets every string of a value to text, except those with a fixed set of values.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fill(v.Elem(), text)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fixed := []string{"Program", "Status", "Server", "Repository", "Started", "Since", "Created", "SHA", "Kind"}
			if !slices.Contains(fixed, v.Type().Field(i).Name) {
				fill(v.Field(i), text)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), text)
		}
	case reflect.String:
		if v.String() != "" {
			v.SetString(text)
		}
	}
}

var parser = goldmark.New(goldmark.WithExtensions(extension.GFM, extension.Footnote)).Parser()

// Text from outside reaches the page only as code, and the tags are ours.
func TestHostileText(t *testing.T) {
	allowed := regexp.MustCompile(`^(<details><summary>[A-Za-z0-9 :,]+</summary>|</details>|<br>)$`)
	for name := range records() {
		for _, text := range hostile {
			for kind, render := range map[string]func(*runrecord.Record) string{"summary": Markdown, "comment": Comment} {
				record := records()[name]
				fill(reflect.ValueOf(record), text)
				markdown := render(record)
				if !utf8.ValidString(markdown) || strings.ContainsAny(markdown, "\x1b\x00\r") {
					t.Fatalf("%s of %s with %q has control characters", kind, name, text)
				}
				for _, problem := range outside(markdown, allowed) {
					t.Errorf("%s of %s with %q: %s", kind, name, text, problem)
				}
			}
		}
	}
}

// outside returns what is wrong with Markdown: tags that are not allowed, and suspicious text that is not code.
func outside(markdown string, allowed *regexp.Regexp) (problems []string) {
	source := []byte(markdown)
	suspicious := regexp.MustCompile("[`|<>@#_*~\\[\\]\\\\$]|evil|octocat|&amp;|alert|smile")
	root := parser.Parse(text.NewReader(source))
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.CodeSpan, *ast.FencedCodeBlock:
			return ast.WalkSkipChildren, nil
		case *ast.HTMLBlock:
			html := string(n.Lines().Value(source))
			if n.HasClosure() {
				html += string(n.ClosureLine.Value(source))
			}
			if !allowed.MatchString(strings.TrimSpace(html)) {
				problems = append(problems, fmt.Sprintf("HTML %q", html))
			}
		case *ast.RawHTML:
			if html := string(n.Segments.Value(source)); !allowed.MatchString(html) {
				problems = append(problems, fmt.Sprintf("HTML %q", html))
			}
		case *ast.Link:
			target := string(n.Destination)
			if !strings.HasPrefix(target, "https://github.com/acme/shop/") {
				problems = append(problems, fmt.Sprintf("link to %q", target))
			}
		case *ast.Text:
			if value := string(n.Value(source)); suspicious.MatchString(value) {
				problems = append(problems, fmt.Sprintf("text %q", value))
			}
		case *ast.AutoLink, *ast.Image, *ast.ThematicBreak, *ast.CodeBlock:
			problems = append(problems, n.Kind().String())
		}
		return ast.WalkContinue, nil
	})
	return problems
}

// A table has the same rows and cells with hostile text, and the text is readable.
func TestHostileCells(t *testing.T) {
	for _, hostile := range hostile {
		markdown := table(
			"| a | b |\n| --- | --- |\n",
			2,
			func(int) []string { return []string{code(hostile), "end"} },
			1<<20,
			"row",
		)
		var html strings.Builder
		if err := goldmark.New(goldmark.WithExtensions(extension.GFM)).Convert([]byte(markdown), &html); err != nil {
			t.Fatal(err)
		}
		if cells := strings.Count(html.String(), "<td>end</td>"); cells != 2 || strings.Count(html.String(), "<td>") != 4 {
			t.Errorf("%q:\n%s\n%s", hostile, markdown, html.String())
		}
	}
	markdown := table("| a |\n| --- |\n", 1, func(int) []string { return []string{code(`x | y \| z`)} }, 1<<20, "row")
	var html strings.Builder
	_ = goldmark.New(goldmark.WithExtensions(extension.GFM)).Convert([]byte(markdown), &html)
	if want := `<td><code>x | y \| z</code></td>`; !strings.Contains(html.String(), want) {
		t.Errorf("got %s", html.String())
	}
}

// Summaries and comments are below GitHub's limits, show the failures, and say what they omit.
func TestLimits(t *testing.T) {
	long := strings.Repeat("ä|`𝄞", 150)
	r := failingTests()
	r.Changes = cachedBuild().Changes
	r.Changes.Digest = digest("00")
	change := &r.Changes.Platforms[0]
	r.Doppler, r.Snapshots = snapshotNew().Doppler, nil
	for range 10_000 {
		r.Steps = append(r.Steps, runrecord.Step{Name: "[" + long, Stage: long, Offset: 1, Seconds: 1})
		r.Phases = append(r.Phases, runrecord.Phase{Name: long, Seconds: 1})
		r.Inputs = append(r.Inputs, runrecord.Input{Name: long, Value: strings.Repeat(long+"\n", 10)})
		r.Tests.Tests = append(r.Tests.Tests, runrecord.Test{
			Name: long, Class: long, Status: "failed", File: long, Line: 1, Attempts: 3, Failures: slices.Repeat(
				[]runrecord.TestFailure{
					{Line: 2, Message: long, Detail: long},
					{Line: 3, Message: "a\n" + long, Detail: long},
				},
				10,
			),
		})
		change.Layers = append(change.Layers, runrecord.LayerChange{CreatedBy: long, After: 3})
		change.Files = append(change.Files, runrecord.FileChange{Path: long})
		change.Packages = append(
			change.Packages,
			runrecord.PackageChange{Name: long, Manager: long, Before: long, After: long},
		)
		r.Snapshots = append(r.Snapshots, snapshot(long))
		r.Doppler.Written = append(r.Doppler.Written, long)
		r.Image.Names, r.Image.Pushed = append(r.Image.Names, long), append(r.Image.Pushed, long)
		r.Changes.CacheBreak.Files = append(r.Changes.CacheBreak.Files, long)
		r.Changes.CacheBreak.BuildArgs = append(r.Changes.CacheBreak.BuildArgs, long)
		r.Tests.Incomplete = append(r.Tests.Incomplete, long)
	}
	for range 5 {
		r.Changes.Platforms = append(r.Changes.Platforms, *change)
		r.Image.Platforms = append(r.Image.Platforms, r.Image.Platforms[0])
	}
	r.Error.Message, r.Error.File = strings.Repeat(long+"\n", 100), long
	r.Error.Output, r.Error.Excerpt = strings.Repeat(long+"\n", 1000), strings.Repeat(long+"\n", 1000)
	r.Tests.Total, r.Tests.Failed = 10_017, 10_002
	markdown := Markdown(r)
	if len(markdown) >= 1<<20 {
		t.Errorf("the summary has %d bytes", len(markdown))
	}
	for _, part := range []string{
		"### ❌ 10,002 of 10,017 tests failed", "exit code is 1, want 0", "more failed tests.", "more inputs.", "more layers.", "more packages.", "more files.", "lines are omitted; see the log", "Not shown: ",
	} {
		if !strings.Contains(markdown, part) {
			t.Errorf("the summary lacks %q", part)
		}
	}
	if comment := Comment(r); len(comment) >= 65_536 || !strings.Contains(comment, "- 9,992 more") {
		t.Errorf("the comment has %d bytes", len(comment))
	}
	for _, diagram := range regexp.MustCompile("(?s)```mermaid\n.*?\n```").FindAllString(markdown, -1) {
		if utf8.RuneCountInString(diagram) >= 50_000 { // maxTextSize of Mermaid
			t.Errorf("a diagram has %d characters", utf8.RuneCountInString(diagram))
		}
	}
}

func TestAxis(t *testing.T) {
	for _, test := range []struct {
		duration, last   float64
		interval, format string
	}{
		{0.2, 0.2, "50millisecond", "%M:%S.%L"},
		{4, 4, "500millisecond", "%M:%S.%L"},
		{9, 9, "1second", "%M:%S"},
		{65, 65, "10second", "%M:%S"},
		{280, 280, "30second", "%M:%S"},
		{600, 600, "1minute", "%M:%S"},
		{1800, 1800, "5minute", "%M:%S"},
		{5400, 5400, "10minute", "%H:%M"},
		{30, 5400, "5second", "%M:%S"},
		{1e6, 1e6, "3hour", "%d %H:%M"},
	} {
		if interval, format := axis(test.duration, test.last); interval != test.interval || format != test.format {
			t.Errorf("%v: got %s and %s, want %s and %s", test.duration, interval, format, test.interval, test.format)
		}
	}
}

// The timeline shows failed steps and the slowest ones.
func TestTimelineChoosesSteps(t *testing.T) {
	r := base("action-build")
	r.Phases = nil
	for i := range 100 {
		r.Steps = append(r.Steps, runrecord.Step{Name: fmt.Sprintf("[%d]", i), Offset: float64(i), Seconds: 1 + float64(i)})
	}
	r.Steps[3].Error = "exit code 1"
	r.Steps[98].Cached = true
	got := timeline(r)
	for text, want := range map[string]int{
		"#91;3] (4 s) :crit, ": 1, "#91;99] (1 min 40 s) :": 1, "#91;98]": 0, "#91;4]": 0,
		"Not shown: 1 cached step, 69 shorter steps.": 1, " :": maxTasks,
	} {
		if strings.Count(got, text) != want {
			t.Errorf("%q: want %d in\n%s", text, want, got)
		}
	}
	if got := timeline(&runrecord.Record{}); got != "" {
		t.Errorf("got %q", got)
	}
}
