package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A checkout's own settings came with it: from an artifact, a cache, another user of the machine. None of them runs a command, and none leads
// our reading elsewhere.
func TestCheckoutOfHostileSettings(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	marks := filepath.Join(home, "marks")
	mark := filepath.Join(home, "mark") // a program that leaves a mark, and is of no use
	sh(t, home, `mkdir marks; printf '#!/bin/sh\ntouch %s/marks/$(basename "$0")\nexit 1\n' "$PWD" > mark; chmod +x mark`)
	ran := func() string {
		out := sh(t, marks, "ls")
		sh(t, marks, "rm -f *")
		return out
	}
	sh(t, home, "git clone -q --bare "+hubDir+"/app origin; git -C origin config uploadpack.allowFilter true; git -C origin config uploadpack.allowAnySHA1InWant true")
	missing := `git clone -q --filter=blob:none --no-checkout file://` + home + `/origin r; cd r; git read-tree HEAD; `
	const lazily = "git cat-file -p HEAD:run.sh"
	for _, test := range []struct {
		name    string
		script  string // makes the repository r
		control string // what runs the command when somebody else does it there; "": nothing does
		fails   string // why no .git can be made of it
	}{
		{"filters", `git clone -q HUB/app r; cd r; echo '* filter=evil' > .git/info/attributes; git config filter.evil.clean MARK; git config filter.evil.required true; touch run.sh`, "git status", ""},
		{"a filter that stays", `git clone -q HUB/app r; cd r; echo '* filter=evil' > .git/info/attributes; git config filter.evil.process MARK; touch run.sh`, "git status", ""},
		{"filters from another file", `git clone -q HUB/app r; cd r; echo '* filter=evil' > .git/info/attributes; git config -f .git/more filter.evil.clean MARK; git config include.path more; touch run.sh`, "git status", ""},
		{"filters of a worktree", `git clone -q HUB/app r; cd r; git config extensions.worktreeConfig true; echo '* filter=evil' > .git/info/attributes; git config --worktree filter.evil.clean MARK; touch run.sh`, "git status", ""},
		{"a file system monitor", `git clone -q HUB/app r; cd r; git config core.fsmonitor MARK`, "git status", ""},
		{"hooks", `git clone -q HUB/app r; cd r; mkdir h; ln -s MARK h/post-index-change; git config core.hooksPath h; touch run.sh`, "git status", ""},
		{"a pager, an alias and an external diff", `git clone -q HUB/app r; cd r; git config core.pager MARK; git config alias.status '!MARK'; git config alias.evil '!MARK'; git config diff.external MARK; echo >> run.sh`, "git diff", ""},
		{"a program on the other side", missing + `git config remote.origin.uploadpack MARK`, lazily, "check out without a filter"},
		{"a way over ssh", missing + `git config remote.origin.url ssh://127.0.0.1:1/nowhere; git config core.sshCommand MARK`, lazily, "check out without a filter"},
		{"a protocol that is a command", missing + `git config remote.origin.url 'ext::MARK'; git config protocol.ext.allow always`, lazily, "check out without a filter"},
		{"another place for the origin", missing + `git config url.ext::MARK.insteadOf "$(git config remote.origin.url)"; git config protocol.ext.allow always`, lazily, "check out without a filter"},
		{"a helper for credentials", missing + `git config remote.origin.url WEB/octo/app; git config credential.helper MARK`, lazily, "check out without a filter"},
		{"a helper for one server's credentials", missing + `git config remote.origin.url WEB/octo/app; git config credential.WEB.helper MARK`, lazily, "check out without a filter"},
		{"a program that asks", missing + `git config remote.origin.url WEB/octo/app; git config core.askPass MARK`, lazily, "check out without a filter"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			fill := strings.NewReplacer("HUB", "file://"+hubDir, "MARK", mark, "WEB", hub.ServerURL())
			sh(t, dir, fill.Replace(test.script))
			dir = filepath.Join(dir, "r")
			ran()
			tree, err := OpenCheckout(t.Context(), dir)
			if err != nil || tree.SHA == "" {
				t.Fatalf("%+v, %v", tree, err)
			}
			err = tree.WriteGitDir(t.Context(), filepath.Join(t.TempDir(), "git"))
			if test.fails == "" && err != nil {
				t.Error(err)
			} else if test.fails != "" {
				oneLine(t, err, test.fails)
			}
			if got := ran(); got != "" {
				t.Errorf("ran %q", got)
			}
			_, _ = shell(dir, test.control) // which may fail
			if ran() == "" {
				t.Errorf("the settings do nothing when %q runs: this proves nothing", test.control)
			}
		})
	}
	t.Run("a folder that poses as a repository", func(t *testing.T) {
		dir := t.TempDir()
		sh(t, dir, `git init -q; mkdir objects refs; echo ref: refs/heads/main > HEAD; git config -f config core.repositoryformatversion 0
			git config -f config core.bare false; git config -f config core.worktree "$PWD"; git config -f config core.fsmonitor `+mark+`; rm -rf .git; mkdir sub`)
		tree, err := OpenCheckout(t.Context(), dir)
		if err != nil || tree.SHA != "" || tree.Repository != "" {
			t.Errorf("%+v, %v", tree, err)
		}
		if got := ran(); got != "" {
			t.Errorf("ran %q", got)
		}
	})
	t.Run("the user's own filter stays", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte("[filter \"mine\"]\n\tclean = \"touch "+marks+"/mine; cat\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		sh(t, dir, "git clone -q file://"+hubDir+"/app r; cd r; echo '* filter=mine' > .git/info/attributes; touch run.sh")
		tree, err := OpenCheckout(t.Context(), filepath.Join(dir, "r"))
		if err != nil || tree.Dirty {
			t.Errorf("%+v, %v", tree, err)
		}
		if got := ran(); got != "mine" {
			t.Errorf("ran %q", got)
		}
	})
}
