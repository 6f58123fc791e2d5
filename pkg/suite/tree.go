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

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Limits on reading an image.
const (
	maxEntries       = 2_000_000 // files; each takes about 200 bytes of memory
	maxContent       = 16 << 20  // bytes of one file to compare
	maxTotalContents = 256 << 20 // bytes of all files to compare
	maxLinks         = 40        // symbolic links in one path, as in path_resolution(7)
)

// Tree is the file system of an image as a new container sees it, with all layers applied in order. See
// https://github.com/opencontainers/image-spec/blob/main/layer.md.
type Tree struct {
	Size int64 // uncompressed size of all layers in bytes, including files that upper layers hide

	root   *entry
	layers []v1.Layer
	count  int
	ids    map[string]map[string]int // IDs by file (/etc/passwd, /etc/group) and name, read on demand

	readContents func([]File) ([][]byte, error) // nil: from the layers
	close        func() error                   // releases what readContents uses; nil: nothing
	hidden       string                         // a directory that a search needed, but that could not be read
}

// File is a file, directory or other entry of a tree.
type File struct {
	Path string // absolute
	Type string // file, directory, symlink, fifo, char or block
	Mode fs.FileMode
	UID  int
	GID  int
	Size int64 // of the content, in bytes; 0 if Type is not file

	Target string // target of a symlink, as stored

	entry *entry
}

// entry is a name in a directory. Hard links are entries that share an inode.
type entry struct {
	*inode
	children map[string]*entry // nil if not a directory
}

type inode struct {
	header
	layer int32 // index of the layer with the content; -1 for a directory that is in no layer
	index int32 // of the entry in the layer's tar file

	unreadable bool // a directory whose files are unknown, or a file without its content
}

// header is the part of a tar header that a tree keeps. An image can have many files, so it is small.
type header struct {
	size           int64
	linkname       string
	mode, uid, gid uint32
	typeflag       byte
}

func headerOf(h *tar.Header) header {
	return header{h.Size, h.Linkname, uint32(h.Mode), uint32(h.Uid), uint32(h.Gid), h.Typeflag}
}

// ReadTree reads the headers of all layers of an image. It stops when ctx ends.
func ReadTree(ctx context.Context, img v1.Image) (*Tree, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read the image's layers: %w", err)
	}
	t := &Tree{root: newDirectory(), layers: layers, ids: map[string]map[string]int{}}
	for i, layer := range layers {
		if err := t.read(ctx, int32(i), layer); err != nil {
			name := fmt.Sprint(i + 1)
			if digest, err := layer.Digest(); err == nil {
				name += " (" + digest.String() + ")"
			}
			return nil, fmt.Errorf("read layer %s of %d of the image: %w", name, len(layers), err)
		}
	}
	return t, nil
}

// newDirectory returns a directory that is in no layer.
func newDirectory() *entry {
	return &entry{inode: &inode{header: header{typeflag: tar.TypeDir, mode: 0o755}, layer: -1},
		children: map[string]*entry{}}
}

// Names of whiteouts, which remove files of lower layers.
const (
	whiteoutPrefix = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // metadata of AUFS
)

// read applies one layer.
func (t *Tree) read(ctx context.Context, number int32, layer v1.Layer) error {
	content, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer content.Close()
	counted := &countingReader{ctx: ctx, from: content}
	reader := tar.NewReader(counted)
	type item struct {
		name string
		node *inode
	}
	var items []item
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
		cleaned := path.Clean("/" + header.Name)
		// A whiteout only removes files of lower layers, so apply it first, regardless of its position in the layer.
		if dir, name := path.Split(cleaned); strings.HasPrefix(name, whiteoutPrefix) {
			t.applyWhiteout(number, dir, name)
			continue
		}
		items = append(items, item{cleaned, &inode{header: headerOf(header), layer: number, index: int32(index)}})
	}
	if _, err := io.Copy(io.Discard, counted); err != nil { // verifies the digest
		return err
	}
	t.Size += counted.n
	for _, item := range items {
		if err := t.add(item.name, item.node); err != nil {
			return err
		}
	}
	return nil
}

