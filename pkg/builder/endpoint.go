package builder

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
	"google.golang.org/grpc"
)

const (
	dialTimeout      = 10 * time.Second // for one connection, including the TLS handshake
	maxConnectWait   = 2 * time.Second  // between attempts
	maxUnanswered    = 3                // connections without an answer after which a daemon counts as frozen
	maxErrorLength   = 300              // maximum characters shown of a network error
	tlsRemoteErrorOp = "remote error"   // Op of a *net.OpError for a TLS alert from the peer
)

// ConnectPolicy limits how long connecting to a BuildKit daemon is retried. Zero fields mean the defaults.
type ConnectPolicy struct {
	Timeout   time.Duration // for all attempts: the daemon may still be starting; default 1 min, 5 min with Depot
	FirstWait time.Duration // before the second attempt; grows to 2 s; default 10 ms

	AnswerTimeout time.Duration // for the first answer over a connection; default 15 s

	// A connection over which nothing arrives for PingAfter is lost unless the daemon answers a ping within PingTimeout.
	// The ping is a call, because a proxy in front of a frozen daemon would answer the pings of HTTP/2.
	PingAfter   time.Duration // default 15 s
	PingTimeout time.Duration // default 30 s
}

func (p ConnectPolicy) withDefaults() ConnectPolicy {
	return ConnectPolicy{
		Timeout:       cmp.Or(p.Timeout, time.Minute),
		FirstWait:     cmp.Or(p.FirstWait, 10*time.Millisecond),
		AnswerTimeout: cmp.Or(p.AnswerTimeout, 15*time.Second),
		PingAfter:     cmp.Or(p.PingAfter, 15*time.Second),
		PingTimeout:   cmp.Or(p.PingTimeout, 30*time.Second),
	}
}

// endpoint is the address of a BuildKit daemon and the client's TLS identity. Keys stay in memory.
type endpoint struct {
	addr       string // unix:// or tcp://
	serverName string
	tls        *tls.Config // nil means no TLS
	policy     ConnectPolicy
}

// setCertificates enables mutual TLS with PEM-encoded certificates and key.
func (e *endpoint) setCertificates(ca, cert, key string) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return errors.New("invalid CA certificate")
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return fmt.Errorf("invalid client certificate: %w", err)
	}
	e.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: e.serverName,
	}
	return nil
}

// readCertificates enables mutual TLS with ca.pem, cert.pem and key.pem from dir.
func (e *endpoint) readCertificates(dir string) error {
	var parts [3]string
	for i, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("%s=%s: %w (the directory must contain ca.pem, cert.pem and key.pem)", CertPath, dir, err)
		}
		parts[i] = string(data)
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(e.addr, "tcp://"))
	if err != nil {
		return fmt.Errorf("builder %s: %w", e.addr, err)
	}
	e.serverName = host
	if err := e.setCertificates(parts[0], parts[1], parts[2]); err != nil {
		return fmt.Errorf("%s=%s: %w", CertPath, dir, err)
	}
	return nil
}

// connection is a client that has reached its daemon.
type connection struct {
	client  *client.Client
	workers []*client.WorkerInfo
	addr    string // host:port, or the socket's path
	link    *link
}

// explain returns a [*LostError] if the connection broke, and err otherwise.
func (c connection) explain(platform string, err error) error {
	if c.client == nil || !c.link.isBroken() {
		return err
	}
	return &LostError{Platform: platform, Addr: c.addr, Silent: c.link.frozenFor(), Err: err}
}

// watch closes the connection if the daemon stops answering. It returns then, and when ctx or the connection ends.
func (c connection) watch(ctx context.Context, policy ConnectPolicy) {
	policy = policy.withDefaults()
	for ctx.Err() == nil && !c.link.isBroken() {
		if wait := policy.PingAfter - c.link.silence(); wait > 0 {
			_ = httpclient.SystemClock{}.Sleep(ctx, wait)
			continue
		}
		ping, cancel := context.WithTimeout(ctx, policy.PingTimeout)
		_, _ = c.client.Info(ping) // an error is an answer, too
		timedOut := errors.Is(ping.Err(), context.DeadlineExceeded)
		cancel()
		// During an upload, an answer may be late. Then other data arrives until the end of the wait. A proxy in front of a
		// frozen daemon may only acknowledge the ping.
		if silence := c.link.silence(); timedOut && silence >= policy.PingTimeout/2 {
			c.link.freeze(policy.PingAfter + policy.PingTimeout)
			_ = c.client.Close() // ends all calls
		}
		c.link.hear()
	}
}

