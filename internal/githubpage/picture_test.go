package githubpage

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/org/sandbox-actions/internal/browser"
)

var (
	markdown = flag.String("markdown", "", "Markdown file to make pictures of")
	picture  = flag.String("picture", "", "path of the pictures, to which -light.png and -dark.png are added")
)

// TestPicture makes pictures of a Markdown file:
//
//	go test ./internal/githubpage -run Picture -markdown /absolute/summary.md -picture /absolute/docs/images/summary
func TestPicture(t *testing.T) {
	file := *markdown
	if file == "" {
		file = filepath.Join("..", "..", "pkg", "summary", "testdata", "cached-build.md")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page, err := Page(text, 980, filepath.Join("..", "..", ".cache", "githubpage"))
	if err != nil {
		t.Fatal(err)
	}
	chromium := browser.Start(t)
	for suffix, dark := range map[string]bool{"-light.png": false, "-dark.png": true} {
		opened := chromium.OpenHTML(t, page, browser.View{Width: 980, Height: 400, Dark: dark})
		opened.Do(chromedp.WaitReady("body[data-ready]"))
		png := opened.Screenshot()
		if *picture == "" {
			continue
		}
		if err := os.WriteFile(*picture+suffix, png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
