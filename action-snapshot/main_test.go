package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/org/sandbox-actions/internal/localcloud/programs"
)

// asProgram is the environment variable that makes the test binary run as the program.
const asProgram = "TEST_ACTION_SNAPSHOT"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// run runs the program and returns its output and exit code.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], args...)
	command.Env = append(os.Environ(), asProgram+"=true", "GITHUB_ACTIONS=")
	var out, messages bytes.Buffer
	command.Stdout, command.Stderr = &out, &messages
	if err := command.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String(), messages.String(), command.ProcessState.ExitCode()
}

func TestCommandLine(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	const version = "action-snapshot (built from source)\n"
	for _, test := range []struct {
		args   []string
		stdout string // its beginning
		stderr string
		code   int
	}{
		{[]string{"--version"}, version, "", 0},
		{[]string{"-v"}, version, "", 0},
		{[]string{"list", "--version"}, version, "", 0},
		{[]string{"version"}, version, "", 0},
		{[]string{"--help"}, "Usage: action-snapshot [flags]", "", 0},
		{[]string{"help"}, "Usage: action-snapshot [flags]", "", 0},
		{[]string{"help", "list"}, "Usage: action-snapshot list [flags]", "", 0},
		{[]string{"list", "-h"}, "Usage: action-snapshot list [flags]", "", 0},
		{[]string{"completion", "bash"}, "# bash completion of action-snapshot.", "", 0},
		{[]string{"completion", "csh"}, "", "error: unknown shell \"csh\"; write bash, zsh or fish\n", 2},
		{[]string{"list", "extra"}, "", "error: unexpected argument \"extra\"; usage: action-snapshot list [flags]\n", 2},
		{[]string{"delete"}, "", "error: missing argument <name>; usage: action-snapshot delete <name> [flags]\n", 2},
		{[]string{"--cpux", "4"}, "", "error: unknown flag --cpux; did you mean --cpu?\n", 2},
	} {
		stdout, stderr, code := run(t, test.args...)
		if !strings.HasPrefix(stdout, test.stdout) || stderr != test.stderr || code != test.code {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
	}
}

// An unknown command names the similar one, and all commands. Each has a help text.
func TestCommands(t *testing.T) {
	_, stderr, code := run(t, "lst")
	before, list, _ := strings.Cut(strings.TrimSpace(stderr), " Commands: ")
	if code != 2 || before != `error: unknown command "lst"; did you mean "list"?` {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	for _, name := range []string{"list", "delete", "promote", "rollback", "history", "doctor", "completion", "version"} {
		if !strings.Contains(list+",", name+",") {
			t.Errorf("%q lacks %s", list, name)
		}
	}
	for name := range strings.SplitSeq(list, ", ") {
		stdout, _, code := run(t, name, "--help")
		if lines := strings.Count(stdout, "\n"); code != 0 || lines < 5 || lines > 40 {
			t.Errorf("%s --help: exit code %d, %d lines", name, code, lines)
		}
	}
}

// installCompletion returns a directory with a program action-snapshot that completes words and otherwise prints its
// arguments, and with the completion script of a shell.
func installCompletion(t *testing.T, shell string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	program := "#!/bin/sh\nif [ \"$1\" = __complete ]; then " + asProgram + "=1 exec " + os.Args[0] + " \"$@\"; fi\n" +
		"echo \"ran with [$*]\"\n"
	completion, _, _ := run(t, "completion", shell)
	for name, content := range map[string]string{"action-snapshot": program, "completion": completion, "a file": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// zsh and fish show the completions with their descriptions.
func TestOtherCompletions(t *testing.T) {
	for shell, test := range map[string]struct {
		command string // %s is a command line, of which the last word is completed
		want    map[string]string
	}{
		"fish": {"source completion; complete -C %q", map[string]string{
			"action-snapshot prom":           "promote\tNames an existing snapshot in other Doppler configs\n",
			"action-snapshot --if-exists=re": "--if-exists=replace\n--if-exists=reuse\n",
			"action-snapshot --dry-":         "--dry-run\tWith --keep: only print which snapshots would be deleted\n",
			"action-snapshot --entrypoint a": "a file\naction-snapshot\n",
		}},
		"zsh": {"compdef() {}; _files() { print files }; _describe() { print -rl -- $candidates }; source ./completion; " +
			"words=(${(z)${:-%q}}); CURRENT=$#words; _action_snapshot", map[string]string{
			"action-snapshot prom":           "promote:Names an existing snapshot in other Doppler configs\n",
			"action-snapshot --if-exists=re": "--if-exists=reuse:\n--if-exists=replace:\n",
			"action-snapshot --entrypoint a": "files\n",
		}},
	} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skip(err)
			}
			dir := installCompletion(t, shell)
			for line, want := range test.want {
				command := exec.CommandContext(t.Context(), shell, "-c", fmt.Sprintf(test.command, line))
				command.Dir = dir
				command.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir}
				got, err := command.CombinedOutput()
				if err != nil || string(got) != want {
					t.Errorf("%s: %v, got %q, want %q", line, err, got, want)
				}
			}
		})
	}
}

// In bash, Tab completes commands, flags and values.
func TestBashCompletion(t *testing.T) {
	dir := installCompletion(t, "bash")
	shell := exec.CommandContext(t.Context(), "bash", "--norc", "--noprofile", "-i")
	shell.Dir = dir
	shell.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "TERM=dumb", "HOME=" + dir, "PS1=$ "}
	terminal, err := pty.StartWithSize(shell, &pty.Winsize{Rows: 24, Cols: 200})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var screen programs.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&screen, terminal) // fails when the shell exits
	}()
	typeText := func(text string) {
		t.Helper()
		if _, err := terminal.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	typeText("source ./completion\r")
	for _, test := range []struct{ typed, want string }{
		{"action-snapshot his\t\r", "ran with [history]"},
		{"action-snapshot --dry\t\r", "ran with [--dry-run]"},
		{"action-snapshot --if-exists=repl\t\r", "ran with [--if-exists=replace]"},
		{"action-snapshot --if-exists fa\t\r", "ran with [--if-exists fail]"},
		{"action-snapshot list --name-p\tx\r", "ran with [list --name-prefix x]"},
		{"action-snapshot --entrypoint a\\ f\t\r", "ran with [--entrypoint a file]"},
	} {
		typeText(test.typed)
		deadline := time.Now().Add(time.Minute)
		for ; !strings.Contains(screen.String(), test.want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%q: %q does not appear:\n%q", test.typed, test.want, screen.String())
			}
		}
	}
	typeText("exit\r")
	_ = shell.Wait()
	<-read
}
