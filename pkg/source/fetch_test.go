package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/internal/faultproxy"
	standin "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/git"
)

// fetch fetches a commit to a new directory.
func fetch(t testing.TB, r Repository, sha string) (Tree, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	return r.Fetch(t.Context(), Commit{SHA: sha, Ref: "refs/heads/x"}, dir, FetchOptions{})
}

func TestFetch(t *testing.T) {
	app := hubDir + "/app"
	sha := sh(t, app, "git rev-parse feature/x")
	before := len(hub.Requests())
	dir := filepath.Join(t.TempDir(), "source")
	var tree Tree
	t.Run("with variables of a git hook", func(t *testing.T) {
		t.Setenv("GIT_DIR", "/nowhere")
		t.Setenv("GIT_CONFIG_PARAMETERS", "'core.bare=true'")
		var err error
		tree, err = fromHub("app", goodToken).Fetch(t.Context(), Commit{SHA: sha, Ref: "refs/heads/x"}, dir, FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	})
	if tree.Dir != dir || tree.SHA != sha || tree.Ref != "refs/heads/x" {
		t.Errorf("tree = %+v", tree)
	}
	usedToken := false
	for _, r := range hub.Requests()[before:] {
		usedToken = usedToken || r.Path == "/octo/app/git-upload-pack" && r.HasToken
	}
	if !usedToken {
		t.Errorf("no request had the token: %+v", hub.Requests()[before:])
	}
	for script, want := range map[string]string{
		"ls -A":                               "a\nlink\nrun.sh",
		"cat a/b/file":                        "two",
		"readlink link":                       "a/b/file",
		"stat -c %a run.sh a a/b/file":        "755\n755\n644",
		"GIT_DIR=$PWD.git git rev-parse HEAD": sha,
		"GIT_DIR=$PWD.git GIT_WORK_TREE=$PWD git status --porcelain":                           "",
		"GIT_DIR=$PWD.git git rev-list --count HEAD":                                           "1",
		"GIT_DIR=$PWD.git git for-each-ref":                                                    "",
		"ls $PWD.git | grep -e hooks -e FETCH_HEAD || true":                                    "",
		"GIT_DIR=$PWD.git git fsck":                                                            "",
		"GIT_DIR=$PWD.git git config --get-regexp 'remote|url|http|credential|filter' || true": "",
	} {
		if got := sh(t, tree.Dir, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	for _, secret := range tokenForms() {
		checkContains(t, filepath.Dir(tree.Dir), secret, false)
	}
	checkContains(t, filepath.Dir(tree.Dir), "two\n", true) // proves that the search works

	umask := syscall.Umask(0o077)
	again, err := fetch(t, fromHub("public", ""), sha)
	syscall.Umask(umask)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := listFiles(t, tree.Dir), listFiles(t, again.Dir); a != b {
		t.Errorf("the same commit is\n%s\nand\n%s", a, b)
	}
	next, err := fetch(t, fromHub("app", goodToken), sh(t, app, "git rev-parse trunk"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(listFiles(t, next.Dir), "\n") {
		changed := strings.HasPrefix(line, "a ") || strings.HasPrefix(line, "a/b")
		if strings.Contains(listFiles(t, tree.Dir)+"\n", line+"\n") == changed {
			t.Errorf("another commit: changed = %t, want the opposite: %s", changed, line)
		}
	}
}

// tokenForms returns the forms in which the token could leak.
func tokenForms() []string {
	return []string{goodToken, base64.StdEncoding.EncodeToString([]byte("x-access-token:" + goodToken))}
}

// checkContains fails unless text is in a file or a path in dir, or, if want is false, in none.
func checkContains(t *testing.T, dir, text string, want bool) {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.Contains(path, text) {
			found = path
		}
		if e.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if bytes.Contains(data, []byte(text)) {
				found = path
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if (found != "") != want {
		t.Errorf("%q is in %q, want %t", text, found, want)
	}
}

// processes returns the arguments of all processes with text in their environment.
func processes(t *testing.T, text string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range all {
		env, err := os.ReadFile(dir + "/environ") // fails for a process that has ended
		if err == nil && bytes.Contains(env, []byte(text)) {
			arguments, _ := os.ReadFile(dir + "/cmdline")
			found = append(found, strings.ReplaceAll(string(arguments), "\x00", " "))
		}
	}
	return found
}

func TestFetchHidesTokenAndCancels(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	injectFaults(t, standin.Fault{Path: "/git-upload-pack", NoResponse: true})
	dir := filepath.Join(t.TempDir(), "source")
	before := len(hub.Requests())
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	cause := errors.New("timed out")
	sha := sh(t, hubDir+"/app", "git rev-parse trunk")
	done := make(chan error, 1)
	go func() {
		_, err := fromHub("app", goodToken).Fetch(ctx, Commit{SHA: sha}, dir, FetchOptions{})
		done <- err
	}()
	for requested := false; !requested; runtime.Gosched() {
		for _, r := range hub.Requests()[before:] {
			requested = requested || strings.HasSuffix(r.Path, "/git-upload-pack")
		}
		if len(done) > 0 {
			t.Fatal(<-done)
		}
	}
	running := processes(t, dir)
	if list := strings.Join(running, "\n"); !strings.Contains(list, hub.ServerURL()+"/octo/app") {
		t.Errorf("git is not among the processes: %q", list)
	}
	everything, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range tokenForms() {
		checkContains(t, filepath.Dir(dir), secret, false)
		for _, path := range everything {
			if arguments, err := os.ReadFile(path); err == nil && bytes.Contains(arguments, []byte(secret)) {
				t.Errorf("the token is in the arguments %q", arguments)
			}
		}
	}
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("error = %v, want the cause", err)
	}
	for len(processes(t, dir)) > 0 { // killed: the kernel takes a moment to remove them
		runtime.Gosched()
	}
}

func TestFetchFails(t *testing.T) {
	sha := sh(t, hubDir+"/app", "git rev-parse trunk")
	onServer := func(f standin.Fault) standin.Fault { f.Path = "/octo/app"; return f }
	moved := standin.Fault{
		Status: 301, Header: map[string]string{"Location": hub.ServerURL() + "/octo/moved/info/refs?service=git-upload-pack"},
	}
	plainText := map[string]string{"Content-Type": "text/plain"}
	for _, test := range []struct {
		name, repository, token, sha string
		fault                        standin.Fault
		cause                        git.Cause
		attempts                     int    // 0: git does not run
		phrase                       string // of the hint
	}{
		{"unknown commit", "app", goodToken, strings.Repeat("1", 40), standin.Fault{}, git.MissingCommit, 1, "push it again"},
		{"short SHA", "app", goodToken, sha[:10], standin.Fault{}, 0, 0, "not a full SHA"},
		{"SHA that is an option", "app", goodToken, "--upload-pack=touch x", standin.Fault{}, 0, 0, "not a full SHA"},
		{"invalid repository name", "../x", goodToken, sha, standin.Fault{}, 0, 0, "invalid repository name"},
		{
			"private, without a token", "app", "", sha, standin.Fault{}, git.Unauthorized, 1,
			"set github_token to a token with contents: read)",
		},
		{
			"private, with an expired token", "app", "ghs_expired", sha, standin.Fault{}, git.Unauthorized, 1,
			"that has not expired",
		},
		{
			"unknown repository", "nothing", goodToken, sha, standin.Fault{}, git.NotFound, 1,
			"check the name and the github_token",
		},
		{"moved", "app", goodToken, sha, onServer(moved), git.Moved, 1, "use its current name"},
		{
			"message with a workflow command", "app", goodToken, sha,
			onServer(standin.Fault{Status: 404, Body: "\x1b[31mno\r\n::error::x", Header: plainText}), git.NotFound, 1,
			"not found",
		},
		{
			"web page instead of refs", "app", goodToken, sha,
			onServer(standin.Fault{Status: 200, Body: "<html>"}), git.NotGit, 1,
			"not a git server: check " + hub.ServerURL(),
		},
		{
			"web page instead of a pack", "app", goodToken, sha,
			standin.Fault{Path: "app/git-upload-pack", Status: 200, Body: "<html>"}, git.Network, 3, "GITHUB_SERVER_URL",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.fault.Path != "" {
				injectFaults(t, test.fault)
			}
			_, err := fetch(t, fromHub(test.repository, test.token), test.sha)
			checkError(t, err, test.phrase)
			failure, ok := errors.AsType[*git.Error](err)
			if ok != (test.attempts > 0) ||
				ok && (failure.Cause != test.cause || max(1, failure.Attempts) != test.attempts) {
				t.Errorf("error = %#v, want cause %d after %d attempts", failure, test.cause, test.attempts)
			}
		})
	}
	t.Run("directory that cannot be created", func(t *testing.T) {
		_, err := fromHub("app", goodToken).Fetch(t.Context(), Commit{SHA: sha}, "/dev/null/source", FetchOptions{})
		if !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("error = %v", err)
		}
		checkError(t, err, "fetch "+sha+" of octo/app")
	})
	t.Run("full disk", func(t *testing.T) {
		if testing.Short() {
			t.Skip("needs root on Linux to mount a small file system; run without -short")
		}
		dir := t.TempDir()
		if out, err := shell(dir, "mount -t tmpfs -o size=64k small ."); err != nil {
			t.Fatalf("%s: run the tests as root on Linux (sudo make test)", out)
		}
		defer sh(t, "/", "umount -l "+dir)
		if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 24<<10), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := fromHub("app", goodToken).Fetch(t.Context(), Commit{SHA: sha}, filepath.Join(dir, "source"), FetchOptions{})
		checkError(t, err, "free disk space, or set RUNNER_TEMP")
	})
	for name, program := range map[string]string{"no git": "", "old git": "git version 2.25.1"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			phrase := git.ErrNotInstalled.Error()
			if program != "" {
				phrase = "git 2.25.1 is too old"
				script := fmt.Appendf(nil, "#!/bin/sh\necho %s\n", program)
				if err := os.WriteFile(filepath.Join(dir, "git"), script, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			_, err := fetch(t, fromHub("app", goodToken), sha)
			checkError(t, err, phrase)
			_, err = OpenCheckout(t.Context(), t.TempDir())
			checkError(t, err, phrase)
		})
	}
}

// Both requests of a fetch are repeated if that may help.
func TestFetchRetries(t *testing.T) {
	sha := sh(t, hubDir+"/app", "git rev-parse trunk")
	first, second, hinted := 1500*time.Millisecond, 3*time.Second, 7*time.Second
	for _, request := range []string{"/info/refs", "/git-upload-pack"} {
		for _, test := range []struct {
			name    string
			fault   standin.Fault
			cause   git.Cause
			waits   []time.Duration
			phrases []string // of the error; nil: Fetch succeeds
		}{
			{"reset", standin.Fault{Hangup: true}, git.Network, []time.Duration{first, second}, []string{
				"Empty reply", "tried 3 times; check the network, and that " + hub.ServerURL() + " (GITHUB_SERVER_URL) answers"}},
			{"401", standin.Fault{Status: 401}, git.Unauthorized, nil, []string{"set github_token"}},
			{"403", standin.Fault{Status: 403}, git.Unauthorized, nil, []string{"error: 403", "contents: read"}},
			{"404", standin.Fault{Status: 404}, git.NotFound, nil, []string{"check the name"}},
			{"429", standin.Fault{Status: 429}, git.RateLimited, []time.Duration{first, second},
				[]string{"error: 429", "tried 3 times; the server limits requests"}},
			{"429 with Retry-After", standin.Fault{Status: 429, Header: map[string]string{"Retry-After": "7"}, Times: 2}, 0,
				[]time.Duration{hinted, hinted}, nil},
			{"429 with a long Retry-After", standin.Fault{Status: 429, Header: map[string]string{"Retry-After": "3600"}},
				git.RateLimited, nil, []string{"retry after 1h0m0s"}},
			{"500 once", standin.Fault{Status: 500, Times: 1}, 0, []time.Duration{first}, nil},
			{"502", standin.Fault{Status: 502, Body: "\n::error::x"}, git.Network, []time.Duration{first, second},
				[]string{"error: 502", "tried 3 times"}},
			{"503 twice", standin.Fault{Status: 503, Body: "<html>", Times: 2}, 0, []time.Duration{first, second}, nil},
			{"cut body", standin.Fault{Truncate: 20}, git.Network, []time.Duration{first, second},
				[]string{"transfer closed with", "tried 3 times"}},
			{"silence", standin.Fault{NoResponse: true}, git.Network, []time.Duration{first, second},
				[]string{"Operation too slow", "tried 3 times"}},
		} {
			t.Run(request[1:]+" "+test.name, func(t *testing.T) {
				test.fault.Path = request
				injectFaults(t, test.fault)
				clock := &fakeclock.Clock{}
				r := fromHub("app", goodToken)
				r.HTTP.Clock = clock
				if test.fault.NoResponse {
					r.GitIdleTimeout = 3 * time.Second // git counts whole seconds; other requests are answered in that time
				}
				tree, err := fetch(t, r, sha)
				if !slices.Equal(clock.Slept(), test.waits) {
					t.Errorf("waits = %v, want %v", clock.Slept(), test.waits)
				}
				if test.phrases == nil {
					if err != nil || tree.SHA != sha {
						t.Errorf("%+v, %v", tree, err)
					}
					return
				}
				if request == "/git-upload-pack" {
					test.phrases = append(test.phrases, "RPC failed")
				}
				checkError(t, err, test.phrases...)
				failure, ok := errors.AsType[*git.Error](err)
				if !ok || failure.Cause != test.cause || failure.Attempts != len(test.waits)+1 {
					t.Errorf("error = %#v", failure)
				}
			})
		}
	}
	t.Run("TLS", func(t *testing.T) {
		secure, plain := httptest.NewUnstartedServer(http.NotFoundHandler()), httptest.NewServer(http.NotFoundHandler())
		secure.Config.ErrorLog = log.New(io.Discard, "", 0)
		secure.StartTLS()
		defer secure.Close()
		defer plain.Close()
		for phrase, server := range map[string]string{
			"check the clock of this machine":   secure.URL,
			"the server there does not use TLS": strings.Replace(plain.URL, "http:", "https:", 1),
		} {
			r := fromHub("app", goodToken)
			r.ServerURL = server
			_, err := fetch(t, r, sha)
			checkError(t, err, phrase)
		}
	})
	t.Run("refused", func(t *testing.T) {
		r := fromHub("app", goodToken)
		r.ServerURL, r.HTTP.Clock = "http://"+faultproxy.Refused(t), &fakeclock.Clock{}
		_, err := fetch(t, r, sha)
		checkError(t, err, "Failed to connect", "tried 3 times; check the network")
	})
}

// The settings that another job has left on the runner cannot send the token to another server.
func TestFetchIgnoresLeftoverSettings(t *testing.T) {
	sha := sh(t, hubDir+"/app", "git rev-parse feature/x")
	var received strings.Builder
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.Write(&received)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer evil.Close()
	for name, setting := range map[string]string{
		"address": "url." + evil.URL + "/.insteadOf " + hub.ServerURL() + "/",
		"proxy":   "http.proxy " + evil.URL,
		"header":  "http.extraHeader X-Evil:1",
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			sh(t, home, "git config -f .gitconfig "+setting)
			t.Setenv("HOME", home)
			t.Setenv("XDG_CONFIG_HOME", home)
			if _, err := fetch(t, fromHub("app", goodToken), sha); err != nil || received.Len() > 0 {
				t.Errorf("%v; another server received %s", err, &received)
			}
		})
	}
}

