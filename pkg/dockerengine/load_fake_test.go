package dockerengine

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
)

func TestLoadedString(t *testing.T) {
	loaded := Loaded{Layers: 2, Existing: 2}
	if got := loaded.String(); got != "all 2 layers already exist" {
		t.Error(got)
	}
	loaded.addSent([]file{{size: 1_500_000}})
	if got := loaded.String(); got != "sent 1 of 2 layers, 1.5 MB" {
		t.Error(got)
	}
}

// loadMissing sends the whole archive only if the engine rejects the partial one.
func TestLoadMissing(t *testing.T) {
	a := archiveOf(t, randomLayer(t), randomLayer(t))
	inspect := "GET /images/" + a.config.String() + "/json"
	complete := fmt.Sprintf(`{"Id":%q}`, a.config)
	guess := map[v1.Hash]bool{a.digests[0]: true}
	brokenSource := errors.New("builder unavailable")
	for _, test := range []struct {
		name     string
		existing map[v1.Hash]bool
		answer   string // response to the first load
		source   error
		sent     int // number of layers sent; 0 if the load fails
		loads    int
	}{
		{"right guess", guess, `{"stream":"Loaded image"}`, nil, 1, 1},
		{"rejected in the stream", guess, `{"errorDetail":{"message":"open blob: not found"}}`, nil, 2, 2},
		{"rejected while unpacking", guess, `{"stream":"Error unpacking image"}`, nil, 2, 2},
		{"rejected by status", guess, "!500 no such file or directory", nil, 2, 2},
		{"accepted but incomplete", guess, `{"stream":"Loaded image"}`, nil, 2, 2},
		{"no guess", nil, `{"errorDetail":{"message":"not found"}}`, nil, 0, 1},
		{"broken source", guess, `{"stream":"Loaded image"}`, brokenSource, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			loads := 0
			api := &fakeAPI{answers: map[string]string{}}
			e := engineOn(t, func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/images/load") {
					if loads++; loads == 1 {
						api.answers["POST /images/load"] = test.answer
					} else {
						api.answers["POST /images/load"] = `{"stream":"Loaded image"}`
					}
					if loads == test.loads && test.sent > 0 {
						api.answers[inspect] = complete
					}
				}
				return api.RoundTrip(r)
			})
			copied := *a
			copied.layers = slices.Clone(a.layers)
			if test.source != nil {
				copied.layers[1].layer = openerLayer{a.layers[1].layer, func(v1.Layer) (io.ReadCloser, error) {
					return nil, test.source
				}}
			}
			sent, id, err := e.loadMissing(t.Context(), &copied, test.existing)
			if len(sent) != test.sent || loads != test.loads || (err == nil) != (test.sent > 0) {
				t.Errorf("got %d layers sent in %d loads, want %d in %d (%v)", len(sent), loads, test.sent, test.loads, err)
			}
			if test.sent > 0 && id != a.config.String() {
				t.Errorf("ID %q, want %s", id, a.config)
			}
			if test.source != nil && !errors.Is(err, test.source) {
				t.Errorf("got %v, want %v", err, test.source)
			}
		})
	}
}

// loadMissing fails if the engine does not have the image even after loading the whole archive.
func TestLoadMissingIncomplete(t *testing.T) {
	a := archiveOf(t, randomLayer(t))
	api := &fakeAPI{answers: map[string]string{"POST /images/load": `{"stream":"Loaded image"}`}}
	_, _, err := api.engine(t).loadMissing(t.Context(), a, map[v1.Hash]bool{a.digests[0]: true})
	if !errors.Is(err, errIncomplete) {
		t.Errorf("got %v, want %v", err, errIncomplete)
	}
}

