// Package fakeclock is a clock for tests that advances only when it sleeps or is told to.
package fakeclock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Clock implements httpclient.Clock. The zero value starts at [Start].
type Clock struct {
	// OnSleep is called at the end of each Sleep; nil: nothing.
	OnSleep func()

	mu      sync.Mutex
	elapsed time.Duration
	slept   []time.Duration
}

// Start is the time that a new clock shows.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Start.Add(c.elapsed)
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed += d
}

// Sleep advances the clock by d and returns at once, with the cause of ctx if that has ended.
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

// Slept returns the durations of all sleeps, in order.
func (c *Clock) Slept() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.slept)
}
