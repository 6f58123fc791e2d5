// Package checkout finds the checkout of this module that a test or a command runs in.
package checkout

import (
	"errors"
	"os"
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
