package builder

import (
	"context"
	"sync"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
)

// deleteTimeout limits the deletion of export leases. Depot's builders remove a remaining lease after an hour.
const deleteTimeout = time.Second

// DeleteOnRelease makes [Lease.Release] delete an export lease of the platform's daemon. The export lease protects a
// built image from garbage collection while it is read; see image.Result. An empty ID does nothing.
func (l *Lease) DeleteOnRelease(platform, exportLease string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.machines[platform]; m != nil && exportLease != "" {
		m.exportLeases = append(m.exportLeases, exportLease)
	}
}

// deleteExportLeases deletes the export leases of all daemons. It ignores errors: the leases expire.
func (l *Lease) deleteExportLeases() {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), deleteTimeout)
	defer cancel()
	var deletions sync.WaitGroup
	for _, m := range l.machines {
		for _, id := range m.exportLeases {
			// A machine with an export lease is connected.
			daemon := leasesapi.NewLeasesClient(m.link.conn())
			deletions.Go(func() { _, _ = daemon.Delete(ctx, &leasesapi.DeleteRequest{ID: id}) })
		}
	}
	deletions.Wait()
}
