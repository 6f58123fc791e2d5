// Package checkout finds the root directory of this module's checkout.
package checkout

import (
	"errors"
	"os"
	"path/filepath"
)

// Root returns the closest directory that contains go.mod, starting at the current directory.
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
			return "", errors.New("find the checkout: no go.mod in this directory or above (run the command in a checkout)")
		}
	}
}
