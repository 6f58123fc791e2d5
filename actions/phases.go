package actions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// phases knows what is being waited for, so that an end before the end can say it.
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

func (p *phases) waited() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.active) == 0 {
		return "the end"
	}
	return strings.Join(p.active, " and ")
}

// deadline makes a context that ends after timeout, or with parent, with a cause that says what was waited for then.
func (p *phases) deadline(parent context.Context, timeout time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	timer := time.AfterFunc(timeout, func() {
		cancel(fmt.Errorf("the timeout of %s is over, while waiting for %s: raise the input timeout, or find out why that takes so long", timeout, p.waited()))
	})
	forget := context.AfterFunc(parent, func() {
		cancel(fmt.Errorf("canceled (%w), while waiting for %s: nothing was published, run it again", context.Cause(parent), p.waited()))
	})
	return ctx, func() { forget(); timer.Stop(); cancel(nil) }
}
