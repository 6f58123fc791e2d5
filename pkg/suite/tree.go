package suite

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Bounds of what is read of an image.
const (
	maxEntries = 4_000_000 // files
	maxContent = 16 << 20  // bytes of a file that is compared
	maxHeld    = 256 << 20 // bytes of all files that are compared
	maxLinks   = 40        // symbolic links that lead to one file, as in path_resolution(7)
)

// Tree is the files of an image, as a container of it has them at its start: the layers one over the other, by the rules of
// https://github.com/opencontainers/image-spec/blob/main/layer.md.
type Tree struct {
	Size int64 // bytes of all layers, unpacked: what one hides counts too

	root   *entry
	layers []v1.Layer
	count  int
	ids    map[string]map[string]int // of /etc/passwd and /etc/group, by name, once they have been read
}

// File is one of a tree.
type File struct {
	Path string // absolute, without symbolic links in its folders
	Type string // file, directory, symlink, fifo, char or block
	Mode fs.FileMode
	UID  int
	GID  int
	Size int64 // of a file's content, in bytes

	Target string // of a symlink, as it is written

	inode *inode
}

// entry is a name in a folder. Hard links are entries that share an inode.
type entry struct {
	*inode
	children map[string]*entry // of a directory
}

type inode struct {
	header tar.Header
	layer  int // that its content is in; -1 for a folder that no layer mentions
	index  int // which of the layer's tar entries
}

// ReadTree reads the headers of all layers, from the lowest. It ends with ctx.
func ReadTree(ctx context.Context, img v1.Image) (*Tree, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read the image's layers: %w", err)
	}
	t := &Tree{root: folder(), layers: layers, ids: map[string]map[string]int{}}
	for i, layer := range layers {
		if err := t.read(ctx, i, layer); err != nil {
			name := fmt.Sprint(i + 1)
			if digest, err := layer.Digest(); err == nil {
				name += " (" + digest.String() + ")"
			}
			return nil, fmt.Errorf("read layer %s of %d of the image: %w", name, len(layers), err)
		}
	}
	return t, nil
}

func folder() *entry {
	return &entry{inode: &inode{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}, layer: -1}, children: map[string]*entry{}}
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	metadata = ".wh..wh." // AUFS's own
)

// read puts one layer over those below.
func (t *Tree) read(ctx context.Context, number int, layer v1.Layer) error {
	content, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer content.Close()
	counted := &countingReader{ctx: ctx, from: content}
	reader := tar.NewReader(counted)
	var entries []*inode
	for index := 0; ; index++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if t.count++; t.count > maxEntries {
			return fmt.Errorf("the image has more than %d files", maxEntries)
		}
		header.Name = path.Clean("/" + header.Name)
		header.PAXRecords = nil // memory
		// A whiteout is for what is below, never for its own layer: it comes first, wherever it stands.
		if folder, name := path.Split(header.Name); strings.HasPrefix(name, whiteout) {
			t.hide(folder, name)
			continue
		}
		entries = append(entries, &inode{header: *header, layer: number, index: index})
	}
	if _, err := io.Copy(io.Discard, counted); err != nil { // the padding, and the digest's check
		return err
	}
	t.Size += counted.n
	for _, node := range entries {
		if err := t.add(node); err != nil {
			return err
		}
	}
	return nil
}

// hide removes what a whiteout names.
func (t *Tree) hide(folder, name string) {
	parent, _ := t.find(folder, true)
	if parent == nil || parent.children == nil {
		return
	}
	switch {
	case name == opaque:
		clear(parent.children)
	case !strings.HasPrefix(name, metadata):
		delete(parent.children, strings.TrimPrefix(name, whiteout))
	}
}

// add puts one file of a layer into the tree.
func (t *Tree) add(node *inode) error {
	header := &node.header
	if header.Name == "/" {
		if header.Typeflag == tar.TypeDir {
			t.root.inode = node
		}
		return nil
	}
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeGNUSparse, tar.TypeCont:
	default:
		return fmt.Errorf("%s has the unknown type %q", header.Name, header.Typeflag)
	}
	dir, name := path.Split(header.Name)
	parent := t.makeFolder(dir)
	if header.Typeflag == tar.TypeLink {
		target, _ := t.find(path.Clean("/"+header.Linkname), false)
		if target == nil || target.children != nil || target.layer != node.layer {
			return fmt.Errorf("%s is a hard link to %s, which is no file of the layer", header.Name, header.Linkname)
		}
		// A link's header has an owner and a mode too. The engines give them to the file.
		linked := target.inode
		linked.header.Uid, linked.header.Gid, linked.header.Mode = header.Uid, header.Gid, header.Mode
		parent.children[name] = &entry{inode: linked}
		return nil
	}
	fresh := &entry{inode: node}
	if header.Typeflag == tar.TypeDir {
		fresh.children = map[string]*entry{}
		if below := parent.children[name]; below != nil && below.children != nil {
			fresh.children = below.children
		}
	}
	parent.children[name] = fresh
	return nil
}

// makeFolder is the folder of that path, made where it is not there.
func (t *Tree) makeFolder(dir string) *entry {
	if found, _ := t.find(dir, true); found != nil && found.children != nil {
		return found
	}
	at, walked := t.root, "/"
	for _, name := range parts(dir) {
		walked = path.Join(walked, name)
		next, _ := t.find(walked, true)
		if next == nil || next.children == nil {
			next = folder()
			next.inode.header.Name = walked
			at.children[name] = next
		}
		at = next
	}
	return at
}

