package image

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	hub "github.com/google/go-containerregistry/pkg/registry"
	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// The error says whether the builder has begun to push, because only then can a reference exist.
func TestPushedError(t *testing.T) {
	onBothVersions(t, func(t *testing.T, _ *services, c *client.Client) {
		content := hub.New()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			content.ServeHTTP(w, r)
		}))
		defer server.Close()
		for _, test := range []struct {
			name, dockerfile string
			pushed           bool
		}{
			{"rejected manifest", "FROM scratch\nCOPY Dockerfile /\n", true},
			{"failed step", "FROM scratch\nCOPY absent /\n", false},
		} {
			r := request(writeFiles(t, map[string]string{"Dockerfile": test.dockerfile}))
			r.Push = []string{host(server) + "/team/rejected:1"}
			_, _, err := solve(t.Context(), c, r)
			if err == nil {
				t.Fatalf("%s: no error", test.name)
			}
			if _, pushed := errors.AsType[*PushedError](err); pushed != test.pushed {
				t.Errorf("%s: pushed %t, error = %v", test.name, pushed, err)
			}
			if test.pushed && httpclient.Status(err) != http.StatusForbidden {
				t.Errorf("%s: error = %v, want status 403", test.name, err)
			}
		}
	})
}
