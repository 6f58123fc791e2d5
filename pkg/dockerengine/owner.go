package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// The labels of every container that [Engine.Create] creates: the process that created it, and the time after which it
// may be removed whatever has become of that process.
const (
	ownerLabel = "sandbox-actions.owner" // MACHINE PID START, see owner
	untilLabel = "sandbox-actions.until" // Unix time in seconds
)

// maxLifetime is longer than any run uses a container.
const maxLifetime = 24 * time.Hour

// ownerLabels returns the labels of containers that this process creates now.
func ownerLabels(now time.Time) map[string]string {
	labels := map[string]string{untilLabel: strconv.FormatInt(now.Add(maxLifetime).Unix(), 10)}
	if owner, err := processOwner(os.Getpid()); err == nil {
		labels[ownerLabel] = owner.String()
	}
	return labels
}

// owner identifies a process uniquely, even when its PID was used before or is used again.
type owner struct {
	machine string // boot and PID namespace
	pid     int
	start   string // start time, in the system's format
}

func (o owner) String() string { return fmt.Sprintf("%s %d %s", o.machine, o.pid, o.start) }

// Reap removes the containers of processes that ended without removing them, and returns how many. It checks processes
// of this machine; containers of other machines' processes are removed a day after they were created. It never touches
// containers that [Engine.Create] did not create.
func (e *Engine) Reap(ctx context.Context) (removed int, err error) {
	found, err := e.list(ctx, untilLabel)
	if err != nil {
		return 0, err
	}
	var group errgroup.Group
	group.SetLimit(8)
	for _, c := range found {
		if !orphaned(c.Labels, time.Now()) {
			continue
		}
		removed++
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, removeTimeout)
			defer cancel()
			if err := e.remove(ctx, c.ID); err != nil {
				return fmt.Errorf("remove container %.12s of an earlier run: %w", c.ID, e.classifyError(ctx, err))
			}
			return nil
		})
	}
	return removed, group.Wait()
}

// orphaned reports whether the process that created a container with these labels has certainly ended.
func orphaned(labels map[string]string, now time.Time) bool {
	until, err := strconv.ParseInt(labels[untilLabel], 10, 64)
	if err != nil {
		return false // not created by Create
	}
	if now.Unix() > until {
		return true
	}
	var creator owner
	if _, err := fmt.Sscan(labels[ownerLabel], &creator.machine, &creator.pid, &creator.start); err != nil {
		return false
	}
	self, err := processOwner(os.Getpid())
	if err != nil || self.machine != creator.machine {
		return false
	}
	if errors.Is(syscall.Kill(creator.pid, 0), syscall.ESRCH) {
		return true
	}
	holder, err := processOwner(creator.pid)
	return err == nil && holder != creator
}
