package dockerengine

import (
	"archive/tar"
	"bytes"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

func TestLoadOnAFullDisk(t *testing.T) {
	large := static.NewLayer(archiveOf("zeros", make([]byte, 48<<20)), types.OCIUncompressedLayer)
	zeros, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archiveOf("zeros", make([]byte, 48<<20)))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, layer := range map[string]v1.Layer{"by the archive": large, "by what it unpacks to": zeros} {
		for kind := range engines {
			t.Run(name+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(dir, unix.MNT_DETACH)
				started, err := engine.Start(t.Context(), kind, filepath.Join(dir, "engine"), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer started.Stop()
				e := openHost(t, started.Host)
				err = e.Load(t.Context(), "big:ci", image(t, "big", layer))
				if err == nil || !strings.Contains(err.Error(), "no space left on device: free some of the engine's disk") {
					t.Errorf("%v", err)
				}
				if id, err := e.ImageID(t.Context(), "big:ci"); id != "" || err != nil {
					t.Error(id, err)
				}
			})
		}
	}
}

func TestLoadNeedsLittleMemory(t *testing.T) {
	layer := static.NewLayer(archiveOf("zeros", make([]byte, 100<<20)), types.OCIUncompressedLayer)
	onBoth(t, func(t *testing.T, e *Engine) {
		img := image(t, "large", layer)
		remove(t, e, "large:ci")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := e.Load(t.Context(), "large:ci", img); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("loading 100 MB took %d MB of memory", used>>20)
		}
	})
}

// An image whose name is there and whose layers are not is what a broken load leaves: the current engine keeps it.
func TestLoadRepairs(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		remove(t, e, "partial:ci")
		name, err := reference.ParseNormalizedNamed("partial:ci")
		if err != nil {
			t.Fatal(err)
		}
		layer, err := random.Layer(1000, types.OCILayer) // one that no other image has
		if err != nil {
			t.Fatal(err)
		}
		img := image(t, "whole", layer)
		a, err := newArchive(name.(reference.NamedTagged), img)
		if err != nil {
			t.Fatal(err)
		}
		a.files = slices.Delete(a.files, len(a.files)-2, len(a.files)-1)
		if err := e.send(t.Context(), a); err == nil {
			t.Error("an archive without its layer loaded")
		}
		if id := e.has(t.Context(), a); id != "" {
			t.Errorf("half of %s is taken for the whole", id)
		}
		if err := e.Load(t.Context(), "partial:ci", img); err != nil {
			t.Fatal(err)
		}
		if got := prints(t, e, "partial:ci"); got != "hello whole" {
			t.Error(got)
		}
	})
}

func TestLoadWhenTheEngineDies(t *testing.T) {
	for kind := range engines {
		t.Run(kind, func(t *testing.T) {
			started, err := engine.Start(t.Context(), kind, t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer started.Stop()
			e := openHost(t, started.Host)
			dying := changed{image(t, "dying"), func(l v1.Layer) (io.ReadCloser, error) {
				if err := started.Stop(); err != nil {
					t.Error(err)
				}
				return l.Compressed()
			}}
			err = e.Load(t.Context(), "dying:ci", dying)
			if err == nil || !strings.Contains(err.Error(), "load dying:ci into the Docker Engine at "+started.Host) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestLoadZstd(t *testing.T) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	z.Write(archiveOf("file", []byte("content")))
	z.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{
		engine.Current: "",
		engine.Oldest:  "layers compressed with zstd, which this engine (API 1.41) does not read: update it to 23",
	} {
		t.Run(kind, func(t *testing.T) {
			e := openHost(t, engines[kind])
			remove(t, e, "zstd:ci")
			err := e.Load(t.Context(), "zstd:ci", image(t, "zstd", layer))
			switch {
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%v, want %q", err, want)
			case want == "" && err != nil:
				t.Error(err)
			case want == "" && prints(t, e, "zstd:ci") != "hello zstd":
				t.Error("it does not run")
			}
		})
	}
}

func archiveOf(name string, content []byte) []byte {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	out.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))})
	out.Write(content)
	out.Close()
	return b.Bytes()
}
