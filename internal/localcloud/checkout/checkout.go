// Package checkout finds the checkout that a program of this module runs in, where its scripts and what they built are.
package checkout

import (
	"errors"
	"os"
	"path/filepath"
)

// Root is the folder of go.mod, from the current directory upwards.
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
			return "", errors.New("there is no go.mod above the current directory: run this inside the checkout")
		}
	}
}
