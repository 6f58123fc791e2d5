package dockerengine

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenWithoutPermission(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chmod(socket, 0o660); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	// Access files and sockets as another user in this thread. See setfsuid(2).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, set := range []func(int) error{
		func(id int) error { _, err := unix.SetfsgidRetGid(id); return err },
		func(id int) error { _, err := unix.SetfsuidRetUid(id); return err },
	} {
		if err := set(65534); err != nil {
			t.Fatal(err)
		}
		defer set(0)
	}
	_, err = Open(t.Context(), env(map[string]string{"DOCKER_HOST": "unix://" + socket, "HOME": "/nonexistent"}))
	if err == nil || !strings.Contains(err.Error(), "permission denied (add your user to the docker group") {
		t.Errorf("got %v", err)
	}
}
