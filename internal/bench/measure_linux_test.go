package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// measure runs a command and measures it. It fails the test if the command fails.
func measure(t *testing.T, command *exec.Cmd) Usage {
	t.Helper()
	usage, err := tryMeasure(command)
	if err != nil {
		t.Fatal(err)
	}
	return usage
}

// tryMeasure runs a command and measures it. It reads the memory while the command runs: the resource usage that wait
// reports also counts the memory of the parent process, which runs the local cloud.
func tryMeasure(command *exec.Cmd) (usage Usage, err error) {
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	began := time.Now()
	if err := command.Start(); err != nil {
		return Usage{}, err
	}
	pid := command.Process.Pid
	exited := make(chan time.Duration, 1)
	go func() {
		// The process remains a zombie, so that its counters are final and include those of its children.
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		exited <- time.Since(began)
	}()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for usage.Value == 0 {
		select {
		case took := <-exited:
			usage.Value = took.Seconds()
		case <-ticker.C:
			usage.Memory = max(usage.Memory, sumFields(pid, "status", "VmHWM:")*1024)
		}
	}
	usage.Moved = sumFields(pid, "io", "rchar:", "wchar:")
	if err := command.Wait(); err != nil {
		return Usage{}, fmt.Errorf("%s: %w\n%s", command, err, &out)
	}
	return usage, nil
}

// sumFields returns the sum of fields of a file of a process, see proc(5), or 0 if the process has none.
func sumFields(pid int, file string, names ...string) (sum int64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && slices.Contains(names, fields[0]) {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil {
				sum += n
			}
		}
	}
	return sum
}

// mustRun runs a command without measuring it.
func mustRun(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

// machine describes the machine: its processors, memory and kernel.
func machine(t *testing.T) string {
	t.Helper()
	script := `printf '%s cores of %s, %s GB of memory, Linux %s' "$(nproc)" \
"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1 | tr -s ' ')" \
"$(awk '/^MemTotal/ { printf "%.0f", $2 / 1e6 }' /proc/meminfo)" "$(uname -r)"`
	return mustRun(t, exec.Command("sh", "-c", script))
}
