package image

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"
)

// PlatformStatus is the progress of one platform's build.
type PlatformStatus struct {
	Platform string
	Status   chan *client.SolveStatus // the channel that was passed to [Solve]
}

// Display shows a build while it runs. It receives until status is closed.
type Display func(ctx context.Context, status chan *client.SolveStatus) error

// Stats summarizes a build.
type Stats struct {
	Cached, Total int       // number of the Dockerfile's steps on all platforms, without FROM
	Steps         []Step    // in the order of their start
	Warnings      []Warning // without duplicates
}

// Step is one step of the builder.
type Step struct {
	Name     string
	Started  time.Time // by the clock of this machine; zero for a step that did not start or did not end
	Duration time.Duration
	Cached   bool
	Error    string // "" for a step that succeeded
	Log      string // the end of its output, at most [MaxStepLog] bytes
}

// MaxStepLog is the maximum size of the log of a [Step] in bytes.
const MaxStepLog = 64 << 10

// Warning is a finding of BuildKit's checks in the Dockerfile.
type Warning struct {
	Line, EndLine int // from 1; 0 if unknown
	Short, URL    string
	Detail        string
}

// Progress displays the builds until all have ended, and summarizes them. It applies clean to each name and line of a
// build. It receives from each status channel until that is closed, even after an error of the display, so that no
// build blocks.
func Progress(
	ctx context.Context, builds []PlatformStatus, clean func(line string) string, show Display,
) (Stats, error) {
	shown := make(chan *client.SolveStatus)
	displayEnded := make(chan struct{})
	var display, builders errgroup.Group
	display.Go(func() error {
		defer close(displayEnded)
		return show(ctx, shown)
	})
	trackers := make([]*progressTracker, len(builds))
	for i, build := range builds {
		tracker := newProgressTracker(clean)
		if len(builds) > 1 {
			tracker.platform = build.Platform
		}
		trackers[i] = tracker
		builders.Go(func() error {
			send := func(status *client.SolveStatus) {
				select {
				case shown <- status:
				case <-displayEnded:
				}
			}
			for status := range build.Status {
				tracker.track(status)
				send(status)
			}
			rest := tracker.flush()
			tracker.keep(rest)
			send(&client.SolveStatus{Logs: rest})
			return nil
		})
	}
	_ = builders.Wait() // always nil
	close(shown)
	err := display.Wait()
	var stats Stats
	seen := map[Warning]bool{}
	for _, tracker := range trackers {
		tracker.addTo(&stats, seen)
	}
	return stats, err
}

// Plain returns a display that shows a build line by line.
func Plain(out io.Writer) Display {
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		d, err := progressui.NewDisplay(out, progressui.PlainMode)
		if err != nil {
			return fmt.Errorf("display the build: %w", err)
		}
		// Without cancellation, so that the end of a canceled build is displayed too.
		_, err = d.UpdateFrom(context.WithoutCancel(ctx), status)
		return err
	}
}
