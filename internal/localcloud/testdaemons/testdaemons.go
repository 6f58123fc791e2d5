// Package testdaemons shares one set of daemons between the test packages of a run: a current Docker Engine, a Docker
// Engine 20.10 and a BuildKit daemon for each platform, with a mirror of docker.io that serves debian:bookworm-slim.
//
// scripts/test.sh runs the tests under this package's command, which starts the set once, passes the addresses to the
// tests in environment variables, and stops the set when the tests end:
//
//	go run ./internal/localcloud/cmd/testdaemons go test ./...
//
// A test gets what it needs from Engine and Builders. Without the command, as in `go test ./pkg/suite`, they start what
// is missing, once for each process. TestMain stops it again:
//
//	func TestMain(m *testing.M) { os.Exit(testdaemons.Run(m)) }
//
//	func TestLoad(t *testing.T) {
//		host := testdaemons.Engine(t, engine.Current) // skips the test under -short
//		…
//	}
//
// The daemons are shared with tests of other packages that run at the same time. A test therefore gives its images
// names of its own, removes what it creates, and never prunes. A test that counts everything that an engine holds uses
// PrivateEngine; one that stops a daemon or fills its disk starts it with engine.Start or builders.Start.
package testdaemons

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

// cacheLimit is how many bytes of layers a BuildKit daemon keeps from one run to the next.
const cacheLimit = 6e9

var (
	kinds     = []string{engine.Current, engine.Oldest}
	platforms = []string{"linux/amd64", "linux/arm64"}
)

// variable is the environment variable that holds the address of an engine of a kind or a builder for a platform.
func variable(name string) string {
	return "TESTDAEMONS_" + strings.ToUpper(strings.ReplaceAll(name, "/", "_"))
}

// Engine returns the address, as in DOCKER_HOST, of a Docker Engine of the kind engine.Current or engine.Oldest. It
// skips the test under -short.
func Engine(t testing.TB, kind string) (host string) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker Engine; run without -short")
	}
	host, err := EngineHost(kind)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// PrivateEngine is Engine without the sharing: the engine is used by this test process only.
func PrivateEngine(t testing.TB, kind string) (host string) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker Engine; run without -short")
	}
	host, err := own.engine(kind)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// EngineHost is Engine for code that has no test at hand, such as a fixture that several tests share.
func EngineHost(kind string) (string, error) {
	if host := os.Getenv(variable(kind)); host != "" {
		return host, nil
	}
	return own.engine(kind)
}

// Builders returns the BuildKit daemons for linux/amd64 and linux/arm64. Its Stop closes the connections that were
// opened through it and leaves the daemons running. It skips the test under -short.
func Builders(t testing.TB) *builders.Builders {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit; run without -short")
	}
	b, err := AttachBuilders()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// AttachBuilders is Builders for code that has no test at hand.
func AttachBuilders() (*builders.Builders, error) {
	addresses := map[string]string{}
	for _, platform := range platforms {
		if address := os.Getenv(variable(platform)); address != "" {
			addresses[platform] = address
		}
	}
	if len(addresses) == len(platforms) {
		return builders.Attach(addresses)
	}
	return own.builders()
}

// StartBuilders starts BuildKit daemons that only this process uses; Run stops them. dir keeps their layers from one
// run to the next.
func StartBuilders(dir string) (*builders.Builders, error) {
	own.mutex.Lock()
	defer own.mutex.Unlock()
	return own.started.startBuilders(context.Background(), dir)
}

