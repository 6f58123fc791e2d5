package actions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// isRoomNeeded reports whether a snapshot was refused because of the quota and others may be deleted for it.
func isRoomNeeded(spec inputs.SnapshotSpec, err error) bool {
	return spec.MakeRoom && errors.Is(err, daytona.ErrQuota)
}

// makeRoom deletes the snapshot of this run's prefixes that was not used for the longest time, because the quota is
// exceeded. The rules are those of [pruneSnapshots]: it deletes none of the newest that the input keep keeps, none in
// use, and none of the image of this run, which another variant may reuse. Only active snapshots count toward the
// quota; a failed or inactive one makes no room (daytonaio/daytona v0.190.0,
// apps/api/src/organization/constants/snapshot-states-consuming-resources.constant.ts).
//
// Without such a snapshot, the error wraps cause.
func makeRoom(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler, target snapshotTarget,
	wanted wantedSnapshot, cause error,
) error {
	defer startActivity(ctx, "the deletion of an old snapshot")()
	prefixes := spec.NamePrefixes()
	list, err := target.Client.List(ctx, prefixes[0]) // newest first; the others begin with this one
	if err != nil {
		return err
	}
	var old []daytona.Snapshot
	started := job.Started.Add(-clockSkew)
	for _, prefix := range prefixes {
		old = append(old, beyondKept(list, prefix, max(spec.Keep-1, 0), started)...)
	}
	old = slices.DeleteFunc(old, func(s daytona.Snapshot) bool { return s.State != daytona.Active || wanted.hasImage(s) })
	if old, err = withoutUsed(ctx, job, spec, config, target.Client, old); err != nil {
		return err
	}
	if len(old) == 0 {
		return fmt.Errorf("%w; make_room found no unused snapshot to delete with the prefix %s", cause,
			strings.Join(prefixes, " or "))
	}
	oldest := slices.MinFunc(old, func(a, b daytona.Snapshot) int { return lastUse(a).Compare(lastUse(b)) })
	if err := target.Client.Remove(ctx, oldest); err != nil {
		return daytona.WithLeftovers(cause, err)
	}
	job.Runner.Infof("Deleted snapshot %s, last used %s ago, because the quota was exceeded", oldest.Name,
		units.HumanDuration(time.Since(lastUse(oldest))))
	return nil
}

// lastUse returns when a snapshot was last used, or its creation if it never was.
func lastUse(s daytona.Snapshot) time.Time {
	if s.Used.IsZero() {
		return s.Created
	}
	return s.Used
}
