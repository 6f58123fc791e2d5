package dockerengine

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// engines are the two that every test runs on, by kind: their hosts.
var engines = map[string]string{}

// program is the layer of testdata/probe, a static program.
var program v1.Layer

func TestMain(m *testing.M) {
	if host := os.Getenv("ENGINE_TEST_OWNER_OF"); host != "" {
		makeAndWait(host)
	}
	if flag.Parse(); flag.Lookup("test.fuzz").Value.String() != "" { // which needs no engine, in none of its processes
		os.Exit(m.Run())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "engines-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, kind := range []string{engine.Current, engine.Oldest} {
		started, err := engine.Start(context.Background(), kind, filepath.Join(dir, kind), nil)
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			return 1
		}
		defer started.Stop()
		engines[kind] = started.Host
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "probe"), "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	probe, err := os.ReadFile(filepath.Join(dir, "probe"))
	if err != nil {
		panic(err)
	}
	program = static.NewLayer(archiveOf("probe", probe), types.OCIUncompressedLayer)
	return m.Run()
}

// onBoth runs a test on each engine.
func onBoth(t *testing.T, test func(t *testing.T, e *Engine)) {
	for _, kind := range slices.Sorted(maps.Keys(engines)) {
		t.Run(kind, func(t *testing.T) { test(t, openHost(t, engines[kind])) })
	}
}

// everyWay runs a test on each engine, and on the one that pulls also with archives.
func everyWay(t *testing.T, test func(t *testing.T, e *Engine)) {
	onBoth(t, test)
	t.Run("current by archive", func(t *testing.T) {
		e := openHost(t, engines[engine.Current])
		e.archiveOnly = true
		test(t, e)
	})
}

