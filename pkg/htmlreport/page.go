package htmlreport

import (
	"cmp"
	"fmt"
	"html/template"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// The limits of a page. A page at all limits has about 30 MB.
const (
	maxLogs     = 8 << 20 // bytes of the logs of all steps
	maxText     = 64 << 10
	maxSteps    = 10_000
	maxTests    = 10_000
	maxPackages = 5_000
	maxChanges  = 1_000
	maxNodes    = 5_000 // of the treemap of a platform
	maxLargest  = 20    // files of a layer in a table
)

// page is what the template shows.
type page struct {
	*runrecord.Record
	Policy   string
	Style    template.HTML
	Script   template.HTML
	Failed   bool
	Status   string // succeeded or failed
	Subject  string // what the run is about: an image, a snapshot, a file
	Facts    []fact
	Commit   link
	Workflow link
	Compared link // the previous run
	Excerpt  []excerptLine
	ErrorAt  link
	Steps    []step
	Images   []image
	Cut      cuts
	Data     chartData
}

// cuts are the numbers of list entries that the page omits.
type cuts struct{ Steps, Tests int }

// fact is a value in the first lines of the page.
type fact struct{ Name, Value, Note, Class string }

type link struct{ Text, URL string }

type excerptLine struct {
	Text   string
	Marked bool
}

// step is a row of the table of steps.
type step struct {
	runrecord.Step
	ID          int
	Status      string // done, cached, failed or not started
	Left, Width string // of the bar, in percent
	At          link   // the line of the Dockerfile
	Omitted     string // the size of the part of the log that the page omits; "" if it has the whole log
}

// image is the content of an image of one platform.
type image struct {
	runrecord.PlatformImage
	ID       int
	Layers   []layer
	Managers string // number of packages for each manager
	Packages []runrecord.Package
	Omitted  int // packages that the page omits
}

type layer struct {
	runrecord.Layer
	Share   string // of the largest layer, in percent
	Largest []runrecord.File
}

// chartData is what the script reads.
type chartData struct {
	Seconds float64     `json:"seconds"`
	Bars    []bar       `json:"bars"`
	Images  []treeImage `json:"images"`
}

// bar is a bar of the timeline.
type bar struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"` // phase, state or step
	Status string  `json:"status"`
	Start  float64 `json:"start"`
	End    float64 `json:"end"`
	Note   string  `json:"note,omitempty"`
	Step   *int    `json:"step,omitempty"` // ID of the row with the log
}

func newPage(r *runrecord.Record) *page {
	p := &page{
		Record:  r,
		Policy:  policy(),
		Style:   template.HTML("<style>" + style + "</style>"),
		Script:  template.HTML("<script>" + script + "</script>"),
		Failed:  r.ExitCode != 0 || r.Error != nil,
		Status:  "succeeded",
		Subject: subject(r),
		Facts:   facts(r),
	}
	if p.Failed {
		p.Status = "failed"
	}
	if s := r.Source; s != nil && s.SHA != "" {
		p.Commit = link{humanize.Commit(s.SHA), repositoryURL(r, "commit", s.SHA)}
	}
	if c := r.Changes; c != nil {
		p.Compared.Text = "run of " + c.Since.UTC().Format("2006-01-02 15:04 UTC")
		if c.Run != "" {
			p.Compared.URL = repositoryURL(r, "actions", "runs", c.Run)
		}
	}
	if run := r.Run; run != nil {
		p.Workflow = link{run.Repository + " #" + run.ID, repositoryURL(r, "actions", "runs", run.ID)}
		if attempt, err := strconv.Atoi(run.Attempt); err == nil && attempt > 1 {
			p.Workflow.Text += fmt.Sprintf(", attempt %d", attempt)
			p.Workflow.URL += fmt.Sprintf("/attempts/%d", attempt)
		}
	}
	if e := r.Error; e != nil {
		p.Excerpt = excerpt(e)
		p.ErrorAt = fileLink(r, e.File, e.Line)
	}
	p.Steps, p.Cut.Steps = steps(r)
	if r.Tests != nil {
		p.Cut.Tests = max(0, len(r.Tests.Tests)-maxTests)
	}
	if r.Image != nil {
		for i, platform := range r.Image.Platforms {
			p.Images = append(p.Images, newImage(i, platform))
			p.Data.Images = append(p.Data.Images, tree(platform))
		}
	}
	p.Data.Seconds, p.Data.Bars = r.Seconds, bars(r, p.Steps)
	return p
}

