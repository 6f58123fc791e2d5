package actions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/source"
)

// namesFile is a file in the root of a repository with the name of its images and snapshots. Only commands at a prompt
// read it: the workspace of a workflow may contain a fork's code, and `keep` deletes snapshots by their prefix.
const namesFile = "sandbox.json"

// validName matches names that are valid for images and snapshots.
var validName = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)

// defaultNames returns the names of images and snapshots if no input sets them.
func defaultNames(ctx context.Context, env Env) (inputs.Names, error) {
	if !env.Runner.InActions() {
		if name, err := readName(filepath.Join(env.Dir, namesFile)); name != "" || err != nil {
			return inputs.Names{Image: name + ":local", Prefix: name}, err
		}
	}
	repository := env.Getenv("GITHUB_REPOSITORY")
	return inputs.NamesOf(cmp.Or(repository, source.RemoteRepository(ctx, env.Dir))), nil
}

// readName returns the name in a namesFile, or "" if it does not exist.
func readName(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var content struct{ Name string }
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		err = decoder.Decode(&content)
	}
	if err == nil && !validName.MatchString(content.Name) {
		err = fmt.Errorf("name %q must have lower-case letters and digits, with single dots, dashes or underscores "+
			"between them", content.Name)
	}
	if err != nil {
		return "", fmt.Errorf(`read %s: %w (write for example {"name": "my-sandbox"})`, namesFile, err)
	}
	return content.Name, nil
}
