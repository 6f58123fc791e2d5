package actions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// createSnapshot creates a snapshot of the pushed image and waits until it is active. If the snapshot fails, it removes
// it. The snapshot that has the name is removed only after Daytona has accepted the rest of the request: Daytona checks
// the name last (daytonaio/daytona v0.190.0, apps/api/src/sandbox/services/snapshot.service.ts, createFromPull). With
// an error, it returns the snapshot that failed, if Daytona has created one.
func createSnapshot(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, upload imageUpload, retries int,
) (_ daytona.Snapshot, err error) {
	name := spec.Name
	if name == "" {
		name = generateName(ctx, job, spec, upload, retries)
	}
	defer startPhase(ctx, "Create snapshot %s", name).inGroup(job.Runner).end(&err)
	request := daytona.Request{
		Name: name, Image: upload.Reference, Resources: spec.Resources, GPU: spec.GPU, SandboxClass: spec.SandboxClass,
		Entrypoint: upload.Wanted.entrypoint, Region: target.Region,
	}
	created, err := requestSnapshot(ctx, job, spec, target.Client, request)
	old := upload.Existing.Conflicting
	if old.ID != "" && (errors.Is(err, daytona.ErrNameTaken) || errors.Is(err, daytona.ErrQuota)) {
		if err := freeName(ctx, job, target.Client, old); err != nil {
			return daytona.Snapshot{}, err
		}
		request.Keep = isUsable(old)
		created, err = requestSnapshot(ctx, job, spec, target.Client, request)
	}
	if err != nil {
		return daytona.Snapshot{}, err
	}
	var check func(daytona.Snapshot, time.Duration) error
	if retries == 0 {
		check = detectStall(ctx, target.Client, upload.Wanted)
	}
	active, err := waitUntilActive(ctx, job, target.Client, created, upload.Wanted.digest, check)
	if err != nil {
		if active.ID == "" { // its state was never read
			active = created
		}
		return active, removeFailed(ctx, target.Client, created, request.Keep, err)
	}
	return active, nil
}

// removeFailed removes a snapshot that failed, because it would occupy its name and count toward the quota. It removes
// that of a canceled run, too, unless it replaces a deleted one. It keeps a snapshot that may be active or become
// active. It returns cause, wrapped in a [daytona.LeftoverError] if the snapshot is or may be left.
func removeFailed(
	ctx context.Context, client daytona.Client, created daytona.Snapshot, isReplacement bool, cause error,
) error {
	isCanceled := ctx.Err() != nil
	if isCanceled && isReplacement {
		return daytona.WithLeftovers(cause, fmt.Errorf("snapshot %s was not deleted, because it replaces a deleted one",
			created.Name))
	}
	if !isCanceled && httpclient.Status(cause) == http.StatusNotFound {
		return fmt.Errorf("snapshot %s, which this run has created, is missing: another client may have deleted it (run "+
			"`action-snapshot list`, then run again): %w", created.Name, cause)
	}
	if !isCanceled && !hasFailed(cause) {
		return daytona.WithLeftovers(cause, fmt.Errorf("snapshot %s was not deleted; run `action-snapshot list`, and run "+
			"again to reuse it if it is active", created.Name))
	}
	defer startActivity(ctx, "Daytona to remove the snapshot %s", created.Name)()
	return daytona.WithLeftovers(cause, client.Remove(ctx, created))
}

// hasFailed reports whether the error of [waitUntilActive] means that the snapshot cannot be used.
func hasFailed(err error) bool {
	failed, wrong := (*daytona.SnapshotError)(nil), (*daytona.DigestError)(nil)
	return errors.As(err, &failed) || errors.As(err, &wrong) && wrong.Snapshot.Digest != "" ||
		errors.Is(err, daytona.ErrInProgress) // see detectStall
}

// maxReleases is how often a snapshot with a requested name is requested while Daytona refuses the name although no
// snapshot has it.
const maxReleases = 30