// connect returns a client that has reached its daemon. It retries until the policy's timeout, because the daemon may
// be starting, but not after a TLS failure, a missing socket or a permission error.
func (e *endpoint) connect(ctx context.Context) (connection, error) {
	policy := e.policy.withDefaults()
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = policy.FirstWait, maxConnectWait
	unanswered := 0
	connected, err := backoff.Retry(ctx, func() (connection, error) {
		c, err := e.attempt(ctx, policy)
		if errors.Is(err, errNoAnswer) {
			unanswered++
		}
		if err != nil && (isTLSFailure(err) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) ||
			unanswered == maxUnanswered) {
			return connection{}, backoff.Permanent(err)
		}
		return c, err
	}, backoff.WithBackOff(waits), backoff.WithMaxElapsedTime(policy.Timeout))
	switch {
	case err == nil:
		return connected, nil
	case context.Cause(ctx) != nil:
		return connection{}, context.Cause(ctx)
	}
	hint := fmt.Sprintf(
		"no response within %s; check that BuildKit is running and reachable over the network",
		policy.Timeout,
	)
	switch {
	case errors.Is(err, errNoAnswer):
		hint = fmt.Sprintf("%d attempts of %s; restart BuildKit", unanswered, policy.AnswerTimeout)
	case isOutsideValidity(err):
		hint = "check the clock of this machine; if it is right, renew the certificates of the builder"
	case isTLSFailure(err):
		hint = "the certificates do not match or have expired; check the clock of this machine and " + CertPath +
			" or, with Depot, run again to get new ones"
	case errors.Is(err, os.ErrPermission):
		hint = "run as root or as a member of the socket's group"
	case errors.Is(err, os.ErrNotExist):
		hint = "start buildkitd, or correct the path"
	}
	return connection{}, fmt.Errorf("%s (%s)", shortCause(err), hint)
}

// errNoAnswer means that a daemon accepted a connection, but did not answer within the policy's AnswerTimeout.
var errNoAnswer = errors.New("the builder accepts connections, but does not answer")

// attempt creates a client and waits for the daemon's first response. It prefers the connection's error to gRPC's,
// which has less detail.
func (e *endpoint) attempt(ctx context.Context, policy ConnectPolicy) (connection, error) {
	observed := &link{}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := e.dial(ctx)
		observed.set(err)
		if err != nil {
			return nil, err
		}
		return observedConn{conn, observed}, nil
	}
	c, err := client.New(ctx, e.addr, client.WithContextDialer(dial),
		client.WithGRPCDialOption(grpc.WithIdleTimeout(0)), // so that only a failure closes the connection
		client.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(observed.intercept)))
	if err != nil {
		return connection{}, backoff.Permanent(err)
	}
	answer, cancel := context.WithTimeoutCause(ctx, policy.AnswerTimeout, errNoAnswer)
	defer cancel()
	workers, err := c.ListWorkers(answer)
	if err != nil {
		_ = c.Close()
		return connection{}, cmp.Or(observed.get(), context.Cause(answer), err)
	}
	observed.establish()
	_, addr, _ := strings.Cut(e.addr, "://")
	return connection{c, workers, addr, observed}, nil
}

// dial opens a connection and negotiates TLS if the endpoint has certificates.
func (e *endpoint) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	network, address, _ := strings.Cut(e.addr, "://")
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil || e.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, e.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// isOutsideValidity reports whether the server's certificate has expired or is not valid yet.
func isOutsideValidity(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

// isTLSFailure reports whether either side rejected the other's certificate, or the server does not speak TLS.
// Retrying does not help.
func isTLSFailure(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == tlsRemoteErrorOp
}

// shortCause returns an error's text on one line, without gRPC's prefixes.
func shortCause(err error) string {
	text := err.Error()
	if s, ok := grpcerrors.AsGRPCStatus(err); ok {
		text = s.Message()
	}
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = strings.Trim(text[i+len("desc = "):], `"`)
	}
	return safetext.Line(text, maxErrorLength)
}
