package httpclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// Transport returns a round tripper that retries network errors, truncated bodies, 408, 429 and 5xx except 501. It
// retries idempotent requests (GET, HEAD, OPTIONS, PUT, DELETE, or marked by [Idempotent]), and others only if they
// never reached the service or were rejected ([Policy.Rejections]). It sends a request once if its body cannot be read
// again (Request.GetBody is nil). After the last attempt it returns the last response or error.
func (c Config) Transport() http.RoundTripper {
	t := &transport{policy: c.Policy.withDefaults(), clock: c.Clock}
	if t.clock == nil {
		t.clock = SystemClock{}
	}
	base := c.Base
	if base == nil {
		base = http.DefaultTransport
	}
	t.retrying = &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     attemptTransport{base, t.policy},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax:     t.policy.Attempts - 1,
		CheckRetry:   t.checkRetry,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		// PrepareRetry waits instead: it has access to the clock and the context.
		Backoff:      func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return 0 },
		PrepareRetry: t.waitBeforeRetry,
	}
	return t
}

type transport struct {
	policy   Policy
	clock    Clock
	retrying *retryablehttp.Client
}

// call is the state of one RoundTrip, stored in the context of its requests.
type call struct {
	replayable bool
	idempotent bool
	start      time.Time
	attempts   int
	wait       time.Duration // before the next attempt
}

type callKey struct{}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(original *http.Request) (*http.Response, error) {
	if err := checkPlaintext(original); err != nil {
		if original.Body != nil {
			_ = original.Body.Close()
		}
		return nil, err
	}
	hasBody := original.Body != nil && original.Body != http.NoBody
	state := &call{
		replayable: !hasBody || original.GetBody != nil,
		idempotent: isIdempotent(original.Context(), original.Method),
		start:      t.clock.Now(),
	}
	request := &retryablehttp.Request{
		Request: original.WithContext(context.WithValue(original.Context(), callKey{}, state)),
	}
	if hasBody && state.replayable {
		_ = original.Body.Close() // each attempt reads its own copy from GetBody
		read := retryablehttp.ReaderFunc(func() (io.Reader, error) { return original.GetBody() })
		if err := request.SetBody(read); err != nil {
			return nil, err
		}
		request.ContentLength = original.ContentLength // SetBody sets it for few types only
	}
	response, err := t.retrying.Do(request)
	if err == nil {
		response.Request = original
		return response, nil
	}
	if response != nil {
		_ = response.Body.Close()
	}
	if cause := context.Cause(original.Context()); cause != nil {
		return nil, cause
	}
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if state.attempts > 1 {
		err = fmt.Errorf("%w, after %d attempts", err, state.attempts)
	}
	return nil, err
}

// PlaintextError reports a request with credentials to another machine without TLS. It was not sent.
type PlaintextError struct{ Host string }

func (e *PlaintextError) Error() string {
	return fmt.Sprintf("refusing to send credentials to %s without TLS (use an https:// address)", e.Host)
}

// checkPlaintext returns a [*PlaintextError] for a request that everyone on the network could take credentials from.
func checkPlaintext(request *http.Request) error {
	host := request.URL.Hostname()
	ip := net.ParseIP(host)
	isLocal := host == "localhost" || ip != nil && ip.IsLoopback()
	if request.URL.Scheme == "https" || request.Header.Get("Authorization") == "" || isLocal {
		return nil
	}
	return &PlaintextError{request.URL.Host}
}

// checkRetry reports whether to retry after an attempt, and sets the wait before the next one.
func (t *transport) checkRetry(ctx context.Context, response *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	state := ctx.Value(callKey{}).(*call)
	state.attempts++
	now := t.clock.Now()
	var retry bool
	var requested time.Duration
	if err != nil {
		retry = neverSent(err) || state.idempotent && isTransient(err)
	} else {
		retry, requested = t.checkResponse(response, state.idempotent, now)
	}
	state.wait = t.backoff(state.attempts)
	if requested > 0 {
		state.wait = requested
	}
	withinLimits := requested <= t.policy.MaxRetryAfter && now.Add(state.wait).Sub(state.start) <= t.policy.Budget
	return retry && state.replayable && withinLimits, nil
}

