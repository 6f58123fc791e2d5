package actions

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
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

// An error about a full disk says what to do, whatever the run was writing.
func TestPresentOnFullDisk(t *testing.T) {
	job, _, _ := testJob(t, map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": "/dev/full", "GITHUB_STEP_SUMMARY": "/dev/full",
	})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	job.Stdout, job.Output = full, inputs.JSONOutput
	err = job.present(t.Context(), runrecord.Record{Outputs: []runrecord.Output{{Name: "digest", Value: "sha256:1"}}}, nil)
	for _, want := range []string{"GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "standard output"} {
		if matched, _ := regexp.MatchString(want+`.*no space left on device \(free disk space\)`, err.Error()); !matched {
			t.Errorf("the error has no remedy for %s: %v", want, err)
		}
	}
}
