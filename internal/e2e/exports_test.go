//go:build linux

package e2e

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/org/sandbox-actions/internal/localcloud/builders"
)

// oldBuilder starts a daemon of BuildKit v0.11, which runs one exporter in a solve as Depot's public fork does, and
// returns its address.
func (e *environment) oldBuilder(t *testing.T) string {
	t.Helper()
	b, err := builders.Start(t.Context(), builders.Options{
		Dir: t.TempDir(), Platforms: []string{"linux/amd64"}, Version: builders.V011,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b.Address("linux/amd64")
}

// Everything that the outputs name exists, whether or not the builder runs several exporters in a solve.
func TestEveryExportHappens(t *testing.T) {
	e := setup(t)
	for version, address := range map[string]string{"depot": "depot", "v0.11": e.oldBuilder(t)} {
		t.Run(version, func(t *testing.T) {
			out := t.TempDir()
			imageName := "exports:" + version
			before := e.Builders.ExportLeases() // of machines that other tests have lost
			r := e.mustRun(t, invocation{
				dockerfile: "FROM scratch\nCOPY Dockerfile /copied\n",
				inputs: values{
					"builder": address, "load": "true", "image_name": imageName, "push": e.Registry.Addr + "/team/exports:" + version,
					"outputs": "type=local,dest=" + out + "\ntype=oci,dest=" + filepath.Join(out, "oci.tar"),
				},
				env: values{"SOURCE_DATE_EPOCH": "1700000000", "HOME": e.login(t)},
			})
			reference, digest, _ := strings.Cut(r.outputs["image_ref"], "@")
			ref, err := name.ParseReference(reference)
			must(t, err)
			pushed, err := remote.Head(ref, remote.WithAuth(&authn.Basic{Username: "robot", Password: e.RegistryPassword}))
			if err != nil || pushed.Digest.String() != digest {
				t.Errorf("the registry has %v (%v), the outputs %s", pushed, err, digest)
			}
			created := docker(t, e.Engine.Host, "image", "inspect", "-f", "{{.Created}}", imageName)
			if !strings.HasPrefix(created, "2023-11-14T22:13:20") {
				t.Errorf("created %s", created)
			}
			for _, file := range []string{"copied", "oci.tar"} {
				if read(t, filepath.Join(out, file)) == "" {
					t.Errorf("%s was not written", file)
				}
			}
			warned := strings.Contains(r.stdout, "::warning title=Builder::SOURCE_DATE_EPOCH does not set")
			if warned != (version != "depot") {
				t.Errorf("warned about file times: %t\n%s", warned, r.stdout)
			}
			if leases := e.Builders.ExportLeases(); !slices.Equal(leases, before) {
				t.Errorf("export leases remain: %q, before: %q", leases, before)
			}
		})
	}
}

// A registry that accepts a push and then does not have the image fails the build.
func TestPushIsChecked(t *testing.T) {
	e := setup(t)
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc // for the manifest, after the push
		want   string
	}{
		{"missing", http.NotFound, "the registry does not have sha256:"},
		{"web page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>Log in</html>")
		}, "not an image: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			var pushed atomic.Bool
			content := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				isManifest := strings.Contains(r.URL.Path, "/manifests/")
				if isManifest && pushed.Load() {
					test.answer(w, r)
					return
				}
				content.ServeHTTP(w, r)
				pushed.CompareAndSwap(false, isManifest && r.Method == http.MethodPut)
			}))
			defer server.Close()
			host := strings.TrimPrefix(server.URL, "http://")
			r := e.run(t, invocation{
				dockerfile: "FROM scratch\nCOPY Dockerfile /\n",
				inputs:     values{"load": "false", "push": host + "/team/lost:1", "provenance": "false"},
			})
			assertFailed(t, r, "^error: check the push to "+regexp.QuoteMeta(host)+"/team/lost:1: .*"+test.want)
			if !pushed.Load() {
				t.Error("nothing was pushed")
			}
		})
	}
}
