// Package git runs the git program with settings that neither a repository nor a user can override: no hooks, no file
// system monitor, no prompts, no protocol that runs a command. git must be version 2.31 or later: older versions do not
// read settings from the environment; see [Git.CheckVersion].
package git

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
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

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Git runs git in one place. Its methods return modified copies, so a value can be shared.
type Git struct {
	Dir      string    // where git runs; "": the current directory
	Settings []Setting // override the repository's and the user's
	Env      []string  // variables, beside those that git needs from this process; see environment

	IdleTimeout time.Duration    // how long git waits for a server that sends next to nothing; 0: 1 min
	Clock       httpclient.Clock // for the waits between attempts; nil: the system's
}

// Setting is one line of a git configuration: "core.hooksPath", "/dev/null".
type Setting struct{ Name, Value string }

// WithToken returns a copy that sends token to the server, for example https://github.com, and to no other server. The
// token is passed in git's environment: it is in no argument, URL or file.
func (g Git) WithToken(server, token string) Git {
	if token == "" {
		return g
	}
	basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + token))
	g.Settings = append(slices.Clone(g.Settings),
		Setting{"credential.helper", ""},
		Setting{"http." + strings.TrimSuffix(server, "/") + "/.extraheader", "Authorization: Basic " + basic},
		Setting{"http.followRedirects", "false"})
	return g
}

// Output runs a git command and returns what it prints. It returns an [*Error] when git fails, and the cause of ctx
// when that has ended.
func (g Git) Output(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := g.Run(ctx, nil, &out, args...)
	return out.Bytes(), err
}

const (
	maxAttempts = 3
	firstWait   = 500 * time.Millisecond
)

// OutputWithRetry is [Git.Output] for a command that talks to a server and is safe to repeat: it runs up to 3 times
// while the network or the server fails. It returns what the last attempt printed.
func (g Git) OutputWithRetry(ctx context.Context, args ...string) ([]byte, error) {
	clock := g.Clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	wait := firstWait
	for attempt := 1; ; attempt++ {
		out, err := g.Output(ctx, args...)
		failure, ok := errors.AsType[*Error](err)
		if !ok {
			return out, err
		}
		failure.Attempts = attempt
		if !failure.Temporary() || attempt == maxAttempts {
			return out, failure
		}
		if err := clock.Sleep(ctx, wait); err != nil {
			return nil, err
		}
		wait *= 2
	}
}

// Run runs a git command with its input and output. Errors are those of [Git.Output].
func (g Git) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout = g.Dir, stdin, stdout
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = slices.Concat(environment(os.Environ()), g.settingsEnv(), g.Env)
	// git starts children (git-remote-https): end the whole process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // for a process that left the group and holds a pipe open
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return ErrNotInstalled
	}
	return newError(args[0], stderr.String(), err)
}

// settingsEnv passes the settings in the environment, where they override every configuration file.
func (g Git) settingsEnv() []string {
	idle := cmp.Or(g.IdleTimeout, time.Minute)
	settings := append([]Setting{
		{"core.hooksPath", "/dev/null"},
		{"core.fsmonitor", "false"},
		{"core.attributesFile", "/dev/null"},
		{"core.quotePath", "false"},
		{"safe.directory", "*"},
		{"safe.bareRepository", "explicit"},
		{"submodule.recurse", "false"},
		{"advice.detachedHead", "false"},
		{"http.saveCookies", "false"},
		{"http.lowSpeedLimit", "1000"}, // bytes per second
		{"http.lowSpeedTime", fmt.Sprint(int(idle.Seconds()))},
	}, g.Settings...)
	env := []string{
		"GIT_TERMINAL_PROMPT=0",
		"GIT_ASKPASS=true",
		"GIT_OPTIONAL_LOCKS=0",
		"GIT_NO_REPLACE_OBJECTS=1",
		"GIT_ALLOW_PROTOCOL=https:http:ssh:file",
		"LC_ALL=C",
		fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)),
	}
	for i, s := range settings {
		env = append(env,
			fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s.Name),
			fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s.Value))
	}
	return env
}

// inherited are the variables by which git finds its files, its proxy and its certificates.
var inherited = regexp.MustCompile(`^(PATH|HOME|USER|LOGNAME|TMPDIR|XDG_CONFIG_HOME|SSH_AUTH_SOCK|` +
	`SSL_CERT_(FILE|DIR)|GIT_(SSL|PROXY)_\w+|(?i:(https?|all|no)_proxy))=`)

// environment returns the variables that git needs, without the secrets that may be beside them.
func environment(own []string) []string {
	return slices.DeleteFunc(slices.Clone(own), func(variable string) bool { return !inherited.MatchString(variable) })
}

// CheckVersion returns an error when git is missing or older than 2.31.
func (g Git) CheckVersion(ctx context.Context) error {
	out, err := g.Output(ctx, "version")
	if err != nil {
		return err
	}
	var major, minor int
	version := strings.TrimSpace(strings.TrimPrefix(string(out), "git version "))
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 || major < 2 || major == 2 && minor < 31 {
		return fmt.Errorf("git %s is too old: install git 2.31 or later", safetext.Line(version, 80))
	}
	return nil
}

// commandSettings are the settings with which a repository makes git run a command (git-config), and harmless values.
var commandSettings = []struct {
	name     *regexp.Regexp
	harmless string
}{
	{regexp.MustCompile(`^filter\..*\.(clean|smudge|process)$`), ""},
	{regexp.MustCompile(`^filter\..*\.required$`), "false"},
	{regexp.MustCompile(`^credential\.(.*\.)?helper$`), ""},
	{regexp.MustCompile(`^core\.sshcommand$`), "ssh"},
}

// HardenedConfig returns a copy for a repository in Dir whose own settings must not run commands. A repository may come
// from an artifact, a cache or another user. The settings of the machine and of the user still apply.
func (g Git) HardenedConfig(ctx context.Context) (Git, error) {
	out, err := g.Output(ctx, "config", "--list", "--show-scope", "--name-only", "--null")
	if err != nil {
		return Git{}, err
	}
	fields := strings.Split(string(out), "\x00") // scope and name in turn
	g.Settings = slices.Clone(g.Settings)
	for i := 0; i+1 < len(fields); i += 2 {
		scope, name := fields[i], fields[i+1]
		if scope != "local" && scope != "worktree" {
			continue
		}
		if strings.HasPrefix(name, "remote.") && strings.HasSuffix(name, ".uploadpack") {
			// git uses the first value of uploadpack, so ours would not count. It only applies to file and ssh.
			g.Env = append(slices.Clone(g.Env), "GIT_ALLOW_PROTOCOL=https:http")
		}
		for _, c := range commandSettings {
			if !c.name.MatchString(name) {
				continue
			}
			g.Settings = append(g.Settings, Setting{name, c.harmless})
			if strings.HasPrefix(name, "credential.") {
				// An empty helper resets the list for that server only; this one resets it for all.
				g.Settings = append(g.Settings, Setting{"credential.helper", ""})
			}
		}
	}
	return g, nil
}
