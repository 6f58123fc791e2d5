// Package builders stands in for Depot's machines. It runs one unmodified BuildKit daemon per platform, and opens a TCP
// listener with its own certificates for each build.
//
// The daemons keep their layer cache in a state directory, so builds share it, as on Depot.
package builders

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"golang.org/x/sync/errgroup"
)

// Options selects the daemons to start and configures their storage and registries.
type Options struct {
	// Dir holds the daemons' configuration and logs, and the layer cache, which survives Stop. Only one Builders may use
	// it at a time.
	Dir string
	// Platforms lists the platforms to start a machine for. Default: linux/amd64 and linux/arm64. If the architecture
	// differs from the host's, the daemon builds only Dockerfiles without RUN.
	Platforms []string
	// Mirrors maps a registry's host (docker.io) to the host:port that serves its images over plain HTTP.
	Mirrors map[string]string
	// Insecure lists registries (host:port) that use plain HTTP.
	Insecure []string
	// Version selects one of the versions of BuildKit that scripts/setup.sh test builds. Default: [Current].
	Version Version
	// Program is the path of another buildkitd.
	Program string
}

// Version is a version of BuildKit that scripts/setup.sh test builds.
type Version string

const (
	// Current is the version of this module.
	Current Version = ""
	// V011 is v0.11.6, on which Depot's public fork is based (depot/buildkit ce9540e, go.mod and control/control.go). It
	// runs one exporter in a solve.
	V011 Version = "v0.11"
)

// program returns the path of buildkitd below the checkout.
func (v Version) program() string {
	if v == V011 {
		return filepath.Join(".cache", "buildkit-v0.11", "buildkitd")
	}
	return filepath.Join(".cache", "bin", "buildkitd")
}

// Builders is a set of running BuildKit daemons. Stop stops them.
type Builders struct {
	machines map[string]*machine // by platform
	sockets  string              // directory with mode 0700

	mutex       sync.Mutex
	connections map[*Connection]struct{}
	tap         io.Writer
	stopped     bool
}

// ErrNoMachine reports that no daemon runs for the platform passed to Open.
var ErrNoMachine = errors.New("no machine for this platform")

// Start starts a daemon for each platform and returns when all of them accept requests. It requires root, because the
// daemons run containers. ctx bounds the start only: the daemons run until Stop is called or this process exits.
func Start(ctx context.Context, o Options) (*Builders, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("builders: start buildkitd: permission denied (run as root)")
	}
	program, err := findProgram(o.Program, o.Version)
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, errors.New("builders: runc not found (run scripts/setup.sh test)")
	}
	dir, err := stateDirectory(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("builders: %w", err)
	}
	// Socket paths are limited to 107 bytes, so the sockets cannot be in Dir.
	sockets, err := os.MkdirTemp("", "builders-")
	if err != nil {
		return nil, fmt.Errorf("builders: %w", err)
	}
	platforms := o.Platforms
	if len(platforms) == 0 {
		platforms = []string{"linux/amd64", "linux/arm64"}
	}

	b := &Builders{
		machines:    map[string]*machine{},
		sockets:     sockets,
		connections: map[*Connection]struct{}{},
		tap:         io.Discard,
	}
	group, starting := errgroup.WithContext(ctx)
	for _, platform := range platforms {
		name := strings.ReplaceAll(platform, "/", "-")
		m := &machine{
			platform: platform,
			dir:      filepath.Join(dir, name),
			socket:   filepath.Join(sockets, name+".sock"),
		}
		if m.fork, err = startFork("unix://" + m.socket); err != nil {
			return nil, errors.Join(err, b.Stop())
		}
		b.machines[platform] = m
		group.Go(func() error { return m.start(starting, program, o) })
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

// Open opens a loopback TCP listener to a platform's machine for one build. The listener accepts only this connection's
// certificates, which are valid for lifetime. The caller must close the connection when the build ends. Through it, the
// machine behaves like Depot's fork of BuildKit: it removes the manifest of an image after the solve unless the client
// has requested a lease.
func (b *Builders) Open(platform string, lifetime time.Duration) (*Connection, error) {
	return b.OpenWithClock(platform, lifetime, 0)
}

// OpenWithClock is [Builders.Open] for a machine whose clock is wrong by skew.
func (b *Builders) OpenWithClock(platform string, lifetime, skew time.Duration) (*Connection, error) {
	m := b.machines[platform]
	if m == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoMachine, platform)
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.stopped {
		return nil, errors.New("the builders are stopped")
	}
	c, err := open(m.fork.dial, b.tap, lifetime, skew)
	if err != nil {
		return nil, err
	}
	b.connections[c] = struct{}{}
	c.forget = func() {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		delete(b.connections, c)
	}
	return c, nil
}

