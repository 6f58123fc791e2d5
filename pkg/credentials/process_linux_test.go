package credentials

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// helperMode is a variable that makes the test binary protect itself, or not, and run a command that attacks it.
const helperMode = "PROTECT_PROCESS_TEST"

func init() {
	mode := os.Getenv(helperMode)
	if mode == "" {
		return
	}
	if mode == "protected" {
		if err := ProtectProcess(); err != nil {
			panic(err)
		}
	}
	attack := exec.Command("sh", "-c", `cat "/proc/$PPID/environ"; head -c 1 "/proc/$PPID/mem"`)
	attack.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, _ := attack.CombinedOutput()
	_, _ = os.Stdout.Write(out)
	os.Exit(0)
}

// A command that the program starts cannot read the environment that the program was started with.
func TestProtectProcess(t *testing.T) {
	// Another user can execute the copy of the test binary, but not the original.
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.WriteFile(program, binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mode   string
		leaked bool
	}{{"unprotected", true}, {"protected", false}} {
		command := exec.CommandContext(t.Context(), program)
		command.Env = []string{"PATH=" + os.Getenv("PATH"), helperMode + "=" + test.mode, "INPUT_DOPPLER_TOKEN=dp.st.secret"}
		if os.Getuid() == 0 {
			// Root can always read it.
			command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			command.Dir = "/"
		}
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if leaked := bytes.Contains(out, []byte("dp.st.secret")); leaked != test.leaked {
			t.Errorf("%s: leaked: %t, want %t: %s", test.mode, leaked, test.leaked, out)
		}
	}
}
