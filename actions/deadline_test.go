package actions

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/image"
)

func TestDeadlineNamesWhatTheRunWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		err := runWithDeadline(t.Context(), time.Minute, func(ctx context.Context) error {
			startActivity(ctx, "an activity that ended")()
			defer startActivity(ctx, "git to fetch %s", "abc")()
			defer startActivity(ctx, "the builder")()
			<-ctx.Done()
			return errors.New("read: connection closed")
		})
		interrupted := (*InterruptedError)(nil)
		if !errors.As(err, &interrupted) || interrupted.Timeout != time.Minute || time.Since(started) != time.Minute {
			t.Fatalf("%v after %s", err, time.Since(started))
		}
		const want = "timed out after 1m0s waiting for git to fetch abc and the builder; raise `timeout`"
		if err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	})
}

func TestCancellationIsTheError(t *testing.T) {
	signal := errors.New("SIGINT")
	parent, cancel := context.WithCancelCause(t.Context())
	err := runWithDeadline(parent, time.Hour, func(ctx context.Context) error {
		cancel(signal)
		<-ctx.Done()
		return errors.New("input ref: the connection was closed")
	})
	interrupted := (*InterruptedError)(nil)
	if !errors.As(err, &interrupted) || interrupted.Timeout != 0 || !errors.Is(err, signal) {
		t.Fatalf("%v, want a cancellation by the signal", err)
	}
	const want = "canceled (SIGINT) while waiting for the run to end; no results were written to the outputs"
	if err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestDepotInterruptsRun(t *testing.T) {
	canceled := &builder.CanceledError{Build: "abc", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	err := runWithDeadline(t.Context(), time.Hour, func(ctx context.Context) error {
		defer startActivity(ctx, "the build")()
		interrupt(ctx, canceled)
		<-ctx.Done()
		return errors.New("read: connection closed")
	})
	if !errors.Is(err, canceled) {
		t.Fatalf("got %v", err)
	}
	const want = "canceled (Depot canceled build abc at 03:04:05 UTC) while waiting for the build; " +
		"no results were written to the outputs"
	if err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	interrupt(t.Context(), canceled) // outside of a run
}

func TestInterruptionKeepsWhatWasPublished(t *testing.T) {
	parent, cancel := context.WithCancelCause(t.Context())
	err := runWithDeadline(parent, time.Hour, func(ctx context.Context) error {
		cancel(errors.New("SIGINT"))
		<-ctx.Done()
		return &partialError{errors.New("read: connection closed"), "the results so far are in junit.xml"}
	})
	const want = "canceled (SIGINT) while waiting for the run to end; the results so far are in junit.xml"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// The exit code of tests that failed is not lost when the run ends right after them.
func TestInterruptionKeepsTheExitCode(t *testing.T) {
	parent, cancel := context.WithCancelCause(t.Context())
	err := runWithDeadline(parent, time.Hour, func(ctx context.Context) error {
		cancel(errors.New("SIGINT"))
		<-ctx.Done()
		return &ExitError{7, errors.New("tests failed")}
	})
	if exit := (*ExitError)(nil); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("got %v, want the exit code 7", err)
	}
}

func TestInterruptionKeepsLeftovers(t *testing.T) {
	parent, cancel := context.WithCancelCause(t.Context())
	left := []string{"snapshot a could not be deleted"}
	err := runWithDeadline(parent, time.Hour, func(ctx context.Context) error {
		cancel(errors.New("SIGINT"))
		<-ctx.Done()
		return &daytona.LeftoverError{Err: errors.New("Daytona failed"), Leftovers: left}
	})
	interrupted, leftover := (*InterruptedError)(nil), (*daytona.LeftoverError)(nil)
	if !errors.As(err, &interrupted) || !errors.As(err, &leftover) || !slices.Equal(leftover.Leftovers, left) {
		t.Errorf("%v, want the cancellation and the leftovers", err)
	}
}

func TestDeadlineNamesTheStepOfABuild(t *testing.T) {
	const name = "[b 1/1] RUN sleep 600"
	for _, test := range []struct {
		other string // another activity
		want  string
	}{
		{"", "timed out after 4s in step `" + name + "` (2 of 3 steps done); raise `timeout`"},
		{"the push", "timed out after 4s waiting for the build and the push; raise `timeout`"},
	} {
		synctest.Test(t, func(t *testing.T) {
			err := runWithDeadline(t.Context(), 4*time.Second, func(ctx context.Context) error {
				monitor := &image.StepMonitor{}
				defer startBuild(ctx, monitor)()
				if test.other != "" {
					defer startActivity(ctx, "%s", test.other)()
				}
				now := time.Now()
				status := make(chan *client.SolveStatus, 1)
				status <- &client.SolveStatus{Vertexes: []*client.Vertex{
					{Digest: "a", Name: "[a 1/2] RUN true", Started: &now, Completed: &now},
					{Digest: "b", Name: "[a 2/2] RUN true", Started: &now, Completed: &now},
					{Digest: "c", Name: name, Started: &now},
				}}
				close(status)
				show := func(_ context.Context, status chan *client.SolveStatus) error {
					for range status {
					}
					return nil
				}
				if err := monitor.Watch(show)(ctx, status); err != nil {
					return err
				}
				<-ctx.Done()
				return errors.New("read: connection closed")
			})
			if err.Error() != test.want {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
}

func TestUninterruptedRun(t *testing.T) {
	failed := errors.New("failed")
	if err := runWithDeadline(t.Context(), time.Hour, func(context.Context) error { return failed }); err != failed {
		t.Errorf("%v, want the run's own error", err)
	}
	parent, cancel := context.WithCancel(t.Context())
	err := runWithDeadline(parent, time.Hour, func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return nil // everything was published
	})
	if err != nil {
		t.Errorf("a run that succeeded while it was canceled: %v", err)
	}
}

func TestStartActivityOutsideOfARun(t *testing.T) {
	startActivity(t.Context(), "anything")()
}
