package source

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOpenCheckout(t *testing.T) {
	origin := newRepository(t)
	sh(t, origin, `rmdir module; git config core.fsmonitor 'touch fsmonitor-ran; false'
		git remote add origin git@github.com:octo/cat.git`)
	tree, err := OpenCheckout(t.Context(), origin)
	if err != nil {
		t.Fatal(err)
	}
	if tree.SHA != sh(t, origin, "git rev-parse HEAD") || tree.Ref != "refs/heads/main" ||
		tree.Repository != "octo/cat" {
		t.Errorf("tree = %+v", tree)
	}
	if _, err := os.Stat(filepath.Join(origin, "fsmonitor-ran")); err == nil {
		t.Error("the repository's file system monitor ran")
	}
	sh(t, origin, "git config --unset core.fsmonitor; git config status.showUntrackedFiles no; mkdir module")
	for _, test := range []struct {
		script string
		dirty  bool
	}{
		{"true", false}, {"touch new", true}, {"rm new; echo x >> run.sh", true},
		{"git checkout -q run.sh; git checkout -q --detach", false},
	} {
		sh(t, origin, test.script)
		if tree, err = OpenCheckout(t.Context(), origin); err != nil || tree.Dirty != test.dirty {
			t.Errorf("%s: dirty %t, %v; want %t", test.script, tree.Dirty, err, test.dirty)
		}
	}
	if tree.Ref != "" {
		t.Errorf("ref of a detached HEAD = %q, want none", tree.Ref)
	}
}

func TestIsShallow(t *testing.T) {
	origin := newRepository(t)
	parent := t.TempDir()
	sh(t, parent, "git clone -q --depth 1 file://"+origin+" c")
	for dir, want := range map[string]bool{origin: false, filepath.Join(parent, "c"): true} {
		tree, err := OpenCheckout(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tree.IsShallow(t.Context()); got != want || err != nil {
			t.Errorf("%s: %t, %v; want %t", dir, got, err, want)
		}
	}
}

func TestCommitTime(t *testing.T) {
	origin := newRepository(t)
	sh(t, origin, `GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2021-06-01T02:00:00+02:00' \
		git -c user.name='a 1 +0000' -c user.email=a@b commit -q --allow-empty -m 'committer x <y> 7 +0000'`)
	tree, err := OpenCheckout(t.Context(), origin)
	if err != nil {
		t.Fatal(err)
	}
	want := time.Date(2021, 6, 1, 0, 0, 0, 0, time.UTC)
	if got, err := tree.CommitTime(); err != nil || !got.Equal(want) || got.Location() != time.UTC {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

// Files that are not exactly those of a commit are found, whatever the directory's .git claims.
func TestExtra(t *testing.T) {
	commit, err := fromHub("app", goodToken).Resolve(t.Context(), "trunk")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := fromHub("app", goodToken).Fetch(t.Context(), commit, filepath.Join(t.TempDir(), "source"), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, change, want string }{
		{"clean", "", ""},
		{"artifact", "mkdir -p dist; echo x >dist/a", "dist/a"},
		{"ignored file", "echo x >secret; mkdir -p .git/info; echo secret >>.git/info/exclude", "secret"},
		{"ignored by a file of the workspace", "echo x >b.log; printf '*.log\n.gitignore\n' >.gitignore", ".gitignore b.log"},
		{"changed file", "echo changed >a/b/file", "a/b/file"},
		{"change that the index hides", "git update-index --assume-unchanged run.sh; echo x >>run.sh", "run.sh"},
		{"commit in the workspace", "echo y >>run.sh; git commit -qam hidden", "run.sh"},
		{"no .git", "rm -r .git; echo x >new", "new"},
		{
			"filter", `echo '* filter=evil' >.gitattributes; git config filter.evil.clean 'git show HEAD:run.sh'
				echo z >>run.sh`, ".gitattributes run.sh",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, "git clone -q "+filepath.Join(hubDir, "app")+" .; "+test.change)
			got, err := tree.Extra(t.Context(), dir, 10)
			slices.Sort(got)
			if err != nil || strings.Join(got, " ") != test.want {
				t.Errorf("got %q, %v; want %s", got, err, test.want)
			}
		})
	}
}

func TestUserName(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	dir := t.TempDir()
	sh(t, dir, "git init -q .")
	if got := UserName(t.Context(), dir); got != "" {
		t.Errorf("UserName = %q, want none", got)
	}
	sh(t, dir, "git config user.name 'Mona Lisa'")
	if got := UserName(t.Context(), dir); got != "Mona Lisa" {
		t.Errorf("UserName = %q", got)
	}
}

// remotes maps the URL of a remote to its repository, or to "" if the URL has another form.
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

var ownerAndNamePattern = regexp.MustCompile(`^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$`)

// FuzzOwnerAndName checks that ownerAndName returns only names that are safe in the path of a URL.
func FuzzOwnerAndName(f *testing.F) {
	for url := range remotes {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		got := ownerAndName(url)
		if got == "" {
			return
		}
		owner, name, _ := strings.Cut(got, "/")
		if !ownerAndNamePattern.MatchString(got) || strings.Trim(owner, ".") == "" || strings.Trim(name, ".") == "" ||
			!strings.Contains(url, got) {
			t.Errorf("%q: %q", url, got)
		}
		if err := (Repository{Owner: owner, Name: name}).validate(); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	})
}
