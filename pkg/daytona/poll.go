package daytona

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	api "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// intervals returns the increasing polling intervals.
func (c *Client) intervals() *backoff.ExponentialBackOff {
	timing := c.Timing.withDefaults()
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = timing.MinPoll, timing.MaxPoll
	return b
}

// SnapshotError reports a snapshot that failed to become active.
type SnapshotError struct {
	Snapshot Snapshot
	Log      string // the end of its build log, if Daytona built it; untrusted
}

func (e *SnapshotError) Error() string {
	reason := safetext.Line(e.Snapshot.Reason, maxReason)
	if lines := strings.Split(e.Log, "\n"); reason == "" {
		reason = safetext.Line(lines[len(lines)-1], maxReason)
	}
	if reason == "" {
		reason = "Daytona reported no reason"
	}
	return fmt.Sprintf("snapshot %s is in state %s: %s (%s)", e.Snapshot.Name, e.Snapshot.State, reason, hint(reason))
}

// maxReason is the maximum number of characters that an error shows of a reason.
const maxReason = 500

// hints maps substrings of failure reasons, in lower case, to hints. The reasons come from Daytona, its runners, Docker
// and registries. The first match applies.
var hints = []struct{ part, hint string }{
	{"exceeds maximum allowed size", "make the image smaller, or request a higher limit at " + limitsPage},
	{"x64 compatible", "build the image for linux/amd64"},
	{"linux/amd64", "build the image for linux/amd64"},
	{"no space left on device", "Daytona's runner is out of disk space: try again later, or make the image smaller"},
	{"timeout", "try again, or make the image smaller"},
	{"exited with code", "use an entrypoint that keeps running, such as `sleep infinity`, and test it with `docker run`"},
	{"executable file not found", "correct the entrypoint: the program does not exist in the image"},
	{"no such file or directory", "correct the entrypoint: the program does not exist in the image"},
	{"blob_unknown", "a layer is missing from the registry: run again to push the image again"},
	{"manifest_unknown", "the image is not in the registry: run again to push it"},
	{"not found", "the image is not in the registry: run again to push it"},
	{"access denied", "Daytona cannot read the image: push it to Daytona's registry"},
	{"unauthorized", "Daytona cannot read the image: push it to Daytona's registry"},
}

func hint(reason string) string {
	for _, known := range hints {
		if strings.Contains(strings.ToLower(reason), known.part) {
			return known.hint
		}
	}
	return "try again; if it persists, contact Daytona support"
}

// WaitUntilActive polls a snapshot until it is active. After each poll it calls report, which may be nil, with the
// snapshot and how long it has been in its state. It keeps polling during unknown states and short outages. It returns
// a *[SnapshotError] if the snapshot fails, and an error that wraps the cause of ctx if ctx ends.
//
// The snapshot must be active in two consecutive polls, because it can fail right after it became active.
func (c *Client) WaitUntilActive(
	ctx context.Context, id string, report func(s Snapshot, since time.Duration),
) (Snapshot, error) {
	clock := c.clock()
	var s Snapshot
	since, lastResponse := clock.Now(), clock.Now()
	intervals := c.intervals()
	for {
		now, err := c.Get(ctx, id)
		switch {
		case context.Cause(ctx) != nil:
			return s, c.timedOut(ctx, s, since)
		case httpclient.Status(err) == http.StatusNotFound:
			return s, fmt.Errorf("snapshot %s was deleted while waiting for it to become active (run again)", nameOf(s, id))
		case err != nil && (isPermanent(err) || clock.Now().Sub(lastResponse) > c.Timing.withDefaults().Outage):
			return s, err
		case err == nil:
			activeTwice := now.State == Active && s.State == Active
			if now.State != s.State {
				since = clock.Now()
			}
			s, lastResponse = now, clock.Now()
			if report != nil {
				report(s, clock.Now().Sub(since))
			}
			switch {
			case activeTwice:
				return s, nil
			case s.State == Active:
				continue
			case s.State == Failed || s.State == BuildFailed:
				return s, &SnapshotError{s, c.buildLog(ctx, s)}
			case s.State == Inactive:
				return s, fmt.Errorf("snapshot %s was deactivated while waiting for it to become active "+
					"(activate it in Daytona's dashboard, or run again)", s.Name)
			}
		}
		if clock.Sleep(ctx, intervals.NextBackOff()) != nil {
			return s, c.timedOut(ctx, s, since)
		}
	}
}

