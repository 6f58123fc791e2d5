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

// answering is an engine that answers every request so.
func answering(t testing.TB, body []byte) *Engine {
	t.Helper()
	answer := func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body))}, nil
	}
	api, err := client.New(client.WithHost("tcp://engine:2375"), client.WithHTTPClient(&http.Client{Transport: transport(answer)}), client.WithAPIVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	return &Engine{Host: "tcp://engine:2375", client: api, silence: time.Minute}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzAnswers: a load or a pull went well only if the engine's whole answer is a stream of objects and none of them is an error: it says 200 in
// any case.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"{\"stream\":\"Loaded image: x\"}\n", "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"a\"}\n{\"stream\":\"Loaded image ID: sha256:1\"}", `{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}`,
		`{"stream":"Loaded image"}{"stream":"Error unpacking image x: not found\n"}`, `{"errorDetail":{"code":1}}`, `{"stream":"a"`, "", "[]", "null", `{"stream":7}`, "<html>", `{"errorDetail":null}`, `{"ERRORDETAIL":{"message":"x"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := answering(t, body)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		w := newWatch(time.Minute, cancel)
		defer w.stop()
		whole, failed, unpacked := said(body)
		if err := e.exchange(ctx, strings.NewReader("archive"), w); (err == nil) != (whole && !failed && !unpacked) {
			t.Errorf("load of %q: %v", body, err)
		}
		if err := e.fetch(ctx, "registry.example.com/x:1", w); (err == nil) != (whole && !failed) {
			t.Errorf("pull of %q: %v", body, err)
		}
	})
}

// said reads an answer in another way: whether it is whole, and what errors are in it.
func said(body []byte) (whole, failed, unpacked bool) {
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
			return errors.Is(err, io.EOF), failed, unpacked
		}
		failed = failed || message.ErrorDetail != nil
		unpacked = unpacked || strings.HasPrefix(message.Stream, "Error ")
	}
}

// FuzzSavedArchive: of whatever archive an engine gives for an image, an image comes out that has that id, and layers that are what its config
// says; or an error.
func FuzzSavedArchive(f *testing.F) {
	config := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("layer").String() + `"]}}`)
	id := digest.FromBytes(config).Encoded()
	list := `[{"Config":"` + id + `.json","Layers":["a/layer.tar"]}]`
	for _, names := range [][]string{{id + ".json", "a/layer.tar", "manifest.json"}, {"manifest.json", id + ".json", "../a/layer.tar"}, {"manifest.json"}, {}} {
		f.Add(config, archived(map[string]string{id + ".json": string(config), "a/layer.tar": "layer", "../a/layer.tar": "layer", "manifest.json": list}, names))
	}
	f.Add(config, archived(map[string]string{"link>b/layer.tar": "", "a/layer.tar>../link": "", id + ".json": string(config), "manifest.json": list}, []string{"link>b/layer.tar", "a/layer.tar>../link", id + ".json", "manifest.json"}))
	f.Add(config, archived(map[string]string{"a/layer.tar>layer.tar": "", id + ".json": string(config), "manifest.json": list}, []string{"a/layer.tar>layer.tar", id + ".json", "manifest.json"}))
	f.Fuzz(func(t *testing.T, config, archive []byte) {
		e := answering(t, archive)
		i := &storedImage{}
		id := v1.Hash{Algorithm: "sha256", Hex: digest.FromBytes(config).Encoded()}
		if err := i.save(e, t.Context(), id); err != nil {
			return
		}
		if digest.FromBytes(i.config) != digest.FromBytes(config) || len(i.manifest.Layers) != len(i.diffIDs) {
			t.Errorf("%+v of %s", i.manifest, id)
		}
		for n, layer := range i.manifest.Layers {
			content, err := i.open(layer)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(content)
			_ = content.Close()
			if err != nil || layer.Digest != i.diffIDs[n] || digest.FromBytes(data).String() != layer.Digest.String() || int64(len(data)) != layer.Size {
				t.Errorf("layer %d is %q (%v), not %+v", n, data, err, layer)
			}
		}
	})
}

// archived is a tar of files in that order; NAME>TARGET is a symbolic link.
func archived(files map[string]string, order []string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range order {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if from, to, ok := strings.Cut(name, ">"); ok {
			header.Name, header.Linkname, header.Typeflag = from, to, tar.TypeSymlink
		}
		if err := errors.Join(w.WriteHeader(header), writeText(w, files[name])); err != nil {
			panic(fmt.Sprint(name, err))
		}
	}
	_ = w.Close()
	return out.Bytes()
}

func writeText(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// FuzzStoredManifest: of what a content store holds by the name of an image comes that image, or an error.
func FuzzStoredManifest(f *testing.F) {
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("layer").String() + `"]}}`
	for _, manifest := range []string{
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"DIGEST"},"layers":[{"digest":"sha256:` + strings.Repeat("0", 64) + `","size":5}]}`,
		`{"config":{"digest":"DIGEST"},"layers":[]}`, `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"DIGEST","mediaType":"application/vnd.oci.image.manifest.v1+json"}]}`, `{}`, `[]`, ``, `null`,
	} {
		f.Add([]byte(manifest), []byte(config))
		f.Add([]byte(manifest), []byte(manifest))
		f.Add([]byte(manifest), []byte(`{}`))
	}
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		manifest = bytes.ReplaceAll(manifest, []byte("DIGEST"), []byte(digest.FromBytes(config).String()))
		held := map[string][]byte{digest.FromBytes(manifest).String(): manifest, digest.FromBytes(config).String(): config}
		i := &storedImage{open: func(d v1.Descriptor) (io.ReadCloser, error) {
			data, ok := held[d.Digest.String()]
			if !ok {
				return nil, errors.New("not found")
			}
			return io.NopCloser(bytes.NewReader(data)), nil
		}}
		err := i.resolve(v1.Hash{Algorithm: "sha256", Hex: digest.FromBytes(manifest).Encoded()}, "linux/amd64")
		if err != nil {
			return
		}
		if held[digest.FromBytes(i.raw).String()] == nil || digest.FromBytes(i.config).String() != i.manifest.Config.Digest.String() || len(i.manifest.Layers) != len(i.diffIDs) {
			t.Errorf("%+v", i.manifest)
		}
		for _, hash := range i.order() {
			if layer, err := i.LayerByDigest(hash); err != nil {
				t.Error(err)
			} else if got, err := layer.Digest(); err != nil || got != hash {
				t.Errorf("%s: %s, %v", hash, got, err)
			}
		}
	})
}
