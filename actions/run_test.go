package actions

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/google/go-github/v62/github"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// Tokens of the hub.
const (
	releaseWriter = "ghs_writer"
	releaseReader = "ghs_reader"
)

// asset is the program of the build action for this machine.
const (
	assetPlatform = runtime.GOOS + "-" + runtime.GOARCH
	asset         = "action-build-" + assetPlatform
)

// theProgram stands for action-build in the tests of how it is found: it says what it is called with.
const theProgram = "#!/bin/sh\necho \"ran with $* and PATH=$PATH\"\necho \"version=$version name=$name,$SANDBOX_ACTIONS_TOKEN.\"\n"

// hub is a GitHub with the release v1.2.3 of org/sandbox-actions, public and private, whose only program is theProgram.
func hub(t *testing.T, private bool) *github.Server {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	git(t, dir, "commit", "--quiet", "--allow-empty", "--message=begin")
	git(t, dir, "tag", "v1.2.3")
	s, err := github.Start(t.Context(), github.Options{
		Repositories: []github.Repository{{Owner: "org", Name: "sandbox-actions", Dir: dir, Private: private}}, Tokens: []string{releaseReader},
		JobTokens: []github.Token{{Value: releaseWriter, Permissions: map[string]string{"contents": "write"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := api.NewClient(nil).WithAuthToken(releaseWriter).WithEnterpriseURLs(s.APIURL(), s.UploadURL())
	if err != nil {
		t.Fatal(err)
	}
	release, _, err := client.Repositories.CreateRelease(t.Context(), "org", "sandbox-actions", &api.RepositoryRelease{TagName: api.String("v1.2.3")})
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folderOf(t, map[string]string{"program": theProgram}), "program")
	for _, name := range []string{"action-test-" + assetPlatform, asset} {
		file, err := os.Open(program)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = client.Repositories.UploadReleaseAsset(t.Context(), "org", "sandbox-actions", release.GetID(), &api.UploadOptions{Name: name}, file)
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// action is the build action in a commit, at a path with a space, as a runner has it.
func action(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "_actions", "org", "sandbox actions", "v1")
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, root, name, content)
	}
	for _, name := range []string{"actions/run.sh", "build/action.yml"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, root, name, read(t, filepath.Join("..", name)))
	}
	return root
}

// sums is checksums.txt of the release v1.2.3, made at home, in which the program is theProgram.
func sums(home string) map[string]string {
	return map[string]string{"actions/checksums.txt": fmt.Sprintf("# %s/org/sandbox-actions v1.2.3 go1.26.8\n%x  %s\n%x  %s\n",
		home, sha256.Sum256([]byte("another")), "action-test-"+assetPlatform, sha256.Sum256([]byte(theProgram)), asset)}
}

// job is where a step runs: what the runner sets, and what earlier steps did.
type job struct {
	toolCache, temp string
	env             map[string]string
}

func newJob(t *testing.T, env map[string]string) job {
	t.Helper()
	dir := t.TempDir()
	j := job{toolCache: filepath.Join(dir, "tool cache"), temp: filepath.Join(dir, "temp folder"), env: env}
	for _, d := range []string{j.toolCache, j.temp} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// step is the command of the action's step, as the runner starts it: its shell with a file that holds its script.
func (j job) step(t *testing.T, root string, before ...string) *exec.Cmd {
	t.Helper()
	var document struct {
		Runs struct {
			Steps []struct{ If, Shell, Run string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(root, "build/action.yml"))), &document); err != nil {
		t.Fatal(err)
	}
	last := document.Runs.Steps[len(document.Runs.Steps)-1]
	script := filepath.Join(folderOf(t, map[string]string{"script.sh": last.Run}), "script.sh")
	words := append(before, strings.Fields(strings.ReplaceAll(last.Shell, "{0}", script))...)
	command := exec.CommandContext(t.Context(), words[0], words[1:]...)
	command.Dir = t.TempDir()
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": command.Dir, "RUNNER_TOOL_CACHE": j.toolCache, "RUNNER_TEMP": j.temp, "GITHUB_ACTION_PATH": filepath.Join(root, "build"),
	}
	maps.Copy(env, j.env)
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	return command
}

// left lists the files that a step has left: those of the tool cache, and of the temporary folder.
func (j job) left(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, path := range append(tree(t, j.toolCache), tree(t, j.temp)...) {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			files = append(files, path)
		}
	}
	return files
}

func TestRunFindsTheProgram(t *testing.T) {
	public, private := hub(t, false), hub(t, true)
	nowhere := closedServer(t)
	for _, test := range []struct {
		name string
		home string // where the release was made
		env  map[string]string
		with map[string]string // more files of the action
		do   func(*testing.T, job, string)
		from string // a regular expression
		kept bool   // in the tool cache
	}{
		{name: "the release", home: public.ServerURL(), from: public.ServerURL() + "/org/sandbox-actions/releases/download/v1.2.3/" + asset, kept: true},
		{name: "the release, on the job's own server", home: nowhere, env: map[string]string{"GITHUB_SERVER_URL": public.ServerURL()}, from: public.ServerURL(), kept: true},
		{name: "the release, elsewhere than the job", home: public.ServerURL(), env: map[string]string{"GITHUB_SERVER_URL": hubWithout(t)}, from: public.ServerURL(), kept: true},
		{
			name: "a private release", home: private.ServerURL(), from: private.APIURL() + `/repos/org/sandbox-actions/releases/assets/\d+`, kept: true,
			env: map[string]string{"GITHUB_SERVER_URL": private.ServerURL(), "GITHUB_API_URL": private.APIURL(), "INPUT_GITHUB_TOKEN": releaseReader},
		},
		{
			name: "a private release, with the workflows' token", home: private.ServerURL(), from: private.APIURL(), kept: true,
			env: map[string]string{
				"GITHUB_SERVER_URL": private.ServerURL(), "GITHUB_API_URL": private.APIURL(), "INPUT_GITHUB_TOKEN": "ghs_of_the_caller", "SANDBOX_ACTIONS_TOKEN": releaseReader,
			},
		},
		{name: "beside", home: nowhere, with: map[string]string{"actions/" + asset: theProgram}, from: `.*/build/../actions/` + asset},
		{name: "the tool cache", home: nowhere, from: ".*/tool cache/sandbox-actions/v1.2.3/" + runtime.GOARCH + "/action-build", kept: true, do: func(t *testing.T, j job, _ string) {
			keep(t, j, theProgram)
		}},
		{name: "no tool cache", home: public.ServerURL(), env: map[string]string{"RUNNER_TOOL_CACHE": ""}, from: public.ServerURL()},
		{name: "a tool cache that can not be written", home: public.ServerURL(), env: map[string]string{"RUNNER_TOOL_CACHE": "/proc"}, from: public.ServerURL()},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := sums(test.home)
			maps.Copy(files, test.with)
			root, j := action(t, files), newJob(t, test.env)
			if test.with != nil {
				if err := os.Chmod(filepath.Join(root, "actions", asset), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if test.do != nil {
				test.do(t, j, root)
			}
			out, err := j.step(t, root).CombinedOutput()
			if want := regexp.MustCompile(`(?m)^action-build v1\.2\.3 from ` + test.from + `\S*, found in \d+\.\d\d s$`); err != nil || !want.Match(out) || !bytes.Contains(out, []byte("ran with  and PATH="+os.Getenv("PATH")+"\nversion= name=,.\n")) {
				t.Errorf("%v: %s\nwant %s", err, out, want)
			}
			left := j.left(t)
			if kept := len(left) == 1 && strings.HasPrefix(left[0], j.toolCache); kept != test.kept || !kept && len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if test.kept { // and found there by the next step, whatever has become of the network
				j.env = map[string]string{"GITHUB_SERVER_URL": nowhere}
				out, err := j.step(t, root).CombinedOutput()
				if err != nil || !bytes.Contains(out, []byte("v1.2.3 from "+left[0])) {
					t.Errorf("again: %v: %s", err, out)
				}
			}
		})
	}
}

// keep puts a program into the tool cache.
func keep(t *testing.T, j job, program string) {
	t.Helper()
	dir := filepath.Join(j.toolCache, "sandbox-actions/v1.2.3", runtime.GOARCH)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "action-build"), []byte(program), 0o755)); err != nil {
		t.Fatal(err)
	}
}

