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

// Killed without a chance to stop anything, the owner takes its daemons along. The owner is this test again, as a
// process of its own.
func TestDaemonsEndWithTheirOwner(t *testing.T) {
	if dir := os.Getenv("BUILDERS_OWNER_DIR"); dir != "" {
		b, err := Start(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range b.machines {
			fmt.Println("daemon", m.process.Pid)
		}
		fmt.Println("sockets", b.sockets)
		select {} // until we are killed
	}

	owner := exec.Command(os.Args[0], "-test.run=^TestDaemonsEndWithTheirOwner$")
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
		for end := time.Now().Add(10 * time.Second); !ended(pid); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("daemon %d outlives its owner", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
				break
			}
		}
	}
}

// ended tells whether a process is gone, or dead and not yet waited for by whoever inherited it.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	// proc(5): the state follows the program's name, which is in parentheses.
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}
