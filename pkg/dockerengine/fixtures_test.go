package dockerengine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math"
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
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(ownerProcess); task != "" {
		runOwner(task)
	}
	flag.Parse()
	os.Exit(testdaemons.Run(m))
}

var kinds = []string{engine.Current, engine.Oldest}

// engineHost returns the address of an engine of the given kind. These tests count images and containers, so they do
// not share engines with other packages.
func engineHost(t testing.TB, kind string) string {
	t.Helper()
	return testdaemons.PrivateEngine(t, kind)
}

// onEachEngine runs a test on each kind of engine.
func onEachEngine(t *testing.T, test func(t *testing.T, kind string, e *Engine)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { test(t, kind, openHost(t, engineHost(t, kind))) })
	}
}

// withEachMethod runs a test on each kind of engine and, on the current engine, both with pulls and with archives.
func withEachMethod(t *testing.T, test func(t *testing.T, kind string, e *Engine)) {
	onEachEngine(t, test)
	t.Run("current by archive", func(t *testing.T) {
		e := openHost(t, engineHost(t, engine.Current))
		e.pullMinimum = math.MaxInt64
		test(t, engine.Current, e)
	})
}

func openHost(t testing.TB, host string) *Engine {
	t.Helper()
	e, err := Open(t.Context(), env(map[string]string{"DOCKER_HOST": host, "HOME": t.TempDir()}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	e.pullMinimum = 1 // tests use small layers
	return e
}

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// removeImage removes an image when the test ends.
func removeImage(t testing.TB, e *Engine, name string) {
	t.Helper()
	t.Cleanup(func() {
		options := client.ImageRemoveOptions{Force: true, PruneChildren: true}
		_, _ = e.client.ImageRemove(context.Background(), name, options)
	})
}

func countImages(t *testing.T, e *Engine) int {
	t.Helper()
	list, err := e.client.ImageList(t.Context(), client.ImageListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// probeLayer returns a layer with the static program testdata/probe.
var probeLayer = sync.OnceValues(func() (v1.Layer, error) {
	dir, err := os.MkdirTemp("", "probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	data, err := os.ReadFile(program)
	return static.NewLayer(tarOf("probe", data), types.OCIUncompressedLayer), err
})

// newImage returns an image that prints "hello WORD". Its layers are the given ones, the probe's layer and a unique
// layer.
func newImage(t *testing.T, word string, layers ...v1.Layer) v1.Image {
	t.Helper()
	probe, err := probeLayer()
	if err != nil {
		t.Fatal(err)
	}
	unique, err := random.Layer(1000, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, slices.Concat(layers, []v1.Layer{probe, unique})...)
	if err != nil {
		t.Fatal(err)
	}
	return withConfig(t, img, func(config *v1.ConfigFile) {
		config.OS, config.Architecture = "linux", "amd64"
		config.Config.Entrypoint, config.Config.Cmd = []string{"/probe"}, []string{"hello", word}
	})
}

// withConfig returns the image with a modified config.
func withConfig(t *testing.T, img v1.Image, change func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	change(config)
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func randomLayer(t *testing.T) v1.Layer {
	t.Helper()
	layer, err := random.Layer(10_000, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// uncompressed returns the layers without compression.
func uncompressed(t *testing.T, layers ...v1.Layer) (list []v1.Layer) {
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

func tarOf(name string, content []byte) []byte {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	out.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))})
	out.Write(content)
	out.Close()
	return b.Bytes()
}

// openerImage is an image that opens its layers with open.
type openerImage struct {
	v1.Image
	open func(v1.Layer) (io.ReadCloser, error)
}

func (i openerImage) Layers() ([]v1.Layer, error) {
	layers, err := i.Image.Layers()
	for n, l := range layers {
		layers[n] = openerLayer{l, i.open}
	}
	return layers, err
}

type openerLayer struct {
	v1.Layer
	open func(v1.Layer) (io.ReadCloser, error)
}

func (l openerLayer) Compressed() (io.ReadCloser, error) { return l.open(l.Layer) }

// countReads returns the image with layers that count the bytes read from them.
func countReads(img v1.Image, read *atomic.Int64) v1.Image {
	return openerImage{Image: img, open: func(l v1.Layer) (io.ReadCloser, error) {
		from, err := l.Compressed()
		return struct {
			io.Reader
			io.Closer
		}{io.TeeReader(from, counter{read}), from}, err
	}}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// outputOf runs a container of the image and returns its output. On a loaded machine, the engine discards output that
// it has not read 2 seconds after the end of a container (moby/moby v29, daemon/monitor.go, handleContainerExit), so
// outputOf runs up to three containers.
func outputOf(t *testing.T, e *Engine, name string) string {
	t.Helper()
	var out bytes.Buffer
	for attempt := 0; attempt < 3 && out.Len() == 0; attempt++ {
		c := create(t, e, ContainerSpec{Image: name})
		if exit, err := c.Run(t.Context(), Streams{Out: &out, Err: &out}); err != nil || exit != 0 {
			t.Fatalf("%s: exit %d, %v: %s", name, exit, err, &out)
		}
	}
	return strings.TrimSpace(out.String())
}

const probeImage = "probe:test"

var probeLoading sync.Mutex

// loadProbe loads an image with the probe unless the engine has it, and returns its name.
func loadProbe(t *testing.T, e *Engine) string {
	t.Helper()
	probeLoading.Lock()
	defer probeLoading.Unlock()
	if id, err := e.ImageID(t.Context(), probeImage); err != nil || id != "" {
		return probeImage
	}
	img := withConfig(t, newImage(t, "by default"), func(config *v1.ConfigFile) {
		config.Config.Env = []string{"FROM=image"}
		config.Config.Healthcheck = &v1.HealthConfig{
			Test: []string{"CMD", "/probe", "check", "8080"}, Interval: time.Hour, Timeout: 10 * time.Second, Retries: 1,
		}
		config.Config.Volumes = map[string]struct{}{"/volume": {}}
	})
	if _, err := e.Load(t.Context(), probeImage, img); err != nil {
		t.Fatal(err)
	}
	return probeImage
}

// create creates a container, by default of the probe, and removes it when the test ends.
func create(t *testing.T, e *Engine, spec ContainerSpec) *Container {
	t.Helper()
	if spec.Image == "" {
		spec.Image = loadProbe(t, e)
	}
	c, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// start creates and starts a container of the probe, and collects its output.
func start(t *testing.T, e *Engine, spec ContainerSpec) (*Container, *output) {
	t.Helper()
	c := create(t, e, spec)
	out := newOutput()
	if _, err := c.Attach(t.Context(), Streams{Out: out, Err: out}); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, out
}

// output is a writer that collects its input.
type output struct {
	mutex sync.Mutex
	text  bytes.Buffer
	more  chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.text.Write(p)
	select {
	case o.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.String()
}

// await waits until the output contains want.
func (o *output) await(t *testing.T, want string) {
	t.Helper()
	for deadline := time.After(time.Minute); !strings.Contains(o.String(), want); {
		select {
		case <-o.more:
		case <-deadline:
			t.Fatalf("the output %q does not contain %q", o, want)
		}
	}
}
