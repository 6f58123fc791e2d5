package credentials

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// recorder records masked secrets.
type recorder struct {
	mu     sync.Mutex
	masked []string
}

func (r *recorder) mask(secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.masked = append(r.masked, secret)
}

func (r *recorder) secrets() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.masked)
}

// oidcServer handles token requests with the given handlers in order, repeating the last one.
func oidcServer(t *testing.T, answers ...http.HandlerFunc) (address string, requests *atomic.Int32) {
	t.Helper()
	requests = &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" { // from a client of another server that used this port before
			http.NotFound(w, r)
			return
		}
		n := int(requests.Add(1))
		if r.Method != http.MethodGet || r.URL.Query().Get("api-version") != "2.0" ||
			r.URL.Query().Get("audience") != "https://depot.dev/?a&b" ||
			r.Header.Get("Authorization") != "Bearer request-token" {
			t.Errorf("request %s %s, %v", r.Method, r.URL, r.Header)
		}
		answers[min(n, len(answers))-1](w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/token?api-version=2.0", requests
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func silence(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func hangup(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestOIDCToken(t *testing.T) {
	const token = "aaa.bbb.ccc"
	good := answer(200, `{"value":"`+token+`"}`)
	for _, test := range []struct {
		name     string
		answers  []http.HandlerFunc
		timeout  time.Duration
		requests int32
		status   int    // of the error
		message  string // of the error; "" for success
		format   bool
	}{
		{name: "token", answers: []http.HandlerFunc{good}, requests: 1},
		{name: "after two failures", answers: []http.HandlerFunc{answer(503, ""), answer(500, ""), good}, requests: 3},
		{name: "after a broken connection", answers: []http.HandlerFunc{hangup, good}, requests: 2},
		{
			name: "unavailable", answers: []http.HandlerFunc{answer(503, `{"message":"maintenance"}`)},
			requests: 4, status: 503, message: "maintenance",
		},
		{
			name: "denied", answers: []http.HandlerFunc{answer(403, `{"message":"invalid bearer request-token"}`)},
			requests: 1, status: 403, message: "invalid bearer ***",
		},
		{
			name: "no token", answers: []http.HandlerFunc{answer(200, `{}`)},
			requests: 1, status: 200, message: "no token", format: true,
		},
		{
			name: "web page", answers: []http.HandlerFunc{answer(200, `<html>`)},
			requests: 1, status: 200, message: "web page", format: true,
		},
		{
			name: "no response", answers: []http.HandlerFunc{silence}, timeout: 50 * time.Millisecond,
			requests: 4, message: "no response within 50ms, after 4 attempts",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, requests := oidcServer(t, test.answers...)
			r := &recorder{}
			oidc := NewOIDC(environment(map[string]string{
				"ACTIONS_ID_TOKEN_REQUEST_URL": address, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
			}), r.mask)
			oidc.HTTP.Policy = httpclient.Policy{MinWait: time.Millisecond, Timeout: test.timeout}
			got, err := oidc.Token(t.Context(), "https://depot.dev/?a&b")
			// A server without time to read a request does not count it: the message counts the attempts.
			if n := requests.Load(); n > test.requests || n < test.requests && test.timeout == 0 {
				t.Errorf("got %d requests, want %d", n, test.requests)
			}
			if test.message == "" {
				if want := []string{"request-token", token}; err != nil || got != token || !slices.Equal(r.secrets(), want) {
					t.Errorf("got %q, %v, masked %q", got, err, r.secrets())
				}
				return
			}
			failed, ok := errors.AsType[*httpclient.APIError](err)
			if !ok || failed.Service != "GitHub" || failed.Status != test.status || !strings.HasSuffix(
				failed.Hint, "rerun the job",
			) ||
				strings.Contains(failed.Hint, "network") != (test.status == 0) ||
				!strings.Contains(failed.Message, test.message) || errors.Is(err, httpclient.ErrFormat) != test.format {
				t.Errorf("got %+v", err)
			}
			if strings.Contains(err.Error(), "request-token") || got != "" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestRequestTokenIsMaskedFirst(t *testing.T) {
	r := &recorder{}
	address, _ := oidcServer(t, func(w http.ResponseWriter, _ *http.Request) {
		if !slices.Contains(r.secrets(), "request-token") {
			t.Error("the request token was sent before it was masked")
		}
		_, _ = io.WriteString(w, `{"value":"token"}`)
	})
	oidc := OIDC{RequestURL: address, RequestToken: "request-token", Mask: r.mask}
	if _, err := oidc.Token(t.Context(), "https://depot.dev/?a&b"); err != nil {
		t.Error(err)
	}
}

func TestOIDCUnavailable(t *testing.T) {
	for _, oidc := range []OIDC{{}, {RequestURL: "http://127.0.0.1:1/?"}, {RequestToken: "request-token"}} {
		if _, err := oidc.Token(t.Context(), "audience"); oidc.Available() || !errors.Is(err, ErrNoIDToken) {
			t.Errorf("%+v: available %t, %v", oidc, oidc.Available(), err)
		}
	}
	invalid := OIDC{RequestURL: "http://host:port/", RequestToken: "request-token"}
	_, err := invalid.Token(t.Context(), "audience")
	if err == nil || !strings.Contains(err.Error(), "ACTIONS_ID_TOKEN_REQUEST_URL") {
		t.Errorf("invalid URL: %v", err)
	}
}

func TestOIDCCanceled(t *testing.T) {
	address, requests := oidcServer(t, answer(503, ""))
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	oidc := OIDC{RequestURL: address, RequestToken: "request-token"}
	if _, err := oidc.Token(ctx, "https://depot.dev/?a&b"); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("got %d requests", n)
	}
}

// environment returns a getenv function that reads a map.
func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}
