// Package builder is where a BuildKit comes from: Depot, which lends a machine for each platform, or any BuildKit's address.
//
// Depot's protocol is depot.cli.v1.BuildService as github.com/depot/depot-go has it. Of that module the API, its messages and its
// project files are used; what it does with machines is done here instead, because it leaves private keys in temporary
// files, reports health for ever after a failure, writes to standard output, and cannot finish a build that was canceled.
package builder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
)

// Request says what a build will need.
type Request struct {
	Platforms []string // os/architecture, for example linux/amd64
	Tags      []string // what it will be pushed as; shown on the build's page
	Push      bool
	Load      bool
	Save      bool // keep it in Depot's registry
}

// Credential opens one registry.
type Credential struct {
	Host, Username, Password string
}

// Build is a BuildKit at our service, from Start until Finish.
type Build struct {
	ID, URL     string // of the build's page; "" for an address
	ProjectID   string
	Tags        []string     // what Depot asks to push, to keep it
	Credentials []Credential // for those

	connect func(ctx context.Context, platform string) (*client.Client, error)
	finish  func(err error)
	pull    func(ctx context.Context) (Credential, error)

	mu       sync.Mutex
	machines map[string]*machine
	finished sync.Once
}

// machine is the connection for one platform, made once.
type machine struct {
	once   sync.Once
	client *client.Client
	err    error
}

// Machine returns the BuildKit for a platform, connected. It waits until there is one, as long as ctx allows; asked again, it answers the same.
// Platforms may be asked for at the same time.
func (b *Build) Machine(ctx context.Context, platform string) (*client.Client, error) {
	b.mu.Lock()
	m := b.machines[platform]
	if m == nil {
		m = &machine{}
		b.machines[platform] = m
	}
	b.mu.Unlock()
	m.once.Do(func() { m.client, m.err = b.connect(ctx, platform) })
	return m.client, m.err
}

// PullCredential is what another job needs to pull what was saved. Depot only.
func (b *Build) PullCredential(ctx context.Context) (Credential, error) {
	if b.pull == nil {
		return Credential{}, errors.New("only Depot keeps images")
	}
	return b.pull(ctx)
}

// Finish gives back what the build took: connections, and the build at Depot, which is told how it ended. A context.Canceled in err means
// that it was canceled. It takes no longer than 4 seconds, whatever became of the build's context, and does nothing when called again.
func (b *Build) Finish(err error) {
	b.finished.Do(func() {
		b.finish(err)
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, m := range b.machines {
			m.once.Do(func() { m.err = errors.New("the build is finished") })
			if m.client != nil {
				_ = m.client.Close() // nobody is left to tell
			}
		}
	})
}

// Address is a BuildKit that is there already.
type Address struct {
	Addr   string // unix:///path or tcp://host:port
	Getenv func(string) string
}

// CertPath is the variable that names a folder with ca.pem, cert.pem and key.pem for a tcp:// address, as DOCKER_CERT_PATH does for Docker.
const CertPath = "BUILDKIT_CERT_PATH"

// CheckAddress refuses what is no address of a BuildKit. It asks nobody.
func CheckAddress(addr string) error {
	scheme, rest, ok := strings.Cut(addr, "://")
	switch {
	case !ok || scheme != "unix" && scheme != "tcp":
		return fmt.Errorf("%q is no builder: write depot, unix:///path/of/buildkitd.sock or tcp://host:port", addr)
	case scheme == "unix" && !strings.HasPrefix(rest, "/"):
		return fmt.Errorf("%q names no socket: write unix:// and an absolute path", addr)
	case scheme == "tcp" && !strings.Contains(rest, ":"):
		return fmt.Errorf("%q has no port: write tcp://host:port", addr)
	}
	return nil
}

// Start connects once it is asked for a machine. Every platform is built on the same daemon, which must offer it.
func (a Address) Start(context.Context, Request) (*Build, error) {
	if err := CheckAddress(a.Addr); err != nil {
		return nil, err
	}
	target := endpoint{addr: a.Addr}
	if a.Getenv != nil && strings.HasPrefix(a.Addr, "tcp://") {
		if err := target.certificates(a.Getenv(CertPath)); err != nil {
			return nil, err
		}
	}
	return &Build{
		machines: map[string]*machine{},
		finish:   func(error) {},
		connect: func(ctx context.Context, platform string) (*client.Client, error) {
			c, workers, err := target.connect(ctx, connectPatience)
			if err != nil {
				return nil, fmt.Errorf("builder %s: %w", a.Addr, err)
			}
			var offers []string
			for _, w := range workers {
				for _, p := range w.Platforms {
					offers = append(offers, platforms.Format(platforms.Normalize(p)))
				}
			}
			if !slices.Contains(offers, platform) {
				_ = c.Close()
				return nil, fmt.Errorf("builder %s: it builds %s, not %s: change the input platform, or the builder", a.Addr, strings.Join(slices.Compact(slices.Sorted(slices.Values(offers))), ", "), platform)
			}
			return c, nil
		},
	}, nil
}

// connectPatience bounds how long a daemon may take to answer once its address is known: it may be starting.
var connectPatience = 30 * time.Second
