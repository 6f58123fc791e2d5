// Package builders is the stand-in for Depot's machines: real, stock BuildKit daemons, one per platform, reachable over
// TCP with a certificate for one build.
//
// The daemons keep their layer cache in a state directory, so that builds share it, as at Depot.
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
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"golang.org/x/sync/errgroup"
)

// Options says which daemons to start, and where they keep what they build.
type Options struct {
	// Dir holds the layer cache, which survives Stop, and the daemons' configuration and logs. Only one Builders may use
	// it at a time.
	Dir string
	// Platforms that have a machine. Default: linux/amd64 and linux/arm64. A daemon for another architecture than the
	// host's only builds Dockerfiles without RUN.
	Platforms []string
	// Mirrors maps a registry's host (docker.io) to the host:port that serves its images over plain HTTP.
	Mirrors map[string]string
	// Insecure lists the registries, host:port, that use plain HTTP.
	Insecure []string
	// Program is the BuildKit daemon. Default: .cache/bin/buildkitd of this module.
	Program string
}

// Builders are running daemons. Stop ends them.
type Builders struct {
	machines map[string]*machine // by platform
	sockets  string              // directory, accessible by its owner only

	mutex       sync.Mutex
	connections map[*Connection]struct{}
	tap         io.Writer
	stopped     bool
}

// ErrNoMachine is returned by Open for a platform without a machine.
var ErrNoMachine = errors.New("no machine for this platform")

// Start starts a daemon per platform and returns once all of them answer. It needs root, as RUN in a Dockerfile does.
// ctx is for starting only: the daemons run until Stop, or until this process ends for any reason.
func Start(ctx context.Context, o Options) (*Builders, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("builders: start buildkitd: permission denied (run as root)")
	}
	program, err := findProgram(o.Program)
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
	// The path of a socket is limited to 107 bytes, which Dir may exceed.
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
		b.machines[platform] = m
		group.Go(func() error { return m.start(starting, program, o) })
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

// Open makes a platform's machine available to one build: at a TCP address on loopback, with certificates that are
// valid for lifetime and for this address only. Close the connection when the build ends.
func (b *Builders) Open(platform string, lifetime time.Duration) (*Connection, error) {
	m := b.machines[platform]
	if m == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoMachine, platform)
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.stopped {
		return nil, errors.New("the builders are stopped")
	}
	c, err := open(m.socket, b.tap, lifetime)
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

// Tap copies what clients send to the daemons to w, unencrypted, for connections opened from now on. w must be safe for
// concurrent use, and must not fail.
func (b *Builders) Tap(w io.Writer) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.tap = w
}

// Address is the daemon's own address, unix://…, for clients other than Depot's. It is "" for a platform without a
// machine.
func (b *Builders) Address(platform string) string {
	if m := b.machines[platform]; m != nil {
		return "unix://" + m.socket
	}
	return ""
}

// Stop closes all connections, stops the daemons and their containers, and removes their mounts. The layer cache stays.
// It may be called twice.
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
		group.Go(m.stop)
	}
	return errors.Join(group.Wait(), os.RemoveAll(b.sockets))
}

// stateDirectory creates a directory and returns its path as in the mount table: absolute, without symbolic links.
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

// findProgram returns path, or the daemon that scripts/setup.sh test builds.
func findProgram(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	dir, err := checkout.Root()
	if err != nil {
		return "", fmt.Errorf("builders: %w", err)
	}
	program := filepath.Join(dir, ".cache", "bin", "buildkitd")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("builders: find buildkitd: %w (run scripts/setup.sh test)", err)
	}
	return program, nil
}

// cause is the line of a daemon's log that explains its end: its own error, or one of the Go runtime; otherwise the
// last line.
func cause(logFile string) string {
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
