package actions

import (
	"context"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Snapshot creates a Daytona snapshot of an image, or one for each variant, and sets their names in Doppler. It builds
// the image and pushes it from the builder, or pushes an existing image. It writes the names to Doppler and the outputs
// only once all snapshots are active and verified, and deletes a snapshot that does not become active or does not work.
func Snapshot(ctx context.Context, env Env, in inputs.Snapshot) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return env.reject(err)
	}
	if in.Doctor {
		env.Checks = snapshotChecks(env, spec)
	}
	return env.runJob(ctx, spec.Timeout, spec.Report, func(
		ctx context.Context, job job,
	) (run runrecord.Record, err error) {
		if err := checkForkPermissions(ctx, job, snapshotNeeds(job, spec)); err != nil {
			return run, err
		}
		if spec.Optional {
			spec = chooseImage(ctx, job, spec)
		}
		session, err := prepareSnapshot(ctx, job, spec)
		run.Source = sourceRecord(job, spec.BuildSpec, session.Source)
		if err != nil {
			return run, err
		}
		if err := checkVerifySuite(job, spec, session.Source); err != nil {
			return run, err
		}
		targets, err := preflight(ctx, job, spec, session.Doppler)
		if err != nil {
			return run, err
		}
		created, err := ensureSnapshots(ctx, job, spec, session, targets)
		addSnapshots(&run, job, spec, session, created)
		if err != nil {
			return run, err
		}
		names := namings(ctx, job, created)
		deployed := startDeployment(ctx, job, spec.GitHubToken, spec.Environment, names[0].Record)
		update, err := writeNames(ctx, job, names)
		run.Doppler = dopplerRecord(update, targets[0].Doppler)
		switch {
		case !spec.UpdateDoppler:
			run.Doppler.Skipped = "update_doppler is false"
		case len(targets[0].Doppler) == 0:
			run.Doppler.Skipped = "no Doppler token is set"
		}
		deployed.finish(ctx, job, update, err)
		if err != nil {
			return run, err
		}
		run.Doppler.Deleted = pruneSnapshots(ctx, job, spec, session.Doppler, created)
		run.Outputs = outputList(snapshotOutputs(created, update))
		return run, nil
	})
}
