package builders

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// export solves a Dockerfile with these exporters and returns the response.
func export(t *testing.T, bk *client.Client, exports ...client.ExportEntry) (map[string]string, error) {
	t.Helper()
	dir := t.TempDir()
	dockerfile := "FROM scratch\nCOPY Dockerfile /\nLABEL name=" + t.Name() + "\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	response, err := bk.Solve(t.Context(), nil, client.SolveOpt{
		Frontend: "dockerfile.v0", LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": tree}, Exports: exports,
	}, nil)
	if err != nil {
		return nil, err
	}
	return response.ExporterResponse, nil
}

// Through a connection, a machine removes an image after the solve unless the client holds a lease.
func TestGarbageCollection(t *testing.T) {
	b := start(t, Options{Platforms: []string{"linux/amd64"}})
	connection, err := b.Open("linux/amd64", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	bk, err := connect(t, connection, connection.CACert, connection.Cert, connection.Key)
	if err != nil {
		t.Fatal(err)
	}
	readable := func(digest string) bool {
		stream, err := bk.ContentClient().Read(t.Context(), &contentapi.ReadContentRequest{Digest: digest})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil && status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
		return err == nil
	}
	image := func(attrs map[string]string) map[string]string {
		t.Helper()
		response, err := export(t, bk, client.ExportEntry{Type: client.ExporterImage, Attrs: attrs})
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	plain := image(nil)
	digest := plain[exptypes.ExporterImageDigestKey]
	if readable(digest) || len(plain["depot/images.exported"]) > 0 || len(b.ExportLeases()) > 0 {
		t.Errorf("without a lease: readable %t, leases %q, %v", readable(digest), b.ExportLeases(), plain)
	}
	leased := image(map[string]string{"depot.export.lease": "true", "depot.export.image.version": "2"})
	if leased[exptypes.ExporterImageDigestKey] != digest || !readable(digest) || leased["depot/images.exported"] == "" {
		t.Errorf("with a lease: readable %t, %v", readable(digest), leased)
	}
	if leases := b.ExportLeases(); len(leases) != 1 || leases[0] != leased["depot/session.id"] {
		t.Errorf("leases %q, the response has %q", leases, leased["depot/session.id"])
	}
	calls := b.Calls()
	if readable(digest); b.Calls() != calls+1 {
		t.Errorf("%d calls after a read, %d before", b.Calls(), calls)
	}
	image(nil) // a second solve does not remove what the lease protects
	if !readable(digest) {
		t.Error("the second solve removed the leased image")
	}
}

// V011 runs the first of several exporters and ignores the others. It reads only the exporter's deprecated field, which
// BuildKit's client sets to the first one. The current version runs all of them.
func TestExportersOfVersions(t *testing.T) {
	for version, want := range map[Version]bool{Current: true, V011: false} {
		t.Run("version "+string(version), func(t *testing.T) {
			b := start(t, Options{Platforms: []string{"linux/amd64"}, Version: version})
			bk, err := client.New(t.Context(), b.Address("linux/amd64"))
			if err != nil {
				t.Fatal(err)
			}
			defer bk.Close()
			var second strings.Builder
			response, err := export(t, bk,
				client.ExportEntry{Type: client.ExporterLocal, OutputDir: filepath.Join(t.TempDir(), "first")},
				client.ExportEntry{Type: client.ExporterTar, Output: func(map[string]string) (io.WriteCloser, error) {
					return writeCloser{&second}, nil
				}},
				client.ExportEntry{Type: client.ExporterImage},
			)
			if err != nil {
				t.Fatal(err)
			}
			_, exported := response[exptypes.ExporterImageDigestKey]
			if exported != want || (second.Len() > 0) != want {
				t.Errorf("image exported: %t, tar of %d bytes; want all: %t", exported, second.Len(), want)
			}
		})
	}
}

type writeCloser struct{ io.Writer }

func (writeCloser) Close() error { return nil }
