package dockerengine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// idleTimer cancels a transfer that makes no progress.
type idleTimer struct {
	timeout time.Duration
	timer   *time.Timer
	peer    atomic.Value // the peer that the transfer waits for
}

// peer is one end of a transfer.
type peer string

const (
	peerEngine peer = "the Docker Engine"
	peerSource peer = "the builder"
)

// idleError is the cause of a transfer's cancellation.
type idleError struct {
	peer    peer
	timeout time.Duration
}

func (e *idleError) Error() string {
	return fmt.Sprintf("no data from %s for %s (check its log and try again)", e.peer, e.timeout)
}

// newIdleTimer returns a timer that calls cancel if touch is not called within the timeout.
func newIdleTimer(timeout time.Duration, cancel context.CancelCauseFunc) *idleTimer {
	t := &idleTimer{timeout: timeout}
	t.peer.Store(peerEngine)
	t.timer = time.AfterFunc(timeout, func() { cancel(&idleError{t.peer.Load().(peer), timeout}) })
	return t
}

// touch records progress and the peer that the transfer waits for next.
func (t *idleTimer) touch(next peer) {
	t.peer.Store(next)
	t.timer.Reset(t.timeout)
}

func (t *idleTimer) stop() { t.timer.Stop() }
