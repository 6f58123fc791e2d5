package credentials

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ProtectProcess prevents other processes of the same user, such as a test command, from reading the memory of this
// process and the environment that it was started with: /proc/PID/mem and /proc/PID/environ. A process with
// CAP_SYS_PTRACE, for example of root, still can; see PR_SET_DUMPABLE in prctl(2).
func ProtectProcess() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("protect the environment from other processes: %w", err)
	}
	return nil
}