func TestCompleteImage(t *testing.T) {
	a := archiveOf(t, randomLayer(t))
	manifest, config := a.manifest.String(), a.config.String()
	descriptor := fmt.Sprintf(`"Descriptor":{"digest":%q}`, manifest)
	for _, test := range []struct {
		name    string
		answers map[string]string // by ID
		want    string
	}{
		{"none", nil, ""},
		{"by config", map[string]string{config: fmt.Sprintf(`{"Id":%q}`, config)}, config},
		{"by name", map[string]string{config: `{"Id":"sha256:other"}`}, ""},
		{"complete", map[string]string{manifest: fmt.Sprintf(
			`{"Id":%q,%s,"Manifests":[{"ID":%q,"Available":true}]}`, manifest, descriptor, manifest)}, manifest},
		{"incomplete", map[string]string{manifest: fmt.Sprintf(
			`{"Id":%q,%s,"Manifests":[{"ID":%q,"Available":false}]}`, manifest, descriptor, manifest)}, ""},
		{"different manifest", map[string]string{manifest: fmt.Sprintf(
			`{"Id":%q,%s,"Manifests":[{"ID":"sha256:other","Available":true}]}`, manifest, descriptor)}, ""},
	} {
		api := &fakeAPI{answers: map[string]string{}}
		for id, answer := range test.answers {
			api.answers["GET /images/"+id+"/json"] = answer
		}
		e := engineOfVersion(t, "1.50", api.RoundTrip)
		if got := e.completeImage(t.Context(), a); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// tagImage retries what the current engine answers if another client creates the tag.
func TestTagImage(t *testing.T) {
	const tag = "POST /images/sha256:new/tag"
	const conflict = "!500 image docker.io/library/app:1: already exists"
	for _, test := range []struct {
		name     string
		answers  []string // the last one repeats
		attempts int
		fails    bool
	}{
		{"success", []string{"{}"}, 1, false},
		{"conflicts", []string{conflict, conflict, "{}"}, 3, false},
		{"persistent conflict", []string{conflict}, maxTagAttempts, true},
		{"no image", []string{"!404 no such image"}, 1, true},
	} {
		attempts := 0
		api := &fakeAPI{answers: map[string]string{}}
		e := engineOn(t, func(r *http.Request) (*http.Response, error) {
			api.answers[tag] = test.answers[min(attempts, len(test.answers)-1)]
			attempts++
			return api.RoundTrip(r)
		})
		synctest.Test(t, func(t *testing.T) { // does not wait
			if err := e.tagImage(t.Context(), "sha256:new", "app:1"); (err != nil) != test.fails {
				t.Errorf("%s: %v", test.name, err)
			}
		})
		if attempts != test.attempts {
			t.Errorf("%s: %d attempts, want %d", test.name, attempts, test.attempts)
		}
	}
}

func TestIsConflict(t *testing.T) {
	const exists = `AlreadyExists: image "moby-dangling@sha256:1": already exists`
	for err, want := range map[error]bool{
		fmt.Errorf("load app:1: %w", &engineError{exists}): true, &engineError{"no space left on device"}: false,
		errors.New(exists): false,
	} {
		if isConflict(err) != want {
			t.Errorf("%v: got %t", err, !want)
		}
	}
}

func TestRemovePartial(t *testing.T) {
	a := archiveOf(t, randomLayer(t))
	cause := errors.New("unpacking failed")
	remove := "DELETE /images/" + a.manifest.String()
	for _, test := range []struct {
		name, image, removal string
		removes, mentions    bool
	}{
		{"no image", "!404 none", "[]", false, false},
		{"untagged image", `{"Id":"x"}`, "[]", true, false},
		{"tagged image", `{"Id":"x","RepoTags":["app:1"]}`, "[]", false, false},
		{"removed meanwhile", `{"Id":"x"}`, "!404 none", true, false},
		{"removal fails", `{"Id":"x"}`, "!500 broken", true, true},
	} {
		api := &fakeAPI{answers: map[string]string{
			"GET /images/" + a.manifest.String() + "/json": test.image, remove: test.removal,
		}}
		err := api.engine(t).removePartial(t.Context(), a, cause)
		if !errors.Is(err, cause) || strings.Contains(err.Error(), "docker image rm") != test.mentions {
			t.Errorf("%s: %v", test.name, err)
		}
		if removed := slices.Contains(api.requests, remove); removed != test.removes {
			t.Errorf("%s: removed is %t", test.name, removed)
		}
	}
}

func TestLoadNames(t *testing.T) {
	a := archiveOf(t, randomLayer(t))
	img := must(fixedImage(a))
	api := &fakeAPI{answers: map[string]string{
		"GET /images/" + a.config.String() + "/json": fmt.Sprintf(`{"Id":%q}`, a.config),
		"POST /images/" + a.config.String() + "/tag": "{}",
	}}
	for name, want := range map[string]string{
		"app":                              "repo=docker.io%2Flibrary%2Fapp&tag=latest",
		"registry.example:5000/team/app:1": "repo=registry.example%3A5000%2Fteam%2Fapp&tag=1",
	} {
		var tagged string
		e := engineOn(t, func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				tagged = r.URL.RawQuery
			}
			return api.RoundTrip(r)
		})
		loaded, err := e.Load(t.Context(), name, img)
		if err != nil || loaded.ID != a.config.String() || loaded.Sent != 0 || loaded.Existing != 1 || tagged != want {
			t.Errorf("%s: %+v as %s, want %s (%v)", name, loaded, tagged, want, err)
		}
	}
}

// fixedImage returns the image of an archive.
func fixedImage(a *archive) (v1.Image, error) {
	i := &storedImage{raw: a.metadata[3].data, config: a.metadata[4].data}
	var err error
	if i.manifest, err = v1.ParseManifest(strings.NewReader(string(i.raw))); err != nil {
		return nil, err
	}
	i.diffIDs = a.diffIDs
	i.open = func(v1.Descriptor) (io.ReadCloser, error) { return a.layers[0].layer.Compressed() }
	return partial.CompressedToImage(i)
}
