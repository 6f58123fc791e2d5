package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// send returns the files that a transfer sends, by path.
func send(t *testing.T, files *contextFiles, opt fsutil.FilterOpt) (map[string]*types.Stat, error) {
	t.Helper()
	transfer := &contextTransfer{contextFiles: files}
	if err := transfer.prepare(mainContext, &opt); err != nil {
		return nil, err
	}
	filtered, err := fsutil.NewFilterFS(transfer, &opt)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]*types.Stat{}
	err = filtered.Walk(t.Context(), "/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		sent[path] = info.Sys().(*types.Stat)
		if !info.Mode().IsRegular() {
			return nil
		}
		file, err := filtered.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(io.Discard, file)
		return err
	})
	return sent, err
}

// What cannot be read stops a transfer only if the build needs it.
func TestUnreadableFiles(t *testing.T) {
	for _, test := range []struct {
		name             string
		follow           string
		ignore           string
		unreadable, want string // the path in the error; "" for none
	}{
		{"ignored folder", "", "data", "data/pg", ""},
		{"ignored folder with an exception elsewhere", "", "* !src/*.txt", "data/pg", ""},
		{"ignored content of a folder", "", "data/pg/*", "data/pg", ""},
		{"folder with an exception", "", "data !data/pg/f", "data/pg", "data/pg"},
		{"folder with a possible exception", "", "* !**/f", "data/pg", "data/pg"},
		{"folder", "", "", "data/pg", "data/pg"},
		{"folder that is not needed", "/src", "", "data/pg", ""},
		{"folder that is not needed, with a wildcard", "/src/*.txt", "", "data/pg", ""},
		{"folder that a wildcard can need", "/*/*/f", "", "data/pg", "data/pg"},
		{"context", "", "", ".", "."},
		{"file", "", "", "src/a.txt", "src/a.txt"},
		{"ignored file", "", "src/a.txt", "src/a.txt", ""},
		{"file that is not needed", "/data", "", "src/a.txt", ""},
	} {
		for _, ofCommit := range []bool{true, false} { // files of a commit are read later than others
			t.Run(test.name, func(t *testing.T) {
				dir := writeFiles(t, map[string]string{"src/a.txt": "a", "data/pg/f": "f"})
				path := filepath.Join(dir, test.unreadable)
				err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chmod(path, 0))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
				files := &contextFiles{directories: map[string]string{mainContext: dir}}
				if ofCommit {
					files.commitFiles = dir
				}
				opt := fsutil.FilterOpt{ExcludePatterns: strings.Fields(test.ignore)}
				if test.follow != "" {
					opt.FollowPaths = []string{test.follow}
				}
				testdaemons.AsNobody(t, func() { _, err = send(t, files, opt) })
				failed, _ := errors.AsType[*ContextFileError](files.failure())
				if test.want == "" {
					if err != nil || failed != nil {
						t.Errorf("%v, %v", err, failed)
					}
				} else if err == nil || failed == nil || failed.Path != filepath.Join(dir, test.want) ||
					!errors.Is(failed, fs.ErrPermission) {
					t.Errorf("%v, %v; want an error about %s", err, failed, test.want)
				}
			})
		}
	}
}

