package actions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// pruneSnapshots deletes the superseded snapshots and all but the newest keep snapshots with the prefix. It skips those
// that may be in use, and returns the names of the deleted ones. A failure is only a warning, because the
// new snapshot is active already.
func pruneSnapshots(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler, created []createdSnapshot,
) (deleted []string) {
	defer startActivity(ctx, "the deletion of old snapshots")()
	warn := func(err error) {
		job.Runner.Warning(runner.Annotation{Title: notDeleted, Message: err.Error()})
	}
	client := created[0].Target.Client
	var old []daytona.Snapshot
	var err error
	for _, c := range created {
		var some []daytona.Snapshot
		if some, err = prunable(ctx, c); err != nil {
			break
		}
		old = append(old, some...)
	}
	if err == nil {
		old, err = withoutUsed(ctx, job, spec, config, client, old)
	}
	if err != nil {
		warn(err)
		return nil
	}
	if spec.DryRun {
		for _, s := range old {
			job.Runner.Infof("Would delete snapshot %s", s.Name)
		}
		return nil
	}
	if len(old) > 0 {
		defer startPhase(ctx, "Delete old snapshots").end(&err)
	}
	for i, err := range removeAll(ctx, client, old) {
		if err != nil {
			warn(err)
			continue
		}
		job.Runner.Infof("Deleted snapshot %s", old[i].Name)
		deleted = append(deleted, old[i].Name)
	}
	return deleted
}

const notDeleted = "Old snapshots were not deleted" // title of annotations

// withoutUsed returns the snapshots that nothing uses. It returns none if the Doppler token cannot read every config.
func withoutUsed(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler, client daytona.Client,
	old []daytona.Snapshot,
) ([]daytona.Snapshot, error) {
	if len(old) == 0 {
		return nil, nil
	}
	uses, unreadable, err := usesOf(ctx, config, spec.Secrets(), client, old)
	if err != nil {
		return nil, err
	}
	if len(unreadable) > 0 {
		job.Runner.Notice(runner.Annotation{Title: notDeleted, Message: fmt.Sprintf(
			"Kept %d old snapshots: the Doppler token cannot read %s, which may name them (use doppler_identity, or a token "+
				"that can read all configs of the project)", len(old), strings.Join(unreadable, " and "))})
		return nil, nil
	}
	return slices.DeleteFunc(old, func(s daytona.Snapshot) bool {
		if use := uses[s.Name]; use != "" {
			job.Runner.Infof("Kept snapshot %s: %s", s.Name, use)
		}
		return uses[s.Name] != ""
	}), nil
}

// removeAll removes snapshots and returns the error of each, in the same order. It removes them in parallel, because
// Daytona takes up to 10 seconds for each.
func removeAll(ctx context.Context, client daytona.Client, snapshots []daytona.Snapshot) []error {
	const parallel = 8
	failures := make([]error, len(snapshots))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, s := range snapshots {
		group.Go(func() error {
			failures[i] = client.Remove(ctx, s)
			return nil
		})
	}
	_ = group.Wait() // each failure is in failures
	return failures
}

// prunable returns the snapshots that may be deleted if they are unused: the superseded ones, and all but the newest
// keep with the prefix. Only names that generateName produced for this prefix count: another prefix may begin with it.
// The current snapshot counts toward keep. Snapshots that another run is creating or removing, or has created since
// this run started, and those that are newer than the current one, are not included. The times are Daytona's: the clock
// of this machine may be wrong.
func prunable(ctx context.Context, c createdSnapshot) ([]daytona.Snapshot, error) {
	spec, current := c.Spec, c.Snapshot
	old := slices.Clone(c.Upload.Existing.Superseded)
	if spec.Keep > 0 {
		list, err := c.Target.Client.List(ctx, spec.NamePrefix) // newest first
		if err != nil {
			return nil, err
		}
		others := slices.DeleteFunc(list, func(s daytona.Snapshot) bool {
			return s.ID == current.ID || slices.ContainsFunc(old, hasID(s.ID))
		})
		started := current.Created.Add(-c.Elapsed) // or earlier
		old = append(old, beyondKept(others, spec.NamePrefix, spec.Keep-1, started)...)
	}
	return slices.DeleteFunc(old, func(s daytona.Snapshot) bool {
		return s.ID == current.ID || !isSettled(s) || !s.Created.Before(current.Created) ||
			!isGeneratedName(spec.NamePrefix, s.Name)
	}), nil
}

// beyondKept returns all but the newest keep snapshots of a list, which has the newest first. Only settled snapshots
// with generated names of the prefix count, and those that another run has created since this run started are kept.
func beyondKept(list []daytona.Snapshot, prefix string, keep int, started time.Time) []daytona.Snapshot {
	ours := slices.DeleteFunc(slices.Clone(list), func(s daytona.Snapshot) bool {
		return !isSettled(s) || !isGeneratedName(prefix, s.Name)
	})
	return slices.DeleteFunc(ours[min(len(ours), keep):], func(s daytona.Snapshot) bool {
		return !s.Created.Before(started)
	})
}

func hasID(id string) func(daytona.Snapshot) bool {
	return func(s daytona.Snapshot) bool { return s.ID == id }
}

// isSettled reports whether no run is creating or removing a snapshot. Daytona accepts a deletion in every state, but
// one that is requested while a snapshot is pending has no effect (daytonaio/daytona v0.190.0,
// apps/api/src/sandbox/managers/snapshot.manager.ts, handleSnapshotStatePending).
func isSettled(s daytona.Snapshot) bool {
	return s.State == daytona.Active || s.State == daytona.Inactive || isFailed(s)
}
