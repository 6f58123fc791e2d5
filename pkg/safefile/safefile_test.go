package safefile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	listener, err := net.Listen("unix", path("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := errors.Join(
		os.WriteFile(path("file"), []byte(strings.Repeat("x", 2048)), 0o600), os.WriteFile(path("empty"), nil, 0o600),
		os.Symlink("file", path("link")), os.Symlink("/dev/zero", path("zeros")), os.Symlink("loop", path("loop")),
		syscall.Mkfifo(path("pipe"), 0o600), os.Mkdir(path("directory"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		limit int64
		size  int // of the content; ignored with an error
		err   string
	}{
		{"file", 2048, 2048, ""},
		{"file", 4096, 2048, ""},
		{"link", 2048, 2048, ""},
		{"empty", 0, 0, ""},
		{"file", 1024, 0, "larger than 1 KiB"},
		{"pipe", 1024, 0, "not a regular file"},
		{"zeros", 1024, 0, "not a regular file"},
		{"socket", 1024, 0, "no such device or address"},
		{"directory", 1024, 0, "is a directory"},
		{"loop", 1024, 0, "too many levels of symbolic links"},
		{"missing", 1024, 0, "no such file or directory"},
	} {
		data, err := Read(path(test.name), test.limit)
		failed, ok := errors.AsType[*fs.PathError](err)
		switch {
		case test.err == "" && (err != nil || len(data) != test.size):
			t.Errorf("%s: %d bytes, %v", test.name, len(data), err)
		case test.err != "" && (!ok || failed.Err.Error() != test.err || data != nil):
			t.Errorf("%s: %d bytes, %v, want %s", test.name, len(data), err, test.err)
		}
	}
}
