package source

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// WriteGitDir writes into dir, which it makes, what a .git of exactly the tree's commit holds: the commit, its trees and its blobs, an index, and a
// detached HEAD. It is the same, byte for byte and second for second, from a clone, a shallow clone, a worktree or a partial clone, with any git.
// Beside the commit's files `git status` finds nothing changed.
//
// The formats are git's: pack version 2, its index version 2, and the staging index version 2 (gitformat-pack, gitformat-index). Objects are
// spread over packs by the first byte of their ids, so that a changed file changes a few packs, and the others need not be sent again.
func (t Tree) WriteGitDir(ctx context.Context, dir string) error {
	if !shaPattern.MatchString(t.SHA) {
		return errors.New("there is no commit to make a .git of: commit something first")
	}
	w := &gitDir{dir: dir, newHash: sha1.New, buffer: bufio.NewWriterSize(io.Discard, 1<<20), compress: zlib.NewWriter(io.Discard)}
	config := "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n[gc]\n\tautoPackLimit = 0\n"
	if len(t.SHA) == 64 {
		w.newHash = sha256.New
		config = strings.Replace(config, "version = 0", "version = 1", 1) + "[extensions]\n\tobjectformat = sha256\n"
	}
	commit, err := t.git.run(ctx, nil, "cat-file", "commit", t.SHA)
	if err != nil {
		return err
	}
	header, _, _ := bytes.Cut(commit, []byte("\n\n"))
	tree, ok := strings.CutPrefix(strings.SplitN(string(header), "\n", 2)[0], "tree ")
	if !ok {
		return fmt.Errorf("%s is no commit", t.SHA)
	}
	entries, err := t.entries(ctx)
	if err != nil {
		return err
	}
	ids := []string{t.SHA, tree}
	for _, e := range entries {
		if e.kind != "commit" { // a submodule's commit is in its own repository
			ids = append(ids, e.id)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)

	for _, folder := range []string{"objects/pack", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	if err := w.packs(ctx, t, ids); err != nil {
		return err
	}
	if err := w.index(entries); err != nil {
		return err
	}
	if bytes.Contains(header, []byte("\nparent ")) {
		if err := w.file("shallow", []byte(t.SHA+"\n")); err != nil {
			return err
		}
	}
	if err := w.file("config", []byte(config)); err != nil {
		return err
	}
	if err := w.file("HEAD", []byte(t.SHA+"\n")); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return err
		}
		return setTime(path, "")
	})
}

type gitDir struct {
	dir      string
	newHash  func() hash.Hash
	buffer   *bufio.Writer // of one pack after the other
	compress *zlib.Writer
}

func (w *gitDir) file(name string, data []byte) error {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	return w.seal(path, data)
}

// seal gives a written file its permissions and its time.
func (w *gitDir) seal(path string, data []byte) error {
	if err := os.Chmod(path, 0o644); err != nil {
		return err
	}
	return setTime(path, fmt.Sprintf("%x", sha256.Sum256(data)))
}

// packs reads the objects, which are sorted, and writes a pack for each first byte.
func (w *gitDir) packs(ctx context.Context, t Tree, ids []string) error {
	if promisor, _ := t.git.run(ctx, nil, "config", "--get-regexp", `^remote\..*\.promisor$`); len(promisor) > 0 {
		// A partial clone lacks blobs and would fetch them one by one: packing fetches all of them at once.
		if err := t.git.pipe(ctx, strings.NewReader(strings.Join(ids, "\n")+"\n"), io.Discard, "pack-objects", "--stdout", "--quiet", "--window=0"); err != nil {
			return fmt.Errorf("get the objects that the partial clone lacks: %w: check out without a filter", err)
		}
	}
	read, write := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	var failed error // of packing, which ends git too
	group.Go(func() error {
		err := t.git.pipe(ctx, strings.NewReader(strings.Join(ids, "\n")+"\n"), write, "cat-file", "--batch", "--buffer")
		_ = write.CloseWithError(cmp.Or(err, io.EOF))
		return err
	})
	group.Go(func() error {
		objects := bufio.NewReaderSize(read, 1<<20)
		for len(ids) > 0 {
			n := slices.IndexFunc(ids, func(id string) bool { return id[:2] != ids[0][:2] })
			if n < 0 {
				n = len(ids)
			}
			if err := w.pack(objects, ids[:n]); err != nil {
				failed = err
				_ = read.CloseWithError(err)
				return err
			}
			ids = ids[n:]
		}
		return nil
	})
	err := group.Wait()
	if failed != nil && !errors.Is(failed, err) {
		return failed
	}
	return err
}

var objectTypes = map[string]byte{"commit": 1, "tree": 2, "blob": 3}