func parts(name string) []string {
	return strings.FieldsFunc(name, func(c rune) bool { return c == '/' })
}

// find follows the symbolic links in a path's folders, and with last the one that it may end in. It answers nil when there is no such file
// or the links go round, else the path without links too.
func (t *Tree) find(name string, last bool) (*entry, string) {
	rest := parts(name)
	stack := []*entry{t.root}
	var names []string
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		at := stack[len(stack)-1]
		switch next {
		case ".":
			continue
		case "..":
			if len(names) > 0 {
				stack, names = stack[:len(stack)-1], names[:len(names)-1]
			}
			continue
		}
		found := at.children[next]
		if found == nil {
			return nil, ""
		}
		if found.header.Typeflag == tar.TypeSymlink && (len(rest) > 0 || last) {
			if links++; links > maxLinks {
				return nil, ""
			}
			if path.IsAbs(found.header.Linkname) {
				stack, names = stack[:1], nil
			}
			rest = append(parts(found.header.Linkname), rest...)
			continue
		}
		if len(rest) > 0 && found.children == nil {
			return nil, ""
		}
		stack, names = append(stack, found), append(names, next)
	}
	return stack[len(stack)-1], "/" + strings.Join(names, "/")
}

// Lstat is the file of that path, a symbolic link itself where the path ends in one.
func (t *Tree) Lstat(name string) (File, bool) { return t.stat(name, false) }

// Stat is the file that the path leads to.
func (t *Tree) Stat(name string) (File, bool) { return t.stat(name, true) }

func (t *Tree) stat(name string, last bool) (File, bool) {
	found, clean := t.find(name, last)
	if found == nil {
		return File{}, false
	}
	return found.file(clean), true
}

func (e *entry) file(name string) File {
	h := &e.header
	info := h.FileInfo()
	f := File{Path: name, Mode: info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky), UID: h.Uid, GID: h.Gid, inode: e.inode}
	switch h.Typeflag {
	case tar.TypeDir:
		f.Type = "directory"
	case tar.TypeSymlink:
		f.Type, f.Target = "symlink", h.Linkname
	case tar.TypeFifo:
		f.Type = "fifo"
	case tar.TypeChar:
		f.Type = "char"
	case tar.TypeBlock:
		f.Type = "block"
	default:
		f.Type, f.Size = "file", h.Size
	}
	return f
}

// Glob calls each for every file whose path matches the pattern, in the order of their paths: * matches within a name, ** across folders. Symbolic
// links are matched, not followed.
func (t *Tree) Glob(pattern string, each func(File)) {
	base, _ := doublestar.SplitPattern(pattern)
	if !strings.HasPrefix(base, "/") {
		base = "/"
	}
	start, clean := t.find(base, false)
	if start == nil || clean != path.Clean(base) { // a folder behind a link: the pattern's own is no file's
		return
	}
	walk(start, clean, func(name string, e *entry) {
		if doublestar.MatchUnvalidated(pattern, name) {
			each(e.file(name))
		}
	})
}

func walk(e *entry, name string, visit func(string, *entry)) {
	visit(name, e)
	for _, child := range slices.Sorted(maps.Keys(e.children)) {
		walk(e.children[child], path.Join(name, child), visit)
	}
}

// Contents reads files, each layer once, and answers their contents in the same order.
func (t *Tree) Contents(files []File) ([][]byte, error) {
	contents := make([][]byte, len(files))
	wanted := map[int]map[int][]int{} // layer, entry, which of files
	var held int64
	for i, f := range files {
		switch {
		case f.Type != "file":
			return nil, fmt.Errorf("%s is a %s, and has no content", f.Path, f.Type)
		case f.Size > maxContent:
			return nil, fmt.Errorf("%s has %d bytes, more than can be compared (%d)", f.Path, f.Size, maxContent)
		}
		if held += f.Size; held > maxHeld {
			return nil, fmt.Errorf("the files to compare have more than %d MiB together: name fewer", maxHeld>>20)
		}
		if wanted[f.inode.layer] == nil {
			wanted[f.inode.layer] = map[int][]int{}
		}
		wanted[f.inode.layer][f.inode.index] = append(wanted[f.inode.layer][f.inode.index], i)
	}
	for layer, indexes := range wanted {
		if err := t.extract(layer, indexes, contents); err != nil {
			return nil, fmt.Errorf("read layer %d of the image: %w", layer+1, err)
		}
	}
	return contents, nil
}

func (t *Tree) extract(layer int, indexes map[int][]int, contents [][]byte) error {
	content, err := t.layers[layer].Uncompressed()
	if err != nil {
		return err
	}
	defer content.Close()
	reader := tar.NewReader(content)
	for index := 0; len(indexes) > 0; index++ {
		if _, err := reader.Next(); err != nil {
			return err
		}
		which := indexes[index]
		if which == nil {
			continue
		}
		delete(indexes, index)
		var data bytes.Buffer
		if _, err := io.Copy(&data, io.LimitReader(reader, maxContent)); err != nil {
			return err
		}
		for _, i := range which {
			contents[i] = data.Bytes()
		}
	}
	return nil
}

type countingReader struct {
	ctx  context.Context
	from io.Reader
	n    int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.from.Read(p)
	r.n += int64(n)
	return n, err
}
