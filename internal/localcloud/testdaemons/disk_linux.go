package testdaemons

import (
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk returns a directory on a file system of its own with a size as in mount's options, such as "32m". It is
// unmounted when the test ends. SmallDisk skips the test under -short: it needs root.
func SmallDisk(t testing.TB, size string) (dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root to mount a file system; run without -short")
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
