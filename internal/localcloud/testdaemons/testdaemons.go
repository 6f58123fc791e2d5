// Package testdaemons shares a set of daemons between the test packages of a run: the current Docker Engine, Docker
// Engine 20.10, and a BuildKit daemon per platform, with a mirror of docker.io that serves debian:bookworm-slim.
//
// scripts/test.sh runs the tests with the command cmd/testdaemons, which starts the set, passes its addresses to the
// tests in environment variables, and stops the set when the tests end:
//
//	go run ./internal/localcloud/cmd/testdaemons go test ./...
//
// A test gets its daemons from Engine and Builders. Without the command, as in `go test ./pkg/suite`, these functions
// start daemons on first use, and Run stops them:
//
//	func TestMain(m *testing.M) { os.Exit(testdaemons.Run(m)) }
//
//	func TestLoad(t *testing.T) {
//		host := testdaemons.Engine(t, engine.Current) // skips the test under -short
//		…
//	}
//
// Tests of other packages use the same daemons at the same time. Therefore, a test must use unique image names, remove
// what it creates, and never prune. A test that lists all images or containers of an engine must use PrivateEngine. A
// test that stops a daemon or fills its disk must start that daemon with engine.Start or builders.Start.
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

// cacheLimit is the maximum size in bytes of the layer cache that a BuildKit daemon keeps between runs.
const cacheLimit = 6e9

var (
	kinds     = []string{engine.Current, engine.Oldest}
	platforms = []string{"linux/amd64", "linux/arm64"}
)

// variable returns the name of the environment variable with the address of the engine or builder called name.
func variable(name string) string {
	return "TESTDAEMONS_" + strings.ToUpper(strings.ReplaceAll(name, "/", "_"))
}

// Engine returns the DOCKER_HOST of a Docker Engine of the kind [engine.Current] or [engine.Oldest]. It skips the test
// under -short.
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

// PrivateEngine is like Engine, but no other process uses the engine.
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

// EngineHost is like Engine, but for code without a testing.TB, such as a fixture that several tests share.
func EngineHost(kind string) (string, error) {
	if host := os.Getenv(variable(kind)); host != "" {
		return host, nil
	}
	return own.engine(kind)
}

// Builders returns the BuildKit daemons for linux/amd64 and linux/arm64. Stop closes the connections opened through it
// and leaves the daemons running. Builders skips the test under -short.
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

// AttachBuilders is like Builders, but for code without a testing.TB.
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

// StartBuilders starts BuildKit daemons that only this process uses. dir stores their layer cache between runs. Run
// stops the daemons.
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

// own holds the daemons that this process starts.
var own = &lazySet{state: packageState}

// lazySet starts each daemon on first use.
type lazySet struct {
	state func() (string, error) // returns the directory for the builders' layer cache

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

// packageState returns a directory below .cache/test for the package under test.
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

// Start starts the whole set. dir stores the builders' layer cache between runs; the engines start empty. ctx bounds
// the start only.
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

// Env returns the environment variables, as NAME=VALUE, that pass the set's addresses to tests.
func (s *Set) Env() []string { return s.env }

// Stop stops the daemons and removes their data, except the builders' layer cache.
func (s *Set) Stop() error { return s.stop() }

// set collects the functions that stop started daemons.
type set struct {
	mutex sync.Mutex
	stops []func() error
}

func (s *set) onStop(stop func() error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.stops = append(s.stops, stop)
}

// stop calls the functions passed to onStop in reverse order.
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

// lock creates dir and waits until no other process has locked it. Closing the result releases the lock.
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