// closedServer is an address at which nobody listens.
func closedServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return "http://" + listener.Addr().String()
}

// hubWithout is a GitHub that has no such repository.
func hubWithout(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return server.URL
}

// What is not the released program never runs, and one sentence says why.
func TestRunRefuses(t *testing.T) {
	flipped := strings.Replace(theProgram, "ran", "tan", 1)
	sum, other := fmt.Sprintf("%x", sha256.Sum256([]byte(theProgram))), fmt.Sprintf("%x", sha256.Sum256([]byte(flipped)))
	for _, test := range []struct {
		name     string
		fault    github.Fault
		home     string // where the release was made; "" for the hub
		private  bool
		env      map[string]string
		do       func(t *testing.T, j job, root string)
		before   []string // the command that starts the shell
		sentence string
		asks     int // requests for the asset; 0: not counted
	}{
		{
			name: "a byte flipped at the release", fault: github.Fault{Path: github.Objects, Flip: true},
			sentence: `^::error::` + asset + ` from http://127.0.0.1:\d+/org/sandbox-actions/releases/download/v1.2.3/` + asset + ` has the SHA-256 [0-9a-f]{64}, but the commit of v1.2.3 names ` + sum + `: it was not run$`,
		},
		{name: "a byte flipped in the tool cache", do: func(t *testing.T, j job, _ string) { keep(t, j, flipped) }, sentence: `from .*/tool cache/.*/action-build has the SHA-256 ` + other + `, but the commit`},
		{name: "a byte flipped beside", do: func(t *testing.T, _ job, root string) { writeFile(t, root, "actions/"+asset, flipped) }, sentence: `from .*/actions/` + asset + ` has the SHA-256 ` + other},
		{name: "cut short", fault: github.Fault{Path: github.Objects, Truncate: 10}, sentence: `can not be had: http://127.*: curl: \(18\)`},
		{
			name: "a page to log in", sentence: `wants a login; nor is there a Go`,
			fault: github.Fault{Path: "/releases/download/", Status: 200, Body: "<html>Sign in</html>", Header: map[string]string{"Content-Type": "text/html; charset=utf-8"}},
		},
		{
			name: "gone", fault: github.Fault{Path: "/releases/download/", Status: 404},
			sentence: `answers 404: the release is gone, or it is private and github_token may not read it; nor is there a Go to build it with \(actions/setup-go\)$`,
		},
		{name: "private, without a token", private: true, sentence: `answers 404: the release is gone, or it is private`},
		{name: "private, a token that is not good", private: true, env: map[string]string{"INPUT_GITHUB_TOKEN": "ghs_bad"}, sentence: `/releases/tags/v1.2.3 answers 401`},
		{name: "503 for ever", fault: github.Fault{Path: "/releases/download/", Status: 503}, sentence: `answers 503`, asks: 4},
		{name: "429 for ever", fault: github.Fault{Path: "/releases/download/", Status: 429, Header: map[string]string{"Retry-After": "1"}}, sentence: `answers 429`, asks: 4},
		{name: "nobody there", home: closedServer(t), sentence: `can not be had: http://127.*: curl: \(7\)`},
		{name: "not https", home: "http://198.51.100.1", sentence: `can not be had: http://198.51.100.1/.*curl: \(1\)`},
		{name: "not https, disguised", home: "http://127.0.0.1:1@198.51.100.1", sentence: `can not be had: http://127.0.0.1:1@198.51.100.1/.*curl: \(1\)`},
		{
			name: "another CPU", before: []string{"setarch", "linux32"},
			sentence: `^::error::The release v1.2.3 has no action-build-linux-i686: have the job run on Linux or macOS, on amd64 or arm64$`,
		},
		{
			name: "a full disk", do: func(t *testing.T, j job, _ string) { fullDisk(t, j.toolCache) },
			sentence: asset + ` can not be written into .*/tool cache/sandbox-actions/v1.2.3/` + runtime.GOARCH + `: is the disk full\?$`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := hub(t, test.private)
			home := cmp.Or(test.home, s.ServerURL())
			root, j := action(t, sums(home)), newJob(t, map[string]string{"GITHUB_SERVER_URL": home, "GITHUB_API_URL": s.APIURL(), "PATH": t.TempDir()})
			maps.Copy(j.env, test.env)
			if !reflect.ValueOf(test.fault).IsZero() {
				s.Fail(test.fault)
			}
			var there []string
			if test.do != nil {
				test.do(t, j, root)
				there = j.left(t)
			}
			command := j.step(t, root, test.before...)
			out, err := command.CombinedOutput()
			if failed := new(exec.ExitError); !errors.As(err, &failed) || failed.ExitCode() != 1 || bytes.Contains(out, []byte("an with")) {
				t.Errorf("%v", err)
			}
			var sentences []string
			for line := range strings.Lines(string(out)) {
				if strings.HasPrefix(line, "::error::") {
					sentences = append(sentences, strings.TrimSuffix(line, "\n"))
				}
			}
			if len(sentences) != 1 || !regexp.MustCompile(test.sentence).MatchString(sentences[0]) {
				t.Errorf("%q\nwant %s\n%s", sentences, test.sentence, out)
			}
			if left := j.left(t); !slices.Equal(left, there) {
				t.Errorf("left: %q, there were %q", left, there)
			}
			asked := 0
			for _, r := range s.Requests() {
				if strings.Contains(r.Path, "/releases/download/") && r.Status != 0 {
					asked++
				}
			}
			if test.asks > 0 && asked != test.asks {
				t.Errorf("asked %d times, want %d", asked, test.asks)
			}
		})
	}
}