// ExportLeases returns the IDs of the export leases that clients have requested through connections and not deleted.
func (b *Builders) ExportLeases() []string {
	var ids []string
	for _, m := range b.machines {
		ids = append(ids, m.fork.heldLeases()...)
	}
	return ids
}

// Calls returns the number of RPCs that clients have sent through connections. It counts a session as one.
func (b *Builders) Calls() (n int64) {
	for _, m := range b.machines {
		n += m.fork.calls.Load()
	}
	return n
}

// FailSolves makes the next solves of a platform fail with these messages, if a client starts them through a
// connection.
func (b *Builders) FailSolves(platform string, messages ...string) {
	f := b.machines[platform].fork
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.failures = append(f.failures, messages...)
}

// Freeze stops a platform's daemon, which then answers nothing, until resume is called. Clients stay connected.
func (b *Builders) Freeze(platform string) (resume func() error, err error) {
	daemon := b.machines[platform].process
	return func() error { return daemon.Signal(syscall.SIGCONT) }, daemon.Signal(syscall.SIGSTOP)
}

// Tap copies the decrypted data that clients send to the daemons to w. It affects connections opened after the call. w
// must be safe for concurrent use and must not return errors.
func (b *Builders) Tap(w io.Writer) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.tap = w
}

// Address returns the unix:// address of a platform's daemon for clients that do not use Depot's API, or "" if the
// platform has no daemon.
func (b *Builders) Address(platform string) string {
	if m := b.machines[platform]; m != nil {
		return "unix://" + m.socket
	}
	return ""
}

// Stop closes all connections, stops the daemons and their containers, and removes their mounts. It keeps the layer
// cache. Calling Stop again has no effect.
func (b *Builders) Stop() error {
	b.mutex.Lock()
	b.stopped = true
	open := make([]*Connection, 0, len(b.connections))
	for c := range b.connections {
		open = append(open, c)
	}
	b.mutex.Unlock()
	for _, c := range open {
		c.Close()
	}

	var group errgroup.Group
	for _, m := range b.machines {
		m.fork.stop()
		group.Go(m.stop)
	}
	return errors.Join(group.Wait(), os.RemoveAll(b.sockets))
}

// stateDirectory creates a directory and returns its absolute path without symbolic links, as the mount table shows it.
func stateDirectory(path string) (string, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// findProgram returns path if it is set, or else the path of a version's buildkitd.
func findProgram(path string, version Version) (string, error) {
	if path != "" {
		return path, nil
	}
	dir, err := checkout.Root()
	if err != nil {
		return "", fmt.Errorf("builders: %w", err)
	}
	program := filepath.Join(dir, version.program())
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("builders: find buildkitd: %w (run scripts/setup.sh test)", err)
	}
	return program, nil
}

// exitReason returns the line of a daemon's log that explains why it exited: an error of buildkitd or of the Go
// runtime, or else the last line.
func exitReason(logFile string) string {
	data, err := os.ReadFile(logFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range lines {
		for _, prefix := range []string{"buildkitd: ", "panic: ", "fatal error: ", "runtime: ", "SIG"} {
			if strings.HasPrefix(line, prefix) {
				return line
			}
		}
	}
	return lines[len(lines)-1]
}
