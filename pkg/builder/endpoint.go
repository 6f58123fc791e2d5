package builder

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/moby/buildkit/client"
)

// endpoint is a BuildKit daemon's address and how to prove who we are. Keys stay in memory.
type endpoint struct {
	addr       string // unix:// or tcp://
	serverName string
	tls        *tls.Config // nil: the daemon asks for no proof
}

// pem takes the certificates that Depot made for one build.
func (e *endpoint) pem(ca, cert, key string) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return errors.New("the authority's certificate is none")
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	e.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: e.serverName,
	}
	return nil
}

// certificates reads ca.pem, cert.pem and key.pem from a folder; "" is none.
func (e *endpoint) certificates(folder string) error {
	if folder == "" {
		return nil
	}
	var parts [3]string
	for i, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return fmt.Errorf("%s=%s: %w: it is a folder with ca.pem, cert.pem and key.pem", CertPath, folder, err)
		}
		parts[i] = string(data)
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(e.addr, "tcp://"))
	if err != nil {
		return fmt.Errorf("builder %s: %w", e.addr, err)
	}
	e.serverName = host
	if err := e.pem(parts[0], parts[1], parts[2]); err != nil {
		return fmt.Errorf("%s=%s: %w", CertPath, folder, err)
	}
	return nil
}

const (
	dialTimeout  = 10 * time.Second // for one connection with its handshake
	probeTimeout = 15 * time.Second // for the daemon's first answer
)

// firstConnectWait is before the second try; it grows with each. A variable for tests.
var firstConnectWait = 50 * time.Millisecond

// connect makes a client that has answered once. A daemon that is starting is asked again, for as long as patience; a refused
// certificate ends that at once.
func (e *endpoint) connect(ctx context.Context, patience time.Duration) (*client.Client, []*client.WorkerInfo, error) {
	var mu sync.Mutex
	var last error // of the latest dial: gRPC's own says less
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		last = err
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := e.dial(ctx)
		note(err)
		if err != nil {
			return nil, err
		}
		return listeningConn{conn, note}, nil
	}
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = firstConnectWait, 2*time.Second
	type ready struct {
		client  *client.Client
		workers []*client.WorkerInfo
	}
	got, err := backoff.Retry(ctx, func() (ready, error) {
		c, err := client.New(ctx, e.addr, client.WithContextDialer(dial))
		if err != nil {
			return ready{}, backoff.Permanent(err)
		}
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		workers, err := c.ListWorkers(probe)
		if err == nil {
			return ready{c, workers}, nil
		}
		mu.Lock()
		if last != nil {
			err = last
		}
		mu.Unlock()
		_ = c.Close()
		// A socket that is not there, or not ours, will not change by waiting: who starts a daemon beside us has to see that it runs.
		if refused(err) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return ready{}, backoff.Permanent(err)
		}
		return ready{}, err
	}, backoff.WithBackOff(waits), backoff.WithMaxElapsedTime(patience))
	switch {
	case err == nil:
		return got.client, got.workers, nil
	case context.Cause(ctx) != nil:
		return nil, nil, context.Cause(ctx)
	case refused(err):
		return nil, nil, fmt.Errorf("the TLS connection is refused (%s): the certificate is not of this builder, or has expired; run it again for a new one", oneLine(err))
	case errors.Is(err, os.ErrPermission):
		return nil, nil, fmt.Errorf("its socket may not be used (%s): run as a user who may, such as root or a member of the socket's group", oneLine(err))
	case errors.Is(err, os.ErrNotExist):
		return nil, nil, fmt.Errorf("there is no such socket (%s): start BuildKit's daemon (buildkitd), or name the right one", oneLine(err))
	}
	return nil, nil, fmt.Errorf("it can not be reached, tried for %s (%s): check that it runs and that the network lets us through", patience, oneLine(err))
}

// dial opens one connection, through TLS where the daemon asks for it.
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

// listeningConn notes that the daemon refuses our certificate. Under TLS 1.3 it says so after the handshake, and gRPC may have failed to write by then.
type listeningConn struct {
	net.Conn
	note func(error)
}

// Read is the connection's.
func (c listeningConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && refused(err) {
		c.note(err)
	}
	return n, err
}

// refused reports whether a certificate was not believed, by us or by the daemon (TLS 1.3 says so only at the first read).
func refused(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		alert        tls.AlertError
	)
	return errors.As(err, &verification) || errors.As(err, &alert) ||
		strings.Contains(err.Error(), "remote error: tls:") || strings.Contains(err.Error(), "x509:") ||
		strings.Contains(err.Error(), "first record does not look like a TLS handshake")
}

// oneLine is the innermost part of an error that speaks of the network.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = text[i+len("desc = "):]
	}
	return strings.Trim(text, `"`)
}
