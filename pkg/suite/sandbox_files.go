package suite

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// This file reads the files of a sandbox: as root if the image's user is root or can use sudo without a password.

// maxTreeList is the maximum size of the list of all files of a sandbox, in bytes.
const maxTreeList = 48 << 20

const (
	asRoot = `root=; if [ "$(id -u)" != 0 ] && sudo -n true 2>/dev/null; then root="sudo -n"; fi
`
	exitNoFind = 3
	// listFiles lists all files, each as "FLAG TYPE MODE UID GID SIZE DEVICE PATH", NUL, "TARGET", NUL. FLAG is ! for a
	// directory or file that cannot be read, otherwise a dot. It leaves out files that changed after the engine had
	// created /etc/hostname, for example those that the entry point wrote. It needs GNU find.
	listFiles = asRoot + `find / -maxdepth 0 -printf '' 2>/dev/null || exit 3
$root find / -xdev ! \( ! -type d -cnewer /etc/hostname \) \
	\( \( -type d ! \( -readable -executable \) -o -type f ! -readable \) -printf '! ' -o -printf '. ' \) \
	-printf '%y %m %U %G %s %D %p\0%l\0' 2>/dev/null
exit 0`
	// readFiles prints the size and the content of each file.
	readFiles = asRoot + `for file; do
	$root cat -- "$file" >"$0" || exit
	wc -c <"$0" && cat "$0"
done`
)

// readTree reads the file system of a new sandbox. The caller must close the tree.
func (t *sandboxTarget) readTree(ctx context.Context) (*Tree, error) {
	i, err := t.create(ctx, Spec{Kind: SharedInstance, Privileges: "default", Limits: Limits{Output: maxTreeList}})
	if err != nil {
		return nil, err
	}
	tree := &Tree{root: newDirectory(), ids: map[string]map[string]int{}, close: func() error { return i.Remove(ctx) }}
	tree.readContents = func(files []File) ([][]byte, error) { return i.contents(ctx, files) }
	if err := i.addFiles(ctx, tree); err != nil {
		return nil, daytona.WithLeftovers(err, i.Remove(ctx))
	}
	return tree, nil
}

// addFiles adds the files of the sandbox to a tree.
func (i *sandboxInstance) addFiles(ctx context.Context, tree *Tree) error {
	var list, errs bytes.Buffer
	exit, err := i.Exec(ctx, Process{Args: []string{"/bin/sh", "-c", listFiles}}, Streams{&list, &errs})
	switch {
	case err != nil:
		return fmt.Errorf("list the files of %s: %w", i.name(), err)
	case exit == exitNoFind:
		return unsupported("files, because the image has no GNU find")
	case exit != 0:
		return fmt.Errorf("list the files of %s: %s", i.name(), truncate(errs.String(), 200))
	}
	return tree.addList(list.String(), []string{i.dir, "/.daytona"})
}

// addList adds the files of a list of listFiles, except those on other devices, such as /etc/hosts and Daytona's
// daemon, and those below the given paths: absolute ones, or ends of paths.
func (t *Tree) addList(list string, ignored []string) error {
	device := ""
	for index := 0; list != ""; index++ {
		line, rest, found := strings.Cut(list, "\x00")
		target, next, foundTarget := strings.Cut(rest, "\x00")
		fields := strings.SplitN(line, " ", 8)
		if !found || !foundTarget || len(fields) != 8 {
			return fmt.Errorf("list the files of the sandbox: unexpected line %q", truncate(line, 200))
		}
		list = next
		name, h := path.Clean("/"+fields[7]), header{linkname: target}
		var numbers [4]int64
		for n, base := range []int{8, 10, 10, 10} {
			var err error
			if numbers[n], err = strconv.ParseInt(fields[2+n], base, 64); err != nil {
				return fmt.Errorf("list the files of the sandbox: %w", err)
			}
		}
		h.mode, h.size = uint32(numbers[0]), numbers[3]
		h.uid, h.gid = uint32(numbers[1]), uint32(numbers[2])
		types := map[string]byte{
			"f": tar.TypeReg, "d": tar.TypeDir, "l": tar.TypeSymlink, "p": tar.TypeFifo, "c": tar.TypeChar, "b": tar.TypeBlock,
		}
		var known bool
		if h.typeflag, known = types[fields[1]]; !known { // a socket
			continue
		}
		if h.typeflag != tar.TypeReg {
			h.size = 0
		}
		if name == "/" {
			device = fields[6]
		}
		if fields[6] != device && h.typeflag != tar.TypeDir || isBelow(name, ignored) {
			continue
		}
		if err := t.add(name, &inode{header: h, index: int32(index), unreadable: fields[0] == "!"}); err != nil {
			return err
		}
	}
	return nil
}

// isBelow reports whether a path is one of the directories, or below it.
func isBelow(name string, dirs []string) bool {
	for _, dir := range dirs {
		if strings.HasPrefix(name+"/", dir+"/") || strings.HasPrefix(dir, "/.") && strings.Contains(name+"/", dir+"/") {
			return true
		}
	}
	return false
}

// Limits of the files that one command reads, in bytes.
const (
	maxReadPaths    = 16 << 10
	maxReadContents = 32 << 20
)

// contents reads files.
func (i *sandboxInstance) contents(ctx context.Context, files []File) ([][]byte, error) {
	var all [][]byte
	for len(files) > 0 {
		args := []string{"/bin/sh", "-c", readFiles, i.dir + "/content"}
		var paths, size int64
		for n, f := range files {
			paths, size = paths+int64(len(f.Path)), size+f.Size
			if n > 0 && (paths > maxReadPaths || size > maxReadContents) {
				break
			}
			args = append(args, f.Path)
		}
		count := len(args) - 4
		var out, errs bytes.Buffer
		exit, err := i.Exec(ctx, Process{Args: args}, Streams{&out, &errs})
		if err == nil && exit != 0 {
			err = fmt.Errorf("read files of %s: %s", i.name(), truncate(strings.TrimSpace(errs.String()), 200))
		}
		if err != nil {
			return nil, err
		}
		for range count {
			line, err := out.ReadString('\n')
			size, sizeErr := strconv.Atoi(strings.TrimSpace(line))
			if err != nil || sizeErr != nil || size < 0 || size > out.Len() {
				return nil, fmt.Errorf("read files of %s: unexpected output %q", i.name(), truncate(line, 200))
			}
			all = append(all, bytes.Clone(out.Next(size)))
		}
		files = files[count:]
	}
	return all, nil
}
