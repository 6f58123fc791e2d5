package testdaemons

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

// AsNobody calls a function with the access to files that a user without rights has. It must not start goroutines that
// access files.
func AsNobody(t testing.TB, call func()) {
	t.Helper()
	const root, nobody = 0, 65534
	if os.Geteuid() == root {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setfsuid(root); err != nil {
				t.Error(err)
			}
		}()
	}
	call()
}
