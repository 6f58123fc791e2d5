package image

import (
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// DockerfileLabels returns the names in the LABEL instructions of a Dockerfile. It returns none if the file cannot be
// read or parsed; BuildKit then reports the error.
func DockerfileLabels(file string) (names []string) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	dockerfile, err := parser.Parse(f)
	if err != nil {
		return nil
	}
	for _, instruction := range dockerfile.AST.Children {
		if !strings.EqualFold(instruction.Value, "label") {
			continue
		}
		for node := instruction.Next; node != nil; node = node.Next.Next.Next { // name, value, separator
			names = append(names, strings.Trim(node.Value, `"'`))
		}
	}
	return names
}
