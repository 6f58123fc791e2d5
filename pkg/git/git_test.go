package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
)

func TestEnvironment(t *testing.T) {
	needed := []string{
		"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "XDG_CONFIG_HOME=/x", "SSH_AUTH_SOCK=/agent", "SSL_CERT_FILE=/ca.pem",
		"GIT_SSL_CAINFO=/ca.pem", "GIT_PROXY_SSL_CAINFO=/ca.pem", "HTTPS_PROXY=http://proxy", "https_proxy=http://proxy",
		"http_proxy=http://proxy", "no_proxy=localhost", "ALL_PROXY=socks5://proxy",
	}
	others := []string{
		"GITHUB_TOKEN=a", "INPUT_SECRETS=a=b", "DEPOT_TOKEN=a", "MY_PATH=a", "HOMEBREW_GITHUB_API_TOKEN=a",
		"NPM_TOKEN=PATH=a", "GIT_DIR=/other", "GIT_CONFIG_COUNT=1", "GIT_TRACE_CURL=1", "GIT_ASKPASS=/evil",
		"LD_PRELOAD=/evil", "PATHS=a", "=PATH=a",
	}
	if got := environment(append(slices.Clone(needed), others...)); !slices.Equal(got, needed) {
		t.Errorf("environment = %q, want %q", got, needed)
	}
}

// fakeGit puts a shell script named git in PATH and returns its directory.
func fakeGit(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return dir
}

func TestWithToken(t *testing.T) {
	fakeGit(t, `echo "arguments: $*"; env | grep ^GIT_CONFIG | sort`)
	const header = "Authorization: Basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0" // x-access-token:secret
	plain := Git{}
	out, err := plain.WithToken("https://git.example/", "secret").Output(t.Context(), "fetch")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	value := func(variable string) string {
		for _, line := range lines {
			if found, ok := strings.CutPrefix(line, variable+"="); ok {
				return found
			}
		}
		return ""
	}
	settings := map[string]string{}
	for i := range 100 {
		settings[value(fmt.Sprintf("GIT_CONFIG_KEY_%d", i))] = value(fmt.Sprintf("GIT_CONFIG_VALUE_%d", i))
	}
	for name, want := range map[string]string{
		"http.https://git.example/.extraheader": header, "http.followRedirects": "false", "credential.helper": "",
		"core.hooksPath": "/dev/null", "core.fsmonitor": "false", "http.lowSpeedTime": "60",
		"safe.bareRepository": "explicit",
	} {
		if got, ok := settings[name]; !ok || got != want {
			t.Errorf("setting %s = %q (%t), want %q", name, got, ok, want)
		}
	}
	if lines[0] != "arguments: fetch" || value("GIT_CONFIG_COUNT") != fmt.Sprint(len(settings)-1) {
		t.Errorf("git received\n%s", out)
	}
	if len(plain.Settings) > 0 || len(plain.WithToken("https://git.example", "").Settings) > 0 {
		t.Error("WithToken modified the original value, or an empty token added settings")
	}
}

func TestOutputWithRetry(t *testing.T) {
	const network = "fatal: unable to access 'x': Failed to connect"
	first, second := 1500*time.Millisecond, 3*time.Second
	for _, test := range []struct {
		name     string
		message  string
		failures int // number of failures before git succeeds
		attempts int // of the error; 0 for success
		waits    []time.Duration
	}{
		{"success", network, 0, 0, nil},
		{"two failures", network, 2, 0, []time.Duration{first, second}},
		{"network failure", network, 9, 3, []time.Duration{first, second}},
		{"rate limit", "fatal: The requested URL returned error: 429", 9, 3, []time.Duration{first, second}},
		{"permanent failure", "fatal: Authentication failed", 9, 1, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := fakeGit(t, fmt.Sprintf(
				`echo x >>"${0%%/*}/runs"; [ "$(grep -c x "${0%%/*}/runs")" -gt %d ] || { echo "%s" >&2; exit 128; }; echo fine`,
				test.failures, test.message))
			clock := &fakeclock.Clock{}
			out, err := Git{Clock: clock}.OutputWithRetry(t.Context(), "fetch")
			if !slices.Equal(clock.Slept(), test.waits) {
				t.Errorf("waits = %v, want %v", clock.Slept(), test.waits)
			}
			if test.attempts == 0 {
				if err != nil || string(out) != "fine\n" {
					t.Errorf("output = %q, %v", out, err)
				}
				return
			}
			failure, ok := errors.AsType[*Error](err)
			if !ok || failure.Attempts != test.attempts || failure.ExitCode != 128 || failure.Op != "fetch" {
				t.Errorf("error = %#v", err)
			}
			runs, err := os.ReadFile(filepath.Join(dir, "runs"))
			if err != nil || strings.Count(string(runs), "x") != test.attempts {
				t.Errorf("git ran %q times, want %d (%v)", runs, test.attempts, err)
			}
		})
	}
	t.Run("canceled while waiting", func(t *testing.T) {
		cause := errors.New("timed out")
		ctx, cancel := context.WithCancelCause(t.Context())
		fakeGit(t, `echo "fatal: early EOF" >&2; exit 128`)
		clock := &fakeclock.Clock{OnSleep: func() { cancel(cause) }}
		if _, err := (Git{Clock: clock}).OutputWithRetry(ctx, "fetch"); !errors.Is(err, cause) {
			t.Errorf("error = %v, want the cause", err)
		}
	})
}

