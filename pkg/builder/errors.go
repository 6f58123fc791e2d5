package builder

import (
	"context"
	"fmt"
	"time"
)

// CanceledError reports that Depot canceled the build: on the build's page, or because of the project's time limit. It
// wraps [context.Canceled].
type CanceledError struct {
	Build string    // Depot's build ID
	At    time.Time // when the cancellation took effect
}

func (e *CanceledError) Error() string {
	return fmt.Sprintf("Depot canceled build %s at %s", e.Build, e.At.UTC().Format(time.TimeOnly+" MST"))
}

func (e *CanceledError) Unwrap() error { return context.Canceled }

// LostError reports a connection to a machine that broke after it was established: the network failed, or the machine
// stopped or no longer responds. A build on another machine may succeed.
type LostError struct {
	Platform string
	Addr     string        // of the machine
	Silent   time.Duration // time without an answer of BuildKit; 0 if the connection was closed
	Err      error         // of the call that failed
}

func (e *LostError) Error() string {
	if e.Silent > 0 {
		return fmt.Sprintf("the builder for %s at %s stopped answering: no answer for %s (check its state and its log)",
			e.Platform, e.Addr, e.Silent.Round(time.Second))
	}
	return fmt.Sprintf("lost the connection to the machine for %s at %s: %s "+
		"(check the network and the state of the builder)", e.Platform, e.Addr, shortCause(e.Err))
}

func (e *LostError) Unwrap() error { return e.Err }
