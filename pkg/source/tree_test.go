package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	standin "github.com/org/sandbox-actions/internal/localcloud/github"
)

func TestCheckout(t *testing.T) {
	origin := newRepository(t)
	sh(t, origin, "rmdir module; git config core.fsmonitor 'touch fsmonitor-ran; false'; git remote add origin git@github.com:octo/cat.git")
	tree, err := OpenCheckout(t.Context(), origin)
	if err != nil {
		t.Fatal(err)
	}
	if tree.SHA != sh(t, origin, "git rev-parse HEAD") || tree.Ref != "refs/heads/main" || tree.Repository != "octo/cat" {
		t.Errorf("%+v", tree)
	}
	if _, err := os.Stat(filepath.Join(origin, "fsmonitor-ran")); err == nil {
		t.Error("the repository's file system monitor ran")
	}
	sh(t, origin, "git config --unset core.fsmonitor; git config status.showUntrackedFiles no; mkdir module")
	for _, test := range []struct {
		script string
		dirty  bool
	}{{"true", false}, {"touch new", true}, {"rm new; echo x >> run.sh", true}, {"git checkout -q run.sh; git checkout -q --detach", false}} {
		sh(t, origin, test.script)
		if tree, err = OpenCheckout(t.Context(), origin); err != nil || tree.Dirty != test.dirty {
			t.Errorf("%s: dirty %t, %v; want %t", test.script, tree.Dirty, err, test.dirty)
		}
	}
	if tree.Ref != "" {
		t.Errorf("detached, and yet %s", tree.Ref)
	}
}

var remotes = map[string]string{
	"https://github.com/a/b.git":          "a/b",
	"https://github.com/a/b":              "a/b",
	"https://user:pw@github.com/a/b.c":    "a/b.c",
	"git@github.com:a/b.git":              "a/b",
	"org-1234@github.com:a/.github":       "a/.github",
	"ssh://git@github.com:22/a/b.git":     "a/b",
	"http://127.0.0.1:8080/a/b":           "a/b",
	"https://github.com/a/b/":             "a/b",
	"/srv/a/b":                            "",
	"https://gitlab.example/group/sub/b/": "",
	"https://github.com/../b":             "",
	"https://github.com/a/..":             "",
	"https://github.com/a/b\n/c":          "",
	"git@github.com:a/b;id":               "",
	"ext::sh -c touch% x":                 "",
	"":                                    "",
}

func TestOwnerAndName(t *testing.T) {
	for url, want := range remotes {
		if got := ownerAndName(url); got != want {
			t.Errorf("%q: %q, want %q", url, got, want)
		}
	}
}

// fetch gets a commit into a new folder.
func fetch(t testing.TB, r Repository, sha string) (Tree, error) {
	t.Helper()
	return r.Fetch(t.Context(), Commit{SHA: sha, Ref: "refs/heads/x"}, filepath.Join(t.TempDir(), "source"))
}

