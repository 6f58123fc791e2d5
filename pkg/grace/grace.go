// Package grace extends contexts, so that what was begun can be completed or undone after a cancellation.
package grace

import (
	"context"
	"time"
)

// Extend returns a context that ends the given time after ctx, with cause, or with that of ctx if cause is nil. It has
// no deadline until ctx ends. stop releases it.
func Extend(
	ctx context.Context, period time.Duration, cause error,
) (extended context.Context, stop context.CancelFunc) {
	extended, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unregister := context.AfterFunc(ctx, func() {
		if cause == nil {
			cause = context.Cause(ctx)
		}
		timer := time.AfterFunc(period, func() { cancel(cause) })
		context.AfterFunc(extended, func() { timer.Stop() })
	})
	return extended, func() {
		unregister()
		cancel(nil)
	}
}
