package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"
)

// PlatformStatus is the progress of one platform's build.
type PlatformStatus struct {
	Platform string
	Status   chan *client.SolveStatus // as given to [Solve]
}

// Display shows a build while it runs. It receives until status is closed.
type Display func(ctx context.Context, status chan *client.SolveStatus) error

// Stats summarizes a build.
type Stats struct {
	Cached, Total int // of the Dockerfile's steps without FROM, on all platforms
	Steps         []Step
	Warnings      []Warning // each once
}

// Step is one step of the builder. Steps are in the order of their start.
type Step struct {
	Name     string
	Started  time.Time // zero for a step that did not start or did not end
	Duration time.Duration
	Cached   bool
	Error    string // "" for a step that succeeded
}

// Warning is a finding of BuildKit's checks in the Dockerfile.
type Warning struct {
	Line, EndLine int // from 1; 0 for a finding without a line
	Short, URL    string
	Detail        string
}

// Progress shows the builds until all have ended, and summarizes them. clean is applied to each name and line that
// comes out of a build. Progress receives from each status until it is closed, even after an error of the display, so
// that no build blocks.
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
			send(&client.SolveStatus{Logs: tracker.flush()})
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

// Terminal shows a build as BuildKit does: live on a terminal, line by line elsewhere.
func Terminal(out *os.File) Display {
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		return display(ctx, out, progressui.AutoMode, status)
	}
}

// Plain shows a build line by line.
func Plain(out io.Writer) Display {
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		return display(ctx, out, progressui.PlainMode, status)
	}
}

func display(ctx context.Context, out io.Writer, mode progressui.DisplayMode, status chan *client.SolveStatus) error {
	d, err := progressui.NewDisplay(out, mode)
	if err != nil {
		return fmt.Errorf("show the build: %w", err)
	}
	// The end of a canceled build is shown too.
	_, err = d.UpdateFrom(context.WithoutCancel(ctx), status)
	return err
}
