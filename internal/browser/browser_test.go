package browser

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// failures is a test that records failures and does not fail.
type failures struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (f *failures) Errorf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}

func (f *failures) Cleanup(cleanup func()) { f.cleanups = append(f.cleanups, cleanup) }

func (f *failures) end() []string {
	for _, cleanup := range slices.Backward(f.cleanups) {
		cleanup()
	}
	return f.errors
}

// A test fails if its page logs an error, throws, violates its policy, or requests something from elsewhere.
func TestProblems(t *testing.T) {
	b := Start(t)
	for name, row := range map[string]struct{ html, want string }{
		"none":       {`<title>x</title><script>console.log("fine")</script><img src="data:image/png;base64,">`, ""},
		"error":      {`<script>console.error("broken", 7)</script>`, `console.error: "broken" 7`},
		"warning":    {`<script>console.warn("old")</script>`, `console.warning: "old"`},
		"exception":  {`<script>null.x</script>`, "TypeError"},
		"rejection":  {`<script>Promise.reject(new Error("late"))</script>`, "Error: late"},
		"request":    {`<img src="http://127.0.0.1:9/x.png">`, "requested http://127.0.0.1:9/x.png"},
		"other file": {`<img src="other.png">`, "other.png"},
		"policy": {
			`<meta http-equiv="Content-Security-Policy" content="default-src 'none'"><script>1</script>`,
			"Content Security Policy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &failures{TB: t}
			b.OpenHTML(f, []byte("<!doctype html>"+row.html), View{})
			got := f.end()
			if row.want == "" && len(got) > 0 || !strings.Contains(strings.Join(got, "\n"), row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// The page sees the color scheme and the media type of its view, and a screenshot has two pixels for a CSS pixel.
func TestView(t *testing.T) {
	p := Start(t).OpenHTML(t, []byte(`<!doctype html><body style="margin:0"><div style="height:1500px">x</div>`),
		View{Width: 400, Height: 300, Dark: true, Print: true})
	const matches = `matchMedia("print and (prefers-color-scheme: dark)").matches`
	if !Run(p, chromedp.Evaluate[bool](matches)) {
		t.Error("the page does not match dark and print")
	}
	p.Show(View{Width: 400, Height: 300})
	if Run(p, chromedp.Evaluate[bool](matches)) {
		t.Error("the page still matches dark and print")
	}
	config, err := png.DecodeConfig(bytes.NewReader(p.Screenshot()))
	if err != nil || config.Width != 800 || config.Height != 3000 {
		t.Errorf("got %d by %d pixels, %v, want 800 by 3000", config.Width, config.Height, err)
	}
}

// Scripts do not run in a view without scripts.
func TestNoScript(t *testing.T) {
	p := Start(t).OpenHTML(t, []byte(`<!doctype html><noscript>without</noscript><script>document.title = "ran"</script>`),
		View{NoScript: true})
	if title := Run(p, chromedp.Title()); title != "" {
		t.Errorf("the script ran and set the title to %q", title)
	}
	const display = `getComputedStyle(document.querySelector("noscript")).display`
	if got := Run(p, chromedp.Evaluate[string](display)); got == "none" {
		t.Error("noscript is not displayed")
	}
}

// Chromium ends with its test.
func TestEnd(t *testing.T) {
	var process *os.Process
	t.Run("browser", func(t *testing.T) { process = chromedp.FromContext(Start(t).ctx).Browser.Process() })
	if process == nil {
		t.SkipNow()
	}
	if err := process.Signal(os.Kill); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Chromium still runs: %v", err)
	}
}
