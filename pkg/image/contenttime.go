package image

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// contentTimes derives the fraction of a second of each file's modification time from the file's content. The builder
// keeps a copy of the context, and requests only files with another size, time or mode (tonistiigi/fsutil, sameFile in
// diff_containerd.go). With the original time, it would keep the old content of a file with a fixed time, such as one
// from an npm or zip archive. The time remains correct to the second, and equal contents get equal fractions.
type contentTimes struct{ fsutil.FS }

// Walk implements [fsutil.FS].
func (c contentTimes) Walk(ctx context.Context, target string, visit fs.WalkDirFunc) error {
	return c.FS.Walk(ctx, target, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.Type().IsRegular() {
			entry = contentEntry{entry, c.FS, path}
		}
		return visit(path, entry, err)
	})
}

// buffers avoids an allocation for each file.
var buffers = sync.Pool{New: func() any { buffer := make([]byte, 64<<10); return &buffer }}

// contentEntry reads its file only when Info is called, which excluded files are not.
type contentEntry struct {
	fs.DirEntry
	files fsutil.FS
	path  string
}

// Info implements [fs.DirEntry].
func (e contentEntry) Info() (fs.FileInfo, error) {
	info, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*types.Stat)
	if !ok {
		return nil, &os.PathError{Op: "stat", Path: e.path, Err: fs.ErrInvalid}
	}
	file, err := e.files.Open(e.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	sum := sha256.New()
	// A plain reader, so that CopyBuffer uses the buffer.
	if _, err := io.CopyBuffer(sum, struct{ io.Reader }{file}, *buffer); err != nil {
		return nil, &os.PathError{Op: "read", Path: e.path, Err: err}
	}
	stat = stat.CloneVT()
	stat.ModTime = withFraction(stat.ModTime, sum.Sum(nil))
	return &fsutil.StatInfo{Stat: stat}, nil
}

// withFraction derives the fraction of a second of a time in nanoseconds from a hash of at least 8 bytes.
func withFraction(nanoseconds int64, hash []byte) int64 {
	second := time.Unix(0, nanoseconds).Truncate(time.Second).UnixNano()
	return second + int64(binary.BigEndian.Uint64(hash)%uint64(time.Second))
}
