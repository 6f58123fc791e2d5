package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The settings of a checkout may come from an artifact, a cache, or another user of the machine. They must not run
// commands or redirect reads.
func TestOpenCheckoutHostileSettings(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	marks := filepath.Join(home, "marks")
	mark := filepath.Join(home, "mark") // a program that records its run and fails
	sh(t, home, `mkdir marks; printf '#!/bin/sh\ntouch %s/marks/$(basename "$0")\nexit 1\n' "$PWD" > mark; chmod +x mark`)
	ran := func() string {
		out := sh(t, marks, "ls")
		sh(t, marks, "rm -f *")
		return out
	}
	sh(t, home, "git clone -q --bare "+hubDir+`/app origin; cd origin
		git config uploadpack.allowFilter true; git config uploadpack.allowAnySHA1InWant true`)
	missing := `git clone -q --filter=blob:none --no-checkout file://` + home + `/origin r; cd r; git read-tree HEAD; `
	const fetchLazily = "git cat-file -p HEAD:run.sh"
	for _, test := range []struct {
		name    string
		script  string // creates the repository r
		control string // runs mark in that repository without hardened settings
		phrase  string // of the error of WriteGitDir; "": it succeeds
	}{
		{
			"filters",
			`git clone -q HUB/app r; cd r; echo '* filter=evil' > .git/info/attributes; git config filter.evil.clean MARK
				git config filter.evil.required true; touch run.sh`,
			"git status", "",
		},
		{
			"long-running filter",
			`git clone -q HUB/app r; cd r; echo '* filter=evil' > .git/info/attributes; git config filter.evil.process MARK
				touch run.sh`,
			"git status", "",
		},
		{
			"filters of an included file",
			`git clone -q HUB/app r; cd r; echo '* filter=evil' > .git/info/attributes
				git config -f .git/more filter.evil.clean MARK; git config include.path more; touch run.sh`,
			"git status", "",
		},
		{
			"filters in the settings of a worktree",
			`git clone -q HUB/app r; cd r; git config extensions.worktreeConfig true; echo '* filter=evil' > .git/info/attributes
				 git config --worktree filter.evil.clean MARK; touch run.sh`,
			"git status", "",
		},
		{"file system monitor", `git clone -q HUB/app r; cd r; git config core.fsmonitor MARK`, "git status", ""},
		{
			"hooks",
			`git clone -q HUB/app r; cd r; mkdir h; ln -s MARK h/post-index-change; git config core.hooksPath h; touch run.sh`,
			"git status", "",
		},
		{
			"pager, alias and external diff",
			`git clone -q HUB/app r; cd r; git config core.pager MARK; git config alias.status '!MARK'
				git config alias.evil '!MARK'; git config diff.external MARK; echo >> run.sh`,
			"git diff", "",
		},
		{
			"upload-pack command", missing + `git config remote.origin.uploadpack MARK`, fetchLazily,
			"check out without a filter",
		},
		{
			"ssh command",
			missing + `git config remote.origin.url ssh://127.0.0.1:1/nowhere; git config core.sshCommand MARK`, fetchLazily,
			"check out without a filter",
		},
		{
			"ext:: URL",
			missing + `git config remote.origin.url 'ext::MARK'; git config protocol.ext.allow always`, fetchLazily,
			"check out without a filter",
		},
		{
			"insteadOf with an ext:: URL",
			missing + `git config url.ext::MARK.insteadOf "$(git config remote.origin.url)"
				git config protocol.ext.allow always`,
			fetchLazily, "check out without a filter",
		},
		{
			"credential helper", missing + `git config remote.origin.url WEB/octo/app; git config credential.helper MARK`,
			fetchLazily, "check out without a filter",
		},
		{
			"credential helper of one server",
			missing + `git config remote.origin.url WEB/octo/app; git config credential.WEB.helper MARK`, fetchLazily,
			"check out without a filter",
		},
		{
			"askPass program", missing + `git config remote.origin.url WEB/octo/app; git config core.askPass MARK`, fetchLazily,
			"check out without a filter",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			expand := strings.NewReplacer("HUB", "file://"+hubDir, "MARK", mark, "WEB", hub.ServerURL())
			sh(t, dir, expand.Replace(test.script))
			dir = filepath.Join(dir, "r")
			ran()
			tree, err := OpenCheckout(t.Context(), dir)
			if err != nil || tree.SHA == "" {
				t.Fatalf("%+v, %v", tree, err)
			}
			err = tree.WriteGitDir(t.Context(), filepath.Join(t.TempDir(), "git"))
			if test.phrase == "" && err != nil {
				t.Error(err)
			} else if test.phrase != "" {
				checkError(t, err, test.phrase)
			}
			if got := ran(); got != "" {
				t.Errorf("ran %q", got)
			}
			_, _ = shell(dir, test.control) // fails if mark fails
			if ran() == "" {
				t.Errorf("control: %q did not run the program", test.control)
			}
		})
	}
	t.Run("directory that looks like a bare repository", func(t *testing.T) {
		dir := t.TempDir()
		sh(t, dir, `git init -q; mkdir objects refs; echo ref: refs/heads/main > HEAD
			git config -f config core.repositoryformatversion 0; git config -f config core.bare false
			git config -f config core.worktree "$PWD"; git config -f config core.fsmonitor `+mark+`
			rm -rf .git; mkdir sub`)
		tree, err := OpenCheckout(t.Context(), dir)
		if err != nil || tree.SHA != "" || tree.Repository != "" {
			t.Errorf("%+v, %v", tree, err)
		}
		if got := ran(); got != "" {
			t.Errorf("ran %q", got)
		}
	})
	t.Run("filter of the user", func(t *testing.T) {
		dir := t.TempDir()
		config := "[filter \"mine\"]\n\tclean = \"touch " + marks + "/mine; cat\"\n"
		if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
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

// The first command that reads an object must not run a command of the repository either: git fetches a missing commit
// of a partial clone, with the settings of that clone.
func TestOpenCheckoutReadsSettingsFirst(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	mark := filepath.Join(home, "mark")
	sh(t, home, `printf '#!/bin/sh\ntouch %s/ran\nexit 1\n' "$PWD" >mark; chmod +x mark`)
	const partial = `git init -q r; cd r; git config core.repositoryFormatVersion 1
		git config extensions.partialClone origin; git config remote.origin.promisor true
		echo 1234567890123456789012345678901234567890 >.git/HEAD; `
	for name, script := range map[string]string{
		"upload-pack command": partial + `git config remote.origin.url file://` + hubDir + `/app
			git config remote.origin.uploadpack MARK`,
		"ssh command": partial + `git config remote.origin.url ssh://127.0.0.1:1/nowhere; git config core.sshCommand MARK`,
		"ext:: URL":   partial + `git config remote.origin.url ext::MARK; git config protocol.ext.allow always`,
		"credential helper": partial + `git config remote.origin.url WEB/octo/app; git config credential.helper MARK
			git config protocol.http.allow always`,
		"proxy command": partial + `git config remote.origin.url git://127.0.0.1:1/nowhere; git config core.gitProxy MARK`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, strings.NewReplacer("MARK", mark, "WEB", hub.ServerURL()).Replace(script))
			dir = filepath.Join(dir, "r")
			if tree, err := OpenCheckout(t.Context(), dir); err != nil || tree.SHA != "" {
				t.Errorf("%+v, %v", tree, err)
			}
			if os.Remove(filepath.Join(home, "ran")) == nil {
				t.Error("ran the program")
			}
			_, _ = shell(dir, "git rev-parse --verify 'HEAD^{commit}'")
			if os.Remove(filepath.Join(home, "ran")) != nil {
				t.Error("control: git did not run the program")
			}
		})
	}
}
