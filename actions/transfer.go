package actions

import (
	"context"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/terminal"
)

// progressInterval is how often a load or a push logs its progress.
const progressInterval = 5 * time.Second

// logTransfer returns a function that logs the progress of a transfer every few seconds, after the name of what it
// does: Loading 3 of 5 layers: 120 MB of 467 MB, 58 MB/s, 6 s left. If a terminal shows the task, it shows the progress
// there instead.
func logTransfer(job job, doing string, task *terminal.Task) func(humanize.Transfer) {
	if task != nil {
		return task.Transfer
	}
	logged := time.Now()
	return func(progress humanize.Transfer) {
		if time.Since(logged) >= progressInterval {
			logged = time.Now()
			job.Runner.Infof("%s %s", doing, progress)
		}
	}
}

// logElapsed logs every few seconds for how long something has been running of which no progress is known, until stop
// is called. A terminal shows that live.
func logElapsed(ctx context.Context, job job, doing string) (stop func()) {
	if job.Screen != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var logging sync.WaitGroup
	logging.Go(func() {
		started, ticker := time.Now(), time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				job.Runner.Infof("%s: %s so far", doing, humanize.Duration(now.Sub(started)))
			}
		}
	})
	return func() {
		cancel()
		logging.Wait()
	}
}

// logPush logs which image is pushed, and its size in a registry: the config and the compressed layers.
func logPush(job job, img v1.Image, reference string) {
	manifest, err := img.Manifest()
	if err != nil {
		return // the push reports it
	}
	size := manifest.Config.Size
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	job.Runner.Infof("Pushing %s in %d layers to %s", humanize.Size(size), len(manifest.Layers), reference)
}