// isPermanent reports whether Daytona rejected a request and would reject it again.
func isPermanent(err error) bool {
	status := httpclient.Status(err)
	return status != 0 && status != http.StatusTooManyRequests && status < 500
}

func nameOf(s Snapshot, id string) string {
	if s.Name != "" {
		return s.Name
	}
	return id
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
	text, err := do(ctx, c, call{op: "read the build log of snapshot " + s.Name},
		func(ctx context.Context, a *api.APIClient) (*string, *http.Response, error) {
			response, err := a.SnapshotsAPI.GetSnapshotBuildLogs(ctx, s.ID).Execute()
			if err != nil {
				return nil, response, err
			}
			data, err := io.ReadAll(response.Body)
			text := string(data)
			return &text, response, err
		})
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(*text), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}

// WaitUntilRemoved polls a deleted snapshot until it no longer exists and its name is available.
func (c *Client) WaitUntilRemoved(ctx context.Context, id string) error {
	intervals := c.intervals()
	for {
		s, err := c.Get(ctx, id)
		switch {
		case httpclient.Status(err) == http.StatusNotFound:
			return nil
		case err != nil:
			return err
		case s.State != Removing:
			return fmt.Errorf("snapshot %s was deleted, but is now %s: another client changed it (run again)", s.Name, s.State)
		}
		if err := c.clock().Sleep(ctx, intervals.NextBackOff()); err != nil {
			return fmt.Errorf("%w; Daytona is still removing snapshot %s (try again in a minute, or use another name)",
				err, s.Name)
		}
	}
}

// WaitForImage polls Daytona's registry until it serves a pushed image, and returns the image's digest. The registry,
// Harbor, may serve an image only some time after the push; until then, creating a snapshot of it fails. The Daytona
// CLI waits for the same reason (apps/cli/cmd/snapshot/push.go).
func (c *Client) WaitForImage(ctx context.Context, access PushAccess, image string) (digest string, err error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fmt.Errorf("invalid image reference %q: %w", image, err)
	}
	options := []remote.Option{
		remote.WithAuth(&authn.Basic{Username: access.User, Password: access.Secret}),
		remote.WithUserAgent(userAgent),
		remote.WithTransport(c.HTTP.Transport()),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), // the transport retries
	}
	clock, limit := c.clock(), c.Timing.withDefaults().ImageVisible
	start := clock.Now()
	for intervals := c.intervals(); ; {
		found, err := remote.Head(ref, append(options, remote.WithContext(ctx))...)
		switch cause := context.Cause(ctx); {
		case cause != nil:
			return "", cause
		case err == nil:
			return found.Digest.String(), nil
		}
		if denied, ok := errors.AsType[*transport.Error](err); ok && (denied.StatusCode == http.StatusUnauthorized ||
			denied.StatusCode == http.StatusForbidden) {
			return "", &httpclient.APIError{
				Service: "Daytona's registry", Op: "find " + image, Status: denied.StatusCode,
				Message: "access has expired", Hint: "run again", Err: err,
			}
		}
		if clock.Now().Sub(start) >= limit {
			return "", fmt.Errorf("find %s in Daytona's registry: not visible %s after the push (run again): %w",
				image, limit, err)
		}
		if err := clock.Sleep(ctx, intervals.NextBackOff()); err != nil {
			return "", err
		}
	}
}
