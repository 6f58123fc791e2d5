//go:build linux

package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// A snapshot of an image that is there: in an engine of either age, in a registry, in a folder. What comes from a place
// that keeps
// manifests has the same digest at Daytona; nothing is built.
func TestSnapshotOfAnImageThatIsThere(t *testing.T) {
	e := setup(t)
	oldest, err := engine.Start(t.Context(), engine.Oldest, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := oldest.Stop(); err != nil {
			t.Error(err)
		}
	})
	home, layout := e.login(t), t.TempDir()
	env := values{"HOME": home}
	docker := uniqueDockerfile(t)
	loaded := e.mustRun(t, invocation{dockerfile: docker, inputs: values{"image_name": "taken:1"}, env: env})
	e.mustRun(
		t,
		invocation{
			dockerfile: docker,
			inputs:     values{"image_name": "taken:1"},
			env:        merge(env, values{"DOCKER_HOST": oldest.Host}),
		},
	)
	pushed := e.mustRun(t, invocation{dockerfile: docker, env: env, inputs: values{
		"load": "false", "push": e.Registry.Addr + "/team/taken:1", "provenance": "false",
		"outputs": "type=oci,tar=false,dest=" + layout,
	}})
	e.mustRun(
		t,
		invocation{dockerfile: docker, inputs: values{"image_name": "arm:1", "platform": "linux/arm64"}, env: env},
	)
	for _, test := range []struct {
		name, image string
		env         map[string]string
		digest      string // "": another one, since that engine keeps no manifest
		fails       string
	}{
		{name: "the current engine", image: "taken:1", digest: loaded.outputs["digest"]},
		{name: "the oldest engine", image: "taken:1", env: values{"DOCKER_HOST": oldest.Host}},
		{name: "a registry", image: pushed.outputs["image_ref"], digest: pushed.outputs["digest"]},
		{name: "a registry, without an engine", image: e.Registry.Addr + "/team/taken:1",
			env: values{"DOCKER_HOST": "unix:///absent.sock"}, digest: pushed.outputs["digest"]},
		{name: "a folder", image: layout, digest: pushed.outputs["digest"]},
		{name: "another architecture", image: "arm:1", fails: `input image: .*linux/arm64`},
		{name: "one that is not there", image: "absent:1", fails: `input image: .*"absent:1".*Docker Engine`},
		{name: "no image of that registry", image: e.Registry.Addr + "/team/absent:1", fails: `input image: .*absent:1`},
		{name: "no folder", image: "./absent", fails: `input image: .*absent`},
		{name: "no engine", image: "taken:1", env: values{"DOCKER_HOST": "unix:///absent.sock"},
			fails: `Docker Engine.*unix:///absent.sock`},
	} {
		t.Run(test.name, func(t *testing.T) {
			builds, asked := len(e.Depot.Calls()), len(e.Daytona.Requests())
			o := e.run(
				t,
				invocation{
					program:    "action-snapshot",
					dockerfile: docker,
					inputs:     values{"image": test.image, "update_doppler": "false"},
					env:        merge(env, test.env),
				},
			)
			if len(e.Depot.Calls()) != builds {
				t.Error("something was built")
			}
			if test.fails != "" {
				assertFailed(t, o, test.fails)
				for _, request := range e.Daytona.Requests()[asked:] {
					if request.Registry {
						t.Errorf("the registry was asked: %s %s", request.Method, request.Path)
					}
				}
				return
			}
			if o.exitCode != 0 {
				t.Fatalf("exit %d:\n%s%s", o.exitCode, o.stdout, o.stderr)
			}
			if test.digest != "" && o.outputs["digest"] != test.digest {
				t.Errorf("digest %s, want %s", o.outputs["digest"], test.digest)
			}
			if made := e.snapshots(t)[o.outputs["snapshot_name"]]; made.Digest != o.outputs["digest"] {
				t.Errorf("Daytona has %s, and the output is %s", made.Digest, o.outputs["digest"])
			}
			if o.outputs["reused"] == "false" {
				e.deleteSnapshot(t, o.outputs["snapshot_name"])
			}
		})
	}
}

