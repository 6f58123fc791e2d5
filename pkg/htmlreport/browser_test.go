package htmlreport

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/org/sandbox-actions/internal/browser"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

var screenshots = flag.String("screenshots", "", "directory to which TestScreenshots writes")

// The pages of all records open without an error and load nothing, also if texts are hostile.
func TestOpen(t *testing.T) {
	b := browser.Start(t)
	for name, record := range map[string]*runrecord.Record{
		"empty": {}, "built": builtRecord(), "failed": failedRecord(), "snapshot": snapshotRecord(),
		"hostile": hostileRecord(),
	} {
		t.Run(name, func(t *testing.T) {
			p := b.OpenHTML(t, render(t, record), browser.View{})
			if title := browser.Run(p, chromedp.Title()); title == "hacked" {
				t.Error("text of the record ran as a script")
			}
			if record.Phases == nil {
				return
			}
			// The charts have names as text, not as elements.
			p.Do(chromedp.WaitVisible(chromedp.CSS("#timeline-chart svg text")))
			for _, chart := range []string{"#timeline-chart", ".treemap"} {
				if n := elements(p, chart+" :is(script, img, foreignObject)"); n != 0 {
					t.Errorf("%s contains %d elements from text", chart, n)
				}
			}
		})
	}
}

// The timeline zooms with buttons, keys and the wheel, and shows the visible range.
func TestZoom(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, builtRecord()), browser.View{})
	const (
		whole   = `(document.querySelector("#window").textContent === "0 s to 1:14.2")`
		longest = `Math.max(...[...document.querySelectorAll('#timeline-chart path[fill="var(--step)"]')]
			.map((e) => e.getBBox().width))`
	)
	p.Wait(whole)
	before := browser.Run(p, chromedp.Evaluate[float64](longest))
	zoom := func(change chromedp.Action[chromedp.Void]) {
		p.Do(change)
		p.Wait(fmt.Sprintf("!%s && %s > %v", whole, longest, before))
		p.Do(chromedp.Focus(chromedp.CSS("#timeline-chart")), chromedp.KeyEvent("0"))
		p.Wait(fmt.Sprintf("%s && %s === %v", whole, longest, before))
	}
	zoom(chromedp.Click(chromedp.CSS(`[data-zoom="in"]`)))
	zoom(chromedp.KeyEvent("+"))
	at := center(p, `document.querySelector("#timeline-chart")`)
	zoom(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseWheel, at[0], at[1],
		func(e *input.DispatchMouseEventParams) { e.DeltaX, e.DeltaY, e.Modifiers = 1, -240, 2 })) // 2 is Ctrl

	const from = `document.querySelector("#window").textContent.split(" to ")[0]`
	p.Do(chromedp.KeyEvent("+"), chromedp.KeyEvent("+"))
	p.Wait(from + ` !== "0 s"`)
	start := browser.Run(p, chromedp.Evaluate[string](from))
	p.Do(chromedp.KeyEvent(kb.ArrowRight))
	p.Wait(fmt.Sprintf("%s !== %q", from, start))
}

// A click on a bar shows its log. Escape closes it.
func TestLogOfBar(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, failedRecord()), browser.View{})
	at := center(p, `[...document.querySelectorAll('#timeline-chart path[fill="var(--failed)"]')].at(-1)`)
	p.Do(chromedp.MouseClickXY(at[0], at[1]), chromedp.WaitVisible(chromedp.CSS("dialog#log[open]")))
	for selector, want := range map[string]string{
		"#log-title": "[tools 3/3] RUN npm ci --omit=dev",
		"#log-note":  "failed after 15 s, started after 17 s",
		"#log-error": "exit code: 1",
		"#log-text":  "No matching version found",
	} {
		if got := browser.Run(p, chromedp.Text(chromedp.CSS(selector))); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", selector, got, want)
		}
	}
	p.Do(chromedp.KeyEvent(kb.Escape))
	p.Wait(`!document.querySelector("#log").open && document.activeElement.id === "timeline-chart"`)
}

// The keyboard reaches the timeline, selects a step, opens its log, moves to the next, and closes it.
func TestKeyboard(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, builtRecord()), browser.View{})
	for range 50 {
		p.Do(chromedp.KeyEvent(kb.Tab))
		if browser.Run(p, chromedp.Evaluate[bool](`document.activeElement.id === "timeline-chart"`)) {
			break
		}
	}
	const outline = `getComputedStyle(document.activeElement).outlineStyle`
	if got := browser.Run(p, chromedp.Evaluate[string](outline)); got == "none" {
		t.Error("the focused timeline has no outline")
	}
	p.Do(chromedp.KeyEvent(strings.Repeat(kb.ArrowDown, 10)))
	const selected = "10 of 13: [tools 3/3] RUN npm ci --omit=dev, 31 s, started after 17 s"
	p.Wait(fmt.Sprintf(`document.querySelector("#timeline-selected").textContent === %q`, selected))
	p.Do(chromedp.KeyEvent(kb.Enter))
	p.Wait(`document.activeElement.id === "log-text" && document.activeElement.textContent.includes("added 412 packages")`)
	p.Do(chromedp.Focus(chromedp.CSS("#log-next")), chromedp.KeyEvent(kb.Enter))
	p.Wait(`document.querySelector("#log-note").textContent === "4.9 s, started after 48 s. No output."`)
	p.Do(chromedp.KeyEvent(kb.Escape))
	p.Wait(`!document.querySelector("#log").open && document.activeElement.id === "timeline-chart"`)

	p.Do(chromedp.Click(chromedp.CSS("#show-cached")), chromedp.Focus(chromedp.CSS("#timeline-chart")),
		chromedp.KeyEvent(kb.End))
	p.Wait(`document.querySelector("#timeline-selected").textContent.startsWith("11 of 11: exporting to image")`)
}

