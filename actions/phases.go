package actions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// phases knows what is being waited for, so that the end of the time can say it.
type phases struct {
	mu     sync.Mutex
	active []string
}

// begin says that something is waited for until the returned function is called.
func (p *phases) begin(format string, args ...any) (end func()) {
	name := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active = append(p.active, name)
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(p.active, name); i >= 0 {
			p.active = slices.Delete(p.active, i, i+1)
		}
	})
}

// deadline ends ctx after timeout, with a cause that says what was waited for.
func (p *phases) deadline(ctx context.Context, timeout time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(timeout, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		waited := strings.Join(p.active, " and ")
		if waited == "" {
			waited = "the end"
		}
		cancel(fmt.Errorf("the timeout of %s is over, while waiting for %s: raise the input timeout, or find out why that takes so long", timeout, waited))
	})
	return ctx, func() { timer.Stop(); cancel(nil) }
}