// Rows are the tests in the page: failed ones first, so that a limit omits others.
func (p *page) Rows() []runrecord.Test {
	rank := map[string]int{"failed": 0, "flaky": 1, "passed": 3}
	rows := slices.Clone(p.Tests.Tests)
	slices.SortStableFunc(rows, func(a, b runrecord.Test) int {
		rankOf := func(t runrecord.Test) int {
			if n, ok := rank[t.Status]; ok {
				return n
			}
			return 2
		}
		return cmp.Compare(rankOf(a), rankOf(b))
	})
	return rows[:min(len(rows), maxTests)]
}

// subject returns what the run is about.
func subject(r *runrecord.Record) string {
	if len(r.Snapshots) > 0 {
		return r.Snapshots[0].Name
	}
	if i := r.Image; i != nil {
		for _, names := range [][]string{i.Names, i.Pushed, {i.Ref, i.Digest}} {
			if len(names) > 0 && names[0] != "" {
				return names[0]
			}
		}
	}
	if r.Source != nil && r.Source.Dockerfile != "" {
		return r.Source.Dockerfile
	}
	return r.Program
}

func facts(r *runrecord.Record) []fact {
	f := []fact{{Name: "Duration", Value: humanize.Seconds(r.Seconds)}}
	if r.Changes != nil && r.Changes.Seconds > 0 {
		f[0].Note = "previously " + humanize.Seconds(r.Changes.Seconds)
	}
	for _, p := range r.Phases {
		if p.Failed {
			f = append(f, fact{Name: "Failed phase", Value: p.Name, Class: "failed"})
			break
		}
	}
	if i := r.Image; i != nil {
		for n, platform := range i.Platforms {
			size := fact{Name: "Compressed size", Value: humanize.Size(platform.Size)}
			if len(i.Platforms) > 1 {
				size.Name = platform.Platform
			}
			if r.Changes != nil && n < len(r.Changes.Platforms) && r.Changes.Platforms[n].Platform == platform.Platform {
				size.Note = humanize.SizeChange(r.Changes.Platforms[n].Size)
			}
			f = append(f, size)
		}
		if i.Total > 0 {
			f = append(f, fact{Name: "Cached steps", Value: fmt.Sprintf("%d of %d", i.Cached, i.Total)})
		}
	}
	if t := r.Tests; t != nil {
		passed := fact{Name: "Tests", Value: fmt.Sprintf("%d of %d passed", t.Passed, t.Total), Note: testNote(t)}
		if t.Failed > 0 {
			passed.Class = "failed"
		}
		f = append(f, passed)
	}
	for _, s := range r.Snapshots {
		snapshot := fact{Name: "Snapshot", Value: s.State}
		if s.Variant != "" {
			snapshot.Name = s.Variant
		}
		if s.Verified != "" && s.Verified != "none" {
			snapshot.Note = "verified: " + s.Verified
		}
		f = append(f, snapshot)
	}
	return f
}

func testNote(t *runrecord.Tests) string {
	var notes []string
	for _, n := range []struct {
		name  string
		count int
	}{{"failed", t.Failed}, {"flaky", t.Flaky}, {"skipped", t.Skipped}} {
		if n.count > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", n.count, n.name))
		}
	}
	return strings.Join(notes, ", ")
}

