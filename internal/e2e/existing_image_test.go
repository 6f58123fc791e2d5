//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// A snapshot of an existing image in a Docker Engine, a registry or a directory does not build. The image keeps its
// digest if the source stores manifests.
func TestSnapshotOfExistingImage(t *testing.T) {
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
	dockerfile := uniqueDockerfile(t)
	loaded := e.mustRun(t, invocation{dockerfile: dockerfile, inputs: values{"image_name": "taken:1"}, env: env})
	e.mustRun(t, invocation{
		dockerfile: dockerfile,
		inputs:     values{"image_name": "taken:1"},
		env:        merge(env, values{"DOCKER_HOST": oldest.Host}),
	})
	pushed := e.mustRun(t, invocation{dockerfile: dockerfile, env: env, inputs: values{
		"load": "false", "push": e.Registry.Addr + "/team/taken:1", "provenance": "false",
		"outputs": "type=oci,tar=false,dest=" + layout,
	}})
	e.mustRun(t, invocation{
		dockerfile: dockerfile, inputs: values{"image_name": "arm:1", "platform": "linux/arm64"}, env: env,
	})
	for _, test := range []struct {
		name, image string
		env         map[string]string
		digest      string // "" for the oldest engine, which stores no manifests
		want        string
	}{
		{name: "current engine", image: "taken:1", digest: loaded.outputs["digest"]},
		{name: "oldest engine", image: "taken:1", env: values{"DOCKER_HOST": oldest.Host}},
		{name: "registry", image: pushed.outputs["image_ref"], digest: pushed.outputs["digest"]},
		{name: "registry, without an engine", image: e.Registry.Addr + "/team/taken:1",
			env: values{"DOCKER_HOST": "unix:///absent.sock"}, digest: pushed.outputs["digest"]},
		{name: "directory", image: layout, digest: pushed.outputs["digest"]},
		{name: "another architecture", image: "arm:1", want: `input image: .*linux/arm64`},
		{name: "image missing in the engine", image: "absent:1", want: `input image: .*"absent:1".*Docker Engine`},
		{name: "image missing in the registry", image: e.Registry.Addr + "/team/absent:1",
			want: `input image: .*absent:1`},
		{name: "missing directory", image: "./absent", want: `input image: .*absent`},
		{name: "no engine", image: "taken:1", env: values{"DOCKER_HOST": "unix:///absent.sock"},
			want: `Docker Engine.*unix:///absent.sock`},
	} {
		t.Run(test.name, func(t *testing.T) {
			depotCalls, daytonaRequests := len(e.Depot.Calls()), len(e.Daytona.Requests())
			r := e.run(t, invocation{
				program:    "action-snapshot",
				dockerfile: dockerfile,
				inputs:     values{"image": test.image, "update_doppler": "false"},
				env:        merge(env, test.env),
			})
			if len(e.Depot.Calls()) != depotCalls {
				t.Error("the program created a build")
			}
			if test.want != "" {
				assertFailed(t, r, test.want)
				for _, request := range e.Daytona.Requests()[daytonaRequests:] {
					if request.Registry {
						t.Errorf("request to the registry: %s %s", request.Method, request.Path)
					}
				}
				return
			}
			if r.exitCode != 0 {
				t.Fatalf("exit code %d:\n%s%s", r.exitCode, r.stdout, r.stderr)
			}
			if test.digest != "" && r.outputs["digest"] != test.digest {
				t.Errorf("digest %s, want %s", r.outputs["digest"], test.digest)
			}
			if created := e.snapshots(t)[r.outputs["snapshot_name"]]; created.Digest != r.outputs["digest"] {
				t.Errorf("digest on Daytona is %s, output is %s", created.Digest, r.outputs["digest"])
			}
			if r.outputs["reused"] == "false" {
				e.deleteSnapshot(t, r.outputs["snapshot_name"])
			}
		})
	}
}

