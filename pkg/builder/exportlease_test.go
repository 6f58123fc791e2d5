package builder

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"
)

// Release deletes the leases that protect exported images at Depot's machines.
func TestExportLeaseIsDeleted(t *testing.T) {
	s := startDepotWithMachines(t)
	lease := acquire(t, depot(s, &journal{}, "project-token"), Request{})
	c, err := lease.Machine(t.Context(), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nLABEL a=b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	var exportLeases []string
	for range 2 {
		response, err := c.Solve(t.Context(), nil, client.SolveOpt{
			Frontend: "dockerfile.v0", LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": tree},
			Exports: []client.ExportEntry{{
				Type: client.ExporterImage, Attrs: map[string]string{"depot.export.lease": "true"},
			}},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		exportLeases = append(exportLeases, response.ExporterResponse["depot/session.id"])
	}
	slices.Sort(exportLeases)
	if held := machines(t).ExportLeases(); !slices.Equal(held, exportLeases) {
		t.Fatalf("held %q, want %q", held, exportLeases)
	}
	for _, id := range exportLeases {
		lease.DeleteOnRelease("linux/amd64", id)
	}
	lease.DeleteOnRelease("linux/amd64", "") // of a builder that is not Depot's
	lease.DeleteOnRelease("linux/riscv64", exportLeases[0])
	lease.Release(nil)
	if held := machines(t).ExportLeases(); len(held) > 0 {
		t.Errorf("held %q after the release", held)
	}
}
