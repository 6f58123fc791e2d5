package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// XMLFiles are the XML files and the symbolic links below a directory, by slash-separated path.
type XMLFiles map[string]fs.FileInfo

// ListXMLFiles lists dir for [ReadJUnitFiles]. It does not follow links, and leaves out what it cannot read.
func ListXMLFiles(dir string) XMLFiles {
	files, _, _ := listXMLFiles(os.DirFS(dir))
	return files
}

// listXMLFiles also returns the paths in order, and an error for each directory that it cannot read.
func listXMLFiles(dir fs.FS) (files XMLFiles, order []string, failed []*FileError) {
	files = XMLFiles{}
	_ = fs.WalkDir(dir, ".", func(name string, entry fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil && entry.Type()&fs.ModeSymlink == 0 && (entry.IsDir() || !isXML(name)) {
			return nil
		}
		if err == nil {
			info, err = entry.Info()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			failed = append(failed, newFileError(name, err))
		default:
			files[name] = info
			order = append(order, name)
		}
		return nil
	})
	return files, order, failed
}

func isXML(name string) bool { return strings.EqualFold(path.Ext(name), ".xml") }

// JUnitFiles are the results of the JUnit files in a directory.
type JUnitFiles struct {
	Report  *Report      // nil if there are no results
	Renamed string       // new path of a file with the reserved name; "" if there was none
	Old     []string     // paths of XML files that were not read because they are not new
	Ignored []*FileError // files without results, such as coverage reports and links
	Damaged []*FileError // files with missing results; the results that precede the damage are in Report
}

// FileError is a problem with a file.
type FileError struct {
	File string // slash-separated path below the directory, in one line
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.File, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

func newFileError(file string, err error) *FileError {
	if of := (*fs.PathError)(nil); errors.As(err, &of) {
		err = of.Err // without the path
	}
	return &FileError{safetext.Line(file, 0), err}
}

// ReadJUnitFiles reads the JUnit files below dir that were created or changed after before was listed. It first renames
// a new file with the name reserved, for which the caller has another use. It follows no links out of dir and reads
// only regular files, so it cannot block. It stops when ctx ends.
func ReadJUnitFiles(ctx context.Context, dir string, before XMLFiles, reserved string) (found JUnitFiles) {
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return found
	case err != nil:
		found.Damaged = append(found.Damaged, newFileError(".", err))
		return found
	}
	defer root.Close()
	if found.Renamed, err = renameNewFile(root, reserved, before); err != nil {
		found.Damaged = append(found.Damaged, newFileError(reserved, err))
	}
	files, order, failed := listXMLFiles(root.FS())
	found.Damaged = append(found.Damaged, failed...)
	for _, name := range order {
		info := files[name]
		switch isNew := isNewFile(before[name], info); {
		case !isNew && isXML(name):
			found.Old = append(found.Old, safetext.Line(name, 0))
		case !isNew:
		case info.Mode().IsRegular():
			found.read(ctx, root, name)
		default:
			found.Ignored = append(found.Ignored, newFileError(name, errNotRegular))
		}
	}
	if found.Report != nil {
		found.Report.count()
	}
	return found
}

// renameNewFile renames a new file from a.xml to a-command.xml, or to a-command-2.xml and so on if that is new, too.
func renameNewFile(root *os.Root, name string, before XMLFiles) (renamed string, err error) {
	isNew := func(name string) bool {
		info, err := root.Lstat(name)
		return err == nil && isNewFile(before[name], info)
	}
	if !isNew(name) {
		return "", nil
	}
	base := strings.TrimSuffix(name, path.Ext(name)) + "-command"
	renamed = base + path.Ext(name)
	for i := 2; isNew(renamed); i++ {
		renamed = fmt.Sprintf("%s-%d%s", base, i, path.Ext(name))
	}
	if err := root.Rename(name, renamed); err != nil {
		return "", err
	}
	return renamed, nil
}

// isNewFile reports whether a file was created or changed between two listings. The modification time alone does not
// show that: cp -p and docker cp preserve it.
func isNewFile(before, after fs.FileInfo) bool {
	return before == nil || !os.SameFile(before, after) || before.Size() != after.Size() ||
		!before.ModTime().Equal(after.ModTime())
}

// read adds one file.
func (f *JUnitFiles) read(ctx context.Context, root *os.Root, name string) {
	report, err := readJUnitFile(ctx, root, name)
	if report != nil && report.Total > 0 {
		f.Report = cmp.Or(f.Report, &Report{})
		f.Report.Tests = append(f.Report.Tests, report.Tests...)
	}
	other := (*notJUnitError)(nil)
	switch {
	case errors.As(err, &other):
		f.Ignored = append(f.Ignored, newFileError(name, err))
	case err != nil:
		f.Damaged = append(f.Damaged, newFileError(name, err))
	}
}

var errNotRegular = errors.New("not a regular file (copy it instead of linking it)")

func readJUnitFile(ctx context.Context, root *os.Root, name string) (*Report, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe can have replaced it
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, errNotRegular)
	}
	return readJUnit(&contextReader{ctx, file})
}

// contextReader is a reader that fails when ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
