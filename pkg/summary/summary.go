// Package summary presents the record of a run as Markdown for GitHub: the job summary, and the comment on a pull
// request. Text from outside, such as names, logs and messages, is in code spans and code blocks, so that it cannot
// change the page, mention a user or refer to an issue.
package summary

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Markdown returns the job summary of a run. It has less than 1 MiB, beyond which GitHub shows no summary at all: each
// part has a limit, and says what it omits. The limits add up to less than 1 MiB.
func Markdown(r *runrecord.Record) string {
	return join(
		"### "+title(r),
		headline(r),
		failure(r),
		failedTests(r),
		imageTable(r),
		snapshotTables(r),
		passedTests(r),
		changes(r),
		layers(r),
		cacheMiss(r),
		timeline(r),
		inputsTable(r),
		nextCommands(r),
	)
}

// Limits of the parts of a summary in bytes.
const (
	maxMessages = 32 << 10
	maxExcerpt  = 16 << 10
	maxOutput   = 48 << 10
	maxFailures = 192 << 10 // of the tests
	maxTests    = 192 << 10
	maxVariants = 48 << 10
	maxLayers   = 32 << 10
	maxPackages = 48 << 10
	maxFiles    = 64 << 10
	maxInputs   = 64 << 10
)

// command returns the subcommand of the program, or "".
func command(r *runrecord.Record) string {
	_, command, _ := strings.Cut(r.Program, " ")
	return command
}

func program(r *runrecord.Record) string {
	name, _, _ := strings.Cut(r.Program, " ")
	return name
}

// title returns what the run did, or what failed.
func title(r *runrecord.Record) string {
	if r.Error != nil || r.ExitCode != 0 {
		return "❌ " + failedTitle(r)
	}
	switch command(r) {
	case "promote":
		return "✅ Promoted " + snapshotName(r)
	case "rollback":
		return "✅ Rolled back to " + snapshotName(r)
	}
	switch {
	case len(r.Snapshots) > 1:
		return fmt.Sprintf("✅ %s of one image", count(len(r.Snapshots), "snapshot"))
	case len(r.Snapshots) == 1 && r.Snapshots[0].Reused:
		return "✅ Reused snapshot " + snapshotName(r)
	case len(r.Snapshots) == 1:
		return "✅ Created snapshot " + snapshotName(r)
	case r.Tests != nil && r.Tests.Flaky > 0:
		return fmt.Sprintf("⚠️ %s passed, %s", count(r.Tests.Passed+r.Tests.Flaky, "test"), flaky(r.Tests.Flaky))
	case r.Tests != nil:
		return fmt.Sprintf("✅ %s passed", count(r.Tests.Passed, "test"))
	case r.Image != nil && r.Image.Existing:
		return "✅ Used " + code(imageName(r))
	case r.Image != nil:
		return "✅ Built " + code(imageName(r))
	}
	return "✅ " + code(r.Program)
}

func flaky(n int) string { return fmt.Sprintf("%d only when repeated", n) }

func failedTitle(r *runrecord.Record) string {
	e := cmp.Or(r.Error, &runrecord.Error{})
	switch {
	case e.Kind == runrecord.TimedOut:
		return "Timed out after " + humanize.Seconds(r.Seconds)
	case e.Kind == runrecord.Canceled:
		return "Canceled after " + humanize.Seconds(r.Seconds)
	case e.Input != "" && e.Kind == runrecord.InvalidInput:
		return "Invalid input " + code(e.Input)
	case e.Kind == runrecord.InvalidInput:
		return "Invalid input"
	case r.Tests != nil && r.Tests.Failed > 0:
		return fmt.Sprintf("%s of %s failed", digits(r.Tests.Failed), count(r.Tests.Total, "test"))
	case e.Kind == runrecord.BuildFailed:
		return "The build failed"
	case r.Tests != nil:
		return "The tests did not finish"
	}
	switch {
	case command(r) == "promote":
		return "The promotion failed"
	case command(r) == "rollback":
		return "The rollback failed"
	case program(r) == "action-build":
		return "The build failed"
	case program(r) == "action-test":
		return "The test failed"
	case program(r) == "action-snapshot":
		return "The snapshot failed"
	}
	return code(r.Program) + " failed"
}

