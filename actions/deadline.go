package actions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/image"
)

// InterruptedError reports a run that ended early: its time limit passed, or it was canceled.
type InterruptedError struct {
	Timeout time.Duration // the time limit; 0 for a cancellation
	Cause   error         // the reason for a cancellation; nil after a timeout
	Waiting string        // what the run was waiting for
	Step    string        // the step of the build that was running; "" if the run was not only building
}

func (e *InterruptedError) Error() string {
	if e.Timeout > 0 {
		return fmt.Sprintf("timed out after %s %s; raise `timeout`", e.Timeout, e.activity("waiting for"))
	}
	return fmt.Sprintf("canceled (%v) %s", e.Cause, e.activity("while waiting for"))
}

func (e *InterruptedError) activity(waiting string) string {
	if e.Step != "" {
		return "in " + e.Step
	}
	return waiting + " " + e.Waiting
}

func (e *InterruptedError) Unwrap() error { return e.Cause }

// partialError is the error of a flow that ended early, with a note about what it published.
type partialError struct {
	Err  error
	Note string // what was published, for example "the results so far are in junit.xml"
}

func (e *partialError) Error() string { return fmt.Sprintf("%v; %s", e.Err, e.Note) }

func (e *partialError) Unwrap() error { return e.Err }

// runWithDeadline runs f with a context that ends after timeout, or when ctx ends. If f fails after that, the error is
// an [*InterruptedError] instead of f's own, together with what f published and the leftovers that it reports. An
// [*ExitError] is the result of tests or a command, and is returned unchanged.
func runWithDeadline(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	active := &activities{}
	limited, cancel := context.WithCancelCause(context.WithValue(context.WithoutCancel(ctx), activitiesKey{}, active))
	active.cancel = cancel
	defer cancel(nil)
	timer := time.AfterFunc(timeout, func() {
		cancel(&InterruptedError{Timeout: timeout, Waiting: active.String(), Step: active.step()})
	})
	defer timer.Stop()
	defer context.AfterFunc(ctx, func() {
		cancel(&InterruptedError{Cause: context.Cause(ctx), Waiting: active.String(), Step: active.step()})
	})()

	err := f(limited)
	interrupted, exit := (*InterruptedError)(nil), (*ExitError)(nil)
	if err == nil || errors.As(err, &exit) || !errors.As(context.Cause(limited), &interrupted) {
		return err
	}
	ended := error(interrupted)
	if partial := (*partialError)(nil); errors.As(err, &partial) {
		ended = &partialError{interrupted, partial.Note}
	} else if interrupted.Timeout == 0 {
		ended = &partialError{interrupted, "no results were written to the outputs"}
	}
	if leftover := (*daytona.LeftoverError)(nil); errors.As(err, &leftover) {
		return &daytona.LeftoverError{Err: ended, Leftovers: leftover.Leftovers}
	}
	return ended
}

// activities records what a run is waiting for, so that an [InterruptedError] can name it.
type activities struct {
	cancel context.CancelCauseFunc // of the run's context

	mu     sync.Mutex
	active []string
	build  *image.StepMonitor // of the running build; nil for none
}

type activitiesKey struct{}

// startActivity records that the run waits for something, until done is called. The formatted text completes the
// sentence "waiting for …".
func startActivity(ctx context.Context, format string, args ...any) (done func()) {
	a, ok := ctx.Value(activitiesKey{}).(*activities)
	if !ok {
		return func() {}
	}
	name := fmt.Sprintf(format, args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active = append(a.active, name)
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if i := slices.Index(a.active, name); i >= 0 {
			a.active = slices.Delete(a.active, i, i+1)
		}
	})
}

// startBuild is [startActivity] for a build, of which an [InterruptedError] names the step.
func startBuild(ctx context.Context, build *image.StepMonitor) (done func()) {
	a, ok := ctx.Value(activitiesKey{}).(*activities)
	if !ok {
		return func() {}
	}
	a.setBuild(build)
	end := startActivity(ctx, "the build")
	return func() {
		a.setBuild(nil)
		end()
	}
}

func (a *activities) setBuild(build *image.StepMonitor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.build = build
}

// step returns the step of the build that is running, or "" if the run is not only building.
func (a *activities) step() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.build == nil || len(a.active) != 1 {
		return ""
	}
	return a.build.String()
}

// interrupt ends the run of ctx early, with an [InterruptedError] that has the cause.
func interrupt(ctx context.Context, cause error) {
	if a, ok := ctx.Value(activitiesKey{}).(*activities); ok {
		a.cancel(&InterruptedError{Cause: cause, Waiting: a.String(), Step: a.step()})
	}
}

func (a *activities) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.active) == 0 {
		return "the run to end"
	}
	return strings.Join(a.active, " and ")
}
