package actions

import (
	"context"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// Snapshot creates a Daytona snapshot of an image and sets its name in Doppler. It builds the image and pushes it from
// the builder, or pushes an existing image. It writes the snapshot's name to Doppler and the outputs only once the
// snapshot is active and verified, and deletes a snapshot that does not become active or does not work.
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
		if err := checkVerifySuite(job, spec, session.Source); err != nil {
			return err
		}
		target, err := preflight(ctx, job, spec, session.Doppler)
		if err != nil {
			return err
		}
		upload, snapshot, err := ensureSnapshot(ctx, job, spec, session, target)
		if err != nil {
			return err
		}
		verified, err := verify(ctx, job, spec, target, upload, snapshot)
		if err != nil {
			return err
		}
		update, err := updateDoppler(ctx, job, spec, target, snapshot)
		if err != nil {
			return err
		}
		pruned := pruneSnapshots(ctx, job, spec, session.Doppler, target, snapshot, upload.Existing.Superseded)
		outputs := snapshotOutputs(upload, snapshot, verified, update)
		return publish(env, outputs, snapshotSummary(job, spec, upload, snapshot, verified, update, pruned))
	})
}
