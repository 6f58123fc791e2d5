package daytona

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// SnapshotError reports a snapshot that failed to become active.
type SnapshotError struct {
	Snapshot Snapshot
	Log      string // the end of its build log, if Daytona built it; untrusted
}

func (e *SnapshotError) Error() string {
	hint := "try again; if it persists, contact Daytona support"
	if known, ok := findMessage(0, e.reason()); ok {
		hint = known.hint
	}
	return fmt.Sprintf("snapshot %s is in state %s: %s (%s)", e.Snapshot.Name, e.Snapshot.State,
		safetext.Line(e.reason(), maxReason), hint)
}

// Is implements the interface of [errors.Is] for the errors in [messages].
func (e *SnapshotError) Is(target error) bool { return isReason(e.reason(), target) }

// reason returns why the snapshot failed, in one line.
func (e *SnapshotError) reason() string {
	lines := strings.Split(e.Log, "\n")
	return cmp.Or(safetext.Line(e.Snapshot.Reason, 0), safetext.Line(lines[len(lines)-1], 0), "Daytona reported no reason")
}

// DigestError reports an active snapshot of another image than the requested one.
type DigestError struct {
	Snapshot Snapshot
	Want     string // sha256:…
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("snapshot %s has the image %s instead of %s: the image was replaced in the registry (check who "+
		"can push to Daytona's registry with keys of the organization)",
		e.Snapshot.Name, cmp.Or(e.Snapshot.Digest, "with an unknown digest"), e.Want)
}

// UnconfirmedError reports a snapshot whose state could not be read. It may be active, or become active, unless Err has
// the status 404.
type UnconfirmedError struct {
	Name  string
	State State // when it was last read; "" if it was never read
	Err   error // why the state could not be read
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("cannot confirm that snapshot %s is active (last state: %s): %v", e.Name,
		cmp.Or(e.State, "unknown"), e.Err)
}

func (e *UnconfirmedError) Unwrap() error { return e.Err }

// WaitUntilActive polls a snapshot until it is active. After each poll it calls report, which may be nil, with the
// snapshot and how long it has been in its state. It keeps polling during unknown states, short outages and unusable
// responses. It returns a *[SnapshotError] if the snapshot fails, a *[DigestError] if it does not have the digest,
// unless that is empty, an *[UnconfirmedError] if it cannot read the state, and an error that wraps the cause of ctx if
// ctx ends.
//
// The snapshot must be active in two polls, with an interval between them, because it can fail right after it became
// active.
func (c *Client) WaitUntilActive(
	ctx context.Context, id, digest string, report func(s Snapshot, since time.Duration),
) (Snapshot, error) {
	clock, timing := c.clock(), c.Timing.withDefaults()
	var s Snapshot
	since, lastResponse := clock.Now(), clock.Now()
	for intervals := c.intervals(); ; {
		now, err := c.Get(ctx, id)
		unread := clock.Now().Sub(lastResponse)
		switch {
		case context.Cause(ctx) != nil:
			return s, c.timedOut(ctx, s, since)
		case isNotFound(err) && unread <= timing.Missing: // a replica of Daytona's database may lag behind
		case err != nil && (!isInconclusive(err) || unread > timing.Outage):
			return s, &UnconfirmedError{cmp.Or(s.Name, id), s.State, err}
		case err == nil:
			activeTwice := now.State == Active && s.State == Active && (digest == "" || now.Digest != "")
			if now.State != s.State {
				since, intervals = clock.Now(), c.intervals()
			}
			s, lastResponse = now, clock.Now()
			if report != nil {
				report(s, clock.Now().Sub(since))
			}
			if err := c.outcome(ctx, s, digest, clock.Now().Sub(since)); err != nil || activeTwice {
				return s, err
			}
		}
		if clock.Sleep(ctx, intervals.NextBackOff()) != nil {
			return s, c.timedOut(ctx, s, since)
		}
	}
}

// outcome returns why a snapshot, which has been in its state since a while, will not become active with the digest, or
// nil.
func (c *Client) outcome(ctx context.Context, s Snapshot, digest string, since time.Duration) error {
	switch s.State {
	case Failed, BuildFailed:
		return &SnapshotError{s, c.buildLog(ctx, s)}
	case Inactive:
		return fmt.Errorf("snapshot %s was deactivated while waiting for it to become active "+
			"(activate it in Daytona's dashboard, or run again)", s.Name)
	case Active:
		isKnown := s.Digest != "" || since > c.Timing.withDefaults().Outage
		if digest != "" && s.Digest != digest && isKnown {
			return &DigestError{s, digest}
		}
	}
	return nil
}

func (c *Client) timedOut(ctx context.Context, s Snapshot, since time.Time) error {
	if s.State == "" {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w; snapshot %s has been %s for %s (see the Snapshots page of Daytona's dashboard)",
		context.Cause(ctx), s.Name, s.State, c.clock().Now().Sub(since).Round(time.Second))
}

// logLines is how many lines of a build log are kept.
const logLines = 20

// buildLog returns the end of the build log, or "" for a snapshot of a pushed image, which has none.
func (c *Client) buildLog(ctx context.Context, s Snapshot) string {
	if s.State != BuildFailed {
		return ""
	}
	// Daytona blocks for up to 30 s until the snapshot has a runner (snapshot.controller.ts).
	spec := call{op: "read the build log of snapshot " + s.Name, timeout: 40 * time.Second}
	r, err := c.send(ctx, spec, func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
		return a.SnapshotsAPI.GetSnapshotBuildLogs(ctx, s.ID).Execute()
	})
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}

// Activate requests the activation of an inactive snapshot. [Client.WaitUntilActive] waits for it. The error is
// [ErrDeactivating] within ten minutes of the deactivation.
//
// Daytona pulls the image of the snapshot again. It has deleted an image that was pushed to its registry, so the
// snapshot usually fails, with a [SnapshotError] for which [NeedsPush] is true.
func (c *Client) Activate(ctx context.Context, s Snapshot) error {
	spec := call{
		op: "activate snapshot " + s.Name, permission: WriteSnapshots, idempotent: true,
		timeout: 90 * time.Second, // Daytona waits up to 60 s for a lock (activateSnapshot in snapshot.service.ts)
	}
	_, err := c.send(ctx, spec, func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
		return response(a.SnapshotsAPI.ActivateSnapshot(ctx, s.ID).Execute())
	})
	if httpclient.Status(err) == http.StatusBadRequest { // it may already be active or activating
		if now, getErr := c.Get(ctx, s.ID); getErr == nil && now.State != Inactive && now.State != Failed {
			return nil
		}
	}
	return err
}
