// Package httpclient is the HTTP client for all services: it adds deadlines, safe retries, bounded response sizes and
// one error type. It builds on github.com/hashicorp/go-retryablehttp.
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
	Clock  Clock             // for the waits between attempts; nil means the system clock
	Base   http.RoundTripper // sends a request; nil means http.DefaultTransport, which honors HTTPS_PROXY and NO_PROXY

	// FollowRedirects makes Client follow up to 10 redirects, dropping credentials once one leaves the first host.
	// Otherwise Client returns a redirect like any other response.
	FollowRedirects bool
}

// Policy limits one call, which consists of one or more requests. Zero fields mean the defaults.
type Policy struct {
	Timeout       time.Duration // for one request, including the response body; default 20 s
	Attempts      int           // maximum requests for one call; default 4
	Budget        time.Duration // no request starts later than this after the first; default 5 min
	MinWait       time.Duration // before the second request; doubles each time; jittered by up to half; default 1 s
	MaxWait       time.Duration // maximum of such a wait; default 10 s
	MaxRetryAfter time.Duration // longest Retry-After to wait for; a longer one ends the call; default 60 s
	MaxBody       int64         // response bytes; a larger response is a *BodyTooLargeError; default 8 MiB

	// StreamBody, for downloads, leaves reading the response body to the caller: Timeout then covers only the headers,
	// MaxBody does not apply, and a truncated body is not retried.
	StreamBody bool

	// Rejections are statuses that mean a request had no effect, so that it is retried even if it is not idempotent. nil
	// means 429.
	Rejections []int

	// RateLimit recognizes rate limits that are not reported as 429, and returns the requested wait, or 0 if unknown. If
	// it reads the body, it must restore it. See [GitHubRateLimit].
	RateLimit func(response *http.Response, now time.Time) (wait time.Duration, limited bool)
}

func (p Policy) withDefaults() Policy {
	p.Timeout = cmp.Or(p.Timeout, 20*time.Second)
	p.Attempts = cmp.Or(p.Attempts, 4)
	p.Budget = cmp.Or(p.Budget, 5*time.Minute)
	p.MinWait = cmp.Or(p.MinWait, time.Second) // with 4 attempts, survives an outage of 3 s
	p.MaxWait = cmp.Or(p.MaxWait, 10*time.Second)
	p.MaxRetryAfter = cmp.Or(p.MaxRetryAfter, time.Minute)
	p.MaxBody = cmp.Or(p.MaxBody, 8<<20)
	if p.Rejections == nil {
		p.Rejections = []int{http.StatusTooManyRequests}
	}
	return p
}

// Clock provides the current time and sleeps.
type Clock interface {
	Now() time.Time
	// Sleep returns nil after d, or the cause of ctx if ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// SystemClock is the [Clock] of the system.
type SystemClock struct{}

// Now returns the current time.
func (SystemClock) Now() time.Time { return time.Now() }

// Sleep implements [Clock].
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

// Client returns an HTTP client for generated API clients and libraries. It has no http.Client.Timeout: the policy and
// the request's context limit a call.
func (c Config) Client() *http.Client {
	redirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.FollowRedirects {
		redirect = followSafely
	}
	return &http.Client{Transport: c.Transport(), CheckRedirect: redirect}
}

// publicHeaders are the headers that never contain credentials.
var publicHeaders = []string{"Accept", "Accept-Encoding", "Range", "User-Agent"}

// followSafely removes every header that may contain credentials once a redirect has left the first host, and does not
// follow a redirect to another host with a method other than GET or HEAD.
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

// Idempotent marks the requests of ctx as safe to retry, regardless of their method.
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, true)
}

// NotIdempotent marks the requests of ctx as unsafe to retry once they may have had an effect, regardless of their
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