// The shell passes arguments to a command unchanged and exits with its exit code.
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
		{"command", []string{"--image", "shell:1", "--", "sh", "-c", "echo $0 $1; exit 5", "a b", "c"}, 5, "a b c\n"},
		{"mounted directory", []string{"--image", "shell:1", "--mount", "--", "cat", "/here/seen"}, 0, "mounted\n"},
		{"unknown image", []string{"--image", "absent:1"}, 2, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := e.run(t, invocation{
				program: "action-test",
				args:    append([]string{"shell"}, test.args...),
				dir:     dir,
				env:     values{"GITHUB_ACTIONS": ""},
			})
			if r.exitCode != test.exitCode || r.stdout != test.output ||
				test.exitCode == 2 && !strings.Contains(r.stderr, `"absent:1"`) {
				t.Errorf("exit code %d, %q, %s", r.exitCode, r.stdout, r.stderr)
			}
			if left := docker(t, e.Engine.Host, "ps", "-aq"); left != "" {
				t.Errorf("containers left: %s", left)
			}
		})
	}
}

// A container-structure-test suite runs after its conversion.
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
	converted := e.run(t, invocation{
		program: "action-test",
		args:    []string{"convert", "structure.yaml"},
		dir:     dir,
		env:     values{"GITHUB_ACTIONS": ""},
	})
	if converted.exitCode != 0 {
		t.Fatal(converted.stderr)
	}
	if !strings.HasPrefix(converted.stdout, "# yaml-language-server: $schema=https://") {
		t.Errorf("the suite does not name its schema:\n%s", converted.stdout)
	}
	writeFile(t, dir, "tests.yaml", converted.stdout)
	writeFile(t, dir, "Dockerfile", fromDebian)
	r := e.mustRun(t, invocation{program: "action-test", dir: dir, inputs: values{"suite": "tests.yaml"}})
	if r.outputs["tests_passed"] != "2" {
		t.Errorf("outputs %v", r.outputs)
	}
}

// Every problem of a container-structure-test file is listed.
func TestConvertInvalid(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	writeFile(t, dir, "structure.json", `{"schemaVersion": "2.0.0", "FileExistenceTests": [
  {"name": "a", "path": ""},
  {"name": "b", "path": "/etc", "shouldExist": true, "permissions": "0755"},
  {"name": "c", "path": "/etc/hosts"}
]}`)
	r := e.run(t, invocation{
		program: "action-test",
		args:    []string{"convert", "structure.json"},
		dir:     dir,
		env:     values{"GITHUB_ACTIONS": ""},
	})
	for _, position := range []string{"structure.json:2: ", "structure.json:3: ", "structure.json:4: "} {
		if r.exitCode != 1 || r.stdout != "" || strings.Count(r.stderr, position) != 1 {
			t.Errorf("exit code %d, no single %q in %q", r.exitCode, position, r.stderr+r.stdout)
		}
	}
}

// The shell has a terminal that follows the size of the user's terminal. Ctrl-C interrupts the command but not the
// shell, and the program exits with the shell's exit code.
func TestShellTerminal(t *testing.T) {
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
	terminal, screen, read := startAtTerminal(t, command, pty.Winsize{Rows: 33, Cols: 77})
	wait := func(text string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for ; !strings.Contains(screen.String(), text); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%q does not appear:\n%q", text, screen.String())
			}
		}
	}
	typeText := func(text string) {
		t.Helper()
		if _, err := terminal.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	typeText("echo $((40 + 2)) of $(stty size)\r")
	wait("42 of 33 77")
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 44, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	typeText("until [ \"$(stty size)\" = '44 99' ]; do :; done; echo $((6 * 7))-resized\r")
	wait("42-resized")
	// The same process prints the text and sleeps, so it is in the foreground when the text appears.
	typeText("sh -c 'echo $((1 + 1))-sleeps; exec sleep 300'\r")
	wait("2-sleeps")
	typeText("\x03")
	typeText("echo $((1 + 2))-still here\r")
	wait("3-still here")
	typeText("exit 5\r")
	err := command.Wait()
	<-read
	if code := command.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d (%v)", code, err)
	}
	// The engine removes the container after the shell has exited.
	for deadline := time.Now().Add(maxShutdown); ; time.Sleep(10 * time.Millisecond) {
		left := docker(t, e.Engine.Host, "ps", "-aq")
		if left == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("containers left: %s", left)
		}
	}
}

