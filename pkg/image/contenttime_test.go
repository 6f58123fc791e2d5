package image

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// stats returns the metadata that a builder compares, by path.
func stats(t testing.TB, files fsutil.FS) map[string]*types.Stat {
	t.Helper()
	found := map[string]*types.Stat{}
	err := contentTimes{files}.Walk(context.Background(), "", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			found[path] = info.Sys().(*types.Stat)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestContentTimes(t *testing.T) {
	dir := t.TempDir()
	fixed := time.Date(1985, 10, 26, 8, 15, 0, 0, time.UTC) // of all files in npm packages
	write := func(name, content string) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, fixed, fixed); err != nil {
			t.Fatal(err)
		}
	}
	write("changed", "version 1")
	write("same", "version 1")
	if err := os.Symlink("same", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	files, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	before := stats(t, files)
	write("changed", "version 2")
	write("same", "version 1")
	after := stats(t, files)
	if before["changed"].Size != after["changed"].Size || before["changed"].ModTime == after["changed"].ModTime {
		t.Error("a change of the content does not change the time")
	}
	if before["same"].ModTime != after["same"].ModTime || before["same"].ModTime != before["changed"].ModTime {
		t.Error("the same content has different times")
	}
	if got := time.Unix(0, after["changed"].ModTime).UTC().Truncate(time.Second); !got.Equal(fixed) {
		t.Errorf("time %s, want %s and a fraction of a second", got, fixed)
	}
	if link := after["link"]; link.Linkname != "same" {
		t.Errorf("link %v", link)
	}
}

// A time before 1970 stays in its second.
func TestWithFraction(t *testing.T) {
	const second = int64(time.Second)
	for _, nanoseconds := range []int64{0, 5*second + 1, -5*second + 1, -5 * second} {
		got := withFraction(nanoseconds, []byte{0x80, 0, 0, 0, 0, 0, 0, 7})
		floor := nanoseconds - ((nanoseconds%second)+second)%second
		if got < floor || got >= floor+second {
			t.Errorf("%d: got %d, want a time in the second from %d", nanoseconds, got, floor)
		}
	}
}

// Files that .dockerignore excludes are not read: they may be large, or unreadable.
func TestContentTimesOfExcludedFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/kept", "a/ignored", "node_modules/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	opened := &openRecorder{FS: files}
	filtered, err := fsutil.NewFilterFS(contentTimes{opened},
		&fsutil.FilterOpt{ExcludePatterns: []string{"a/ignored", "node_modules"}})
	if err != nil {
		t.Fatal(err)
	}
	err = filtered.Walk(t.Context(), "", func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			_, err = entry.Info()
		}
		return err
	})
	if err != nil || fmt.Sprint(opened.paths) != "[a/kept]" {
		t.Errorf("read %q, %v; want only a/kept", opened.paths, err)
	}
}

type openRecorder struct {
	fsutil.FS
	paths []string
}

func (r *openRecorder) Open(path string) (io.ReadCloser, error) {
	r.paths = append(r.paths, path)
	return r.FS.Open(path)
}

// BenchmarkContentTimes measures a walk of 100,000 files of 1 KB with and without their content.
func BenchmarkContentTimes(b *testing.B) {
	dir := b.TempDir()
	data := make([]byte, 1000)
	for i := range 100_000 {
		if i%1000 == 0 {
			if err := os.Mkdir(filepath.Join(dir, fmt.Sprint(i/1000)), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i/1000), fmt.Sprint(i)), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	files, err := fsutil.NewFS(dir)
	if err != nil {
		b.Fatal(err)
	}
	for name, files := range map[string]fsutil.FS{"metadata": files, "content": contentTimes{files}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				err := files.Walk(b.Context(), "", func(_ string, entry fs.DirEntry, err error) error {
					if err == nil {
						_, err = entry.Info()
					}
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