func TestFetch(t *testing.T) {
	app := hubDir + "/app"
	sha := sh(t, app, "git rev-parse feature/x")
	before := len(hub.Requests())
	dir := filepath.Join(t.TempDir(), "source")
	var tree Tree
	t.Run("called from a hook", func(t *testing.T) {
		t.Setenv("GIT_DIR", "/nowhere")
		t.Setenv("GIT_CONFIG_PARAMETERS", "'core.bare=true'")
		var err error
		if tree, err = fromHub(t, "app", goodToken).Fetch(t.Context(), Commit{SHA: sha, Ref: "refs/heads/x"}, dir); err != nil {
			t.Fatal(err)
		}
	})
	if tree.SHA != sha || tree.Ref != "refs/heads/x" || tree.Dirty {
		t.Errorf("%+v", tree)
	}
	asked := false
	for _, r := range hub.Requests()[before:] {
		asked = asked || r.Path == "/octo/app/git-upload-pack" && r.HasToken
	}
	if !asked {
		t.Errorf("the token was not used: %+v", hub.Requests()[before:])
	}
	for script, want := range map[string]string{
		"ls -A": "a\nlink\nrun.sh", "cat a/b/file": "two", "readlink link": "a/b/file", "stat -c %a run.sh a a/b/file": "755\n755\n644",
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
	for _, secret := range secrets() {
		holds(t, filepath.Dir(tree.Dir), secret, false)
	}
	holds(t, filepath.Dir(tree.Dir), "two\n", true) // or nothing would be found ever

	umask := syscall.Umask(0o077)
	again, err := fetch(t, fromHub(t, "public", ""), sha)
	syscall.Umask(umask)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := content(t, tree.Dir), content(t, again.Dir); a != b {
		t.Errorf("the same commit is\n%s\nand\n%s", a, b)
	}
	next, err := fetch(t, fromHub(t, "app", goodToken), sh(t, app, "git rev-parse trunk"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(content(t, next.Dir), "\n") {
		changed := strings.HasPrefix(line, "a ") || strings.HasPrefix(line, "a/b")
		if strings.Contains(content(t, tree.Dir)+"\n", line+"\n") == changed {
			t.Errorf("in an earlier commit, differs %t: %s", changed, line)
		}
	}
}

// secrets are the forms in which the token may show.
func secrets() []string {
	return []string{goodToken, base64.StdEncoding.EncodeToString([]byte("x-access-token:" + goodToken))}
}

// holds checks whether text is in a file of dir, or in a name.
func holds(t *testing.T, dir, text string, want bool) {
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

// processes lists the arguments of those whose environment holds text.
func processes(t *testing.T, text string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(all) == 0 {
		t.Fatal("there is no /proc: run the tests on Linux")
	}
	var found []string
	for _, dir := range all {
		env, err := os.ReadFile(dir + "/environ") // of one that has ended meanwhile there is none
		if err == nil && bytes.Contains(env, []byte(text)) {
			arguments, _ := os.ReadFile(dir + "/cmdline")
			found = append(found, strings.ReplaceAll(string(arguments), "\x00", " "))
		}
	}
	return found
}

func TestFetchShowsNoTokenAndEndsWhenCancelled(t *testing.T) {
	fail(t, standin.Fault{Path: "/git-upload-pack", Silence: true})
	dir := filepath.Join(t.TempDir(), "source")
	before := len(hub.Requests())
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("the timeout of 30m is over")
	done := make(chan error, 1)
	go func() {
		_, err := fromHub(t, "app", goodToken).Fetch(ctx, Commit{SHA: sh(t, hubDir+"/app", "git rev-parse trunk")}, dir)
		done <- err
	}()
	for asked := false; !asked; runtime.Gosched() {
		for _, r := range hub.Requests()[before:] {
			asked = asked || strings.HasSuffix(r.Path, "/git-upload-pack")
		}
		if len(done) > 0 {
			t.Fatal(<-done)
		}
	}
	running := processes(t, dir)
	if list := strings.Join(running, "\n"); !strings.Contains(list, hub.ServerURL()+"/octo/app") {
		t.Errorf("no git is seen to run: %q", list)
	}
	everything, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range secrets() {
		holds(t, filepath.Dir(dir), secret, false)
		for _, path := range everything {
			if arguments, err := os.ReadFile(path); err == nil && bytes.Contains(arguments, []byte(secret)) {
				t.Errorf("the token is an argument: %q", arguments)
			}
		}
	}
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
	for len(processes(t, dir)) > 0 { // killed at once, and gone as soon as the kernel says so; the test's own time is the limit
		runtime.Gosched()
	}
}

func TestFetchSaysWhy(t *testing.T) {
	sha := sh(t, hubDir+"/app", "git rev-parse trunk")
	git := func(f standin.Fault) standin.Fault { f.Path = "/octo/app"; return f }
	moved := standin.Fault{Status: 301, Header: map[string]string{"Location": hub.ServerURL() + "/octo/moved/info/refs?service=git-upload-pack"}}
	for _, test := range []struct {
		name, repository, token, sha string
		fault                        standin.Fault
		says                         []string // none: it goes well in the end
	}{
		{"no such commit", "app", goodToken, strings.Repeat("1", 40), standin.Fault{}, []string{"not our ref", "the server no longer has that commit: push it again"}},
		{"no full SHA", "app", goodToken, sha[:10], standin.Fault{}, []string{"that is no full SHA"}},
		{"a SHA that is an option", "app", goodToken, "--upload-pack=touch x", standin.Fault{}, []string{"that is no full SHA"}},
		{"no repository's name", "../x", goodToken, sha, standin.Fault{}, []string{"is not a repository's name"}},
		{"private, without a token", "app", "", sha, standin.Fault{}, []string{"Authentication failed", "it is private, or not there: give a github_token with contents: read"}},
		{"private, with a token that is not good", "app", "ghs_expired", sha, standin.Fault{}, []string{"Authentication failed", "the token may not read it: give a github_token with contents: read that has not expired"}},
		{"no such repository", "nothing", goodToken, sha, standin.Fault{}, []string{"there is no such repository, or the token may not see it"}},
		{"forbidden", "app", goodToken, sha, git(standin.Fault{Status: 403}), []string{"error: 403", "the token may not read it"}},
		{"moved", "app", goodToken, sha, git(moved), []string{"it was renamed or moved", "give the name that it has now"}},
		{"too fast", "app", goodToken, sha, git(standin.Fault{Status: 429}), []string{"error: 429", "tried 3 times: the server asks to slow down"}},
		{"5xx", "app", goodToken, sha, git(standin.Fault{Status: 502, Body: "\n::error::x"}), []string{"error: 502", "tried 3 times: check the network, and that " + hub.ServerURL() + " (GITHUB_SERVER_URL) answers"}},
		{"5xx that ends", "app", goodToken, sha, git(standin.Fault{Status: 503, Times: 2}), nil},
		{"a message that acts", "app", goodToken, sha, git(standin.Fault{Status: 404, Body: "\x1b[31mno\r\n::error::x", Header: map[string]string{"Content-Type": "text/plain"}}), []string{"not found"}},
		{"a connection that ends", "app", goodToken, sha, git(standin.Fault{Hangup: true}), []string{"tried 3 times: check the network"}},
		{"a page instead of refs", "app", goodToken, sha, git(standin.Fault{Status: 200, Body: "<html>"}), []string{"that is no answer of a git server: check " + hub.ServerURL() + " (GITHUB_SERVER_URL)"}},
		{"a page instead of a pack", "app", goodToken, sha, standin.Fault{Path: "app/git-upload-pack", Status: 200, Body: "<html>"}, []string{"tried 3 times", "GITHUB_SERVER_URL"}},
		{"silence", "app", goodToken, sha, git(standin.Fault{Silence: true}), []string{"tried 3 times: check the network"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			set(t, &stalled, time.Second)
			if test.fault.Path != "" {
				fail(t, test.fault)
			}
			tree, err := fetch(t, fromHub(t, test.repository, test.token), test.sha)
			if test.says == nil {
				if err != nil || tree.SHA != test.sha {
					t.Errorf("%+v, %v", tree, err)
				}
				return
			}
			oneLine(t, err, test.says...)
		})
	}
	t.Run("a folder that can not be made", func(t *testing.T) {
		_, err := fromHub(t, "app", goodToken).Fetch(t.Context(), Commit{SHA: sha}, "/dev/null/source")
		oneLine(t, err, "fetch "+sha+" of octo/app", "not a directory")
	})
	t.Run("a full disk", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := shell(dir, "mount -t tmpfs -o size=64k small ."); err != nil {
			t.Fatalf("%s: run the tests as root on Linux (sudo make test)", out)
		}
		defer sh(t, "/", "umount -l "+dir)
		if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 24<<10), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := fromHub(t, "app", goodToken).Fetch(t.Context(), Commit{SHA: sha}, filepath.Join(dir, "source"))
		oneLine(t, err, "the disk is full: free some space, or set RUNNER_TEMP to a folder on another disk")
	})
	for name, test := range map[string]struct{ program, says string }{
		"no git":        {"", "git is not installed: install it"},
		"an old git":    {"git version 2.25.1", "git 2.25.1 is too old: install git 2.31 or later"},
		"an old git 1":  {"git version 1.40.0", "git 1.40.0 is too old"},
		"no git at all": {"hello", "git hello is too old"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if test.program != "" {
				if err := os.WriteFile(filepath.Join(dir, "git"), fmt.Appendf(nil, "#!/bin/sh\necho %s\n", test.program), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			_, err := fetch(t, fromHub(t, "app", goodToken), sha)
			oneLine(t, err, test.says)
			_, err = OpenCheckout(t.Context(), t.TempDir())
			oneLine(t, err, test.says)
		})
	}
}

// What a repository holds is of anybody's making: it is data, wherever it comes from.
func TestFetchOfHostileRepositories(t *testing.T) {
	// The user's own git has settings that a repository could use.
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	sh(t, home, `mkdir hooks; printf '#!/bin/sh\ntouch %s/hook-ran\n' $PWD > hooks/post-checkout; chmod +x hooks/post-checkout
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
	sh(t, filepath.Dir(outside), "mkdir -m 700 outside; cd outside; echo mine > file; chmod 600 file; touch -d 2001-02-03 file .")
	untouched := content(t, outside)

	hostile := hubDir + "/hostile"
	sum := 0
	for _, test := range []struct {
		name   string
		script string            // makes the index, or a tree whose id it leaves in TREE
		checks map[string]string // scripts, run in the folder, and what they print
		fails  string
	}{
		{"filters", `echo '* filter=evil diff=evil merge=evil' > .gitattributes; echo text > file; git add .`, map[string]string{"cat file": "text"}, ""},
		{"line ends", `printf '*.txt text eol=crlf\n*.id ident\n' > .gitattributes; echo text > a.txt; echo '$Id$' > b.id; git add . 2>&-`, map[string]string{"grep -c Id b.id": "1"}, ""},
		{"hooks", `mkdir -p .githooks hooks; printf '#!/bin/sh\ntouch ran\n' > hooks/post-checkout; chmod +x hooks/post-checkout; cp hooks/post-checkout .githooks; git add .`, map[string]string{"ls -A": ".githooks\nhooks"}, ""},
		{"a submodule", `printf '[submodule "m"]\n\tpath = m\n\turl = ext::touch%% ran\n\tupdate = checkout\n' > .gitmodules
			git add .gitmodules; git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,m`, map[string]string{"ls -A; ls -A m; stat -c '%a %F' m": ".gitmodules\nm\n755 directory"}, ""},
		{"links", `ln -s OUTSIDE out; ln -s OUTSIDE/file file; ln -s ../../../../../../etc/passwd up; ln -s . self; ln -s nowhere dangling; git add .`,
			map[string]string{"readlink out file self": "OUTSIDE\nOUTSIDE/file\n."}, ""},
		{"names", `echo 1 > $'\xff\xfe'; echo 2 > $'line\nbreak'; echo 3 > ./-rf; echo 4 > README; echo 5 > readme; echo 6 > ' '; echo 7 > 'back\slash'; echo 8 > ä; mkdir 'a b'; echo 9 > "a b/$(printf 'x%.0s' $(seq 255))"; git add .`,
			map[string]string{`cat ./$'\xff\xfe' $'line\nbreak' ./-rf README readme ' ' 'back\slash' ä 'a b'/*`: "1\n2\n3\n4\n5\n6\n7\n8\n9"}, ""},
		{"empty", `true`, map[string]string{"ls -A": ""}, ""},
		{"a repository's settings", `blob=$(printf '[core]\n\tfsmonitor = touch ran\n' | git hash-object -w --stdin); config=$(printf '100644 blob %s\tconfig\n' $blob | git mktree)
			TREE=$(printf '040000 tree %s\t.git\n' $config | git mktree)`, nil, "invalid path '.git/config'"},
		{"a repository's settings, in other letters", `blob=$(echo x | git hash-object -w --stdin); config=$(printf '100644 blob %s\tconfig\n' $blob | git mktree)
			TREE=$(printf '040000 tree %s\t.GIT\n' $config | git mktree)`, nil, "the commit has a file that git does not write"},
		{"a folder above", `blob=$(echo x | git hash-object -w --stdin); up=$(printf '100644 blob %s\tescaped\n' $blob | git mktree)
			TREE=$(printf '040000 tree %s\t..\n' $up | git mktree)`, nil, "invalid path '../escaped'"},
		{"a link and a folder of one name", `blob=$(echo x | git hash-object -w --stdin); link=$(printf OUTSIDE | git hash-object -w --stdin); sub=$(printf '100755 blob %s\tfile\n' $blob | git mktree)
			TREE=$(printf '120000 blob %s\ta\n040000 tree %s\ta\n' $link $sub | git mktree)`, map[string]string{"cat OUTSIDE/file": "mine"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			sum++
			outsider := strings.NewReplacer("OUTSIDE", outside)
			sha := sh(t, hostile, outsider.Replace(fmt.Sprintf(`rm -rf work; mkdir work; export GIT_DIR=$PWD/.git GIT_WORK_TREE=$PWD/work; cd work; git read-tree --empty; TREE=
				%s
				git update-ref refs/heads/case-%d $(git commit-tree -m case ${TREE:-$(git write-tree)}); git rev-parse refs/heads/case-%d`, test.script, sum, sum)))
			sh(t, home, "rm -f *-ran")
			tree, err := fetch(t, fromHub(t, "hostile", ""), sha)
			if test.fails != "" {
				oneLine(t, err, test.fails)
			} else if err != nil {
				t.Fatal(err)
			}
			for script, want := range test.checks {
				if got := sh(t, tree.Dir, outsider.Replace(script)); got != outsider.Replace(want) {
					t.Errorf("%s: %q, want %q", script, got, want)
				}
			}
			if got := content(t, outside); got != untouched {
				t.Errorf("another folder has changed:\n%s\nwas\n%s", got, untouched)
			}
			if err == nil && !strings.Contains(test.script, "TREE=") {
				git := filepath.Join(t.TempDir(), "git")
				if err := tree.WriteGitDir(t.Context(), git); err != nil {
					t.Fatal(err)
				}
				if got := sh(t, tree.Dir, "GIT_DIR="+git+" GIT_WORK_TREE=$PWD git status --porcelain; GIT_DIR="+git+" git fsck --strict --no-dangling"); got != "" {
					t.Errorf("git status in a copy:\n%s", got)
				}
			}
			if got := ran(); got != "" {
				t.Errorf("%s", got)
			}
		})
	}
	// The same settings do act where they may, or the above would prove nothing.
	sh(t, home, "GIT_CONFIG_GLOBAL=$HOME/.gitconfig git clone -q -b case-1 "+hub.ServerURL()+"/octo/hostile control")
	if got := ran(); !strings.Contains(got, "hook-ran") || !strings.Contains(got, "smudge-ran") {
		t.Errorf("a plain clone ran only %q", got)
	}
}
