package httpclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
)

// reply is one response of a scripted server.
type reply struct {
	status int
	header map[string]string
	body   string
	reset  bool // closes the connection without a response
	cut    bool // closes the connection in the middle of the body
	silent bool // does not respond
}

// server sends the replies in order, repeating the last one. It records the request bodies.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	bodies  []string
	lengths []int64 // values of the Content-Length header
}

func startServer(t *testing.T, replies ...reply) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.bodies = append(s.bodies, string(body))
		s.lengths = append(s.lengths, r.ContentLength)
		answer := replies[min(len(s.bodies), len(replies))-1]
		s.mu.Unlock()
		switch {
		case answer.silent:
			<-r.Context().Done()
			return
		case answer.reset:
			panic(http.ErrAbortHandler)
		case answer.cut:
			w.Header().Set("Content-Length", "100")
		}
		for name, value := range answer.header {
			w.Header().Set(name, value)
		}
		if answer.status != 0 {
			w.WriteHeader(answer.status)
		}
		_, _ = io.WriteString(w, answer.body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bodies)
}

func TestRetries(t *testing.T) {
	ok := reply{body: "done"}
	status := func(code int) reply { return reply{status: code, body: "failed"} }
	after := func(code int, name, value string) reply {
		return reply{status: code, header: map[string]string{name: value}}
	}
	seconds := func(n ...int) (list []time.Duration) {
		for _, s := range n {
			list = append(list, time.Duration(s)*time.Second)
		}
		return list
	}
	for _, test := range []struct {
		name     string
		method   string
		mark     func(context.Context) context.Context
		policy   Policy
		replies  []reply
		requests int
		status   int             // of the response; 0: an error
		waits    []time.Duration // nil: not compared
	}{
		{name: "success", replies: []reply{ok}, requests: 1, status: 200},
		{name: "server error once", replies: []reply{status(500), ok}, requests: 2, status: 200},
		{name: "persistent server error", replies: []reply{status(502)}, requests: 4, status: 502},
		{name: "fewer attempts", policy: Policy{Attempts: 2}, replies: []reply{status(502)}, requests: 2, status: 502},
		{name: "a single attempt", policy: Policy{Attempts: 1}, replies: []reply{status(502)}, requests: 1, status: 502},
		{name: "request timeout", replies: []reply{status(408), ok}, requests: 2, status: 200},
		{name: "not implemented", replies: []reply{status(501)}, requests: 1, status: 501},
		{name: "client error", replies: []reply{status(404)}, requests: 1, status: 404},
		{name: "redirect", replies: []reply{after(302, "Location", "/x")}, requests: 1, status: 302},
		{name: "connection reset once", replies: []reply{{reset: true}, ok}, requests: 2, status: 200},
		{name: "body truncated once", replies: []reply{{cut: true, body: "do"}, ok}, requests: 2, status: 200},
		{name: "body always truncated", replies: []reply{{cut: true, body: "do"}}, requests: 4},
		{name: "PUT", method: "PUT", replies: []reply{status(500), ok}, requests: 2, status: 200},
		{name: "DELETE", method: "DELETE", replies: []reply{status(500), ok}, requests: 2, status: 200},
		{name: "POST", method: "POST", replies: []reply{status(500)}, requests: 1, status: 500},
		{name: "POST, service unavailable", method: "POST", replies: []reply{status(503)}, requests: 1, status: 503},
		{name: "POST, body truncated", method: "POST", replies: []reply{{cut: true, body: "do"}}, requests: 1},
		{name: "POST, connection reset", method: "POST", replies: []reply{{reset: true}}, requests: 1},
		{name: "POST, rate limited", method: "POST", replies: []reply{status(429), ok}, requests: 2, status: 200},
		{
			name: "POST, other rejections", method: "POST", policy: Policy{Rejections: []int{503}},
			replies: []reply{status(503), status(429)}, requests: 2, status: 429,
		},
		{
			name: "POST marked idempotent", method: "POST", mark: Idempotent,
			replies: []reply{status(500), {reset: true}, ok}, requests: 3, status: 200,
		},
		{name: "GET marked not idempotent", mark: NotIdempotent, replies: []reply{status(500)}, requests: 1, status: 500},
		{
			name: "Retry-After of 429", replies: []reply{after(429, "Retry-After", "7"), ok},
			requests: 2, status: 200, waits: seconds(7),
		},
		{
			name: "Retry-After of 503", replies: []reply{after(503, "Retry-After", "7"), ok},
			requests: 2, status: 200, waits: seconds(7),
		},
		{
			name:     "Retry-After as a date",
			replies:  []reply{after(429, "Retry-After", fakeclock.Start.Add(9*time.Second).Format(http.TimeFormat)), ok},
			requests: 2, status: 200, waits: seconds(9),
		},
		{
			name: "Retry-After of one limit", replies: []reply{after(429, "Retry-After-authenticated", "8"), ok},
			requests: 2, status: 200, waits: seconds(8),
		},
		{
			name: "Retry-After at the maximum", replies: []reply{after(429, "Retry-After", "60"), ok},
			requests: 2, status: 200, waits: seconds(60),
		},
		{name: "Retry-After over the maximum", replies: []reply{after(429, "Retry-After", "61")}, requests: 1, status: 429},
		{
			name: "Retry-After longer than the policy", policy: Policy{MaxRetryAfter: 6 * time.Second},
			replies: []reply{after(429, "Retry-After", "7")}, requests: 1, status: 429,
		},
		{
			name: "budget used up", policy: Policy{Budget: 20 * time.Second},
			replies: []reply{after(429, "Retry-After", "15")}, requests: 2, status: 429, waits: seconds(15),
		},
		{name: "body too large", policy: Policy{MaxBody: 3}, replies: []reply{ok}, requests: 1},
		{name: "body at the maximum size", policy: Policy{MaxBody: 4}, replies: []reply{ok}, requests: 1, status: 200},
		{
			name: "service-specific rate limit",
			policy: Policy{RateLimit: func(r *http.Response, _ time.Time) (time.Duration, bool) {
				return 5 * time.Second, r.StatusCode == 403
			}},
			replies: []reply{status(403), ok}, requests: 2, status: 200, waits: seconds(5),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock := &fakeclock.Clock{}
			s := startServer(t, test.replies...)
			ctx := t.Context()
			if test.mark != nil {
				ctx = test.mark(ctx)
			}
			request, err := http.NewRequestWithContext(ctx, test.method, s.URL, strings.NewReader("sent"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := Config{Policy: test.policy, Clock: clock}.Client().Do(request)
			if (err != nil) != (test.status == 0) || err == nil && response.StatusCode != test.status {
				t.Fatalf("got %v, %v; want status %d", response, err, test.status)
			}
			if test.status == 200 {
				if data, err := io.ReadAll(response.Body); string(data) != "done" || err != nil {
					t.Errorf("body %q, %v", data, err)
				}
			}
			if got := s.requests(); len(got) != test.requests ||
				slices.ContainsFunc(got, func(b string) bool { return b != "sent" }) {
				t.Errorf("requests with the bodies %q, want %d", got, test.requests)
			}
			if slices.ContainsFunc(s.lengths, func(n int64) bool { return n != int64(len("sent")) }) {
				t.Errorf("Content-Length %v", s.lengths)
			}
			if test.waits != nil && !slices.Equal(clock.Slept(), test.waits) {
				t.Errorf("waits %v, want %v", clock.Slept(), test.waits)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	clock := &fakeclock.Clock{}
	s := startServer(t, reply{status: 500})
	policy := Policy{Attempts: 6, MinWait: time.Second, MaxWait: 5 * time.Second}
	if _, err := (Config{Policy: policy, Clock: clock}).Client().Get(s.URL); err != nil {
		t.Fatal(err)
	}
	if len(clock.Slept()) != 5 {
		t.Fatalf("waits %v, want 5", clock.Slept())
	}
	for i, most := range []time.Duration{1, 2, 4, 5, 5} {
		if wait := clock.Slept()[i]; wait < most*time.Second/2 || wait > most*time.Second {
			t.Errorf("wait %d is %s, want %d s less at most half", i, wait, most)
		}
	}
}

func TestDefaults(t *testing.T) {
	want := Policy{
		Timeout: 20 * time.Second, Attempts: 4, Budget: 5 * time.Minute, MinWait: time.Second,
		MaxWait: 10 * time.Second, MaxRetryAfter: time.Minute, MaxBody: 8 << 20, Rejections: []int{429},
	}
	if got := (Policy{}).withDefaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want.Attempts, want.Rejections, want.RateLimit = 1, []int{}, nil
	if got := want.withDefaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestJitter(t *testing.T) {
	transport := &transport{policy: Policy{MinWait: 100, MaxWait: 1000}}
	seen := map[time.Duration]bool{}
	for range 10_000 {
		seen[transport.backoff(1)] = true
	}
	if len(seen) != 51 || !seen[50] || !seen[100] {
		t.Errorf("got %d different waits, want all from 50 to 100", len(seen))
	}
}

func TestUnreachable(t *testing.T) {
	s := startServer(t, reply{})
	s.Close()
	for _, method := range []string{"GET", "POST"} { // no connection, so neither had an effect
		clock := &fakeclock.Clock{}
		request, _ := http.NewRequestWithContext(t.Context(), method, s.URL, nil)
		_, err := Config{Clock: clock}.Client().Do(request)
		if err == nil || !strings.HasSuffix(err.Error(), "connection refused, after 4 attempts") || len(clock.Slept()) != 3 {
			t.Errorf("%s: %v, waits %v", method, err, clock.Slept())
		}
	}
}

func TestTimeout(t *testing.T) {
	for _, test := range []struct {
		name     string
		hasBody  bool // the response stalls in its body
		attempts int
		text     string
	}{
		{"no response", false, 2, "no response within 20ms, after 2 attempts"},
		{"a single attempt", false, 1, "no response within 20ms"},
		{"incomplete response", true, 2, "no response within 20ms, after 2 attempts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := 0
			base := roundTripper(func(r *http.Request) (*http.Response, error) {
				n++
				if test.hasBody {
					return &http.Response{StatusCode: http.StatusOK, Body: stalledBody{r.Context()}}, nil
				}
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
			policy := Policy{Timeout: 20 * time.Millisecond, Attempts: test.attempts}
			_, err := Config{Policy: policy, Clock: &fakeclock.Clock{}, Base: base}.Client().Get("http://127.0.0.1/")
			timeout, ok := errors.AsType[*TimeoutError](err)
			if !ok || timeout.Limit != policy.Timeout || !errors.Is(err, context.DeadlineExceeded) ||
				!strings.HasSuffix(err.Error(), test.text) {
				t.Errorf("got %v, want a timeout", err)
			}
			if n != test.attempts {
				t.Errorf("got %d requests, want %d", n, test.attempts)
			}
		})
	}
}

// Of two limits that end together, the caller's is reported: its cause describes what the request was for.
func TestTimeoutOfCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		client := Config{Policy: Policy{Timeout: time.Minute, Attempts: 1}, Base: base}.Client()
		timedOut := errors.New("timed out waiting for the build")
		for range 100 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, timedOut)
			request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1/", nil)
			if _, err := client.Do(request); !errors.Is(err, timedOut) {
				t.Fatalf("got %v, want the caller's cause", err)
			}
			cancel()
		}
	})
}

// stalledBody is a body that does not arrive.
type stalledBody struct{ ctx context.Context }

func (b stalledBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (stalledBody) Close() error { return nil }

func TestCertificateIsNotRetried(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	clock := &fakeclock.Clock{}
	if _, err := (Config{Clock: clock}).Client().Get(s.URL); err == nil || clock.Slept() != nil {
		t.Errorf("got %v, waits %v", err, clock.Slept())
	}
}

func TestBodyTooLarge(t *testing.T) {
	s := startServer(t, reply{body: "done"})
	_, err := Config{Policy: Policy{MaxBody: 3}}.Client().Get(s.URL)
	if large, ok := errors.AsType[*BodyTooLargeError](err); !ok || large.Limit != 3 {
		t.Errorf("got %v, want a BodyTooLargeError", err)
	}
	large := strings.Repeat("x", 8<<20)
	s = startServer(t, reply{body: large}, reply{body: large + "x"})
	if _, err = (Config{}).Client().Get(s.URL); err != nil {
		t.Errorf("8 MiB: %v", err)
	}
	if _, err = (Config{}).Client().Get(s.URL); !errors.As(err, new(*BodyTooLargeError)) {
		t.Errorf("8 MiB and a byte: %v", err)
	}
}

func TestBodyIsNotReplayable(t *testing.T) {
	s := startServer(t, reply{status: 500})
	request, _ := http.NewRequestWithContext(t.Context(), "PUT", s.URL, io.MultiReader(strings.NewReader("sent")))
	response, err := Config{Clock: &fakeclock.Clock{}}.Client().Do(request)
	if err != nil || response.StatusCode != 500 || !slices.Equal(s.requests(), []string{"sent"}) {
		t.Errorf("got %v, %v, requests %q", response, err, s.requests())
	}
}

// closeRecorder is a body that records whether it was closed.
type closeRecorder struct {
	io.Reader
	closed bool
}

func (c *closeRecorder) Close() error {
	c.closed = true
	return nil
}

func TestRequestIsNotModified(t *testing.T) {
	s := startServer(t, reply{status: 500}, reply{body: "done"})
	request, _ := http.NewRequestWithContext(t.Context(), "PUT", s.URL, strings.NewReader("sent"))
	body := &closeRecorder{Reader: strings.NewReader("sent")}
	request.Body = body
	before := request.Clone(t.Context())
	response, err := Config{Clock: &fakeclock.Clock{}}.Transport().RoundTrip(request)
	if err != nil || response.StatusCode != 200 || response.Request != request {
		t.Fatalf("got %v, %v", response, err)
	}
	if !body.closed {
		t.Error("the body was not closed")
	}
	if request.Body != body || request.ContentLength != before.ContentLength ||
		!reflect.DeepEqual(request.Header, before.Header) {
		t.Errorf("the request was changed: %+v", request)
	}
}

// Only a failed dial proves that a request had no effect.
func TestNetworkErrors(t *testing.T) {
	for _, test := range []struct {
		name     string
		err      error
		attempts int
	}{
		{"dial", &net.OpError{Op: "dial", Err: errors.New("x")}, 4},
		{"read", &net.OpError{Op: "read", Err: errors.New("x")}, 1},
		{"EOF", io.EOF, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := 0
			base := roundTripper(func(*http.Request) (*http.Response, error) {
				n++
				return nil, test.err
			})
			request, _ := http.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1/", nil)
			_, err := Config{Base: base, Clock: &fakeclock.Clock{}}.Client().Do(request)
			if !errors.Is(err, test.err) || n != test.attempts {
				t.Errorf("got %v after %d attempts, want %d", err, n, test.attempts)
			}
		})
	}
}

func TestStreamBody(t *testing.T) {
	s := startServer(t, reply{status: 503}, reply{body: "done"})
	policy := Policy{StreamBody: true, MaxBody: 1}
	response, err := Config{Policy: policy, Clock: &fakeclock.Clock{}}.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if data, err := io.ReadAll(response.Body); string(data) != "done" || err != nil {
		t.Errorf("got %q, %v", data, err)
	}
	s = startServer(t, reply{cut: true, body: "do"})
	if response, err = (Config{Policy: policy}).Client().Get(s.URL); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err = io.ReadAll(response.Body); !errors.Is(err, io.ErrUnexpectedEOF) || len(s.requests()) != 1 {
		t.Errorf("got %v, %d requests", err, len(s.requests()))
	}
	s = startServer(t, reply{silent: true})
	policy = Policy{StreamBody: true, Timeout: 20 * time.Millisecond, Attempts: 1}
	if _, err = (Config{Policy: policy}).Client().Get(s.URL); !errors.As(err, new(*TimeoutError)) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	s := startServer(t, reply{status: 500})
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	clock := &fakeclock.Clock{OnSleep: func() { cancel(interrupted) }}
	request, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	_, err := Config{Clock: clock}.Client().Do(request)
	if !errors.Is(err, interrupted) || len(s.requests()) != 1 {
		t.Errorf("got %v, %d requests", err, len(s.requests()))
	}
}

func TestCancelWhileSending(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	base := roundTripper(func(*http.Request) (*http.Response, error) {
		cancel(interrupted)
		return nil, errors.New("broken")
	})
	request, _ := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1/", nil)
	clock := &fakeclock.Clock{}
	if _, err := (Config{Base: base, Clock: clock}).Client().Do(request); !errors.Is(err, interrupted) ||
		clock.Slept() != nil {
		t.Errorf("got %v, waits %v", err, clock.Slept())
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestSystemClock(t *testing.T) {
	if err := (SystemClock{}).Sleep(t.Context(), time.Nanosecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	if err := (SystemClock{}).Sleep(ctx, time.Hour); err != interrupted {
		t.Errorf("got %v, want the cause", err)
	}
}

// Credentials are not sent to another machine without TLS, for example because a Doppler config or a registry names
// such an address.
func TestPlaintextCredentials(t *testing.T) {
	for _, test := range []struct {
		address, authorization string
		refused                bool
	}{
		{"http://daytona.example/api", "Bearer key", true},
		{"http://192.0.2.1:5000/v2/", "Basic dXNlcjpwYXNzd29yZA==", true},
		{"http://localhost.evil/", "Bearer key", true},
		{"http://registry.example/v2/", "", false},
		{"https://daytona.example/api", "Bearer key", false},
		{"http://127.0.0.1:1/", "Bearer key", false},
		{"http://[::1]:1/", "Bearer key", false},
		{"http://localhost:1/", "Bearer key", false},
	} {
		sent := false
		client := Config{Base: roundTripper(func(request *http.Request) (*http.Response, error) {
			sent = true
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: request}, nil
		})}.Client()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, test.address, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		if test.authorization != "" {
			request.Header.Set("Authorization", test.authorization)
		}
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		if _, refused := errors.AsType[*PlaintextError](err); refused != test.refused || sent == refused {
			t.Errorf("%s: refused: %t, sent: %t (%v)", test.address, refused, sent, err)
		}
	}
}

func TestRedirects(t *testing.T) {
	secrets := http.Header{"Authorization": {"Bearer secret"}, "X-Api-Key": {"secret"}, "Accept": {"text/plain"}}
	for _, test := range []struct {
		name    string
		method  string
		follow  bool
		path    string // on the first server; see the handlers below
		status  int
		arrived string // path of the last request
		secret  bool   // whether the secrets arrived there
	}{
		{name: "not followed by default", path: "/here", status: 307, arrived: "/here", secret: true},
		{name: "to the same host", follow: true, path: "/here", status: 200, arrived: "/end", secret: true},
		{name: "to another host", follow: true, path: "/away", status: 200, arrived: "other/end"},
		{name: "to another host, twice", follow: true, path: "/away-twice", status: 200, arrived: "other/end"},
		{name: "back from another host", follow: true, path: "/return", status: 200, arrived: "/end"},
		{name: "loop", follow: true, path: "/loop", status: 307, arrived: "/loop", secret: true},
		{
			name: "body is not sent to another host", method: "POST", follow: true, path: "/away", status: 307,
			arrived: "/away", secret: true,
		},
		{
			name: "body is sent to the same host", method: "POST", follow: true, path: "/here", status: 200, arrived: "/end",
			secret: true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var arrived string
			var headers http.Header
			n := 0
			record := func(name string, r *http.Request) {
				arrived, headers = name+r.URL.Path, r.Header.Clone()
				n++
			}
			var first, other *httptest.Server
			first = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				record("", r)
				to := map[string]string{
					"/here": "/end", "/loop": "/loop", "/away": other.URL + "/end",
					"/away-twice": other.URL + "/on", "/return": other.URL + "/back",
				}[r.URL.Path]
				if to != "" {
					http.Redirect(w, r, to, http.StatusTemporaryRedirect)
				}
			}))
			defer first.Close()
			other = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				record("other", r)
				to := map[string]string{"/on": "/end", "/back": first.URL + "/end"}[r.URL.Path]
				if to != "" {
					http.Redirect(w, r, to, http.StatusTemporaryRedirect)
				}
			}))
			defer other.Close()
			request, _ := http.NewRequestWithContext(t.Context(), test.method, first.URL+test.path, bytes.NewReader([]byte("x")))
			request.Header = secrets.Clone()
			response, err := Config{FollowRedirects: test.follow}.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != test.status || arrived != test.arrived {
				t.Errorf("got %d from %s, want %d from %s", response.StatusCode, arrived, test.status, test.arrived)
			}
			if test.path == "/loop" && n != 11 {
				t.Errorf("got %d requests, want 10 redirects", n)
			}
			got := []string{headers.Get("Authorization"), headers.Get("X-Api-Key"), headers.Get("Accept")}
			want := []string{"", "", "text/plain"}
			if test.secret {
				want = []string{"Bearer secret", "secret", "text/plain"}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("headers %q, want %q", got, want)
			}
		})
	}
}
