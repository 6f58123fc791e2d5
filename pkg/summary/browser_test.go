package summary

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/org/sandbox-actions/internal/browser"
	"github.com/org/sandbox-actions/internal/githubpage"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// GitHub's page shows each summary, light and dark: Mermaid draws every label and distinct ticks, and nothing is wider
// than the page.
func TestPages(t *testing.T) {
	var markdown []string
	var labels []string
	runs := records()
	strange := firstBuild()
	for i, text := range hostile {
		step := runrecord.Step{Name: text, Stage: text, Offset: float64(i) * 3, Seconds: 2}
		strange.Steps = append(strange.Steps, step)
	}
	runs["hostile"] = strange
	for _, r := range runs {
		markdown = append(markdown, Markdown(r), Comment(r))
		for _, t := range slices.Concat(slowest(phaseTasks(r)), slowest(stepTasks(r))) {
			labels = append(labels, t.label)
			labels = append(labels, t.section)
		}
	}
	text := strings.Join(markdown, "\n\n")
	page, err := githubpage.Page([]byte(text), 980, filepath.Join("..", "..", ".cache", "githubpage"))
	if err != nil {
		t.Fatal(err)
	}
	chromium := browser.Start(t)
	for _, view := range []browser.View{{Width: 980}, {Width: 980, Dark: true}} {
		p := chromium.OpenHTML(t, page, view)
		p.Do(chromedp.WaitReady("body[data-ready]"))
		if got, want := browser.Run(p, chromedp.Evaluate[int](`document.querySelectorAll('.mermaid > svg').length`)),
			strings.Count(text, "```mermaid\n"); got != want {
			t.Errorf("%d of %d diagrams are drawn", got, want)
		}
		if browser.Run(p, chromedp.Evaluate[bool](`document.querySelector('.error-icon') !== null`)) {
			t.Error("a diagram has an error")
		}
		drawn := browser.Run(p, chromedp.Evaluate[[]string](
			`[...document.querySelectorAll('.mermaid text')].map(e => e.textContent.trim())`))
		for _, label := range labels {
			if !slices.Contains(drawn, label) {
				t.Errorf("no diagram has the label %q", label)
			}
		}
		for i, ticks := range browser.Run(p, chromedp.Evaluate[[][]string](`[...document.querySelectorAll('.mermaid svg')].map(
			svg => [...svg.querySelectorAll('.tick text')].map(e => e.textContent))`)) {
			if slices.Sort(ticks); len(ticks) < 2 || len(slices.Compact(slices.Clone(ticks))) != len(ticks) || ticks[0] == "" {
				t.Errorf("diagram %d has the ticks %q", i, ticks)
			}
		}
		wide := browser.Run(p, chromedp.Evaluate[[]string](`(() => {
			document.querySelectorAll('details').forEach(d => { d.open = true })
			return [document.documentElement, ...document.querySelectorAll('.markdown-body, .mermaid, table')].filter(
				e => e.scrollWidth > e.clientWidth + 1).map(e => e.tagName + ': ' + e.textContent.slice(0, 200))
		})()`))
		for _, text := range wide {
			t.Errorf("wider than the page: %s", text)
		}
		outside := browser.Run(p, chromedp.Evaluate[[]string](`[...document.querySelectorAll('.mermaid svg')].flatMap(svg => {
			const box = svg.getBoundingClientRect()
			return [...svg.querySelectorAll('text')].filter(e => {
				const own = e.getBoundingClientRect()
				return own.width > 0 && (own.left < box.left - 1 || own.right > box.right + 1)
			}).map(e => e.textContent)
		})`))
		for _, text := range outside {
			t.Errorf("the label %q is cut off", text)
		}
	}
}
