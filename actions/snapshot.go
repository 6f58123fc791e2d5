package actions

import (
	"context"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// Snapshot creates a Daytona snapshot of an image, or one for each variant, and sets their names in Doppler. It builds
// the image and pushes it from the builder, or pushes an existing image. It writes the names to Doppler and the outputs
// only once all snapshots are active and verified, and deletes a snapshot that does not become active or does not work.
func Snapshot(ctx context.Context, env Env, in inputs.Snapshot) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return err
	}
	return env.runJob(ctx, spec.Timeout, func(ctx context.Context, job job) error {
		if err := checkForkPermissions(ctx, job, snapshotNeeds(job, spec)); err != nil {
			return err
		}
		if spec.Optional {
			spec = chooseImage(ctx, job, spec)
		}
		session, err := prepareSnapshot(ctx, job, spec)
		if err != nil {
			return err
		}
		if err := checkVerifySuite(job, spec, session.Source); err != nil {
			return err
		}
		targets, err := preflight(ctx, job, spec, session.Doppler)
		if err != nil {
			return err
		}
		created, err := ensureSnapshots(ctx, job, spec, session, targets)
		if err != nil {
			return err
		}
		names := namings(ctx, job, created)
		deployed := startDeployment(ctx, job, spec.GitHubToken, spec.Environment, names[0].Record)
		update, err := writeNames(ctx, job, names)
		deployed.finish(ctx, job, update, err)
		if err != nil {
			return err
		}
		pruned := pruneSnapshots(ctx, job, spec, session.Doppler, created)
		outputs := snapshotOutputs(created, update)
		return publish(env, outputs, snapshotSummary(job, created, update, pruned))
	})
}
