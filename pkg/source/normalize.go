package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// treeEntry is one line of `git ls-tree`.
type treeEntry struct {
	mode string // 100644, 100755, 120000, 040000, 160000
	kind string // blob, tree, commit (a submodule)
	id   string
	size int64 // of a blob, in bytes; 0 if unknown
	path string
}

// readCommit returns the content of the commit object and lists the commit's files and directories.
func (t Tree) readCommit(ctx context.Context) (commit []byte, entries []treeEntry, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		commit, err = t.git.Output(ctx, "cat-file", "commit", t.SHA)
		return err
	})
	group.Go(func() (err error) {
		entries, err = t.entries(ctx)
		return err
	})
	err = group.Wait()
	return commit, entries, err
}

// entries lists all files and directories of the commit, sorted by path. First it fetches what a partial clone lacks:
// otherwise git would fetch each blob on its own to find its size.
func (t Tree) entries(ctx context.Context) ([]treeEntry, error) {
	if t.isPartial {
		if err := t.fetchMissingObjects(ctx); err != nil {
			return nil, err
		}
	}
	return t.listTree(ctx, "--long")
}

// fetchMissingObjects makes git fetch all blobs that a partial clone lacks in one request.
func (t Tree) fetchMissingObjects(ctx context.Context) error {
	entries, err := t.listTree(ctx)
	if err != nil {
		return err
	}
	list := strings.NewReader(strings.Join(objectIDs(t.SHA, t.SHA, entries), "\n") + "\n")
	err = t.git.Run(ctx, list, io.Discard, "pack-objects", "--stdout", "--quiet", "--window=0")
	if err != nil {
		return fmt.Errorf("fetch the objects that the partial clone lacks: %w (check out without a filter)", err)
	}
	return nil
}

// listTree runs git ls-tree for the commit. Only with the option --long, the entries have sizes.
func (t Tree) listTree(ctx context.Context, options ...string) ([]treeEntry, error) {
	out, err := t.git.Output(
		ctx,
		slices.Concat([]string{"ls-tree", "-r", "-t", "-z", "--full-tree"}, options, []string{t.SHA})...)
	if err != nil {
		return nil, err
	}
	var list []treeEntry
	for line := range bytes.SplitSeq(out, []byte{0}) {
		if len(line) == 0 {
			continue
		}
		head, path, ok := strings.Cut(string(line), "\t")
		fields := strings.Fields(head) // mode, type, ID, size
		if !ok || len(fields) != 3+len(options) {
			return nil, fmt.Errorf("git ls-tree: unexpected line %q", line)
		}
		e := treeEntry{mode: fields[0], kind: fields[1], id: fields[2], path: path}
		if len(fields) > 3 {
			e.size, _ = strconv.ParseInt(fields[3], 10, 64) // "-" except for blobs
		}
		list = append(list, e)
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
