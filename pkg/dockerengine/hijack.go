package dockerengine

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// dialFunc is the type of [net.Dialer.DialContext].
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// hijack calls request, which takes over a connection of Docker's client, and returns at the latest when ctx ends. It
// then closes the connection, because the client ignores the context once it is connected: see setupHijackConn in
// client/hijack.go of github.com/moby/moby/client v0.5.1. With TLS the connection is not known here, so request
// continues in the background until the connection fails.
func hijack[T any](ctx context.Context, request func(context.Context) (T, error), discard func(T)) (T, error) {
	type response struct {
		value T
		err   error
	}
	connection := new(dialed)
	responses := make(chan response, 1)
	go func() {
		value, err := request(context.WithValue(ctx, dialedKey{}, connection))
		responses <- response{value, err}
	}()
	select {
	case r := <-responses:
		return r.value, r.err
	case <-ctx.Done():
		connection.close()
		go func() {
			if r := <-responses; r.err == nil {
				discard(r.value)
			}
		}()
		var none T
		return none, context.Cause(ctx)
	}
}

// dialed is the connection that a call of hijack uses.
type dialed struct {
	mutex  sync.Mutex
	conn   net.Conn
	closed bool
}

type dialedKey struct{}

func (d *dialed) set(conn net.Conn) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.conn = conn; d.closed {
		conn.Close()
	}
}

func (d *dialed) close() {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.closed = true
	if d.conn != nil {
		d.conn.Close()
	}
}

// reportDialed returns a dial function that reports connections to [hijack].
func reportDialed(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if connection, ok := ctx.Value(dialedKey{}).(*dialed); ok && err == nil {
			connection.set(conn)
		}
		return conn, err
	}
}

// Waits for an engine that refuses connections.
const (
	restartWait  = 100 * time.Millisecond
	restartLimit = 5 * time.Second
)

// redial returns a dial function that tries again while the engine refuses connections, because it may be starting
// again. It does so only if opened is set.
func redial(dial dialFunc, opened *atomic.Bool) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return backoff.Retry(ctx, func() (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			isRefused := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) // no socket
			if err != nil && !(opened.Load() && isRefused) {
				err = backoff.Permanent(err)
			}
			return conn, err
		}, backoff.WithBackOff(backoff.NewConstantBackOff(restartWait)), backoff.WithMaxElapsedTime(restartLimit))
	}
}

// dialHost returns a function that connects to an engine's address, such as unix:///var/run/docker.sock.
func dialHost(host string) dialFunc {
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	if path, ok := strings.CutPrefix(host, "unix://"); ok {
		return func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
	}
	return dialer.DialContext
}