// fullDisk makes the disk of a folder one that is full.
func fullDisk(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// A server that fails twice is asked again.
func TestRunAsksAgain(t *testing.T) {
	s := hub(t, false)
	s.Fail(github.Fault{Path: "/releases/download/", Status: 502, Times: 2})
	out, err := newJob(t, nil).step(t, action(t, sums(s.ServerURL()))).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("ran with")) {
		t.Errorf("%v: %s", err, out)
	}
}

// What the caller's environment holds runs nothing but the program.
func TestRunInAHostileEnvironment(t *testing.T) {
	s := hub(t, false)
	dir := t.TempDir()
	mark := filepath.Join(dir, "mark")
	evil := "#!/bin/sh\necho \"$0 $*\" >>'" + mark + "'\n"
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh bash dash env awk cat chmod curl cut date git go mkdir mktemp mv openssl rm sed sha256sum shasum tr uname") {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(evil), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir, "startup", evil)
	writeFile(t, dir, ".curlrc", "url = \"file:///etc/hostname\"\noutput = \""+mark+"\"\n")
	writeFile(t, dir, ".gitconfig", "[core]\n\tfsmonitor = "+filepath.Join(bin, "git")+"\n[alias]\n\tstatus = !"+filepath.Join(bin, "git")+"\n")
	env := map[string]string{
		"PATH": bin, "HOME": dir, "BASH_ENV": filepath.Join(dir, "startup"), "ENV": filepath.Join(dir, "startup"), "CDPATH": "/", "IFS": "/", "version": "mine", "name": "mine",
		"GOFLAGS": "-toolexec=" + filepath.Join(bin, "go"), "BASH_FUNC_curl%%": "() { echo function >>'" + mark + "'; }", "BASH_FUNC_uname%%": "() { echo function >>'" + mark + "'; }",
	}
	for _, shell := range []string{"/bin/sh", "/bin/bash"} { // the sh of macOS, and of many containers, is bash
		t.Run(shell, func(t *testing.T) {
			j := newJob(t, env)
			root := action(t, sums(s.ServerURL()))
			command := exec.CommandContext(t.Context(), shell, filepath.Join(root, "actions/run.sh"), "build")
			if shell == "/bin/sh" {
				command = j.step(t, root)
			} else {
				command.Args[0] = "sh"
				command.Env = j.step(t, root).Env
			}
			out, err := command.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("ran with  and PATH="+bin+"\nversion=mine name=mine,.\n")) {
				t.Errorf("%v: %s", err, out)
			}
			if ran := read(t, mark); ran != "" {
				t.Errorf("this ran, too: %s", ran)
			}
		})
	}
}

