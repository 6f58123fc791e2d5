package actions

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
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

// snapshotSession is what a snapshot needs before Daytona is asked for anything.
type snapshotSession struct {
	session
	Image existingImage // zero if the image is built
}

// prepareSnapshot reads the credentials and opens the existing image, or prepares the build.
func prepareSnapshot(ctx context.Context, job job, spec inputs.SnapshotSpec) (snapshotSession, error) {
	if spec.Image == "" {
		s, err := prepare(ctx, job, spec.BuildSpec)
		return snapshotSession{session: s}, err
	}
	doppler, err := readDoppler(ctx, job.Env, spec.Doppler, isDopplerOptional(job, spec))
	if err != nil {
		return snapshotSession{}, err
	}
	img, err := openImage(ctx, job, spec.BuildSpec, doppler, nil, spec.Image, inputs.SnapshotPlatform)
	return snapshotSession{session{Doppler: doppler}, img}, err
}

// createSnapshot creates a snapshot of the pushed image and waits until it is active. It deletes the snapshot that has
// the name first, and the new one if it fails.
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
		created, err = waitUntilActive(ctx, job, target.Client, created)
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

// deleteConflicting frees the name of the new snapshot: failed snapshots occupy names, and so do those to be replaced.
func deleteConflicting(ctx context.Context, job job, target snapshotTarget) error {
	old := target.Existing
	defer startActivity(ctx, "Daytona to delete the snapshot %s", old.Name)()
	if isFailed(old) {
		job.Runner.Infof("Deleting the snapshot %s, which an earlier run left in state %s", old.Name, old.State)
	} else {
		job.Runner.Warning(runner.Annotation{Message: fmt.Sprintf("replacing snapshot %s: no sandbox can start from this "+
			"name until the new one is active, or ever if it fails", old.Name)})
	}
	if err := target.Client.Delete(ctx, old.ID); err != nil {
		return err
	}
	return target.Client.WaitUntilRemoved(ctx, old.ID)
}

// deletionGrace bounds the deletion of a failed snapshot, also of a run that is canceled.
const deletionGrace = 4 * time.Second

// deleteFailed deletes a snapshot that did not become active: it would occupy its name and a place in the quota.
func deleteFailed(
	ctx context.Context, job job, target snapshotTarget, created daytona.Snapshot, cause error,
) error {
	var leftovers []string
	if replaced := target.Existing; replaced.ID != "" && !isFailed(replaced) {
		// Daytona deleted its image once it was active, so it cannot be created again.
		leftovers = append(leftovers, fmt.Sprintf("snapshot %s, which it was to replace, is deleted; create another one "+
			"with that name before a sandbox starts from it", replaced.Name))
	}
	if created.ID != "" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deletionGrace)
		defer cancel()
		if err := target.Client.Delete(ctx, created.ID); err != nil {
			leftovers = append(leftovers, fmt.Sprintf("snapshot %s could not be deleted (%s); delete it at "+
				"https://app.daytona.io/dashboard/snapshots", created.Name, job.Runner.Redact(err.Error())))
		}
	}
	if len(leftovers) == 0 {
		return cause
	}
	return &daytona.LeftoverError{Err: cause, Leftovers: leftovers}
}

// waitUntilActive waits for a snapshot and logs its state when it changes, and every 15 seconds.
func waitUntilActive(
	ctx context.Context, job job, client daytona.Client, snapshot daytona.Snapshot,
) (daytona.Snapshot, error) {
	const dashboard = "https://app.daytona.io/dashboard/snapshots"
	defer startActivity(ctx, "snapshot %s to become active (see %s)", snapshot.Name, dashboard)()
	const interval = 15 * time.Second
	var state daytona.State
	var logged time.Time
	active, err := client.WaitUntilActive(ctx, snapshot.ID, func(now daytona.Snapshot, since time.Duration) {
		switch {
		case now.State != state:
			job.Runner.Infof("Snapshot %s is %s", now.Name, now.State)
		case time.Since(logged) >= interval:
			job.Runner.Infof("Snapshot %s has been %s for %s", now.Name, now.State, since.Round(time.Second))
		default:
			return
		}
		state, logged = now.State, time.Now()
	})
	if failed := (*daytona.SnapshotError)(nil); errors.As(err, &failed) && failed.Log != "" {
		writeUntrusted(job.Runner, failed.Log+"\n")
	}
	return active, err
}

// isFailed reports whether a snapshot will never become active.
func isFailed(s daytona.Snapshot) bool {
	return s.State == daytona.Failed || s.State == daytona.BuildFailed
}

// updateDoppler sets the name of the snapshot in Doppler and reports whether it changed. It keeps the name of a newer
// snapshot that another run has set meanwhile.
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

// newerSnapshotError reports that Doppler names a newer snapshot of the same prefix.
type newerSnapshotError struct{ name string }

func (e *newerSnapshotError) Error() string {
	return fmt.Sprintf("another run has created %s, which is newer", e.name)
}

// checkNotNewer returns a [newerSnapshotError] if the name that Doppler holds now is of a newer snapshot than this one.
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
