package actions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/org/sandbox-actions/pkg/git"
)

const (
	scratchPrefix = "sandbox-actions-" // of the names of temporary directories
	scratchLock   = ".lock"            // file in a temporary directory, locked while the run that uses it exists
)

// makeScratch creates a temporary directory in parent, "" for the system's, and returns a function that removes it. It
// first removes the directories of earlier runs that were killed.
func makeScratch(parent string) (dir string, remove func(), err error) {
	if parent == "" {
		parent = os.TempDir()
	}
	removeLeftovers(parent)
	if dir, err = os.MkdirTemp(parent, scratchPrefix); err != nil {
		return "", nil, fmt.Errorf("create a temporary directory: %w (free disk space, or set RUNNER_TEMP to a writable "+
			"directory)", err)
	}
	lock, err := lockScratch(dir)
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, fmt.Errorf("lock the temporary directory: %w (free disk space, or set RUNNER_TEMP to a directory "+
			"on a local file system)", err)
	}
	return dir, func() {
		removeScratch(dir)
		lock.Close()
	}, nil
}

// removeScratch removes dir. It removes the lock last: if the rest cannot be removed, a later run tries again.
func removeScratch(dir string) {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if entry.Name() != scratchLock {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	if err == nil {
		os.RemoveAll(dir)
	}
}

// explainFullDisk adds what to do to the error of a run if a disk of this machine is full.
func explainFullDisk(err error, scratch string) error {
	if err == nil {
		return nil
	}
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		// BuildKit returns the errors of our files as text.
		text := err.Error()
		switch {
		case scratch != "" && strings.Contains(text, scratch) && strings.Contains(text, full.Error()):
			return fmt.Errorf("%w (free disk space, or set RUNNER_TEMP to a directory on another disk)", err)
		case errors.Is(err, full):
			return fmt.Errorf("%w (free disk space)", err)
		}
	}
	// git init does not report the cause (git v2.39.5).
	if failed, ok := errors.AsType[*git.Error](err); ok && failed.Cause == git.Unknown && isFull(scratch) {
		return fmt.Errorf("%w (the disk of %s is full: free disk space, or set RUNNER_TEMP to a directory on another disk)",
			err, scratch)
	}
	return err
}

// isFull reports whether the file system of dir has no space left.
func isFull(dir string) bool {
	var stat syscall.Statfs_t
	return syscall.Statfs(dir, &stat) == nil && stat.Bavail == 0
}

// lockScratch creates the lock of dir. The file has another name until it is locked, because another run may remove a
// directory with a free lock.
func lockScratch(dir string) (*os.File, error) {
	name := filepath.Join(dir, scratchLock)
	lock, err := os.Create(name + ".new")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(flock(lock), os.Rename(lock.Name(), name)); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// flock locks a file for this process. It fails if another process has locked it.
func flock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// removeLeftovers removes the temporary directories of runs that were killed. It ignores errors: a directory may belong
// to another user, or another run may remove it, too.
func removeLeftovers(parent string) {
	entries, _ := os.ReadDir(parent)
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), scratchPrefix) {
			continue
		}
		dir := filepath.Join(parent, entry.Name())
		lock, err := os.OpenFile(filepath.Join(dir, scratchLock), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue // no lock, so it belongs to another program
		}
		if flock(lock) == nil {
			removeScratch(dir)
		}
		lock.Close()
	}
}