func steps(r *runrecord.Record) (rows []step, omitted int) {
	omitted = max(0, len(r.Steps)-maxSteps)
	logs := 0
	for _, s := range r.Steps[omitted:] {
		if s.Log != "" && s.Error == "" {
			logs++
		}
	}
	limit := min(maxText, maxLogs/max(1, logs))
	for i, s := range r.Steps[omitted:] { // the end has the step that failed
		row := step{Step: s, ID: i, Status: stepStatus(s)}
		if s.Line > 0 {
			row.At = fileLink(r, dockerfile(r), s.Line)
		}
		left := percent(s.Offset, r.Seconds)
		row.Left = fmt.Sprintf("%.2f", left)
		row.Width = fmt.Sprintf("%.2f", min(100-left, percent(s.Seconds, r.Seconds)))
		if s.Error != "" {
			row.Log, row.Omitted = end(s.Log, maxText)
		} else {
			row.Log, row.Omitted = end(s.Log, limit)
		}
		rows = append(rows, row)
	}
	return rows, omitted
}

func stepStatus(s runrecord.Step) string {
	switch {
	case s.Error != "":
		return "failed"
	case s.Cached:
		return "cached"
	case s.Offset == 0 && s.Seconds == 0:
		return "not started"
	}
	return "done"
}

func dockerfile(r *runrecord.Record) string {
	if r.Source == nil {
		return ""
	}
	return r.Source.Dockerfile
}

func bars(r *runrecord.Record, steps []step) []bar {
	var all []bar
	add := func(b bar, seconds float64) {
		b.Start, b.End = max(0, b.Start), max(0, b.Start)+max(0, seconds)
		all = append(all, b)
	}
	for _, p := range r.Phases {
		status := "done"
		if p.Failed {
			status = "failed"
		}
		b := bar{Name: p.Name, Kind: "phase", Status: status, Start: p.Offset}
		if p.Bytes > 0 {
			b.Note = humanize.Size(p.Bytes)
			if p.Seconds > 0 {
				b.Note += ", " + humanize.Size(int64(float64(p.Bytes)/p.Seconds)) + "/s"
			}
		}
		add(b, p.Seconds)
	}
	for _, s := range steps {
		if s.Status != "not started" {
			add(bar{Name: s.Name, Kind: "step", Status: s.Status, Start: s.Offset, Note: s.Platform, Step: &s.ID}, s.Seconds)
		}
	}
	for _, s := range r.Snapshots {
		for _, life := range lives(s) {
			if life.Seconds > 0 {
				add(bar{Name: s.Name + ": " + life.Name, Kind: "state", Status: "done", Start: life.Offset}, life.Seconds)
			}
		}
	}
	return all
}

// life is a state of a snapshot and how long it lasted.
type life struct {
	runrecord.State
	Seconds float64 // 0 for the last state
	Share   string  // of the time until the last state, for a bar
}

// lives returns the states of a snapshot with their durations.
func lives(s runrecord.Snapshot) []life {
	states := make([]life, len(s.States))
	for i, state := range s.States {
		states[i].State = state
		if i+1 < len(s.States) {
			states[i].Seconds = max(0, s.States[i+1].Offset-state.Offset)
		}
	}
	for i := range states {
		total := s.States[len(s.States)-1].Offset - s.States[0].Offset
		states[i].Share = fmt.Sprintf("%.2f", percent(states[i].Seconds, total))
	}
	return states
}

// Lives is [lives] for the template.
func (p *page) Lives(s runrecord.Snapshot) []life { return lives(s) }

func newImage(id int, p runrecord.PlatformImage) image {
	i := image{PlatformImage: p, ID: id}
	largest := int64(1)
	for _, l := range p.Layers {
		largest = max(largest, l.Size)
	}
	for _, l := range p.Layers {
		files := slices.Clone(l.Files)
		slices.SortStableFunc(files, func(a, b runrecord.File) int { return cmp.Compare(b.Size, a.Size) })
		i.Layers = append(i.Layers, layer{
			Layer: l, Share: fmt.Sprintf("%.2f", percent(float64(l.Size), float64(largest))),
			Largest: files[:min(len(files), maxLargest)],
		})
	}
	var managers []string
	for start := 0; start < len(p.Packages); {
		end := start
		for end < len(p.Packages) && p.Packages[end].Manager == p.Packages[start].Manager {
			end++
		}
		managers = append(managers, fmt.Sprintf("%d %s", end-start, p.Packages[start].Manager))
		start = end
	}
	i.Managers = strings.Join(managers, ", ")
	i.Packages = p.Packages[:min(len(p.Packages), maxPackages)]
	i.Omitted = len(p.Packages) - len(i.Packages)
	return i
}

