package actions_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
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
	"syscall"
	"testing"
	"time"

	api "github.com/google/go-github/v62/github"
	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// Tokens of the GitHub stand-in.
const (
	writeToken = "ghs_writer"
	readToken  = "ghs_reader"
)

const (
	platform = runtime.GOOS + "-" + runtime.GOARCH
	asset    = "action-build-" + platform // the program of the build action, unpacked
)

// program stands in for action-build. It prints its arguments and the environment variables that run.sh could change.
const program = `#!/bin/sh
echo "ran with $* and PATH=$PATH"
echo "version=$version name=$name,$SANDBOX_ACTIONS_TOKEN."
`

func sha256Hex(content string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(content))) }

// pack returns content compressed with gzip, like the assets of a release.
func pack(t *testing.T, content string) string {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.String()
}

// writeFiles writes files below dir, by their slash-separated paths.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// startGitHub starts a GitHub stand-in with the release v1.2.3 of org/sandbox-actions.
func startGitHub(t *testing.T, private bool) *github.Server {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"},
		{"-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--allow-empty", "--message=first"},
		{"tag", "v1.2.3"},
	} {
		command := exec.CommandContext(t.Context(), "git", args...)
		command.Dir = dir
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	s, err := github.Start(t.Context(), github.Options{
		Repositories: []github.Repository{{Owner: "org", Name: "sandbox-actions", Dir: dir, Private: private}},
		Tokens:       []string{readToken},
		JobTokens:    []github.Token{{Value: writeToken, Permissions: map[string]string{"contents": "write"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := api.NewClient(nil).WithAuthToken(writeToken).WithEnterpriseURLs(s.APIURL(), s.UploadURL())
	if err != nil {
		t.Fatal(err)
	}
	release, _, err := client.Repositories.CreateRelease(t.Context(), "org", "sandbox-actions",
		&api.RepositoryRelease{TagName: api.String("v1.2.3")})
	if err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(t.TempDir(), "packed")
	writeFiles(t, filepath.Dir(packed), map[string]string{"packed": pack(t, program)})
	for _, name := range []string{"action-test-" + platform + ".gz", asset + ".gz"} {
		file, err := os.Open(packed)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = client.Repositories.UploadReleaseAsset(t.Context(), "org", "sandbox-actions", release.GetID(),
			&api.UploadOptions{Name: name, MediaType: "application/octet-stream"}, file)
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// checkout writes the files that a runner checks out for the build action, and files, to a path that contains a space.
func checkout(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "_actions", "org", "sandbox actions", "v1")
	writeFiles(t, root, files)
	for _, name := range []string{"actions/run.sh", "actions/buildenv.sh", "build/action.yml", "go.mod"} {
		writeFiles(t, root, map[string]string{name: readFile(t, filepath.Join("..", name))})
	}
	return root
}

// checksums returns the checksums.txt of the release v1.2.3 on a server.
func checksums(server string) map[string]string {
	const format = "# %s/org/sandbox-actions v1.2.3 go1.26.8\n%s  action-test-%s\n%s  %s\n"
	return map[string]string{
		"actions/checksums.txt": fmt.Sprintf(format, server, sha256Hex("another"), platform, sha256Hex(program), asset),
	}
}

// job holds the runner's directories and the environment of a step.
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

// step returns the command that the runner starts for the action's step: the step's shell with a script file. The
// arguments before precede it.
func (j job) step(t *testing.T, root string, before ...string) *exec.Cmd {
	t.Helper()
	var document struct {
		Runs struct {
			Steps []struct{ If, Shell, Run string }
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, filepath.Join(root, "build/action.yml"))), &document); err != nil {
		t.Fatal(err)
	}
	last := document.Runs.Steps[len(document.Runs.Steps)-1]
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"script.sh": last.Run})
	shell := strings.ReplaceAll(last.Shell, "{0}", filepath.Join(dir, "script.sh"))
	words := append(slices.Clone(before), strings.Fields(shell)...)
	command := exec.CommandContext(t.Context(), words[0], words[1:]...)
	command.Dir = t.TempDir()
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": command.Dir, "RUNNER_TOOL_CACHE": j.toolCache, "RUNNER_TEMP": j.temp,
		"GITHUB_ACTION_PATH": filepath.Join(root, "build"),
	}
	maps.Copy(env, j.env)
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	return command
}

// files lists the files in the tool cache and in the temporary directory.
func (j job) files(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, dir := range []string{j.toolCache, j.temp} {
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// fillToolCache writes the program of the build action to the tool cache.
func (j job) fillToolCache(t *testing.T, content string) {
	t.Helper()
	writeFiles(t, j.toolCache, map[string]string{"sandbox-actions/v1.2.3/" + runtime.GOARCH + "/action-build": content})
}

// emptyServer starts a server that answers 404 to every request.
func emptyServer(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestRunFindsProgram(t *testing.T) {
	public, private := startGitHub(t, false), startGitHub(t, true)
	closed := "http://" + faultproxy.Refused(t)
	privateEnv := map[string]string{"GITHUB_SERVER_URL": private.ServerURL(), "GITHUB_API_URL": private.APIURL()}
	with := func(env map[string]string, more map[string]string) map[string]string {
		env = maps.Clone(env)
		maps.Copy(env, more)
		return env
	}
	for _, test := range []struct {
		name   string
		home   string // the server that made the release
		env    map[string]string
		files  map[string]string // more files of the checkout
		cached bool              // the tool cache has the program
		source string            // a regular expression
		keeps  bool              // the program is in the tool cache afterwards
	}{
		{
			name: "the release", home: public.ServerURL(), keeps: true,
			source: public.ServerURL() + "/org/sandbox-actions/releases/download/v1.2.3/" + asset + ".gz",
		},
		{
			name: "the release, on the job's server", home: closed, keeps: true,
			env: map[string]string{"GITHUB_SERVER_URL": public.ServerURL()}, source: public.ServerURL(),
		},
		{
			name: "the release, on another server than the job's", home: public.ServerURL(), keeps: true,
			env: map[string]string{"GITHUB_SERVER_URL": emptyServer(t)}, source: public.ServerURL(),
		},
		{
			name: "a private release", home: private.ServerURL(), keeps: true,
			env:    with(privateEnv, map[string]string{"INPUT_GITHUB_TOKEN": readToken}),
			source: private.APIURL() + `/repos/org/sandbox-actions/releases/assets/\d+`,
		},
		{
			name: "a private release, with the workflows' token", home: private.ServerURL(), keeps: true,
			env: with(privateEnv, map[string]string{
				"INPUT_GITHUB_TOKEN": "ghs_of_the_caller", "SANDBOX_ACTIONS_TOKEN": readToken,
			}),
			source: private.APIURL(),
		},
		{
			name: "next to the script", home: closed, files: map[string]string{"actions/" + asset: program},
			source: `.*/build/../actions/` + asset,
		},
		{
			name: "the tool cache", home: closed, cached: true, keeps: true,
			source: ".*/tool cache/sandbox-actions/v1.2.3/" + runtime.GOARCH + "/action-build",
		},
		{
			name: "no tool cache", home: public.ServerURL(), env: map[string]string{"RUNNER_TOOL_CACHE": ""},
			source: public.ServerURL(),
		},
		{
			name: "a read-only tool cache", home: public.ServerURL(), env: map[string]string{"RUNNER_TOOL_CACHE": "/proc"},
			source: public.ServerURL(),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			root, j := checkout(t, with(checksums(test.home), test.files)), newJob(t, test.env)
			if test.cached {
				j.fillToolCache(t, program)
			}
			out, err := j.step(t, root).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			found := regexp.MustCompile(`(?m)^action-build v1\.2\.3 from ` + test.source + `\S*, found in \d+\.\d\d s$`)
			if !found.Match(out) {
				t.Errorf("%s\nwant %s", out, found)
			}
			want := "ran with  and PATH=" + os.Getenv("PATH") + "\nversion= name=,.\n"
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("%s\nwant %s", out, want)
			}
			files := j.files(t)
			switch {
			case test.keeps:
				if len(files) != 1 || !strings.HasPrefix(files[0], j.toolCache) {
					t.Fatalf("files afterwards: %q", files)
				}
				// The next step finds it there without a network.
				j.env = map[string]string{"GITHUB_SERVER_URL": closed}
				out, err := j.step(t, root).CombinedOutput()
				if err != nil || !bytes.Contains(out, []byte("v1.2.3 from "+files[0])) {
					t.Errorf("next step: %v: %s", err, out)
				}
			case len(files) > 0 && runtime.GOOS == "linux": // elsewhere an open file cannot be executed
				t.Errorf("files afterwards: %q", files)
			}
		})
	}
	for _, request := range private.Requests() {
		if request.HasToken != strings.HasPrefix(request.Path, "/api/") {
			t.Errorf("only the API gets the token: %+v", request)
		}
	}
}

// run.sh executes only the released program. Otherwise it fails with one error that states the cause.
func TestRunRefuses(t *testing.T) {
	changed := strings.Replace(program, "ran", "tan", 1)
	octets := map[string]string{"Content-Type": "application/octet-stream"}
	for _, test := range []struct {
		name         string
		fault        github.Fault
		home         string // the server that made the release; "" for the stand-in
		private      bool
		env          map[string]string
		files        map[string]string // more files of the checkout
		cached       string            // the program in the tool cache
		before       []string          // the command that starts the step's shell
		want         string            // a regular expression of the error
		wantRequests int               // expected requests for the asset; 0 to skip the check
	}{
		{
			name:  "another program in the release",
			fault: github.Fault{Path: github.Objects, Status: 200, Body: pack(t, changed), Header: octets},
			want: `^::error::checksum mismatch for http://127.0.0.1:\d+/org/sandbox-actions/releases/download/v1.2.3/` +
				asset + `\.gz: got ` + sha256Hex(changed) + `, the commit of v1.2.3 has ` + sha256Hex(program) +
				`; refusing to run it$`,
		},
		{
			name: "a corrupt archive", fault: github.Fault{Path: github.Objects, CorruptLastByte: true},
			want: `^::error::cannot unpack http://127.*/` + asset + `\.gz: .*gzip.*refusing to run it$`,
		},
		{
			name: "an archive above the size limit",
			fault: github.Fault{
				Path: github.Objects, Status: 200, Body: pack(t, program+strings.Repeat("#", 600)), Header: octets,
			},
			files: map[string]string{"actions/limit": "1"},
			want:  `^::error::cannot unpack http://127`,
		},
		{
			name: "another program in the tool cache", cached: changed,
			want: `checksum mismatch for /.*/tool cache/.*/action-build: got ` + sha256Hex(changed),
		},
		{
			name: "another program next to the script", files: map[string]string{"actions/" + asset: changed},
			want: `checksum mismatch for /.*/actions/` + asset + `: got ` + sha256Hex(changed),
		},
		{
			name: "a truncated download", fault: github.Fault{Path: github.Objects, Truncate: 10},
			want: `cannot download ` + asset + `: http://127.*: curl: \(18\)`,
		},
		{
			name: "a login page", want: ` requires a login; no Go toolchain`,
			fault: github.Fault{
				Path: "/releases/download/", Status: 200, Body: "<html>Sign in</html>",
				Header: map[string]string{"Content-Type": "text/html; charset=utf-8"},
			},
		},
		{
			name: "a deleted release", fault: github.Fault{Path: "/releases/download/", Status: 404},
			want: ` returned 404: the release was deleted, or it is private and github_token cannot read it; ` +
				`no Go toolchain to build it from source \(add actions/setup-go\)$`,
		},
		{name: "a private release without a token", private: true, want: `returned 404: the release was deleted, or`},
		{
			name: "a private release with an invalid token", private: true,
			env:  map[string]string{"INPUT_GITHUB_TOKEN": "ghs_bad"},
			want: `/releases/tags/v1.2.3 returned 401`,
		},
		{
			name: "always 503", want: `returned 503`, wantRequests: 4,
			fault: github.Fault{Path: "/releases/download/", Status: 503},
		},
		{
			name: "always 429", want: `returned 429`, wantRequests: 4,
			fault: github.Fault{Path: "/releases/download/", Status: 429, Header: map[string]string{"Retry-After": "1"}},
		},
		{
			name: "no server", home: "http://" + faultproxy.Refused(t),
			want: `cannot download ` + asset + `: http://127.*: curl: \(7\)`,
		},
		{
			name: "a redirect to another protocol", want: `/releases/download/.*curl: \(1\)`,
			fault: github.Fault{
				Path: "/releases/download/", Status: 302, Header: map[string]string{"Location": "ftp://127.0.0.1:1/program"},
			},
		},
		{name: "HTTP", home: "http://198.51.100.1", want: `: http://198.51.100.1/.*curl: \(1\)`},
		{name: "HTTP disguised as loopback", home: "http://127.0.0.1:1@198.51.100.1", want: `198.51.100.1/.*curl: \(1\)`},
		{
			name: "an unsupported CPU", before: []string{"setarch", "linux32"},
			want: `^::error::release v1.2.3 has no action-build-linux-\S+: run the job on Linux or macOS, on amd64 or arm64$`,
		},
		{
			// A write fails as it does on a full disk: curl and the shell get an error instead of a signal.
			name: "a full disk", before: []string{"/bin/sh", "-c", `trap '' XFSZ; ulimit -f 0; exec "$0" "$@"`},
			want: `cannot write ` + asset + ` to .*/temp folder: free disk space or set RUNNER_TEMP`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.before != nil {
				if _, err := exec.LookPath(test.before[0]); err != nil {
					t.Skip(err)
				}
			}
			s := startGitHub(t, test.private)
			home := cmp.Or(test.home, s.ServerURL())
			files := checksums(home)
			maps.Copy(files, test.files)
			root, j := checkout(t, files), newJob(t, map[string]string{
				"GITHUB_SERVER_URL": home, "GITHUB_API_URL": s.APIURL(), "PATH": t.TempDir(),
			})
			maps.Copy(j.env, test.env)
			if limit := test.files["actions/limit"]; limit != "" {
				script := readFile(t, filepath.Join(root, "actions/run.sh"))
				script = strings.Replace(script, "_max_program_blocks=400000", "_max_program_blocks="+limit, 1)
				writeFiles(t, root, map[string]string{"actions/run.sh": script})
			}
			if !reflect.ValueOf(test.fault).IsZero() {
				s.Fail(test.fault)
			}
			if test.cached != "" {
				j.fillToolCache(t, test.cached)
			}
			before := j.files(t)
			out, err := j.step(t, root, test.before...).CombinedOutput()
			if failed := new(exec.ExitError); !errors.As(err, &failed) || failed.ExitCode() != 1 {
				t.Errorf("%v", err)
			}
			if bytes.Contains(out, []byte("an with")) {
				t.Error("the program was executed")
			}
			var errorLines []string
			for line := range strings.Lines(string(out)) {
				if strings.HasPrefix(line, "::error::") {
					errorLines = append(errorLines, strings.TrimSuffix(line, "\n"))
				}
			}
			if len(errorLines) != 1 || !regexp.MustCompile(test.want).MatchString(errorLines[0]) {
				t.Errorf("%q\nwant %s\n%s", errorLines, test.want, out)
			}
			if after := j.files(t); !slices.Equal(after, before) {
				t.Errorf("files afterwards: %q, before: %q", after, before)
			}
			asked := 0
			for _, r := range s.Requests() {
				if strings.Contains(r.Path, "/releases/download/") && r.Status != 0 {
					asked++
				}
			}
			if test.wantRequests > 0 && asked != test.wantRequests {
				t.Errorf("%d requests, want %d", asked, test.wantRequests)
			}
		})
	}
}

// Some servers answer a login page instead of 404 for a private repository.
func TestRunReadsPrivateReleaseAfterLoginPage(t *testing.T) {
	s := startGitHub(t, true)
	s.Fail(github.Fault{
		Path: "/releases/download/", Status: 200, Body: "<html>Sign in</html>",
		Header: map[string]string{"Content-Type": "text/html"},
	})
	j := newJob(t, map[string]string{
		"GITHUB_SERVER_URL": s.ServerURL(), "GITHUB_API_URL": s.APIURL(), "INPUT_GITHUB_TOKEN": readToken,
	})
	out, err := j.step(t, checkout(t, checksums(s.ServerURL()))).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("ran with")) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRunRetriesServerErrors(t *testing.T) {
	s := startGitHub(t, false)
	s.Fail(github.Fault{Path: "/releases/download/", Status: 502, Times: 2})
	out, err := newJob(t, nil).step(t, checkout(t, checksums(s.ServerURL()))).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("ran with")) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRunBuildsFromSource(t *testing.T) {
	// The fake Go prints its arguments and settings, and "compiles" $SOURCE.
	fakeGo := `#!/bin/sh
echo "go $*; GOFLAGS=$GOFLAGS GOTOOLCHAIN=$GOTOOLCHAIN GOOS=$GOOS CGO_ENABLED=$CGO_ENABLED"
if [ -z "$SOURCE" ]; then exit 2; fi
while [ "$1" != -o ]; do shift; done
printf '%s\n' "$SOURCE" >"$2"
`
	gone := emptyServer(t)
	toolchain := regexp.MustCompile(`(?m)^toolchain (\S+)$`).FindStringSubmatch(readFile(t, "../go.mod"))[1]
	const flags = "GOFLAGS=-mod=readonly -trimpath -buildvcs=false -tags=grpcnotrace "
	for _, test := range []struct {
		name   string
		files  map[string]string
		source string
		fails  bool
		want   []string // regular expressions
	}{
		{name: "a branch", source: program, want: []string{
			`(?m)^go build -ldflags=-s -w -buildid= -o .*/action-build ./action-build; ` + flags +
				`GOTOOLCHAIN=auto GOOS= CGO_ENABLED=0$`,
			`(?m)^action-build from /.*/go \(this commit is not a release, such as @v1 is\), found in`,
			`(?m)^ran with  and PATH=`,
		}},
		{name: "a release without its program", files: checksums(gone), source: program, want: []string{
			`(?m)^go build -ldflags=-s -w -buildid= -X github.com/org/sandbox-actions/actions.Version=v1.2.3 ` +
				`-o .*/action-build ` +
				`./action-build; ` + flags + `GOTOOLCHAIN=` + toolchain + ` GOOS= CGO_ENABLED=0$`,
			`(?m)^action-build v1.2.3 from /.*/go \(http\S+ returned 404: .*\), found in`,
			`(?m)^ran with  and PATH=`,
		}},
		{name: "another program", files: checksums(gone), source: "another", fails: true, want: []string{
			`(?m)^::error::checksum mismatch for /.*/go \(http\S+ returned 404: .*\): got [0-9a-f]{64}, `,
		}},
		{name: "a compiler error", fails: true, want: []string{
			`(?m)^::error::cannot build action-build from source with /.*/go: see its output above$`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			bin := t.TempDir()
			writeFiles(t, bin, map[string]string{"go": fakeGo})
			j := newJob(t, map[string]string{
				"PATH": bin, "GOTOOLCHAIN": "auto", "GOFLAGS": "-toolexec=evil", "GOOS": "plan9",
				"SOURCE": strings.TrimSuffix(test.source, "\n"),
			})
			out, err := j.step(t, checkout(t, test.files)).CombinedOutput()
			if (err != nil) != test.fails || test.fails && bytes.Contains(out, []byte("ran with")) {
				t.Errorf("%v", err)
			}
			for _, want := range test.want {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("%s\nwant %s", out, want)
				}
			}
		})
	}
}

// run.sh executes no commands or functions from the caller's environment.
func TestRunIgnoresEnvironment(t *testing.T) {
	s := startGitHub(t, true) // a private release needs more commands
	dir := t.TempDir()
	mark := filepath.Join(dir, "mark")
	evil := "#!/bin/sh\necho \"$0 $*\" >>'" + mark + "'\n"
	bin := filepath.Join(dir, "bin")
	commands := strings.Fields(`awk bash cat chmod curl cut dash date env git go gzip mkdir mktemp mv openssl rm sed sh
		sha256sum shasum tail tr uname`)
	for _, name := range commands {
		writeFiles(t, bin, map[string]string{name: evil})
	}
	writeFiles(t, dir, map[string]string{
		"mark":       "",
		"startup":    evil,
		".curlrc":    "trace-ascii = \"" + mark + "\"\n", // would write the token to a file
		".gitconfig": "[core]\n\tfsmonitor = " + bin + "/git\n[alias]\n\tstatus = !" + bin + "/git\n",
	})
	env := map[string]string{
		"PATH": bin, "HOME": dir, "BASH_ENV": filepath.Join(dir, "startup"), "ENV": filepath.Join(dir, "startup"),
		"CDPATH": "/", "IFS": "/", "version": "mine", "name": "mine", "GOFLAGS": "-toolexec=" + filepath.Join(bin, "go"),
		"GITHUB_SERVER_URL": s.ServerURL(), "GITHUB_API_URL": s.APIURL(), "INPUT_GITHUB_TOKEN": readToken,
	}
	builtins := []string{"[", "cd", "command", "kill", "printf", "read", "ulimit", "wait"}
	for _, name := range slices.Concat(commands, builtins) {
		env["BASH_FUNC_"+name+"%%"] = "() { echo function >>'" + mark + "'; }"
	}
	// sh is bash on macOS and busybox in many containers.
	for _, shell := range []string{"/bin/sh", "/bin/dash", "/bin/bash", "/usr/bin/busybox"} {
		t.Run(filepath.Base(shell), func(t *testing.T) {
			if _, err := os.Stat(shell); err != nil {
				t.Skip(err)
			}
			j := newJob(t, env)
			root := checkout(t, checksums(s.ServerURL()))
			command := j.step(t, root)
			if shell != "/bin/sh" {
				environment := command.Env
				command = exec.CommandContext(t.Context(), shell, filepath.Join(root, "actions/run.sh"), "build")
				command.Args[0] = "sh"
				command.Env = environment
			}
			out, err := command.CombinedOutput()
			if want := "ran with  and PATH=" + bin + "\nversion=mine name=mine,.\n"; err != nil ||
				!bytes.Contains(out, []byte(want)) {
				t.Errorf("%v: %s", err, out)
			}
			if executed := readFile(t, mark); executed != "" {
				t.Errorf("executed: %s", executed)
			}
		})
	}
}

// No process has the token among its arguments, and SIGINT ends a download.
func TestRunHidesToken(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads arguments from /proc")
	}
	s := startGitHub(t, true)
	s.Fail(github.Fault{Path: "/api/v3/", NoResponse: true})
	j := newJob(t, map[string]string{
		"GITHUB_SERVER_URL": s.ServerURL(), "GITHUB_API_URL": s.APIURL(), "INPUT_GITHUB_TOKEN": readToken,
	})
	command := j.step(t, checkout(t, checksums(s.ServerURL())))
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	sendsToken := func(r github.Request) bool { return r.HasToken && strings.Contains(r.Path, "/releases/tags/") }
	for !slices.ContainsFunc(s.Requests(), sendsToken) {
		if t.Context().Err() != nil {
			t.Fatal("no request with a token")
		}
		time.Sleep(10 * time.Millisecond)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, process := range processes {
		arguments, _ := os.ReadFile(process) // fails if the process has ended
		seen = seen || bytes.Contains(arguments, []byte(s.APIURL()))
		if bytes.Contains(arguments, []byte(readToken)) {
			t.Errorf("the token is in the arguments %q", arguments)
		}
	}
	if !seen {
		t.Error("no process has the URL among its arguments")
	}

	if err := command.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); command.ProcessState.ExitCode() != 130 {
		t.Errorf("%v: %s", err, &out)
	}
	if files := j.files(t); len(files) > 0 {
		t.Errorf("files afterwards: %q", files)
	}
	if entries, err := os.ReadDir(j.temp); err != nil || len(entries) > 0 {
		t.Errorf("temporary directories afterwards: %v, %v", entries, err)
	}
	if strings.Contains(out.String(), readToken) {
		t.Errorf("the token is in the log: %s", &out)
	}
}

