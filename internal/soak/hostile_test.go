//go:build linux

package soak

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
)

// maxMemory is the largest resident set, in KiB, that a program may have for hostile input.
const maxMemory = 400 << 10

// filesSuite has checks that read all files of an image.
const filesSuite = `tests:
  - name: files
    files:
      - { path: "/**/*.conf", absent: true }
      - { path: /etc/shadow, absent: true }
`

// Hostile input is refused with an error or has no effect, and uses bounded memory.
func TestHostile(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct {
		name  string
		layer func(w *tar.Writer) error
	}{
		{"a layer with paths outside of the root", func(w *tar.Writer) error {
			return writeEntries(w, file("../../soak-escaped", "x"), file("/../soak-escaped", "x"), file("a/../../../x", "x"))
		}},
		{"a layer with links out of the root", func(w *tar.Writer) error {
			return writeEntries(w, link("out", "../../../../../../tmp"), file("out/soak-escaped", "x"),
				hardlink("passwd", "../../../../etc/passwd"))
		}},
		{"a layer with a loop of links", func(w *tar.Writer) error {
			return writeEntries(w, link("a", "b"), link("b", "a"), link("self", "self/x"))
		}},
		{"a layer with devices", func(w *tar.Writer) error {
			return writeEntries(w,
				entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o666, Devmajor: 254}},
				entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o666}})
		}},
		{"a layer with many files", func(w *tar.Writer) error {
			n := 20_000
			if *full {
				n = 1_000_000
			}
			for i := range n {
				if err := writeEntries(w, file(fmt.Sprintf("d%d/f%d", i%1000, i), "")); err != nil {
					return err
				}
			}
			return nil
		}},
		{"a layer that unpacks to a large file", func(w *tar.Writer) error {
			size := int64(256 << 20)
			if *full {
				size = 4 << 30
			}
			if err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}); err != nil {
				return err
			}
			_, err := io.CopyN(w, zeros{}, size)
			return err
		}},
		{"a layer with long names", func(w *tar.Writer) error {
			return writeEntries(w, file(strings.Repeat("d/", 2000)+"f", "x"), file(strings.Repeat("n", 4000), "x"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := fmt.Sprintf("hostile-%d", l.runs.Load())
			if err := l.pushLayer(t.Context(), id, test.layer); err != nil {
				t.Fatal(err)
			}
			f := testFlow
			f.inputs = func(l *lab, _ string) map[string]string {
				return map[string]string{"image": l.pushed(id), "suite": "tests.yaml"}
			}
			f.files = map[string]string{"tests.yaml": filesSuite}
			f.check = func(context.Context, *lab, trial) error { return nil }
			l.tryHostile(t, test.name, f)
		})
	}
	for _, test := range []struct{ name, dockerfile string }{
		{"a step that prints workflow commands", fromDebian +
			"RUN echo '::set-output name=digest::x'; echo '::error::forged'; echo '::add-mask::a'; echo '##[error]forged'\n"},
		{"a step that prints escape sequences", fromDebian + "RUN printf '\\033]0;title\\007\\033[2J\\r\\b\\0'\n"},
		{"a step that prints 100 MB", fromDebian + "RUN head -c 100000000 /dev/zero | tr '\\0' x\n"},
		{"a step that prints a million lines", fromDebian + "RUN yes | head -n 1000000\n"},
		{"a Dockerfile of 10,000 instructions", "FROM scratch\n" + strings.Repeat("ENV A=b\n", 10_000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := flow{
				name: "build", program: "action-build", files: map[string]string{"Dockerfile": test.dockerfile},
				inputs: func(*lab, string) map[string]string {
					return map[string]string{"context": ".", "dockerfile": "Dockerfile", "load": "false", "no_cache": "true"}
				},
				check: func(context.Context, *lab, trial) error { return nil },
			}
			l.tryHostile(t, test.name, f)
		})
	}
}

func (l *lab) tryHostile(t *testing.T, name string, f flow) {
	t.Helper()
	var used atomic.Int64
	tried := l.try(t.Context(), f, func(pid int, _ *programs.Buffer) { go watchMemory(pid, &used) })
	tried.name = name
	if used.Load() == 0 || used.Load() > maxMemory {
		tried.fail("the program used %d KiB of memory", used.Load())
	}
	if _, err := os.Lstat(filepath.Join(os.TempDir(), "soak-escaped")); err == nil {
		tried.fail("the image wrote a file outside of its root")
	}
	if err := l.check(t.Context(), f, tried); err != nil {
		tried.fail("%w", err)
	}
	results.add(t, hostile, name, tried)
}

// watchMemory stores the largest resident set of a process, in KiB, until the process ends. The usage that wait reports
// includes that of the test before it started the program.
func watchMemory(pid int, used *atomic.Int64) {
	for ; ; time.Sleep(10 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, field, found := strings.Cut(string(status), "VmHWM:")
		if err != nil || !found { // it has ended
			return
		}
		if size, err := strconv.ParseInt(strings.Fields(field)[0], 10, 64); err == nil {
			used.Store(size)
		}
	}
}

// pushLayer pushes an image with one layer to the registry.
func (l *lab) pushLayer(ctx context.Context, tag string, write func(*tar.Writer) error) error {
	path := filepath.Join(l.temp, tag+".tar.gz")
	defer os.Remove(path)
	if err := writeLayer(path, write); err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(path)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	image, err = mutate.Config(image, v1.Config{Env: []string{"PATH=/bin"}})
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(l.Registry.Addr + "/team/app:" + tag)
	if err != nil {
		return err
	}
	auth := &authn.Basic{Username: localcloud.RegistryUser, Password: l.RegistryPassword}
	return remote.Write(ref, image, remote.WithAuth(auth), remote.WithContext(ctx))
}

// writeLayer writes a layer to a file.
func writeLayer(path string, write func(*tar.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	compressed, err := gzip.NewWriterLevel(file, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w := tar.NewWriter(compressed)
	if err := write(w); err != nil {
		return err
	}
	return errors.Join(w.Close(), compressed.Close())
}

// entry is an entry of a layer.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func link(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hardlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

func writeEntries(w *tar.Writer, entries ...entry) error {
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			return err
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			return err
		}
	}
	return nil
}

// zeros reads as endless zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