// applyWhiteout removes the files that a whiteout of a layer names.
func (t *Tree) applyWhiteout(layer int32, dir, name string) {
	parent := t.makeDirectory(layer, dir)
	switch {
	case name == opaqueWhiteout:
		clear(parent.children)
	case !strings.HasPrefix(name, aufsPrefix):
		delete(parent.children, strings.TrimPrefix(name, whiteoutPrefix))
	}
}

// add adds one file of a layer at a clean, absolute path.
func (t *Tree) add(file string, node *inode) error {
	if file == "/" {
		if node.typeflag == tar.TypeDir {
			t.root.inode = node
		}
		return nil
	}
	switch node.typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo,
		tar.TypeGNUSparse, tar.TypeCont:
	default:
		return fmt.Errorf("%s has unsupported type %q", file, node.typeflag)
	}
	dir, name := path.Split(file)
	name = strings.Clone(name) // which does not keep the path in memory
	parent := t.makeDirectory(node.layer, dir)
	if node.typeflag == tar.TypeLink {
		target, _ := t.findThrough(node.layer, path.Clean("/"+node.linkname), false)
		if target == nil || target.children != nil || target.layer != node.layer {
			return fmt.Errorf("%s is a hard link to %s, which is not a file of the same layer", file, node.linkname)
		}
		// Engines apply the owner and mode of the link's header to the file.
		linked := target.inode
		linked.uid, linked.gid, linked.mode = node.uid, node.gid, node.mode
		parent.children[name] = &entry{inode: linked}
		return nil
	}
	added := &entry{inode: node}
	if node.typeflag == tar.TypeDir {
		added.children = map[string]*entry{}
		if below := parent.children[name]; below != nil && below.children != nil {
			added.children = below.children
		}
	}
	parent.children[name] = added
	return nil
}

// makeDirectory returns the directory at a path of a layer. It creates missing directories. Engines unpack a layer
// without the files of the lower ones, so links of those are not followed but replaced.
func (t *Tree) makeDirectory(layer int32, dir string) *entry {
	if found, _ := t.findThrough(layer, dir, true); found != nil && found.children != nil {
		return found
	}
	at, walked := t.root, "/"
	for _, name := range pathNames(dir) {
		walked = path.Join(walked, name)
		next, _ := t.findThrough(layer, walked, true)
		if next == nil || next.children == nil {
			next = newDirectory()
			at.children[strings.Clone(name)] = next
		}
		at = next
	}
	return at
}

// addMountPoints adds the directories that the engine creates in every container of an image: its volumes and its
// working directory.
func (t *Tree) addMountPoints(config *v1.Config) {
	for _, dir := range append(slices.Sorted(maps.Keys(config.Volumes)), config.WorkingDir) {
		if _, exists := t.Lstat(dir); !exists {
			t.makeDirectory(allLayers, dir)
		}
	}
}

// pathNames splits a path into names.
func pathNames(name string) []string {
	return strings.FieldsFunc(name, func(c rune) bool { return c == '/' })
}

// find returns the entry at a path, and its path without symbolic links. It follows links in the directories of the
// path and, if followLast is set, at its end. It returns nil if the entry does not exist, or if links form a loop.
func (t *Tree) find(name string, followLast bool) (*entry, string) {
	return t.findThrough(allLayers, name, followLast)
}

// allLayers stands for the number of a layer.
const allLayers = -1

