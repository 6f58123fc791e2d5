package dockerengine

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// engines are the two that every test runs on, by kind: their hosts.
var engines = map[string]string{}

// probe is testdata/probe, a static program.
var probe []byte

func TestMain(m *testing.M) {
	if host := os.Getenv("ENGINE_TEST_OWNER_OF"); host != "" {
		makeAndWait(host)
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
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "probe"), "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	if probe, err = os.ReadFile(filepath.Join(dir, "probe")); err != nil {
		panic(err)
	}
	return m.Run()
}

// onBoth runs a test on each engine.
func onBoth(t *testing.T, test func(t *testing.T, e *Engine)) {
	for _, kind := range slices.Sorted(maps.Keys(engines)) {
		t.Run(kind, func(t *testing.T) { test(t, openHost(t, engines[kind])) })
	}
}

func openHost(t *testing.T, host string) *Engine {
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

func remove(t *testing.T, e *Engine, name string) {
	t.Cleanup(func() {
		_, _ = e.client.ImageRemove(context.Background(), name, client.ImageRemoveOptions{Force: true, PruneChildren: true})
	})
}

// image is one that prints "hello WORD", with the given layers under the program's.
func image(t *testing.T, word string, below ...v1.Layer) v1.Image {
	t.Helper()
	program, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archiveOf("probe", probe))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, append(below, program)...)
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
	out, err := exec.Command("docker", "--host", e.Host, "run", "--rm", "--network", "none", name).CombinedOutput()
	if err != nil {
		t.Fatalf("docker run (scripts/packages.sh installs it): %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
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
			onBoth(t, func(t *testing.T, e *Engine) {
				remove(t, e, test.image)
				img := mutate.MediaType(image(t, test.name, test.below...), test.media)
				if test.media == types.OCIManifestSchema1 {
					img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
				}
				var read atomic.Int64
				var last, total int64
				e.Progress = func(done, all int64) {
					if done < last || done > all {
						t.Errorf("progress went from %d to %d of %d", last, done, all)
					}
					last, total = done, all
				}
				if err := e.Load(t.Context(), test.image, counted(img, &read)); err != nil {
					t.Fatal(err)
				}
				if last != total || total < read.Load() || read.Load() == 0 {
					t.Errorf("progress ended at %d of %d, %d bytes of layers", last, total, read.Load())
				}
				if got, want := prints(t, e, test.image), "hello "+test.name; got != want {
					t.Errorf("it prints %q, want %q", got, want)
				}

				// Again, and under another name: nothing is sent.
				read.Store(0)
				for _, name := range []string{test.image, "other:name"} {
					remove(t, e, name)
					if err := e.Load(t.Context(), name, counted(img, &read)); err != nil {
						t.Fatal(err)
					}
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
			onBoth(t, func(t *testing.T, e *Engine) {
				// Nothing of that name yet, and then an image that must stay.
				bad := changed{image(t, "bad"), test.open}
				check := func(want string) {
					t.Helper()
					err := e.Load(t.Context(), "failing:ci", bad)
					if err == nil || !strings.Contains(err.Error(), test.want) {
						t.Errorf("%v, want %q", err, test.want)
					}
					if id, err := e.ImageID(t.Context(), "failing:ci"); err != nil || id != want {
						t.Errorf("the name is %q, want %q (%v)", id, want, err)
					}
				}
				check("")
				remove(t, e, "failing:ci")
				if err := e.Load(t.Context(), "failing:ci", image(t, "good")); err != nil {
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
				err := e.Load(t.Context(), test.image, test.img)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q", err, test.want)
				}
			})
		})
	}
}

func TestLoadEndsWhenNothingMoves(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		stuck := changed{image(t, "stuck"), func(v1.Layer) (io.ReadCloser, error) {
			reader, _ := io.Pipe()
			return reader, nil
		}}
		e.silence = 200 * time.Millisecond
		err := e.Load(t.Context(), "stuck:ci", stuck)
		if err == nil || !strings.Contains(err.Error(), "the builder that holds the image has been silent for 200ms") {
			t.Error(err)
		}
		e.silence = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := e.Load(ctx, "stuck:ci", stuck); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
			t.Error(time.Since(began), err)
		}
		if id, err := e.ImageID(t.Context(), "stuck:ci"); id != "" || err != nil {
			t.Error(id, err)
		}
	})
}
