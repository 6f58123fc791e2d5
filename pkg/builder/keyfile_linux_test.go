package builder

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unsafe"

	depotgo "github.com/depot/depot-go/machine"
	"golang.org/x/sys/unix"
)

// watch watches a directory. The returned function lists the files created since then, including deleted ones.
func watch(t *testing.T, dir string) (created func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		var names []string
		buffer := make([]byte, 1<<16)
		for {
			n, err := unix.Read(fd, buffer)
			if errors.Is(err, unix.EAGAIN) {
				return names
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < n; {
				event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[i]))
				i += unix.SizeofInotifyEvent
				names = append(names, string(bytes.TrimRight(buffer[i:i+int(event.Len)], "\x00")))
				i += int(event.Len)
			}
		}
	}
}

// depot-go v0.5.1 writes private keys to temporary files.
func TestKeysStayInMemory(t *testing.T) {
	tempDir, home := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tempDir)
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	inTempDir, inHome := watch(t, tempDir), watch(t, home)

	reference := &depotgo.Machine{Addr: "tcp://127.0.0.1:1", Cert: "certificate", Key: "key"}
	if _, err := reference.Client(t.Context()); err == nil {
		t.Error("depot-go accepted a malformed certificate")
	}
	if created := strings.Join(inTempDir(), " "); !strings.Contains(created, "depot-key") {
		t.Fatalf("the watch missed the key file of depot-go: %q", created)
	}

	j := &journal{}
	s := startDepotWithMachines(t)
	request := Request{Platforms: []string{"linux/amd64", "linux/arm64"}}
	lease := acquire(t, depot(s, j, "project-token"), request)
	for _, platform := range request.Platforms {
		c, err := lease.Machine(t.Context(), platform)
		if err != nil {
			t.Fatal(err)
		}
		if err := solve(t.Context(), t, c, oneFile); err != nil {
			t.Fatal(err)
		}
	}
	lease.Release(nil)
	if created := append(inTempDir(), inHome()...); len(created) > 0 {
		t.Errorf("files were created: %q", created)
	}
	keys := 0
	for _, secret := range j.secrets() {
		if strings.Contains(secret, "PRIVATE KEY") {
			keys++
		}
	}
	if keys != 2 {
		t.Errorf("%d private keys were masked, want one per machine", keys)
	}
}