// findThrough is like find, but does not find what is behind links of other layers.
func (t *Tree) findThrough(layer int32, name string, followLast bool) (*entry, string) {
	rest := pathNames(name)
	if strings.HasSuffix(name, "/") {
		rest = append(rest, ".") // a directory
	}
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
		if at.unreadable {
			t.hidden = "/" + strings.Join(names, "/")
		}
		found := at.children[next]
		if found == nil {
			return nil, ""
		}
		if found.typeflag == tar.TypeSymlink && (len(rest) > 0 || followLast) {
			if links++; links > maxLinks || layer != allLayers && found.layer != layer {
				return nil, ""
			}
			if path.IsAbs(found.linkname) {
				stack, names = stack[:1], nil
			}
			rest = append(pathNames(found.linkname), rest...)
			continue
		}
		if len(rest) > 0 && found.children == nil {
			return nil, ""
		}
		stack, names = append(stack, found), append(names, next)
	}
	return stack[len(stack)-1], "/" + strings.Join(names, "/")
}

// Lstat returns the file at a path. If the path ends in a symbolic link, it returns the link.
func (t *Tree) Lstat(name string) (File, bool) { return t.stat(name, false) }

// Stat returns the file at a path, after following symbolic links.
func (t *Tree) Stat(name string) (File, bool) { return t.stat(name, true) }

func (t *Tree) stat(name string, followLast bool) (File, bool) {
	found, clean := t.find(name, followLast)
	if found == nil {
		return File{}, false
	}
	return found.file(clean), true
}

func (e *entry) file(name string) File {
	tarMode := (&tar.Header{Mode: int64(e.mode)}).FileInfo().Mode()
	mode := tarMode & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	f := File{Path: name, Mode: mode, UID: int(e.uid), GID: int(e.gid), entry: e}
	switch e.typeflag {
	case tar.TypeDir:
		f.Type = "directory"
	case tar.TypeSymlink:
		f.Type, f.Target = "symlink", e.linkname
	case tar.TypeFifo:
		f.Type = "fifo"
	case tar.TypeChar:
		f.Type = "char"
	case tar.TypeBlock:
		f.Type = "block"
	default:
		f.Type, f.Size = "file", e.size
	}
	return f
}

// Contents returns the contents of files, in the same order. It reads each layer at most once.
func (t *Tree) Contents(files []File) ([][]byte, error) {
	contents := make([][]byte, len(files))
	wanted := map[int32]map[int32][]int{} // indexes in files by layer and tar entry
	var total int64
	for i, f := range files {
		switch {
		case f.Type != "file":
			return nil, fmt.Errorf("%s is a %s and has no content", f.Path, f.Type)
		case f.Size > maxContent:
			return nil, fmt.Errorf("%s has %d bytes; only files of at most %d bytes can be compared", f.Path, f.Size, maxContent)
		}
		if total += f.Size; total > maxTotalContents {
			return nil, fmt.Errorf("files to compare have more than %d MiB in total; select fewer", maxTotalContents>>20)
		}
		if wanted[f.entry.layer] == nil {
			wanted[f.entry.layer] = map[int32][]int{}
		}
		wanted[f.entry.layer][f.entry.index] = append(wanted[f.entry.layer][f.entry.index], i)
	}
	if t.readContents != nil {
		return t.readContents(files)
	}
	for layer, indexes := range wanted {
		if err := t.extract(layer, indexes, contents); err != nil {
			return nil, fmt.Errorf("read layer %d of the image: %w", layer+1, err)
		}
	}
	return contents, nil
}

// extract reads entries of one layer. indexes maps the index of an entry to the indexes of its files in contents.
func (t *Tree) extract(layer int32, indexes map[int32][]int, contents [][]byte) error {
	content, err := t.layers[layer].Uncompressed()
	if err != nil {
		return err
	}
	defer content.Close()
	reader := tar.NewReader(content)
	for index := int32(0); len(indexes) > 0; index++ {
		if _, err := reader.Next(); err != nil {
			return err
		}
		places := indexes[index]
		if places == nil {
			continue
		}
		delete(indexes, index)
		var data bytes.Buffer
		if _, err := io.Copy(&data, io.LimitReader(reader, maxContent)); err != nil {
			return err
		}
		for _, i := range places {
			contents[i] = data.Bytes()
		}
	}
	return nil
}

// countingReader counts the bytes read, and fails after ctx has ended.
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