// The shell's exit code is the command's, and its arguments arrive as they are; a terminal is tried in
// pkg/dockerengine.
func TestShell(t *testing.T) {
	e := setup(t)
	e.mustRun(t, invocation{dockerfile: fromDebian + "WORKDIR /here\n", inputs: values{"image_name": "shell:1"}})
	dir := t.TempDir()
	writeFile(t, dir, "seen", "mounted\n")
	for _, test := range []struct {
		name     string
		args     []string
		exitCode int
		output   string
	}{
		{"a command", []string{"--image", "shell:1", "--", "sh", "-c", "echo $0 $1; exit 5", "a b", "c"}, 5, "a b c\n"},
		{"the folder", []string{"--image", "shell:1", "--mount", "--", "cat", "/here/seen"}, 0, "mounted\n"},
		{"no image", []string{"--image", "absent:1"}, 1, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := e.run(
				t,
				invocation{
					program: "action-test",
					args:    append([]string{"shell"}, test.args...),
					dir:     dir,
					env:     values{"GITHUB_ACTIONS": ""},
				},
			)
			if o.exitCode != test.exitCode || o.stdout != test.output ||
				test.exitCode == 1 && !strings.Contains(o.stderr, `"absent:1"`) {
				t.Errorf("exit %d, %q, %s", o.exitCode, o.stdout, o.stderr)
			}
			if left := docker(t, e.Engine.Host, "ps", "-aq"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// A suite of container-structure-test's becomes one of ours, and runs.
func TestConvert(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	writeFile(t, dir, "structure.yaml", `schemaVersion: "2.0.0"
commandTests:
  - name: "debian"
    command: "cat"
    args: ["/etc/debian_version"]
    expectedOutput: ["^12"]
fileExistenceTests:
  - name: "passwd"
    path: "/etc/passwd"
    shouldExist: true
    permissions: "-rw-r--r--"
`)
	converted := e.run(
		t,
		invocation{
			program: "action-test",
			args:    []string{"convert", "structure.yaml"},
			dir:     dir,
			env:     values{"GITHUB_ACTIONS": ""},
		},
	)
	if converted.exitCode != 0 {
		t.Fatal(converted.stderr)
	}
	writeFile(t, dir, "tests.yaml", converted.stdout)
	writeFile(t, dir, "Dockerfile", fromDebian)
	o := e.mustRun(t, invocation{program: "action-test", dir: dir, inputs: values{"suite": "tests.yaml"}})
	if o.outputs["tests_passed"] != "2" {
		t.Errorf("outputs %v", o.outputs)
	}
}

// A person types into the shell: the terminal has its size, Ctrl-C ends what runs and not the shell, exit's code comes
// out.
func TestShellAtATerminal(t *testing.T) {
	e := setup(t)
	e.mustRun(t, invocation{dockerfile: fromDebian + "CMD [\"bash\"]\n", inputs: values{"image_name": "terminal:1"}})
	command := exec.CommandContext(
		t.Context(),
		filepath.Join(e.programs, "action-test"),
		"shell",
		"--image",
		"terminal:1",
		"--",
		"bash",
		"--norc",
	)
	command.Env = append(os.Environ(), "DOCKER_HOST="+e.Engine.Host)
	terminal, err := pty.StartWithSize(command, &pty.Winsize{Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var screen safeBuffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&screen, terminal) // ends with an error when the program has
	}()
	wait := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !strings.Contains(screen.String(), text); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%q does not come:\n%q", text, screen.String())
			}
		}
	}
	typed := func(text string) {
		t.Helper()
		if _, err := terminal.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	typed("echo $((40 + 2)) of $(stty size)\r")
	wait("42 of 33 77")
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 44, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	typed("until [ \"$(stty size)\" = '44 99' ]; do :; done; echo $((6 * 7))-resized\r")
	wait("42-resized")
	typed("echo $((1 + 1))-sleeps; sleep 300\r")
	wait("2-sleeps")
	typed("\x03")
	typed("echo $((1 + 2))-still here\r")
	wait("3-still here")
	typed("exit 5\r")
	err = command.Wait()
	<-read
	if code := command.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit %d (%v)", code, err)
	}
	if left := docker(t, e.Engine.Host, "ps", "-aq"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// What one job has built and saved, the next one takes from Depot's registry without a login of its own; tested and
// released, it is the same image.
func TestImageFromDepotsRegistry(t *testing.T) {
	e := setup(t)
	saved := e.mustRun(
		t,
		invocation{dockerfile: uniqueDockerfile(t), inputs: values{"save": "true", "load": "false", "provenance": "false"}},
	)
	ref := saved.outputs["image_ref"]
	noID := values{"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}
	for _, test := range []struct {
		name, program string
		inputs, env   map[string]string
		sentence      string // "": the digest is the saved one's
	}{
		{name: "tested", program: "action-test",
			inputs: values{"image": ref, "suite": "none", "command": "test -n \"$LOCAL_DOCKER_IMAGE_NAME\""}},
		{name: "released", program: "action-snapshot", inputs: values{"image": ref, "update_doppler": "false"}},
		{name: "no such build", program: "action-snapshot",
			inputs:   values{"image": e.Registry.Addr + "/sandbox:absent", "update_doppler": "false"},
			sentence: `^error: input image: read \S+/sandbox:absent: the registry does not accept the login.*; if Depot keeps it: get a password to pull \S+/sandbox:absent: .*build absent not found`},
		{name: "no way into Depot", program: "action-snapshot", inputs: values{"image": ref, "update_doppler": "false"},
			env:      noID,
			sentence: "^error: input image: .*; if Depot keeps it: the job may not ask for an OIDC token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(e.Depot.Calls())
			o := e.run(t, invocation{program: test.program, dockerfile: sleepDockerfile, inputs: test.inputs, env: test.env})
			for _, call := range e.Depot.Calls()[before:] {
				if call.Method == "CreateBuild" {
					t.Error("it was built again")
				}
			}
			if test.sentence != "" {
				assertFailed(t, o, test.sentence)
				return
			}
			if o.exitCode != 0 || o.outputs["digest"] != saved.outputs["digest"] || o.outputs["image_ref"] != ref {
				t.Errorf(
					"exit %d, digest %s of %s, want %s of %s\n%s",
					o.exitCode,
					o.outputs["digest"],
					o.outputs["image_ref"],
					saved.outputs["digest"],
					ref,
					o.stderr,
				)
			}
			if test.program == "action-snapshot" {
				e.deleteSnapshot(t, o.outputs["snapshot_name"])
			}
		})
	}
}
