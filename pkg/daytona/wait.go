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
)

// How Wait asks: first after firstStep, then ever less often, until it asks each longestStep. Variables for tests.
var (
	firstStep   = 200 * time.Millisecond
	longestStep = 5 * time.Second
	outage      = 2 * time.Minute // how long Daytona may not answer
)

func steps() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = firstStep, longestStep
	return b
}

// Failure is a snapshot that became none.
type Failure struct {
	Snapshot Snapshot
	Log      string // the last lines of its build, if Daytona built it; they are what others wrote
}

func (f *Failure) Error() string {
	reason := oneLine(f.Snapshot.Reason)
	if lines := strings.Split(f.Log, "\n"); reason == "" {
		reason = oneLine(lines[len(lines)-1])
	}
	if reason == "" {
		reason = "Daytona does not say why"
	}
	return fmt.Sprintf("the snapshot %s is in the state %s: %s: %s", f.Snapshot.Name, f.Snapshot.State, reason, cure(reason))
}

// cures are what to do about the reasons that Daytona and its runners give, by a part of them in lower case. The first that fits counts.
var cures = []struct{ part, cure string }{
	{"exceeds maximum allowed size", "make the image smaller, or ask Daytona for a larger limit (https://app.daytona.io/dashboard/limits)"},
	{"x64 compatible", "build it for linux/amd64"},
	{"linux/amd64", "build it for linux/amd64"},
	{"no space left on device", "the runner's disk is full: try again later, or make the image smaller"},
	{"timeout", "Daytona was too slow for it: try again, or make the image smaller"},
	{"exited with code", "give an entrypoint that runs on, such as `sleep infinity`, and see that it starts with `docker run`"},
	{"executable file not found", "correct the entrypoint: it names a program that is not in the image"},
	{"no such file or directory", "correct the entrypoint: it names a program that is not in the image"},
	{"blob_unknown", "the registry has lost a part of the image: push it again, as a new run does"},
	{"manifest_unknown", "the registry does not have the image: push it again, as a new run does"},
	{"not found", "the registry does not have the image: push it again, as a new run does"},
	{"access denied", "Daytona may not read the image: push it to the registry that Daytona gives access to"},
	{"unauthorized", "Daytona may not read the image: push it to the registry that Daytona gives access to"},
}

func cure(reason string) string {
	for _, known := range cures {
		if strings.Contains(strings.ToLower(reason), known.part) {
			return known.cure
		}
	}
	return "try again, and ask Daytona if it stays (https://www.daytona.io/docs)"
}

// Wait waits until a snapshot is active, asking often at first. report, which may be nil, is told what Daytona says after each look, and how
// long the state has been what it is. States that are not known are waited through. What ends it otherwise is a [Failure], a snapshot that
// is gone or switched off, Daytona not answering for 2 minutes, or the end of ctx, whose cause is in the error.
//
// Active counts when it was answered twice: a snapshot that fails just then would not be noticed else.
func (c *Client) Wait(ctx context.Context, id string, report func(s Snapshot, since time.Duration)) (Snapshot, error) {
	var s Snapshot
	since, heard := time.Now(), time.Now()
	wait := steps()
	for {
		now, err := c.Get(ctx, id)
		switch {
		case context.Cause(ctx) != nil:
			return s, late(ctx, s, id, since)
		case status(err) == http.StatusNotFound:
			return s, fmt.Errorf("the snapshot %s was deleted by somebody else while it was waited for: run it again", nameOf(s, id))
		case err != nil && (clear(err) || time.Since(heard) > outage):
			return s, err
		case err == nil:
			sure := now.State == Active && s.State == Active
			if now.State != s.State {
				since = time.Now()
			}
			s, heard = now, time.Now()
			if report != nil {
				report(s, time.Since(since))
			}
			switch {
			case sure:
				return s, nil
			case s.State == Active:
				continue
			case s.State == Failed || s.State == BuildFailed:
				return s, &Failure{s, c.log(ctx, s)}
			case s.State == Inactive:
				return s, fmt.Errorf("the snapshot %s was switched off by somebody else while it was waited for: activate it in Daytona's dashboard, or run it again", s.Name)
			}
		}
		select {
		case <-time.After(wait.NextBackOff()):
		case <-ctx.Done():
			return s, late(ctx, s, id, since)
		}
	}
}

// clear reports whether an error is an answer, and not the lack of one.
func clear(err error) bool {
	answered := status(err)
	return answered != 0 && answered != http.StatusTooManyRequests && answered < 500
}

func nameOf(s Snapshot, id string) string {
	if s.Name != "" {
		return s.Name
	}
	return id
}

func late(ctx context.Context, s Snapshot, id string, since time.Time) error {
	if s.State == "" {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w; the snapshot %s has been %s for %s: the Snapshots page of Daytona's dashboard may say why", context.Cause(ctx), nameOf(s, id), s.State, time.Since(since).Round(time.Second))
}

// logLines is how much of a build's log is kept.
const logLines = 20

// log is the end of a build's log. Snapshots of images that were pushed have none.
func (c *Client) log(ctx context.Context, s Snapshot) string {
	if s.State != BuildFailed {
		return ""
	}
	text, err := ask(ctx, c, call{doing: "read the build's log of the snapshot " + s.Name}, func(ctx context.Context, a *api.APIClient) (*string, *http.Response, error) {
		r := a.SnapshotsAPI.GetSnapshotBuildLogs(ctx, s.ID)
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		response, err := r.Execute()
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

// WaitGone waits until a deleted snapshot is gone, and its name free.
func (c *Client) WaitGone(ctx context.Context, id string) error {
	wait := steps()
	for {
		s, err := c.Get(ctx, id)
		switch {
		case status(err) == http.StatusNotFound:
			return nil
		case err != nil:
			return err
		case s.State != Removing:
			return fmt.Errorf("the snapshot %s was deleted, and is %s again: somebody else changes it; run it again", s.Name, s.State)
		}
		select {
		case <-time.After(wait.NextBackOff()):
		case <-ctx.Done():
			return fmt.Errorf("%w; the snapshot %s is still being removed by Daytona: try again in a minute, or take another name", context.Cause(ctx), s.Name)
		}
	}
}

// appears is how long an image may take to be seen in the registry after it was pushed. A variable for tests.
var appears = 2 * time.Minute

// WaitForImage waits until the registry shows an image that was pushed, and answers its digest: Harbor may be late with that, and a snapshot
// of what is not there fails (apps/cli/cmd/snapshot/push.go waits for the same reason, without an end).
func (a PushAccess) WaitForImage(ctx context.Context, image string) (digest string, err error) {
	doing := "look for " + image + " in Daytona's registry"
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fmt.Errorf("%s: it is no image's name: %w", doing, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, appears, fmt.Errorf("%s: it was pushed, and is not there after %s: run it again", doing, appears))
	defer cancel()
	digest, err = backoff.Retry(ctx, func() (string, error) {
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		found, err := remote.Head(ref, remote.WithContext(limited), remote.WithAuth(&authn.Basic{Username: a.User, Password: a.Secret}), remote.WithUserAgent("sandbox-actions"))
		if answer := new(transport.Error); errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
			return "", backoff.Permanent(fmt.Errorf("%s: the registry answered %d: its access has ended; run it again", doing, answer.StatusCode))
		}
		if err != nil {
			return "", err
		}
		return found.Digest.String(), nil
	}, backoff.WithBackOff(steps()), backoff.WithMaxElapsedTime(0))
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return "", cause
	}
	if permanent := new(backoff.PermanentError); errors.As(err, &permanent) {
		return "", permanent.Unwrap()
	}
	return digest, err
}
