// Package engine starts Docker Engines of their own for the local cloud: the current one and the oldest that still
// matters, each beside any other, with what scripts/engine.sh does.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/checkout"
)

// Kinds of engines. Current is a release of today with the containerd image store, built from its modules by
// scripts/engine-build.sh; Oldest is Debian's 20.10 with overlay2.
const (
	Current = "current"
	Oldest  = "oldest"
)

// Engine is a running Docker Engine. Stop ends it.
type Engine struct {
	Host string // as in DOCKER_HOST: unix:///…

	command *exec.Cmd
	ended   chan struct{}
	sockets string // a directory of ours for the socket; "" when the socket is in the engine's own
}

// Start starts an engine whose images and containers are kept in dir, and returns once it answers. What it logs goes to
// log, which may be nil. ctx is for starting only: the engine lives until Stop or until our process ends. It needs root.
func Start(ctx context.Context, kind, dir string, log io.Writer) (*Engine, error) {
	root, err := checkout.Root()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := &Engine{ended: make(chan struct{})}
	socket := filepath.Join(dir, "docker.sock")
	if len(socket) > 107 { // what a socket's address can hold, see unix(7)
		if e.sockets, err = os.MkdirTemp("/tmp", "engine-"); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		socket = filepath.Join(e.sockets, "docker.sock")
	}
	e.Host = "unix://" + socket

	last := &tail{next: log}
	e.command = exec.Command(filepath.Join(root, "scripts", "engine.sh"), kind, dir, "owned")
	e.command.Env = append(os.Environ(), "ENGINE_SOCKET="+socket)
	e.command.Stdout, e.command.Stderr = last, last
	// The engine ends when this pipe does, however our process ends.
	if _, err := e.command.StdinPipe(); err != nil {
		return nil, errors.Join(fmt.Errorf("engine: %w", err), os.RemoveAll(e.sockets))
	}
	// A terminal's Ctrl-C is for us: the engine ends when Stop says so.
	e.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A process that keeps the output open must not keep us.
	e.command.WaitDelay = time.Second
	if err := e.command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("engine: %w", err), os.RemoveAll(e.sockets))
	}
	go func() {
		defer close(e.ended)
		_ = e.command.Wait() // how it ended is in its log
	}()
	if err := e.ready(ctx, socket); err != nil {
		stopped := e.Stop() // first, so that the log is complete
		return nil, errors.Join(fmt.Errorf("engine: the %s engine %w: %s", kind, err, last), stopped)
	}
	return e, nil
}

// Attach returns the engine at host, which another process or another Engine started. Its Stop does nothing.
func Attach(host string) *Engine { return &Engine{Host: host} }

// Stop stops the engine's containers and the engine, and waits until nothing of it runs or is mounted. It may be called
// twice.
func (e *Engine) Stop() error {
	if e.command == nil {
		return nil
	}
	_ = e.command.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case <-e.ended:
	case <-time.After(30 * time.Second): // twice what the script gives the engine
		err = errors.Join(errors.New("engine: it did not end and was killed"), e.command.Process.Kill())
		<-e.ended
	}
	if e.sockets != "" {
		err = errors.Join(err, os.RemoveAll(e.sockets))
	}
	return err
}

// ready waits until the engine answers.
func (e *Engine) ready(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
		if err != nil {
			return err
		}
		if response, err := c.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-e.ended:
			return errors.New("ended at once")
		case <-ctx.Done():
			return fmt.Errorf("does not answer (%w)", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail passes a log on and keeps its end, for the sentence that says why an engine did not start.
type tail struct {
	next io.Writer

	mutex sync.Mutex
	end   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.end = append(t.end, p...)
	t.end = t.end[max(0, len(t.end)-1000):]
	if t.next == nil {
		return len(p), nil
	}
	return t.next.Write(p)
}

func (t *tail) String() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.end)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
