package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/org/sandbox-actions/pkg/dockerengine"
)

const imageName = "sandbox-test:image" // no other package uses it

// docker runs the docker command with one engine.
type docker struct {
	host   string
	config string // empty directory for DOCKER_CONFIG
}

// TestRun loads the image into each engine and checks its containers.
func TestRun(t *testing.T) {
	o := built(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := docker{host: testdaemons.Engine(t, kind), config: t.TempDir()}
			e, err := dockerengine.Open(t.Context(), func(name string) string {
				return map[string]string{"DOCKER_HOST": d.host, "DOCKER_CONFIG": d.config, "HOME": d.config}[name]
			})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if _, err := e.Load(t.Context(), imageName, o.image); err != nil {
				t.Fatal(err)
			}
			for _, test := range []struct {
				name string
				run  func(t *testing.T, d docker)
			}{
				{"tools", testTools},
				{"repository", func(t *testing.T, d docker) { testRepository(t, d, o.checkout, o.commit) }},
				{"login shells", testLoginShells},
				{"command", testCommand},
				{"signals", testSignals},
				{"services", func(t *testing.T, d docker) { testServices(t, d, o.commit) }},
				{"restricted", testRestricted},
			} {
				t.Run(test.name, func(t *testing.T) { test.run(t, d) })
			}
		})
	}
}

// try runs docker and returns its standard output without the final newline, its exit code and its standard error.
func (d docker) try(t *testing.T, stdin string, args ...string) (stdout string, code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "docker", args...)
	command.Env = append(os.Environ(), "DOCKER_HOST="+d.host, "DOCKER_CONFIG="+d.config, "DOCKER_CONTEXT=")
	command.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run docker: %v (install it with scripts/setup.sh test)", err)
	}
	return strings.TrimSuffix(out.String(), "\n"), command.ProcessState.ExitCode(), errs.String()
}

// do runs docker, which must succeed, and returns its output.
func (d docker) do(t *testing.T, args ...string) string {
	t.Helper()
	out, code, stderr := d.try(t, "", args...)
	if code != 0 {
		t.Fatalf("docker %q: exit %d\n%s%s", args, code, out, stderr)
	}
	return out
}

// start starts a container that is removed when the test ends.
func (d docker) start(t *testing.T, args ...string) (id string) {
	t.Helper()
	id = d.do(t, append([]string{"run", "--detach"}, args...)...)
	t.Cleanup(func() {
		remove := exec.Command("docker", "rm", "--force", "--volumes", id)
		remove.Env = append(os.Environ(), "DOCKER_HOST="+d.host, "DOCKER_CONFIG="+d.config, "DOCKER_CONTEXT=")
		if out, err := remove.CombinedOutput(); err != nil {
			t.Errorf("docker rm: %v: %s", err, out)
		}
	})
	return id
}

