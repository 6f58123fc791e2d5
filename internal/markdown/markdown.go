// Package markdown reads the repository's documents for the tests that run what they contain.
package markdown

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Files returns the Markdown files of the checkout at root, also those not committed yet, relative to root. It leaves
// out those in testdata.
func Files(root string) ([]string, error) {
	command := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", ":!*/testdata/*")
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("list the documents: %w", err)
	}
	var files []string
	for _, file := range strings.Fields(string(out)) {
		if _, err := os.Stat(filepath.Join(root, file)); err == nil { // not deleted
			files = append(files, file)
		}
	}
	return files, nil
}

var codeBlock = regexp.MustCompile("(?ms)^```([a-z ]*)\n(.*?)^```$")

// CodeBlocks returns the fenced code blocks of a file in one language, the info string of the block.
func CodeBlocks(file, language string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var blocks []string
	for _, m := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		if m[1] == language {
			blocks = append(blocks, m[2])
		}
	}
	return blocks, nil
}

// WithoutCode returns text without its fenced code blocks.
func WithoutCode(text string) string { return codeBlock.ReplaceAllString(text, "") }
