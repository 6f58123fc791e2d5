package source

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	standin "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/git"
)

// link is a shell command that adds a submodule with a path, a URL and a commit.
func link(path, address, sha string) string {
	return "git config -f .gitmodules submodule." + path + ".path " + path +
		"; git config -f .gitmodules submodule." + path + ".url '" + address +
		"'; mkdir -p " + path + "; git update-index --add --cacheinfo 160000," + sha + "," + path + "\n"
}

func TestFetchSubmodules(t *testing.T) {
	address := hub.ServerURL()
	inner := addRepository(t, "inner", trackBin+"lfs a.bin inner; echo inner >file", false)
	lib := addRepository(t, "lib", trackBin+"lfs a.bin content; echo lib >file; mkdir dir; echo x >dir/x; chmod +x file\n"+
		link("deep/inner", "../inner.git", inner), true)
	sha := addRepository(t, "super", "echo super >file\n"+link("vendor/lib", "./../lib", lib)+
		link("absolute", address+"/octo/lib.git", lib)+link("ssh", "git@127.0.0.1:octo/lib.git", lib)+
		link("unused", address+"/octo/nothing", lib)+"git config -f .gitmodules submodule.unused.update none", true)
	for _, test := range []struct {
		submodules Submodules
		unfetched  string
		files      map[string]string // output of scripts
	}{
		{NoSubmodules, "absolute ssh unused vendor/lib", map[string]string{
			"cat file; ls vendor/lib absolute": "super\nabsolute:\n\nvendor/lib:",
		}},
		{"", "absolute ssh unused vendor/lib", nil},
		{DirectSubmodules, "absolute/deep/inner ssh/deep/inner vendor/lib/deep/inner", map[string]string{
			"cat vendor/lib/file absolute/file ssh/file vendor/lib/a.bin": "lib\nlib\nlib\ncontent",
			"ls vendor/lib/deep/inner unused":                             "unused:\n\nvendor/lib/deep/inner:",
		}},
		{RecursiveSubmodules, "", map[string]string{
			"cat vendor/lib/deep/inner/file vendor/lib/deep/inner/a.bin": "inner\ninner",
			"find . -name .git": "",
			"stat -c %a vendor/lib/file vendor/lib/dir/x vendor/lib": "755\n644\n755",
		}},
	} {
		t.Run(string(test.submodules), func(t *testing.T) {
			fetch := func() Tree {
				tree, err := fromHub("super", goodToken).Fetch(t.Context(), Commit{SHA: sha}, filepath.Join(t.TempDir(), "s"),
					FetchOptions{LFS: true, Submodules: test.submodules})
				if err != nil {
					t.Fatal(err)
				}
				return tree
			}
			tree := fetch()
			if got := strings.Join(tree.Unfetched.Submodules, " "); got != test.unfetched {
				t.Errorf("unfetched = %s, want %s", got, test.unfetched)
			}
			for script, want := range test.files {
				if got := sh(t, tree.Dir, script); got != want {
					t.Errorf("%s: %q, want %q", script, got, want)
				}
			}
			if a, b := listFiles(t, tree.Dir), listFiles(t, fetch().Dir); a != b {
				t.Errorf("the same commit is\n%s\nand\n%s", a, b)
			}
			for _, secret := range tokenForms() {
				checkContains(t, filepath.Dir(tree.Dir), secret, false)
			}
			gitDir := filepath.Join(t.TempDir(), "git")
			if err := tree.WriteGitDir(t.Context(), gitDir); err != nil {
				t.Fatal(err)
			}
			const status = " GIT_WORK_TREE=$PWD; git status --porcelain; git diff --name-only"
			if got := sh(t, tree.Dir, "export GIT_DIR="+gitDir+status); got != "" {
				t.Errorf("git status: %s", got)
			}
		})
	}
}

func TestFetchSubmodulesFails(t *testing.T) {
	lib := addRepository(t, "lib", "echo lib >file", true)
	missing := strings.Repeat("1", 40)
	const (
		private = "set github_token to a token with contents: read for both repositories"
		secure  = "use an https:// URL"
	)
	for name, test := range map[string]struct {
		script, token string
		fault         standin.Fault
		phrases       []string // of the error; nil: Fetch succeeds
	}{
		"private": {
			link("m", "../lib", lib), "", standin.Fault{},
			[]string{"submodule m from " + hub.ServerURL() + "/octo/lib: git fetch: ", private},
		},
		"unknown repository": {link("m", "../nothing", lib), goodToken, standin.Fault{}, []string{"submodule m", private}},
		"missing commit": {
			link("m", "../lib", missing), goodToken, standin.Fault{}, []string{"its repository no longer has the commit"},
		},
		"no .gitmodules": {
			"git update-index --add --cacheinfo 160000," + lib + ",m; mkdir m", goodToken, standin.Fault{},
			[]string{"submodule m: no URL in .gitmodules", "git rm --cached"},
		},
		"invalid .gitmodules": {
			link("m", "../lib", lib) + "echo '[' >>.gitmodules", goodToken, standin.Fault{}, []string{"read .gitmodules"},
		},
		"ext":        {link("m", "ext::touch% ran", lib), goodToken, standin.Fault{}, []string{secure}},
		"local path": {link("m", hubDir+"/app", lib), goodToken, standin.Fault{}, []string{secure}},
		"file URL":   {link("m", "file://"+hubDir+"/app", lib), goodToken, standin.Fault{}, []string{secure}},
		"another server without TLS": {
			link("m", "http://192.0.2.1/o/n", lib), goodToken, standin.Fault{}, []string{"http URLs are not supported here"},
		},
		"temporary failure": {
			link("m", "../lib", lib), goodToken, standin.Fault{Path: "/octo/lib/git-upload-pack", Status: 502, Times: 1}, nil,
		},
		"failure": {
			link("m", "../lib", lib), goodToken, standin.Fault{Path: "/octo/lib/git-upload-pack", Status: 502},
			[]string{"submodule m", "RPC failed; HTTP 502", "tried 3 times"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.fault.Path != "" {
				injectFaults(t, test.fault)
			}
			sha := addRepository(t, "super", test.script, false)
			dir := filepath.Join(t.TempDir(), "s")
			_, err := fromHub("super", test.token).Fetch(t.Context(), Commit{SHA: sha}, dir,
				FetchOptions{Submodules: RecursiveSubmodules})
			if test.phrases == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			checkError(t, err, append(test.phrases, "fetch "+sha+" of octo/super: ")...)
			if failure, ok := errors.AsType[*git.Error](err); ok && failure.Cause == git.Unknown &&
				name != "invalid .gitmodules" {
				t.Errorf("unknown cause: %#v", failure)
			}
		})
	}
}

