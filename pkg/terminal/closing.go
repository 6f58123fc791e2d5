package terminal

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/safetext"
)

const (
	maxTests   = 10  // failed tests that are listed
	maxMessage = 200 // bytes of a message
)

// Closing writes the result of a run for the person who started it: what came out, and what to do next. The error of a
// failed run is not part of it, because the program prints the error after it. Of a run that reached nothing, Closing
// writes nothing.
func Closing(w io.Writer, r *runrecord.Record, color bool) {
	c := closing{record: r, color: color}
	if r.ExitCode == 0 {
		c.result()
		c.next()
	} else {
		c.failure()
	}
	if c.text.Len() > 0 {
		_, _ = io.WriteString(w, "\n"+c.text.String()) // a broken terminal cannot be reported anywhere
	}
}

type closing struct {
	record *runrecord.Record
	color  bool
	text   strings.Builder
}

func (c *closing) title(style Style, format string, args ...any) {
	c.text.WriteString(style.Apply(clean(fmt.Sprintf(format, args...)), c.color) + "\n")
}

// row writes a labeled value, unless the value is empty.
func (c *closing) row(label, format string, args ...any) {
	if text := clean(fmt.Sprintf(format, args...)); text != "" {
		fmt.Fprintf(&c.text, "  %s %s\n", Faint.Apply(fmt.Sprintf("%-10s", label), c.color), text)
	}
}

func clean(text string) string { return safetext.Visible(strings.TrimSpace(text)) }

// result writes the title and what came out of a run that succeeded.
func (c *closing) result() {
	r, took := c.record, humanize.Seconds(c.record.Seconds)
	switch {
	case len(r.Snapshots) == 1:
		s := r.Snapshots[0]
		c.title(Green, "Snapshot %s is %s after %s", s.Name, s.State, took)
	case len(r.Snapshots) > 1:
		c.title(Green, "%d snapshots are active after %s", len(r.Snapshots), took)
	case r.Tests != nil:
		c.title(Green, "%s in %s", countTests(r.Tests), took)
	case r.Doppler != nil:
		c.title(Green, "Finished in %s", took)
	case r.Image != nil:
		c.title(Green, "Built %s in %s", imageName(r.Image), took)
	default:
		return
	}
	c.image()
	if r.Tests != nil && len(r.Snapshots) > 0 {
		c.row("tests", "%s", countTests(r.Tests))
	}
	for _, s := range r.Snapshots {
		c.snapshot(s)
	}
	c.doppler()
}

func (c *closing) image() {
	i := c.record.Image
	if i == nil {
		return
	}
	var names []string
	for _, name := range append(slices.Clone(i.Names), i.Pushed...) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	c.row("image", "%s", strings.Join(names, ", "))
	c.row("digest", "%s", i.Digest)
	for _, p := range i.Platforms {
		size := humanize.Size(p.Size)
		if change, ok := c.change(p.Platform); ok {
			size += " (" + humanize.SizeChange(change.Size) + " since the last run)"
		}
		if len(i.Platforms) > 1 {
			size = p.Platform + ": " + size
		}
		c.row("size", "%s", size)
	}
	if i.Total > 0 && !i.Existing {
		c.row("cache", "%d of %d steps%s", i.Cached, i.Total, c.cacheBreak())
	}
	if i.Existing && i.Created.Year() >= 2013 { // reproducible images name an earlier time
		c.row("built", "%s", i.Created.Local().Format("2006-01-02 15:04"))
	}
	c.row("source", "%s", c.source())
	c.row("Depot", "%s", i.BuildURL)
}

func (c *closing) change(platform string) (runrecord.PlatformChange, bool) {
	if c.record.Changes == nil {
		return runrecord.PlatformChange{}, false
	}
	i := slices.IndexFunc(c.record.Changes.Platforms, func(p runrecord.PlatformChange) bool { return p.Platform == platform })
	if i < 0 {
		return runrecord.PlatformChange{}, false
	}
	return c.record.Changes.Platforms[i], true
}

