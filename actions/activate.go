package actions

import (
	"context"
	"errors"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// activate activates an existing snapshot, if it is inactive, and waits until it is active.
func activate(ctx context.Context, job job, client daytona.Client, s daytona.Snapshot) (daytona.Snapshot, error) {
	job.Runner.Infof("Reusing snapshot %s, which has the same image; nothing is pushed", s.Name)
	if s.State == daytona.Inactive {
		if err := client.Activate(ctx, s); err != nil {
			return daytona.Snapshot{}, err
		}
	}
	return waitUntilActive(ctx, job, client, s, s.Digest)
}

// waitUntilActive waits until a snapshot is active. It logs each change of its state, and the state every 15 seconds.
func waitUntilActive(
	ctx context.Context, job job, client daytona.Client, snapshot daytona.Snapshot, digest string,
) (daytona.Snapshot, error) {
	const dashboard = "https://app.daytona.io/dashboard/snapshots"
	defer startActivity(ctx, "snapshot %s to become active (see %s)", snapshot.Name, dashboard)()
	const interval = 15 * time.Second
	var state daytona.State
	var logged time.Time
	active, err := client.WaitUntilActive(ctx, snapshot.ID, digest, func(now daytona.Snapshot, since time.Duration) {
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
