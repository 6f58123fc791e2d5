package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/markdown"
)

// codeBlocks returns the code blocks of a document in one language.
func codeBlocks(t *testing.T, document, language string) []string {
	t.Helper()
	blocks, err := markdown.CodeBlocks(filepath.Join("../..", document), language)
	must(t, err)
	return blocks
}

// documents returns the paths of all Markdown files, relative to the repository root.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := markdown.Files("../..")
	must(t, err)
	return files
}

// The gh commands in the docs refer to existing release assets.
func TestDocsAssets(t *testing.T) {
	asset := regexp.MustCompile(`\baction-[a-z0-9-]+`)
	platform := regexp.MustCompile(`^(linux|darwin)-(amd64|arm64)$`)
	assets := 0
	for _, document := range documents(t) {
		for line := range strings.Lines(strings.Join(codeBlocks(t, document, "text"), "")) {
			if !strings.HasPrefix(line, "gh release") && !strings.HasPrefix(line, "gh attestation") {
				continue
			}
			for _, name := range asset.FindAllString(line, -1) {
				assets++
				parts := strings.SplitN(name, "-", 3)
				if len(parts) != 3 || read(t, "../../action-"+parts[1]+"/main.go") == "" || !platform.MatchString(parts[2]) {
					t.Errorf("%s: unknown release asset %s", document, name)
				}
			}
		}
	}
	if assets < 2 {
		t.Errorf("found only %d assets", assets)
	}
}

var (
	markdownLink    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	markdownHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	slugRemoves     = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Relative links in the docs lead to existing files and headings.
func TestDocsLinks(t *testing.T) {
	links := 0
	for _, name := range documents(t) {
		for _, m := range markdownLink.FindAllStringSubmatch(markdown.WithoutCode(read(t, "../../"+name)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat("../../" + target); err != nil || strings.HasPrefix(target, "..") {
				t.Errorf("%s: %s does not exist", name, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			var anchors []string
			text := markdown.WithoutCode(read(t, "../../"+target))
			for _, head := range markdownHeading.FindAllStringSubmatch(text, -1) {
				anchors = append(anchors, strings.ReplaceAll(slugRemoves.ReplaceAllString(strings.ToLower(head[1]), ""), " ", "-"))
			}
			if !slices.Contains(anchors, anchor) {
				t.Errorf("%s: %s has no heading #%s; its headings are %q", name, target, anchor, anchors)
			}
		}
	}
	if links < 10 {
		t.Errorf("found only %d links", links)
	}
}

var picture = regexp.MustCompile(`(?:src|srcset)="([^":]+)"`)

// Every picture in the docs exists, and scripts/pictures.sh creates it. The docs show every picture.
func TestDocsPictures(t *testing.T) {
	script := read(t, "../../scripts/pictures.sh")
	shown := map[string]bool{}
	for _, name := range documents(t) {
		for _, m := range picture.FindAllStringSubmatch(read(t, "../../"+name), -1) {
			file := filepath.Join(filepath.Dir(name), m[1])
			shown[file] = true
			if _, err := os.Stat("../../" + file); err != nil || !strings.Contains(script, filepath.Base(file)) {
				t.Errorf("%s: %s does not exist, or scripts/pictures.sh does not create it", name, m[1])
			}
		}
	}
	files, err := filepath.Glob("../../docs/images/*")
	must(t, err)
	for _, file := range files {
		if !shown[strings.TrimPrefix(file, "../../")] {
			t.Errorf("no document shows %s", file)
		}
	}
	if len(files) < 2 {
		t.Errorf("found only %q", files)
	}
}

// Files and environment variables in the docs exist in the repository.
func TestDocsNames(t *testing.T) {
	file := regexp.MustCompile("`((?:actions|pkg|internal|scripts|docs|\\.github)/[A-Za-z0-9_./-]+\\.[a-z]+)`")
	// A release creates the first file, and the reader the second one.
	external := []string{"actions/checksums.txt", ".github/workflows/sandbox.yml"}
	for _, name := range documents(t) {
		for _, m := range file.FindAllStringSubmatch(read(t, "../../"+name), -1) {
			if _, err := os.Stat("../../" + m[1]); err != nil && !slices.Contains(external, m[1]) {
				t.Errorf("%s: %s does not exist", name, m[1])
			}
		}
	}
	var code strings.Builder
	for _, pattern := range []string{"../../actions/*.go", "../../pkg/*/*.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				code.WriteString(read(t, file))
			}
		}
	}
	_, table, _ := strings.Cut(read(t, "../../docs/reference.md"), "## Variables")
	variables := regexp.MustCompile("`([A-Z_]{5,})`").FindAllStringSubmatch(table, -1)
	for _, m := range variables {
		if !strings.Contains(code.String(), `"`+m[1]+`"`) {
			t.Errorf("docs/reference.md: no code reads the variable %s", m[1])
		}
	}
	if len(variables) < 15 {
		t.Errorf("found only %d variables", len(variables))
	}
}
