package dockerengine

import (
	"context"
	"errors"
	"maps"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"google.golang.org/grpc"
)

// fakeStore is a content store with blobs of the given sizes by digest.
type fakeStore struct {
	contentapi.ContentClient
	sizes map[string]int64
}

func (f fakeStore) Info(
	_ context.Context, request *contentapi.InfoRequest, _ ...grpc.CallOption,
) (*contentapi.InfoResponse, error) {
	size, ok := f.sizes[request.Digest]
	if !ok {
		return nil, errors.New("not found")
	}
	return &contentapi.InfoResponse{Info: &contentapi.Info{Digest: request.Digest, Size: size}}, nil
}

// archiveOf returns the archive of an image with these layers.
func archiveOf(t *testing.T, layers ...v1.Layer) *archive {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newArchive(img, true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestExistingBlobs(t *testing.T) {
	a := archiveOf(t, randomLayer(t), randomLayer(t), randomLayer(t))
	got := existingBlobs(t.Context(), a, fakeStore{sizes: map[string]int64{
		a.digests[0].String(): a.layers[0].size,
		a.digests[1].String(): a.layers[1].size - 1, // an incomplete blob
	}})
	if want := map[v1.Hash]bool{a.digests[0]: true}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	missing := a.missingLayers(got)
	if len(missing) != 2 || missing[0].hash != a.digests[1] || missing[1].hash != a.digests[2] {
		t.Errorf("missing %+v", missing)
	}
}

func TestExistingChain(t *testing.T) {
	one, two, three := randomLayer(t), randomLayer(t), randomLayer(t)
	a := archiveOf(t, one, two, one, three)
	rootFS := func(diffIDs ...v1.Hash) string {
		text := `{"RootFS":{"Layers":[`
		for i, id := range diffIDs {
			if i > 0 {
				text += ","
			}
			text += `"` + id.String() + `"`
		}
		return text + "]}}"
	}
	api := &fakeAPI{answers: map[string]string{
		"GET /images/json":        `[{"Id":"a"},{"Id":"b"},{"Id":"removed"}]`,
		"GET /images/a/json":      rootFS(a.diffIDs[0], a.diffIDs[1], a.diffIDs[3]),
		"GET /images/b/json":      rootFS(a.diffIDs[1], a.diffIDs[0], a.diffIDs[2], a.diffIDs[3]),
		"GET /info":               `{"DriverStatus":[["driver-type","overlay2"]]}`,
		"GET /images/broken/json": "!500 broken",
	}}
	// Only the second layer: the first one occurs again above the common layers.
	want := map[v1.Hash]bool{a.digests[1]: true}
	if got := api.engine(t).existingLayers(t.Context(), a); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	api.answers["GET /images/json"] = "!500 broken"
	if got := api.engine(t).existingLayers(t.Context(), a); len(got) > 0 {
		t.Errorf("got %v without a list of images, want none", got)
	}
}

func TestCommonChain(t *testing.T) {
	a := archiveOf(t, randomLayer(t), randomLayer(t))
	first, second := a.diffIDs[0].String(), a.diffIDs[1].String()
	for _, test := range []struct {
		other []string
		want  int
	}{
		{nil, 0}, {[]string{first}, 1}, {[]string{first, second}, 2}, {[]string{first, second, first}, 2},
		{[]string{second, first}, 0}, {[]string{second, second}, 0},
	} {
		if got := commonChain(a.diffIDs, test.other); got != test.want {
			t.Errorf("%v: %d, want %d", test.other, got, test.want)
		}
	}
}
