package source

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-units"

	"github.com/org/sandbox-actions/pkg/git"
	"github.com/org/sandbox-actions/pkg/lfs"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// findPointers returns the files of t.Dir that Git LFS manages and that contain pointers, by path. Those are files with
// the attribute filter=lfs. paths are all files of the commit. git starts only if a .gitattributes mentions Git LFS.
func (t Tree) findPointers(ctx context.Context, paths []string) (map[string]lfs.Pointer, error) {
	mentionsLFS := func(name string) bool {
		if path.Base(name) != ".gitattributes" {
			return false
		}
		data, _ := readRegular(t.Dir, name, maxAttributes) // git ignores other files, too
		return bytes.Contains(data, []byte("filter=lfs"))
	}
	if !slices.ContainsFunc(paths, mentionsLFS) {
		return nil, nil
	}
	pointers := map[string]lfs.Pointer{}
	for _, name := range paths {
		data, err := readRegular(t.Dir, name, lfs.MaxPointer)
		if errors.Is(err, errNotRegular) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		} else if err != nil {
			return nil, err
		}
		if pointer, ok := lfs.ParsePointer(data); ok {
			pointers[name] = pointer
		}
	}
	if len(pointers) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	list := strings.Join(slices.Sorted(maps.Keys(pointers)), "\x00") + "\x00"
	if err := t.git.Run(ctx, strings.NewReader(list), &out, "check-attr", "-z", "--stdin", "filter"); err != nil {
		return nil, fmt.Errorf("find the files of Git LFS: %w", err)
	}
	fields := strings.Split(out.String(), "\x00") // path, attribute, value, path, …
	for i := 0; i+2 < len(fields); i += 3 {
		if fields[i+2] != "lfs" {
			delete(pointers, fields[i])
		}
	}
	return pointers, nil
}

const maxAttributes = 100 << 20 // git ignores a larger .gitattributes

var errNotRegular = errors.New("not a regular file, or too large")

// readRegular reads a regular file of up to limit bytes below dir. It follows no symbolic links.
func readRegular(dir, name string, limit int64) ([]byte, error) {
	full := dir
	parts := strings.Split(name, "/")
	for i, part := range parts {
		full = filepath.Join(full, part)
		info, err := os.Lstat(full)
		if err != nil {
			return nil, err
		}
		isLast := i == len(parts)-1
		if !filepath.IsLocal(part) || !isLast && !info.IsDir() ||
			isLast && (!info.Mode().IsRegular() || info.Size() > limit) {
			return nil, errNotRegular
		}
	}
	return os.ReadFile(full)
}

// addLFS downloads the content of the Git LFS files of a tree, or records in it which ones contain only pointers. It
// replaces the IDs of entries whose content it has downloaded, from which normalizeFiles derives the times of files.
func (f *fetcher) addLFS(ctx context.Context, t *Tree, from remote, entries []treeEntry) error {
	var paths []string
	for _, e := range entries {
		if e.kind == "blob" {
			paths = append(paths, e.path)
		}
	}
	pointers, err := t.findPointers(ctx, paths)
	if err != nil || len(pointers) == 0 {
		return err
	}
	if !f.options.LFS {
		t.Unfetched.Pointers = slices.Sorted(maps.Keys(pointers))
		return nil
	}
	if err := f.downloadLFS(ctx, *t, from, pointers); err != nil {
		return fmt.Errorf("download Git LFS files: %w", err)
	}
	for i, e := range entries {
		if pointer, ok := pointers[e.path]; ok {
			entries[i].id = pointer.OID
		}
	}
	return nil
}