func snapshotName(r *runrecord.Record) string {
	if len(r.Snapshots) == 0 {
		return "the snapshot"
	}
	return code(r.Snapshots[0].Name)
}

// imageName returns the name by which people know the image.
func imageName(r *runrecord.Record) string {
	for _, names := range [][]string{r.Image.Names, r.Image.Pushed} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return cmp.Or(r.Image.Ref, humanize.Digest(r.Image.Digest), "the image")
}

// headline returns the most important facts in one line.
func headline(r *runrecord.Record) string {
	var parts []string
	if r.Image != nil {
		if short := humanize.Digest(r.Image.Digest); short != "" {
			parts = append(parts, code(short))
		}
		parts = append(parts, imageSize(r))
		if r.Image.Total > 0 {
			parts = append(parts, fmt.Sprintf("%d of %s cached", r.Image.Cached, count(r.Image.Total, "step")))
		}
	}
	if r.Error == nil && len(r.Snapshots) == 1 {
		parts = append(parts, verified(r.Snapshots[0].Verified))
	}
	if r.Doppler != nil && len(r.Doppler.Written) > 0 {
		parts = append(parts, "named in "+count(len(r.Doppler.Written), "config"))
	}
	took := humanize.Seconds(r.Seconds)
	if r.Changes != nil && r.Changes.Seconds > 0 && r.Error == nil {
		took += " (before " + humanize.Seconds(r.Changes.Seconds) + ")"
	}
	return line(append(parts, took, commitLink(r))...)
}

// imageSize returns the size of the image of each platform, and the difference to the previous one.
func imageSize(r *runrecord.Record) string {
	var sizes []string
	for _, p := range r.Image.Platforms {
		text := humanize.Size(p.Size)
		if change, ok := changeOf(r, p.Platform); ok {
			text += fmt.Sprintf(" (%s)", humanize.SizeChange(change.Size))
		}
		if len(r.Image.Platforms) > 1 {
			text = code(p.Platform) + " " + text
		}
		sizes = append(sizes, text)
	}
	return strings.Join(sizes[:min(len(sizes), maxCodes)], ", ")
}

func changeOf(r *runrecord.Record, platform string) (runrecord.PlatformChange, bool) {
	if r.Changes != nil {
		for _, change := range r.Changes.Platforms {
			if change.Platform == platform {
				return change, true
			}
		}
	}
	return runrecord.PlatformChange{}, false
}

// repositoryURL returns the URL of a page of the run's repository, or "" outside GitHub Actions.
func repositoryURL(r *runrecord.Record, elements ...string) string {
	if r.Run == nil || r.Run.Repository == "" || r.Run.Server == "" {
		return ""
	}
	page := strings.TrimSuffix(r.Run.Server, "/")
	for _, element := range append([]string{r.Run.Repository}, elements...) {
		for part := range strings.SplitSeq(element, "/") {
			page += "/" + url.PathEscape(part)
		}
	}
	return page
}

// commitLink returns the commit that was built, as a link in GitHub Actions.
func commitLink(r *runrecord.Record) string {
	if r.Source == nil || r.Source.SHA == "" {
		return ""
	}
	commit := "commit " + link(code(humanize.Commit(r.Source.SHA)), repositoryURL(r, "commit", r.Source.SHA))
	if r.Source.Dirty {
		commit += " with uncommitted changes"
	}
	return commit
}

// place returns a position in a file of the repository, as a link to its lines in GitHub Actions.
func place(r *runrecord.Record, file string, first, last int) string {
	if file == "" {
		return ""
	}
	text := file
	if first > 0 {
		text = fmt.Sprintf("%s:%d", file, first)
	}
	clean := path.Clean(file)
	isInCommit := r.Source != nil && r.Source.SHA != "" && !r.Source.Dirty && clean != ".." &&
		!strings.HasPrefix(clean, "../") && !path.IsAbs(clean)
	if !isInCommit {
		return code(text)
	}
	target := repositoryURL(r, "blob", r.Source.SHA, clean)
	if target != "" && first > 0 {
		target += fmt.Sprintf("#L%d", first)
		if last > first {
			target += fmt.Sprintf("-L%d", last)
		}
	}
	return link(code(text), target)
}