// Downloads use the proxy of the environment, which sees only the host name of an HTTPS URL.
func TestRunUsesProxy(t *testing.T) {
	var mu sync.Mutex
	var requests []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, r.Method+" "+r.Host)
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(proxy.Close)
	j := newJob(t, map[string]string{
		"https_proxy": proxy.URL, "GITHUB_SERVER_URL": "https://github.com", "INPUT_GITHUB_TOKEN": readToken,
		"PATH": t.TempDir(),
	})
	out, err := j.step(t, checkout(t, checksums("https://github.com"))).CombinedOutput()
	want := "cannot download " + asset +
		": https://github.com/org/sandbox-actions/releases/download/v1.2.3/" + asset + ".gz: curl: "
	if err == nil || !bytes.Contains(out, []byte(want)) {
		t.Errorf("%v: %s", err, out)
	}
	if len(requests) == 0 || requests[0] != "CONNECT github.com:443" {
		t.Errorf("%q", requests)
	}
}

func TestRunConcurrently(t *testing.T) {
	s := startGitHub(t, false)
	root, j := checkout(t, checksums(s.ServerURL())), newJob(t, nil)
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
	if files := j.files(t); len(files) != 1 {
		t.Errorf("files afterwards: %q", files)
	}
}

// A run removes the copies of programs that killed runs have left.
func TestRunRemovesLeftovers(t *testing.T) {
	s := startGitHub(t, false)
	root, j := checkout(t, checksums(s.ServerURL())), newJob(t, nil)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	cache := "sandbox-actions/v1.2.3/" + runtime.GOARCH
	name := func(pid int) string { return fmt.Sprintf("sandbox-actions-program-%d-abcdef", pid) }
	writeFiles(t, j.temp, map[string]string{
		name(ended.Process.Pid) + "/action-build": "", name(os.Getpid()) + "/action-build": "",
		"sandbox-actions-program-x-1/file": "",
	})
	writeFiles(t, j.toolCache, map[string]string{
		cache + "/" + name(ended.Process.Pid): "", cache + "/" + name(os.Getpid()): "",
	})
	if out, err := j.step(t, root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := []string{
		filepath.Join(j.toolCache, cache, "action-build"), filepath.Join(j.toolCache, cache, name(os.Getpid())),
		filepath.Join(j.temp, name(os.Getpid()), "action-build"), filepath.Join(j.temp, "sandbox-actions-program-x-1/file"),
	}
	if got := j.files(t); !slices.Equal(got, want) {
		t.Errorf("files afterwards: %q, want %q", got, want)
	}
}

// The tool cache is shared by the jobs of a self-hosted runner. A job that swaps the program in it while another job
// starts cannot make that job execute anything but the verified program.
func TestRunExecutesWhatItVerified(t *testing.T) {
	root, j := checkout(t, checksums("http://"+faultproxy.Refused(t))), newJob(t, nil)
	j.fillToolCache(t, program)
	cached := filepath.Join(j.toolCache, "sandbox-actions/v1.2.3", runtime.GOARCH, "action-build")
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"good": program, "evil": "#!/bin/sh\necho evil\n"})
	stop := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			link := filepath.Join(dir, "link")
			// A rename is atomic, so the launcher always finds a program.
			if err := errors.Join(os.Link(filepath.Join(dir, []string{"good", "evil"}[i%2]), link),
				os.Rename(link, cached)); err != nil {
				t.Error(err)
				return
			}
			_ = os.Remove(link) // rename keeps it if both names already are the same file
		}
	})
	executed := 0
	for range 40 {
		out, err := j.step(t, root).CombinedOutput()
		switch {
		case bytes.Contains(out, []byte("evil\n")):
			t.Errorf("executed a program that was not verified: %s", out)
		case err == nil && bytes.Contains(out, []byte("ran with")):
			executed++
		case !bytes.Contains(out, []byte("checksum mismatch")):
			t.Errorf("%v: %s", err, out)
		}
	}
	close(stop)
	attacker.Wait()
	t.Logf("executed %d of 40 times; refused the others", executed)
}

