package dockerengine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A program that cannot be started has the same error as the first process of a container and in a running container.
func TestStartError(t *testing.T) {
	fixture := filepath.Join(t.TempDir(), "fixture")
	if err := os.WriteFile(fixture, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	mounts := []Mount{{fixture, "/in/file"}}
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		running, out := start(t, e, ContainerSpec{Cmd: []string{"trap"}, Mounts: mounts})
		out.await(t, "ready")
		for _, test := range []struct {
			name, program string
			exit          int
			cause         string
		}{
			{"unknown name", "no-such-program", exitNotFound, `"no-such-program": executable file not found in $PATH`},
			{"missing file", "/no/such", exitNotFound, `"/no/such": stat /no/such: no such file or directory`},
			{"not executable", "/in/file", exitNotExecutable, `"/in/file": permission denied`},
			{"directory", "/in", exitNotExecutable, `"/in": `},
		} {
			t.Run(test.name, func(t *testing.T) {
				c := create(t, e, ContainerSpec{Entrypoint: []string{}, Cmd: []string{test.program}, Mounts: mounts})
				_, runErr := c.Run(t.Context(), Streams{})
				_, execErr := running.Exec(t.Context(), ExecSpec{Cmd: []string{test.program}})
				for _, err := range []error{runErr, execErr} {
					failed := new(StartError)
					if !errors.As(err, &failed) || failed.Exit != test.exit || !strings.HasPrefix(failed.Cause, test.cause) {
						t.Errorf("got %v, want exit %d, %s", err, test.exit, test.cause)
					}
				}
			})
		}
		t.Run("exit code of the program", func(t *testing.T) {
			exit, err := running.Exec(t.Context(), ExecSpec{Cmd: []string{"/probe", "exit", "127"}})
			if err != nil || exit != 127 {
				t.Errorf("exit code %d, %v", exit, err)
			}
		})
		t.Run("other cause", func(t *testing.T) {
			c := create(t, e, ContainerSpec{Mounts: []Mount{{filepath.Dir(fixture), "/probe"}}})
			_, err := c.Run(t.Context(), Streams{})
			failed := new(StartError)
			if !errors.As(err, &failed) || failed.Exit != 0 || !strings.Contains(failed.Cause, "not a directory") {
				t.Error(err)
			}
		})
		t.Run("directory of a command", func(t *testing.T) {
			_, err := running.Exec(t.Context(), ExecSpec{Cmd: []string{"/probe", "where"}, WorkDir: "/no/such"})
			failed := new(StartError)
			if !errors.As(err, &failed) || failed.Exit != 0 ||
				!strings.HasPrefix(failed.Cause, `working directory "/no/such": `) {
				t.Error(err)
			}
		})
	})
}

func TestRuntimeCause(t *testing.T) {
	for message, want := range map[string]string{
		"Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create " +
			"failed: runc create failed: unable to start container process: error during container init: exec: \"x\": " +
			"executable file not found in $PATH": `exec: "x": executable file not found in $PATH`,
		"OCI runtime create failed: container_linux.go:380: starting container process caused: process_linux.go:545: " +
			"container init caused: rootfs_linux.go:76: mounting \"/a\" to rootfs at \"/b\" caused: mount through procfd: " +
			"not a directory: unknown": `mount "/a" on "/b": not a directory`,
		"failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: " +
			"unable to start container process: error during container init: error mounting \"/d\" to rootfs at " +
			"\"/etc/passwd\": mount src=/d, dst=/etc/passwd, dstFd=/proc/thread-self/fd/16, flags=MS_BIND|MS_REC: not a " +
			"directory" + mountHint: `mount "/d" on "/etc/passwd": not a directory`,
		"OCI runtime exec failed: exec failed: unable to start container process: chdir to cwd (\"/f\") set in " +
			"config.json failed: not a directory" + mountHint: `working directory "/f": not a directory`,
		"OCI runtime exec failed: exec failed: unable to start container process: exec: \"/etc\": is a directory: " +
			"permission denied\r\n": `exec: "/etc": is a directory: permission denied`,
		"crun: executable file `x` not found in $PATH": "crun: executable file `x` not found in $PATH",
		"": "",
	} {
		if got := runtimeCause(message); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestBeginning(t *testing.T) {
	b := &beginning{Writer: io.Discard}
	for range 3 {
		if n, err := b.Write(make([]byte, maxBeginning/2+1)); n != maxBeginning/2+1 || err != nil {
			t.Error(n, err)
		}
	}
	if len(b.bytes) != maxBeginning {
		t.Errorf("%d bytes", len(b.bytes))
	}
}
