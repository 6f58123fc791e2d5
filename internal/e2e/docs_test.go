package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var codeBlock = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// codeBlocks returns the code blocks of a document in one language.
func codeBlocks(t *testing.T, document, language string) []string {
	t.Helper()
	var found []string
	for _, m := range codeBlock.FindAllStringSubmatch(read(t, "../../"+document), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// documents returns the paths of all Markdown files, relative to the repository root.
func documents(t *testing.T) []string {
	t.Helper()
	list := git(t, "../..", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
	var found []string
	for name := range strings.Lines(list) {
		if name = strings.TrimSpace(name); read(t, "../../"+name) != "" { // skips deleted files
			found = append(found, name)
		}
	}
	if len(found) < 3 {
		t.Fatalf("found only %q", found)
	}
	return found
}

// Every gh command in the docs names an existing workflow, its inputs, and released assets.
func TestDocsRecipes(t *testing.T) {
	recipe := regexp.MustCompile(`gh workflow run (\S+)((?: -f [a-z_]+=(?:'[^']*'|\S+))*)`)
	asset := regexp.MustCompile(`\baction-[a-z0-9-]+`)
	recipes, assets := 0, 0
	for _, name := range documents(t) {
		for _, text := range codeBlocks(t, name, "text") {
			for _, m := range recipe.FindAllStringSubmatch(text, -1) {
				recipes++
				var workflow struct {
					On struct {
						Dispatch struct{ Inputs map[string]any }  `yaml:"workflow_dispatch"`
						Call     *struct{ Inputs map[string]any } `yaml:"workflow_call"`
					}
				}
				if err := yaml.Unmarshal([]byte(read(t, "../../.github/workflows/"+m[1])), &workflow); err != nil {
					t.Fatal(err)
				}
				for _, input := range regexp.MustCompile(`-f ([a-z_]+)=`).FindAllStringSubmatch(m[2], -1) {
					if workflow.On.Dispatch.Inputs[input[1]] == nil ||
						workflow.On.Call != nil && workflow.On.Call.Inputs[input[1]] == nil {
						t.Errorf("%s: workflow %s has no input %s", name, m[1], input[1])
					}
				}
			}
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, "gh release") && !strings.HasPrefix(line, "gh attestation") {
					continue
				}
				for _, named := range asset.FindAllString(line, -1) {
					assets++
					parts := strings.Split(named, "-")
					if len(parts) != 4 || read(t, "../../action-"+parts[1]+"/main.go") == "" ||
						!regexp.MustCompile(`^(linux|darwin)-(amd64|arm64)$`).MatchString(parts[2]+"-"+parts[3]) {
						t.Errorf("%s: no release contains %s", name, named)
					}
				}
			}
		}
	}
	if recipes < 3 || assets < 2 {
		t.Errorf("found only %d gh workflow commands and %d assets", recipes, assets)
	}
}

var (
	markdownLink    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	markdownHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	slugRemoves     = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Every relative link leads to an existing file and heading.
func TestDocsLinks(t *testing.T) {
	links := 0
	for _, name := range documents(t) {
		for _, m := range markdownLink.FindAllStringSubmatch(codeBlock.ReplaceAllString(read(t, "../../"+name), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat("../../" + to); err != nil || strings.HasPrefix(to, "..") {
				t.Errorf("%s: %s does not exist", name, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			var anchors []string
			for _, head := range markdownHeading.FindAllStringSubmatch(codeBlock.ReplaceAllString(read(t, "../../"+to), ""), -1) {
				anchors = append(anchors, strings.ReplaceAll(slugRemoves.ReplaceAllString(strings.ToLower(head[1]), ""), " ", "-"))
			}
			if !slices.Contains(anchors, anchor) {
				t.Errorf("%s: %s has no heading #%s, only %q", name, to, anchor, anchors)
			}
		}
	}
	if links < 10 {
		t.Errorf("found only %d links", links)
	}
}

// Files and environment variables that the docs name exist in the code.
func TestDocsNames(t *testing.T) {
	file := regexp.MustCompile("`((?:actions|pkg|internal|scripts|docs|\\.github)/[A-Za-z0-9_./-]+\\.[a-z]+)`")
	made := []string{"actions/checksums.txt", ".github/workflows/sandbox.yml"} // created by a release and by the reader
	for _, name := range documents(t) {
		for _, m := range file.FindAllStringSubmatch(read(t, "../../"+name), -1) {
			if _, err := os.Stat("../../" + m[1]); err != nil && !slices.Contains(made, m[1]) {
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
			t.Errorf("no code reads the variable %s", m[1])
		}
	}
	if len(variables) < 15 {
		t.Errorf("found only %d variables", len(variables))
	}
}

// Each part of a message that docs/troubleshooting.md quotes exists in the code.
func TestDocsTroubleshooting(t *testing.T) {
	concatenation := regexp.MustCompile(`"\s*\+\s*"`)
	var code strings.Builder
	for _, pattern := range []string{"../../actions/*.go", "../../actions/run.sh", "../../pkg/*/*.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				code.WriteString(concatenation.ReplaceAllString(strings.ReplaceAll(read(t, file), `\"`, `"`), ""))
			}
		}
	}
	parts := 0
	for _, m := range regexp.MustCompile(`(?m)^> (.*)$`).FindAllStringSubmatch(read(t, "../../docs/troubleshooting.md"), -1) {
		for _, part := range regexp.MustCompile(`…|: `).Split(m[1], -1) {
			if part = strings.Trim(part, " :;,()`"); len(strings.Fields(part)) < 2 {
				continue
			}
			parts++
			if !strings.Contains(code.String(), part) {
				t.Errorf("no program prints %q", part)
			}
		}
	}
	if parts == 0 {
		t.Error("docs/troubleshooting.md quotes no message as `> message`")
	}
}