// failure returns what failed, where, and the last output.
func failure(r *runrecord.Record) string {
	e := r.Error
	if e == nil {
		return ""
	}
	where := place(r, e.File, e.Line, e.EndLine)
	if e.Step != "" {
		where = line(where, "step "+prose(e.Step))
	}
	output := block("text", e.Output, maxOutput)
	if output != "" {
		output = join("Last output:", output)
	}
	language := "text"
	if r.Source != nil && e.File != "" && e.File == r.Source.Dockerfile {
		language = "dockerfile"
	}
	return join(messages(e.Message), where, block(language, e.Excerpt, maxExcerpt), output)
}

// messages returns an error's message, which has several lines if several inputs are invalid, as a quotation.
func messages(text string) string {
	var quoted strings.Builder
	for message := range strings.Lines(text) {
		if message = prose(message); message == "" {
			continue
		}
		if quoted.Len()+len(message) > maxMessages {
			quoted.WriteString("> …\n")
			break
		}
		if quoted.Len() > 0 {
			quoted.WriteString(">\n")
		}
		quoted.WriteString("> " + message + "\n")
	}
	return quoted.String()
}

func verified(how string) string {
	switch how {
	case "boot":
		return "verified: a sandbox of it started"
	case "suite":
		return "verified: the test suite passed in a sandbox"
	case "none":
		return "not verified"
	}
	return code(how)
}

func imageTable(r *runrecord.Record) string {
	i := r.Image
	if i == nil {
		return ""
	}
	build := ""
	if i.BuildURL != "" {
		build = link("open at Depot", i.BuildURL)
	}
	created := ""
	if i.Existing && !i.Created.IsZero() {
		created = i.Created.UTC().Format("2006-01-02 15:04 UTC")
		if age := r.Started.Sub(i.Created); age > 0 {
			created += fmt.Sprintf(" (%s before this run)", approximately(age))
		}
	}
	var platforms []string
	for _, p := range i.Platforms {
		platforms = append(platforms, p.Platform)
	}
	ref := ""
	if r.Source != nil {
		ref = code(r.Source.Ref)
	}
	return facts(
		[2]string{"Digest", code(i.Digest)},
		[2]string{"Reference", code(i.Ref)},
		[2]string{"Loaded as", codes(i.Names)},
		[2]string{"Pushed to", codes(i.Pushed)},
		[2]string{"Created", created},
		[2]string{"Platforms", codes(platforms)},
		[2]string{"Ref", ref},
		[2]string{"Depot build", build},
	)
}

// approximately returns a duration in its largest unit.
func approximately(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return count(int(d/(24*time.Hour)), "day")
	case d >= 2*time.Hour:
		return count(int(d/time.Hour), "hour")
	}
	return count(max(1, int(d/time.Minute)), "minute")
}

