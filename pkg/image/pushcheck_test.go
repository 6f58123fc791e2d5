package image

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// A push counts only if the registry serves the manifest by its digest.
func TestCheckPushed(t *testing.T) {
	const manifest = `{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}`
	hash, err := v1.NewHash(digest.FromString(manifest).String())
	if err != nil {
		t.Fatal(err)
	}
	serve := func(w http.ResponseWriter, digest string) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		if digest != "" {
			w.Header().Set("Docker-Content-Digest", digest)
		}
		http.ServeContent(w, httptest.NewRequest(http.MethodGet, "/", nil), "", time.Time{}, strings.NewReader(manifest))
	}
	for _, test := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request, request int32) // to a request for the manifest
		check  func(err error) bool
	}{
		{"present", func(w http.ResponseWriter, _ *http.Request, _ int32) { serve(w, hash.String()) }, isNil},
		{"without the digest's header", func(w http.ResponseWriter, _ *http.Request, _ int32) { serve(w, "") }, isNil},
		{"after a moment", func(w http.ResponseWriter, r *http.Request, request int32) {
			if request < 3 {
				http.NotFound(w, r)
				return
			}
			serve(w, hash.String())
		}, isNil},
		{"missing", func(w http.ResponseWriter, r *http.Request, _ int32) { http.NotFound(w, r) },
			func(err error) bool { return httpclient.Status(err) == http.StatusNotFound }},
		{"forbidden", func(w http.ResponseWriter, _ *http.Request, _ int32) { w.WriteHeader(http.StatusForbidden) },
			func(err error) bool { return httpclient.Status(err) == http.StatusForbidden }},
		{"web page", func(w http.ResponseWriter, _ *http.Request, _ int32) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>Log in</html>"))
		}, func(err error) bool { return errors.Is(err, httpclient.ErrFormat) }},
		{"another digest", func(w http.ResponseWriter, _ *http.Request, _ int32) {
			serve(w, digest.FromString("another").String())
		}, isNil}, // the content decides
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/manifests/") {
					if !strings.HasSuffix(r.URL.Path, "/team/a/manifests/"+hash.String()) {
						t.Errorf("request for %s", r.URL.Path)
					}
					test.answer(w, r, requests.Add(1))
				}
			}))
			defer server.Close()
			registry := host(server)
			err := registryClient{
				keychain: Auth{}, minWait: time.Nanosecond,
			}.checkPushed(t.Context(), registry+"/team/a:1", hash)
			if !test.check(err) {
				t.Errorf("error = %v", err)
			}
			if err != nil && (errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), registry)) {
				t.Errorf("error = %v, want one that names %s", err, registry)
			}
		})
	}
	t.Run("unreachable", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		registry := host(server)
		server.Close()
		err := registryClient{keychain: Auth{}, minWait: time.Nanosecond}.checkPushed(t.Context(), registry+"/team/a:1", hash)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), registry) {
			t.Errorf("error = %v, want ErrUnreachable", err)
		}
	})
}

func isNil(err error) bool { return err == nil }

func TestCheckConfirmed(t *testing.T) {
	push := func(names string) client.ExportEntry {
		return client.ExportEntry{Type: client.ExporterImage, Attrs: map[string]string{"push": "true", "name": names}}
	}
	for _, test := range []struct {
		name     string
		export   client.ExportEntry
		response map[string]string
		missing  string
	}{
		{"confirmed", push("a:1,b:1"), map[string]string{"image.name": "b:1,a:1"}, ""},
		{"one is missing", push("a:1,b:1"), map[string]string{"image.name": "a:1"}, "b:1"},
		{"of another exporter", push("a:1"), map[string]string{"containerimage.digest": "sha256:1"}, "a:1"},
		{"name from the frontend", push("*"), map[string]string{"image.name": "a:1"}, ""},
		{"no push", client.ExportEntry{Attrs: map[string]string{"name": "a:1"}}, map[string]string{}, ""},
	} {
		err := checkConfirmed(test.export, test.response)
		failed, _ := errors.AsType[*NotPushedError](err)
		if got := err != nil; got != (test.missing != "") || got && failed.Reference != test.missing {
			t.Errorf("%s: error = %v, want one for %q", test.name, err, test.missing)
		}
	}
}