// checkResponse reports whether to retry after a response, and returns the wait that the service requests, or 0.
func (t *transport) checkResponse(
	response *http.Response, idempotent bool, now time.Time,
) (retry bool, requested time.Duration) {
	if t.policy.RateLimit != nil {
		if wait, limited := t.policy.RateLimit(response, now); limited {
			return true, wait
		}
	}
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return idempotent || slices.Contains(t.policy.Rejections, status), RetryAfter(response.Header, now)
	case status == http.StatusRequestTimeout, status >= 500 && status != http.StatusNotImplemented:
		return idempotent || slices.Contains(t.policy.Rejections, status), 0
	}
	return false, 0
}

// backoff returns the wait after the nth attempt.
func (t *transport) backoff(n int) time.Duration {
	wait := t.policy.MinWait
	for range n - 1 {
		wait = min(2*wait, t.policy.MaxWait)
	}
	return wait/2 + rand.N(wait-wait/2+1)
}

func (t *transport) waitBeforeRetry(request *http.Request) error {
	return t.clock.Sleep(request.Context(), request.Context().Value(callKey{}).(*call).wait)
}

// neverSent reports whether the request was not sent because connecting failed.
func neverSent(err error) bool {
	dial := new(net.OpError)
	return errors.As(err, &dial) && (dial.Op == "dial" || dial.Op == "proxyconnect")
}

// isTransient reports whether another attempt may succeed after this error.
func isTransient(err error) bool {
	return !errors.As(err, new(*BodyTooLargeError)) && !errors.As(err, new(*tls.CertificateVerificationError)) &&
		!isPlaintextServer(err) && !errors.As(err, new(*PlaintextError))
}

// TimeoutError reports an attempt without a complete response within Limit. It wraps [context.DeadlineExceeded].
type TimeoutError struct{ Limit time.Duration }

func (e *TimeoutError) Error() string { return fmt.Sprintf("no response within %s", e.Limit) }

func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// BodyTooLargeError reports a response that exceeds [Policy.MaxBody].
type BodyTooLargeError struct{ Limit int64 }

func (e *BodyTooLargeError) Error() string {
	return fmt.Sprintf("the response is larger than %d bytes", e.Limit)
}

// LimitBody returns a body that fails with a [*BodyTooLargeError] after limit bytes. It is for clients that read bodies
// without a limit.
func LimitBody(body io.ReadCloser, limit int64) io.ReadCloser {
	return &limitedBody{ReadCloser: body, left: limit, limit: limit}
}

type limitedBody struct {
	io.ReadCloser
	left, limit int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)]) // one more byte shows whether the body is larger
	if int64(n) > b.left {
		return 0, &BodyTooLargeError{b.limit}
	}
	b.left -= int64(n)
	return n, err
}

// attemptTransport sends a request once, within the timeout, and reads the whole response unless StreamBody is set.
type attemptTransport struct {
	base   http.RoundTripper
	policy Policy
}

// RoundTrip implements [http.RoundTripper].
func (t attemptTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	timedOut := &TimeoutError{t.policy.Timeout}
	limit := t.policy.Timeout
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= limit {
		limit = math.MaxInt64 // the caller's deadline ends the request, with a cause of its own
	}
	timer := time.AfterFunc(limit, func() { cancel(timedOut) })
	response, err := t.base.RoundTrip(request.WithContext(ctx))
	switch {
	case err != nil:
	case t.policy.StreamBody:
		if timer.Stop() {
			response.Body = streamedBody{response.Body, cancel}
			return response, nil
		}
		_ = response.Body.Close()
		err = timedOut
	default:
		err = t.readBody(response)
	}
	timer.Stop()
	if err != nil && errors.Is(context.Cause(ctx), timedOut) {
		err = timedOut
	}
	cancel(nil)
	if err != nil {
		return nil, err
	}
	return response, nil
}

// readBody reads the body into memory.
func (t attemptTransport) readBody(response *http.Response) error {
	data, err := io.ReadAll(LimitBody(response.Body, t.policy.MaxBody))
	err = cmp.Or(err, response.Body.Close())
	switch {
	case errors.As(err, new(*BodyTooLargeError)):
		return err
	case err != nil:
		return &IncompleteError{err}
	}
	response.Body = io.NopCloser(bytes.NewReader(data))
	return checkComplete(response, data)
}

// streamedBody releases the attempt's context when the body is closed.
type streamedBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close closes the body and cancels the attempt's context.
func (b streamedBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
