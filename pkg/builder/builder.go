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
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

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

	alive   context.Context // ends with Finish, not with who asked for the build
	end     context.CancelCauseFunc
	running sync.WaitGroup // all that works for the build until then

	mu       sync.Mutex
	machines map[string]*machine
	finished sync.Once
}

// machine is the connection for one platform, made once.
type machine struct {
	ready  chan struct{} // closed when client or err is there
	client *client.Client
	err    error
}

// ErrFinished is what [Build.Machine] says after [Build.Finish].
var ErrFinished = errors.New("the build is finished")

func newBuild(ctx context.Context) *Build {
	b := &Build{machines: map[string]*machine{}}
	b.alive, b.end = context.WithCancelCause(context.WithoutCancel(ctx))
	return b
}

// Machine returns the BuildKit for a platform, connected. It waits until there is one, as long as ctx allows; asked again, it answers the same.
// Platforms may be asked for at the same time.
func (b *Build) Machine(ctx context.Context, platform string) (*client.Client, error) {
	m, err := b.machine(platform)
	if err != nil {
		return nil, err
	}
	select {
	case <-m.ready:
		return m.client, m.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// machine begins to connect when it is asked for the first time. Who waits may give up; the connection is the build's, and ends with it.
func (b *Build) machine(platform string) (*machine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alive.Err() != nil {
		return nil, ErrFinished
	}
	if m := b.machines[platform]; m != nil {
		return m, nil
	}
	m := &machine{ready: make(chan struct{})}
	b.machines[platform] = m
	b.running.Go(func() {
		defer close(m.ready)
		m.client, m.err = b.connect(b.alive, platform)
	})
	return m, nil
}

// Finish gives back what the build took: connections, and the build at Depot, which is told how it ended. A context.Canceled in err means
// that it was canceled. It takes no longer than 4 seconds, whatever became of the build's context and of machines that are waited for, and does
// nothing when called again.
func (b *Build) Finish(err error) {
	b.finished.Do(func() {
		b.mu.Lock()
		b.end(ErrFinished) // from here on nothing begins, and what runs comes to its end
		b.mu.Unlock()
		if b.finish != nil {
			b.finish(err)
		}
		b.running.Wait()
		for _, m := range b.machines {
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
	if !ok || scheme != "unix" && scheme != "tcp" {
		return fmt.Errorf("%q is no builder: write depot, unix:///path/of/buildkitd.sock or tcp://host:port", addr)
	}
	if strings.ContainsFunc(addr, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		return fmt.Errorf("%q holds a character that is in no address: write unix:///path/of/buildkitd.sock or tcp://host:port", addr)
	}
	if scheme == "unix" {
		if !strings.HasPrefix(rest, "/") || strings.HasSuffix(rest, "/") {
			return fmt.Errorf("%q names no socket: write unix:// and an absolute path", addr)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || port == "" {
		return fmt.Errorf("%q has no port: write tcp://host:port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no port between 1 and 65535: write tcp://host:port", addr)
	}
	if host == "" || strings.ContainsAny(host, "/@?# ") {
		return fmt.Errorf("%q names no host: write tcp://host:port", addr)
	}
	return nil
}

// Near reports whether an address is of this machine, so that bytes cost less than their compression. Depot's machines never are.
func Near(addr string) bool {
	scheme, rest, _ := strings.Cut(addr, "://")
	if scheme == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(rest)
	ip := net.ParseIP(host)
	return err == nil && scheme == "tcp" && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// Start connects once it is asked for a machine. Every platform is built on the same daemon, which must offer it.
func (a Address) Start(ctx context.Context, _ Request) (*Build, error) {
	if err := CheckAddress(a.Addr); err != nil {
		return nil, err
	}
	target := endpoint{addr: a.Addr}
	if a.Getenv != nil && strings.HasPrefix(a.Addr, "tcp://") {
		if err := target.certificates(a.Getenv(CertPath)); err != nil {
			return nil, err
		}
	}
	b := newBuild(ctx)
	b.connect = func(ctx context.Context, platform string) (*client.Client, error) {
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
			offers = slices.DeleteFunc(offers, func(name string) bool { return strings.HasPrefix(name, "linux/amd64/") }) // its generations are no news
			slices.Sort(offers)
			return nil, fmt.Errorf("builder %s: it builds %s, not %s: change the input platform, or the builder", a.Addr, strings.Join(slices.Compact(offers), ", "), platform)
		}
		return c, nil
	}
	return b, nil
}

// connectPatience bounds how long a daemon may take to answer once its address is known: it may be starting. A variable for tests.
var connectPatience = time.Minute