// downloadLFS replaces pointers with the content of their objects.
func (f *fetcher) downloadLFS(ctx context.Context, t Tree, from remote, pointers map[string]lfs.Pointer) error {
	server, err := f.lfsServer(ctx, t, from)
	if err != nil {
		return err
	}
	var objects []lfs.Object
	users := map[string][]string{} // paths by OID
	total := int64(0)
	for _, name := range slices.Sorted(maps.Keys(pointers)) {
		pointer := pointers[name]
		if len(pointer.Extensions) > 0 {
			return fmt.Errorf("%s: the Git LFS extension %s is not supported (set lfs: false to keep pointers)",
				safetext.Line(name, maxShownPath), pointer.Extensions[0])
		}
		if users[pointer.OID] == nil && pointer.Size > 0 {
			objects = append(objects, lfs.Object{Pointer: pointer, Path: name})
			total += pointer.Size
		}
		users[pointer.OID] = append(users[pointer.OID], name)
	}
	f.r.logf("Downloading %d Git LFS objects (%s)", len(objects), units.HumanSize(float64(total)))
	dir := filepath.Join(t.gitDir, "lfs", "objects")
	if err := server.Download(ctx, t.Ref, objects, dir, f.progress(total)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(pointers)) {
		target := filepath.Join(t.Dir, name)
		pointer := pointers[name]
		object := filepath.Join(dir, pointer.OID)
		names := users[pointer.OID]
		switch {
		case pointer.Size == 0:
			err = os.Truncate(target, 0)
		case name == names[len(names)-1]:
			err = os.Rename(object, target)
		default:
			err = copyFile(object, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lfsServer returns the Git LFS server of a repository: that of its .lfsconfig, or the one of its git server.
func (f *fetcher) lfsServer(ctx context.Context, t Tree, from remote) (lfs.Server, error) {
	server := lfs.Server{
		URL: strings.TrimSuffix(from.url, ".git") + ".git/info/lfs", Token: from.token,
		HTTP: f.r.HTTP, IdleTimeout: f.r.GitIdleTimeout,
	}
	if _, err := readRegular(t.Dir, ".lfsconfig", maxAttributes); err != nil {
		return server, nil
	}
	config, err := t.readConfig(ctx, ".lfsconfig")
	if err != nil {
		return server, err
	}
	if config["lfs.url"] == "" {
		return server, nil
	}
	named, err := f.r.resolveRemote(from, config["lfs.url"])
	if err != nil {
		return server, fmt.Errorf("lfs.url in .lfsconfig: %w", err)
	}
	server.URL, server.Token = named.url, named.token
	return server, nil
}

// progress returns a function that logs each quarter of a large download.
func (f *fetcher) progress(total int64) func(bytes int64) {
	const large = 200_000_000
	if total < large {
		return nil
	}
	var mu sync.Mutex
	var received int64
	next := total / 4
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if received += n; received >= next {
			f.r.logf("Git LFS: %s of %s", units.HumanSize(float64(received)), units.HumanSize(float64(total)))
			next += total / 4
		}
	}
}

// isContentOf reports whether a file has the content of the pointer that is the blob with this ID.
func isContentOf(file, id string) bool {
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	content, err := os.Open(file)
	if err != nil {
		return false
	}
	defer content.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, content)
	pointer := lfs.Pointer{OID: hex.EncodeToString(sum.Sum(nil)), Size: size}.String()
	blob := sha1.New()
	if len(id) == 64 {
		blob = sha256.New()
	}
	_, _ = fmt.Fprintf(blob, "blob %d\x00%s", len(pointer), pointer) // never fails
	return err == nil && hex.EncodeToString(blob.Sum(nil)) == id
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}

// readConfig reads a file of the commit in the format of git's configuration, without includes.
func (t Tree) readConfig(ctx context.Context, name string) (map[string]string, error) {
	out, err := t.git.Output(ctx, "config", "--blob", t.SHA+":"+name, "--list", "--null")
	if failure, ok := errors.AsType[*git.Error](err); ok {
		return nil, fmt.Errorf("read %s: %w (correct the file)", name, failure)
	} else if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		if key, value, ok := strings.Cut(entry, "\n"); ok {
			config[key] = value
		}
	}
	return config, nil
}