func snapshotTables(r *runrecord.Record) string {
	var named [][2]string
	if d := r.Doppler; d != nil {
		unchanged := codes(d.Unchanged)
		if unchanged != "" {
			unchanged += " (unchanged)"
		}
		configs := strings.TrimPrefix(strings.Join([]string{codes(d.Written), unchanged}, ", "), ", ")
		configs = strings.TrimSuffix(configs, ", ")
		if configs != "" {
			configs = code(d.Secret) + " of " + configs
		} else if d.Skipped != "" {
			configs = "no Doppler config: " + code(d.Skipped)
		}
		named = [][2]string{{"Named in", configs}, {"Before", code(d.Previous)}, {"Deleted", codes(d.Deleted)}}
	}
	if len(r.Snapshots) == 0 {
		return facts(named...)
	}
	first := r.Snapshots[0]
	if len(r.Snapshots) == 1 {
		size := ""
		if first.SizeGB > 0 {
			size = fmt.Sprintf("%.2f GB", first.SizeGB)
		}
		return facts(append([][2]string{
			{"Snapshot", code(first.Name)},
			{"State", code(first.State)},
			{"Verified", strings.TrimPrefix(verified(first.Verified), "verified: ")},
			{"Sandbox", resources(first)},
			{"Region", code(first.Region)},
			{"Starts", code(strings.Join(first.Entrypoint, " "))},
			{"Size", size},
			{"Life", states(first)},
		}, named...)...)
	}
	row := func(i int) []string {
		s, how := r.Snapshots[i], "created"
		if s.Reused {
			how = "reused"
		}
		return []string{
			code(s.Variant), code(s.Name), how, code(s.State), strings.TrimPrefix(verified(s.Verified), "verified: "),
			resources(s), code(s.Region),
		}
	}
	const header = "| variant | snapshot | | state | verified | sandbox | region |\n" +
		"| --- | --- | --- | --- | --- | --- | --- |\n"
	return join(table(header, len(r.Snapshots), row, maxVariants, "snapshot"), facts(named...))
}

// resources returns the size of a snapshot's sandboxes.
func resources(s runrecord.Snapshot) string {
	if s.CPU == 0 && s.MemoryGB == 0 && s.DiskGB == 0 {
		return ""
	}
	text := fmt.Sprintf("%s, %d GB memory, %d GB disk", count(s.CPU, "core"), s.MemoryGB, s.DiskGB)
	if s.GPU > 0 {
		text += fmt.Sprintf(", %d GPU", s.GPU)
	}
	if s.SandboxClass != "" {
		text += ", " + code(s.SandboxClass)
	}
	return text
}

// states returns the states that Daytona reported, and how long each lasted.
func states(s runrecord.Snapshot) string {
	var list []string
	for i, state := range s.States[:min(len(s.States), maxCodes)] {
		text := code(state.Name)
		if i+1 < len(s.States) {
			text += " " + humanize.Seconds(s.States[i+1].Offset-state.Offset)
		}
		list = append(list, text)
	}
	return strings.Join(list, " → ")
}

// changes returns what changed since the previous run.
func changes(r *runrecord.Record) string {
	c := r.Changes
	if c == nil || r.Image == nil {
		return ""
	}
	run := "the run of " + c.Since.UTC().Format("2006-01-02 15:04 UTC")
	since, with := run, ""
	if c.Run != "" {
		with = "Compared with " + link(run, repositoryURL(r, "actions", "runs", c.Run))
		if c.Branch != "" {
			with += " on " + code(c.Branch)
		}
		with += "."
	}
	if c.SHA != "" {
		since = "commit " + link(code(humanize.Commit(c.SHA)), repositoryURL(r, "commit", c.SHA))
		if r.Source != nil && r.Source.SHA != "" && r.Source.SHA != c.SHA {
			if compare := repositoryURL(r, "compare", c.SHA+"..."+r.Source.SHA); compare != "" {
				since += fmt.Sprintf(" (%s)", link("compare", compare))
			}
		}
	}
	var parts []string
	for _, p := range c.Platforms {
		parts = append(parts, platformChange(p, len(c.Platforms) > 1))
	}
	text := join(parts[:min(len(parts), maxPlatforms)]...)
	switch {
	case c.Digest == r.Image.Digest:
		text = "The image is the same."
	case text == "":
		text = "The sizes are the same."
	}
	return join("#### Changes since "+since, with, text)
}

