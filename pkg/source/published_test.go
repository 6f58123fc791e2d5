package source

import (
	"path/filepath"
	"testing"
)

func TestPublished(t *testing.T) {
	for name, test := range map[string]struct {
		fetch string
		want  bool
	}{
		"a branch":                      {"+refs/heads/trunk:refs/remotes/origin/trunk", true},
		"a tag":                         {"+refs/tags/light:refs/tags/light", true},
		"a pull request":                {"+refs/pull/1/merge:refs/remotes/pull/1/merge", false},
		"a pull request under its name": {"+refs/pull/1/merge:refs/heads/trunk", false},
		"nothing but a commit":          {"refs/pull/1/head", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, "git init -q -b start .; git fetch -q --no-tags "+filepath.Join(hubDir, "app")+" "+test.fetch+"; git checkout -q --detach FETCH_HEAD")
			tree, err := OpenCheckout(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := tree.IsPublished(t.Context()); err != nil || got != test.want {
				t.Errorf("%t, %v; want %t", got, err, test.want)
			}
		})
	}
}
