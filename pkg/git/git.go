// Package git runs git with settings that neither a repository nor a user can override: no hooks, no file system
// monitor, no prompts, and no protocols that run commands. It requires git 2.32 or later, because older versions do not
// read all settings from the environment (GIT_CONFIG_GLOBAL); see [Git.CheckVersion].
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
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Git runs git commands in one directory. Methods that change a setting return a copy, so a value can be shared.
type Git struct {
	Dir      string    // working directory; "" means the current directory
	Settings []Setting // override those of the repository and the user
	Env      []string  // NAME=VALUE, in addition to the inherited variables

	IdleTimeout time.Duration    // how long a transfer may be slower than 1000 bytes/s; default 1 min
	Clock       httpclient.Clock // for the waits between attempts; nil means the system clock
}

// Setting is one git configuration setting, such as "core.hooksPath" and "/dev/null".
type Setting struct{ Name, Value string }

// WithToken returns a copy that sends token only to the server, for example https://github.com. git receives the token
// in its environment, so that no argument, URL or file contains it.
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

// Output runs a git command and returns its standard output. It returns an [*Error] if git fails, or the cause of ctx
// if ctx has ended.
func (g Git) Output(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := g.Run(ctx, nil, &out, args...)
	return out.Bytes(), err
}

const (
	maxAttempts = 3
	firstWait   = 1500 * time.Millisecond // with 3 attempts, survives an outage of 3 s
	maxWait     = time.Minute             // longest wait that a server can request; a longer one ends the attempts
)

// OutputWithRetry is like [Git.Output] for a command that connects to a server and is safe to repeat. It runs the
// command up to 3 times if the network or the server fails, and returns the output of the last attempt.
func (g Git) OutputWithRetry(ctx context.Context, args ...string) ([]byte, error) {
	clock := g.clock()
	// git shows Retry-After only in its trace. It removes credentials from the trace.
	g.Env = append(slices.Clone(g.Env), "GIT_TRACE_CURL=2", "GIT_TRACE_CURL_NO_DATA=1", "GIT_TRACE_REDACT=1")
	wait := firstWait
	for attempt := 1; ; attempt++ {
		out, err := g.Output(ctx, args...)
		failure, ok := errors.AsType[*Error](err)
		if !ok {
			return out, err
		}
		failure.Attempts = attempt
		if !failure.Temporary() || attempt == maxAttempts || failure.RetryAfter > maxWait {
			return out, failure
		}
		if err := clock.Sleep(ctx, max(wait, failure.RetryAfter)); err != nil {
			return nil, err
		}
		wait *= 2
	}
}

func (g Git) clock() httpclient.Clock {
	if g.Clock == nil {
		return httpclient.SystemClock{}
	}
	return g.Clock
}

// Run runs a git command with the given standard input and output. It returns the same errors as [Git.Output].
func (g Git) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout = g.Dir, stdin, stdout
	var stderr tailBuffer
	cmd.Stderr = &stderr
	cmd.Env = slices.Concat(environment(os.Environ()), g.settingsEnv(), g.Env)
	cmd.SysProcAttr = processAttributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // in case a process has left the group and keeps a pipe open
	// The kernel kills git when the thread that started it exits, so keep that thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return ErrNotInstalled
	}
	return newError(args[0], string(stderr), err, g.clock().Now())
}

// tailBuffer keeps the end of what is written to it: a server can send any number of messages.
type tailBuffer []byte

const maxTail = 256 << 10

// Write implements [io.Writer].
func (b *tailBuffer) Write(data []byte) (int, error) {
	*b = append(*b, data...)
	if len(*b) > 2*maxTail {
		*b = append((*b)[:0], (*b)[len(*b)-maxTail:]...)
	}
	return len(data), nil
}

// settingsEnv returns the settings as environment variables, which override every configuration file.
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

// inherited matches the variables that git needs to find its files, proxy and certificates.
var inherited = regexp.MustCompile(`^(PATH|HOME|USER|LOGNAME|TMPDIR|XDG_CONFIG_HOME|SSH_AUTH_SOCK|` +
	`SSL_CERT_(FILE|DIR)|GIT_(SSL|PROXY)_\w+|(?i:(https?|all|no)_proxy))=`)

// environment returns the variables in own that git needs, and no others, because they may be secrets.
func environment(own []string) []string {
	return slices.DeleteFunc(slices.Clone(own), func(variable string) bool { return !inherited.MatchString(variable) })
}

// Version returns the version of git, for example 2.39.5. The error is [ErrNotInstalled] or an [*Error].
func (g Git) Version(ctx context.Context) (string, error) {
	out, err := g.Output(ctx, "version")
	return safetext.Line(strings.TrimPrefix(string(out), "git version "), 80), err
}

// CheckVersion returns an error if git is missing or older than 2.32.
func (g Git) CheckVersion(ctx context.Context) error {
	version, err := g.Version(ctx)
	if err != nil {
		return err
	}
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 || major < 2 || major == 2 && minor < 32 {
		return fmt.Errorf("git %s is too old: install git 2.32 or later", version)
	}
	return nil
}

// commandSettings are the settings, see git-config(1), that make git run a command, with harmless values.
var commandSettings = []struct {
	name     *regexp.Regexp
	harmless string
}{
	{regexp.MustCompile(`^filter\..*\.(clean|smudge|process)$`), ""},
	{regexp.MustCompile(`^filter\..*\.required$`), "false"},
	{regexp.MustCompile(`^credential\.(.*\.)?helper$`), ""},
	{regexp.MustCompile(`^core\.sshcommand$`), "ssh"},
	{regexp.MustCompile(`^core\.alternaterefscommand$`), "true"},
}

// HardenedConfig returns a copy in which the settings of the repository in Dir cannot run commands: the repository may
// come from an artifact, a cache or another user. System and user settings still apply. The only protocol that the copy
// uses, for objects that a partial clone lacks, is HTTPS, because others can run commands. Reading the settings uses
// none. HardenedConfig also returns all settings; of several with the same name, the last one applies.
func (g Git) HardenedConfig(ctx context.Context) (hardened Git, settings []Setting, err error) {
	reader := g
	reader.Env = append(slices.Clone(g.Env), "GIT_ALLOW_PROTOCOL=none")
	g.Env = append(slices.Clone(g.Env), "GIT_ALLOW_PROTOCOL=https")
	out, err := reader.Output(ctx, "config", "--list", "--show-scope", "--null")
	if err != nil {
		return Git{}, nil, err
	}
	fields := strings.Split(string(out), "\x00") // alternating scopes and settings
	g.Settings = slices.Clone(g.Settings)
	for i := 0; i+1 < len(fields); i += 2 {
		scope := fields[i]
		name, value, _ := strings.Cut(fields[i+1], "\n")
		settings = append(settings, Setting{name, value})
		if scope != "local" && scope != "worktree" {
			continue
		}
		for _, c := range commandSettings {
			if !c.name.MatchString(name) {
				continue
			}
			g.Settings = append(g.Settings, Setting{name, c.harmless})
			if strings.HasPrefix(name, "credential.") {
				// An empty helper for a server resets only the list for that server; this resets the list for all.
				g.Settings = append(g.Settings, Setting{"credential.helper", ""})
			}
		}
	}
	return g, settings, nil
}