// layers returns the layers of an image that is not compared with another one.
func layers(r *runrecord.Record) string {
	if r.Image == nil || r.Changes != nil {
		return ""
	}
	var parts []string
	for _, p := range r.Image.Platforms[:min(len(r.Image.Platforms), maxPlatforms)] {
		row := func(i int) []string {
			return []string{
				code(cmp.Or(p.Layers[i].CreatedBy, humanize.Digest(p.Layers[i].Digest))),
				humanize.Size(p.Layers[i].Size),
			}
		}
		const header = "| layer | size |\n| --- | ---: |\n"
		rows := table(header, len(p.Layers), row, maxLayers/maxPlatforms, "layer")
		if rows != "" && len(r.Image.Platforms) > 1 {
			rows = join(code(p.Platform)+":", rows)
		}
		parts = append(parts, details(fmt.Sprintf("Layers: %d, %s", len(p.Layers), humanize.Size(p.Size)), rows))
	}
	return join(parts...)
}

// maxPlatforms is the maximum number of platforms with their changes.
const maxPlatforms = 2

func platformChange(p runrecord.PlatformChange, isNamed bool) string {
	layers := slices.SortedStableFunc(slices.Values(p.Layers), func(a, b runrecord.LayerChange) int {
		return cmp.Compare(abs(b.After-b.Before), abs(a.After-a.Before))
	})
	row := func(i int) []string {
		l := layers[i]
		return []string{code(l.CreatedBy), sizeOf(l.Before, 1), sizeOf(l.After, 1), humanize.SizeChange(l.After - l.Before)}
	}
	const layerHeader = "| layer | before | now | difference |\n| --- | ---: | ---: | ---: |\n"
	unread := ""
	if p.Unread > 0 {
		unread = "Files and packages of " + count(p.Unread, "layer") + " are not compared (too large, or not readable).\n"
	}
	text := join(table(layerHeader, len(layers), row, maxLayers/maxPlatforms, "layer"), packages(p), files(p), unread)
	if isNamed && text != "" {
		return join(code(p.Platform)+":", text)
	}
	return text
}

func abs(n int64) int64 { return max(n, -n) }

// sizeOf returns a size, or "" below the smallest size that exists.
func sizeOf(bytes, smallest int64) string {
	if bytes < smallest {
		return ""
	}
	return humanize.Size(bytes)
}

func packages(p runrecord.PlatformChange) string {
	row := func(i int) []string {
		c := p.Packages[i]
		return []string{code(c.Name), code(c.Manager), code(c.Before), code(c.After)}
	}
	const header = "| package | manager | before | now |\n| --- | --- | --- | --- |\n"
	rows := table(header, len(p.Packages), row, maxPackages/maxPlatforms, "package")
	return details("Packages: "+packageNumbers(p), rows)
}

// packageNumbers returns how many packages changed.
func packageNumbers(p runrecord.PlatformChange) string {
	var added, removed, changed int
	for _, c := range p.Packages {
		switch {
		case c.Before == "":
			added++
		case c.After == "":
			removed++
		default:
			changed++
		}
	}
	return numbers(added, removed, changed)
}

func files(p runrecord.PlatformChange) string {
	var added, removed, changed int
	for _, f := range p.Files {
		switch {
		case f.Before < 0:
			added++
		case f.After < 0:
			removed++
		default:
			changed++
		}
	}
	title, note := "Files: ", ""
	if p.Omitted > 0 {
		title = "Files with the largest differences: "
		note = fmt.Sprintf("%s with smaller differences changed, too.\n", count(p.Omitted, "file"))
	}
	row := func(i int) []string {
		f := p.Files[i]
		return []string{
			code("/" + f.Path), sizeOf(f.Before, 0), sizeOf(f.After, 0), humanize.SizeChange(max(f.After, 0) - max(f.Before, 0)),
		}
	}
	const header = "| file | before | now | difference |\n| --- | ---: | ---: | ---: |\n"
	rows := table(header, len(p.Files), row, maxFiles/maxPlatforms, "file")
	return details(title+numbers(added, removed, changed), join(rows, note))
}

func numbers(added, removed, changed int) string {
	var parts []string
	for _, part := range []struct {
		n    int
		verb string
	}{{added, "added"}, {removed, "removed"}, {changed, "changed"}} {
		if part.n > 0 {
			parts = append(parts, digits(part.n)+" "+part.verb)
		}
	}
	return strings.Join(parts, ", ")
}

