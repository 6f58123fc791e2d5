package actions

import (
	"context"
	"net/http"
	"slices"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// pruneSnapshots deletes the superseded snapshots and all but the newest keep snapshots with the prefix. It skips those
// that a Doppler config names and those in use, and returns the names of the deleted ones. A failure is only a warning,
// because the new snapshot is active already.
func pruneSnapshots(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler, target snapshotTarget,
	current daytona.Snapshot, superseded []daytona.Snapshot,
) (deleted []string) {
	defer startActivity(ctx, "the deletion of old snapshots")()
	warn := func(err error) {
		job.Runner.Warning(runner.Annotation{Title: "Old snapshots were not deleted", Message: err.Error()})
	}
	old, err := prunable(ctx, spec, target, current, superseded)
	if err != nil {
		warn(err)
		return nil
	}
	if len(old) == 0 {
		return nil
	}
	configOf, err := configsByName(ctx, config)
	if err != nil {
		warn(err)
		return nil
	}
	for _, s := range old {
		if config := configOf[s.Name]; config != "" {
			job.Runner.Infof("Kept snapshot %s, which the Doppler config %s names", s.Name, config)
			continue
		}
		if spec.DryRun {
			job.Runner.Infof("Would delete snapshot %s", s.Name)
			continue
		}
		switch err := target.Client.Remove(ctx, s); {
		case httpclient.Status(err) == http.StatusConflict:
			job.Runner.Infof("Kept snapshot %s, which is in use", s.Name)
		case err != nil:
			warn(err)
			return deleted
		default:
			job.Runner.Infof("Deleted snapshot %s", s.Name)
			deleted = append(deleted, s.Name)
		}
	}
	return deleted
}

// prunable returns the snapshots that may be deleted: the superseded ones, and all but the newest keep with the prefix.
// The current snapshot counts toward keep.
func prunable(
	ctx context.Context, spec inputs.SnapshotSpec, target snapshotTarget, current daytona.Snapshot,
	superseded []daytona.Snapshot,
) ([]daytona.Snapshot, error) {
	old := slices.DeleteFunc(slices.Clone(superseded), func(s daytona.Snapshot) bool {
		return s.ID == target.Existing.ID // deleted to free the name
	})
	if spec.Keep == 0 {
		return old, nil
	}
	list, err := target.Client.List(ctx, spec.NamePrefix) // newest first
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(list, func(s daytona.Snapshot) bool {
		return s.ID == current.ID || slices.ContainsFunc(old, func(o daytona.Snapshot) bool { return o.ID == s.ID })
	})
	return append(old, others[min(len(others), spec.Keep-1):]...), nil
}

// configsByName maps the name of a snapshot to a Doppler config that names it.
func configsByName(ctx context.Context, config credentials.Doppler) (map[string]string, error) {
	if config.Client == nil {
		return nil, nil
	}
	values, err := config.Client.ValuesByConfig(ctx, credentials.SnapshotNameSecret)
	configOf := map[string]string{}
	for config, name := range values {
		configOf[name] = config
	}
	return configOf, err
}
