package source

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCheckout(t *testing.T) {
	origin := newRepository(t)
	sh(t, origin, "rmdir module; git config core.fsmonitor 'touch fsmonitor-ran; false'; git remote add origin git@github.com:octo/cat.git")
	tree, err := Checkout(t.Context(), origin)
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
		if tree, err = Checkout(t.Context(), origin); err != nil || tree.Dirty != test.dirty {
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
