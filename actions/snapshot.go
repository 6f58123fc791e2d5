package actions

import (
	"context"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// Snapshot creates a Daytona snapshot of an image and sets its name in Doppler. The image is built and pushed from the
// builder, or an existing one is pushed from where it is. Nothing names a snapshot before it is active, and one that
// does not become active is deleted.
func Snapshot(ctx context.Context, env Env, in inputs.Snapshot) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return err
	}
	return env.runJob(ctx, spec.Timeout, func(ctx context.Context, job job) error {
		if err := checkForkPermissions(ctx, job, snapshotNeeds(job, spec)); err != nil {
			return err
		}
		session, err := prepareSnapshot(ctx, job, spec)
		if err != nil {
			return err
		}
		target, err := preflight(ctx, job, spec, session.Doppler)
		if err != nil {
			return err
		}
		upload, err := uploadImage(ctx, job, spec, session, target)
		if err != nil {
			return err
		}
		snapshot := upload.Existing
		if !upload.Reused {
			if snapshot, err = createSnapshot(ctx, job, spec, target, upload); err != nil {
				return err
			}
		}
		updated, err := updateDoppler(ctx, job, spec, session.Doppler, target, snapshot)
		if err != nil {
			return err
		}
		pruned := pruneSnapshots(ctx, job, spec, session.Doppler, target, snapshot, upload.Superseded)
		outputs := snapshotOutputs(upload, snapshot, updated)
		return publish(env, outputs, snapshotSummary(job, spec, upload, snapshot, updated, pruned))
	})
}
