package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
)

// ignoreFile is the name of a context's ignore file, and the end of the name of a Dockerfile's.
const ignoreFile = ".dockerignore"

// ContextFileError reports a file or directory of a build context that cannot be read.
type ContextFileError struct {
	Path string // absolute
	Err  error
}

func (e *ContextFileError) Error() string {
	hint := "make it readable, or exclude it in .dockerignore"
	if errors.Is(e.Err, fs.ErrNotExist) {
		hint = "do not remove files during the build"
	}
	return fmt.Sprintf("read the build context: %s: %v (%s)", e.Path, e.Err, hint)
}

func (e *ContextFileError) Unwrap() error { return e.Err }

// contextFiles sends the build contexts and the Dockerfile to the builder. It replaces the mounts of BuildKit's client
// (moby/buildkit v0.34.2, prepareSyncedFiles in client/solve.go), which fail for a directory that cannot be read even
// if an ignore file excludes it, and which resolve only one COPY through a linked directory ([followLinks]).
type contextFiles struct {
	filesync.UnimplementedFileSyncServer
	dockerfile  *staticfs.FS
	directories map[string]string // by the name that the builder requests
	commitFiles string            // as in [Request]

	mutex  sync.Mutex
	failed error
}

// add adds a directory under the name that the builder requests.
func (c *contextFiles) add(name, directory string) error {
	info, err := os.Stat(directory)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", directory)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", directory)
	}
	c.directories[name] = directory
	return nil
}

// Names under which the builder requests the main context and the Dockerfile.
const (
	mainContext     = "context"
	dockerfileMount = "dockerfile"
)

// Register implements BuildKit's session.Attachable.
func (c *contextFiles) Register(server *grpc.Server) { filesync.RegisterFileSyncServer(server, c) }

// DiffCopy implements filesync.FileSyncServer.
func (c *contextFiles) DiffCopy(stream grpc.BidiStreamingServer[types.Packet, types.Packet]) error {
	t := &contextTransfer{contextFiles: c}
	server, ok := filesync.NewFSSyncProvider(t, t.prepare).(filesync.FileSyncServer)
	if !ok {
		return errors.ErrUnsupported
	}
	return server.DiffCopy(stream)
}

// failure returns the first error that stopped a transfer, or nil.
func (c *contextFiles) failure() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.failed
}

// contextTransfer is one transfer of a context. It implements filesync.DirSource and [fsutil.FS].
type contextTransfer struct {
	*contextFiles
	fsutil.FS
	directory string
	patterns  sendPatterns
}

// fail records the first error, because the builder returns only its text, and returns it.
func (t *contextTransfer) fail(path string, err error) error {
	failed := &ContextFileError{Path: filepath.Join(t.directory, path), Err: causeOf(err)}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.failed == nil {
		t.failed = failed
	}
	return failed
}

// LookupDir implements filesync.DirSource.
func (t *contextTransfer) LookupDir(name string) (fsutil.FS, bool) {
	_, isContext := t.directories[name]
	return t, isContext || name == dockerfileMount && t.dockerfile != nil
}

// prepare opens the directory of a transfer. It replaces the paths that the builder wants followed.
func (t *contextTransfer) prepare(name string, opt *fsutil.FilterOpt) (err error) {
	directory, isContext := t.directories[name]
	follow := opt.FollowPaths
	t.directory, opt.FollowPaths = directory, nil
	switch {
	case !isContext:
		t.FS = t.dockerfile
		return nil
	case slices.Equal(follow, []string{ignoreFile}):
		t.FS, err = t.ignoreFile()
		return err
	}
	if _, err := os.ReadDir(directory); err != nil { // fsutil takes an unreadable root for an empty one
		return t.fail("", err)
	}
	opt.IncludePatterns = append(opt.IncludePatterns, followLinks(directory, follow)...)
	t.patterns = newSendPatterns(opt)
	if t.FS, err = fsutil.NewFS(directory); err == nil && !t.isOfCommit(directory) {
		t.FS = contentTimes{t.FS}
	}
	return err
}

func (c *contextFiles) isOfCommit(directory string) bool {
	relative, err := filepath.Rel(c.commitFiles, directory)
	return c.commitFiles != "" && err == nil && filepath.IsLocal(relative)
}

// ReadIgnoreFile returns the content of the .dockerignore of a build context, or nil without one. An error does not
// name the file.
func ReadIgnoreFile(directory string) ([]byte, error) {
	data, err := readFile(filepath.Join(directory, ignoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// ignoreFile returns the ignore file of a context as a regular file. A link may lead out of the context.
func (t *contextTransfer) ignoreFile() (fsutil.FS, error) {
	files := staticfs.NewFS()
	data, err := ReadIgnoreFile(t.directory)
	if data == nil && err == nil {
		return files, nil
	}
	if err != nil {
		return nil, t.fail(ignoreFile, err)
	}
	files.Add(ignoreFile, fixedStat(data), data)
	return files, nil
}

// Walk implements [fsutil.FS].
func (t *contextTransfer) Walk(ctx context.Context, target string, visit fs.WalkDirFunc) error {
	return t.FS.Walk(ctx, target, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since its directory was read
			return err
		case err != nil && t.patterns.excludeBelow(path):
			return nil
		case err != nil:
			return t.fail(path, err)
		}
		return visit(path, transferEntry{entry, t, path}, nil)
	})
}

// Open implements [fsutil.FS]. Its error comes with the first read, because fsutil sends an empty file if Open fails
// (tonistiigi/fsutil a72de9d, sendFile in send.go).
func (t *contextTransfer) Open(path string) (io.ReadCloser, error) {
	file, err := t.FS.Open(path)
	if err != nil {
		return unreadable{t.fail(path, err)}, nil
	}
	return file, nil
}

type unreadable struct{ err error }

func (u unreadable) Read([]byte) (int, error) { return 0, u.err }
func (u unreadable) Close() error             { return nil }

// transferEntry is a file as it is sent. Its metadata is read only if it is not excluded.
type transferEntry struct {
	fs.DirEntry
	transfer *contextTransfer
	path     string
}

// Info implements [fs.DirEntry]. Like BuildKit's client, it makes root the owner.
func (e transferEntry) Info() (fs.FileInfo, error) {
	info, err := e.DirEntry.Info()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = e.transfer.fail(e.path, err)
	}
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*types.Stat)
	if !ok {
		return nil, &os.PathError{Op: "stat", Path: e.path, Err: fs.ErrInvalid}
	}
	stat.Uid, stat.Gid = 0, 0 // fsutil returns a copy
	return info, nil
}
