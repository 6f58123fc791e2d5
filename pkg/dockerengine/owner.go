package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Labels of all containers from [Engine.Create]: the process that created the container, and the time after which the
// container may be removed even if that process still runs. The temporary names of loads contain them, too.
const (
	ownerLabel = "sandbox-actions.owner" // MACHINE PID START, see owner
	untilLabel = "sandbox-actions.until" // Unix time in seconds
)

// maxLifetime is longer than any run needs a container.
const maxLifetime = 24 * time.Hour

// ownerLabels returns the labels for what this process creates in an engine at the given time.
func ownerLabels(now time.Time) map[string]string {
	labels := map[string]string{untilLabel: strconv.FormatInt(now.Add(maxLifetime).Unix(), 10)}
	if owner, err := processOwner(os.Getpid()); err == nil {
		labels[ownerLabel] = owner.String()
	}
	return labels
}

// owner identifies a process uniquely, even if its PID is reused.
type owner struct {
	machine string // hash of the boot and the PID namespace
	pid     int
	start   string // start time, in an OS-specific format
}

// hashMachine returns an ID of a boot and PID namespace that consists of hexadecimal digits.
func hashMachine(boot, namespace string) string {
	return digest.FromString(strings.TrimSpace(boot) + "/" + namespace).Encoded()[:16]
}

func (o owner) String() string { return fmt.Sprintf("%s %d %s", o.machine, o.pid, o.start) }

// Reap removes containers left behind by processes that have ended, and returns the number of containers that it
// tried to remove. It removes containers that were created from another machine a day after their creation. It never
// removes containers that [Engine.Create] did not create.
func (e *Engine) Reap(ctx context.Context) (attempted int, err error) {
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
		attempted++
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, removeTimeout)
			defer cancel()
			if err := e.remove(ctx, c.ID); err != nil {
				return fmt.Errorf("remove container %.12s of an earlier run: %w", c.ID, e.classifyError(ctx, err))
			}
			return nil
		})
	}
	return attempted, group.Wait()
}

// orphaned reports whether the owner with these labels has expired or is known to have ended.
func orphaned(labels map[string]string, now time.Time) bool {
	until, err := strconv.ParseInt(labels[untilLabel], 10, 64)
	if err != nil {
		return false // not created by this package
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
	return errors.Is(err, os.ErrProcessDone) || err == nil && holder != creator
}
