package image

import (
	"strings"
	"sync/atomic"

	"github.com/moby/buildkit/client"
)

// PushedError reports a build that failed after the builder had begun to push, so that a reference may already exist.
type PushedError struct{ Err error }

func (e *PushedError) Error() string { return e.Err.Error() }

func (e *PushedError) Unwrap() error { return e.Err }

// pushMonitor records whether a build has begun to push, and the steps of the build.
type pushMonitor struct {
	begun atomic.Bool
	steps stepRecorder
}

// forward returns a channel for the status of one solve. It sends what it receives to status, unless that is nil. wait
// returns when all of it is sent.
func (m *pushMonitor) forward(status chan<- *client.SolveStatus) (solve chan *client.SolveStatus, wait func()) {
	solve = make(chan *client.SolveStatus)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range solve {
			m.steps.record(s)
			for _, line := range s.Statuses {
				// moby/buildkit v0.34.2 and v0.11.6, util/push/push.go, Push: "pushing layers", "pushing manifest for REF".
				if strings.HasPrefix(line.ID, "pushing ") {
					m.begun.Store(true)
				}
			}
			if status != nil {
				status <- s
			}
		}
	}()
	return solve, func() { <-done }
}
