package dockerengine

import (
	"archive/tar"
	"bytes"
	"flag"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/client"
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
				_, err = e.Load(t.Context(), "big:ci", image(t, "big", layer))
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

var megabytes = flag.Int64("megabytes", 200, "size of the image that TestLoadNeedsLittleMemory loads")

func TestLoadNeedsLittleMemory(t *testing.T) {
	layer := newEndless(t, *megabytes<<20)
	onBoth(t, func(t *testing.T, e *Engine) {
		img := image(t, "large", layer)
		remove(t, e, "large:ci")
		runtime.GC()
		heap := func() uint64 {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return stats.HeapAlloc
		}
		before, most, next := heap(), uint64(0), int64(0)
		e.Progress = func(l Layer) {
			if l.Sent >= next {
				most, next = max(most, heap()), l.Sent+8<<20
			}
		}
		loaded, err := e.Load(t.Context(), "large:ci", img)
		if err != nil || loaded.Sent < *megabytes<<20 {
			t.Errorf("%+v, %v", loaded, err)
		}
		if most > before+20<<20 {
			t.Errorf("loading %d MB took %d MB of memory", *megabytes, (most-before)>>20)
		}
	})
}

// endless is an uncompressed layer of one large file of noise, which is made while it is read.
type endless struct {
	v1.Layer // none: what is not below is not asked for
	file     int64
	hash     v1.Hash
	size     int64
}

func newEndless(t testing.TB, file int64) *endless {
	t.Helper()
	l := &endless{file: file}
	from, err := l.Compressed()
	if err == nil {
		l.hash, l.size, err = v1.SHA256(from)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *endless) Digest() (v1.Hash, error)            { return l.hash, nil }
func (l *endless) DiffID() (v1.Hash, error)            { return l.hash, nil }
func (l *endless) Size() (int64, error)                { return l.size, nil }
func (l *endless) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
func (l *endless) Compressed() (io.ReadCloser, error) {
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: l.file}); err != nil {
		return nil, err
	}
	end := make([]byte, -l.file&511+1024) // what fills the last block, and the end of an archive
	noise := rand.NewChaCha8([32]byte{})
	return io.NopCloser(io.MultiReader(&header, io.LimitReader(noise, l.file), bytes.NewReader(end))), nil
}

// An archive that leaves out a layer which the engine lacks: the whole follows. When that fails, nothing is left.
func TestLoadAfterAWrongGuess(t *testing.T) {
	for _, architecture := range []string{"amd64", "arm64"} {
		t.Run(architecture, func(t *testing.T) {
			onBoth(t, func(t *testing.T, e *Engine) {
				img := image(t, "whole", layerOf(t, types.OCILayer))
				config := must(img.ConfigFile()).DeepCopy()
				config.Architecture = architecture
				a := must(newArchive(must(mutate.ConfigFile(img, config))))
				before := images(t, e)
				guess := map[v1.Hash]bool{a.digests[0]: true}
				wrong := e.send(t.Context(), a, a.without(guess))
				if id := e.has(t.Context(), a); id != "" || wrong != nil && !wrongGuess(wrong) {
					t.Errorf("half of an image is taken for the whole %q: %v", id, wrong)
				}
				if err := e.discard(t.Context(), a, errNotWhole); err != errNotWhole {
					t.Error(err)
				}
				if after := images(t, e); after != before {
					t.Errorf("%d images became %d", before, after)
				}

				sent, id, err := e.sendLacking(t.Context(), a, guess)
				if err != nil || len(sent) != len(a.layers) || id == "" {
					t.Errorf("%d layers sent, %q, %v", len(sent), id, err)
				}
				remove(t, e, "guess:ci")
				var loaded Loaded
				if err := e.name(t.Context(), id, "guess:ci", &loaded); err != nil {
					t.Error(err)
				}
				if architecture == "amd64" {
					if got := prints(t, e, "guess:ci"); got != "hello whole" {
						t.Error(got)
					}
				}
				if after := images(t, e); after != before+1 {
					t.Errorf("%d images became %d", before, after)
				}
			})
		})
	}
}

// An image that is there by its name but not whole, as docker load leaves it on the current engine, is repaired.
func TestLoadRepairs(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		remove(t, e, "partial:ci")
		img := image(t, "whole", layerOf(t, types.OCILayer))
		a, err := newArchive(img)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.send(t.Context(), a, a.layers[1:]); err == nil {
			t.Error("an archive without its layer loaded")
		}
		if e.Host == engines[engine.Current] {
			if _, err := e.client.ImageTag(t.Context(), client.ImageTagOptions{Source: a.manifest.String(), Target: "partial:ci"}); err != nil {
				t.Fatal(err)
			}
		}
		loaded, err := e.Load(t.Context(), "partial:ci", img)
		if err != nil || loaded.Sent == 0 {
			t.Errorf("%+v, %v", loaded, err)
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
			_, err = e.Load(t.Context(), "dying:ci", dying)
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
			_, err := e.Load(t.Context(), "zstd:ci", image(t, "zstd", layer))
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
