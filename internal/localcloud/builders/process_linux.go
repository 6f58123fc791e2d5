package builders

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttributes returns attributes that send the daemon SIGTERM when this process exits or is killed, so that the
// daemon stops its containers. A separate process group keeps a terminal's Ctrl-C from the daemon until Stop.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}

func unmount(point string) error { return unix.Unmount(point, unix.MNT_DETACH) }
