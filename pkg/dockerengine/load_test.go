package dockerengine

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/pkg/humanize"
)

func TestPlatform(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		if got, err := e.Platform(t.Context()); err != nil || got != "linux/amd64" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestLoad(t *testing.T) {
	shared, err := random.Layer(1<<20, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, image string
		media       types.MediaType
		below       []v1.Layer
	}{
		{name: "name without a tag", image: "plain", media: types.DockerManifestSchema2},
		{name: "tag", image: "sandbox:ci", media: types.DockerManifestSchema2, below: []v1.Layer{shared}},
		{name: "OCI media types", image: "sandbox:oci", media: types.OCIManifestSchema1, below: []v1.Layer{shared}},
		{name: "registry's name", image: "registry.example:5000/team/sandbox:v1", media: types.OCIManifestSchema1},
		{name: "equal layers", image: "sandbox:twice", media: types.OCIManifestSchema1, below: []v1.Layer{shared, shared}},
	} {
		t.Run(test.name, func(t *testing.T) {
			withEachMethod(t, func(t *testing.T, kind string, e *Engine) {
				removeImage(t, e, test.image)
				img := mutate.MediaType(newImage(t, test.name, test.below...), test.media)
				if test.media == types.OCIManifestSchema1 {
					img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
				}
				var read atomic.Int64
				var progress humanize.Transfer
				e.Progress = func(now humanize.Transfer) {
					if now.Done < progress.Done || now.Done > now.Total || now.Number < 1 || now.Number > now.Layers {
						t.Errorf("progress from %+v to %+v", progress, now)
					}
					progress = now
				}
				loaded, err := e.Load(t.Context(), test.image, countReads(img, &read))
				if err != nil {
					t.Fatal(err)
				}
				layers := loaded.Layers - loaded.Existing
				if progress.Done != read.Load() || loaded.Sent != read.Load() || read.Load() == 0 ||
					progress.Total != progress.Done || progress.Number != layers || progress.Layers != layers {
					t.Errorf("%d bytes read, progress %+v, loaded %+v", read.Load(), progress, loaded)
				}
				checkID(t, kind, e, test.image, loaded, img)
				if got, want := outputOf(t, e, test.image), "hello "+test.name; got != want {
					t.Errorf("the container prints %q, want %q", got, want)
				}

				// Loading the image again, also under another name, sends nothing.
				read.Store(0)
				for _, name := range []string{test.image, "other:name"} {
					removeImage(t, e, name)
					loaded, err := e.Load(t.Context(), name, countReads(img, &read))
					if err != nil || loaded.Sent != 0 || loaded.Existing != loaded.Layers {
						t.Errorf("loaded %+v, %v", loaded, err)
					}
					checkID(t, kind, e, name, loaded, img)
					if got, want := outputOf(t, e, name), "hello "+test.name; got != want {
						t.Errorf("%s prints %q, want %q", name, got, want)
					}
				}
				if read.Load() != 0 {
					t.Errorf("%d bytes of layers were read again, want none", read.Load())
				}
			})
		})
	}
}

// checkID checks that the name refers to the image, with an ID in the format of the engine's image store.
func checkID(t *testing.T, kind string, e *Engine, name string, loaded Loaded, img v1.Image) {
	t.Helper()
	want, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Config != want.String() {
		t.Errorf("loaded %+v, want config %s", loaded, want)
	}
	if kind == engine.Current {
		if want, err = img.Digest(); err != nil {
			t.Fatal(err)
		}
	}
	if id, err := e.ImageID(t.Context(), name); err != nil || id != want.String() || loaded.ID != id {
		t.Errorf("%s is %s, reported as %s, want %s (%v)", name, id, loaded.ID, want, err)
	}
	names := must(e.client.ImageInspect(t.Context(), name))
	if strings.Contains(fmt.Sprint(names.RepoTags, names.RepoDigests), "127.0.0.1") {
		t.Errorf("temporary names are left: %q, %q", names.RepoTags, names.RepoDigests)
	}
}

func TestLoadSendsMissingLayers(t *testing.T) {
	layers := make([]v1.Layer, 5)
	for i := range layers {
		layers[i] = randomLayer(t)
	}
	other := randomLayer(t)
	for _, test := range []struct {
		name            string
		below           []v1.Layer
		current, oldest int // number of these layers sent to an engine that has all five
	}{
		{"identical layers", layers, 0, 0},
		{"new layer on top", append(layers[:5:5], other), 1, 1},
		{"top layer changed", append(layers[:4:4], other), 1, 1},
		{"bottom layer changed", append([]v1.Layer{other}, layers[1:]...), 1, 5},
		{"fewer layers", layers[:2], 0, 0},
		{"repeated layer", append(layers[:5:5], layers[0]), 0, 1},
		{"different order", []v1.Layer{layers[0], layers[2], layers[1]}, 0, 2},
		{"no layers", nil, 0, 0},
		{"uncompressed layers", uncompressed(t, layers...), 5, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			withEachMethod(t, func(t *testing.T, kind string, e *Engine) {
				removeImage(t, e, "missing:ci")
				img, err := mutate.AppendLayers(empty.Image, layers...)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := e.Load(t.Context(), "missing:ci", img); err != nil {
					t.Fatal(err)
				}
				want := map[string]int{engine.Current: test.current, engine.Oldest: test.oldest}[kind]
				var mu sync.Mutex // the engine may pull layers concurrently
				opened := map[v1.Hash]bool{}
				img = openerImage{newImage(t, "missing", test.below...), func(l v1.Layer) (io.ReadCloser, error) {
					digest, err := l.Digest()
					if err != nil {
						return nil, err
					}
					mu.Lock()
					defer mu.Unlock()
					opened[digest] = true
					return l.Compressed()
				}}
				before := countImages(t, e)
				loaded, err := e.Load(t.Context(), "missing:ci", img)
				if err != nil {
					t.Fatal(err)
				}
				if got := loaded.Layers - loaded.Existing; got != len(opened) {
					t.Errorf("%d layers were read, %d reported", len(opened), got)
				}
				got := 0
				for i, l := range test.below {
					if digest, err := l.Digest(); err != nil {
						t.Fatal(err)
					} else if opened[digest] && !slices.Contains(test.below[:i], l) {
						got++
					}
				}
				if got != want {
					t.Errorf("%d of the layers were sent, want %d", got, want)
				}
				if got := outputOf(t, e, "missing:ci"); got != "hello missing" {
					t.Error(got)
				}
				// The tag has moved, and the previously tagged image still exists.
				if after := countImages(t, e); after > before+1 {
					t.Errorf("the number of images went from %d to %d", before, after)
				}
			})
		})
	}
}

