// Package githubpage renders Markdown like GitHub, for tests and for the pictures of documents: with goldmark's
// implementation of GitHub Flavored Markdown, GitHub's style, and Mermaid.
package githubpage

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"os"
	"path/filepath"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/renderer/html"
)

//go:embed page.html.tmpl
var pageTemplate string

// Page returns an HTML page with the Markdown in a column of the given width in CSS pixels. The attribute data-ready of
// its body is set after Mermaid has drawn the diagrams. assets is the directory into which scripts/setup.sh installs
// GitHub's style and Mermaid.
func Page(markdown []byte, width int, assets string) ([]byte, error) {
	var body bytes.Buffer
	converter := goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithRendererOptions(html.WithUnsafe()))
	if err := converter.Convert(markdown, &body); err != nil {
		return nil, err
	}
	style, styleErr := os.ReadFile(filepath.Join(assets, "github-markdown.css"))
	script, err := os.ReadFile(filepath.Join(assets, "mermaid.min.js"))
	if styleErr != nil || err != nil {
		return nil, fmt.Errorf("cannot find GitHub's style and Mermaid in %s: run scripts/setup.sh test", assets)
	}
	page, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = page.Execute(&out, map[string]any{
		"Style": template.CSS(style), "Mermaid": template.JS(script), "Body": template.HTML(body.Bytes()), "Width": width,
	})
	return out.Bytes(), err
}