// The token is in no list of processes, and only the private release's own server gets it.
func TestRunHidesTheToken(t *testing.T) {
	s := hub(t, true)
	s.Fail(github.Fault{Path: "/api/v3/", Silence: true})
	j := newJob(t, map[string]string{"GITHUB_SERVER_URL": s.ServerURL(), "GITHUB_API_URL": s.APIURL(), "INPUT_GITHUB_TOKEN": releaseReader})
	command := j.step(t, action(t, sums(s.ServerURL())))
	var out safeBuffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	for !slices.ContainsFunc(s.Requests(), func(r github.Request) bool { return r.HasToken && strings.Contains(r.Path, "/releases/tags/") }) {
		if t.Context().Err() != nil {
			t.Fatalf("it sends no token: %s", &out)
		}
		time.Sleep(10 * time.Millisecond)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, process := range processes {
		line, _ := os.ReadFile(process) // it may have ended
		seen = seen || bytes.Contains(line, []byte(s.APIURL()))
		if bytes.Contains(line, []byte(releaseReader)) {
			t.Errorf("in the list of processes: %q", line)
		}
	}
	if !seen {
		t.Error("the download is not in the list of processes")
	}

	// Told to stop, it stops, and leaves nothing.
	begin := time.Now()
	if err := command.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); command.ProcessState.ExitCode() != 130 {
		t.Errorf("%v: %s", err, &out)
	}
	if took := time.Since(begin); took > busyEnd {
		t.Errorf("it took %s to stop", took)
	}
	if left := append(tree(t, j.temp), j.left(t)...); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if strings.Contains(out.String(), releaseReader) {
		t.Errorf("in the log: %s", &out)
	}
}

