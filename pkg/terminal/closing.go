package terminal

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
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

// result writes what came out of a run that succeeded.
func (c *closing) result() {
	r := c.record
	title := r.Line()
	if title == "" && r.Doppler != nil { // of a command that only names a snapshot
		title = "Finished in " + humanize.Seconds(r.Seconds)
	}
	if title == "" {
		return
	}
	c.title(Green, "%s", title)
	c.image()
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
	c.row("image", "%s", strings.Join(i.Names, ", "))
	c.row("digest", "%s", i.Digest)
	c.row("pushed", "%s", strings.Join(i.Pushed, ", "))
	c.row("source", "%s", c.source())
	if i.Existing && i.Created.Year() >= firstYear {
		c.row("built", "%s", i.Created.Local().Format("2006-01-02 15:04"))
	}
	c.row("changed", "%s", c.changes())
	c.row("Depot", "%s", i.BuildURL)
}

// firstYear is the first year in which an image can have been created. Reproducible images name an earlier one.
const firstYear = 2013

// changes describes what changed since the last run, and why steps were not cached.
func (c *closing) changes() string {
	if c.record.Changes == nil {
		return ""
	}
	var parts []string
	if causes := c.cacheBreak(); causes != "" {
		parts = append(parts, causes)
	}
	for _, p := range c.record.Changes.Platforms {
		text := ""
		if len(p.Packages) > 0 {
			text = count(len(p.Packages), "package")
		}
		if files := len(p.Files) + p.Omitted; files > 0 {
			text = strings.TrimPrefix(text+" and "+count(files, "file"), " and ")
		}
		if text == "" {
			continue
		}
		if len(c.record.Changes.Platforms) > 1 {
			text = p.Platform + ": " + text
		}
		parts = append(parts, text+" of the image")
	}
	return strings.Join(parts, "; ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// cacheBreak names the inputs that changed, so that the steps after the cached ones ran.
func (c *closing) cacheBreak() string {
	if c.record.Changes.CacheBreak == nil {
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
	causes = append(causes, b.Earlier...)
	more := b.MoreFiles
	if len(causes) > 3 {
		more += len(causes) - 3
		causes = causes[:3]
	}
	text := strings.Join(causes, ", ")
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
	text := humanize.Commit(s.SHA)
	if s.Ref != "" {
		text += " (" + strings.TrimPrefix(strings.TrimPrefix(s.Ref, "refs/heads/"), "refs/tags/") + ")"
	}
	if s.Dirty {
		text += ", with uncommitted changes"
	}
	return text
}

func (c *closing) snapshot(s runrecord.Snapshot) {
	c.row(cmp.Or(s.Variant, "snapshot"), "%s", s.Name)
	if s.Verified == "none" {
		c.row("verified", "no")
	}
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
		c.commands(commands)
	}
}

func (c *closing) commands(list []string) {
	c.text.WriteString("\n")
	c.title(Bold, "Next:")
	for _, command := range list {
		c.text.WriteString("  " + clean(command) + "\n")
	}
}

// failure writes where a run failed. The last lines of a failed step are at the end of the display.
func (c *closing) failure() {
	if t := c.record.Tests; t != nil && t.Failed > 0 {
		c.failedTests(t)
	}
	e := c.record.Error
	if e == nil || e.Excerpt == "" {
		return
	}
	where := e.File
	if e.Line > 0 {
		where += fmt.Sprintf(":%d", e.Line)
	}
	c.title(Bold, "%s", where)
	c.text.WriteString(strings.Join(indent(e.Excerpt), "\n") + "\n")
}

func indent(text string) (lines []string) {
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		lines = append(lines, "  "+safetext.Visible(strings.TrimRight(line, "\r\n")))
	}
	return lines
}

func (c *closing) failedTests(t *runrecord.Tests) {
	c.title(Red, "%s", c.record.Line())
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
	var commands []string
	if first != "" {
		commands = append(commands, "action-test --run "+namePattern(first))
	}
	c.commands(append(commands, "action-test shell"))
}

func lineOf(test runrecord.Test) int {
	for _, failure := range test.Failures {
		if failure.Line > 0 {
			return failure.Line
		}
	}
	return 0
}

// namePattern returns a regular expression for a name as one word of a shell.
func namePattern(name string) string {
	return "'^" + strings.ReplaceAll(regexp.QuoteMeta(name), "'", `'\''`) + "$'"
}