// waitUntil waits up to a minute for a condition.
func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// The tools work in a login shell.
func testTools(t *testing.T, d docker) {
	id := d.start(t, "--network", "none", imageName, "sleep", "infinity")
	for _, test := range []struct{ name, command, want string }{
		{"debian", `. /etc/os-release; echo "$ID $VERSION_CODENAME"`, `debian bookworm`},
		{"git", `git --version`, `git version 2\.\d+.*`},
		{"git commit", `cd "$(mktemp -d)" && git init -q && echo a > a && git add a &&
			git -c user.name=a -c user.email=a@b commit -qm first && git log --format=%s`, `first`},
		{"curl", `curl --version | head -n 1`, `curl \d.*`},
		{"tmux", `tmux new-session -d 'echo "in tmux as $(whoami)" > /tmp/t; tmux wait-for -S done; sleep infinity' &&
			tmux wait-for done && cat /tmp/t`, `in tmux as iterate`},
		{"rsync", `mkdir -p /tmp/a && echo b > /tmp/a/b && rsync -a /tmp/a/ /tmp/c && cat /tmp/c/b`, `b`},
		{"ripgrep", `rg --files-with-matches '^# app' docs README.md`, `README.md`},
		{"fd", `fd --extension md --type f`, `README.md`},
		{"jq", `echo '{"a": [1, 2]}' | jq -c '.a | add'`, `3`},
		{"gh", `gh --version | head -n 1`, `gh version 2.*`},
		{"python", `python3 -c 'import ssl, sqlite3, venv; print("python")'`, `python`},
		{"venv", `python3 -m venv --without-pip /tmp/venv &&
			/tmp/venv/bin/python -c 'import ensurepip, sys; print(sys.prefix, ensurepip.version() > "2")'`, `/tmp/venv True`},
		{"node", `node --version`, `v24\..*`},
		{"npm", `npm --version`, `11\..*`},
		{"npx", `npx --version`, `11\..*`},
		{"pnpm", `pnpm --version`, `10\..*`},
		{"pnpm install", `mkdir -p /tmp/p/dep && cd /tmp/p &&
			echo '{"name":"dep","version":"1.0.0"}' > dep/package.json &&
			echo '{"dependencies":{"dep":"file:dep"}}' > package.json &&
			pnpm install --offline --silent && ls node_modules`, `dep`},
		{"tsx", `echo 'const n: number = 41; console.log(n + 1)' > /tmp/n.ts && tsx /tmp/n.ts`, `42`},
		{"s6", `command -v s6-svscan s6-supervise s6-svc s6-svstat | wc -l`, `4`},
		{"user", `id -un; id -gn; id -u; echo "$HOME"`, "iterate\niterate\n1000\n/home/iterate"},
		{"sudo", `sudo -n id -un`, `root`},
		{"sudo apt-get", `sudo -n dpkg --audit && sudo -n apt-get --simulate install -y --no-download sudo | tail -n 1`,
			`0 upgraded, 0 newly installed.*`},
		{"certificate authorities", `test -s "$NODE_EXTRA_CA_CERTS" &&
			node -e 'console.log(require("tls").rootCertificates.length > 100)'`, `true`},
		{"UTF-8", `printf 'ä' | wc -m; locale charmap`, "1\nUTF-8"},
		{"no compiler", `command -v gcc cc make g++ ld || echo none`, `none`},
		{"owner of the services", `stat -c %U /opt/sandbox/services/health`, `iterate`},
		{"umask", `umask`, `0022`},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code, stderr := d.try(t, "", "exec", id, "bash", "-lc", test.command)
			if code != 0 || !regexp.MustCompile(`^`+test.want+`$`).MatchString(out) {
				t.Errorf("%s: exit %d, %q, want %q\n%s", test.command, code, out, test.want, stderr)
			}
		})
	}
}

// The repository in the image is at the built commit and has no changes.
func testRepository(t *testing.T, d docker, from checkout, commit string) {
	id := d.start(t, imageName, "sleep", "infinity")
	for _, test := range []struct{ command, want string }{
		{`pwd`, "/home/iterate/src/github.com/" + repository},
		{`git rev-parse HEAD`, commit},
		{`git status --porcelain --ignored`, ""},
		{`git log --format=%s`, "second"},
		{`git fsck --strict && echo complete`, "complete"},
		{`git remote`, ""},
		{`bin/tool`, "tool"},
		{`readlink docs/README.md`, "../README.md"},
		{`find . ! -user iterate -o ! -group iterate -o -perm /022 ! -type l`, ""},
		{`sudo -n git status --porcelain`, ""},
		{`echo x >> README.md && git status --porcelain && git stash -q && git status --porcelain`, " M README.md"},
		{`git checkout -q -b work && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m third &&
			git log --format=%s`, "third\nsecond"},
	} {
		out, code, stderr := d.try(t, "", "exec", id, "sh", "-lc", test.command)
		if code != 0 || out != test.want {
			t.Errorf("%s: exit %d, %q, want %q\n%s", test.command, code, out, test.want, stderr)
		}
	}
	want, err := from.sh(`git ls-files -s`)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.do(t, "run", "--rm", imageName, "git", "ls-files", "-s"); got != want {
		t.Errorf("files are\n%s\nwant\n%s", got, want)
	}
}

