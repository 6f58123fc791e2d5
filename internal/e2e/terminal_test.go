//go:build linux

package e2e

import (
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/org/sandbox-actions/internal/localcloud/programs"
)

// At a prompt, action-test and action-snapshot build an image if the engine does not have the default one. Otherwise
// they use it and say how old it is.
func TestDefaultImageAtPrompt(t *testing.T) {
	e := setup(t)
	for _, program := range []string{"action-test", "action-snapshot"} {
		t.Run(program, func(t *testing.T) {
			name := "prompt-" + strings.ToLower(rand.Text()) + ":1" // the engine keeps the images of earlier tests
			dir := writeFiles(t, values{
				"Dockerfile": uniqueDockerfile(t), "sandbox/tests.yaml": "tests: [{name: shell, run: \"true\"}]\n",
			})
			env := values{"GITHUB_ACTIONS": "", "LOCAL_DOCKER_IMAGE_NAME": name, "DOPPLER_TOKEN": ""}
			inputs := values{}
			if program == "action-snapshot" {
				inputs["name_prefix"] = "prompt"
			}
			run := func(isBuilt bool, want string, args ...string) {
				t.Helper()
				r := e.mustRun(t, invocation{program: program, dir: dir, env: env, inputs: inputs, args: args})
				if !regexp.MustCompile(want).MatchString(r.stderr) || (r.outputs["total_steps"] != "0") != isBuilt {
					t.Errorf("%s steps, or no %q in:\n%s", r.outputs["total_steps"], want, r.stderr)
				}
			}
			run(true, "(?m)^The Docker Engine has no image "+name+": building it$")
			if program == "action-snapshot" { // which does not load what it builds
				e.mustRun(t, invocation{dir: dir, env: env})
			}
			run(false, "(?m)^(Testing|Using) "+name+", built .* ago; --image= builds again$")
			run(true, "", "--image=")
			absent := invocation{program: program, dir: dir, env: env, inputs: inputs, args: []string{"--image", "absent:1"}}
			if r := e.run(t, absent); r.exitCode == 0 || !strings.Contains(r.stderr, `"absent:1" not found`) {
				t.Errorf("an image that the user names: exit code %d:\n%s", r.exitCode, r.stderr)
			}
		})
	}
}

// startAtTerminal starts a command at a pseudo-terminal. read is closed when all of its output is on the screen.
func startAtTerminal(
	t *testing.T, command *exec.Cmd, size pty.Winsize,
) (terminal *os.File, screen *programs.Buffer, read <-chan struct{}) {
	t.Helper()
	terminal, err := pty.StartWithSize(command, &size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	screen = &programs.Buffer{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(screen, terminal) // fails when the program exits
	}()
	return terminal, screen, ended
}

// At a terminal, the build, the load and the end of a run are shown, without broken lines, and no outputs for scripts.
func TestSessionAtTerminal(t *testing.T) {
	e := setup(t)
	dir := writeFiles(t, values{"Dockerfile": uniqueDockerfile(t)})
	command := exec.CommandContext(t.Context(), filepath.Join(e.programs, "action-build"), "--image-name", "session:1")
	command.Dir = dir
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm", "LANG=C.UTF-8"}
	for name, value := range e.Env() {
		if name != "GITHUB_ACTIONS" {
			command.Env = append(command.Env, name+"="+value)
		}
	}
	_, screen, read := startAtTerminal(t, command, pty.Winsize{Rows: 40, Cols: 90})
	err := command.Wait()
	<-read
	text := screen.String()
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	rest := text
	for _, want := range []string{
		"[+] Building ", "FINISHED", "[+] Loading ", "=> load session:1", "FINISHED",
		"Built session:1 sha256:", "digest", "Next:", "docker run --rm -it session:1",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("no %q after the text before it:\n%q", want, text)
		}
		rest = after
	}
	if strings.Contains(text, "image_id=") {
		t.Errorf("outputs for scripts:\n%s", text)
	}
}
