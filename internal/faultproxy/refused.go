package faultproxy

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Refused returns the host and port of a loopback address that refuses connections. It holds the port until the test
// ends, so that no other program listens on it.
func Refused(t testing.TB) (host string) {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(socket) })
	unix.CloseOnExec(socket)
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port)
}
