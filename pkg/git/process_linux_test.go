package git

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// git does not outlive a program that is killed.
func TestRunEndsWithProcess(t *testing.T) {
	if os.Getenv("GIT_RUN_FETCH") != "" { // the program
		_, err := Git{}.Output(t.Context(), "fetch")
		t.Fatal(err)
	}
	dir := fakeGit(t, `exec 3>"${0%/*}/pipe"; echo started >&3; exec sleep 600`)
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	program := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	program.Env = append(os.Environ(), "GIT_RUN_FETCH=1")
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(pipe) // waits for git
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.ReadFull(file, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = program.Wait()
	if err := file.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(file); err != nil { // it ends when git exits
		t.Errorf("git is running: %v", err)
	}
}
