package actions

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	"golang.org/x/sys/unix"
)

// No secret, of whatever kind and however the build ends, is in anything that is left, nor in any argument while it runs.
func TestSecretsStaySecret(t *testing.T) {
	w := cloud(t)
	home := w.login(t)
	file := filepath.Join(t.TempDir(), "file")
	const fromFile = "canary-of-a-file-first-line\ncanary-of-a-file-second-line"
	if err := os.WriteFile(file, []byte(fromFile), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Doppler.SetSecret(localcloud.Project, "dev", "APP_KEY", "canary-of-doppler")
	canaries := []string{
		"canary-of-secrets", "canary-of-an-environment", "canary-of-a-file-first-line", "canary-of-a-file-second-line", "canary-of-doppler",
		w.GitHubToken, w.DopplerToken, w.OrganizationToken, w.RegistryPassword, w.GitHub.IDTokenRequestToken(),
	}
	// A step that shows all that it was given, whole and in pieces.
	step := "RUN --mount=type=secret,id=a --mount=type=secret,id=b --mount=type=secret,id=c --mount=type=secret,id=APP_KEY " +
		"for s in a b c APP_KEY; do cat /run/secrets/$s; echo; cat /run/secrets/$s >&2; printf %.8s \"$(cat /run/secrets/$s)\"; sleep 0.05; cut -c9- /run/secrets/$s; done"
	inputs := map[string]string{
		"secrets": "a=canary-of-secrets", "secret_envs": "b=B", "secret_files": "c=" + file, "doppler_config": "dev", "no_cache": "true",
		"push": w.Registry.Addr + "/team/secret:1", "github_token": w.GitHubToken, "git_context": "git", "ref": "main", "dockerfile": "Dockerfile",
	}
	for _, test := range []struct {
		name, end string
		inputs    map[string]string
		exit      int
		interrupt bool
	}{
		{name: "a build that goes well, with OIDC", exit: 0},
		{name: "with a stored token", exit: 0, inputs: map[string]string{"depot_token": w.OrganizationToken, "save": "true", "push": ""}}, // save's registry is the same here, with another account
		{name: "a step that fails", end: "; exit 9", exit: 1},
		{name: "canceled", end: "; echo waiting; sleep 300", exit: 1, interrupt: true},
		{name: "a Doppler token that is wrong", exit: 1, inputs: map[string]string{"doppler_token": "canary-wrong-token"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			write := map[string]string{"Dockerfile": base + step + test.end + "\n"}
			sha := commit(t, w.caller, write)
			all := map[string]string{"ref": sha}
			for name, value := range inputs {
				if name != "ref" {
					all[name] = value
				}
			}
			for name, value := range test.inputs {
				all[name] = value
			}
			var seen []string // arguments and temporary files while it ran
			watched := make(chan struct{})
			o := w.run(t, invocation{dir: t.TempDir(), inputs: all, env: map[string]string{"HOME": home, "B": "canary-of-an-environment"}, started: func(pid int, stdout *safeBuffer) {
				go func() {
					defer close(watched)
					for interrupted := false; unix.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
						seen = append(seen, arguments()...)
						seen = append(seen, contents(tempOf(pid), "")...)
						if test.interrupt && !interrupted && strings.Contains(stdout.String(), "\nwaiting\n") {
							interrupted = true
							_ = unix.Kill(pid, unix.SIGINT)
						}
					}
				}()
			}})
			<-watched
			if o.exit != test.exit {
				t.Fatalf("exit %d:\n%s%s", o.exit, o.stdout, o.stderr)
			}
			secret := slices.Concat(canaries, []string{"canary-wrong-token"})
			var log []string // without what tells the runner what to hide
			for line := range strings.Lines(o.stdout) {
				if value, ok := strings.CutPrefix(strings.TrimSpace(line), "::add-mask::"); ok {
					secret = append(secret, value)
				} else {
					log = append(log, line)
				}
			}
			if test.exit == 0 && (!strings.Contains(strings.Join(log, ""), "***") || len(seen) == 0) {
				t.Errorf("this test sees nothing:\n%s", o.stdout)
			}
			places := map[string]string{"log": strings.Join(log, ""), "standard error": o.stderr, "outputs": o.outputFile, "summary": o.summary,
				"arguments and temporary files": strings.Join(seen, "\n"), "home": strings.Join(contents(home, ".docker/config.json"), "\n")}
			if test.exit == 0 {
				places["image"] = docker(t, w.Engine.Host, "image", "inspect", "iterate-sandbox:ci") + docker(t, w.Engine.Host, "history", "--no-trunc", "iterate-sandbox:ci") +
					docker(t, w.Engine.Host, "run", "--rm", "iterate-sandbox:ci", "grep", "-rsaoE", "--exclude-dir=proc", "--exclude-dir=sys", "--exclude-dir=dev", "canary[a-z-]*|eyJhbGci[A-Za-z0-9._-]*|ghs_[A-Z0-9]+|$", "/tmp", "/run", "/root", "/etc", "/home", "/var/log")
			}
			for place, text := range places {
				for _, s := range secret {
					if strings.Contains(text, s) {
						i := strings.Index(text, s)
						t.Errorf("%s: a secret: …%s…", place, text[max(0, i-80):min(len(text), i+80)])
					}
				}
			}
		})
	}
}

// commit adds files to a repository and returns the new commit.
func commit(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, dir, "checkout", "--quiet", "--detach")
	defer git(t, dir, "checkout", "--quiet", "--force", "main")
	git(t, dir, "commit", "--quiet", "--all", "--message=test")
	return git(t, dir, "rev-parse", "HEAD")
}

// arguments are the command lines of all processes.
func arguments() []string {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var found []string
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			found = append(found, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return found
}

// tempOf is the temporary folder of a process.
func tempOf(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for variable := range strings.SplitSeq(string(data), "\x00") {
		if dir, ok := strings.CutPrefix(variable, "RUNNER_TEMP="); ok {
			return dir
		}
	}
	return ""
}

// contents is what files below a folder hold now, but for one; those that go while it looks are left out.
func contents(dir, but string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || but != "" && strings.HasSuffix(path, but) {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil {
			found = append(found, string(data))
		}
		return nil
	})
	return found
}
