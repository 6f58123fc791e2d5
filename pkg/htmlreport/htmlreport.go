// Package htmlreport writes the record of a run as one HTML page that works offline: a timeline with the log of each
// step, the content of the image, the changes since the previous run, the results of tests, and the life of snapshots.
//
// The page is complete without scripts. Its script adds the charts, the filters and the dialog of a log.
package htmlreport

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the parts of the page
	"encoding/base64"
	"fmt"
	"html/template"
	"io"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

var (
	//go:embed page.html.tmpl
	pageText string
	//go:embed style.css
	style string
	//go:embed report.js
	script string
)

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"size":    humanize.Size,
	"change":  humanize.SizeChange,
	"seconds": humanize.Seconds,
	"cut":     cut,
	"digest":  humanize.Digest,
	"commit":  humanize.Commit,
	"count":   count,
	"list":    func(values ...any) []any { return values },
}).Parse(pageText))

// Write writes the report of a run. It shortens logs and lists so that the page stays usable, and says so.
func Write(w io.Writer, r *runrecord.Record) error {
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, newPage(r)); err != nil {
		return fmt.Errorf("render the report: %w", err)
	}
	_, err := w.Write(page.Bytes())
	return err
}

// policy allows only the style and the script of the page. Nothing is loaded. Attributes may contain styles, because
// the charts set the fonts of their labels that way.
func policy() string {
	return fmt.Sprintf("default-src 'none'; style-src '%s'; style-src-attr 'unsafe-inline'; script-src '%s'; "+
		"base-uri 'none'; form-action 'none'", contentHash(style), contentHash(script))
}

func contentHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
