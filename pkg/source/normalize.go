package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// treeEntry is one line of `git ls-tree`.
type treeEntry struct {
	mode string // 100644, 100755, 120000, 040000, 160000
	kind string // blob, tree, commit (a submodule)
	id   string
	path string
}

// entries lists all files and directories of the commit, sorted by path.
func (t Tree) entries(ctx context.Context) ([]treeEntry, error) {
	out, err := t.git.Output(ctx, "ls-tree", "-r", "-t", "-z", "--full-tree", t.SHA)
	if err != nil {
		return nil, err
	}
	var list []treeEntry
	for line := range bytes.SplitSeq(out, []byte{0}) {
		if len(line) == 0 {
			continue
		}
		head, path, ok := strings.Cut(string(line), "\t")
		fields := strings.Fields(head)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("git ls-tree: unexpected line %q", line)
		}
		list = append(list, treeEntry{mode: fields[0], kind: fields[1], id: fields[2], path: path})
	}
	return list, nil
}

// normalizeFiles sets the permissions and times of all files to values derived from the commit.
func (t Tree) normalizeFiles(entries []treeEntry) error {
	known := make(map[string]treeEntry, len(entries))
	for _, e := range entries {
		known[e.path] = e
	}
	// Walk the disk instead of the commit's paths, which may be hostile: the walk follows no symbolic links.
	var directories []string
	err := filepath.WalkDir(t.Dir, func(path string, file os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if file.IsDir() {
			directories = append(directories, path)
			return os.Chmod(path, 0o755)
		}
		name, err := filepath.Rel(t.Dir, path)
		if err != nil {
			return err
		}
		if file.Type().IsRegular() {
			mode := os.FileMode(0o644)
			if known[name].mode == "100755" {
				mode = 0o755
			}
			if err := os.Chmod(path, mode); err != nil {
				return err
			}
		}
		return setTimeFromID(path, known[name].id)
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(directories) { // changing an entry changes the directory's time
		name, err := filepath.Rel(t.Dir, path)
		if err != nil {
			return err
		}
		if err := setTimeFromID(path, known[name].id); err != nil {
			return err
		}
	}
	return nil
}

// setTimeFromID sets a file's time to a value derived from the hexadecimal ID of its content; "" for a directory
// without one. BuildKit finds changed files by size and time, so with a fixed time it would miss a change of equal
// size. The times are between 2001-09-09 and 2002-03-22 and hold 53 bits of the ID.
func setTimeFromID(path, id string) error {
	sum, err := hex.DecodeString(id)
	if err != nil {
		return err
	}
	moment := time.Unix(1_000_000_000, 0)
	if len(sum) >= 12 {
		const seconds = 1 << 24
		second, fraction := binary.BigEndian.Uint32(sum)%seconds, binary.BigEndian.Uint64(sum[4:])%uint64(time.Second)
		moment = moment.Add(time.Duration(second)*time.Second + time.Duration(fraction))
	}
	spec, err := unix.TimeToTimespec(moment)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{spec, spec}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the time of", Path: path, Err: err}
	}
	return nil
}
