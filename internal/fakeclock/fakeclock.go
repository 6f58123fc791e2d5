// Package fakeclock provides a clock for tests that advances only through Sleep and Advance.
package fakeclock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Clock implements httpclient.Clock. The zero value starts at [Start].
type Clock struct {
	// OnSleep, if set, is called at the end of each Sleep.
	OnSleep func()

	mu      sync.Mutex
	elapsed time.Duration
	slept   []time.Duration
}

// Start is the time of a new clock.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Now returns the current time of the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Start.Add(c.elapsed)
}

// Advance advances the clock by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed += d
}

// Sleep advances the clock by d and returns immediately. If ctx is done, it returns the cause.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.elapsed += d
	c.slept = append(c.slept, d)
	c.mu.Unlock()
	if c.OnSleep != nil {
		c.OnSleep()
	}
	return context.Cause(ctx)
}

// Slept returns the durations passed to Sleep, in order.
func (c *Clock) Slept() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.slept)
}
