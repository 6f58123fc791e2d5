package dockerengine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/humanize"
)

// serveImage serves an archive as for a pull. The registry expects requests for all layers but the first.
func serveImage(t *testing.T, a *archive) (*imageRegistry, string) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	idle := newIdleTimer(time.Hour, cancel)
	r := &imageRegistry{
		ctx: ctx, cancel: cancel, archive: a, missing: a.layers[1:], name: "random", idle: idle,
		contacted: make(chan struct{}),
	}
	server := httptest.NewServer(r)
	t.Cleanup(func() {
		server.Close()
		idle.stop()
		cancel(nil)
	})
	return r, server.URL
}

func TestImageRegistry(t *testing.T) {
	a := archiveOf(t, randomLayer(t), randomLayer(t))
	r, url := serveImage(t, a)
	layer, manifest := a.digests[1].String(), a.manifest.String()
	var progress []humanize.Transfer
	r.meter = newMeter(r.missing, func(p humanize.Transfer) { progress = append(progress, p) })
	for _, test := range []struct {
		method, path string
		status       int
		contentType  string
		size         int64
	}{
		{"GET", "/v2/", http.StatusOK, "", 0},
		{"PUT", "/v2/random/manifests/" + manifest, http.StatusMethodNotAllowed, "", -1},
		{"GET", "/v2/other/manifests/" + manifest, http.StatusNotFound, "", -1},
		{"GET", "/v2/random/manifests/" + layer, http.StatusNotFound, "", -1},
		{"GET", "/v2/random/blobs/" + a.diffIDs[0].String(), http.StatusNotFound, "", -1},
		{"HEAD", "/v2/random/manifests/" + manifest, http.StatusOK, string(a.mediaType), 0},
		{"GET", "/v2/random/manifests/" + manifest, http.StatusOK, string(a.mediaType), a.metadata[3].size},
		{"GET", "/v2/random/blobs/" + a.config.String(), http.StatusOK, "application/octet-stream", a.metadata[4].size},
		{"HEAD", "/v2/random/blobs/" + layer, http.StatusOK, "application/octet-stream", 0},
		{"GET", "/v2/random/blobs/" + layer, http.StatusOK, "application/octet-stream", a.layers[1].size},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, url+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		contentType := response.Header.Get("Content-Type")
		if err != nil || response.StatusCode != test.status || test.size >= 0 && int64(len(body)) != test.size ||
			test.contentType != "" && contentType != test.contentType {
			t.Errorf("%s %s: %d, %s, %d bytes (%v), want %+v",
				test.method, test.path, response.StatusCode, contentType, len(body), err, test)
		}
	}
	r.serving.Wait() // a handler may still run after the client has read the last byte
	if sent := r.sentLayers(); len(sent) != 1 || sent[0].hash != a.digests[1] {
		t.Errorf("sent %+v, want the second layer", sent)
	}
	if len(progress) == 0 || progress[0].Number != 1 || progress[0].Layers != 1 || progress[0].Total != a.layers[1].size {
		t.Errorf("progress %+v, want layer 1 of 1", progress)
	}
	select {
	case <-r.contacted:
	default:
		t.Error("the registry did not record the contact")
	}

	// A request for a layer that the engine was expected to have increases the count.
	progress = nil
	get(t, url+"/v2/random/blobs/"+a.digests[0].String())
	r.serving.Wait()
	total := a.layers[0].size + a.layers[1].size
	if len(progress) == 0 || progress[0].Number != 2 || progress[0].Layers != 2 || progress[0].Total != total ||
		progress[len(progress)-1].Done != total {
		t.Errorf("progress %+v, want layer 2 of 2", progress)
	}

	r.close()
	if response, err := http.Get(url + "/v2/"); err == nil {
		response.Body.Close()
		t.Errorf("the closed registry answers %s", response.Status)
	}
}

func TestImageRegistryWithFailingSource(t *testing.T) {
	cause := errors.New("builder unavailable")
	a := archiveOf(t, randomLayer(t), randomLayer(t))
	a.layers[1].layer = openerLayer{a.layers[1].layer, func(v1.Layer) (io.ReadCloser, error) { return nil, cause }}
	r, url := serveImage(t, a)
	response, err := http.Get(url + "/v2/random/blobs/" + a.digests[1].String())
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	if err == nil || !errors.Is(context.Cause(r.ctx), cause) {
		t.Errorf("got %v; the pull's cause is %v, want %v", err, context.Cause(r.ctx), cause)
	}
}

func TestCanPull(t *testing.T) {
	const containerd = `{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}`
	const local = "unix:///docker.sock"
	for _, test := range []struct {
		name, host, info string
		sizes            []int64 // of the missing layers
		want             bool
	}{
		{"containerd store", local, containerd, []int64{16 << 20, 16 << 20}, runtime.GOOS == "linux"},
		{"small layers", local, containerd, []int64{16 << 20, 8 << 20}, false},
		{"no layers", local, containerd, nil, false},
		{"remote engine", "tcp://engine:2375", containerd, []int64{1 << 30}, false},
		{"ssh", "ssh://engine", containerd, []int64{1 << 30}, false},
		{"other image store", local, `{"DriverStatus":[["driver-type","overlay2"]]}`, []int64{1 << 30}, false},
	} {
		e := (&fakeAPI{answers: map[string]string{"GET /info": test.info}}).engine(t)
		e.Host = test.host
		var missing []file
		for _, size := range test.sizes {
			missing = append(missing, file{size: size})
		}
		if got := e.canPull(t.Context(), missing); got != test.want {
			t.Errorf("%s: canPull is %t, want %t", test.name, got, test.want)
		}
	}
}

// pullImage removes the temporary name even if it does not know whether the engine has created it, and does not fail if
// it cannot remove the name.
func TestPullRemovesName(t *testing.T) {
	a := archiveOf(t, randomLayer(t))
	failed := errors.New("tag failed")
	for _, test := range []struct {
		name, answer, removal string
		complete, want        error
	}{
		{"success", `{"status":"Downloaded"}`, "[]", nil, nil},
		{"removal fails", `{"status":"Downloaded"}`, "!500 busy", nil, nil},
		{"image unusable", `{"status":"Downloaded"}`, "[]", failed, failed},
		{"pull fails", `{"errorDetail":{"message":"no space left"}}`, "!404 none", nil, errCannotPull},
		{"response truncated", `{"status":"Downl`, "[]", nil, errCannotPull},
	} {
		var pulled, removed string
		e := engineOn(t, func(r *http.Request) (*http.Response, error) {
			api := &fakeAPI{answers: map[string]string{"POST /images/create": test.answer}}
			switch r.Method {
			case http.MethodPost:
				pulled = r.URL.Query().Get("fromImage") + "@" + r.URL.Query().Get("tag")
			case http.MethodDelete:
				_, removed, _ = strings.Cut(r.URL.Path, "/images/")
				api.answers["DELETE /images/"+removed] = test.removal
			}
			return api.RoundTrip(r)
		})
		_, err := e.pullImage(t.Context(), a, a.layers, func() error { return test.complete })
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
		if removed == "" || removed != pulled {
			t.Errorf("%s: removed %q, want %q", test.name, removed, pulled)
		}
	}
}