// Only login shells read ~/.iterate/.env, if it exists.
func testLoginShells(t *testing.T, d docker) {
	file := filepath.Join(t.TempDir(), "env")
	content := "# comment\nPLAIN=one\nQUOTED=\"two words $PLAIN\"\nSINGLE='$three'\nEMPTY=\n\nexport EXPORTED=four\n"
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	const show = `env | grep -E '^(PLAIN|QUOTED|SINGLE|EMPTY|EXPORTED)=' | sort`
	const all = "EMPTY=\nEXPORTED=four\nPLAIN=one\nQUOTED=two words one\nSINGLE=$three"
	const target = ":/home/iterate/.iterate/.env:ro"
	withFile := func(args ...string) []string { return append([]string{"--volume", file + target, imageName}, args...) }
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"bash", withFile("bash", "-lc", show), all},
		{"sh", withFile("sh", "-lc", show), all},
		{"su", withFile("sudo", "su", "-", "iterate", "-c", show), all},
		{"sudo", withFile("sudo", "-iu", "iterate", "sh", "-c", show), all},
		{"tmux", withFile("sh", "-c", "tmux new-session -d \""+show+" > /tmp/t; tmux wait-for -S done; sleep infinity\" && "+
			"tmux wait-for done && cat /tmp/t"), ""},
		{"not a login shell", withFile("bash", "-c", show), ""},
		{"no file", []string{imageName, "bash", "-lc", show}, ""},
		{"a directory instead of the file",
			[]string{"--volume", filepath.Dir(file) + target, imageName, "bash", "-lc", "echo fine"}, "fine"},
		{"root", []string{"--user", "root", imageName, "bash", "-lc", "echo $HOME"}, "/root"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code, stderr := d.try(t, "", append([]string{"run", "--rm"}, test.args...)...)
			if out != test.want || stderr != "" {
				t.Errorf("exit %d, %q, want %q\n%s", code, out, test.want, stderr)
			}
		})
	}
}

// The entry point passes arguments and input to the command unchanged and exits with its exit code.
func testCommand(t *testing.T, d docker) {
	for _, test := range []struct {
		name, stdin string
		args        []string
		want        string
		code        int
	}{
		{"arguments", "", []string{imageName, "printf", "<%s>", "a b", "", "$HOME", "*", "-x", "ä\n"},
			"<a b><><$HOME><*><-x><ä\n>", 0},
		{"options", "", []string{imageName, "echo", "-e", "--help", "-v"}, "--help -v", 0},
		{"exit", "", []string{imageName, "sh", "-c", "exit 42"}, "", 42},
		{"input", "line 1\nline 2", []string{"--interactive", imageName, "cat"}, "line 1\nline 2", 0},
		{"unknown command", "", []string{imageName, "no-such-command"}, "", 127},
		{"variables", "", []string{"--env", "A=b c", imageName, "sh", "-c", `echo "$A"`}, "b c", 0},
		{"working directory", "", []string{"--workdir", "/tmp", imageName, "pwd"}, "/tmp", 0},
		{"orphans", "", []string{imageName, "sh", "-c", `sh -c 'sleep 0.1 & echo $! > /tmp/orphan'
			until [ ! -e "/proc/$(cat /tmp/orphan)" ]; do sleep 0.05; done; echo reaped`}, "reaped", 0},
		{"terminal", "", []string{"--tty", imageName, "sh", "-c", "test -t 1 && echo terminal"}, "terminal\r", 0},
		{"no services", "", []string{imageName, "pgrep", "s6-svscan"}, "", 1},
		{"another entry point", "", []string{"--entrypoint", "id", imageName, "-un"}, "iterate", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code, stderr := d.try(t, test.stdin, append([]string{"run", "--rm"}, test.args...)...)
			if code != test.code || out != test.want {
				t.Errorf("exit %d, %q; want %d, %q\n%s", code, out, test.code, test.want, stderr)
			}
		})
	}
}

