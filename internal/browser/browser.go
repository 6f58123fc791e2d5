// Package browser opens pages in headless Chromium for tests and for the pictures of documents.
//
// A test fails if one of its pages logs an error or a warning, or requests anything but itself.
package browser

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// The limits end a test that waits for something that does not happen.
const (
	maxWait = 2 * time.Minute
	maxTest = 8 * time.Minute
)

// Browser is a running Chromium with a new, empty profile.
type Browser struct {
	ctx context.Context
}

// Start starts Chromium and ends it with the test. It skips the test if -short is set.
func Start(t testing.TB) *Browser {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Chromium")
	}
	program, err := find()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxTest)
	t.Cleanup(cancel)
	temp, err := os.MkdirTemp("", "chromium-") // Chromium does not remove its temporary files
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	ctx, stop := chromedp.NewExecAllocator(ctx, append(flags(), chromedp.ExecPath(program),
		chromedp.Env("TMPDIR="+temp))...)
	t.Cleanup(stop) // waits until the process has ended
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal("start Chromium:", err)
	}
	return &Browser{ctx}
}

// find returns the path of Chromium.
func find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("cannot find Chromium: run scripts/setup.sh test, or go test -short without browser tests")
}

// flags returns the options of the process. chromedp adds a new --user-data-dir, --remote-debugging-pipe, and as root
// --no-sandbox.
func flags() []chromedp.ExecAllocatorOption {
	options := []chromedp.ExecAllocatorOption{
		chromedp.Headless,
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.DisableGPU,
		chromedp.Flag("force-color-profile", "srgb"),
		// Pages can reach servers of the test on loopback, and nothing else.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	}
	for _, name := range []string{
		"disable-background-networking", "disable-breakpad", "disable-component-update", "disable-default-apps",
		"disable-dev-shm-usage", "disable-extensions", "disable-quic", "disable-sync", "hide-scrollbars",
		"metrics-recording-only", "no-proxy-server",
	} {
		options = append(options, chromedp.Flag(name, true))
	}
	return options
}

// View describes how a page is displayed.
type View struct {
	Width, Height int  // in CSS pixels; 1280 by 800 if 0
	Dark          bool // whether prefers-color-scheme is dark
	Print         bool // whether the media type is print
	NoScript      bool // whether the page's scripts are disabled; only evaluated expressions work then, not waits
}

// Page is an open page. Its methods fail the test if an action fails.
type Page struct {
	t   testing.TB
	ctx context.Context
	url string

	mu       sync.Mutex
	problems []string
	requests []string
}

// OpenHTML writes a page to a file and opens it.
func (b *Browser) OpenHTML(t testing.TB, html []byte, view View) *Page {
	t.Helper()
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, html, 0o600); err != nil {
		t.Fatal(err)
	}
	return b.Open(t, FileURL(file), view)
}

// FileURL returns the URL of a file with an absolute path.
func FileURL(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

// Open opens a URL in a new tab, and returns after the load event. At its end, the test fails if the page logged an
// error or a warning, or requested other URLs than data URLs and those that begin with the URL of the page.
func (b *Browser) Open(t testing.TB, url string, view View) *Page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	p := &Page{t: t, ctx: ctx, url: url}
	if err := chromedp.Listen(ctx, p.record); err != nil {
		t.Fatal("open a tab:", err)
	}
	t.Cleanup(func() {
		for _, problem := range p.Problems() {
			t.Errorf("%s: %s", url, problem)
		}
	})
	p.Show(view)
	p.Do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		return navigate(ctx, target, url)
	}))
	return p
}

// navigate opens a URL and waits until the page is complete. It polls the state of the page, because chromedp.Navigate
// sometimes waits forever for events on a busy machine.
func navigate(ctx context.Context, target *chromedp.Target, url string) error {
	result, err := cdp.Call(ctx, target, page.Navigate, page.NavigateParams{URL: url})
	if err != nil {
		return err
	}
	if result.ErrorText != "" {
		return errors.New(result.ErrorText)
	}
	complete := chromedp.Evaluate[bool](`location.href !== "about:blank" && document.readyState === "complete"`)
	for {
		// An error is that of a document that was replaced in the meantime.
		if done, err := complete(ctx, target); err == nil && done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Show changes how the page is displayed.
func (p *Page) Show(view View) {
	p.t.Helper()
	scheme, media := "light", "screen"
	if view.Dark {
		scheme = "dark"
	}
	if view.Print {
		media = "print"
	}
	if view.Width == 0 {
		view.Width = 1280
	}
	if view.Height == 0 {
		view.Height = 800
	}
	p.Do(
		chromedp.EmulateViewport(int64(view.Width), int64(view.Height), chromedp.EmulateScale(2)),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Media: media,
			Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: scheme},
				{Name: "prefers-reduced-motion", Value: "reduce"},
			},
		}),
		command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: view.NoScript}),
	)
}

func command[P any](c cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// Do runs actions in order.
func (p *Page) Do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatalf("%s: %v; the page logged %q", p.url, err, p.Problems())
	}
}

// Run runs an action and returns its result.
func Run[T any](p *Page, action chromedp.Action[T]) T {
	p.t.Helper()
	result, err := chromedp.Run(p.ctx, action)
	if err != nil {
		p.t.Fatalf("%s: %v; the page logged %q", p.url, err, p.Problems())
	}
	return result
}

// Wait waits until a JavaScript expression is true.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	wait := chromedp.Poll[bool](expression, chromedp.WithPollingInterval(20*time.Millisecond),
		chromedp.WithPollingTimeout(maxWait))
	if _, err := chromedp.Run(p.ctx, wait); err != nil {
		p.t.Fatalf("%s: waiting for %s: %v; the page logged %q", p.url, expression, err, p.Problems())
	}
}

// Screenshot returns a PNG of the whole page, with two pixels for each CSS pixel.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	return Run(p, chromedp.FullScreenshot(100))
}

// Problems returns what the page logged as an error or a warning, and the URLs that it requested from elsewhere.
func (p *Page) Problems() []string {
	// The browser sends events that happened before the answer to this command first.
	_, _ = chromedp.Run(p.ctx, chromedp.Evaluate[int]("1"))
	p.mu.Lock()
	defer p.mu.Unlock()
	problems := slices.Clone(p.problems)
	for _, request := range p.requests {
		if !strings.HasPrefix(request, p.url) && !strings.HasPrefix(request, "data:") {
			problems = append(problems, "requested "+request)
		}
	}
	return problems
}

func (p *Page) record(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		switch e.Type {
		case runtime.ConsoleAPICalledTypeError, runtime.ConsoleAPICalledTypeWarning, runtime.ConsoleAPICalledTypeAssert:
			text := []string{"console." + string(e.Type) + ":"}
			for _, arg := range e.Args {
				if arg.Description != "" {
					text = append(text, arg.Description)
				} else {
					text = append(text, string(arg.Value))
				}
			}
			p.problems = append(p.problems, strings.Join(text, " "))
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		p.problems = append(p.problems, text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			p.problems = append(p.problems, strings.TrimSpace(e.Entry.Text+" "+e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	}
}
