package actions

import (
	"context"
	"fmt"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// createSnapshot creates a snapshot of the pushed image and waits until it is active. If the snapshot fails, it removes
// it.
func createSnapshot(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, upload imageUpload, retries int,
) (daytona.Snapshot, error) {
	name := spec.Name
	if name == "" {
		name = generateName(ctx, job, spec, upload, retries)
	}
	created, err := requestSnapshot(ctx, target.Client, daytona.Request{
		Name: name, Image: upload.Reference, Resources: spec.Resources, GPU: spec.GPU, SandboxClass: spec.SandboxClass,
		Entrypoint: upload.Wanted.entrypoint, Region: target.Region,
	})
	if err != nil {
		return daytona.Snapshot{}, err
	}
	var check func(daytona.Snapshot, time.Duration) error
	if retries == 0 {
		check = detectStall(ctx, target.Client, upload.Wanted)
	}
	active, err := waitUntilActive(ctx, job, target.Client, created, upload.Wanted.digest, check)
	if err != nil {
		return daytona.Snapshot{}, removeFailed(ctx, target.Client, created, err)
	}
	return active, nil
}

// removeFailed removes a snapshot that did not become active, because it would occupy its name and count toward the
// quota. It returns cause, wrapped in a [daytona.LeftoverError] if the removal cannot be confirmed.
func removeFailed(ctx context.Context, client daytona.Client, created daytona.Snapshot, cause error) error {
	defer startActivity(ctx, "Daytona to remove the snapshot %s", created.Name)()
	return daytona.WithLeftovers(cause, client.Remove(ctx, created))
}

func requestSnapshot(ctx context.Context, client daytona.Client, request daytona.Request) (daytona.Snapshot, error) {
	defer startActivity(ctx, "Daytona to create the snapshot %s", request.Name)()
	return client.Create(ctx, request)
}

// freeName removes the snapshot that occupies the new one's name: a failed one, or one to be replaced. It waits for one
// that is being removed already.
func freeName(ctx context.Context, job job, client daytona.Client, old daytona.Snapshot) error {
	switch {
	case old.ID == "":
		return nil
	case old.State == daytona.Removing:
		defer startActivity(ctx, "Daytona to remove the earlier snapshot %s", old.Name)()
		job.Runner.Infof("Waiting until Daytona has removed the earlier snapshot %s", old.Name)
		return client.WaitUntilRemoved(ctx, old.ID)
	case isFailed(old):
		job.Runner.Infof("Deleting the snapshot %s, which is in state %s", old.Name, old.State)
	case !isSettled(old):
		waitUntilSettled(ctx, job, client, old)
		fallthrough
	default:
		job.Runner.Warning(runner.Annotation{Message: fmt.Sprintf("replacing snapshot %s: no sandbox can start from this "+
			"name until the new one is active, or ever if it fails", old.Name)})
	}
	defer startActivity(ctx, "Daytona to remove the snapshot %s", old.Name)()
	return client.Remove(ctx, old)
}

// settleLimit is how long a run waits for the snapshot of another one before it replaces that snapshot.
const settleLimit = 10 * time.Minute

// waitUntilSettled waits until another run has created a snapshot, whether it becomes active or fails. Its deletion
// before that would make the other run fail.
func waitUntilSettled(ctx context.Context, job job, client daytona.Client, s daytona.Snapshot) {
	defer startActivity(ctx, "snapshot %s, which another run is creating", s.Name)()
	job.Runner.Infof("Waiting for snapshot %s, which another run is creating, before it is replaced", s.Name)
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	_, _ = client.WaitUntilActive(ctx, s.ID, "", nil)
}