func testSignals(t *testing.T, d docker) {
	for _, test := range []struct {
		name, signal, command, log string
		code                       int
	}{
		{"handled", "USR1", `trap 'echo got it; exit 7' USR1; echo ready; while :; do sleep 0.05; done`,
			"got it", 7},
		{"not handled", "TERM", `echo ready; exec sleep infinity`, "", 128 + 15},
		{"Ctrl-C", "INT", `echo ready; exec sleep infinity`, "", 128 + 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := d.start(t, imageName, "sh", "-c", test.command)
			waitUntil(t, "the command", func() bool { return strings.Contains(d.do(t, "logs", id), "ready") })
			d.do(t, "kill", "--signal", test.signal, id)
			if got := d.do(t, "wait", id); got != fmt.Sprint(test.code) {
				t.Errorf("exit %s, want %d", got, test.code)
			}
			if log := d.do(t, "logs", id); !strings.Contains(log, test.log) {
				t.Errorf("the log is %q, want %q", log, test.log)
			}
		})
	}
}

// health is the response of GET /health.
type health struct{ Status, Repository, Commit string }

func (d docker) health(t *testing.T, id string) (h health, err error) {
	t.Helper()
	address := d.do(t, "port", id, "8080/tcp")
	response, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + address + "/health")
	if err != nil {
		return h, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return h, errors.New(response.Status)
	}
	return h, json.NewDecoder(response.Body).Decode(&h)
}

func testServices(t *testing.T, d docker, commit string) {
	began := time.Now()
	id := d.start(t, "--publish", "127.0.0.1::8080", imageName)
	state := func(format string) string { return d.do(t, "inspect", "--format", format, id) }
	answers := func() bool { _, err := d.health(t, id); return err == nil }
	healthy := func() {
		t.Helper()
		waitUntil(t, "healthy", func() bool { return state("{{.State.Health.Status}}") == "healthy" })
		t.Logf("healthy after %s", time.Since(began).Round(10*time.Millisecond))
	}
	healthy()
	got, err := d.health(t, id)
	if want := (health{"ok", repository, commit}); err != nil || got != want {
		t.Errorf("health: %+v, %v, want %+v", got, err, want)
	}

	// A killed service is restarted.
	const pid = `s6-svstat -o pid /opt/sandbox/services/health`
	before := d.do(t, "exec", id, "sh", "-c", pid)
	d.do(t, "exec", id, "sh", "-c", "kill -KILL "+before)
	waitUntil(t, "another process", func() bool {
		now := d.do(t, "exec", id, "sh", "-c", pid)
		return now != before && now != "-1"
	})
	waitUntil(t, "an answer after the kill", answers)

	// A restarted container starts its services.
	began = time.Now()
	d.do(t, "restart", id)
	healthy()
	waitUntil(t, "an answer after the restart", answers)

	// A stopped container exits before docker kills it, and its log is empty because the services log only errors.
	began = time.Now()
	d.do(t, "stop", "--time", "60", id)
	t.Logf("stopped in %s", time.Since(began).Round(10*time.Millisecond))
	if got := state("{{.State.ExitCode}} {{.State.OOMKilled}}"); got != "0 false" {
		t.Errorf("stopped: %s, want exit 0", got)
	}
	if log, _, stderr := d.try(t, "", "logs", id); log != "" || stderr != "" {
		t.Errorf("the log is not empty: %s%s", log, stderr)
	}

	// A service that is down makes the container unhealthy.
	down := d.start(t, "--health-interval", "200ms", "--health-retries", "2", imageName)
	isStatus := func(status string) func() bool {
		return func() bool { return d.do(t, "inspect", "--format", "{{.State.Health.Status}}", down) == status }
	}
	waitUntil(t, "healthy", isStatus("healthy"))
	d.do(t, "exec", down, "s6-svc", "-d", "/opt/sandbox/services/health")
	waitUntil(t, "unhealthy", isStatus("unhealthy"))
}

// The services run without privileges, without a network, and as any user.
func testRestricted(t *testing.T, d docker) {
	for name, options := range map[string][]string{
		"no network":        {"--network", "none"},
		"no new privileges": {"--security-opt", "no-new-privileges", "--cap-drop", "ALL"},
		"docker's init":     {"--init"},
		"root":              {"--user", "root"},
		"256 MB, 64 tasks":  {"--memory", "256m", "--pids-limit", "64"},
	} {
		t.Run(name, func(t *testing.T) {
			id := d.start(t, append(options, imageName)...)
			waitUntil(t, "an answer", func() bool {
				_, code, _ := d.try(t, "", "exec", id, "curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/health")
				return code == 0
			})
		})
	}
}