// Proxies are honoured, and what is sent through one to github.com is TLS: the proxy sees a name and nothing else.
func TestRunUsesTheProxy(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.Host)
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(proxy.Close)
	j := newJob(t, map[string]string{"https_proxy": proxy.URL, "GITHUB_SERVER_URL": "https://github.com", "INPUT_GITHUB_TOKEN": releaseReader, "PATH": t.TempDir()})
	out, err := j.step(t, action(t, sums("https://github.com"))).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("::error::"+asset+" can not be had: https://github.com/org/sandbox-actions/releases/download/v1.2.3/"+asset+": curl: ")) {
		t.Errorf("%v: %s", err, out)
	}
	if len(seen) == 0 || seen[0] != "CONNECT github.com:443" {
		t.Errorf("%q", seen)
	}
}

// Two steps at once fill the tool cache once, or twice with the same.
func TestRunTwiceAtOnce(t *testing.T) {
	s := hub(t, false)
	root, j := action(t, sums(s.ServerURL())), newJob(t, nil)
	var group sync.WaitGroup
	for range 4 {
		command := j.step(t, root)
		group.Go(func() {
			if out, err := command.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("ran with")) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	group.Wait()
	if left := j.left(t); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}

// It is read by security teams.
func TestRunIsShort(t *testing.T) {
	if lines := strings.Count(read(t, "run.sh"), "\n"); lines >= 100 {
		t.Errorf("run.sh has %d lines", lines)
	}
}

// What run.sh adds to a program that the tool cache has: go test ./actions -run - -bench Start
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	program := filepath.Join(dir, "tools/sandbox-actions/v1.2.3", runtime.GOARCH, "action-snapshot")
	script := filepath.Join(dir, "actions/run.sh")
	do := func(command *exec.Cmd) {
		if out, err := command.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	file := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= -funcalign=16", "-o", program, "../action-snapshot")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly "+string(file(goflags)))
	do(build)
	for name, content := range map[string]string{
		"run.sh":        string(file("run.sh")),
		"checksums.txt": fmt.Sprintf("# https://github.com/org/sandbox-actions v1.2.3 go1\n%x  action-snapshot-%s\n", sha256.Sum256(file(program)), assetPlatform),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(script), 0o755), os.WriteFile(filepath.Join(dir, "actions", name), []byte(content), 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("the program alone", func(b *testing.B) {
		for b.Loop() {
			do(exec.Command(program, "--version"))
		}
	})
	b.Run("by run.sh", func(b *testing.B) {
		for b.Loop() {
			command := exec.Command("/bin/sh", script, "snapshot", "--version")
			command.Env = append(os.Environ(), "RUNNER_TOOL_CACHE="+filepath.Join(dir, "tools"))
			do(command)
		}
	})
}
