package imagecontent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// ContextLimits bound what [HashContext] reads. Zero values are the defaults.
type ContextLimits struct {
	Bytes int64 // to read of files whose ID is not known; others have no hash; default 1 GiB
	Files int   // in a context whose files are hashed one by one; default 20,000
	Walk  int   // in any context; default 200,000
}

// HashContext returns the hash of each file of a build context that BuildKit receives, for [runrecord.Source].Files:
// its mode as git shows it, but with all permissions, and git's ID of its content. A context over the limit of files
// has one hash for each directory at its top instead, and none over the limit of all files. An empty hash means that
// the file was not read.
//
// ignore is the content of the ignore file next to the Dockerfile; if it is nil, that of the context applies. knownID
// returns git's ID of a file of the given size, or ""; it may be nil.
func HashContext(
	ctx context.Context, directory string, ignore []byte, knownID func(path string, size int64) string,
	limits ContextLimits,
) (map[string]string, error) {
	limits = ContextLimits{
		Bytes: cmp.Or(limits.Bytes, 1<<30), Files: cmp.Or(limits.Files, 20_000), Walk: cmp.Or(limits.Walk, 200_000),
	}
	files, list, err := listContext(ctx, directory, ignore, limits.Walk)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, errLimit):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("hash the files of the build context: %w", err)
	}
	ids := make([]string, len(list))
	var readers errgroup.Group
	readers.SetLimit(runtime.GOMAXPROCS(0))
	left := limits.Bytes
	for i, stat := range list {
		switch {
		case isLink(stat):
			ids[i] = blobID([]byte(stat.Linkname))
			continue
		case stat.Linkname != "": // a hard link, with the size 0
			continue
		}
		if knownID != nil {
			if ids[i] = knownID(stat.Path, stat.Size); ids[i] != "" {
				continue
			}
		}
		if stat.Size > left {
			continue
		}
		left -= stat.Size
		readers.Go(func() error {
			ids[i] = hashFile(ctx, files, stat) // "" for a file that cannot be read
			return context.Cause(ctx)
		})
	}
	if err := readers.Wait(); err != nil {
		return nil, err
	}
	hashes := make(map[string]string, len(list))
	for i, stat := range list {
		hash := ""
		if ids[i] != "" {
			hash = gitMode(fs.FileMode(stat.Mode)) + " " + ids[i]
		} else if !isLink(stat) && stat.Linkname != "" {
			hash = hashes[printable(stat.Linkname)] // which has the same mode
		}
		hashes[printable(stat.Path)] = hash
	}
	if len(hashes) > limits.Files {
		hashes = runrecord.FoldFiles(hashes)
	}
	return hashes, nil
}

// listContext lists the regular files and links that BuildKit receives of a context. The error is errLimit if there are
// more than limit.
func listContext(
	ctx context.Context, directory string, ignore []byte, limit int,
) (files fsutil.FS, list []*types.Stat, err error) {
	if ignore == nil {
		if ignore, err = image.ReadIgnoreFile(directory); err != nil {
			return nil, nil, err
		}
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(ignore))
	if err != nil {
		return nil, nil, err
	}
	if files, err = fsutil.NewFS(directory); err != nil {
		return nil, nil, err
	}
	filtered, err := fsutil.NewFilterFS(files, &fsutil.FilterOpt{ExcludePatterns: patterns})
	if err != nil {
		return nil, nil, err
	}
	err = filtered.Walk(ctx, "", func(path string, entry fs.DirEntry, err error) error {
		if err != nil { // BuildKit reports it if it needs the file
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		stat, ok := info.Sys().(*types.Stat)
		if !ok || !info.Mode().IsRegular() && !isLink(stat) {
			return context.Cause(ctx)
		}
		if len(list) == limit {
			return errLimit
		}
		list = append(list, stat)
		return context.Cause(ctx)
	})
	return files, list, err
}

func isLink(stat *types.Stat) bool { return fs.FileMode(stat.Mode).Type() == fs.ModeSymlink }

// hashFile returns git's ID of a file, or "" if it cannot be read or has changed since it was listed.
func hashFile(ctx context.Context, files fsutil.FS, stat *types.Stat) string {
	if ctx.Err() != nil {
		return ""
	}
	file, err := files.Open(stat.Path)
	if err != nil {
		return ""
	}
	defer file.Close()
	sum := sha1.New()
	fmt.Fprintf(sum, "blob %d\x00", stat.Size)
	n, err := io.Copy(sum, io.LimitReader(file, stat.Size+1))
	if err != nil || n != stat.Size {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func blobID(data []byte) string {
	sum := sha1.New()
	fmt.Fprintf(sum, "blob %d\x00%s", len(data), data)
	return hex.EncodeToString(sum.Sum(nil))
}

// gitMode returns the mode of a file in git's format, with all its permissions, because the builder compares them.
func gitMode(mode fs.FileMode) string {
	if mode.Type() == fs.ModeSymlink {
		return "120000"
	}
	bits := uint32(mode.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return fmt.Sprintf("%06o", 0o100000|bits)
}
