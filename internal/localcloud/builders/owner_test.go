package builders

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The daemons exit with their owner, even if it is killed. This test runs itself in a second process as the owner.
func TestDaemonsEndWithOwner(t *testing.T) {
	if testing.Short() {
		t.Skip("needs BuildKit daemons; run without -short")
	}
	if dir := os.Getenv("BUILDERS_OWNER_DIR"); dir != "" {
		b, err := Start(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range b.machines {
			fmt.Println("daemon", m.process.Pid)
		}
		fmt.Println("sockets", b.sockets)
		select {} // until the process is killed
	}

	owner := exec.Command(os.Args[0], "-test.run=^TestDaemonsEndWithOwner$")
	owner.Env = append(os.Environ(), "BUILDERS_OWNER_DIR="+t.TempDir())
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var daemons []int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if pid, ok := strings.CutPrefix(lines.Text(), "daemon "); ok {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			daemons = append(daemons, n)
		} else if dir, ok := strings.CutPrefix(lines.Text(), "sockets "); ok {
			defer os.RemoveAll(dir)
			break
		}
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	if len(daemons) != 2 {
		t.Fatalf("the owner started %d daemons, want 2", len(daemons))
	}
	for _, pid := range daemons {
		for end := time.Now().Add(time.Minute); !ended(pid); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("daemon %d outlives its owner", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
				break
			}
		}
	}
}

// ended reports whether a process has exited: it does not exist, or it is a zombie.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	// proc(5): the state follows the program's name, which is in parentheses.
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}
