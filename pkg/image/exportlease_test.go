package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	hub "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/client"
)

// Depot's builders remove manifests between the solve and the reads unless the build requests a lease.
func TestExportLease(t *testing.T) {
	w := sharedServices(t)
	b, c := w.depotMachine(t)
	for _, attestations := range []map[string]string{nil, {"provenance": "mode=min"}} {
		r := request(writeFiles(t, map[string]string{
			"Dockerfile": "FROM small:1\nCOPY file /\n", "file": fmt.Sprint("leased", attestations),
		}))
		r.Attestations, r.LayerDir = attestations, t.TempDir()
		result, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		checkDigests(t, result.Image)
		if !slices.Contains(b.ExportLeases(), result.ExportLease) {
			t.Errorf("lease %q is not among %q", result.ExportLease, b.ExportLeases())
		}
		if attestations != nil {
			index, err := JoinPlatforms([]*Result{result}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if manifest, err := index.IndexManifest(); err != nil || len(manifest.Manifests) != 2 {
				t.Errorf("index %v, %v", manifest, err)
			}
		}
		for name := range result.Metadata {
			if strings.HasPrefix(name, "depot/") {
				t.Errorf("the metadata contains %s", name)
			}
		}
		// PushFromBuilder reads nothing later, so it takes no lease.
		before := len(b.ExportLeases())
		reference := w.registry.Addr + fmt.Sprintf("/team/leased:%d", len(attestations))
		if err := PushFromBuilder(t.Context(), c, r, result, w.login("robot", password), reference); err != nil {
			t.Fatal(err)
		}
		if after := len(b.ExportLeases()); after != before {
			t.Errorf("PushFromBuilder left %d leases", after-before)
		}
	}
}

// BuildKit's scheduler sometimes fails for reasons that a retry avoids.
func TestSchedulerErrorsAreRetried(t *testing.T) {
	w := sharedServices(t)
	b, c := w.depotMachine(t)
	const graph = "failed to solve: failed to get edge: inconsistent graph state"
	const index = "failed to get state for index 0 on [2/3] RUN make"
	for _, test := range []struct {
		name     string
		failures []string
		retries  int
		err      string
	}{
		{"none", nil, 0, ""},
		{"once", []string{graph}, 1, ""},
		{"five times", []string{graph, index, graph, index, graph}, 5, ""},
		{"six times", []string{graph, index, graph, index, graph, index}, 5, "failed to get state for index"},
		{"another error", []string{"no space left on device"}, 0, "no space left on device"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}))
			var reported []string
			r.Logf = func(format string, args ...any) { reported = append(reported, fmt.Sprintf(format, args...)) }
			b.FailSolves(amd64, test.failures...)
			_, _, err := solve(t.Context(), c, r)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error = %v, want %q", err, test.err)
			}
			if _, ok := errors.AsType[*BuilderError](err); err != nil && !ok {
				t.Errorf("error = %#v, want a BuilderError", err)
			}
			if len(reported) != test.retries {
				t.Errorf("reported %q, want %d retries", reported, test.retries)
			}
		})
	}
}

// BuildKit gives up on a registry that fails a few times. A retry is safe, because nothing was pushed.
func TestUnavailableRegistryIsRetried(t *testing.T) {
	onBothVersions(t, func(t *testing.T, _ *services, c *client.Client) {
		for _, test := range []struct {
			name     string
			status   int
			failures int32
			retries  bool
		}{
			{"for a moment", http.StatusInternalServerError, 3, true},
			{"rate limit", http.StatusTooManyRequests, 6, true},
			{"denied", http.StatusForbidden, 1000, false},
		} {
			t.Run(test.name, func(t *testing.T) {
				base, _ := startFailingRegistry(t, test.status, test.failures)
				r := request(writeFiles(t, map[string]string{"Dockerfile": "FROM " + base + "\nCOPY Dockerfile /\n"}))
				var reported []string
				r.Logf = func(format string, args ...any) { reported = append(reported, fmt.Sprintf(format, args...)) }
				_, _, err := solve(t.Context(), c, r)
				if (err == nil) != test.retries || (len(reported) > 0) != test.retries {
					t.Errorf("got %v, reported %q, want retries: %t", err, reported, test.retries)
				}
			})
		}
	})
}

// A registry refuses connections while it starts again.
func TestRefusingRegistryIsRetried(t *testing.T) {
	onBothVersions(t, func(t *testing.T, _ *services, c *client.Client) {
		reference, images := startFailingRegistry(t, http.StatusOK, 0)
		address, _, _ := strings.Cut(reference, "/")
		images.Close()
		r := request(writeFiles(t, map[string]string{"Dockerfile": "FROM " + reference + "\nCOPY Dockerfile /\n"}))
		retries := 0
		r.Logf = func(string, ...any) {
			if retries++; retries > 1 {
				return
			}
			listener, err := net.Listen("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			again := &httptest.Server{Listener: listener, Config: &http.Server{Handler: images.Config.Handler}}
			again.Start()
			t.Cleanup(again.Close)
		}
		if _, _, err := solve(t.Context(), c, r); err != nil || retries == 0 {
			t.Errorf("got %v after %d retries", err, retries)
		}
	})
}

// startFailingRegistry starts a registry with one image and returns the image's reference. The registry answers status
// to the first requests for a manifest.
func startFailingRegistry(t *testing.T, status int, failures int32) (reference string, server *httptest.Server) {
	t.Helper()
	var failing atomic.Int32
	images := hub.New(hub.Logger(log.New(io.Discard, "", 0)))
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") && failing.Add(-1) >= 0 {
			w.WriteHeader(status)
			return
		}
		images.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	base, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	reference = host(server) + "/base:1"
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, base); err != nil {
		t.Fatal(err)
	}
	failing.Store(failures)
	return reference, server
}

func TestTakeExportLease(t *testing.T) {
	const images = `[{"manifest": "bQ==", "config": "Yw=="}]` // m and c
	response := map[string]string{
		exportLeaseKey: "lease", exportedImagesKey: base64.StdEncoding.EncodeToString([]byte(images)), "other": "kept",
	}
	lease, blobs, err := takeExportLease(response)
	if err != nil || lease != "lease" || len(response) != 1 {
		t.Errorf("%q, %v; the response is now %v", lease, err, response)
	}
	for _, content := range []string{"m", "c"} {
		hash, _, _ := v1.SHA256(strings.NewReader(content))
		if string(blobs[hash]) != content {
			t.Errorf("blobs = %q", blobs)
		}
	}
	for _, invalid := range []string{"%", base64.StdEncoding.EncodeToString([]byte("{"))} {
		if _, _, err := takeExportLease(map[string]string{exportedImagesKey: invalid}); err == nil {
			t.Errorf("%q: no error", invalid)
		}
	}
}
