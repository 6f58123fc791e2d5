package actions

import (
	"context"
	"errors"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/humanize"
)

// waitUntilActive waits until a snapshot with the given digest is active. It logs each change of its state, and the
// state every 15 seconds. It stops with the error of check, if check is set and
// returns one.
func waitUntilActive(
	ctx context.Context, job job, client daytona.Client, snapshot daytona.Snapshot, digest v1.Hash,
	check func(s daytona.Snapshot, since time.Duration) error,
) (active daytona.Snapshot, err error) {
	const dashboard = "https://app.daytona.io/dashboard/snapshots"
	defer startActivity(ctx, "Daytona to make snapshot %s active (see %s)", snapshot.Name, dashboard)()
	task := job.Screen.Start("Creating the snapshot", "snapshot "+snapshot.Name, "")
	defer func() { task.End(err) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	const interval = 15 * time.Second
	var state daytona.State
	var logged time.Time
	report := func(now daytona.Snapshot, since time.Duration) {
		task.State(string(now.State))
		if check != nil {
			if err := check(now, since); err != nil {
				cancel(err)
			}
		}
		recordState(ctx, now)
		switch {
		case now.State != state:
			job.Runner.Infof("Snapshot %s is %s", now.Name, now.State)
		case time.Since(logged) >= interval:
			job.Runner.Infof("Snapshot %s has been %s for %s", now.Name, now.State, humanize.Duration(since))
		default:
			return
		}
		state, logged = now.State, time.Now()
	}
	active, err = client.WaitUntilActive(ctx, snapshot.ID, digest.String(), report)
	if failed := (*daytona.SnapshotError)(nil); errors.As(err, &failed) && failed.Log != "" {
		writeUntrusted(job.Runner, failed.Log+"\n")
	}
	return active, err
}

// isFailed reports whether a snapshot will never become active.
func isFailed(s daytona.Snapshot) bool {
	return s.State == daytona.Failed || s.State == daytona.BuildFailed
}
