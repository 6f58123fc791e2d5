package testdaemons

import (
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk mounts a file system of the given size, for example "32m", and returns its directory. It unmounts the file
// system when the test ends. It requires root and skips the test under -short.
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
