//go:build !linux

package testdaemons

import "testing"

// SmallDisk skips the test, because it requires Linux.
func SmallDisk(t testing.TB, _ string) (dir string) {
	t.Helper()
	t.Skip("needs Linux to mount a file system")
	return ""
}