// Run runs the tests of a package, stops the daemons that they started, and returns the exit code.
func Run(m *testing.M) (code int) {
	code = m.Run()
	if err := own.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// own are the daemons that this process started because none were passed to it.
var own = &lazySet{state: packageState}

// lazySet starts each daemon when it is first needed.
type lazySet struct {
	state func() (string, error) // returns the directory that keeps the builders' layers

	mutex   sync.Mutex
	started set
	engines map[string]string // address by kind
	builder *builders.Builders
}

func (l *lazySet) engine(kind string) (string, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if host := l.engines[kind]; host != "" {
		return host, nil
	}
	host, err := l.started.startEngine(context.Background(), kind)
	if err != nil {
		return "", err
	}
	if l.engines == nil {
		l.engines = map[string]string{}
	}
	l.engines[kind] = host
	return host, nil
}

func (l *lazySet) builders() (*builders.Builders, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.builder == nil {
		dir, err := l.state()
		if err != nil {
			return nil, err
		}
		if l.builder, err = l.started.startBuilders(context.Background(), dir); err != nil {
			return nil, err
		}
	}
	addresses := map[string]string{}
	for _, platform := range platforms {
		addresses[platform] = l.builder.Address(platform)
	}
	return builders.Attach(addresses)
}

func (l *lazySet) stop() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.started.stop()
}

// packageState is a directory below .cache/test for the package whose tests this process runs.
func packageState() (string, error) {
	root, err := checkout.Root()
	if err != nil {
		return "", err
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	name, err := filepath.Rel(root, dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".cache", "test", "daemons", filepath.ToSlash(name)), nil
}

// Set is a running set of daemons.
type Set struct {
	set
	env []string
}

// Start starts the whole set. dir keeps the builders' layers from one run to the next; the engines start empty. ctx is
// for starting only.
func Start(ctx context.Context, dir string) (*Set, error) {
	s := &Set{}
	var mutex sync.Mutex
	add := func(name, address string) {
		mutex.Lock()
		defer mutex.Unlock()
		s.env = append(s.env, variable(name)+"="+address)
	}
	group, starting := errgroup.WithContext(ctx)
	for _, kind := range kinds {
		group.Go(func() error {
			host, err := s.startEngine(starting, kind)
			add(kind, host)
			return err
		})
	}
	group.Go(func() error {
		b, err := s.startBuilders(starting, dir)
		if err != nil {
			return err
		}
		for _, platform := range platforms {
			add(platform, b.Address(platform))
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Env are the variables, NAME=VALUE, through which tests find the set.
func (s *Set) Env() []string { return s.env }

// Stop stops the daemons and removes what they stored, except the builders' layers.
func (s *Set) Stop() error { return s.stop() }

// set collects what stops the daemons that were started.
type set struct {
	mutex sync.Mutex
	stops []func() error
}

func (s *set) onStop(stop func() error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.stops = append(s.stops, stop)
}

// stop runs what onStop was given, the latest first.
func (s *set) stop() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var errs []error
	for i := range s.stops {
		errs = append(errs, s.stops[len(s.stops)-1-i]())
	}
	s.stops = nil
	return errors.Join(errs...)
}

func (s *set) startEngine(ctx context.Context, kind string) (host string, err error) {
	dir, err := os.MkdirTemp("", "testdaemons-")
	if err != nil {
		return "", err
	}
	s.onStop(func() error { return os.RemoveAll(dir) })
	e, err := engine.Start(ctx, kind, filepath.Join(dir, kind), nil)
	if err != nil {
		return "", err
	}
	s.onStop(e.Stop)
	return e.Host, nil
}

func (s *set) startBuilders(ctx context.Context, dir string) (*builders.Builders, error) {
	root, err := checkout.Root()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	s.onStop(unlock.Close)
	mirror, err := registry.StartMirror(ctx, filepath.Join(root, registry.BaseImage))
	if err != nil {
		return nil, err
	}
	s.onStop(mirror.Stop)
	b, err := builders.Start(ctx, builders.Options{
		Dir: filepath.Join(dir, "buildkit"), Platforms: platforms, Mirrors: map[string]string{"docker.io": mirror.Addr},
	})
	if err != nil {
		return nil, err
	}
	s.onStop(b.Stop)
	for _, platform := range platforms {
		if err := prune(ctx, b.Address(platform)); err != nil {
			return nil, fmt.Errorf("prune the BuildKit cache for %s: %w", platform, err)
		}
	}
	return b, nil
}

func prune(ctx context.Context, address string) error {
	c, err := client.New(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Prune(ctx, nil, client.WithKeepOpt(0, 0, cacheLimit, 0))
}

// lock creates dir and waits until no other process uses it. Closing the result unlocks it.
func lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), file.Close())
	}
	return file, nil
}
