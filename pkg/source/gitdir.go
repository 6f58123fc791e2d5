package source

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// WriteGitDir writes a .git directory with only the tree's commit to dir, which it creates: the commit, its trees and
// blobs, an index, and a detached HEAD. The directory is identical, including timestamps, for a clone, a shallow clone,
// a worktree or a partial clone, and for any version of git. With the commit's files, `git status` reports no changes.
//
// The index marks Git LFS files as unchanged, because without git-lfs, git compares their content with the pointers.
//
// The formats are git's: pack version 2 with index version 2, and staging index version 2 (gitformat-pack,
// gitformat-index).
func (t Tree) WriteGitDir(ctx context.Context, dir string) error {
	if !shaPattern.MatchString(t.SHA) {
		return errors.New("write .git: no commit (commit something first)")
	}
	header, _, _ := bytes.Cut(t.commit, []byte("\n\n"))
	root, ok := strings.CutPrefix(strings.SplitN(string(header), "\n", 2)[0], "tree ")
	if !ok {
		return fmt.Errorf("read commit %s: it does not begin with a tree", t.SHA)
	}
	entries, err := t.entries(ctx)
	if err != nil {
		return err
	}
	for _, sub := range []string{"objects/pack", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	newHash := sha1.New
	if len(t.SHA) == 64 {
		newHash = sha256.New
	}
	ids := objectIDs(t.SHA, root, entries)
	pointers, err := t.writePacks(ctx, filepath.Join(dir, "objects/pack"), newHash, ids, entries)
	if err != nil {
		return err
	}
	index, err := stagingIndex(entries, pointers, newHash())
	if err != nil {
		return err
	}
	files := map[string][]byte{"index": index, "config": gitConfig(t.SHA, entries), "HEAD": []byte(t.SHA + "\n")}
	if bytes.Contains(header, []byte("\nparent ")) {
		files["shallow"] = []byte(t.SHA + "\n")
	}
	for name, data := range files {
		if err := writeFile(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return err
		}
		return setTimeFromID(path, "")
	})
}

// objectIDs returns the sorted IDs of the commit and of all objects in it, without the commits of submodules, which are
// in other repositories.
func objectIDs(commit, root string, entries []treeEntry) []string {
	ids := []string{commit, root}
	for _, e := range entries {
		if e.kind != "commit" {
			ids = append(ids, e.id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func gitConfig(sha string, entries []treeEntry) []byte {
	version, more := 0, ""
	if len(sha) == 64 {
		version, more = 1, "[extensions]\n\tobjectformat = sha256\n"
	}
	if slices.ContainsFunc(entries, func(e treeEntry) bool { return e.kind == "commit" }) {
		// In a checkout, the .git file of a submodule refers to a directory in .git that this one does not have. With
		// another value, `git status` runs git in the submodule and fails.
		more += "[diff]\n\tignoreSubmodules = dirty\n"
	}
	return fmt.Appendf(nil, "[core]\n\trepositoryformatversion = %d\n\tfilemode = true\n\tbare = false\n"+
		"[gc]\n\tautoPackLimit = 0\n%s", version, more)
}

// writeFile writes a file with permissions and a time that do not depend on the machine.
func writeFile(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	return normalizeFile(path, data)
}

// normalizeFile sets the permissions of a file independently of the umask, and derives its time from id.
func normalizeFile(path string, id []byte) error {
	if err := os.Chmod(path, 0o644); err != nil {
		return err
	}
	return setTimeFromID(path, fmt.Sprintf("%x", sha256.Sum256(id)))
}

// stagingIndex encodes git's index. It omits the cached stat data of the files on disk, so git compares their contents
// once. It marks the blobs in unchanged as unchanged (git update-index --assume-unchanged).
func stagingIndex(entries []treeEntry, unchanged map[string]bool, sum hash.Hash) ([]byte, error) {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e treeEntry) bool { return e.kind == "tree" })
	slices.SortFunc(entries, func(a, b treeEntry) int { return strings.Compare(a.path, b.path) })
	data := binary.BigEndian.AppendUint32([]byte("DIRC\x00\x00\x00\x02"), uint32(len(entries)))
	for _, e := range entries {
		mode, err := strconv.ParseUint(e.mode, 8, 32)
		if err != nil {
			return nil, err
		}
		id, err := hex.DecodeString(e.id)
		if err != nil {
			return nil, err
		}
		begin := len(data)
		data = append(data, make([]byte, 24)...) // times, device, inode
		data = binary.BigEndian.AppendUint32(data, uint32(mode))
		data = append(data, make([]byte, 12)...) // owner, group, size
		data = append(data, id...)
		const maxNameLength, assumeUnchanged = 0xfff, 0x8000
		flags := uint16(min(len(e.path), maxNameLength))
		if unchanged[e.id] {
			flags |= assumeUnchanged
		}
		data = binary.BigEndian.AppendUint16(data, flags)
		data = append(data, e.path...)
		data = append(data, make([]byte, 8-(len(data)-begin)%8)...) // 1 to 8 zero bytes
	}
	sum.Write(data)
	return sum.Sum(data), nil
}
