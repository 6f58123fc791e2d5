package dockerengine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
)

// newFakeEngine returns an engine that responds to every request with body.
func newFakeEngine(t testing.TB, body []byte) *Engine {
	t.Helper()
	answer := func(*http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(bytes.NewReader(body)),
		}, nil
	}
	return engineOn(t, answer)
}

// engineOn returns an engine with API 1.41 that handles requests with answer.
func engineOn(t testing.TB, answer transport) *Engine {
	t.Helper()
	return engineOfVersion(t, "1.41", answer)
}

func engineOfVersion(t testing.TB, version string, answer transport) *Engine {
	t.Helper()
	api, err := client.New(client.WithHost("tcp://engine:2375"), client.WithAPIVersion(version),
		client.WithHTTPClient(&http.Client{Transport: answer}))
	if err != nil {
		t.Fatal(err)
	}
	return &Engine{Host: "tcp://engine:2375", client: api, idleTimeout: time.Minute}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzResponses checks that a load or pull succeeds only if the engine's response is a complete stream of JSON objects
// without an error. The status is always 200.
func FuzzResponses(f *testing.F) {
	for _, seed := range []string{
		"{\"stream\":\"Loaded image: x\"}\n",
		`{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a"}` + "\n" +
			`{"stream":"Loaded image ID: sha256:1"}`,
		`{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}`,
		`{"stream":"Loaded image"}{"stream":"Error unpacking image x: not found\n"}`,
		`{"errorDetail":{"code":1}}`, `{"stream":"a"`, "", "[]", "null", `{"stream":7}`, "<html>",
		`{"errorDetail":null}`, `{"ERRORDETAIL":{"message":"x"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := newFakeEngine(t, body)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		idle := newIdleTimer(time.Minute, cancel)
		defer idle.stop()
		complete, failed, unpackFailed := parseResponse(body)
		err := e.postArchive(ctx, strings.NewReader("archive"), idle)
		if (err == nil) != (complete && !failed && !unpackFailed) {
			t.Errorf("load with response %q: %v", body, err)
		}
		if err := e.pullReference(ctx, "registry.example.com/x:1", idle); (err == nil) != (complete && !failed) {
			t.Errorf("pull with response %q: %v", body, err)
		}
	})
}

// parseResponse parses a response independently of the client: whether it is complete, and which errors it contains.
func parseResponse(body []byte) (complete, failed, unpackFailed bool) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	for {
		var message struct {
			Stream, Status, ID string
			ErrorDetail        *struct {
				Code    int
				Message string
			}
			ProgressDetail *struct {
				Current, Total, Start int64
				HideCounts            bool
				Units                 string
			}
			Aux *json.RawMessage
		}
		err := decoder.Decode(&message)
		if err != nil {
			return errors.Is(err, io.EOF), failed, unpackFailed
		}
		failed = failed || message.ErrorDetail != nil
		unpackFailed = unpackFailed || strings.HasPrefix(message.Stream, "Error ")
	}
}

// FuzzSavedArchive checks that the result for any archive is an error, or an image with the requested ID and the layers
// of its config.
func FuzzSavedArchive(f *testing.F) {
	config := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` +
		digest.FromString("layer").String() + `"]}}`)
	id := digest.FromBytes(config).Encoded()
	list := `[{"Config":"` + id + `.json","Layers":["a/layer.tar"]}]`
	files := map[string]string{
		id + ".json": string(config), "a/layer.tar": "layer", "../a/layer.tar": "layer", "manifest.json": list,
	}
	for _, names := range [][]string{
		{id + ".json", "a/layer.tar", "manifest.json"},
		{"manifest.json", id + ".json", "../a/layer.tar"},
		{"manifest.json"},
		{},
		{"link>b/layer.tar", "a/layer.tar>../link", id + ".json", "manifest.json"},
		{"a/layer.tar>layer.tar", id + ".json", "manifest.json"},
	} {
		f.Add(config, tarOfFiles(files, names))
	}
	f.Fuzz(func(t *testing.T, config, archive []byte) {
		e := newFakeEngine(t, archive)
		i := &storedImage{}
		id := v1.Hash{Algorithm: "sha256", Hex: digest.FromBytes(config).Encoded()}
		if err := i.readArchive(t.Context(), e, id); err != nil {
			return
		}
		if digest.FromBytes(i.config) != digest.FromBytes(config) || len(i.manifest.Layers) != len(i.diffIDs) {
			t.Errorf("manifest %+v for ID %s", i.manifest, id)
		}
		for n, layer := range i.manifest.Layers {
			content, err := i.open(layer)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(content)
			_ = content.Close()
			actual := v1.Hash{Algorithm: "sha256", Hex: digest.FromBytes(data).Encoded()}
			if err != nil || layer.Digest != i.diffIDs[n] || actual != layer.Digest || int64(len(data)) != layer.Size {
				t.Errorf("layer %d is %q (%v), want %+v", n, data, err, layer)
			}
		}
	})
}

// tarOfFiles returns a tar archive of the files in the given order. NAME>TARGET is a symbolic link.
func tarOfFiles(files map[string]string, order []string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range order {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if from, to, ok := strings.Cut(name, ">"); ok {
			header.Name, header.Linkname, header.Typeflag = from, to, tar.TypeSymlink
		}
		err := w.WriteHeader(header)
		if err == nil {
			_, err = io.WriteString(w, files[name])
		}
		if err != nil {
			panic(fmt.Sprint(name, err))
		}
	}
	_ = w.Close()
	return out.Bytes()
}

// FuzzStoredManifest checks that the result for any blobs in a content store is the requested image or an error.
func FuzzStoredManifest(f *testing.F) {
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` +
		digest.FromString("layer").String() + `"]}}`
	for _, manifest := range []string{
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"DIGEST"},` +
			`"layers":[{"digest":"sha256:` + strings.Repeat("0", 64) + `","size":5}]}`,
		`{"config":{"digest":"DIGEST"},"layers":[]}`,
		`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
			`{"digest":"DIGEST","mediaType":"application/vnd.oci.image.manifest.v1+json"}]}`,
		`{}`, `[]`, ``, `null`,
	} {
		f.Add([]byte(manifest), []byte(config))
		f.Add([]byte(manifest), []byte(manifest))
		f.Add([]byte(manifest), []byte(`{}`))
	}
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		manifest = bytes.ReplaceAll(manifest, []byte("DIGEST"), []byte(digest.FromBytes(config).String()))
		blobs := map[string][]byte{digest.FromBytes(manifest).String(): manifest, digest.FromBytes(config).String(): config}
		i := &storedImage{open: func(d v1.Descriptor) (io.ReadCloser, error) {
			data, ok := blobs[d.Digest.String()]
			if !ok {
				return nil, errors.New("not found")
			}
			return io.NopCloser(bytes.NewReader(data)), nil
		}}
		err := i.resolve(v1.Hash{Algorithm: "sha256", Hex: digest.FromBytes(manifest).Encoded()}, "linux/amd64")
		if err != nil {
			return
		}
		configDigest := digest.FromBytes(i.config).String()
		if blobs[digest.FromBytes(i.raw).String()] == nil || configDigest != i.manifest.Config.Digest.String() ||
			len(i.manifest.Layers) != len(i.diffIDs) {
			t.Errorf("got %+v", i.manifest)
		}
		for _, hash := range i.readOrder() {
			if layer, err := i.LayerByDigest(hash); err != nil {
				t.Error(err)
			} else if got, err := layer.Digest(); err != nil || got != hash {
				t.Errorf("%s: %s, %v", hash, got, err)
			}
		}
	})
}