func openHost(t testing.TB, host string) *Engine {
	t.Helper()
	e, err := Open(t.Context(), env(map[string]string{"DOCKER_HOST": host, "HOME": t.TempDir()}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func remove(t testing.TB, e *Engine, name string) {
	t.Helper()
	t.Cleanup(func() {
		_, _ = e.client.ImageRemove(context.Background(), name, client.ImageRemoveOptions{Force: true, PruneChildren: true})
	})
}

// image is one that prints "hello WORD", with the given layers under the program's, and one that no other image has.
func image(t *testing.T, word string, below ...v1.Layer) v1.Image {
	t.Helper()
	unique, err := random.Layer(1000, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, slices.Concat(below, []v1.Layer{program, unique})...)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, withConfig(t, img, word))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func withConfig(t *testing.T, img v1.Image, word string) *v1.ConfigFile {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Entrypoint, config.Config.Cmd = []string{"/probe"}, []string{"hello", word}
	return config
}

// prints is what a container of the image prints.
func prints(t *testing.T, e *Engine, name string) string {
	t.Helper()
	c := create(t, e, ContainerSpec{Image: name})
	var out bytes.Buffer
	if exit, err := c.Run(t.Context(), Streams{Out: &out, Err: &out}); err != nil || exit != 0 {
		t.Fatalf("%s: exit %d, %v: %s", name, exit, err, &out)
	}
	return strings.TrimSpace(out.String())
}

// counted counts the bytes that are read from an image's layers.
func counted(img v1.Image, read *atomic.Int64) v1.Image {
	return changed{Image: img, open: func(l v1.Layer) (io.ReadCloser, error) {
		from, err := l.Compressed()
		return struct {
			io.Reader
			io.Closer
		}{io.TeeReader(from, counter{read}), from}, err
	}}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// changed is an image whose layers are opened by open.
type changed struct {
	v1.Image
	open func(v1.Layer) (io.ReadCloser, error)
}

func (c changed) Layers() ([]v1.Layer, error) {
	layers, err := c.Image.Layers()
	for i, l := range layers {
		layers[i] = changedLayer{l, c.open}
	}
	return layers, err
}

type changedLayer struct {
	v1.Layer
	open func(v1.Layer) (io.ReadCloser, error)
}

func (c changedLayer) Compressed() (io.ReadCloser, error) { return c.open(c.Layer) }

func TestPlatform(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		if got, err := e.Platform(t.Context()); err != nil || got != "linux/amd64" {
			t.Errorf("%q, %v", got, err)
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
		{name: "a name without a tag", image: "plain", media: types.DockerManifestSchema2},
		{name: "a tag", image: "sandbox:ci", media: types.DockerManifestSchema2, below: []v1.Layer{shared}},
		{name: "OCI media types", image: "sandbox:oci", media: types.OCIManifestSchema1, below: []v1.Layer{shared}},
		{name: "a registry's name", image: "registry.example:5000/team/sandbox:v1", media: types.OCIManifestSchema1},
		{name: "equal layers", image: "sandbox:twice", media: types.OCIManifestSchema1, below: []v1.Layer{shared, shared}},
	} {
		t.Run(test.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, e *Engine) {
				remove(t, e, test.image)
				img := mutate.MediaType(image(t, test.name, test.below...), test.media)
				if test.media == types.OCIManifestSchema1 {
					img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
				}
				var read atomic.Int64
				done := map[string]int64{}
				e.Progress = func(l Layer) {
					if l.Sent < done[l.Digest] || l.Sent > l.Size || l.Number > l.Count {
						t.Errorf("from %d to %+v", done[l.Digest], l)
					}
					done[l.Digest] = l.Sent
				}
				loaded, err := e.Load(t.Context(), test.image, counted(img, &read))
				if err != nil {
					t.Fatal(err)
				}
				shown := int64(0)
				for _, sent := range done {
					shown += sent
				}
				if shown != read.Load() || loaded.Sent != read.Load() || read.Load() == 0 {
					t.Errorf("%d bytes of layers were read, %d shown, %d said", read.Load(), shown, loaded.Sent)
				}
				checkID(t, e, test.image, loaded, img)
				if got, want := prints(t, e, test.image), "hello "+test.name; got != want {
					t.Errorf("it prints %q, want %q", got, want)
				}

				// Again, and under another name: nothing is sent.
				read.Store(0)
				for _, name := range []string{test.image, "other:name"} {
					remove(t, e, name)
					loaded, err := e.Load(t.Context(), name, counted(img, &read))
					if err != nil || loaded.Sent != 0 || loaded.Held != loaded.Layers {
						t.Errorf("%+v, %v", loaded, err)
					}
					checkID(t, e, name, loaded, img)
					if got, want := prints(t, e, name), "hello "+test.name; got != want {
						t.Errorf("%s prints %q, want %q", name, got, want)
					}
				}
				if read.Load() != 0 {
					t.Errorf("%d bytes of layers were read again", read.Load())
				}
			})
		})
	}
}

// checkID looks whether the name is the image's, by the id that the engine's store uses.
func checkID(t *testing.T, e *Engine, name string, loaded Loaded, img v1.Image) {
	t.Helper()
	want, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Config != want.String() {
		t.Errorf("%+v, want the config %s", loaded, want)
	}
	if e.Host == engines[engine.Current] {
		if want, err = img.Digest(); err != nil {
			t.Fatal(err)
		}
	}
	if id, err := e.ImageID(t.Context(), name); err != nil || id != want.String() || loaded.ID != id {
		t.Errorf("%s is %s, said to be %s, want %s (%v)", name, id, loaded.ID, want, err)
	}
	if names := must(e.client.ImageInspect(t.Context(), name)); strings.Contains(fmt.Sprint(names.RepoTags, names.RepoDigests), "127.0.0.1") {
		t.Errorf("it has names left: %q, %q", names.RepoTags, names.RepoDigests)
	}
}

func TestLoadSendsWhatIsLacking(t *testing.T) {
	layers := make([]v1.Layer, 5)
	for i := range layers {
		layers[i] = layerOf(t, types.OCILayer)
	}
	other := layerOf(t, types.OCILayer)
	for _, test := range []struct {
		name            string
		below           []v1.Layer
		current, oldest int // how many of them are sent, to an engine that has all five
	}{
		{"all the same", layers, 0, 0},
		{"one more on top", append(layers[:5:5], other), 1, 1},
		{"the last one changed", append(layers[:4:4], other), 1, 1},
		{"the first one changed", append([]v1.Layer{other}, layers[1:]...), 1, 5},
		{"fewer", layers[:2], 0, 0},
		{"one twice", append(layers[:5:5], layers[0]), 0, 1},
		{"in another order", []v1.Layer{layers[0], layers[2], layers[1]}, 0, 2},
		{"none", nil, 0, 0},
		{"the same, compressed otherwise", otherwise(t, layers), 5, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, e *Engine) {
				remove(t, e, "lacking:ci")
				img, err := mutate.AppendLayers(empty.Image, layers...)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := e.Load(t.Context(), "lacking:ci", img); err != nil {
					t.Fatal(err)
				}
				want := map[string]int{engines[engine.Current]: test.current, engines[engine.Oldest]: test.oldest}[e.Host]
				var mu sync.Mutex // an engine may pull several layers at a time
				opened := map[v1.Hash]bool{}
				img = changed{image(t, "lacking", test.below...), func(l v1.Layer) (io.ReadCloser, error) {
					digest, err := l.Digest()
					if err != nil {
						return nil, err
					}
					mu.Lock()
					defer mu.Unlock()
					opened[digest] = true
					return l.Compressed()
				}}
				before := images(t, e)
				loaded, err := e.Load(t.Context(), "lacking:ci", img)
				if err != nil {
					t.Fatal(err)
				}
				if got := loaded.Layers - loaded.Held; got != len(opened) {
					t.Errorf("%d layers were read, %d said", len(opened), got)
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
				if got := prints(t, e, "lacking:ci"); got != "hello lacking" {
					t.Error(got)
				}
				// The name has moved: what it named before is there without one.
				if after := images(t, e); after > before+1 {
					t.Errorf("%d images became %d", before, after)
				}
			})
		})
	}
}