// cacheMiss returns the first step that was not cached, and why.
func cacheMiss(r *runrecord.Record) string {
	if r.Changes == nil || r.Changes.CacheBreak == nil {
		return ""
	}
	b := r.Changes.CacheBreak
	dockerfile := ""
	if r.Source != nil && b.Line > 0 {
		dockerfile = place(r, r.Source.Dockerfile, b.Line, 0)
	}
	var causes []string
	if b.Instruction {
		causes = append(causes, "the instruction changed")
	}
	if b.BaseImage {
		causes = append(causes, "the base image changed")
	}
	if len(b.Files) > 0 {
		cause := codes(b.Files)
		if b.MoreFiles > 0 {
			cause += fmt.Sprintf(" and %s", count(b.MoreFiles, "more file"))
		}
		causes = append(causes, cause+" changed")
	}
	if len(b.BuildArgs) > 0 {
		causes = append(causes, "build argument "+codes(b.BuildArgs)+" changed")
	}
	if len(b.Earlier) > 0 {
		causes = append(causes, "before it, "+codes(b.Earlier)+" changed")
	}
	why := "the cause is unknown"
	if len(causes) > 0 {
		why = strings.Join(causes, "; ")
	}
	return join("#### Cache", line("First step that was not cached: "+prose(b.Step), dockerfile, why))
}

func inputsTable(r *runrecord.Record) string {
	row := func(i int) []string {
		in, value := r.Inputs[i], "(secret)"
		if !in.Secret {
			var lines []string
			for line := range strings.Lines(in.Value) {
				if span := code(line); span != "" && len(lines) < maxCodes {
					lines = append(lines, span)
				}
			}
			value = strings.Join(lines, "<br>")
		}
		return []string{code(in.Name), value}
	}
	const header = "| input | value |\n| --- | --- |\n"
	rows := table(header, len(r.Inputs), row, maxInputs, "input")
	return details(fmt.Sprintf("Inputs: %d", len(r.Inputs)), rows)
}

// nextCommands returns commands that continue from the result.
func nextCommands(r *runrecord.Record) string {
	var lines []string
	switch {
	case r.Error != nil || r.ExitCode != 0:
		lines = repeatCommands(r)
	case len(r.Snapshots) > 0:
		for _, s := range r.Snapshots[:min(len(r.Snapshots), maxCommands)] {
			lines = append(lines, "daytona create --snapshot "+shellWord(s.Name))
		}
		switch command(r) {
		case "":
			if len(r.Snapshots) == 1 {
				lines = append(lines, "action-snapshot promote "+shellWord(r.Snapshots[0].Name)+" --to CONFIG")
			}
		case "promote":
			lines = append(lines, "action-snapshot rollback")
		}
	case r.Image != nil && len(r.Image.Names) > 0:
		lines = append(lines, "docker run --rm -it "+shellWord(r.Image.Names[0]))
	case r.Image != nil && len(r.Image.Pushed) > 0 && r.Image.Ref != "":
		lines = append(lines, "docker run --rm -it "+shellWord(r.Image.Ref))
	}
	text := block("sh", strings.Join(lines, "\n"), maxCommandBytes)
	if text == "" {
		return ""
	}
	return join("#### Next", text)
}

// Limits of the commands of a summary.
const (
	maxCommands     = 10
	maxCommandBytes = 16 << 10
)

// repeatCommands returns commands that examine or repeat a failed run.
func repeatCommands(r *runrecord.Record) (lines []string) {
	if r.Error != nil && r.Error.Kind == runrecord.InvalidInput {
		return nil // the workflow must change first
	}
	if t := r.Tests; t != nil && t.Failed > 0 && t.Seed != "" && t.Seed != "0" {
		lines = append(lines, "action-test --seed "+shellWord(t.Seed)+"  # repeats the order of the tests")
	}
	if r.Run != nil && r.Run.ID != "" {
		run := shellWord(r.Run.ID) + " -R " + shellWord(r.Run.Repository)
		lines = append(lines, "gh run view --log-failed "+run, "gh run rerun --failed "+run)
	}
	return lines
}