// The test and snapshot actions in another job use a saved image from Depot's registry without docker login.
func TestImageFromDepotRegistry(t *testing.T) {
	e := setup(t)
	saved := e.mustRun(t, invocation{
		dockerfile: uniqueDockerfile(t), inputs: values{"save": "true", "save_tags": "named", "load": "false",
			"provenance": "false"},
	})
	ref := saved.outputs["image_ref"]
	named := e.Registry.Addr + "/" + localcloud.Project + ":named"
	noID := values{"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}
	for _, test := range []struct {
		name, program string
		inputs, env   map[string]string
		want          string // pattern of the error; "": the run succeeds with the saved digest
	}{
		{name: "test", program: "action-test",
			inputs: values{"image": ref, "suite": "none", "command": "test -n \"$LOCAL_DOCKER_IMAGE_NAME\""}},
		{name: "snapshot", program: "action-snapshot", inputs: values{"image": ref, "update_doppler": "false"}},
		{name: "save tag", program: "action-test",
			inputs: values{"image": named, "suite": "none", "command": "true"}},
		{name: "digest", program: "action-test",
			inputs: values{"image": e.Registry.Addr + "/" + localcloud.Project + "@" + saved.outputs["digest"], "suite": "none",
				"command": "true"}},
		{name: "unknown build", program: "action-snapshot",
			inputs: values{"image": e.Registry.Addr + "/sandbox:absent", "update_doppler": "false"},
			want:   `^error: input image: .*/sandbox:absent: .*manifest unknown`},
		{name: "no Depot credentials", program: "action-snapshot", inputs: values{"image": ref, "update_doppler": "false"},
			env:  noID,
			want: "^error: input image: .*OIDC token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(e.Depot.Calls())
			r := e.run(t, invocation{program: test.program, dockerfile: sleepDockerfile, inputs: test.inputs, env: test.env})
			for _, call := range e.Depot.Calls()[before:] {
				if call.Method == "CreateBuild" {
					t.Error("the program created a build")
				}
			}
			if test.want != "" {
				assertFailed(t, r, test.want)
				return
			}
			if r.exitCode != 0 || r.outputs["digest"] != saved.outputs["digest"] ||
				r.outputs["image_ref"] != test.inputs["image"] {
				t.Errorf(
					"exit code %d, digest %s of %s, want %s of %s\n%s",
					r.exitCode,
					r.outputs["digest"],
					r.outputs["image_ref"],
					saved.outputs["digest"],
					test.inputs["image"],
					r.stderr,
				)
			}
			if test.program == "action-snapshot" {
				e.deleteSnapshot(t, r.outputs["snapshot_name"])
			}
		})
	}
}

// The released image is the tested one: a test adds nothing to the workspace, so that the same commit gives the same
// image again, and expect_image_id refuses any other. An image keeps its commit.
func TestSnapshotOfTestedImage(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	git(t, dir, "clone", "--quiet", e.caller, ".")
	writeFile(t, dir, "Dockerfile", uniqueDockerfile(t)+"WORKDIR /src\nCOPY . .\n")
	git(t, dir, "commit", "--quiet", "--all", "--message=copy everything")
	sha := git(t, dir, "rev-parse", "HEAD")
	tested := e.mustRun(t, invocation{
		program: "action-test", dir: dir, inputs: values{"suite": "none", "command": "true", "image_name": "tested:1"},
	})
	id := tested.outputs["image_id"]
	common := values{"update_doppler": "false", "expect_image_id": id}
	for name, inputs := range map[string]values{
		"built again": common, "existing image": merge(common, values{"image": "tested:1"}),
	} {
		r := e.mustRun(t, invocation{program: "action-snapshot", dir: dir, inputs: inputs})
		if r.outputs["image_id"] != id || r.outputs["git_sha"] != sha ||
			!strings.Contains(r.outputs["snapshot_name"], "-"+sha[:7]+"-") {
			t.Errorf("%s: image %s, commit %s, snapshot %s; want %s of %s", name, r.outputs["image_id"], r.outputs["git_sha"],
				r.outputs["snapshot_name"], id, sha)
		}
		if r.outputs["reused"] == "false" {
			e.deleteSnapshot(t, r.outputs["snapshot_name"])
		}
	}
	writeFile(t, dir, "greeting", "changed after the test")
	r := e.run(t, invocation{program: "action-snapshot", dir: dir, inputs: common})
	assertFailed(t, r, `^error: input expect_image_id: "`+id+`" is not the image of this run`)
}
