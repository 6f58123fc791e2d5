package dockerengine

import (
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A killed process remains until its parent waits for it.
func TestZombieIsOrphaned(t *testing.T) {
	ended := exec.Command("sleep", "infinity")
	if err := ended.Start(); err != nil {
		t.Fatal(err)
	}
	self, err := processOwner(ended.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	labels := ownerLabels(time.Now())
	labels[ownerLabel] = self.String()
	if orphaned(labels, time.Now()) {
		t.Error("a running process counts as ended")
	}
	if err := ended.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, ended.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if !orphaned(labels, time.Now()) {
		t.Error("a zombie counts as running")
	}
	_ = ended.Wait()
}
