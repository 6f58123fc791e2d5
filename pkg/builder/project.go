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

// ErrNoProject means that no Depot project is configured.
var ErrNoProject = errors.New("no Depot project: run `depot init` and commit depot.json, " +
	"or set DEPOT_PROJECT_ID or depot_project")

// maxProjectFile is the maximum size of a depot.json, in bytes. The file comes with the untrusted code to build.
const maxProjectFile = 64 << 10

// projectHint is the hint in errors about a project file.
const projectHint = "expected {\"id\": \"…\"}, as `depot init` writes it"

// FindProject returns DEPOT_PROJECT_ID or, if it is not set, the ID in the nearest depot.json (or .yml, .yaml) in the
// first of dirs that has one, or in its parents, and the path of that file. Without any, it returns [ErrNoProject]. It
// logs a file of another of dirs that names another project.
func FindProject(
	getenv func(string) string, logf func(format string, args ...any), dirs ...string,
) (id, file string, err error) {
	if id := getenv("DEPOT_PROJECT_ID"); id != "" {
		return id, "", nil
	}
	var found, from string
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", "", fmt.Errorf("find depot.json: %w (set DEPOT_PROJECT_ID or depot_project)", err)
		}
		file, err := project.FindConfigFileUp(dir)
		if err != nil || file == from {
			continue
		}
		id, err := readProject(dir, file)
		switch {
		case found == "" && err != nil:
			return "", "", err
		case found == "":
			found, from = id, file
		case err == nil && id != found:
			logf("Using the Depot project %s of %q; %q names %s", found, from, file, id)
		}
	}
	if found == "" {
		return "", "", ErrNoProject
	}
	return found, from, nil
}

// readProject returns the ID in file, the nearest project file of dir.
func readProject(dir, file string) (string, error) {
	info, err := os.Stat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxProjectFile) {
		return "", fmt.Errorf("read %q: not a regular file of at most %d KiB (%s)", file, maxProjectFile>>10, projectHint)
	}
	config, _, err := project.ReadConfig(dir)
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return "", fmt.Errorf("read %q: %w (change its permissions, or set DEPOT_PROJECT_ID)", file, path.Err)
	}
	// The parser's error would quote the file, which may be a symbolic link to a secret.
	if err != nil {
		return "", fmt.Errorf("parse %q: invalid project file (%s)", file, projectHint)
	}
	if config.ID == "" {
		return "", fmt.Errorf("parse %q: missing project ID (%s)", file, projectHint)
	}
	if strings.ContainsFunc(config.ID, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) {
		return "", fmt.Errorf("parse %q: invalid project ID %q (copy it from the project's page on Depot)", file, config.ID)
	}
	return config.ID, nil
}
