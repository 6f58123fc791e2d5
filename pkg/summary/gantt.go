package summary

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Limits of the timeline. Mermaid refuses diagrams of more than 50,000 characters (maxTextSize).
const (
	maxTasks   = 30  // phases, and steps
	minTask    = 0.1 // seconds
	maxLabel   = 56  // characters of a task
	maxSection = 24  // characters of a section
)

// task is a bar of the timeline.
type task struct {
	section, label string
	start, seconds float64
	failed         bool
}

// timeline returns a Mermaid chart of the run's phases and of the slowest steps of each stage.
func timeline(r *runrecord.Record) string {
	phases, steps := phaseTasks(r), stepTasks(r)
	shown := join(chart(slices.Concat(slowest(phases), slowest(steps))))
	if shown == "" {
		return ""
	}
	return join("#### Timeline", shown, omittedTasks(r, len(steps)))
}

// omittedTasks says which steps the timeline does not show.
func omittedTasks(r *runrecord.Record, tasks int) string {
	cached, fast := 0, max(0, tasks-maxTasks)
	for _, step := range r.Steps {
		if step.Cached {
			cached++
		} else if step.Seconds < minTask && step.Error == "" {
			fast++
		}
	}
	var omitted []string
	if cached > 0 {
		omitted = append(omitted, count(cached, "cached step"))
	}
	if fast > 0 {
		omitted = append(omitted, count(fast, "shorter step"))
	}
	if len(omitted) == 0 {
		return ""
	}
	return "Not shown: " + strings.Join(omitted, ", ") + "."
}

func phaseTasks(r *runrecord.Record) (tasks []task) {
	for _, phase := range r.Phases {
		if phase.Seconds < minTask && !phase.Failed {
			continue
		}
		note := humanize.Seconds(phase.Seconds)
		if phase.Bytes > 0 {
			note += ", " + humanize.Size(phase.Bytes)
		}
		tasks = append(tasks, task{"Run", label(phase.Name, note), phase.Offset, phase.Seconds, phase.Failed})
	}
	return tasks
}

func stepTasks(r *runrecord.Record) (tasks []task) {
	for _, step := range r.Steps {
		if step.Cached || step.Seconds < minTask && step.Error == "" || step.Offset == 0 && step.Seconds == 0 {
			continue
		}
		section := cmp.Or(safetext.Line(step.Platform+" "+step.Stage, maxSection), "Build")
		text := label(step.Name, humanize.Seconds(step.Seconds))
		tasks = append(tasks, task{section, text, step.Offset, step.Seconds, step.Error != ""})
	}
	return tasks
}

// label returns a task's text: its name, shortened, and a note.
func label(name, note string) string {
	return fmt.Sprintf("%s (%s)", safetext.Line(name, maxLabel-utf8.RuneCountInString(note)-3), note)
}

// slowest returns the failed and the slowest tasks, in the order of tasks.
func slowest(tasks []task) []task {
	indexes := make([]int, len(tasks))
	for i := range tasks {
		indexes[i] = i
	}
	slices.SortStableFunc(indexes, func(a, b int) int {
		if tasks[a].failed != tasks[b].failed {
			return cmp.Compare(boolRank(tasks[b].failed), boolRank(tasks[a].failed))
		}
		return cmp.Compare(tasks[b].seconds, tasks[a].seconds)
	})
	indexes = indexes[:min(len(indexes), maxTasks)]
	slices.Sort(indexes)
	kept := make([]task, len(indexes))
	for i, index := range indexes {
		kept[i] = tasks[index]
	}
	return kept
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// chart returns a Gantt chart as a code block of Mermaid, or "" without tasks. Times are those of a day without a
// change of the clocks, because Mermaid shows them in the time zone of the reader.
func chart(tasks []task) string {
	if len(tasks) == 0 {
		return ""
	}
	first, last := tasks[0].start, 0.0
	var sections []string // in the order of their first task
	for _, t := range tasks {
		first, last = min(first, t.start), max(last, t.start+t.seconds)
		if !slices.Contains(sections, t.section) {
			sections = append(sections, t.section)
		}
	}
	longest := 0
	for _, section := range sections {
		longest = max(longest, utf8.RuneCountInString(section))
	}
	var s strings.Builder
	// The left padding has the sections' names, of which a character is about 7 pixels wide.
	fmt.Fprintf(
		&s,
		"```mermaid\n%%%%{init: {\"gantt\": {\"leftPadding\": %d, \"rightPadding\": 20, \"barHeight\": 18}}}%%%%\n",
		max(60, 20+7*longest),
	)
	interval, format := axis(last-first, last)
	fmt.Fprintf(&s, "gantt\n  dateFormat YYYY-MM-DD HH:mm:ss.SSS\n  axisFormat %s\n  tickInterval %s\n  todayMarker off\n",
		format, interval)
	for _, section := range sections {
		fmt.Fprintf(&s, "  section %s\n", entities(section))
		for _, t := range tasks {
			if t.section != section {
				continue
			}
			tag := ""
			if t.failed {
				tag = "crit, "
			}
			// A bar of no length has no place for Mermaid to draw.
			fmt.Fprintf(&s, "  %s :%s%s, %s\n", entities(t.label), tag, clock(t.start), clock(t.start+max(t.seconds, 0.001)))
		}
	}
	s.WriteString("```\n")
	return s.String()
}

// clock returns a time after the start of the run in the chart's dateFormat.
func clock(s float64) string {
	day := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	return day.Add(time.Duration(s * float64(time.Second))).Format("2006-01-02 15:04:05.000")
}

// axis returns the interval of the chart's ticks, of which there are at most ten, and their format, which differs from
// tick to tick. The intervals divide their unit, because Mermaid counts from the start of the unit.
func axis(duration, last float64) (interval, format string) {
	format = "%M:%S"
	if last >= 3600 {
		format = "%H:%M"
	}
	for _, choice := range []struct {
		seconds  float64
		interval string
	}{
		{0.05, "50millisecond"}, {0.1, "100millisecond"}, {0.2, "200millisecond"}, {0.5, "500millisecond"},
		{1, "1second"}, {2, "2second"}, {5, "5second"}, {10, "10second"}, {15, "15second"}, {30, "30second"},
		{60, "1minute"}, {120, "2minute"}, {300, "5minute"}, {600, "10minute"}, {900, "15minute"}, {1800, "30minute"},
		{3600, "1hour"},
	} {
		if duration > 10*choice.seconds {
			continue
		}
		switch {
		case choice.seconds < 1:
			format = "%M:%S.%L"
		case choice.seconds < 60:
			format = "%M:%S"
		}
		return choice.interval, format
	}
	return "3hour", "%d %H:%M"
}

// entities returns text for a label of Mermaid. Entities such as #58; replace the characters with a meaning in
// Mermaid's grammar, in its directives or in Markdown, and those that Mermaid uses internally for entities
// (encodeEntities in packages/mermaid/src/utils.ts of mermaid-js/mermaid, v11). They always replace the first
// character, because Mermaid does not take a keyword, a date or a number at the start of a label as text.
func entities(text string) string {
	const special = ":;#%<>&\"'`{}\\ﬂ°¶ß"
	var s strings.Builder
	for i, c := range text {
		if i == 0 || strings.ContainsRune(special, c) {
			fmt.Fprintf(&s, "#%d;", c)
		} else {
			s.WriteRune(c)
		}
	}
	return s.String()
}
