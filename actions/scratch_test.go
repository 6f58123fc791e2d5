package actions

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/org/sandbox-actions/pkg/git"
)

// A run removes the temporary directories of killed runs, and no others.
func TestMakeScratch(t *testing.T) {
	parent := t.TempDir()
	for _, dir := range []string{"sandbox-actions-1/git", "sandbox-actions-unlocked", "other"} {
		if err := os.MkdirAll(filepath.Join(parent, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"sandbox-actions-1", "other"} {
		lock, err := lockScratch(filepath.Join(parent, dir))
		if err != nil {
			t.Fatal(err)
		}
		lock.Close() // as the kernel does when a process is killed
	}
	first, removeFirst, err := makeScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	second, removeSecond, err := makeScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want ...string) {
		t.Helper()
		want = append(want, filepath.Join(parent, "other"), filepath.Join(parent, "sandbox-actions-unlocked"))
		got, err := filepath.Glob(filepath.Join(parent, "*"))
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, want %q (%v)", got, want, err)
		}
	}
	check(first, second)
	removeFirst()
	check(second)
	removeSecond()
	check()
}

func TestExplainFullDisk(t *testing.T) {
	const scratch = "/tmp/sandbox-actions-1"
	in := func(path string, err error) error { return &os.PathError{Op: "write", Path: path, Err: err} }
	failed := errors.New("failed")
	for _, test := range []struct {
		err  error
		hint string
	}{
		{nil, ""},
		{failed, ""},
		{in(scratch+"/git/pack", syscall.ENOSPC), " (free disk space, or set RUNNER_TEMP to a directory on another disk)"},
		{in(scratch+"/git/pack", syscall.EDQUOT), " (free disk space, or set RUNNER_TEMP to a directory on another disk)"},
		{in(scratch+"/git/pack", syscall.EACCES), ""},
		{in("/home/report.xml", syscall.ENOSPC), " (free disk space)"},
		{
			errors.New("write " + scratch + "/layers/ingest/total: no space left on device"),
			" (free disk space, or set RUNNER_TEMP to a directory on another disk)",
		},
		{errors.New("step failed: write /var/lib/apt: no space left on device"), ""},
	} {
		got := explainFullDisk(test.err, scratch)
		if !errors.Is(got, test.err) || got != nil && got.Error() != test.err.Error()+test.hint {
			t.Errorf("got %v, want %v%s", got, test.err, test.hint)
		}
	}
}

// git does not report that the disk is full in every case.
func TestFullScratch(t *testing.T) {
	dir := testdaemons.SmallDisk(t, "64k")
	failed := &git.Error{Op: "init", Message: "fatal: could not set 'core.repositoryformatversion' to '0'"}
	if got := explainFullDisk(failed, dir); got != failed { //nolint:errorlint // the same value
		t.Errorf("got %v on a disk with space", got)
	}
	_ = os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o644)
	got := explainFullDisk(failed, dir)
	if !errors.Is(got, failed) || !strings.Contains(got.Error(), "free disk space, or set RUNNER_TEMP") {
		t.Errorf("got %v on a full disk", got)
	}
}
