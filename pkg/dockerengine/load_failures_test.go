package dockerengine

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
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

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/org/sandbox-actions/pkg/humanize"
)

func TestLoadOnFullDisk(t *testing.T) {
	large := static.NewLayer(tarOf("zeros", make([]byte, 48<<20)), types.OCIUncompressedLayer)
	zeros, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(tarOf("zeros", make([]byte, 48<<20)))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, layer := range map[string]v1.Layer{"archive too large": large, "unpacked layer too large": zeros} {
		for _, kind := range kinds {
			t.Run(name+" "+kind, func(t *testing.T) {
				dir := testdaemons.SmallDisk(t, "32m")
				started, err := engine.Start(t.Context(), kind, filepath.Join(dir, "engine"), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer started.Stop()
				e := openHost(t, started.Host)
				_, err = e.Load(t.Context(), "big:ci", newImage(t, "big", layer))
				if err == nil || !strings.Contains(err.Error(), "no space left on device (free disk space") {
					t.Errorf("got %v", err)
				}
				if id, err := e.ImageID(t.Context(), "big:ci"); id != "" || err != nil {
					t.Error(id, err)
				}
			})
		}
	}
}

var megabytes = flag.Int64("megabytes", 200, "size in MB of the image in TestLoadStreams")

func TestLoadStreams(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		layer := newNoise(t, *megabytes<<20)
		img := newImage(t, "large", layer)
		removeImage(t, e, "large:ci")
		runtime.GC()
		heap := func() uint64 {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return stats.HeapAlloc
		}
		before, most, next := heap(), uint64(0), int64(0)
		e.Progress = func(p humanize.Transfer) {
			if p.Done >= next {
				most, next = max(most, heap()), p.Done+8<<20
			}
		}
		loaded, err := e.Load(t.Context(), "large:ci", img)
		if err != nil || loaded.Sent < *megabytes<<20 {
			t.Errorf("got %+v, %v", loaded, err)
		}
		if most > before+20<<20 {
			t.Errorf("loading %d MB took %d MB of memory", *megabytes, (most-before)>>20)
		}
	})
}

// noise is an uncompressed layer with one large file of noise that is generated on the fly.
type noise struct {
	v1.Layer // nil: Load calls only the methods below
	file     int64
	hash     v1.Hash
	size     int64
}

func newNoise(t testing.TB, file int64) *noise {
	t.Helper()
	l := &noise{file: file}
	from, err := l.Compressed()
	if err == nil {
		l.hash, l.size, err = v1.SHA256(from)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *noise) Digest() (v1.Hash, error)            { return l.hash, nil }
func (l *noise) DiffID() (v1.Hash, error)            { return l.hash, nil }
func (l *noise) Size() (int64, error)                { return l.size, nil }
func (l *noise) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
func (l *noise) Compressed() (io.ReadCloser, error) {
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: l.file}); err != nil {
		return nil, err
	}
	end := make([]byte, -l.file&511+1024) // padding of the last block, and the end of the archive
	random := rand.NewChaCha8([32]byte{})
	return io.NopCloser(io.MultiReader(&header, io.LimitReader(random, l.file), bytes.NewReader(end))), nil
}

// Engines reject an archive without a layer that they do not have. Load then sends the whole archive.
func TestLoadResendsAfterWrongGuess(t *testing.T) {
	for _, architecture := range []string{"amd64", "arm64"} {
		t.Run(architecture, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, kind string, e *Engine) {
				img := newImage(t, "whole", randomLayer(t))
				config := must(img.ConfigFile()).DeepCopy()
				config.Architecture = architecture
				a := must(newArchive(must(mutate.ConfigFile(img, config)), true))
				before := countImages(t, e)
				guess := map[v1.Hash]bool{a.digests[0]: true}
				err := e.streamArchive(t.Context(), a, a.missingLayers(guess))
				rejected := new(engineError)
				if err != nil && !errors.As(err, &rejected) {
					t.Errorf("got %v, want an engine error or none", err)
				}
				if id := e.completeImage(t.Context(), a); id != "" {
					t.Errorf("completeImage returned %s for an incomplete image", id)
				}
				if err := e.removePartial(t.Context(), a, errIncomplete); err != errIncomplete {
					t.Error(err)
				}
				if after := countImages(t, e); after != before {
					t.Errorf("the number of images went from %d to %d", before, after)
				}

				sent, id, err := e.loadMissing(t.Context(), a, guess)
				if err != nil || len(sent) != len(a.layers) || id == "" {
					t.Errorf("%d layers sent, %q, %v", len(sent), id, err)
				}
				removeImage(t, e, "guess:ci")
				if err := e.tagImage(t.Context(), id, "guess:ci"); err != nil {
					t.Error(err)
				}
				if architecture == "amd64" {
					if got := outputOf(t, e, "guess:ci"); got != "hello whole" {
						t.Error(got)
					}
				}
				if after := countImages(t, e); after != before+1 {
					t.Errorf("the number of images went from %d to %d", before, after)
				}
			})
		})
	}
}

