// Package checkout finds and copies the checkout of this module that a test or a command runs in.
package checkout

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Root returns the directory of go.mod, which is the current directory or one above it.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find the checkout: no go.mod in this directory or above (run this in the checkout)")
		}
	}
}

// copyScript commits the files of the checkout, with uncommitted changes, to a new repository in $DIR.
const copyScript = `set -euo pipefail
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
git init --quiet --initial-branch=main "$DIR"
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
	if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi
done | tar --null --no-recursion --files-from=- --create --file=- | tar --extract --file=- --directory="$DIR"
git -C "$DIR" add --all
git -C "$DIR" commit --quiet --message=release`

// Copy creates a repository in dir with one commit: the files of the checkout at root, with uncommitted changes.
func Copy(root, dir string) error {
	command := exec.Command("bash", "-c", copyScript)
	command.Dir, command.Env = root, append(os.Environ(), "DIR="+dir)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the checkout: %w: %s", err, out)
	}
	return nil
}
