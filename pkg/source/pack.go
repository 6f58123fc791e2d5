package source

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zlib"
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

const (
	packBuffer    = 64 << 10 // the capacity of a pipe
	parallelPacks = 4
)

func newPackWriter(dir string, newHash func() hash.Hash) (*packWriter, error) {
	// The fastest level takes a third of the time of the default one, for packs that are about a tenth larger.
	compress, err := zlib.NewWriterLevel(io.Discard, zlib.BestSpeed)
	return &packWriter{dir, newHash, bufio.NewWriterSize(io.Discard, packBuffer), compress, map[string]bool{}}, err
}

// writePacks writes packs of the commit's objects to dir and returns the IDs of the blobs that are pointers of Git LFS.
// ids are the sorted IDs of all objects.
func (t Tree) writePacks(
	ctx context.Context, dir string, newHash func() hash.Hash, ids []string, entries []treeEntry,
) (pointers map[string]bool, err error) {
	packs := splitIntoPacks(ids, entries)
	pointers = map[string]bool{}
	var mu sync.Mutex // guards pointers
	group, ctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(packs, max(1, len(packs)/min(parallelPacks, runtime.GOMAXPROCS(0)))) {
		group.Go(func() error {
			w, err := newPackWriter(dir, newHash)
			if err != nil {
				return err
			}
			err = t.writePart(ctx, w, part)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(pointers, w.pointers)
			return err
		})
	}
	return pointers, group.Wait()
}

// maxSharedPack is the maximum size of the blobs, in bytes, in a pack of objects that share only the first digit of
// their IDs.
const maxSharedPack = 512 << 10

// splitIntoPacks returns the IDs of the objects in each pack: one pack for each first digit of an ID or, if the blobs
// of that digit are large, for each first byte. A changed file then changes only a few packs, and the others are not
// sent to the builder again.
func splitIntoPacks(ids []string, entries []treeEntry) [][]string {
	blobs := map[string]int64{} // sizes by ID
	for _, e := range entries {
		blobs[e.id] = e.size
	}
	sizes := map[byte]int64{} // by first digit
	for id, size := range blobs {
		sizes[id[0]] += size
	}
	var packs [][]string
	for i, id := range ids {
		digits := 1
		if sizes[id[0]] > maxSharedPack {
			digits = 2
		}
		if i == 0 || id[:digits] != ids[i-1][:digits] {
			packs = append(packs, nil)
		}
		last := len(packs) - 1
		packs[last] = append(packs[last], id)
	}
	return packs
}

// writePart writes some of the packs.
func (t Tree) writePart(ctx context.Context, w *packWriter, packs [][]string) error {
	read, write, err := os.Pipe() // with an *os.File as its output, waiting for git does not depend on the reader
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	var gitErr, packErr error
	group.Go(func() error {
		list := strings.NewReader(strings.Join(slices.Concat(packs...), "\n") + "\n")
		gitErr = t.git.Run(ctx, list, write, "cat-file", "--batch", "--buffer")
		return errors.Join(gitErr, write.Close())
	})
	group.Go(func() error {
		packErr = w.writeAll(bufio.NewReaderSize(read, packBuffer), packs)
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

func (w *packWriter) writeAll(objects *bufio.Reader, packs [][]string) error {
	for _, ids := range packs {
		if err := w.writePack(objects, ids); err != nil {
			return err
		}
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
	file, err := os.Create(filepath.Join(w.dir, "new-"+ids[0]))
	if err != nil {
		return err
	}
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
