package actions

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// updateDoppler sets the name of the snapshot in Doppler and reports whether it changed. If another run has set the
// name of a newer snapshot in the meantime, it keeps that name.
func updateDoppler(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler, target snapshotTarget,
	snapshot daytona.Snapshot,
) (updated bool, err error) {
	if !spec.UpdateDoppler {
		return false, nil
	}
	defer startActivity(ctx, "Doppler")()
	values := map[string]string{
		credentials.SnapshotNameSecret: snapshot.Name,
		credentials.MirroredNameSecret: credentials.MirroredNameValue,
	}
	updated, err = config.Client.Set(ctx, values, func(current map[string]string) error {
		return checkNotNewer(ctx, spec, target, snapshot, current[credentials.SnapshotNameSecret])
	})
	if newer := (*newerSnapshotError)(nil); errors.As(err, &newer) {
		job.Runner.Notice(runner.Annotation{Title: "Doppler was not updated", Message: newer.Error()})
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("snapshot %s is active, but updating Doppler failed: %w (run again, or set %s=%s in the "+
			"config %q)", snapshot.Name, err, credentials.SnapshotNameSecret, snapshot.Name, spec.Doppler.DopplerConfig)
	}
	return updated, nil
}

// newerSnapshotError reports that Doppler already names a newer snapshot with the same prefix.
type newerSnapshotError struct{ name string }

func (e *newerSnapshotError) Error() string {
	return fmt.Sprintf("another run has created %s, which is newer", e.name)
}

// checkNotNewer returns a [*newerSnapshotError] if current, the name in Doppler, is that of a newer snapshot.
func checkNotNewer(
	ctx context.Context, spec inputs.SnapshotSpec, target snapshotTarget, snapshot daytona.Snapshot, current string,
) error {
	isOurs := strings.HasPrefix(current, spec.NamePrefix)
	if !isOurs || current == "" || current == target.PreviousName || current == snapshot.Name {
		return nil
	}
	other, found, err := target.Client.Find(ctx, current)
	if err != nil {
		return err
	}
	if found && other.Created.After(snapshot.Created) {
		return &newerSnapshotError{current}
	}
	return nil
}
