package htmlreport

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/org/sandbox-actions/internal/browser"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

var screenshots = flag.String("screenshots", "", "directory to which TestScreenshots writes")

func render(t *testing.T, r *runrecord.Record) []byte {
	t.Helper()
	var page bytes.Buffer
	if err := Write(&page, r); err != nil {
		t.Fatal(err)
	}
	return page.Bytes()
}

// TestScreenshots writes pictures for people to look at: -screenshots DIR.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("no -screenshots directory")
	}
	b := browser.Start(t)
	for name, record := range map[string]*runrecord.Record{
		"built": builtRecord(), "failed": failedRecord(), "snapshot": snapshotRecord(),
	} {
		page := render(t, record)
		for suffix, view := range map[string]browser.View{
			"": {}, "-dark": {Dark: true}, "-narrow": {Width: 400}, "-noscript": {NoScript: true}, "-print": {Print: true},
		} {
			file := filepath.Join(*screenshots, name+suffix+".png")
			if err := os.WriteFile(file, b.OpenHTML(t, page, view).Screenshot(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