// A page at its limits opens, and its timeline draws only the rows around the selected one.
func TestLongTimeline(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, hugeRecord()), browser.View{})
	p.Do(chromedp.Focus(chromedp.CSS("#timeline-chart")), chromedp.KeyEvent(kb.End))
	p.Wait(`[...document.querySelectorAll("#timeline-chart text")].some((e) => e.textContent.includes("pulling"))`)
	if n := elements(p, "#timeline-chart path"); n > 1000 {
		t.Errorf("the chart has %d paths: it draws rows that are not visible", n)
	}
}

// Checkboxes and words filter the tests.
func TestFilter(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, snapshotRecord()), browser.View{})
	visible := func(want ...string) {
		t.Helper()
		got := browser.Run(p, chromedp.Evaluate[[]string](
			`[...document.querySelectorAll("#test-table tbody tr:not([hidden])")].map((row) => row.dataset.status)`))
		if !slices.Equal(got, want) {
			t.Errorf("got tests %q, want %q", got, want)
		}
	}
	visible("failed", "flaky", "skipped", "passed", "passed")
	p.Do(chromedp.Click(chromedp.CSS(`#test-status input[value="passed"]`)))
	visible("failed", "flaky", "skipped")
	p.Do(chromedp.SendKeys(chromedp.CSS("#test-text"), "503 Health"))
	visible("failed")
	if got := browser.Run(p, chromedp.Text(chromedp.CSS("#test-count"))); got != "1 of 5 shown" {
		t.Errorf("got %q", got)
	}
	p.Do(chromedp.SendKeys(chromedp.CSS("#test-text"), " nothing"))
	visible()
}

// The treemap shows the layers and their files, and opens a directory with the mouse and with the keyboard.
func TestTreemap(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, builtRecord()), browser.View{})
	texts := `[...document.querySelectorAll(".treemap text")].map((e) => e.textContent).join("|")`
	p.Wait(texts + `.includes("COPY /app/node_modules")`)
	p.Wait(texts + `.includes("typescript.js")`)

	const entries = `[...document.querySelectorAll(".entries li")].map((e) => e.innerText.replace(/\s+/g, " "))`
	want := []string{
		"COPY /app/node_modules /app/node_modules 78 MB",
		"RUN apt-get update && apt-get install -y --no-install-recommends git ripgrep curl jq 61 MB",
		"debian.sh --arch 'amd64' out/ 'bookworm' 28 MB", "WORKDIR /app 32 B",
	}
	if got := browser.Run(p, chromedp.Evaluate[[]string](entries)); !slices.Equal(got, want) {
		t.Errorf("got entries %q, want %q", got, want)
	}
	const crumbs = `document.querySelector(".crumbs").innerText`
	at := center(p, `[...document.querySelectorAll(".treemap text")].find((e) => e.textContent === "typescript.js")`)
	p.Do(chromedp.MouseClickXY(at[0], at[1]))
	p.Wait(crumbs + `.endsWith("typescript/lib")`)

	p.Do(chromedp.Focus(chromedp.CSS(".crumbs button")), chromedp.KeyEvent(kb.Enter))
	p.Wait(entries + `.length === 4`)
	p.Wait(`document.activeElement.innerText.startsWith("COPY")`)
	p.Do(chromedp.KeyEvent(kb.Enter))
	p.Wait(entries + `[0] === "app/node_modules 39 MB"`)
}

// Without scripts the page shows the steps, their logs, the layers and the tests, and no control that needs a script.
func TestWithoutScript(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, snapshotRecord()), browser.View{NoScript: true})
	text := browser.Run(p, chromedp.Evaluate[string]("document.body.innerText"))
	for _, want := range []string{"[tools 3/3] RUN npm ci", "WORKDIR /app", "GET /health: got status 503", "pulling"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if strings.Contains(text, "Zoom in") {
		t.Error("the page shows the controls of the chart")
	}
	if n := elements(p, ".steps details > pre"); n != 3 {
		t.Errorf("got %d logs, want 3", n)
	}
}

