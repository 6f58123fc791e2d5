package builder

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// link observes the network connection of a client.
type link struct {
	mu          sync.Mutex
	err         error // of the latest dial or TLS alert
	established bool  // the daemon has answered
	broken      bool  // the connection was closed after that
	heard       time.Time
	frozen      time.Duration // silence after which the connection was closed; 0: it was closed for another reason
	grpc        *grpc.ClientConn
}

func (l *link) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *link) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) establish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.established = true
	l.heard = time.Now()
}

// hear records that data has arrived.
func (l *link) hear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
}

// silence returns the time since data has arrived.
func (l *link) silence() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.heard)
}

// freeze records that the daemon has not answered for the given time.
func (l *link) freeze(silence time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken, l.frozen = true, silence
}

func (l *link) frozenFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.frozen
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = l.broken || l.established
}

func (l *link) isBroken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// observedConn records when data arrives, TLS alerts from the server, and the end of the connection. With TLS 1.3 the
// server rejects a client certificate after the handshake, and gRPC may report a failed write instead.
type observedConn struct {
	net.Conn
	link *link
}

// Read implements [net.Conn].
func (c observedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.link.hear()
	}
	if err != nil && isTLSFailure(err) {
		c.link.set(err)
	}
	return n, err
}

// Close implements [net.Conn]. gRPC closes a connection before it fails the calls that used it.
func (c observedConn) Close() error {
	c.link.close()
	return c.Conn.Close()
}

// intercept is a [grpc.UnaryClientInterceptor] that stores the connection of a client, which BuildKit's client does not
// expose.
func (l *link) intercept(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	l.mu.Lock()
	l.grpc = conn
	l.mu.Unlock()
	return invoke(ctx, method, request, reply, conn, opts...)
}

// conn returns the connection of the client, once a call has been made.
func (l *link) conn() *grpc.ClientConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grpc
}
