package actions

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
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