// A printed page has the open tables instead of the charts.
func TestPrint(t *testing.T) {
	p := browser.Start(t).OpenHTML(t, render(t, builtRecord()), browser.View{})
	if len(browser.Run(p, chromedp.PrintToPDF())) == 0 {
		t.Error("the PDF is empty")
	}
	p.Wait(`[...document.querySelectorAll("details.unfold")].every((e) => e.open)`)
	p.Show(browser.View{Print: true})
	p.Wait(`document.querySelector("#timeline-chart").offsetParent === null`)
	p.Wait(`document.querySelector(".steps").offsetParent !== null`)
}

// A phone can read the page without scrolling sideways.
func TestNarrow(t *testing.T) {
	b := browser.Start(t)
	for _, record := range []*runrecord.Record{failedRecord(), snapshotRecord(), hostileRecord()} {
		p := b.OpenHTML(t, render(t, record), browser.View{Width: 360})
		p.Do(chromedp.WaitVisible(chromedp.CSS("#timeline-chart svg")))
		wide := browser.Run(p, chromedp.Evaluate[[]string](`document.documentElement.scrollWidth <= 360 ? [] :
			[...document.querySelectorAll("body *")]
				.filter((e) => e.getBoundingClientRect().right > 360 && !e.closest(".scroll, pre, svg"))
				.map((e) => e.outerHTML.slice(0, 200))`))
		for _, element := range wide {
			t.Errorf("wider than the page: %s", element)
		}
	}
}

// axe finds no violation of WCAG 2.2 AA in light and dark pages, and with an open log.
func TestAccessibility(t *testing.T) {
	b := browser.Start(t)
	axe, err := os.ReadFile("../../.cache/report/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("cannot read axe: %v (run scripts/setup.sh test)", err)
	}
	for name, record := range map[string]*runrecord.Record{"failed": failedRecord(), "snapshot": snapshotRecord()} {
		for _, dark := range []bool{false, true} {
			p := b.OpenHTML(t, render(t, record), browser.View{Dark: dark})
			check := func(state string) {
				t.Helper()
				const run = `axe.run({
					runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
				}).then((r) => r.violations.flatMap((v) => v.nodes.map((n) =>
					v.id + ": " + n.html.slice(0, 200) + ": " + n.failureSummary)))`
				found := browser.Run(p, chromedp.Evaluate[[]string](run, chromedp.EvalAwaitPromise))
				for _, violation := range found {
					t.Errorf("%s, dark %t, %s: %s", name, dark, state, violation)
				}
			}
			browser.Run(p, chromedp.Evaluate[*string](string(axe)+"\nnull"))
			p.Do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("details").forEach((d) => (d.open = true))`))
			check("page")
			p.Do(chromedp.Focus(chromedp.CSS("#timeline-chart")), chromedp.KeyEvent(kb.End+kb.Enter),
				chromedp.WaitVisible(chromedp.CSS("dialog#log[open]")))
			check("log")
		}
	}
}

// TestScreenshots writes pictures for people to look at: -screenshots DIR.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("no -screenshots directory")
	}
	b := browser.Start(t)
	write := func(name string, png []byte) {
		if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, record := range map[string]*runrecord.Record{
		"built": builtRecord(), "failed": failedRecord(), "snapshot": snapshotRecord(),
	} {
		page := render(t, record)
		for suffix, view := range map[string]browser.View{
			"": {}, "-dark": {Dark: true}, "-narrow": {Width: 400}, "-noscript": {NoScript: true}, "-print": {Print: true},
		} {
			p := b.OpenHTML(t, page, view)
			write(name+suffix, p.Screenshot())
			if view.NoScript {
				continue
			}
			write(name+suffix+"-timeline", browser.Run(p, chromedp.Screenshot(chromedp.CSS("#timeline"))))
			if record.Image != nil {
				write(name+suffix+"-image", browser.Run(p, chromedp.Screenshot(chromedp.CSS("#image"))))
			}
			p.Do(chromedp.Focus(chromedp.CSS("#timeline-chart")), chromedp.KeyEvent(strings.Repeat(kb.ArrowDown, 10)+kb.Enter),
				chromedp.WaitVisible(chromedp.CSS("dialog#log[open]")))
			write(name+suffix+"-log", browser.Run(p, chromedp.CaptureScreenshot()))
		}
	}
}

// center returns the center of an element in the viewport, after it has scrolled there.
func center(p *browser.Page, element string) []float64 {
	p.Wait("Boolean(" + element + ")")
	return browser.Run(p, chromedp.Evaluate[[]float64](`(() => {
		const element = `+element+`;
		element.scrollIntoView({block: "center"});
		const box = element.getBoundingClientRect();
		return [box.x + box.width / 2, box.y + box.height / 2];
	})()`))
}

// elements returns the number of elements that match a selector.
func elements(p *browser.Page, selector string) int {
	return browser.Run(p, chromedp.Evaluate[int](fmt.Sprintf("document.querySelectorAll(%q).length", selector)))
}
