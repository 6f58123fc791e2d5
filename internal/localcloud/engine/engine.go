// Package engine starts private Docker Engines with scripts/engine.sh: the current one and the oldest supported one.
// They are isolated from each other and from an engine installed on the machine.
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

// The kinds of engines. Current is a recent release with the containerd image store; scripts/setup.sh test builds it.
// Oldest is the 20.10 package of Debian 12, with overlay2.
const (
	Current = "current"
	Oldest  = "oldest"
)

// Engine is a running Docker Engine.
type Engine struct {
	Host string // value for DOCKER_HOST: unix:///…

	command *exec.Cmd
	ended   chan struct{}
	sockets string // temporary directory for the socket; "" if the socket is in the engine's directory
}

// Start starts an engine that stores its images and containers in dir, and returns when it accepts requests. It writes
// the engine's log to log, which may be nil. ctx bounds the start only: the engine runs until Stop is called or this
// process exits. Start requires root.
func Start(ctx context.Context, kind, dir string, log io.Writer) (*Engine, error) {
	for attempt := 1; ; attempt++ {
		e, err := start(ctx, kind, dir, log)
		// Docker 20.10 exits if containerd takes more than 15 s to start, as on a busy machine: moby/moby v20.10.24,
		// libcontainerd/supervisor/remote_daemon.go, startupTimeout.
		if !errors.Is(err, errExited) || attempt == maxStarts {
			return e, err
		}
	}
}

const maxStarts = 4

var errExited = errors.New("the engine exited")

func start(ctx context.Context, kind, dir string, log io.Writer) (*Engine, error) {
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
	if len(socket) > 107 { // limit of socket paths, see unix(7)
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
	// The engine stops when this pipe closes, which also happens when this process exits.
	if _, err := e.command.StdinPipe(); err != nil {
		return nil, errors.Join(fmt.Errorf("engine: %w", err), os.RemoveAll(e.sockets))
	}
	// A separate process group keeps a terminal's Ctrl-C from the engine until Stop.
	e.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Do not wait for child processes that keep the output open.
	e.command.WaitDelay = time.Second
	if err := e.command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("engine: %w", err), os.RemoveAll(e.sockets))
	}
	go func() {
		defer close(e.ended)
		_ = e.command.Wait() // the log contains the reason
	}()
	if err := e.waitUntilReady(ctx, socket); err != nil {
		stopErr := e.Stop() // first, so that the log is complete
		return nil, errors.Join(fmt.Errorf("engine: start the %s engine: %w: %s", kind, err, last), stopErr)
	}
	return e, nil
}

// Attach returns the engine at host, which another process or another Engine started. Stop has no effect on it.
func Attach(host string) *Engine { return &Engine{Host: host} }

// Stop stops the engine and its containers, and waits until all their processes and mounts are gone. Calling Stop again
// has no effect.
func (e *Engine) Stop() error {
	if e.command == nil {
		return nil
	}
	_ = e.command.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case <-e.ended:
	case <-time.After(30 * time.Second): // twice the script's own limit
		err = errors.Join(errors.New("engine: timed out stopping the engine; killed it"), e.command.Process.Kill())
		<-e.ended
	}
	if e.sockets != "" {
		err = errors.Join(err, os.RemoveAll(e.sockets))
	}
	return err
}

// waitUntilReady waits until the engine accepts requests.
func (e *Engine) waitUntilReady(ctx context.Context, socket string) error {
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
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("the engine does not respond: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail forwards a log and keeps its last lines for the error of Start.
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
