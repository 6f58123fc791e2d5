package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stalled is how long git waits for a server that sends next to nothing.
var stalled = 60 * time.Second

// git runs the git program in one place, with settings that no repository and no user can change: no hooks, no file system monitor, no
// prompts, none of the protocols that run a command, and no folder of the commit that poses as a repository with settings of its own.
type git struct {
	dir      string   // where it runs
	settings []string // further settings, name and value in turn; passed in the environment, so no credential is an argument
	env      []string
}

// run returns what git prints.
func (g git) run(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := g.pipe(ctx, stdin, &out, args...)
	return out.Bytes(), err
}

func (g git) pipe(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout = g.dir, stdin, stdout
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = environment(os.Environ())
	settings := append([]string{
		"core.hooksPath", "/dev/null", "core.fsmonitor", "false", "core.attributesFile", "/dev/null", "core.quotePath", "false",
		"safe.directory", "*", "submodule.recurse", "false", "advice.detachedHead", "false",
		"safe.bareRepository", "explicit", "http.saveCookies", "false",
		"http.lowSpeedLimit", "1000", "http.lowSpeedTime", fmt.Sprint(int(stalled.Seconds())),
	}, g.settings...)
	cmd.Env = append(cmd.Env, "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ALLOW_PROTOCOL=https:http:ssh:file", "LC_ALL=C", fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)/2))
	for i := 0; i < len(settings); i += 2 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, settings[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, settings[i+1]))
	}
	cmd.Env = append(cmd.Env, g.env...)
	// git has children of its own (git-remote-https): all end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("git is not installed: install it (apt-get install git)")
	}
	return &gitError{command: args[0], said: said(stderr.String()), err: err}
}

// ownCommands are the settings by which what git does here would run a command (git-config), and what they are instead.
var ownCommands = []struct {
	form    *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`^filter\..*\.(clean|smudge|process)$`), ""},
	{regexp.MustCompile(`^filter\..*\.required$`), "false"},
	{regexp.MustCompile(`^credential\.(.*\.)?helper$`), ""},
	{regexp.MustCompile(`^core\.sshcommand$`), "ssh"},
}

// distrust is git in a repository whose own settings run no command. They came with the folder, from anybody: an artifact, a cache, another user
// of the machine. The machine's and the user's settings stay.
func (g git) distrust(ctx context.Context) (git, error) {
	out, err := g.run(ctx, nil, "config", "--list", "--show-scope", "--name-only", "--null")
	if err != nil {
		return git{}, err
	}
	list := strings.Split(string(out), "\x00") // scope and name in turn
	g.settings = slices.Clone(g.settings)
	for i := 0; i+1 < len(list); i += 2 {
		scope, name := list[i], list[i+1]
		if scope != "local" && scope != "worktree" {
			continue
		}
		if strings.HasPrefix(name, "remote.") && strings.HasSuffix(name, ".uploadpack") {
			g.env = append(slices.Clone(g.env), "GIT_ALLOW_PROTOCOL=https:http") // of two such settings the first counts, which is not ours; they act over file and ssh
		}
		for _, c := range ownCommands {
			if c.form.MatchString(name) {
				g.settings = append(g.settings, name, c.instead)
				if strings.HasPrefix(name, "credential.") { // an empty one there is for that server only; here, for all
					g.settings = append(g.settings, "credential.helper", "")
				}
			}
		}
	}
	return g, nil
}

// recent refuses a git that would run without our settings: it does not read them from the environment.
func (g git) recent(ctx context.Context) error {
	out, err := g.run(ctx, nil, "version")
	if err != nil {
		return err
	}
	var major, minor int
	version := strings.TrimSpace(strings.TrimPrefix(string(out), "git version "))
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 || major < 2 || major == 2 && minor < 31 {
		return fmt.Errorf("git %s is too old: install git 2.31 or later", visible(version))
	}
	return nil
}

// gitError is a git that failed.
type gitError struct {
	command string
	said    string
	err     error
}

func (e *gitError) Error() string { return fmt.Sprintf("git %s: %s", e.command, e.said) }
func (e *gitError) Unwrap() error { return e.err }

// said is the last thing that git complained of, unless the disk is full: that is what the rest comes from.
func said(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, line := range lines {
		if strings.Contains(line, "No space left on device") {
			return visible(line)
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "fatal:") || strings.HasPrefix(lines[i], "error:") || strings.HasPrefix(lines[i], "remote:") {
			return visible(lines[i])
		}
	}
	return visible(lines[len(lines)-1])
}

// needed are the variables that git finds its files, its way out and its trust by.
var needed = regexp.MustCompile(`^(PATH|HOME|USER|LOGNAME|TMPDIR|XDG_CONFIG_HOME|SSH_AUTH_SOCK|SSL_CERT_(FILE|DIR)|GIT_(SSL|PROXY)_\w+|(?i:(https?|all|no)_proxy))=`)

// environment is what git gets of ours: what it needs, and none of the secrets that may be beside it.
func environment(ours []string) []string {
	return slices.DeleteFunc(slices.Clone(ours), func(variable string) bool { return !needed.MatchString(variable) })
}
