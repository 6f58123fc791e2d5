package actions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// lastOutputWait is how long a canceled build may take to print its last lines.
const lastOutputWait = 2 * time.Second

// solve runs the requests in parallel, each on the machine of its platform, and displays their progress. The results
// can be read until ctx ends or the lease is released.
func solve(
	ctx context.Context, job job, lease *builder.Lease, requests []image.Request,
) (_ []*image.Result, _ image.Stats, err error) {
	defer startPhase(ctx, "Build").end(&err)
	monitor := &image.StepMonitor{}
	defer startBuild(ctx, monitor)()
	statuses, wait := startSolves(ctx, lease, requests)
	var results []*image.Result
	var stats image.Stats
	var solveErr error
	done := make(chan struct{})
	go func() { // ends with the solves, which end with ctx
		defer close(done)
		var displayErr error
		stats, displayErr = image.Progress(ctx, statuses, job.Runner.Clean, monitor.Watch(display(job)))
		if results, solveErr = wait(); solveErr == nil && displayErr != nil {
			job.Runner.Infof("Displaying the progress failed: %v", displayErr)
		}
	}()
	select {
	case <-done:
		return results, stats, solveErr
	case <-ctx.Done():
		select {
		case <-done:
			return nil, stats, context.Cause(ctx)
		case <-time.After(lastOutputWait):
			return nil, image.Stats{}, context.Cause(ctx)
		}
	}
}

// startSolves starts a solve for each request. The first failure cancels the others, and wait returns it. The results
// read layers from the builders until ctx ends.
func startSolves(
	ctx context.Context, lease *builder.Lease, requests []image.Request,
) (statuses []image.PlatformStatus, wait func() ([]*image.Result, error)) {
	solving, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) }) // not earlier, because the results are read with it
	results := make([]*image.Result, len(requests))
	var solves errgroup.Group
	for i, request := range requests {
		status := make(chan *client.SolveStatus)
		statuses = append(statuses, image.PlatformStatus{Platform: request.Platform, Status: status})
		solves.Go(func() (err error) {
			if results[i], err = solvePlatform(solving, lease, request, status); err != nil {
				isLost := errors.As(err, new(*builder.LostError)) // which names the platform
				if len(requests) > 1 && !isLost {
					err = fmt.Errorf("%s: %w", request.Platform, err)
				}
				cancel(err)
			}
			return err
		})
	}
	return statuses, func() ([]*image.Result, error) {
		err := solves.Wait()
		if cause := context.Cause(solving); err != nil && cause != nil {
			err = cause // the first failure; the others are consequences of its cancellation
		}
		return results, err
	}
}

func solvePlatform(
	ctx context.Context, lease *builder.Lease, request image.Request, status chan *client.SolveStatus,
) (*image.Result, error) {
	machine, err := lease.Machine(ctx, request.Platform)
	if err != nil {
		close(status)
		return nil, err
	}
	result, err := image.Solve(ctx, machine, request, status)
	if err != nil {
		return nil, lease.Explain(request.Platform, err)
	}
	lease.DeleteOnRelease(request.Platform, result.ExportLease)
	return result, nil
}

// display returns the display of a build's progress: groups in the Actions log, a terminal display, or plain lines.
func display(job job) image.Display {
	switch {
	case job.Runner.InActions():
		return image.Groups(job.Runner)
	case job.Screen != nil:
		return func(_ context.Context, status chan *client.SolveStatus) error {
			return job.Screen.Show("Building", status)
		}
	}
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		out := job.Runner.Untrusted()
		defer out.Close()
		return image.Plain(out)(ctx, status)
	}
}

// annotate adds an annotation to the Dockerfile for each warning of BuildKit's checks, unless
// DOCKER_BUILD_CHECKS_ANNOTATIONS is false.
func annotate(job job, warnings []image.Warning, dockerfile string) {
	for _, w := range warnings {
		message := w.Short
		if w.Detail != "" {
			message += ": " + w.Detail
		}
		if w.URL != "" {
			message += " (" + w.URL + ")"
		}
		if job.isOff("DOCKER_BUILD_CHECKS_ANNOTATIONS") {
			job.Runner.Infof("%s", safetext.Line(message, 500))
			continue
		}
		job.Runner.Warning(runner.Annotation{
			Title: "Dockerfile check", File: dockerfile, Line: w.Line, EndLine: w.EndLine, Message: message,
		})
	}
}

// warnUnsupported adds an annotation for each part of the requests that a builder does not support.
func warnUnsupported(job job, results []*image.Result) {
	warned := map[string]bool{}
	for _, r := range results {
		for _, message := range r.Unsupported {
			if !warned[message] {
				warned[message] = true
				job.Runner.Warning(runner.Annotation{Title: "Builder", Message: message})
			}
		}
	}
}

// writeUntrusted writes text from a service or a build to the log, without letting it issue workflow commands.
func writeUntrusted(r *runner.Runner, text string) {
	out := r.Untrusted()
	fmt.Fprint(out, text)
	_ = out.Close() // an error here means that the log itself is not writable
}
