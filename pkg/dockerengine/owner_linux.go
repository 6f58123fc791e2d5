package dockerengine

import (
	"fmt"
	"os"
	"strings"
)

// processOwner identifies a process by the boot ID, the PID namespace, and the process's start time in clock ticks
// since boot. It returns [os.ErrProcessDone] for a process that has ended. See proc(5).
func processOwner(pid int) (owner, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return owner{}, err
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return owner{}, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return owner{}, err
	}
	// The second field is the program's name in parentheses. It may contain spaces and parentheses.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return owner{}, fmt.Errorf("parse /proc/%d/stat: unexpected format", pid)
	}
	if state := fields[0]; state == "Z" || state == "X" { // killed, but its parent has not waited for it yet
		return owner{}, os.ErrProcessDone
	}
	return owner{machine: hashMachine(string(boot), namespace), pid: pid, start: fields[19]}, nil
}
