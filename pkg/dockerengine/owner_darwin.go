package dockerengine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// processOwner identifies a process by the boot session and the process's start time. See sysctl(3).
func processOwner(pid int) (owner, error) {
	boot, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return owner{}, err
	}
	process, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return owner{}, err
	}
	began := process.Proc.P_starttime
	return owner{machine: hashMachine(boot, ""), pid: pid, start: fmt.Sprintf("%d.%d", began.Sec, began.Usec)}, nil
}