// The error of a build names the file that cannot be sent, which BuildKit reports as a text only.
func TestUnreadableContext(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /", "sub/.dockerignore/x": ""})
	r := request(dir)
	r.Contexts = map[string]string{"other": filepath.Join(dir, "sub")}
	if err := os.WriteFile(r.Dockerfile, []byte("FROM scratch\nCOPY --from=other . /"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err := solve(t.Context(), c, r)
	failed, ok := errors.AsType[*ContextFileError](err)
	if !ok || failed.Path != filepath.Join(dir, "sub/.dockerignore") || !errors.Is(err, syscall.EISDIR) {
		t.Errorf("%v, want an error about .dockerignore", err)
	}
	checkLine(t, err)
}

func TestSentMetadata(t *testing.T) {
	dir := writeFiles(t, map[string]string{"commit/f": "1", "own/f": "1"})
	old := time.Unix(1_000_000_000, 5)
	for _, name := range []string{"commit/f", "own/f"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.Chtimes(file, old, old), chownIfRoot(file)); err != nil {
			t.Fatal(err)
		}
	}
	for name, keepsTime := range map[string]bool{"commit": true, "own": false} {
		files := &contextFiles{
			directories: map[string]string{mainContext: filepath.Join(dir, name)}, commitFiles: filepath.Join(dir, "commit"),
		}
		sent, err := send(t, files, fsutil.FilterOpt{})
		if err != nil || len(sent) != 1 {
			t.Fatalf("%v, %v", sent, err)
		}
		stat := sent["f"]
		if stat.Uid != 0 || stat.Gid != 0 || (stat.ModTime == old.UnixNano()) != keepsTime {
			t.Errorf("%s: %v", name, stat)
		}
	}
}

func chownIfRoot(file string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(file, 1, 1)
}

// The Dockerfile and the ignore files can be links to files outside of their directories.
func TestLinkedDockerfile(t *testing.T) { onBothVersions(t, testLinkedDockerfile) }

func testLinkedDockerfile(t *testing.T, _ *services, c *client.Client) {
	root := writeFiles(t, map[string]string{
		"common/Dockerfile": "FROM scratch\nCOPY . /\nCOPY --from=other . /other/", "common/ignore": "*\n!kept\n",
		"common/own": "ignored\n", "app/kept": "", "app/ignored": "", "app/more": "", "lib/kept": "", "lib/ignored": "",
	})
	writeLinks(t, root, map[string]string{
		"app/Dockerfile": "../common/Dockerfile", "app/.dockerignore": "../common/ignore",
		"lib/.dockerignore": filepath.Join(root, "common/ignore"),
		"app/Own":           "../common/Dockerfile", "app/Own.dockerignore": "../common/own",
	})
	for dockerfile, want := range map[string][]string{
		"Dockerfile": {"kept", "other/kept"},
		"Own":        {"kept", "more", "other/kept"},
	} {
		r := request(filepath.Join(root, "app"))
		r.Dockerfile = filepath.Join(root, "app", dockerfile)
		r.Contexts = map[string]string{"other": filepath.Join(root, "lib")}
		result, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		files := extract(t, result.Image)
		delete(files, "other")
		if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", dockerfile, got, want)
		}
	}
}

// An absolute path names a Dockerfile of this machine also for a context that the builder fetches.
func TestRemoteContextWithLocalDockerfile(t *testing.T) {
	onBothVersions(t, func(t *testing.T, w *services, c *client.Client) {
		r := request(writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY tracked.txt /local\n"}))
		r.Context = w.git.URL + "/repo.git#main"
		result, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		if files := extract(t, result.Image); string(files["local"].content) != "from git\n" {
			t.Errorf("%v", files)
		}
	})
}

func TestReadDockerfile(t *testing.T) {
	dir := writeFiles(t, map[string]string{"small": "FROM a", "ignored": "FROM a", "ignored.dockerignore/x": ""})
	large := filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(large, nil, 0o644), os.Truncate(large, maxDockerfile+1)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"small": "", "large": "larger than 16 MiB", "missing": "no such file", ".": "is a directory",
		"ignored": "ignored.dockerignore: is a directory",
	} {
		_, err := ReadDockerfile(filepath.Join(dir, name))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// Without root's rights, a directory must stay writable until its files are written.
func TestExtractAsNobody(t *testing.T) {
	const nobody = 65534
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, header := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o555}, {Name: "d/e/", Typeflag: tar.TypeDir, Mode: 0o500},
		{Name: "d/e/f", Typeflag: tar.TypeReg, Mode: 0o400},
	} {
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_ = errors.Join(os.Chmod(filepath.Join(dir, "d"), 0o700), os.Chmod(filepath.Join(dir, "d/e"), 0o700))
	})
	for range 2 { // the second time, the directories exist
		testdaemons.AsNobody(t, func() { err = extractArchive(root, bytes.NewReader(archive.Bytes())) })
		if err != nil {
			t.Error(err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "d/e")); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("%v, %v", info, err)
	}
}
