package sandbox_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// unpackLayers writes each layer to a tar file and returns their paths, the lowest layer first.
func unpackLayers(t *testing.T, img v1.Image) (archives []string) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, layer := range layers {
		archives = append(archives, filepath.Join(dir, fmt.Sprintf("%02d.tar", i)))
		file, err := os.Create(archives[i])
		if err != nil {
			t.Fatal(err)
		}
		compressed, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		gunzip := exec.CommandContext(t.Context(), "gzip", "-dc") // faster than Go with -race
		gunzip.Stdin, gunzip.Stdout, gunzip.Stderr = compressed, file, t.Output()
		if err := errors.Join(gunzip.Run(), compressed.Close(), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return archives
}

// forEachFile calls each for every file of a tar.
func forEachFile(t *testing.T, archive string, each func(h *tar.Header, content io.Reader)) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	files := tar.NewReader(file)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		each(h, files)
	}
}

// difference describes how the files and the configs of two images differ.
func difference(t *testing.T, a, b v1.Image) string {
	t.Helper()
	list := func(img v1.Image) map[string]string {
		files := map[string]string{}
		for i, archive := range unpackLayers(t, img) {
			forEachFile(t, archive, func(h *tar.Header, content io.Reader) {
				sum := sha256.New()
				if _, err := io.Copy(sum, content); err != nil {
					t.Fatal(err)
				}
				files[fmt.Sprintf("layer %d %s", i, h.Name)] = fmt.Sprintf("%c %o %d:%d %s %d bytes %x -> %q %q",
					h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.UTC().Format("2006-01-02T15:04:05.999999999"),
					h.Size, sum.Sum(nil)[:6], h.Linkname, h.PAXRecords)
			})
		}
		return files
	}
	filesA, filesB := list(a), list(b)
	all := maps.Clone(filesA)
	maps.Copy(all, filesB)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if filesA[name] != filesB[name] {
			lines = append(lines, fmt.Sprintf("%s: %s | %s", name, filesA[name], filesB[name]))
		}
	}
	total := len(lines)
	configs := [2][]byte{}
	for i, img := range []v1.Image{a, b} {
		var err error
		if configs[i], err = img.RawConfigFile(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(configs[0], configs[1]) {
		lines = append(lines, fmt.Sprintf("config: %s | %s", configs[0], configs[1]))
	}
	return fmt.Sprintf("%d files differ\n%s", total, strings.Join(lines[max(0, len(lines)-40):], "\n"))
}
