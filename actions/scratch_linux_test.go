package actions

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What cannot be removed keeps its lock, so that a later run removes it.
func TestRemoveLeftoversAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root to mount a file system; run without -short")
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "sandbox-actions-1")
	busy := filepath.Join(dir, "busy")
	if err := os.MkdirAll(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockScratch(dir)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	if err := unix.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil { // cannot be removed
		t.Fatal(err)
	}
	removeLeftovers(parent)
	if err := unix.Unmount(busy, 0); err != nil {
		t.Fatal(err)
	}
	removeLeftovers(parent)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second run left the directory: %v", err)
	}
}
