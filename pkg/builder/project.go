package builder

import (
	"errors"
	"fmt"

	"github.com/depot/depot-go/project"
)

// ErrNoProject says where a project may be named.
var ErrNoProject = errors.New("no Depot project: commit a depot.json with {\"id\": \"…\"} (`depot init` makes it), set DEPOT_PROJECT_ID, or give the input depot_project")

// FindProject is DEPOT_PROJECT_ID, else the id in the depot.json that is nearest, from dir upwards. Without either it is [ErrNoProject].
func FindProject(dir string, getenv func(string) string) (string, error) {
	if id := getenv("DEPOT_PROJECT_ID"); id != "" {
		return id, nil
	}
	file, err := project.FindConfigFileUp(dir)
	if err != nil {
		return "", ErrNoProject
	}
	config, _, err := project.ReadConfig(dir)
	if err != nil {
		return "", fmt.Errorf("%s can not be read (%w): it holds {\"id\": \"…\"}", file, err)
	}
	if config.ID == "" {
		return "", fmt.Errorf("%s names no project: it holds {\"id\": \"…\"}, as `depot init` writes it", file)
	}
	return config.ID, nil
}
