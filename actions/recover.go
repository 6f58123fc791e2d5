package actions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// Limits on how often a snapshot is created, in addition to the input attempts.
const (
	maxConflicts = 6  // attempts that fail because of another snapshot of the same image or with the same name
	maxRoom      = 10 // snapshots that are deleted to make room

	// attemptsToReplace multiplies the input attempts if the snapshot that the new one replaces is deleted already.
	attemptsToReplace = 3
)

// ensureSnapshot returns an active snapshot of the uploaded image: an existing one, or a new one. If Daytona fails to
// create one for a reason of its own, it tries again. If another run has created a snapshot of the image in the
// meantime, it reuses that one. With an error, the snapshot is that of the last attempt, if Daytona has created one.
func ensureSnapshot(
	ctx context.Context, job job, spec inputs.SnapshotSpec, session snapshotSession, target snapshotTarget,
	upload imageUpload,
) (imageUpload, daytona.Snapshot, error) {
	var replaced, created daytona.Snapshot
	var err error
	for failures, conflicts, deleted := 0, 0, 0; err == nil && !upload.isReused(); {
		if old := upload.Existing.Conflicting; isUsable(old) {
			replaced = old
		}
		tries := failures + conflicts + deleted
		created, err = createSnapshot(ctx, job, spec, target, upload, tries)
		switch {
		case err == nil:
			return upload, created, nil
		case isConflict(err):
			conflicts++
		case isRoomNeeded(spec, err):
			deleted++
		default:
			failures++
		}
		limit := spec.Attempts
		if replaced.ID != "" {
			limit *= attemptsToReplace
		}
		// The variants of a run have the same image, so each can be in conflict with all others.
		conflictLimit := maxConflicts + len(spec.NamePrefixes()) - 1
		if failures >= limit || conflicts == conflictLimit || deleted > maxRoom || !canRetry(ctx, spec, err) {
			break
		}
		job.Runner.Infof("Attempt %d to create %s failed: %s; trying again", tries+1, describeSnapshot(spec), reasonOf(err))
		upload, err = nextUpload(ctx, job, spec, session, target, upload, err)
	}
	if err != nil {
		return upload, created, reportReplaced(ctx, target.Client, replaced, err)
	}
	return upload, upload.Existing.Reused, nil
}

func describeSnapshot(spec inputs.SnapshotSpec) string {
	if spec.Variant == "" {
		return "a snapshot"
	}
	return "the snapshot of the variant " + spec.Variant
}

func isConflict(err error) bool {
	return errors.Is(err, daytona.ErrInProgress) || errors.Is(err, daytona.ErrNameTaken)
}

// canRetry reports whether another attempt to create a snapshot may succeed. It may not if the failed snapshot may
// still be there.
func canRetry(ctx context.Context, spec inputs.SnapshotSpec, err error) bool {
	leftover := (*daytona.LeftoverError)(nil)
	return ctx.Err() == nil && !errors.As(err, &leftover) &&
		(daytona.IsTransient(err) || isConflict(err) || isRoomNeeded(spec, err))
}

// retryDelay is the wait before another attempt if Daytona refused to create a snapshot. If it created one that failed,
// the removal takes as long.
const retryDelay = 10 * time.Second

// waitToRetry waits before the attempt that follows a failed one.
func waitToRetry(ctx context.Context, client daytona.Client, cause error) error {
	refused := (*httpclient.APIError)(nil)
	if !errors.As(cause, &refused) || isConflict(cause) {
		return nil
	}
	defer startActivity(ctx, "another attempt to create the snapshot at Daytona")()
	return sleep(ctx, client, retryDelay)
}

func sleep(ctx context.Context, client daytona.Client, d time.Duration) error {
	var clock httpclient.Clock = httpclient.SystemClock{}
	if client.HTTP.Clock != nil {
		clock = client.HTTP.Clock
	}
	return clock.Sleep(ctx, d)
}

// nextUpload prepares the next attempt after a failed one. It pushes the image again if Daytona's registry has lost it,
// for which it builds the image again from the builder's cache. With an error, it returns the failed upload.
func nextUpload(
	ctx context.Context, job job, spec inputs.SnapshotSpec, session snapshotSession, target snapshotTarget,
	failed imageUpload, cause error,
) (imageUpload, error) {
	isQuota := isRoomNeeded(spec, cause)
	if isQuota || daytona.NeedsPush(cause) {
		session.exclusive.Lock()
		defer session.exclusive.Unlock()
	}
	if isQuota {
		if err := makeRoom(ctx, job, spec, session.Doppler, target, failed.Wanted, cause); err != nil {
			return failed, err
		}
	} else if err := waitToRetry(ctx, target.Client, cause); err != nil {
		return failed, err
	}
	if daytona.NeedsPush(cause) {
		if spec.Image == "" {
			session.Source = failed.Built.Source // fetched already
		}
		uploads, err := uploadImage(ctx, job, []inputs.SnapshotSpec{spec}, session, []snapshotTarget{target})
		if err != nil {
			return failed, err
		}
		return uploads[0], nil
	}
	if errors.Is(cause, daytona.ErrInProgress) {
		waitForOthers(ctx, job, target.Client, failed.Wanted)
	}
	next := failed
	var err error
	next.Existing, err = findExisting(ctx, job, target, failed.Wanted)
	return next, err
}

// waitForOthers waits until no other snapshot of the image is being created. Daytona processes one of them at a time
// (daytonaio/daytona v0.190.0, apps/api/src/sandbox/entities/job.entity.ts, IDX_UNIQUE_INCOMPLETE_JOB).
func waitForOthers(ctx context.Context, job job, client daytona.Client, wanted wantedSnapshot) {
	others, err := client.List(ctx, "")
	if err != nil {
		return // the next attempt reports it
	}
	for _, other := range others {
		if wanted.hasImage(other) && (other.State == daytona.Pending || other.State == daytona.Pulling) {
			job.Runner.Infof("Waiting for snapshot %s of the same image", other.Name)
			_, _ = waitUntilActive(ctx, job, client, other, wanted.digest, nil) // whether it succeeds does not matter here
		}
	}
}

// reportReplaced adds a replaced snapshot, which cannot be restored, to the error of the one that was to replace it,
// unless another run has created one with that name. Daytona deletes the image of a snapshot from its registry once the
// snapshot is active.
func reportReplaced(ctx context.Context, client daytona.Client, replaced daytona.Snapshot, cause error) error {
	if replaced.ID == "" {
		return cause
	}
	const limit = 2 * time.Second // after a cancellation
	if ctx.Err() != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		ctx = limited
	}
	switch now, found, err := client.Find(ctx, replaced.Name); {
	case err != nil:
		return daytona.WithLeftovers(cause, fmt.Errorf("snapshot %s, which it was to replace, may be deleted (run "+
			"`action-snapshot list`)", replaced.Name))
	case found && (isUsable(now) || now.ID != replaced.ID && !isFailed(now)):
		return cause
	}
	return daytona.WithLeftovers(cause, fmt.Errorf("snapshot %s, which it was to replace, is deleted; create another one "+
		"with that name before a sandbox starts from it", replaced.Name))
}
