// Package builders is the stand-in for Depot's machines: real, stock BuildKit daemons, one for each platform, that
// nobody reaches but over TCP with a certificate made for one build.
//
// The daemons keep their layers in a state directory, so that a build finds what an earlier one left, as on Depot.
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
	// Dir holds the state: the layer cache, which survives Stop, the daemons' configuration and their logs.
	// One Builders at a time may use it.
	Dir string
	// Platforms that have a machine. Default: linux/amd64 and linux/arm64. The daemon of another architecture than
	// ours builds Dockerfiles without RUN.
	Platforms []string
	// Mirrors maps a registry's host (docker.io) to the host:port that serves its images over plain HTTP.
	Mirrors map[string]string
	// Insecure lists the registries, host:port, that speak plain HTTP.
	Insecure []string
	// Program is the BuildKit daemon. Default: .cache/bin/buildkitd of this module.
	Program string
}

// Builders are running daemons. Stop ends them.
type Builders struct {
	machines map[string]*machine // by platform
	sockets  string              // directory that only we may enter

	mutex       sync.Mutex
	connections map[*Connection]struct{}
	tap         io.Writer
	stopped     bool
}

// ErrNoMachine is Open's answer to a platform that has no machine.
var ErrNoMachine = errors.New("no machine for this platform")

// Start starts a daemon for each platform and returns once all of them answer. It needs root, because a
// Dockerfile's RUN does. ctx is for starting only: the daemons live until Stop or, whatever happens, until our
// process ends.
func Start(ctx context.Context, o Options) (*Builders, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("builders: BuildKit's daemon needs root to run Dockerfiles")
	}
	program, err := findProgram(o.Program)
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, errors.New("builders: runc is missing: run scripts/setup.sh test")
	}
	dir, err := stateDirectory(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("builders: %w", err)
	}
	// A socket's path holds 107 bytes, a state directory may be deeper than that.
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

// Open lends the platform's machine to one build: a TCP address on loopback, and certificates made for this call,
// valid for lifetime, that no other address accepts. Close the connection when the build ends.
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

// Tap writes what clients send to the daemons to w, too, without its encryption: of the connections that are opened
// from now on. It must be good for several goroutines, and not fail.
func (b *Builders) Tap(w io.Writer) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.tap = w
}

// Address is the daemon's own address, unix://…, for tests that compare another client on the same daemon.
// It is "" for a platform without a machine.
func (b *Builders) Address(platform string) string {
	if m := b.machines[platform]; m != nil {
		return "unix://" + m.socket
	}
	return ""
}

// Stop cuts every connection, ends the daemons and what they were running, and removes their mounts. The layer
// cache stays. It may be called twice.
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

// stateDirectory makes the directory, and names it as the table of mounts does: absolute, without symbolic links.
func stateDirectory(named string) (string, error) {
	if err := os.MkdirAll(named, 0o700); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(named)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// findProgram returns the path of the daemon: the named one or the one that scripts/setup.sh builds.
func findProgram(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	dir, err := checkout.Root()
	if err != nil {
		return "", fmt.Errorf("builders: %w", err)
	}
	program := filepath.Join(dir, ".cache", "bin", "buildkitd")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("builders: BuildKit's daemon is not built: run scripts/setup.sh test (%w)", err)
	}
	return program, nil
}

// cause is the line of a daemon's log that says why it ended: its own word, or where Go's runtime gave up, or else
// the last one.
func cause(logFile string) string {
	data, err := os.ReadFile(logFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range lines {
		for _, end := range []string{"buildkitd: ", "panic: ", "fatal error: ", "runtime: ", "SIG"} {
			if strings.HasPrefix(line, end) {
				return line
			}
		}
	}
	return lines[len(lines)-1]
}