var lineNumber = regexp.MustCompile(`^\D{0,8}(\d{1,9})\b`)

// excerpt marks the lines of the error.
func excerpt(e *runrecord.Error) []excerptLine {
	if e.Excerpt == "" {
		return nil
	}
	var lines []excerptLine
	for text := range strings.SplitSeq(strings.TrimRight(cut(e.Excerpt), "\n"), "\n") {
		line := excerptLine{Text: text}
		if match := lineNumber.FindStringSubmatch(text); match != nil {
			n, _ := strconv.Atoi(match[1])
			line.Marked = e.Line <= n && n <= max(e.Line, e.EndLine)
		}
		lines = append(lines, line)
	}
	return lines
}

// fileLink links to a line of a file at the commit of the run. It has no URL outside GitHub Actions.
func fileLink(r *runrecord.Record, file string, line int) link {
	if file == "" || line <= 0 {
		return link{Text: file}
	}
	l := link{Text: file + ":" + strconv.Itoa(line)}
	if r.Source != nil && r.Source.SHA != "" {
		if l.URL = repositoryURL(r, append([]string{"blob", r.Source.SHA}, strings.Split(file, "/")...)...); l.URL != "" {
			l.URL += "#L" + strconv.Itoa(line)
		}
	}
	return l
}

// repositoryURL returns a URL in the run's repository, or "" outside GitHub Actions.
func repositoryURL(r *runrecord.Record, path ...string) string {
	if r.Run == nil {
		return ""
	}
	server, err := url.Parse(r.Run.Server)
	if err != nil || server.Scheme != "https" && server.Scheme != "http" {
		return ""
	}
	for i := range path {
		path[i] = url.PathEscape(path[i])
	}
	return server.String() + "/" + r.Run.Repository + "/" + strings.Join(path, "/")
}

// percent returns part of total in percent, from 0 to 100.
func percent(part, total float64) float64 {
	if !(total > 0) {
		return 0
	}
	return min(100, max(0, 100*part/total))
}

// cut returns the beginning of a text that is too long for the page.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	i := maxText
	for i > 0 && !utf8.RuneStart(s[i]) {
		i--
	}
	return s[:i] + "…"
}

// end returns the last bytes of a log, from the start of a line, and the size of the rest.
func end(log string, limit int) (text, omitted string) {
	if len(log) <= limit {
		return log, ""
	}
	start := len(log) - limit
	if newline := strings.IndexByte(log[start:], '\n'); newline >= 0 && newline+1 < limit {
		start += newline + 1
	}
	for start < len(log) && !utf8.RuneStart(log[start]) {
		start++
	}
	return log[start:], humanize.Size(int64(start))
}

// count formats a number of things: 1 file, 2 files.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// FileLink is [fileLink] for the template.
func (p *page) FileLink(file string, line int) link { return fileLink(p.Record, file, line) }

// Difference returns how much a file or a layer grew. Sizes below 0 are those of files that do not exist.
func (p *page) Difference(after, before int64) int64 { return max(0, after) - max(0, before) }

// FirstPackages returns the changed packages in the page.
func (p *page) FirstPackages(all []runrecord.PackageChange) []runrecord.PackageChange {
	return all[:min(len(all), maxChanges)]
}

// FirstFiles returns the changed files in the page.
func (p *page) FirstFiles(all []runrecord.FileChange) []runrecord.FileChange {
	return all[:min(len(all), maxChanges)]
}

// More returns how many of n changes the page omits.
func (p *page) More(n int) int { return max(0, n-maxChanges) }

// MoreFiles returns how many changed files the page omits.
func (p *page) MoreFiles(c runrecord.PlatformChange) int { return c.Omitted + p.More(len(c.Files)) }
