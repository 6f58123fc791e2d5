// Package builder acquires BuildKit daemons: from Depot, one machine per platform, or from any address.
//
// Depot's protocol is depot.cli.v1.BuildService, as github.com/depot/depot-go v0.5.1 declares it. Of that module,
// the API client, the messages and the project files are used. Its handling of machines is replaced: it writes
// private keys to temporary files, keeps reporting health after a failure, writes to standard output, and cannot
// finish a canceled build.
package builder

import (
	"context"
	"errors"
	"sync"

	"github.com/moby/buildkit/client"
)

// Request describes a build to Depot. An [Address] ignores it.
type Request struct {
	Platforms []string // os/architecture, for example linux/amd64
	Tags      []string // references to push; Depot shows them on the build's page
	Push      bool
	Load      bool
	Save      bool // keep the image in Depot's registry
}

// Credential authenticates to one registry.
type Credential struct {
	Host, Username, Password string
}

// ErrReleased is returned by [Lease.Machine] after [Lease.Release].
var ErrReleased = errors.New("the BuildKit lease is released")

// Lease holds the BuildKit daemons of one build, from Acquire until [Lease.Release].
type Lease struct {
	ID, URL     string // of Depot's build and its page; "" for an [Address]
	ProjectID   string
	Tags        []string     // references to push, so that Depot's registry keeps the image
	Credentials []Credential // for pushing Tags

	connect func(ctx context.Context, platform string) (*client.Client, error)
	finish  func(outcome error) // reports the outcome to Depot; nil for an [Address]

	ctx     context.Context // canceled by Release only, not by the context of Acquire
	cancel  context.CancelCauseFunc
	running sync.WaitGroup // connection attempts and health reports

	mu       sync.Mutex
	machines map[string]*machine // by platform
	release  sync.Once
}

// machine is the connection for one platform. It is attempted once.
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

// Machine returns the connected BuildKit for a platform. It blocks until the connection succeeds or fails, or ctx
// ends. Repeated calls return the same client or the same error. It is safe for concurrent use.
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

// machine starts the connection on the first call for a platform. The connection belongs to the lease: it outlives
// callers that stop waiting.
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
// wraps [context.Canceled], failure otherwise. It returns within [Policy.ReleaseTimeout], whatever state the
// machines are in. Further calls do nothing.
func (l *Lease) Release(outcome error) {
	l.release.Do(func() {
		l.mu.Lock()
		l.cancel(ErrReleased) // no machine starts from here on
		l.mu.Unlock()
		if l.finish != nil {
			l.finish(outcome)
		}
		l.running.Wait()
		for _, m := range l.machines {
			if m.client != nil {
				_ = m.client.Close() // the caller cannot act on it
			}
		}
	})
}
