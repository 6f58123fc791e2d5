package source

import (
	"bufio"
	"compress/zlib"
	"context"
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

	"github.com/org/sandbox-actions/pkg/lfs"
)

// packWriter writes git packs, one at a time because they share its buffers.
type packWriter struct {
	dir      string
	newHash  func() hash.Hash
	buffer   *bufio.Writer
	compress *zlib.Writer
	pointers map[string]bool // IDs of the blobs that are pointers of Git LFS
}

const packBuffer = 1 << 20

func newPackWriter(dir string, newHash func() hash.Hash) *packWriter {
	return &packWriter{
		dir, newHash, bufio.NewWriterSize(io.Discard, packBuffer), zlib.NewWriter(io.Discard), map[string]bool{},
	}
}

// writePacks writes the objects with these sorted IDs, one pack for each first byte of an ID. A changed file then
// changes only a few packs, and the others are not sent to the builder again.
func (t Tree) writePacks(ctx context.Context, w *packWriter, ids []string) error {
	list := strings.Join(ids, "\n") + "\n"
	if err := t.fetchMissingObjects(ctx, list); err != nil {
		return err
	}
	read, write, err := os.Pipe() // with an *os.File as its output, waiting for git does not depend on the reader
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	var gitErr, packErr error
	group.Go(func() error {
		gitErr = t.git.Run(ctx, strings.NewReader(list), write, "cat-file", "--batch", "--buffer")
		return errors.Join(gitErr, write.Close())
	})
	group.Go(func() error {
		packErr = w.writeAll(bufio.NewReaderSize(read, packBuffer), ids)
		return errors.Join(packErr, read.Close()) // closing ends git
	})
	err = group.Wait()
	switch {
	case gitErr != nil && (packErr == nil || errors.Is(packErr, io.EOF)): // git ended first
		return gitErr
	case packErr != nil:
		return packErr
	}
	return err
}

// fetchMissingObjects makes git fetch all blobs that a partial clone lacks in one request.
func (t Tree) fetchMissingObjects(ctx context.Context, ids string) error {
	promisor, _ := t.git.Output(ctx, "config", "--get-regexp", `^remote\..*\.promisor$`) // fails without a match
	if len(promisor) == 0 {
		return nil
	}
	err := t.git.Run(ctx, strings.NewReader(ids), io.Discard, "pack-objects", "--stdout", "--quiet", "--window=0")
	if err != nil {
		return fmt.Errorf("fetch the objects that the partial clone lacks: %w (check out without a filter)", err)
	}
	return nil
}

func (w *packWriter) writeAll(objects *bufio.Reader, ids []string) error {
	for len(ids) > 0 {
		n := slices.IndexFunc(ids, func(id string) bool { return id[:2] != ids[0][:2] })
		if n < 0 {
			n = len(ids)
		}
		if err := w.writePack(objects, ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// packedObject is the position of an object in a pack.
type packedObject struct {
	id     string
	offset int64
	crc    uint32
}

// writePack writes one pack and its index. objects is the output of `git cat-file --batch` for the IDs.
func (w *packWriter) writePack(objects *bufio.Reader, ids []string) error {
	file, err := os.CreateTemp(w.dir, "new-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails after the rename
	defer file.Close()
	sum := w.newHash()
	w.buffer.Reset(file)
	out := &countingWriter{w: io.MultiWriter(w.buffer, sum)}
	header := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(ids)))
	if _, err := out.Write(header); err != nil {
		return err
	}
	var packed []packedObject
	for _, id := range ids {
		offset := out.n
		crc, err := w.copyObject(out, objects, id)
		if err != nil {
			return err
		}
		packed = append(packed, packedObject{id, offset, crc})
	}
	checksum := sum.Sum(nil)
	if _, err := w.buffer.Write(checksum); err != nil {
		return err
	}
	if err := w.buffer.Flush(); err != nil {
		return err
	}
	name := filepath.Join(w.dir, "pack-"+hex.EncodeToString(checksum))
	if err := os.Rename(file.Name(), name+".pack"); err != nil {
		return err
	}
	if err := normalizeFile(name+".pack", checksum); err != nil {
		return err
	}
	index, err := packIndex(packed, checksum, w.newHash())
	if err != nil {
		return err
	}
	return writeFile(name+".idx", index)
}

var objectTypes = map[string]byte{"commit": 1, "tree": 2, "blob": 3}

// copyObject copies one object from cat-file's output to a pack and returns the checksum of its packed form.
func (w *packWriter) copyObject(pack io.Writer, objects *bufio.Reader, id string) (crc uint32, err error) {
	head, err := objects.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read object %s: %w", id, err)
	}
	fields := strings.Fields(head) // id, type, size
	if len(fields) != 3 || fields[0] != id || objectTypes[fields[1]] == 0 {
		return 0, fmt.Errorf("read object %s: git answered %q (fetch the commit again)", id, strings.TrimSpace(head))
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read object %s: %w", id, err)
	}
	check := crc32.NewIEEE()
	target := io.MultiWriter(pack, check)
	if _, err := target.Write(objectHeader(objectTypes[fields[1]], size)); err != nil {
		return 0, err
	}
	w.compress.Reset(target)
	if fields[1] == "blob" && size <= lfs.MaxPointer {
		data, _ := objects.Peek(int(size)) // CopyN reports errors
		if _, isPointer := lfs.ParsePointer(data); isPointer {
			w.pointers[id] = true
		}
	}
	if _, err := io.CopyN(w.compress, objects, size); err != nil {
		return 0, fmt.Errorf("read object %s: %w", id, err)
	}
	if err := w.compress.Close(); err != nil {
		return 0, err
	}
	if _, err := objects.Discard(1); err != nil { // the line break after the object
		return 0, fmt.Errorf("read object %s: %w", id, err)
	}
	return check.Sum32(), nil
}

// objectHeader encodes type and size: 4 bits of the size in the first byte, 7 bits in each following one.
func objectHeader(kind byte, size int64) []byte {
	next := kind<<4 | byte(size&0x0f)
	size >>= 4
	var header []byte
	for size > 0 {
		header = append(header, next|0x80)
		next = byte(size & 0x7f)
		size >>= 7
	}
	return append(header, next)
}

// packIndex encodes the index of a pack: IDs, checksums and offsets, in the order of the IDs.
func packIndex(objects []packedObject, checksum []byte, sum hash.Hash) ([]byte, error) {
	index := []byte("\xfftOc\x00\x00\x00\x02")
	var ids, crcs, offsets, largeOffsets []byte
	var fanout [256]uint32
	for _, object := range objects {
		id, err := hex.DecodeString(object.id)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id...)
		fanout[id[0]]++
		crcs = binary.BigEndian.AppendUint32(crcs, object.crc)
		if object.offset < 1<<31 {
			offsets = binary.BigEndian.AppendUint32(offsets, uint32(object.offset))
			continue
		}
		offsets = binary.BigEndian.AppendUint32(offsets, 1<<31|uint32(len(largeOffsets)/8))
		largeOffsets = binary.BigEndian.AppendUint64(largeOffsets, uint64(object.offset))
	}
	total := uint32(0)
	for _, n := range fanout {
		total += n
		index = binary.BigEndian.AppendUint32(index, total)
	}
	index = slices.Concat(index, ids, crcs, offsets, largeOffsets, checksum)
	sum.Write(index)
	return sum.Sum(index), nil
}

// countingWriter counts the written bytes.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
