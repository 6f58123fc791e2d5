package daytona

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/grace"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// RemovalError reports a deleted snapshot that still exists, or may still exist.
type RemovalError struct {
	Name  string
	State State // when the snapshot was last read; "" if it could not be read
	Err   error // why the deletion is not confirmed
}

func (e *RemovalError) Error() string {
	if e.State == Removing {
		return fmt.Sprintf("Daytona is still removing snapshot %s: %v (run `action-snapshot list` to check)", e.Name, e.Err)
	}
	state := ""
	if e.State != "" {
		state = fmt.Sprintf(", and the snapshot was last %s", e.State)
	}
	return fmt.Sprintf(
		"delete snapshot %s: not confirmed by Daytona%s: %v (run `action-snapshot list`; if it lists the snapshot, "+
			"run `action-snapshot delete %[1]s`)",
		e.Name,
		state,
		e.Err,
	)
}

func (e *RemovalError) Unwrap() error { return e.Err }

// Remove deletes a snapshot and waits until it no longer exists and its name is available. It returns nil if the
// snapshot does not exist or has no ID, and a *[RemovalError] if the snapshot is not gone after [Timing.Removal]. If
// ctx has ended or ends, Remove continues for [Timing.CleanupGrace].
//
// Daytona only marks a snapshot as removing, and removes marked ones every 10 seconds (checkSnapshotCleanup in
// apps/api/src/sandbox/managers/snapshot.manager.ts). Until then, the handlers of its states pending and pulling, which
// may have started earlier, can overwrite the mark (handleSnapshotStatePending, handleCheckInitialRunnerSnapshot); the
// snapshot then becomes active. Remove therefore deletes it again. Once it is gone, it cannot come back: a handler's
// update of a missing row fails (apps/api/src/sandbox/repositories/snapshot.repository.ts).
func (c *Client) Remove(ctx context.Context, s Snapshot) error {
	if s.ID == "" { // the path without an ID is that of the list
		return nil
	}
	ctx, stop := grace.Extend(ctx, c.Timing.withDefaults().CleanupGrace, errNoTime)
	defer stop()
	return c.remove(ctx, s)
}

func (c *Client) remove(ctx context.Context, s Snapshot) error {
	// After an inconclusive response, the snapshot's state shows whether Daytona removes it.
	if err := c.requestRemoval(ctx, s); err != nil && !isInconclusive(err) && context.Cause(ctx) == nil {
		return err
	}
	return c.confirmRemoval(ctx, s)
}

// confirmRemoval waits until a snapshot no longer exists after its removal was requested.
func (c *Client) confirmRemoval(ctx context.Context, s Snapshot) error {
	timing := c.Timing.withDefaults()
	var last State
	start := c.clock().Now()
	for intervals := c.intervals(); ; {
		state, err := c.ensureRemoving(ctx, s)
		last = cmp.Or(state, last)
		waited := c.clock().Now().Sub(start)
		switch cause := context.Cause(ctx); {
		case state == "" && err == nil:
			return nil
		case cause != nil:
			err = cause
		case waited < timing.Removal:
			_ = c.clock().Sleep(ctx, intervals.NextBackOff()) // if ctx ends, the next iteration returns
			continue
		case err == nil:
			err = fmt.Errorf("it exists after %s", waited.Round(time.Second))
		}
		return &RemovalError{s.Name, last, err}
	}
}

// ensureRemoving returns the state of a deleted snapshot, or "" if it is gone. It deletes the snapshot again if the
// state is not [Removing].
func (c *Client) ensureRemoving(ctx context.Context, s Snapshot) (State, error) {
	now, err := c.Get(ctx, s.ID)
	switch {
	case isNotFound(err):
		return "", nil
	case err == nil && now.State != Removing:
		err = c.requestRemoval(ctx, s)
	}
	return now.State, err
}

var errNoTime = errors.New("no time left to wait")

// requestRemoval requests the removal of a snapshot. It returns nil if the snapshot does not exist.
func (c *Client) requestRemoval(ctx context.Context, s Snapshot) error {
	_, err := c.send(ctx, call{op: "delete snapshot " + s.Name, permission: DeleteSnapshots},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return a.SnapshotsAPI.RemoveSnapshot(ctx, s.ID).Execute()
		})
	// errTransient: another operation changed the snapshot. Callers read its state next.
	if httpclient.Status(err) == http.StatusNotFound || errors.Is(err, errTransient) {
		return nil
	}
	return err
}

// WaitUntilRemoved polls a snapshot that Daytona is removing until it no longer exists, for as long as ctx allows. If
// the snapshot leaves the state [Removing], WaitUntilRemoved returns it; see [Client.Remove] for the reason.
func (c *Client) WaitUntilRemoved(ctx context.Context, s Snapshot) (Snapshot, error) {
	lastResponse := c.clock().Now()
	for intervals := c.intervals(); ; {
		now, err := c.Get(ctx, s.ID)
		switch {
		case isNotFound(err):
			return Snapshot{}, nil
		case context.Cause(ctx) != nil: // Sleep returns it
		case err == nil && now.State != Removing:
			return now, nil
		case err == nil:
			lastResponse = c.clock().Now()
		case !isInconclusive(err) || c.clock().Now().Sub(lastResponse) > c.Timing.withDefaults().Outage:
			return Snapshot{}, fmt.Errorf("wait until Daytona has removed snapshot %s: %w", s.Name, err)
		}
		if err := c.clock().Sleep(ctx, intervals.NextBackOff()); err != nil {
			return Snapshot{}, WithLeftovers(err, fmt.Errorf("snapshot %s still exists: Daytona is removing it (try "+
				"again in a minute, or use another name)", s.Name))
		}
	}
}
