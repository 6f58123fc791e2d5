package imagecontent

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestHashContext(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	writeFiles(t, dir, map[string]string{
		"a": "hello\n", "sub/b": "hello\n", "sub/c": "", "ignored/d": "1", "own": "1", ".dockerignore": "ignored\n",
	})
	if err := errors.Join(
		os.Chmod(path("sub/b"), 0o755), os.Symlink("a", path("link")), os.Symlink("nowhere", path("broken")),
		os.Link(path("a"), path("hard")), syscall.Mkfifo(path("pipe"), 0o600), os.Chmod(path("own"), 0o600),
		os.WriteFile(path("x\ny"), nil, 0o644), os.Mkdir(path("empty"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	const hello, empty = "ce013625030ba8dba906f756967f9e9ca394464a", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" // of git
	all := map[string]string{
		"a": "100644 " + hello, "hard": "100644 " + hello, "sub/b": "100755 " + hello, "sub/c": "100644 " + empty,
		"link": "120000 " + blobID([]byte("a")), "broken": "120000 " + blobID([]byte("nowhere")),
		"own": "100600 " + blobID(
			[]byte("1"),
		), `x\ny`: "100644 " + empty, ".dockerignore": "100644 " + blobID([]byte("ignored\n")),
	}
	with := func(changes map[string]string) map[string]string {
		result := maps.Clone(all)
		for name, hash := range changes {
			result[name] = hash
			if hash == "-" {
				delete(result, name)
			}
		}
		return result
	}
	for _, test := range []struct {
		name   string
		ignore []byte
		known  func(string, int64) string
		limits ContextLimits
		want   map[string]string
	}{
		{name: "ignore file of the context", want: all},
		{name: "ignore file of the Dockerfile", ignore: []byte("sub\n!sub/c\n"), want: with(map[string]string{
			"sub/b": "-", "ignored/d": "100644 " + blobID([]byte("1")),
		})},
		{name: "known IDs", known: func(name string, size int64) string {
			if name == "sub/b" && size == 6 {
				return "known"
			}
			return ""
		}, want: with(map[string]string{"sub/b": "100755 known"})},
		{name: "bytes", limits: ContextLimits{Bytes: 8 + 6}, want: with(map[string]string{
			"own": "", "sub/b": "",
		})},
		{name: "too many files", limits: ContextLimits{Walk: 5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := HashContext(t.Context(), dir, test.ignore, test.known, test.limits)
			if err != nil || !maps.Equal(got, test.want) {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
	folded, err := HashContext(t.Context(), dir, nil, nil, ContextLimits{Files: 3})
	if names := slices.Sorted(maps.Keys(folded)); err != nil || !slices.Contains(names, "sub/") ||
		slices.Contains(names, "sub/b") {
		t.Errorf("folded: %q (%v)", names, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("canceled by the test")
	cancel(cause)
	if _, err := HashContext(ctx, dir, nil, nil, ContextLimits{}); !errors.Is(err, cause) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := HashContext(t.Context(), dir, []byte("[\n"), nil, ContextLimits{}); err == nil ||
		!strings.Contains(err.Error(), "build context") {
		t.Errorf("invalid ignore file: %v", err)
	}
}