func layerOf(t *testing.T, media types.MediaType) v1.Layer {
	t.Helper()
	layer, err := random.Layer(10_000, media)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// otherwise are the same layers, uncompressed.
func otherwise(t *testing.T, layers []v1.Layer) (list []v1.Layer) {
	t.Helper()
	for _, layer := range layers {
		from, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, static.NewLayer(content, types.OCIUncompressedLayer))
	}
	return list
}

func images(t *testing.T, e *Engine) int {
	t.Helper()
	list, err := e.client.ImageList(t.Context(), client.ImageListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

func TestLoadThatFailsLeavesTheName(t *testing.T) {
	for _, test := range []struct {
		name, want string
		open       func(v1.Layer) (io.ReadCloser, error)
	}{
		{"a layer that can not be opened", "the builder is gone", func(v1.Layer) (io.ReadCloser, error) {
			return nil, errors.New("the builder is gone")
		}},
		{"a layer that breaks off with an error", "the connection broke", func(l v1.Layer) (io.ReadCloser, error) {
			from, err := l.Compressed()
			return io.NopCloser(io.MultiReader(io.LimitReader(from, 1000), broken{})), err
		}},
		{"a truncated layer", "ends after 1000 of", func(l v1.Layer) (io.ReadCloser, error) {
			from, err := l.Compressed()
			return io.NopCloser(io.LimitReader(from, 1000)), err
		}},
		{"a longer layer", "is longer than the", func(l v1.Layer) (io.ReadCloser, error) {
			from, err := l.Compressed()
			return io.NopCloser(io.MultiReader(from, strings.NewReader("more"))), err
		}},
		{"another layer of the same length", "is not what its digest says", func(l v1.Layer) (io.ReadCloser, error) {
			size, err := l.Size()
			return io.NopCloser(bytes.NewReader(valid(size))), err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, e *Engine) {
				// Nothing of that name yet, and then an image that must stay.
				check := func(want string) {
					t.Helper()
					bad := changed{image(t, "bad"), test.open} // another each time: what came through whole is kept
					_, err := e.Load(t.Context(), "failing:ci", bad)
					if err == nil || !strings.Contains(err.Error(), test.want) {
						t.Errorf("%v, want %q", err, test.want)
					}
					if id, err := e.ImageID(t.Context(), "failing:ci"); err != nil || id != want {
						t.Errorf("the name is %q, want %q (%v)", id, want, err)
					}
				}
				check("")
				remove(t, e, "failing:ci")
				if _, err := e.Load(t.Context(), "failing:ci", image(t, "good")); err != nil {
					t.Fatal(err)
				}
				id, err := e.ImageID(t.Context(), "failing:ci")
				if err != nil || id == "" {
					t.Fatal(id, err)
				}
				check(id)
				if got := prints(t, e, "failing:ci"); got != "hello good" {
					t.Errorf("it prints %q", got)
				}
			})
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection broke") }

// valid is a gzip stream of an empty archive, padded to a length.
func valid(size int64) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 1024))
	z.Close()
	return append(b.Bytes(), make([]byte, int(size)-b.Len())...)
}

func TestLoadRefuses(t *testing.T) {
	streamed, err := mutate.AppendLayers(empty.Image, stream.NewLayer(io.NopCloser(strings.NewReader(""))))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, image, want string
		img               v1.Image
	}{
		{"no name", "", "not an image's name", empty.Image},
		{"upper case", "Sandbox:ci", "not an image's name", empty.Image},
		{"a digest", "sandbox@sha256:" + strings.Repeat("0", 64), "only a registry can name an image by its digest", empty.Image},
		{"no manifest yet", "sandbox:ci", "read the image's manifest", streamed},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, e *Engine) {
				_, err := e.Load(t.Context(), test.image, test.img)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q", err, test.want)
				}
			})
		})
	}
}

func TestLoadEndsWhenNothingMoves(t *testing.T) {
	everyWay(t, func(t *testing.T, e *Engine) {
		stuck := changed{image(t, "stuck"), func(v1.Layer) (io.ReadCloser, error) {
			reader, _ := io.Pipe()
			return reader, nil
		}}
		e.silence = 200 * time.Millisecond
		_, err := e.Load(t.Context(), "stuck:ci", stuck)
		if err == nil || !strings.Contains(err.Error(), "the builder that holds the image has been silent for 200ms") {
			t.Error(err)
		}
		e.silence = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := e.Load(ctx, "stuck:ci", stuck); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
			t.Error(time.Since(began), err)
		}
		if id, err := e.ImageID(t.Context(), "stuck:ci"); id != "" || err != nil {
			t.Error(id, err)
		}
	})
}
