package dockerengine

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

func TestImage(t *testing.T) {
	twice := randomLayer(t)
	onEachEngine(t, func(t *testing.T, kind string, e *Engine) {
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
			t.Errorf("got %d layers in ReadOrder, want 5", len(stored.ReadOrder))
		}
		if err != nil || len(layers) != 6 {
			t.Fatalf("got %d layers, %v", len(layers), err)
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
			t.Errorf("got digest %s, want %s (%v)", got, want, err)
		}
		if got, err := stored.ConfigName(); err != nil || got != must(built.ConfigName()) {
			t.Errorf("got config %s (%v)", got, err)
		}

		// Pushing the image reads layers concurrently. Loading it again sends nothing.
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
			t.Errorf("got %+v, %v", loaded, err)
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

// Reading the layers sequentially in ReadOrder requests the engine's archive only once.
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
		t.Errorf("got %d layers, want 4", len(streams))
	}
	for _, s := range streams {
		if s != streams[0] {
			t.Error("the archive was requested more than once")
		}
	}
}

func TestImageFailures(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
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
			{"different platform", "arm:ci", "linux/amd64", "the image is for linux/arm64/v8, not for linux/amd64"},
			{"different variant", "arm:ci", "linux/arm64/v7", "not for linux/arm64/v7"},
			{"invalid platform", "arm:ci", "a/b/c/d", "invalid platform"},
			{"platform without variant", "arm:ci", "linux/arm64", ""},
			{"any platform", "arm:ci", "", ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				_, err := e.Image(t.Context(), test.image, test.platform)
				if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("got %v, want %q", err, test.want)
				}
			})
		}
	})
}

func TestCheckPlatform(t *testing.T) {
	amd64 := v1.Platform{OS: "linux", Architecture: "amd64"}
	v8 := v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	for _, test := range []struct {
		want   string
		actual v1.Platform
		ok     bool
	}{
		{"", v8, true}, {"linux/amd64", amd64, true}, {"linux/arm64", v8, true}, {"linux/arm64/v8", v8, true},
		{"linux/amd64/v2", amd64, true}, {"linux/arm64/v7", v8, false}, {"linux/arm64", amd64, false},
		{"windows/amd64", amd64, false}, {"a/b/c/d", amd64, false},
	} {
		if err := checkPlatform(test.want, test.actual); (err == nil) != test.ok {
			t.Errorf("%q for %s: %v", test.want, test.actual, err)
		}
	}
}

// An index may list attestations and images for other platforms, and the engine may lack some of its images.
func TestResolveIndex(t *testing.T) {
	layer := randomLayer(t)
	blobs := map[v1.Hash][]byte{}
	add := func(architecture string) (v1.Descriptor, v1.Hash) {
		img := withConfig(t, must(mutate.AppendLayers(empty.Image, layer)), func(config *v1.ConfigFile) {
			config.OS, config.Architecture = "linux", architecture
		})
		digest, config := must(img.Digest()), must(img.ConfigName())
		blobs[digest], blobs[config] = must(img.RawManifest()), must(img.RawConfigFile())
		return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest}, config
	}
	arm, _ := add("arm64")
	amd, config := add("amd64")
	absent := v1.Descriptor{
		MediaType: types.OCIManifestSchema1, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)},
	}
	attestation := amd
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	for _, test := range []struct {
		name      string
		manifests []v1.Descriptor
		ok        bool
	}{
		{"one of several", []v1.Descriptor{absent, arm, amd}, true},
		{"attestation only", []v1.Descriptor{attestation}, false},
		{"not an image", []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: amd.Digest}}, false},
		{"different platform", []v1.Descriptor{arm}, false},
		{"empty", nil, false},
	} {
		i := &storedImage{open: func(d v1.Descriptor) (io.ReadCloser, error) {
			if blobs[d.Digest] == nil {
				return nil, errors.New("not found")
			}
			return io.NopCloser(bytes.NewReader(blobs[d.Digest])), nil
		}}
		err := i.resolveIndex(&v1.IndexManifest{Manifests: test.manifests}, "linux/amd64")
		if (err == nil) != test.ok || test.ok && i.manifest.Config.Digest != config {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestReadMetadata(t *testing.T) {
	content := bytes.Repeat([]byte("a"), maxMetadata+1)
	for _, test := range []struct {
		name string
		size int
		hash []byte
		ok   bool
	}{
		{"largest", maxMetadata, content[:maxMetadata], true},
		{"too large", maxMetadata + 1, content, false},
		{"digest mismatch", 10, content[:9], false},
	} {
		i := &storedImage{open: func(v1.Descriptor) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content[:test.size])), nil
		}}
		hash, _, err := v1.SHA256(bytes.NewReader(test.hash))
		if err != nil {
			t.Fatal(err)
		}
		data, err := i.readMetadata(v1.Descriptor{Digest: hash})
		if (err == nil) != test.ok || test.ok && len(data) != test.size {
			t.Errorf("%s: %d bytes, %v", test.name, len(data), err)
		}
	}
}

// One pass over the archive suffices as long as layers are read in its order.
func TestSavedArchiveOpen(t *testing.T) {
	names := []string{"a", "b", "c"}
	files := map[string]string{"a": "first", "b": "second", "c": "third"}
	passes := 0
	e := engineOn(t, func(*http.Request) (*http.Response, error) {
		passes++
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(tarOfFiles(files, names)))}, nil
	})
	id := v1.Hash{Algorithm: "sha256", Hex: "0"}
	a := &savedArchive{engine: e, ctx: t.Context(), id: id, entries: map[string]savedEntry{}}
	if _, err := a.scan(); err != nil {
		t.Fatal(err)
	}
	passes = 0
	for _, step := range []struct {
		name   string
		passes int
	}{{"a", 1}, {"b", 1}, {"c", 1}, {"c", 2}, {"a", 3}, {"c", 3}, {"a", 4}, {"a", 5}} {
		layer, err := a.open(step.name)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(layer)
		err = errors.Join(err, layer.Close())
		if err != nil || string(content) != files[step.name] || passes != step.passes {
			t.Errorf("%s: %q after %d passes, want %q after %d (%v)",
				step.name, content, passes, files[step.name], step.passes, err)
		}
		if isLast := step.name == "c"; isLast == (a.idle != nil) {
			t.Errorf("%s: idle stream kept: %t", step.name, a.idle != nil)
		}
	}
}
