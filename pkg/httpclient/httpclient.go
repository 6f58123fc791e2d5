// Package httpclient is the HTTP client for every service this project calls: deadlines, retries that are safe, bounded
// answers, and one error type. It configures github.com/hashicorp/go-retryablehttp.
package httpclient

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Config describes a client. The zero value is the production default.
type Config struct {
	Policy Policy
	Clock  Clock             // for the waits between attempts; nil: the system's
	Base   http.RoundTripper // sends one request; nil: http.DefaultTransport, which honors HTTPS_PROXY and NO_PROXY

	// FollowRedirects makes Client follow up to 10 redirects, without credentials once one has left the first host.
	// Otherwise a redirect is returned like any other answer.
	FollowRedirects bool
}

// Policy bounds one call, which is one or more requests. A zero field means the default.
type Policy struct {
	Timeout       time.Duration // of one request, including the answer's body; 20 s
	Attempts      int           // the most requests for one call; 4
	Budget        time.Duration // no request starts later than this after the first; 5 min
	MinWait       time.Duration // before the second request; it doubles with each, and is jittered by up to half; 300 ms
	MaxWait       time.Duration // the longest such wait; 10 s
	MaxRetryAfter time.Duration // the longest Retry-After that is obeyed; a longer one ends the call; 60 s
	MaxBody       int64         // bytes of an answer; a larger one is a *BodyTooLargeError; 8 MiB

	// StreamBody leaves an answer's body to the caller: Timeout then ends with the headers, MaxBody does not apply, and
	// a body that is cut short is not retried. For downloads.
	StreamBody bool

	// Rejections are statuses that mean a request was not carried out, so that one that is not idempotent is retried too;
	// nil: 429.
	Rejections []int

	// RateLimit recognizes answers other than 429 that report a rate limit, and returns the wait that they request; 0:
	// unknown. It must restore the body if it reads it. See [GitHubRateLimit].
	RateLimit func(response *http.Response, now time.Time) (wait time.Duration, limited bool)
}

func (p Policy) withDefaults() Policy {
	p.Timeout = cmp.Or(p.Timeout, 20*time.Second)
	p.Attempts = cmp.Or(p.Attempts, 4)
	p.Budget = cmp.Or(p.Budget, 5*time.Minute)
	p.MinWait = cmp.Or(p.MinWait, 300*time.Millisecond)
	p.MaxWait = cmp.Or(p.MaxWait, 10*time.Second)
	p.MaxRetryAfter = cmp.Or(p.MaxRetryAfter, time.Minute)
	p.MaxBody = cmp.Or(p.MaxBody, 8<<20)
	if p.Rejections == nil {
		p.Rejections = []int{http.StatusTooManyRequests}
	}
	return p
}

// Clock returns the time and waits.
type Clock interface {
	Now() time.Time
	// Sleep returns nil after d, or the cause of ctx when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// SystemClock is the real time.
type SystemClock struct{}

// Now is [time.Now].
func (SystemClock) Now() time.Time { return time.Now() }

// Sleep waits with a timer.
func (SystemClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Client returns a client for generated APIs and libraries. It has no timeout of its own: the policy and the request's
// context end a call.
func (c Config) Client() *http.Client {
	redirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.FollowRedirects {
		redirect = followSafely
	}
	return &http.Client{Transport: c.Transport(), CheckRedirect: redirect}
}

// publicHeaders hold nothing that identifies the caller.
var publicHeaders = []string{"Accept", "Accept-Encoding", "Range", "User-Agent"}

// followSafely removes every header that may hold credentials once a redirect has left the first host, and sends no
// request with a body there.
func followSafely(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	away := !sameOrigin(first, next.URL) ||
		slices.ContainsFunc(via, func(r *http.Request) bool { return !sameOrigin(first, r.URL) })
	switch {
	case len(via) > 10, away && next.Method != http.MethodGet && next.Method != http.MethodHead:
		return http.ErrUseLastResponse
	case away:
		for name := range next.Header {
			if !slices.Contains(publicHeaders, name) {
				next.Header.Del(name)
			}
		}
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

type idempotencyKey struct{}

// Idempotent marks the requests of ctx as safe to repeat, whatever their method.
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, true)
}

// NotIdempotent marks the requests of ctx as unsafe to repeat once they may have been carried out, whatever their
// method.
func NotIdempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, false)
}

func isIdempotent(ctx context.Context, method string) bool {
	if marked, ok := ctx.Value(idempotencyKey{}).(bool); ok {
		return marked
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