func TestErrorCause(t *testing.T) {
	for _, test := range []struct {
		stderr    string
		message   string
		cause     Cause
		temporary bool
	}{
		{
			"remote: Repository not found.\nfatal: repository 'x' not found",
			"fatal: repository 'x' not found", NotFound, false,
		},
		{"fatal: early EOF\nhint: ignored", "fatal: early EOF", Network, true},
		{"fatal: The requested URL returned error: 429", "fatal: The requested URL returned error: 429", RateLimited, true},
		{"fatal: The requested URL returned error: 502", "fatal: The requested URL returned error: 502", Network, true},
		{"fatal: The requested URL returned error: 403", "fatal: The requested URL returned error: 403", Unauthorized, false},
		{
			"fatal: unable to access 'x': server certificate verification failed. CAfile: none CRLfile: none",
			"fatal: unable to access 'x': server certificate verification failed. CAfile: none CRLfile: none", Certificate,
			false,
		},
		{
			"fatal: unable to access 'x': SSL certificate problem: certificate is not yet valid",
			"fatal: unable to access 'x': SSL certificate problem: certificate is not yet valid", Certificate, false,
		},
		{
			"fatal: unable to access 'x': gnutls_handshake() failed: An unexpected TLS packet was received.",
			"fatal: unable to access 'x': gnutls_handshake() failed: An unexpected TLS packet was received.", NotTLS, false,
		},
		{"fatal: The requested URL returned error: 301", "fatal: The requested URL returned error: 301", Moved, false},
		{
			"error: file write error: No space left on device\nfatal: unable to write loose object: early EOF",
			"error: file write error: No space left on device", DiskFull, false,
		},
		{
			"To x\n ! [rejected] v1 -> v1 (stale info)\nerror: failed to push some refs to 'x'",
			"! [rejected] v1 -> v1 (stale info)", Unknown, false,
		},
		{
			"fatal: remote error: upload-pack: not our ref 1",
			"fatal: remote error: upload-pack: not our ref 1", MissingCommit, false,
		},
		{"error: invalid path '.git/config'", "error: invalid path '.git/config'", InvalidPath, false},
		{"one\ntwo\x1b[31m", `two\u001b[31m`, Unknown, false},
		{"", "exit status 128", Unknown, false},
	} {
		err := newError("fetch", test.stderr, errors.New("exit status 128"), time.Now())
		if test.stderr != "" { // without stderr, git did not start
			fakeGit(t, "cat >&2 <<'EOF'\n"+test.stderr+"\nEOF\nexit 128\n")
			_, failed := Git{}.Output(t.Context(), "fetch")
			var ok bool
			if err, ok = errors.AsType[*Error](failed); !ok {
				t.Fatalf("%q: error = %v", test.stderr, failed)
			}
		}
		if err.Message != test.message || err.Cause != test.cause || err.Temporary() != test.temporary {
			t.Errorf("%q: message %q, cause %d, temporary %t; want %q, %d, %t",
				test.stderr, err.Message, err.Cause, err.Temporary(), test.message, test.cause, test.temporary)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for version, want := range map[string]string{
		"git version 2.32.0": "", "git version 2.53.0": "", "git version 3.0": "",
		"git version 2.31.9": "git 2.31.9 is too old", "git version 1.40.0": "git 1.40.0 is too old",
		"hello": "git hello is too old",
	} {
		fakeGit(t, "echo "+version)
		err := Git{}.CheckVersion(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error = %v, want %q", version, err, want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := (Git{}).CheckVersion(t.Context()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("without git: error = %v", err)
	}
}

// A server cannot fill the memory with messages.
func TestLongMessages(t *testing.T) {
	var b tailBuffer
	for range 100 {
		if _, err := b.Write(bytes.Repeat([]byte("remote: x\n"), maxTail/50)); err != nil {
			t.Fatal(err)
		}
	}
	fakeGit(t, `seq -f "remote: %.0f" 200000 >&2; echo "fatal: early EOF" >&2; exit 128`)
	_, err := Git{}.Output(t.Context(), "fetch")
	failure, ok := errors.AsType[*Error](err)
	if len(b) > 2*maxTail || !ok || failure.Message != "fatal: early EOF" {
		t.Errorf("%d bytes; error = %v", len(b), err)
	}
}

func TestRunIsCanceled(t *testing.T) {
	dir := fakeGit(t, `echo started >"${0%/*}/started"; sleep 600`)
	cause := errors.New("timed out")
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := Git{}.Output(ctx, "fetch")
		failed <- err
	}()
	for {
		if _, err := os.Stat(filepath.Join(dir, "started")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel(cause)
	if err := <-failed; !errors.Is(err, cause) {
		t.Errorf("error = %v, want the cause", err)
	}
}