// requestSnapshot creates a snapshot. Daytona may refuse the requested name of a removed snapshot for a while.
func requestSnapshot(
	ctx context.Context, job job, spec inputs.SnapshotSpec, client daytona.Client, request daytona.Request,
) (daytona.Snapshot, error) {
	defer startActivity(ctx, "Daytona to create the snapshot %s", request.Name)()
	for refusals := 1; ; refusals++ {
		created, err := client.Create(ctx, request)
		if spec.Name == "" || !errors.Is(err, daytona.ErrNameTaken) {
			return created, err
		}
		if _, found, findErr := client.Find(ctx, request.Name); found || findErr != nil {
			return created, err
		}
		if refusals == maxReleases {
			return created, fmt.Errorf("create snapshot %s: Daytona has not released the name of a removed snapshot for %s "+
				"(try again later, or write another name)", request.Name, maxReleases*retryDelay)
		}
		job.Runner.Infof("Waiting until Daytona releases the name of the removed snapshot %s", request.Name)
		if err := sleep(ctx, client, retryDelay); err != nil {
			return created, err
		}
	}
}

// freeName removes the snapshot that occupies the new one's name: a failed one, or one to be replaced. It waits for one
// that is being removed already, for as long as ctx allows. The error is [daytona.ErrNameTaken] if that one is usable
// again.
func freeName(ctx context.Context, job job, client daytona.Client, old daytona.Snapshot) error {
	defer startActivity(ctx, "Daytona to remove the snapshot %s", old.Name)()
	if old.State == daytona.Removing {
		now, err := awaitRemoval(ctx, job, client, old)
		if err != nil || now.ID == "" {
			return err
		}
		if !isFailed(now) {
			return fmt.Errorf("snapshot %s was being removed, but is %s again: %w", now.Name, now.State,
				daytona.ErrNameTaken)
		}
		old = now
	}
	if isFailed(old) {
		job.Runner.Infof("Deleting the snapshot %s, which is in state %s", old.Name, old.State)
	} else {
		if err := waitUntilSettled(ctx, job, client, old); err != nil {
			return err
		}
		job.Runner.Warning(runner.Annotation{Message: fmt.Sprintf("replacing snapshot %s: no sandbox can start from this "+
			"name until the new one is active, or ever if it fails", old.Name)})
	}
	client.Timing.Outage = settleLimit // without the old snapshot, the run should not end in a short outage
	err := client.Remove(ctx, old)
	if slow := (*daytona.RemovalError)(nil); errors.As(err, &slow) && slow.State != daytona.Active && ctx.Err() == nil {
		_, err = awaitRemoval(ctx, job, client, old)
	}
	return err
}

// awaitRemoval waits until Daytona has removed a snapshot. It returns the snapshot if Daytona does not remove it.
func awaitRemoval(
	ctx context.Context, job job, client daytona.Client, old daytona.Snapshot,
) (daytona.Snapshot, error) {
	job.Runner.Infof("Waiting until Daytona has removed the earlier snapshot %s", old.Name)
	return client.WaitUntilRemoved(ctx, old)
}

// settleLimit is how long a run waits for the snapshot of another one before it replaces that snapshot.
const settleLimit = 10 * time.Minute

// waitUntilSettled waits until another run has created a snapshot, whether it becomes active or fails. Its deletion
// before that would make the other run fail. It returns an error if the state of the snapshot cannot be read.
func waitUntilSettled(ctx context.Context, job job, client daytona.Client, s daytona.Snapshot) error {
	if isSettled(s) {
		return nil
	}
	defer startActivity(ctx, "snapshot %s, which another run is creating", s.Name)()
	job.Runner.Infof("Waiting for snapshot %s, which another run is creating, before it is replaced", s.Name)
	limited, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	_, err := client.WaitUntilActive(limited, s.ID, "", nil)
	unread := (*daytona.UnconfirmedError)(nil)
	if errors.As(err, &unread) && httpclient.Status(err) != http.StatusNotFound {
		return err
	}
	return context.Cause(ctx)
}
