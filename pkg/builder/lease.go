// Package builder acquires BuildKit daemons, either from Depot (one machine per platform) or at a given address.
//
// Depot's API is depot.cli.v1.BuildService, as declared in github.com/depot/depot-go v0.5.1. This package uses that
// module's API client, messages and project files, but not its machine handling, which writes private keys to
// temporary files, keeps reporting health after a failure, writes to standard output, and cannot finish a canceled
// build.
package builder

import (
	"context"
	"errors"
	"sync"

	"github.com/moby/buildkit/client"
)

// Request describes a build to Depot. [Address.Acquire] ignores it.
type Request struct {
	Platforms []string // os/architecture, for example linux/amd64
	Tags      []string // references to push, shown on Depot's build page
	Push      bool
	Load      bool
	Save      bool // keep the image in Depot's registry
}

// Credential is a username and password for one registry.
type Credential struct {
	Host, Username, Password string
}

// ErrReleased is returned by [Lease.Machine] after [Lease.Release].
var ErrReleased = errors.New("the BuildKit lease has been released")

// Lease holds the BuildKit daemons of one build, from Acquire until [Lease.Release].
type Lease struct {
	ID, URL     string // Depot's build ID and the URL of its page; "" for an [Address]
	ProjectID   string
	Tags        []string     // references to push, so that Depot's registry keeps the image
	Credentials []Credential // for pushing Tags

	connect func(ctx context.Context, platform string) (*client.Client, error)
	finish  func(outcome error) // reports the outcome to Depot; nil for an [Address]

	ctx     context.Context // canceled only by Release, not by Acquire's context
	cancel  context.CancelCauseFunc
	running sync.WaitGroup // connection attempts and health reports

	mu       sync.Mutex
	machines map[string]*machine // by platform
	release  sync.Once
}

// machine is the connection to one platform's daemon. It is attempted once.
type machine struct {
	done   chan struct{} // closed when client or err is set
	client *client.Client
	err    error
}

func newLease(ctx context.Context) *Lease {
	l := &Lease{machines: map[string]*machine{}}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return l
}

// Machine returns a client connected to the platform's BuildKit daemon. It blocks until the connection succeeds or
// fails, or ctx ends. Repeated calls return the same client or error. It is safe for concurrent use.
func (l *Lease) Machine(ctx context.Context, platform string) (*client.Client, error) {
	m, err := l.machine(platform)
	if err != nil {
		return nil, err
	}
	select {
	case <-m.done:
		return m.client, m.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// machine starts connecting on the first call for a platform. The lease owns the connection, which outlives callers
// that stop waiting.
func (l *Lease) machine(platform string) (*machine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return nil, ErrReleased
	}
	if m := l.machines[platform]; m != nil {
		return m, nil
	}
	m := &machine{done: make(chan struct{})}
	l.machines[platform] = m
	l.running.Go(func() {
		defer close(m.done)
		m.client, m.err = l.connect(l.ctx, platform)
	})
	return m, nil
}

// Release closes the connections and reports the outcome to Depot: success for nil, canceled for an error that
// wraps [context.Canceled], failure otherwise. It returns within [Policy.ReleaseTimeout], regardless of the machines'
// state. Later calls do nothing.
func (l *Lease) Release(outcome error) {
	l.release.Do(func() {
		l.mu.Lock()
		l.cancel(ErrReleased) // no connection starts after this
		l.mu.Unlock()
		if l.finish != nil {
			l.finish(outcome)
		}
		l.running.Wait()
		for _, m := range l.machines {
			if m.client != nil {
				_ = m.client.Close() // the caller could not act on an error
			}
		}
	})
}
