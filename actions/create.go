package actions

import (
	"context"
	"fmt"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// createSnapshot creates a snapshot of the pushed image and waits until it is active. It first deletes an existing
// snapshot with the same name. If the new snapshot fails, it deletes that one too.
func createSnapshot(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, upload imageUpload,
) (daytona.Snapshot, error) {
	name := spec.Name
	if name == "" {
		name = generateName(ctx, job, spec, upload)
	}
	if target.Existing.ID != "" {
		if err := deleteConflicting(ctx, job, target); err != nil {
			return daytona.Snapshot{}, err
		}
	}
	created, err := requestSnapshot(ctx, target.Client, daytona.Request{
		Name: name, Image: upload.Reference, Resources: spec.Resources, Entrypoint: spec.Entrypoint, Region: target.Region,
	})
	if err == nil {
		created, err = waitUntilActive(ctx, job, target.Client, created, upload.Digest.String())
	}
	if err != nil {
		return daytona.Snapshot{}, deleteFailed(ctx, job, target, created, err)
	}
	return created, nil
}

func requestSnapshot(ctx context.Context, client daytona.Client, request daytona.Request) (daytona.Snapshot, error) {
	defer startActivity(ctx, "Daytona to create the snapshot %s", request.Name)()
	return client.Create(ctx, request)
}

// deleteConflicting deletes the snapshot that occupies the new one's name: a failed one, or one to be replaced.
func deleteConflicting(ctx context.Context, job job, target snapshotTarget) error {
	old := target.Existing
	defer startActivity(ctx, "Daytona to delete the snapshot %s", old.Name)()
	if isFailed(old) {
		job.Runner.Infof("Deleting the snapshot %s, which an earlier run left in state %s", old.Name, old.State)
	} else {
		job.Runner.Warning(runner.Annotation{Message: fmt.Sprintf("replacing snapshot %s: no sandbox can start from this "+
			"name until the new one is active, or ever if it fails", old.Name)})
	}
	return target.Client.Remove(ctx, old)
}

// deleteFailed deletes a snapshot that did not become active, because it would occupy its name and count toward the
// quota. It returns cause, wrapped in a [daytona.LeftoverError] if something is left for the user to clean up.
func deleteFailed(
	ctx context.Context, job job, target snapshotTarget, created daytona.Snapshot, cause error,
) error {
	var leftovers []string
	if replaced := target.Existing; replaced.ID != "" && !isFailed(replaced) {
		// Daytona deletes a snapshot's image from its registry once the snapshot is active, so it cannot be restored.
		leftovers = append(leftovers, fmt.Sprintf("snapshot %s, which it was to replace, is deleted; create another one "+
			"with that name before a sandbox starts from it", replaced.Name))
	}
	if created.ID != "" {
		if err := target.Client.Remove(ctx, created); err != nil {
			leftovers = append(leftovers, fmt.Sprintf("snapshot %s could not be deleted (%s); delete it at "+
				"https://app.daytona.io/dashboard/snapshots", created.Name, job.Runner.Redact(err.Error())))
		}
	}
	if len(leftovers) == 0 {
		return cause
	}
	return &daytona.LeftoverError{Err: cause, Leftovers: leftovers}
}
