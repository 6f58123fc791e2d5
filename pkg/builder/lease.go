// Package builder acquires BuildKit daemons, either from Depot (one machine per platform) or at a given address.
//
// Depot's API is depot.cli.v1.BuildService, as declared in github.com/depot/depot-go v0.5.1. This package uses that
// module's API client, messages and project files, but not its machine handling, which writes private keys to
// temporary files, keeps reporting health after a failure, writes to standard output, and cannot finish a canceled
// build.
package builder

import (
	"cmp"
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
	Save      bool     // keep the image in Depot's registry
	SaveTags  []string // tags of the saved image, in addition to the build ID

	// Canceled is called when Depot cancels the build, before its machines are released; may be nil.
	Canceled func(*CanceledError)
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
	Tags        []string     // references to push, so that Depot's registry keeps the image; the build ID's is first
	Credentials []Credential // for pushing Tags

	policy  ConnectPolicy
	connect func(ctx context.Context, platform string) (connection, error)
	finish  func(outcome error) // reports the outcome to Depot; nil for an [Address]

	ctx     context.Context // canceled only by Release, not by Acquire's context
	cancel  context.CancelCauseFunc
	running sync.WaitGroup // connections and health reports

	mu       sync.Mutex
	machines map[string]*machine // by platform
	release  sync.Once
}

// machine is the connection to one platform's daemon. It is attempted once.
type machine struct {
	done chan struct{} // closed when connection or err is set
	connection
	err          error
	exportLeases []string // to be deleted by Release
}

func newLease(ctx context.Context, policy ConnectPolicy) *Lease {
	l := &Lease{policy: policy, machines: map[string]*machine{}}
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
	if cause := context.Cause(l.ctx); cause != nil {
		return nil, cause
	}
	if m := l.machines[platform]; m != nil {
		return m, nil
	}
	m := &machine{done: make(chan struct{})}
	l.machines[platform] = m
	l.running.Go(func() {
		m.connection, m.err = l.connect(l.ctx, platform)
		close(m.done)
		if m.err == nil {
			m.watch(l.ctx, l.policy)
		}
	})
	return m, nil
}

// Err returns the [*CanceledError] if Depot has canceled the build before [Lease.Release], and nil otherwise.
func (l *Lease) Err() error {
	if canceled, ok := errors.AsType[*CanceledError](context.Cause(l.ctx)); ok {
		return canceled
	}
	return nil
}

// Explain returns the reason why an operation on a platform's machine failed with err, if the lease knows it: a
// [*CanceledError], or a [*LostError] if the connection broke. Otherwise it returns err.
func (l *Lease) Explain(platform string, err error) error {
	if err == nil {
		return nil
	}
	if canceled := l.Err(); canceled != nil {
		return canceled
	}
	l.mu.Lock()
	m := l.machines[platform]
	l.mu.Unlock()
	if m == nil || l.ctx.Err() != nil {
		return err
	}
	select {
	case <-m.done:
		return m.explain(platform, err)
	default:
		return err
	}
}

// Release closes the connections and reports the outcome to Depot: success for nil, canceled for an error that wraps
// [context.Canceled] and after a [*CanceledError], failure otherwise. It returns within a second and
// [Policy.ReleaseTimeout], regardless of the machines' state. Later calls do nothing.
func (l *Lease) Release(outcome error) {
	l.release.Do(func() {
		l.deleteExportLeases()
		l.mu.Lock()
		l.cancel(ErrReleased) // no connection starts after this
		l.mu.Unlock()
		if l.finish != nil {
			l.finish(cmp.Or(l.Err(), outcome))
		}
		l.running.Wait()
		for _, m := range l.machines {
			if m.client != nil {
				_ = m.client.Close() // the caller could not act on an error
			}
		}
	})
}
