package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The IDs are those of git, unless the file in the tree has other content than the commit's object.
func TestFileIDs(t *testing.T) {
	sha := sh(t, filepath.Join(hubDir, "app"), "git rev-parse v1.0^{commit}")
	id := sh(t, filepath.Join(hubDir, "app"), "git rev-parse v1.0^{commit}:a/b/file")
	tree, err := fetch(t, fromHub("app", goodToken), sha)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		directory, file string
		size            int64
		want            string
	}{
		{"", "a/b/file", 4, id},
		{"a", "b/file", 4, id},
		{"", "a/b/file", 5, ""},
		{"", "a/b", 4, ""},
		{"", "other", 4, ""},
	} {
		ids, err := tree.FileIDs(t.Context(), filepath.Join(tree.Dir, test.directory))
		if err != nil {
			t.Fatal(err)
		}
		if got := ids(test.file, test.size); got != test.want {
			t.Errorf("%s/%s of %d bytes: got %q, want %q", test.directory, test.file, test.size, got, test.want)
		}
	}
	if info, err := os.Stat(filepath.Join(tree.Dir, "a/b/file")); err != nil || info.Size() != 4 {
		t.Errorf("the test assumes a file of 4 bytes: %v, %v", info, err)
	}
	checkout, err := OpenCheckout(t.Context(), filepath.Join(hubDir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tree := range map[string]Tree{"checkout": checkout, "other directory": tree} {
		directory := t.TempDir()
		if name == "checkout" {
			directory = checkout.Dir
		}
		if ids, err := tree.FileIDs(t.Context(), directory); err != nil || ids != nil {
			t.Errorf("%s: IDs: %t (%v)", name, ids != nil, err)
		}
	}
	if strings.ContainsAny(id, " \n") {
		t.Errorf("invalid ID %q", id)
	}
}
