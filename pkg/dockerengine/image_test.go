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
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

func TestImage(t *testing.T) {
	twice := randomLayer(t)
	onBoth(t, func(t *testing.T, kind string, e *Engine) {
		removeImage(t, e, "stored:ci")
		plain := uncompressed(t, randomLayer(t))[0]
		built := newImage(t, "stored", randomLayer(t), twice, plain, twice)
		if _, err := e.Load(t.Context(), "stored:ci", built); err != nil {
			t.Fatal(err)
		}
		stored, err := e.Image(t.Context(), "stored:ci", "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		layers, err := stored.Layers()
		if len(stored.ReadOrder) != 5 {
			t.Errorf("%d layers in ReadOrder, want 5", len(stored.ReadOrder))
		}
		if err != nil || len(layers) != 6 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		for i := range layers {
			checkLayer(t, layers[i])
			checkLayer(t, layers[len(layers)-1-i]) // out of order, and a second time
		}
		want, err := built.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if kind == engine.Oldest {
			want = digestOf(t, e, "stored:ci")
		}
		if got, err := stored.Digest(); err != nil || got != want {
			t.Errorf("the digest is %s, want %s (%v)", got, want, err)
		}
		if got, err := stored.ConfigName(); err != nil || got != must(built.ConfigName()) {
			t.Errorf("the config is %s (%v)", got, err)
		}

		// The image can be pushed, which reads layers concurrently, and loaded again, which sends nothing.
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

// checkLayer checks the layer's content against its digests and its size.
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
			t.Errorf("the layer has %d bytes, want %d", size, want)
		}
	}
}

// digestOf opens an image and returns its digest.
func digestOf(t *testing.T, e *Engine, name string) v1.Hash {
	t.Helper()
	img, err := e.Image(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	return must(img.Digest())
}

// Reading the layers one after the other, in ReadOrder, requests the engine's archive once.
func TestImageReadOrder(t *testing.T) {
	e := openHost(t, engineHost(t, engine.Oldest))
	removeImage(t, e, "stored:ci")
	if _, err := e.Load(t.Context(), "stored:ci", newImage(t, "stored", randomLayer(t), randomLayer(t))); err != nil {
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
		t.Errorf("%d layers, want 4", len(streams))
	}
	for _, s := range streams {
		if s != streams[0] {
			t.Error("the archive was requested again")
		}
	}
}

func TestImageFailures(t *testing.T) {
	onBoth(t, func(t *testing.T, _ string, e *Engine) {
		removeImage(t, e, "arm:ci")
		img := withConfig(t, newImage(t, "arm"), func(config *v1.ConfigFile) {
			config.Architecture, config.Variant = "arm64", "v8"
		})
		if _, err := e.Load(t.Context(), "arm:ci", img); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct{ name, image, platform, want string }{
			{"unknown image", "no/such:image", "", "read no/such:image from the Docker Engine at " + e.Host +
				": image not found"},
			{"another platform", "arm:ci", "linux/amd64", "the image is for linux/arm64/v8, not for linux/amd64"},
			{"another variant", "arm:ci", "linux/arm64/v7", "not for linux/arm64/v7"},
			{"invalid platform", "arm:ci", "a/b/c/d", "invalid platform"},
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