// On the current engine, docker load leaves behind a tagged incomplete image.
func TestLoadRepairsIncompleteImage(t *testing.T) {
	onEachEngine(t, func(t *testing.T, kind string, e *Engine) {
		removeImage(t, e, "partial:ci")
		img := newImage(t, "whole", randomLayer(t))
		a, err := newArchive(img, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.streamArchive(t.Context(), a, a.layers[1:]); err == nil {
			t.Error("loading an archive without one of its layers succeeded")
		}
		if kind == engine.Current {
			tag := client.ImageTagOptions{Source: a.manifest.String(), Target: "partial:ci"}
			if _, err := e.client.ImageTag(t.Context(), tag); err != nil {
				t.Fatal(err)
			}
		}
		loaded, err := e.Load(t.Context(), "partial:ci", img)
		if err != nil || loaded.Sent == 0 {
			t.Errorf("got %+v, %v", loaded, err)
		}
		if got := outputOf(t, e, "partial:ci"); got != "hello whole" {
			t.Error(got)
		}
	})
}

func TestLoadWhenEngineStops(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			needEngine(t)
			started, err := engine.Start(t.Context(), kind, t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer started.Stop()
			e := openHost(t, started.Host)
			dying := openerImage{newImage(t, "dying"), func(l v1.Layer) (io.ReadCloser, error) {
				if err := started.Stop(); err != nil {
					t.Error(err)
				}
				return l.Compressed()
			}}
			_, err = e.Load(t.Context(), "dying:ci", dying)
			if err == nil || !strings.Contains(err.Error(), "load dying:ci into the Docker Engine at "+started.Host) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An engine that cannot read zstd receives the content of the layers, and nothing remains of the temporary files.
func TestLoadZstd(t *testing.T) {
	content := tarOf("file", bytes.Repeat([]byte("content"), 1<<18))
	broken := errors.New("builder unavailable")
	for _, test := range []struct {
		name    string
		data    []byte
		source  func(v1.Layer) (io.ReadCloser, error) // nil: the layer's own
		tempDir string                                // "": a directory of the test
		oldest  string                                // error of the oldest engine
		current bool                                  // whether the current engine fails, too
	}{
		{name: "layer", data: zstdOf(t, content)},
		{name: "several frames", data: append(zstdOf(t, content[:1000]), zstdOf(t, content[1000:])...)},
		{name: "truncated", data: zstdOf(t, content)[:100], oldest: "unpack layer sha256:", current: true},
		{name: "not zstd", data: content[:1024], oldest: "unpack layer sha256:", current: true},
		{
			name: "content of another layer", data: zstdOf(t, tarOf("other", nil)), oldest: "digest mismatch", current: true,
		},
		{
			name: "source fails", data: zstdOf(t, content), oldest: broken.Error(), current: true,
			source: func(v1.Layer) (io.ReadCloser, error) { return nil, broken },
		},
		{name: "no temporary directory", data: zstdOf(t, content), tempDir: "/missing", oldest: "create a temporary file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			withEachMethod(t, func(t *testing.T, kind string, e *Engine) {
				removeImage(t, e, "zstd:ci")
				layer := zstdLayer(t, test.data, content)
				if test.source != nil {
					layer = openerLayer{layer, test.source}
				}
				e.TempDir = cmp.Or(test.tempDir, t.TempDir())
				_, err := e.Load(t.Context(), "zstd:ci", newImage(t, "zstd", layer))
				if kind == engine.Oldest && test.oldest != "" || test.current {
					if err == nil || kind == engine.Oldest && !strings.Contains(err.Error(), test.oldest) {
						t.Errorf("got %v, want %q", err, test.oldest)
					}
				} else if err != nil {
					t.Error(err)
				} else if got := outputOf(t, e, "zstd:ci"); got != "hello zstd" {
					t.Error(got)
				}
				if left, err := os.ReadDir(e.TempDir); test.tempDir == "" && (err != nil || len(left) > 0) {
					t.Errorf("temporary files are left: %v, %v", left, err)
				}
			})
		})
	}
}

func zstdOf(t *testing.T, content []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return encoder.EncodeAll(content, nil)
}

// zstdLayer returns a layer with the given data and the diff ID of content.
func zstdLayer(t *testing.T, data, content []byte) v1.Layer {
	t.Helper()
	diffID, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return diffIDLayer{static.NewLayer(data, types.OCILayerZStd), diffID}
}

type diffIDLayer struct {
	v1.Layer
	diffID v1.Hash
}

func (l diffIDLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// needEngine skips tests that start their own engines under -short.
func needEngine(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker Engine; run without -short")
	}
}
