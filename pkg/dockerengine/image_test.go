package dockerengine

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

func TestImage(t *testing.T) {
	twice := layerOf(t, types.OCILayer)
	onBoth(t, func(t *testing.T, e *Engine) {
		remove(t, e, "stored:ci")
		built := image(t, "stored", layerOf(t, types.OCILayer), twice, otherwise(t, []v1.Layer{layerOf(t, types.OCILayer)})[0], twice)
		if _, err := e.Load(t.Context(), "stored:ci", built); err != nil {
			t.Fatal(err)
		}
		stored, err := e.Image(t.Context(), "stored:ci", "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		layers, err := stored.Layers()
		if len(stored.ReadOrder) != 5 {
			t.Errorf("%d layers to read", len(stored.ReadOrder))
		}
		if err != nil || len(layers) != 6 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		for i := range layers {
			checkLayer(t, layers[i])
			checkLayer(t, layers[len(layers)-1-i]) // in another order, and again
		}
		want, err := built.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if e.Host == engines[engine.Oldest] {
			want = again(t, e, "stored:ci")
		}
		if got, err := stored.Digest(); err != nil || got != want {
			t.Errorf("%s, want %s (%v)", got, want, err)
		}
		if got, err := stored.ConfigName(); err != nil || got.String() != must(built.ConfigName()).String() {
			t.Errorf("the config is %s (%v)", got, err)
		}

		// A push, layers at once, and back into the engine: nothing is lacking.
		server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
		defer server.Close()
		ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/stored:ci")
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, stored); err != nil {
			t.Error(err)
		}
		pushed, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pushed.Digest(); err != nil || got != want {
			t.Errorf("%s was pushed, want %s (%v)", got, want, err)
		}
		if loaded, err := e.Load(t.Context(), "stored:ci", pushed); err != nil || loaded.Sent != 0 {
			t.Errorf("%+v, %v", loaded, err)
		}
	})
}

// checkLayer looks whether a layer is what it says.
func checkLayer(t *testing.T, layer v1.Layer) {
	t.Helper()
	for _, side := range []struct {
		what string
		want v1.Hash
		open func() (io.ReadCloser, error)
	}{
		{"compressed", must(layer.Digest()), layer.Compressed},
		{"uncompressed", must(layer.DiffID()), layer.Uncompressed},
	} {
		from, err := side.open()
		if err != nil {
			t.Fatal(err)
		}
		hash, size, err := v1.SHA256(from)
		if closed := from.Close(); err != nil || closed != nil || hash != side.want {
			t.Errorf("%s layer: %s, want %s (%v, %v)", side.what, hash, side.want, err, closed)
		}
		if want := must(layer.Size()); side.what == "compressed" && size != want {
			t.Errorf("it has %d bytes, want %d", size, want)
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// again is the digest of the image when it is taken another time.
func again(t *testing.T, e *Engine, name string) v1.Hash {
	t.Helper()
	img, err := e.Image(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	return must(img.Digest())
}

// A push one after the other reads the engine's archive once.
func TestImageIsReadInOneGo(t *testing.T) {
	e := openHost(t, engines[engine.Oldest])
	remove(t, e, "stored:ci")
	if _, err := e.Load(t.Context(), "stored:ci", image(t, "stored", layerOf(t, types.OCILayer), layerOf(t, types.OCILayer))); err != nil {
		t.Fatal(err)
	}
	img, err := e.Image(t.Context(), "stored:ci", "")
	if err != nil {
		t.Fatal(err)
	}
	var streams []*savedStream
	for _, l := range img.ReadOrder {
		layer, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, layer.(*savedLayer).savedStream)
		if _, err := io.Copy(io.Discard, layer); err != nil {
			t.Error(err)
		}
		layer.Close()
	}
	if len(streams) != 4 {
		t.Errorf("%d layers", len(streams))
	}
	for _, s := range streams {
		if s != streams[0] {
			t.Error("the archive was asked for again")
		}
	}
}

func TestImageSaysWhyNot(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		remove(t, e, "arm:ci")
		img := image(t, "arm")
		config := must(img.ConfigFile()).DeepCopy()
		config.Architecture, config.Variant = "arm64", "v8"
		img, err := mutate.ConfigFile(img, config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Load(t.Context(), "arm:ci", img); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct{ name, image, platform, want string }{
			{"no such image", "no/such:image", "", "read no/such:image from the Docker Engine at " + e.Host + ": it has no image of that name"},
			{"another platform", "arm:ci", "linux/amd64", "the image is for linux/arm64/v8, not for linux/amd64"},
			{"another variant", "arm:ci", "linux/arm64/v7", "not for linux/arm64/v7"},
			{"no platform", "arm:ci", "a/b/c/d", "is not a platform"},
			{"the platform without its variant", "arm:ci", "linux/arm64", ""},
			{"any platform", "arm:ci", "", ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				_, err := e.Image(t.Context(), test.image, test.platform)
				if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("%v, want %q", err, test.want)
				}
			})
		}
	})
}
