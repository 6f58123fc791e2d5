package builders

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttributes end the daemon with this process, even when that is killed: SIGTERM lets the daemon end the
// containers that it runs. Its own process group keeps a terminal's Ctrl-C away from it, so that Stop ends it in order.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}

func unmount(point string) error { return unix.Unmount(point, unix.MNT_DETACH) }