// BenchmarkStart measures the overhead of run.sh for a program in the tool cache: go test ./actions -run - -bench Start
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	program := filepath.Join(dir, "tools/sandbox-actions/v1.2.3", runtime.GOARCH, "action-snapshot")
	runScript := filepath.Join(dir, "actions/run.sh")
	run := func(command *exec.Cmd) {
		if out, err := command.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	const compile = `. actions/buildenv.sh; exec go build -ldflags="$(link_flags '')" -o "$1" ./action-snapshot`
	build := exec.Command("sh", "-euc", compile, "sh", program)
	build.Dir = ".."
	run(build)
	sums := fmt.Sprintf("# https://github.com/org/sandbox-actions v1.2.3 go1\n%s  action-snapshot-%s\n",
		sha256Hex(readFile(b, program)), platform)
	for name, content := range map[string]string{"run.sh": readFile(b, "run.sh"), "checksums.txt": sums} {
		path := filepath.Join(filepath.Dir(runScript), name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("the program alone", func(b *testing.B) {
		for b.Loop() {
			run(exec.Command(program, "--version"))
		}
	})
	b.Run("through run.sh", func(b *testing.B) {
		for b.Loop() {
			command := exec.Command("/bin/sh", runScript, "snapshot", "--version")
			command.Env = append(os.Environ(), "RUNNER_TOOL_CACHE="+filepath.Join(dir, "tools"))
			run(command)
		}
	})
}
