package source

import (
	"context"
	"path"
	"path/filepath"
)

// FileIDs returns a function that returns git's ID of a file by its path in a directory of the tree. The function
// returns "" for a file that is not in the commit, or whose content is not that of the commit's object, such as a file of
// Git LFS: its size differs. FileIDs returns nil for a checkout, which can differ from its commit, and for a directory
// outside the tree.
func (t Tree) FileIDs(ctx context.Context, directory string) (func(name string, size int64) string, error) {
	prefix, err := filepath.Rel(t.Dir, directory)
	if t.gitDir == "" || err != nil || !filepath.IsLocal(prefix) {
		return nil, nil
	}
	entries, err := t.entries(ctx)
	if err != nil {
		return nil, err
	}
	files := make(map[string]treeEntry, len(entries))
	for _, e := range entries {
		if e.kind == "blob" {
			files[e.path] = e
		}
	}
	return func(name string, size int64) string {
		file, exists := files[path.Join(filepath.ToSlash(prefix), name)]
		const sha1Length = 40 // files outside the commit have no other IDs
		if !exists || file.size != size || len(file.id) != sha1Length {
			return ""
		}
		return file.id
	}, nil
}
