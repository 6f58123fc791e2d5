package imagecontent

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/safetext"
)

const (
	maxPath       = 1024     // characters of a path; files with longer ones are omitted
	maxHashed     = 64 << 20 // bytes of a file whose content is compared
	maxEssential  = 20_000   // files of a layer that remove others or list packages
	maxDirectory  = 200_000  // directories of a layer
	maxZstdWindow = 128 << 20
)

// errLimit reports a layer over a limit.
var errLimit = errors.New("over a limit")

// decompress returns the content of a layer, which is compressed with gzip or zstd or not at all. Its media type does
// not matter, because some registries and builders set the wrong one.
func decompress(compressed io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(compressed, 64<<10)
	magic, err := buffered.Peek(4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		decoder, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	}
	return io.NopCloser(buffered), nil
}

// boundedReader reads until ctx ends, or returns errLimit after a number of bytes.
type boundedReader struct {
	io.Reader
	ctx  context.Context
	left int64
}

// Read implements [io.Reader].
func (b *boundedReader) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errLimit
	}
	return n, err
}

// archiveReader reads the archive of a layer.
type archiveReader struct {
	limits Limits
	clean  func(string) string

	layer       runrecord.Layer
	directories []string
	hashes      map[string]string              // of the files that hard links can name, by path
	packages    map[string][]runrecord.Package // by path of the database
	essential   int
}

// readArchive reads the archive of a layer. The error is errLimit if the layer is over a limit.
func readArchive(
	ctx context.Context, content io.Reader, limits Limits, clean func(string) string,
) (*archiveReader, error) {
	a := &archiveReader{
		limits: limits, clean: clean, layer: runrecord.Layer{Read: true},
		hashes: map[string]string{}, packages: map[string][]runrecord.Package{},
	}
	bounded := &boundedReader{content, ctx, limits.Unpacked}
	archive := tar.NewReader(bounded)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = a.add(header, archive)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := io.Copy(io.Discard, bounded); err != nil { // at the end of the stream, its digest is verified
		return nil, err
	}
	a.finish()
	return a, nil
}

// add adds an entry of the archive.
func (a *archiveReader) add(header *tar.Header, content io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+header.Name), "/") // .. does not lead out of the root
	directory, base := path.Split(name)
	directory = cmp.Or(strings.TrimSuffix(directory, "/"), ".")
	switch removed, isWhiteout := strings.CutPrefix(base, ".wh."); {
	case name == "" || header.Typeflag == tar.TypeXGlobalHeader:
		return nil
	case base == ".wh..wh..opq":
		return a.append(runrecord.File{Path: a.text(directory), Removed: true, Opaque: true}, true)
	case strings.HasPrefix(removed, ".wh."), isWhiteout && strings.Trim(removed, ".") == "" && len(removed) < 3:
		return nil // metadata of aufs, and names of no file
	case isWhiteout:
		return a.append(runrecord.File{Path: a.text(path.Join(directory, removed)), Removed: true}, true)
	case header.Typeflag == tar.TypeDir:
		if len(a.directories) == maxDirectory {
			return errLimit
		}
		a.directories = append(a.directories, a.text(name))
		return nil
	}
	return a.addFile(name, header, content)
}

func (a *archiveReader) addFile(name string, header *tar.Header, content io.Reader) (err error) {
	f := runrecord.File{Path: a.text(name)}
	delete(a.packages, f.Path) // of an earlier entry with the same path
	isDatabase := false
	switch header.Typeflag {
	case tar.TypeLink:
		f.Hash = a.hashes[strings.TrimPrefix(path.Clean("/"+header.Linkname), "/")]
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		f.Hash = hashOf([]byte(fmt.Sprint(header.Typeflag, header.Linkname, header.Devmajor, header.Devminor)))
	default: // also sparse files
		f.Size = header.Size
		if f.Size > a.limits.Unpacked-a.layer.Unpacked { // a sparse file can be larger than the archive
			return errLimit
		}
		a.layer.Unpacked += f.Size
		if f.Hash, isDatabase, err = a.readFile(name, f, content); err != nil {
			return err
		}
		if len(a.hashes) < a.limits.LayerFiles {
			a.hashes[name] = f.Hash
		}
	}
	return a.append(f, isDatabase)
}

// readFile returns the hash of a file's content, and whether it is a package database.
func (a *archiveReader) readFile(name string, f runrecord.File, content io.Reader) (string, bool, error) {
	if f.Size > maxHashed {
		return "", false, nil
	}
	parse := databaseParser(name)
	if parse == nil {
		sum := sha256.New()
		_, err := io.Copy(sum, content)
		return encode(sum), false, err
	}
	data, err := io.ReadAll(content)
	if err != nil {
		return "", false, err
	}
	packages := parse(data)
	for i := range packages {
		packages[i].Name, packages[i].Version = a.text(packages[i].Name), a.text(packages[i].Version)
	}
	a.packages[f.Path] = packages
	return hashOf(data), true, nil
}

// append adds a file. It keeps the largest ones, and those that are essential for a comparison.
func (a *archiveReader) append(f runrecord.File, essential bool) error {
	if essential {
		if a.essential++; a.essential > maxEssential {
			return errLimit
		}
	} else if len(f.Path) > maxPath {
		a.omit(f)
		return nil
	}
	a.layer.Files = append(a.layer.Files, f)
	if len(a.layer.Files) >= 2*(a.limits.LayerFiles+maxEssential) {
		a.truncate()
	}
	return nil
}

func (a *archiveReader) omit(f runrecord.File) {
	a.layer.Omitted++
	a.layer.OmittedSize = max(a.layer.OmittedSize, f.Size)
}

// truncate omits the smallest files.
func (a *archiveReader) truncate() {
	files := a.layer.Files
	rank := func(f runrecord.File) int {
		if _, isDatabase := a.packages[f.Path]; isDatabase || f.Removed {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(files, func(x, y runrecord.File) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(y.Size, x.Size))
	})
	kept := min(len(files), a.essential+a.limits.LayerFiles)
	for _, f := range files[kept:] {
		a.omit(f)
	}
	a.layer.Files = slices.Clip(files[:kept])
}

// finish sorts the files and the databases. The last of several entries with the same path counts.
func (a *archiveReader) finish() {
	for _, path := range slices.Sorted(maps.Keys(a.packages)) {
		a.layer.Databases = append(a.layer.Databases, runrecord.Database{Path: path, Packages: a.packages[path]})
	}
	slices.Reverse(a.layer.Files)
	sortFiles(a.layer.Files)
	a.layer.Files = slices.CompactFunc(a.layer.Files, func(x, y runrecord.File) bool {
		return x.Path == y.Path && x.Removed == y.Removed && x.Opaque == y.Opaque
	})
	a.truncate()
	sortFiles(a.layer.Files)
}

// text returns a path, a name or a version without secrets.
func (a *archiveReader) text(s string) string { return printable(redact(a.clean, s)) }

// printable returns a path, a name or a version as one line. Different texts remain different.
func printable(s string) string {
	if safetext.Line(s, 0) == s {
		return s
	}
	quoted := strconv.QuoteToGraphic(s)
	return quoted[1 : len(quoted)-1]
}

func hashOf(data []byte) string {
	sum := sha256.New()
	_, _ = sum.Write(data) // a hash's Write does not fail
	return encode(sum)
}

// encode returns the first 96 bits of a hash, which suffice to find changes.
func encode(sum hash.Hash) string { return base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:12]) }