func TestResolveRemote(t *testing.T) {
	r := Repository{Token: "secret"}
	app := remote{"https://github.com/octo/app", "secret"}
	other := remote{"https://git.example/group/app.git", ""}
	for _, test := range []struct {
		from    remote
		address string
		want    remote // zero: an error
	}{
		{app, "https://github.com/a/b.git", remote{"https://github.com/a/b.git", "secret"}},
		{app, "https://GitHub.com/a/b", remote{"https://github.com/a/b", "secret"}},
		{app, "http://github.com/a/b", remote{"https://github.com/a/b", "secret"}},
		{app, "https://user:password@github.com/a/b", remote{"https://github.com/a/b", "secret"}},
		{app, "git@github.com:a/b.git", remote{"https://github.com/a/b.git", "secret"}},
		{app, "org-123@github.com:a/b.git", remote{"https://github.com/a/b.git", "secret"}},
		{app, "github.com:a/b", remote{"https://github.com/a/b", "secret"}},
		{app, "ssh://git@github.com/a/b.git", remote{"https://github.com/a/b.git", "secret"}},
		{app, "ssh://git@github.com:22/a/b.git", remote{"https://github.com/a/b.git", "secret"}},
		{app, "ssh://git@ssh.github.com:443/a/b.git", remote{"https://github.com/a/b.git", "secret"}},
		{app, "git://github.com/a/b", remote{"https://github.com/a/b", "secret"}},
		{app, "../lib.git", remote{"https://github.com/octo/lib.git", "secret"}},
		{app, "../../a/b", remote{"https://github.com/a/b", "secret"}},
		{app, "./lib", remote{"https://github.com/octo/app/lib", "secret"}},
		{app, "../../../evil.example/a/b", remote{}},
		{app, "../a/../../../../b", remote{}},
		{app, "https://git.example/a/b", remote{"https://git.example/a/b", ""}},
		{app, "https://user:password@git.example/a/b", remote{"https://git.example/a/b", ""}},
		{app, "https://github.com.evil.example/a/b", remote{"https://github.com.evil.example/a/b", ""}},
		{app, "https://github.com:8443/a/b", remote{"https://github.com:8443/a/b", ""}},
		{app, "https://github.com@evil.example/a/b", remote{"https://evil.example/a/b", ""}},
		{other, "../lib", remote{"https://git.example/group/lib", ""}},
		{other, "https://github.com/a/b", remote{"https://github.com/a/b", "secret"}},
		{app, "git@git.example:a/b", remote{}},
		{app, "ssh://git@git.example/a/b", remote{}},
		{app, "git://git.example/a/b", remote{}},
		{app, "http://git.example/a/b", remote{}},
		{app, "http://169.254.169.254/latest", remote{}},
		{app, "file:///etc", remote{}},
		{app, "/etc", remote{}},
		{app, "ext::sh -c touch% ran", remote{}},
		{app, "fd::3", remote{}},
		{app, "-u:touch", remote{}},
		{app, "--upload-pack=touch ran", remote{}},
		{app, "https://github.com/a/b?x", remote{}},
		{app, "https://github.com/a/b\n", remote{}},
		{app, "", remote{}},
	} {
		got, err := r.resolveRemote(test.from, test.address)
		if got != test.want || (err == nil) != (test.want != remote{}) {
			t.Errorf("%s: %+v, %v; want %+v", test.address, got, err, test.want)
		}
	}
}

// The .git directory of a checkout works with the .git files of its submodules, which refer to directories that it does
// not have.
func TestGitDirOfCheckoutWithSubmodules(t *testing.T) {
	dir := t.TempDir()
	sh(t, dir, `git init -q lib; cd lib; echo x >file; git add .; git commit -qm x; cd ..
		git init -q app; cd app; git submodule --quiet add ../lib vendor/lib; git commit -qm x`)
	app := filepath.Join(dir, "app")
	gitDir := gitDirOf(t, app)
	tree, err := OpenCheckout(t.Context(), app)
	if err != nil || tree.Dirty {
		t.Errorf("%+v, %v", tree, err)
	}
	sh(t, app, "mv .git ../moved; cp -r "+gitDir+" .git; test -f vendor/lib/.git")
	if got := sh(t, app, "git status --porcelain; git diff"); got != "" {
		t.Errorf("git reports %s", got)
	}
}
