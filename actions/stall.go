package actions

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// stallLimit is how long a snapshot may be pulling while another one of the same image is active in its region.
const stallLimit = time.Minute

// detectStall returns a function for [waitUntilActive] that reports a snapshot that Daytona leaves in the state
// pulling. That happens with a runner of API version 0 if another snapshot of the image becomes active at the same
// time: Daytona looks at the image on the runner again only after ten minutes (daytonaio/daytona v0.190.0,
// apps/api/src/sandbox/managers/snapshot.manager.ts, handleSnapshotRunnerStatePullingSnapshot). Another attempt takes
// seconds.
func detectStall(
	ctx context.Context, client daytona.Client, wanted wantedSnapshot,
) func(daytona.Snapshot, time.Duration) error {
	checked := false
	return func(s daytona.Snapshot, since time.Duration) error {
		if checked || s.State != daytona.Pulling || since < stallLimit {
			return nil
		}
		checked = true
		list, _ := client.List(ctx, "") // without a list, the snapshot may still become active
		for _, other := range list {
			if other.ID != s.ID && other.State == daytona.Active && wanted.hasImage(other) &&
				slices.Equal(other.Regions, s.Regions) {
				return fmt.Errorf("snapshot %s is not active after %s, although snapshot %s of the same image is: %w",
					s.Name, stallLimit, other.Name, daytona.ErrInProgress)
			}
		}
		return nil
	}
}
