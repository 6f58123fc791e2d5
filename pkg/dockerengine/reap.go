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

// The labels of every container that we create: the process that made it, and when it is nobody's any more, whoever
// made it.
const (
	ownerLabel = "sandbox-actions.owner" // MACHINE PID START, as in owner_linux.go
	untilLabel = "sandbox-actions.until" // seconds since 1970
)

// No process of ours keeps a container longer.
const longestLife = 24 * time.Hour

// ownerLabels are those of our process's containers.
func ownerLabels(now time.Time) map[string]string {
	labels := map[string]string{untilLabel: strconv.FormatInt(now.Add(longestLife).Unix(), 10)}
	if owner, err := processOwner(os.Getpid()); err == nil {
		labels[ownerLabel] = owner.String()
	}
	return labels
}

// owner is a process that can be told from all that ever had its number.
type owner struct {
	machine string // one boot of one machine, and one space of process numbers on it
	pid     int
	start   string
}

func (o owner) String() string { return fmt.Sprintf("%s %d %s", o.machine, o.pid, o.start) }

// Reap removes the containers of processes that ended without removing them, and says how many. It can tell that only of
// processes of this machine; those of others are removed a day after they were made. Containers that [Engine.Create] did not make are
// never touched.
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
				return fmt.Errorf("remove container %.12s, which an earlier run left: %w", c.ID, e.because(ctx, err))
			}
			return nil
		})
	}
	return removed, group.Wait()
}

// orphaned says whether the process that gave a container these labels is gone for certain.
func orphaned(labels map[string]string, now time.Time) bool {
	until, err := strconv.ParseInt(labels[untilLabel], 10, 64)
	if err != nil {
		return false // not written by us
	}
	if now.Unix() > until {
		return true
	}
	var theirs owner
	if _, err := fmt.Sscan(labels[ownerLabel], &theirs.machine, &theirs.pid, &theirs.start); err != nil {
		return false
	}
	us, err := processOwner(os.Getpid())
	if err != nil || us.machine != theirs.machine {
		return false
	}
	if errors.Is(syscall.Kill(theirs.pid, 0), syscall.ESRCH) {
		return true
	}
	holder, err := processOwner(theirs.pid)
	return err == nil && holder != theirs
}