// pack writes one pack and its index.
func (w *gitDir) pack(objects *bufio.Reader, ids []string) error {
	folder := filepath.Join(w.dir, "objects/pack")
	file, err := os.CreateTemp(folder, "new-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	sum := w.newHash()
	w.buffer.Reset(file)
	out := &counter{w: io.MultiWriter(w.buffer, sum)}
	header := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(ids)))
	if _, err := out.Write(header); err != nil {
		return err
	}
	var offsets []int64
	var sums []uint32
	for _, id := range ids {
		head, err := objects.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read object %s: %w", id, err)
		}
		fields := strings.Fields(head)
		if len(fields) != 3 || fields[0] != id || objectTypes[fields[1]] == 0 {
			return fmt.Errorf("git has no object %s (%s): fetch the commit again", id, strings.TrimSpace(head))
		}
		size, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return fmt.Errorf("git cat-file: %w", err)
		}
		offsets = append(offsets, out.n)
		check := crc32.NewIEEE()
		target := io.MultiWriter(out, check)
		if _, err := target.Write(objectHeader(objectTypes[fields[1]], size)); err != nil {
			return err
		}
		w.compress.Reset(target)
		if _, err := io.CopyN(w.compress, objects, size); err != nil {
			return fmt.Errorf("read object %s: %w", id, err)
		}
		if err := w.compress.Close(); err != nil {
			return err
		}
		if _, err := objects.Discard(1); err != nil { // the line break after the object
			return fmt.Errorf("git cat-file: %w", err)
		}
		sums = append(sums, check.Sum32())
	}
	checksum := sum.Sum(nil)
	if _, err := w.buffer.Write(checksum); err != nil {
		return err
	}
	if err := w.buffer.Flush(); err != nil {
		return err
	}
	name := filepath.Join(folder, "pack-"+hex.EncodeToString(checksum))
	if err := os.Rename(file.Name(), name+".pack"); err != nil {
		return err
	}
	if err := w.seal(name+".pack", checksum); err != nil {
		return err
	}
	index, err := w.packIndex(ids, offsets, sums, checksum)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".idx", index, 0o644); err != nil {
		return err
	}
	return w.seal(name+".idx", index)
}

// objectHeader is the type and the size, 4 bits and then 7 bits at a time.
func objectHeader(kind byte, size int64) []byte {
	first := kind<<4 | byte(size&0x0f)
	size >>= 4
	var header []byte
	for size > 0 {
		header = append(header, first|0x80)
		first = byte(size & 0x7f)
		size >>= 7
	}
	return append(header, first)
}

func (w *gitDir) packIndex(ids []string, offsets []int64, sums []uint32, checksum []byte) ([]byte, error) {
	index := []byte("\xfftOc\x00\x00\x00\x02")
	var names, large []byte
	var fan [256]uint32
	for _, id := range ids {
		raw, err := hex.DecodeString(id)
		if err != nil {
			return nil, err
		}
		names = append(names, raw...)
		fan[raw[0]]++
	}
	total := uint32(0)
	for _, n := range fan {
		total += n
		index = binary.BigEndian.AppendUint32(index, total)
	}
	index = append(index, names...)
	for _, sum := range sums {
		index = binary.BigEndian.AppendUint32(index, sum)
	}
	for _, offset := range offsets {
		if offset < 1<<31 {
			index = binary.BigEndian.AppendUint32(index, uint32(offset))
			continue
		}
		index = binary.BigEndian.AppendUint32(index, 1<<31|uint32(len(large)/8))
		large = binary.BigEndian.AppendUint64(large, uint64(offset))
	}
	index = append(append(index, large...), checksum...)
	sum := w.newHash()
	sum.Write(index)
	return sum.Sum(index), nil
}

// index writes the staging index. What git remembers there of the files on disk is left out, so it compares their content once.
func (w *gitDir) index(entries []entry) error {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return e.kind == "tree" })
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	data := binary.BigEndian.AppendUint32([]byte("DIRC\x00\x00\x00\x02"), uint32(len(entries)))
	for _, e := range entries {
		mode, err := strconv.ParseUint(e.mode, 8, 32)
		if err != nil {
			return err
		}
		id, err := hex.DecodeString(e.id)
		if err != nil {
			return err
		}
		begin := len(data)
		data = append(data, make([]byte, 24)...) // times, device, inode
		data = binary.BigEndian.AppendUint32(data, uint32(mode))
		data = append(data, make([]byte, 12)...) // owner, group, size
		data = append(data, id...)
		data = binary.BigEndian.AppendUint16(data, uint16(min(len(e.path), 0xfff)))
		data = append(data, e.path...)
		data = append(data, make([]byte, 8-(len(data)-begin)%8)...)
	}
	sum := w.newHash()
	sum.Write(data)
	return w.file("index", sum.Sum(data))
}

// counter knows how much was written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
