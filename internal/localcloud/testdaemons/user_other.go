//go:build !linux

package testdaemons

import (
	"os"
	"testing"
)

// AsNobody calls a function. It skips the test if the user is root, because the function needs a user without rights.
func AsNobody(t testing.TB, call func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("needs Linux or a user without rights")
	}
	call()
}