func TestFailedLoadKeepsTag(t *testing.T) {
	for _, test := range []struct {
		name, want string
		open       func(v1.Layer) (io.ReadCloser, error)
	}{
		{"layer cannot be opened", "builder unavailable", func(v1.Layer) (io.ReadCloser, error) {
			return nil, errors.New("builder unavailable")
		}},
		{"layer cannot be read", "connection reset", func(l v1.Layer) (io.ReadCloser, error) {
			from, err := l.Compressed()
			broken := iotest.ErrReader(errors.New("connection reset"))
			return io.NopCloser(io.MultiReader(io.LimitReader(from, 1000), broken)), err
		}},
		{"truncated layer", "truncated after 1000 of", func(l v1.Layer) (io.ReadCloser, error) {
			from, err := l.Compressed()
			return io.NopCloser(io.LimitReader(from, 1000)), err
		}},
		{"longer layer", "size exceeds the", func(l v1.Layer) (io.ReadCloser, error) {
			from, err := l.Compressed()
			return io.NopCloser(io.MultiReader(from, strings.NewReader("more"))), err
		}},
		{"different layer of the same size", "digest mismatch", func(l v1.Layer) (io.ReadCloser, error) {
			size, err := l.Size()
			return io.NopCloser(bytes.NewReader(emptyGzip(size))), err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			withEachMethod(t, func(t *testing.T, kind string, e *Engine) {
				failAndCheckTag := func(want string) {
					t.Helper()
					bad := openerImage{newImage(t, "bad"), test.open} // always new: the engine keeps complete layers
					_, err := e.Load(t.Context(), "failing:ci", bad)
					if err == nil || !strings.Contains(err.Error(), test.want) {
						t.Errorf("got %v, want %q", err, test.want)
					}
					if id, err := e.ImageID(t.Context(), "failing:ci"); err != nil || id != want {
						t.Errorf("the tag refers to %q, want %q (%v)", id, want, err)
					}
				}
				failAndCheckTag("")
				removeImage(t, e, "failing:ci")
				if _, err := e.Load(t.Context(), "failing:ci", newImage(t, "good")); err != nil {
					t.Fatal(err)
				}
				id, err := e.ImageID(t.Context(), "failing:ci")
				if err != nil || id == "" {
					t.Fatal(id, err)
				}
				failAndCheckTag(id)
				if got := outputOf(t, e, "failing:ci"); got != "hello good" {
					t.Errorf("the container prints %q", got)
				}
			})
		})
	}
}

// emptyGzip returns a gzip stream of an empty archive, padded to a size.
func emptyGzip(size int64) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 1024))
	z.Close()
	return append(b.Bytes(), make([]byte, int(size)-b.Len())...)
}

func TestLoadRejectsInvalidImages(t *testing.T) {
	streamed, err := mutate.AppendLayers(empty.Image, stream.NewLayer(io.NopCloser(strings.NewReader(""))))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, image, want string
		img               v1.Image
	}{
		{"no name", "", "invalid image name", empty.Image},
		{"upper case", "Sandbox:ci", "invalid image name", empty.Image},
		{"digest", "sandbox@sha256:" + strings.Repeat("0", 64), "a digest cannot be loaded", empty.Image},
		{"no manifest", "sandbox:ci", "read the image's manifest", streamed},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, kind string, e *Engine) {
				_, err := e.Load(t.Context(), test.image, test.img)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
			})
		})
	}
}

func TestLoadTimesOutWhenIdle(t *testing.T) {
	withEachMethod(t, func(t *testing.T, kind string, e *Engine) {
		stuck := openerImage{newImage(t, "stuck"), func(v1.Layer) (io.ReadCloser, error) {
			reader, _ := io.Pipe()
			return reader, nil
		}}
		e.idleTimeout = 5 * time.Second // the engine responds in that time
		_, err := e.Load(t.Context(), "stuck:ci", stuck)
		if idle := new(idleError); !errors.As(err, &idle) || idle.peer != peerSource || idle.timeout != e.idleTimeout {
			t.Errorf("got %v, want an idleError for the source", err)
		}
		e.idleTimeout = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := e.Load(ctx, "stuck:ci", stuck); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if id, err := e.ImageID(t.Context(), "stuck:ci"); id != "" || err != nil {
			t.Error(id, err)
		}
	})
}
