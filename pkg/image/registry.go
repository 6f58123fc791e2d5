package image

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// registryClient calls registries. The zero values of minWait, idleTimeout and clock are the production defaults.
type registryClient struct {
	keychain authn.Keychain

	minWait     time.Duration    // before a request is repeated; 500 ms
	idleTimeout time.Duration    // without a byte in either direction; 5 min: a registry checks a large blob at its end
	clock       httpclient.Clock // for waits; nil: the system's
}

func (c registryClient) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(c.keychain),
		remote.WithTransport(c.transport()),
		// For uploads of layers; the transport repeats other requests.
		remote.WithRetryBackoff(remote.Backoff{Duration: c.wait(), Factor: 3, Jitter: 0.1, Steps: 3}),
		remote.WithRetryStatusCodes(),
		remote.WithRetryPredicate(mayRetryUpload),
	}
}

func (c registryClient) wait() time.Duration { return cmp.Or(c.minWait, 500*time.Millisecond) }

const (
	maxRetryAfter = time.Minute    // the longest wait that a registry may ask for
	maxTransfer   = 24 * time.Hour // of one blob; the idle timeout ends a transfer that does not move
)

func (c registryClient) transport() http.RoundTripper {
	clock := c.clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	base := &idleTimeoutTransport{timeout: cmp.Or(c.idleTimeout, 5*time.Minute)}
	base.Transport = remote.DefaultTransport.(*http.Transport).Clone()
	base.dial = base.Transport.DialContext
	base.Transport.DialContext = base.dialContext
	return uploadTransport{base: base, clock: clock, retrying: httpclient.Config{
		Clock: clock,
		Base:  base,
		Policy: httpclient.Policy{
			Timeout: maxTransfer, MinWait: c.wait(), MaxRetryAfter: maxRetryAfter, StreamBody: true,
		},
	}.Transport()}
}

// uploadTransport sends the content of layers once, and repeats all other requests.
type uploadTransport struct {
	base     http.RoundTripper
	retrying http.RoundTripper
	clock    httpclient.Clock
}

// RoundTrip implements [http.RoundTripper].
func (t uploadTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method != http.MethodPatch {
		// Beginning an upload is a POST, but safe to repeat: an upload that is not used expires.
		response, err := t.retrying.RoundTrip(request.WithContext(httpclient.Idempotent(request.Context())))
		if err != nil {
			err = &finalError{err}
		}
		return response, err
	}
	// go-containerregistry repeats the upload, and counts its progress once. It does not know Retry-After.
	response, err := t.base.RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusTooManyRequests && response.StatusCode < 500 {
		return response, err
	}
	wait := httpclient.RetryAfter(response.Header, t.clock.Now())
	if wait <= 0 || wait > maxRetryAfter {
		return response, nil
	}
	if err := t.clock.Sleep(request.Context(), wait); err != nil {
		_ = response.Body.Close()
		return nil, err
	}
	return response, nil
}

// finalError is an error of a request that was repeated already.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// mayRetryUpload reports whether go-containerregistry sends a layer again after an error.
func mayRetryUpload(err error) bool {
	if _, final := errors.AsType[*finalError](err); final || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err); ok && temporary.Temporary() {
		return true
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return false
}

// idleTimeoutTransport ends a connection on which nothing moves.
type idleTimeoutTransport struct {
	*http.Transport
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	timeout time.Duration
}

func (t *idleTimeoutTransport) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return idleTimeoutConn{conn, t.timeout}, nil
}

// idleTimeoutConn fails when nothing moves on it. Each read or write extends the deadline of both, so a long upload
// does not end the wait for the answer.
type idleTimeoutConn struct {
	net.Conn
	timeout time.Duration
}

func (c idleTimeoutConn) Read(p []byte) (int, error) {
	_ = c.SetDeadline(time.Now().Add(c.timeout)) // fails for a closed connection, as Read does
	return c.Conn.Read(p)
}

func (c idleTimeoutConn) Write(p []byte) (int, error) {
	_ = c.SetDeadline(time.Now().Add(c.timeout))
	return c.Conn.Write(p)
}
