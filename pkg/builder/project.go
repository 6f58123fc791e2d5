package builder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/depot/depot-go/project"
)

// ErrNoProject says where a project may be named.
var ErrNoProject = errors.New("no Depot project: commit a depot.json with {\"id\": \"…\"} (`depot init` makes it), set DEPOT_PROJECT_ID, or give the input depot_project")

// maxProjectFile bounds a depot.json, in bytes. It comes with the code that is built, from anybody.
const maxProjectFile = 64 << 10

// FindProject is DEPOT_PROJECT_ID, else the id in the depot.json (or .yml, .yaml) that is nearest, from dir upwards. Without either it is
// [ErrNoProject].
func FindProject(dir string, getenv func(string) string) (string, error) {
	if id := getenv("DEPOT_PROJECT_ID"); id != "" {
		return id, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find depot.json: %w: set DEPOT_PROJECT_ID, or give the input depot_project", err)
	}
	file, err := project.FindConfigFileUp(dir)
	if err != nil {
		return "", ErrNoProject
	}
	info, err := os.Stat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxProjectFile) {
		return "", fmt.Errorf("%q is no file of a project: it is a small file that holds {\"id\": \"…\"}, as `depot init` writes it", file)
	}
	config, _, err := project.ReadConfig(dir)
	if path := new(os.PathError); errors.As(err, &path) {
		return "", fmt.Errorf("%q can not be read (%w): change its permissions, or set DEPOT_PROJECT_ID", file, path.Err)
	}
	// The parser's own words would quote the file, which may be a link to anything.
	if err != nil {
		return "", fmt.Errorf("%q can not be understood: it holds {\"id\": \"…\"}, as `depot init` writes it", file)
	}
	if config.ID == "" {
		return "", fmt.Errorf("%q names no project: it holds {\"id\": \"…\"}, as `depot init` writes it", file)
	}
	if strings.ContainsFunc(config.ID, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) {
		return "", fmt.Errorf("%q names a project %q, which no project is called: copy the id from the project's page at Depot", file, config.ID)
	}
	return config.ID, nil
}