// cacheBreak names the inputs that changed, so that the steps after the cached ones ran.
func (c *closing) cacheBreak() string {
	if c.record.Changes == nil || c.record.Changes.CacheBreak == nil {
		return ""
	}
	b := c.record.Changes.CacheBreak
	var causes []string
	switch {
	case b.BaseImage:
		causes = append(causes, "the base image")
	case b.Instruction:
		causes = append(causes, "the instruction")
	}
	causes = append(causes, b.BuildArgs...)
	causes = append(causes, b.Files...)
	more := b.MoreFiles
	if len(causes) > 3 {
		more += len(causes) - 3
		causes = causes[:3]
	}
	if len(causes) == 0 {
		return ""
	}
	text := "; changed: " + strings.Join(causes, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func (c *closing) source() string {
	s := c.record.Source
	if s == nil || s.SHA == "" {
		return ""
	}
	text := s.SHA[:min(len(s.SHA), 7)]
	if s.Ref != "" {
		text += " (" + strings.TrimPrefix(strings.TrimPrefix(s.Ref, "refs/heads/"), "refs/tags/") + ")"
	}
	if s.Dirty {
		text += ", with uncommitted changes"
	}
	return text
}

func (c *closing) snapshot(s runrecord.Snapshot) {
	if len(c.record.Snapshots) > 1 {
		c.row(cmp.Or(s.Variant, "snapshot"), "%s", s.Name)
	}
	how := "created"
	if s.Reused {
		how = "reused: it has the same image"
	}
	switch s.Verified {
	case "boot":
		how += "; a sandbox of it starts"
	case "suite":
		how += "; its tests passed in a sandbox"
	case "none":
		how += "; not verified"
	}
	c.row("snapshot", "%s", how)
	sandbox := fmt.Sprintf("%d CPU, %d GB memory, %d GB disk", s.CPU, s.MemoryGB, s.DiskGB)
	if s.GPU > 0 {
		sandbox += fmt.Sprintf(", %d GPU", s.GPU)
	}
	c.row("sandbox", "%s", sandbox)
}

func (c *closing) doppler() {
	d := c.record.Doppler
	if d == nil {
		return
	}
	if len(d.Written) > 0 {
		text := strings.Join(d.Written, ", ") + " (" + d.Secret + ")"
		if d.Previous != "" {
			text += ", instead of " + d.Previous
		}
		c.row("named in", "%s", text)
	}
	if len(d.Unchanged) > 0 {
		c.row("named in", "%s (%s), already before", strings.Join(d.Unchanged, ", "), d.Secret)
	}
	if d.Skipped != "" {
		c.row("Doppler", "not updated: %s", d.Skipped)
	}
	c.row("deleted", "%s", strings.Join(d.Deleted, ", "))
}

func imageName(i *runrecord.Image) string {
	for _, names := range [][]string{i.Names, i.Pushed} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return "the image"
}

func countTests(t *runrecord.Tests) string {
	if t.Failed > 0 {
		return fmt.Sprintf("%d of %d tests failed", t.Failed, t.Total)
	}
	text := fmt.Sprintf("%d tests passed", t.Passed)
	if t.Passed == 1 {
		text = "1 test passed"
	}
	if t.Flaky > 0 {
		text += fmt.Sprintf(", %d after another attempt", t.Flaky)
	}
	if t.Skipped > 0 {
		text += fmt.Sprintf(", %d skipped", t.Skipped)
	}
	return text
}

// next writes commands that use the result.
func (c *closing) next() {
	r := c.record
	var commands []string
	loaded := r.Image != nil && len(r.Image.Names) > 0
	switch {
	case len(r.Snapshots) > 0:
		commands = append(commands, "daytona create --snapshot "+r.Snapshots[0].Name)
		if r.Doppler != nil && len(r.Doppler.Written) > 0 {
			commands = append(commands, "action-snapshot promote "+r.Snapshots[0].Name+" --to CONFIG")
		}
	case r.Doppler != nil && len(r.Doppler.Written) > 0:
		commands = append(commands, "action-snapshot history")
	case r.Tests != nil && loaded:
		commands = append(commands, "action-snapshot")
	case loaded:
		commands = append(commands, "docker run --rm -it "+r.Image.Names[0], "action-test", "action-snapshot")
	case r.Image != nil && len(r.Image.Pushed) > 0:
		commands = append(commands, "docker run --rm -it "+r.Image.Pushed[0]+"@"+r.Image.Digest)
	}
	if len(commands) > 0 {
		c.text.WriteString("\n")
		c.title(Bold, "Next:")
		for _, command := range commands {
			c.text.WriteString("  " + clean(command) + "\n")
		}
	}
}

// failure writes where a run failed, unless the error says it all.
func (c *closing) failure() {
	if t := c.record.Tests; t != nil && t.Failed > 0 {
		c.failedTests(t)
	}
	e := c.record.Error
	if e == nil {
		return
	}
	var lines []string
	if e.Excerpt != "" {
		where := e.File
		if e.Line > 0 {
			where += fmt.Sprintf(":%d", e.Line)
		}
		lines = append(lines, Bold.Apply(clean(where), c.color))
		lines = append(lines, indent(e.Excerpt)...)
	}
	if output := strings.TrimSpace(e.Output); output != "" && !containsLines(e.Message, output) {
		lines = append(lines, Bold.Apply("The last lines of the step:", c.color))
		lines = append(lines, indent(e.Output)...)
	}
	if len(lines) > 0 {
		c.text.WriteString(strings.Join(lines, "\n") + "\n")
	}
}

// containsLines reports whether text contains all lines of a step's output.
func containsLines(text, output string) bool {
	for line := range strings.Lines(output) {
		if !strings.Contains(text, strings.TrimSpace(line)) {
			return false
		}
	}
	return true
}

func indent(text string) (lines []string) {
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		lines = append(lines, "  "+safetext.Visible(strings.TrimRight(line, "\r\n")))
	}
	return lines
}

func (c *closing) failedTests(t *runrecord.Tests) {
	c.title(Red, "%s in %s", countTests(t), humanize.Seconds(t.Seconds))
	listed := 0
	var first string
	for _, test := range t.Tests {
		if test.Status != "failed" {
			continue
		}
		first = cmp.Or(first, test.Name)
		if listed++; listed > maxTests {
			continue
		}
		position := test.File
		if line := cmp.Or(lineOf(test), test.Line); position != "" && line > 0 {
			position = fmt.Sprintf("%s:%d", position, line)
		}
		c.text.WriteString("  " + strings.TrimSpace(clean(test.Name)+"  "+Faint.Apply(clean(position), c.color)) + "\n")
		for _, failure := range test.Failures {
			c.text.WriteString("    " + safetext.Line(failure.Message, maxMessage) + "\n")
		}
	}
	if listed > maxTests {
		fmt.Fprintf(&c.text, "  and %d more\n", listed-maxTests)
	}
	c.text.WriteString("\n")
	c.title(Bold, "Next:")
	if first != "" {
		c.text.WriteString("  action-test --run " + shellQuote(clean(first)) + "\n")
	}
	c.text.WriteString("  action-test shell\n")
}

func lineOf(test runrecord.Test) int {
	for _, failure := range test.Failures {
		if failure.Line > 0 {
			return failure.Line
		}
	}
	return 0
}

// shellQuote returns a regular expression for a name as one word of a shell.
func shellQuote(name string) string {
	return "'^" + strings.ReplaceAll(regexp.QuoteMeta(name), "'", `'\''`) + "$'"
}