// Fetch never executes content of a repository, and never writes outside the directory.
func TestFetchHostileRepository(t *testing.T) {
	// Settings of the user that a repository could use.
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	sh(t, home, `mkdir hooks; printf '#!/bin/sh\ntouch %s/hook-ran\n' $PWD > hooks/post-checkout
		chmod +x hooks/post-checkout
		git config -f .gitconfig core.hooksPath $PWD/hooks
		git config -f .gitconfig filter.evil.smudge "touch $PWD/smudge-ran; cat"
		git config -f .gitconfig filter.evil.clean "touch $PWD/clean-ran; cat"
		git config -f .gitconfig filter.evil.required true
		git config -f .gitconfig core.fsmonitor "touch $PWD/fsmonitor-ran; false"
		git config -f .gitconfig credential.helper "!touch $PWD/credential-ran; true"
		git config -f .gitconfig submodule.recurse true
		git config -f .gitconfig protocol.ext.allow always
		git config -f .gitconfig core.autocrlf true`)
	ran := func() string { return sh(t, home, "ls | grep ran || true") }
	outside := filepath.Join(t.TempDir(), "outside")
	sh(t, filepath.Dir(outside), `mkdir -m 700 outside; cd outside
		echo mine > file; chmod 600 file; touch -d 2001-02-03 file .`)
	untouched := listFiles(t, outside)

	hostile := hubDir + "/hostile"
	for number, test := range []struct {
		name   string
		script string            // fills the index, or sets TREE to the ID of a tree
		checks map[string]string // expected output of scripts that run in the directory
		phrase string            // of the error; "": Fetch succeeds
	}{
		{
			"filters", `echo '* filter=evil diff=evil merge=evil' > .gitattributes; echo text > file; git add .`,
			map[string]string{"cat file": "text"}, "",
		},
		{
			"line endings",
			`printf '*.txt text eol=crlf\n*.id ident\n' > .gitattributes; echo text > a.txt; echo '$Id$' > b.id; git add . 2>&-`,
			map[string]string{"grep -c Id b.id": "1"}, "",
		},
		{
			"hooks",
			`mkdir -p .githooks hooks; printf '#!/bin/sh\ntouch ran\n' > hooks/post-checkout; chmod +x hooks/post-checkout
				cp hooks/post-checkout .githooks; git add .`,
			map[string]string{"ls -A": ".githooks\nhooks"}, "",
		},
		{"submodule", `printf '[submodule "m"]\n\tpath = m\n\turl = ext::touch%% ran\n\tupdate = checkout\n' > .gitmodules
			git add .gitmodules; git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,m`,
			map[string]string{"ls -A; ls -A m; stat -c '%a %F' m": ".gitmodules\nm\n755 directory"}, ""},
		{"symbolic links", `ln -s OUTSIDE out; ln -s OUTSIDE/file file; ln -s ../../../../../../etc/passwd up; ln -s . self
			ln -s nowhere dangling; git add .`,
			map[string]string{"readlink out file self": "OUTSIDE\nOUTSIDE/file\n."}, ""},
		{"file names", `echo 1 > $'\xff\xfe'; echo 2 > $'line\nbreak'; echo 3 > ./-rf; echo 4 > README; echo 5 > readme
			echo 6 > ' '; echo 7 > 'back\slash'; echo 8 > ä; mkdir 'a b'; echo 9 > "a b/$(printf 'x%.0s' $(seq 255))"
			git add .`,
			map[string]string{
				`cat ./$'\xff\xfe' $'line\nbreak' ./-rf README readme ' ' 'back\slash' ä 'a b'/*`: "1\n2\n3\n4\n5\n6\n7\n8\n9",
			}, ""},
		{"empty commit", `true`, map[string]string{"ls -A": ""}, ""},
		{"git config of a repository", `blob=$(printf '[core]\n\tfsmonitor = touch ran\n' | git hash-object -w --stdin)
			config=$(printf '100644 blob %s\tconfig\n' $blob | git mktree)
			TREE=$(printf '040000 tree %s\t.git\n' $config | git mktree)`, nil, "invalid path '.git/config'"},
		{"git config in other letters", `blob=$(echo x | git hash-object -w --stdin)
			config=$(printf '100644 blob %s\tconfig\n' $blob | git mktree)
			TREE=$(printf '040000 tree %s\t.GIT\n' $config | git mktree)`, nil, "invalid path '.GIT/config'"},
		{"parent directory", `blob=$(echo x | git hash-object -w --stdin)
			up=$(printf '100644 blob %s\tescaped\n' $blob | git mktree)
			TREE=$(printf '040000 tree %s\t..\n' $up | git mktree)`, nil, "invalid path '../escaped'"},
		{"symbolic link and directory of the same name", `blob=$(echo x | git hash-object -w --stdin)
			link=$(printf OUTSIDE | git hash-object -w --stdin); sub=$(printf '100755 blob %s\tfile\n' $blob | git mktree)
			TREE=$(printf '120000 blob %s\ta\n040000 tree %s\ta\n' $link $sub | git mktree)`,
			map[string]string{"cat OUTSIDE/file": "mine"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			expand := strings.NewReplacer("OUTSIDE", outside)
			branch := fmt.Sprintf("refs/heads/case-%d", number)
			sha := sh(t, hostile, expand.Replace(`rm -rf work; mkdir work; export GIT_DIR=$PWD/.git GIT_WORK_TREE=$PWD/work
				cd work; git read-tree --empty; TREE=
				`+test.script+`
				git update-ref `+branch+` $(git commit-tree -m case ${TREE:-$(git write-tree)}); git rev-parse `+branch))
			sh(t, home, "rm -f *-ran")
			tree, err := fetch(t, fromHub("hostile", ""), sha)
			if test.phrase != "" {
				checkError(t, err, test.phrase)
			} else if err != nil {
				t.Fatal(err)
			}
			for script, want := range test.checks {
				if got := sh(t, tree.Dir, expand.Replace(script)); got != expand.Replace(want) {
					t.Errorf("%s: %q, want %q", script, got, want)
				}
			}
			if got := listFiles(t, outside); got != untouched {
				t.Errorf("a file outside has changed:\n%s\nwas\n%s", got, untouched)
			}
			if err == nil && !strings.Contains(test.script, "TREE=") {
				gitDir := filepath.Join(t.TempDir(), "git")
				if err := tree.WriteGitDir(t.Context(), gitDir); err != nil {
					t.Fatal(err)
				}
				if got := sh(t, tree.Dir, "export GIT_DIR="+gitDir+" GIT_WORK_TREE=$PWD"+`
					git status --porcelain; git fsck --strict --no-dangling`); got != "" {
					t.Errorf("git status and fsck:\n%s", got)
				}
			}
			if got := ran(); got != "" {
				t.Errorf("executed: %s", got)
			}
		})
	}
	// As a control, the same settings run commands in a plain clone.
	sh(t, home, "GIT_CONFIG_GLOBAL=$HOME/.gitconfig git clone -q -b case-0 "+hub.ServerURL()+"/octo/hostile control")
	if got := ran(); !strings.Contains(got, "hook-ran") || !strings.Contains(got, "smudge-ran") {
		t.Errorf("a plain clone ran only %q", got)
	}
}
