package image

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// registryClient calls registries. The zero values of minWait, idleTimeout and clock are the production defaults.
type registryClient struct {
	keychain authn.Keychain

	minWait     time.Duration    // minimum wait before a retry; default 500 ms
	idleTimeout time.Duration    // without data; default 5 min, because registries verify large blobs at the end
	clock       httpclient.Clock // for waits; nil for the system's
}

func (c registryClient) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(c.keychain),
		remote.WithTransport(c.transport()),
		// These apply to uploads of layers; the transport retries other requests.
		remote.WithRetryBackoff(remote.Backoff{Duration: c.wait(), Factor: 3, Jitter: 0.1, Steps: 3}),
		remote.WithRetryStatusCodes(),
		remote.WithRetryPredicate(mayRetryUpload),
	}
}

func (c registryClient) wait() time.Duration { return cmp.Or(c.minWait, 500*time.Millisecond) }

const (
	maxRetryAfter = time.Minute    // maximum Retry-After of a registry
	maxManifest   = 8 << 20        // bytes; registries accept 4 MiB, go-containerregistry reads 100 MiB
	maxTransfer   = 24 * time.Hour // maximum duration of one transfer; the idle timeout ends stalled ones
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

// uploadTransport sends the content of a layer once and retries all other requests.
type uploadTransport struct {
	base     http.RoundTripper
	retrying http.RoundTripper
	clock    httpclient.Clock
}

// RoundTrip implements [http.RoundTripper].
func (t uploadTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method != http.MethodPatch {
		// An upload starts with a POST. It is safe to retry, because an unused upload expires.
		response, err := t.retrying.RoundTrip(request.WithContext(httpclient.Idempotent(request.Context())))
		if err != nil {
			return nil, &finalError{err}
		}
		if strings.Contains(request.URL.Path, "/manifests/") {
			response.Body = httpclient.LimitBody(response.Body, maxManifest)
		}
		return response, nil
	}
	// go-containerregistry retries the upload and counts its progress only once, but does not support Retry-After.
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

// finalError marks an error of a request that was retried already.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// mayRetryUpload reports whether go-containerregistry should send a layer again after an error.
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

// idleTimeoutTransport closes idle connections, on which no data is sent or received.
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

// idleTimeoutConn fails if no data is sent or received for timeout. Each read or write extends the deadline of both, so
// the wait for the response does not time out during a long upload.
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
