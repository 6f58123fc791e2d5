package actions

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// maxChartSteps is the maximum number of steps in a summary's chart.
const maxChartSteps = 8

// buildSummary returns the Markdown summary of a build. DOCKER_BUILD_SUMMARY=false turns it off, as in
// docker/build-push-action.
func buildSummary(job job, built builtImage, outputs BuildOutputs) string {
	if isOff(job, "DOCKER_BUILD_SUMMARY") {
		return ""
	}
	t := newTable("Image built")
	t.row("Digest", code(outputs.Digest))
	t.row("Reference", code(outputs.ImageRef))
	t.row("Platforms", code(outputs.Platforms))
	commit := outputs.GitSHA
	if built.Source.Tree.Dirty {
		commit += "-dirty"
	}
	t.row("Commit", code(strings.TrimSpace(commit+" "+outputs.GitRef)))
	if outputs.TotalSteps > 0 {
		t.row("Cached", fmt.Sprintf("%d of %d steps", outputs.CachedSteps, outputs.TotalSteps))
	}
	t.row("Size", compressedSizes(built.Results))
	t.row("Time", elapsed(job))
	t.row("Depot build", link(outputs.BuildID, outputs.BuildURL))
	return t.String() + stepChart(built.Stats.Steps)
}

// reportFailure writes the last lines of the failed step's output and the lines of the Dockerfile to the summary.
func reportFailure(job job, err error) {
	position, ok := positionOf(err)
	if !ok {
		return
	}
	output, step := "", ""
	if failed := (*image.BuildError)(nil); errors.As(err, &failed) {
		output, step = strings.Join(failed.Output, "\n"), safetext.Line(failed.Step, 100)
	}
	if isOff(job, "DOCKER_BUILD_SUMMARY") {
		return
	}
	summary := "### Build failed\n\n" + codeBlock(err.Error()) + codeBlock(position.Excerpt)
	if output != "" {
		summary += "Last output of " + code(step) + ":\n\n" + codeBlock(output)
	}
	if err := job.Runner.Summary(summary); err != nil {
		job.Runner.Infof("Writing the summary failed: %v", err)
	}
}

// isOff reports whether an environment variable is set to false, or another form of it.
func isOff(job job, variable string) bool {
	on, err := strconv.ParseBool(job.Getenv(variable))
	return err == nil && !on
}

func elapsed(job job) string { return time.Since(job.Started).Round(100 * time.Millisecond).String() }

// compressedSizes returns the size of each image in a registry: its config and its compressed layers.
func compressedSizes(results []*image.Result) string {
	var sizes []string
	for _, r := range results {
		manifest, err := r.Image.Manifest()
		if err != nil {
			return ""
		}
		total := manifest.Config.Size
		for _, layer := range manifest.Layers {
			total += layer.Size
		}
		size := units.HumanSize(float64(total)) + " compressed"
		if len(results) > 1 {
			size = r.Platform + ": " + size
		}
		sizes = append(sizes, size)
	}
	return strings.Join(sizes, ", ")
}

// stepChart returns a Mermaid chart of the slowest steps: when each started, and how long it took.
func stepChart(all []image.Step) string {
	steps := slices.DeleteFunc(slices.Clone(all), func(s image.Step) bool {
		return s.Cached || s.Duration < 100*time.Millisecond
	})
	slices.SortStableFunc(steps, func(a, b image.Step) int { return int(b.Duration - a.Duration) })
	steps = steps[:min(maxChartSteps, len(steps))]
	if len(steps) == 0 {
		return ""
	}
	slices.SortStableFunc(steps, func(a, b image.Step) int { return a.Started.Compare(b.Started) })
	first := steps[0].Started
	var s strings.Builder
	s.WriteString("\n```mermaid\ngantt\n  title Slowest steps\n  dateFormat x\n  axisFormat %M:%S\n")
	for _, step := range steps {
		start := step.Started.Sub(first).Milliseconds()
		fmt.Fprintf(&s, "  %s (%s) :%d, %d\n",
			chartName(step.Name), step.Duration.Round(100*time.Millisecond), start, start+step.Duration.Milliseconds())
	}
	s.WriteString("```\n")
	return s.String()
}

// chartName removes characters with a meaning in Mermaid or Markdown from a step's name and shortens it.
func chartName(name string) string {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./_-="
	name = strings.Map(func(c rune) rune {
		if strings.ContainsRune(allowed, c) {
			return c
		}
		return ' '
	}, name)
	name = strings.Join(strings.Fields(name), " ")
	if len(name) > 60 {
		name = name[:57] + "..."
	}
	return name
}

// table is a Markdown table of names and values.
type table struct{ text strings.Builder }

func newTable(title string) *table {
	t := &table{}
	fmt.Fprintf(&t.text, "### %s\n\n| | |\n| --- | --- |\n", title)
	return t
}

// row adds a row, unless the value is empty.
func (t *table) row(name, value string) {
	if value != "" {
		fmt.Fprintf(&t.text, "| %s | %s |\n", name, value)
	}
}

func (t *table) String() string { return t.text.String() }

// code returns value as inline code for a Markdown table cell.
func code(value string) string {
	if value == "" {
		return ""
	}
	return "`" + strings.NewReplacer("`", "'", "|", "\\|", "\n", " ").Replace(value) + "`"
}

// codeBlock returns text as a Markdown code block, or "" without text. Its fence is longer than every one in the text.
func codeBlock(text string) string {
	if text == "" {
		return ""
	}
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fmt.Sprintf("%s\n%s\n%s\n\n", fence, strings.TrimRight(text, "\n"), fence)
}

// link returns a Markdown link for a table cell. It is empty unless url is an HTTP or HTTPS URL.
func link(text, url string) string {
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return ""
	}
	escape := strings.NewReplacer("(", "%28", ")", "%29", "|", "%7C", " ", "%20")
	return fmt.Sprintf("[%s](%s)", text, escape.Replace(url))
}
