package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// The transport sends uploads of layers once and waits for the registry's Retry-After. It retries other requests.
func TestRegistryTransport(t *testing.T) {
	for _, test := range []struct {
		method     string
		status     int // of the first response; the second is 200
		retryAfter string
		requests   int
		waits      []time.Duration // nil: not checked
	}{
		{http.MethodPatch, 429, "5", 1, []time.Duration{5 * time.Second}},
		{http.MethodPatch, 503, "60", 1, []time.Duration{time.Minute}},
		{http.MethodPatch, 429, "61", 1, []time.Duration{}},
		{http.MethodPatch, 429, "", 1, []time.Duration{}},
		{http.MethodPatch, 202, "5", 1, []time.Duration{}},
		{http.MethodPatch, 404, "5", 1, []time.Duration{}},
		{http.MethodGet, 429, "5", 2, []time.Duration{5 * time.Second}},
		{http.MethodGet, 429, "61", 1, []time.Duration{}},
		{http.MethodGet, 404, "", 1, []time.Duration{}},
		{http.MethodHead, 500, "", 2, nil},
		{http.MethodPost, 503, "", 2, nil},
		{http.MethodPut, 502, "", 2, nil},
	} {
		t.Run(fmt.Sprint(test.method, test.status, test.retryAfter), func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				body, err := io.ReadAll(r.Body)
				sends := r.Method == http.MethodPatch || r.Method == http.MethodPut
				if err != nil || sends != (string(body) == "layer") {
					t.Errorf("request %d has the body %q (%v)", requests, body, err)
				}
				if test.retryAfter != "" {
					w.Header().Set("Retry-After", test.retryAfter)
				}
				if requests == 1 {
					w.WriteHeader(test.status)
				}
			}))
			defer server.Close()
			var body io.Reader
			if test.method == http.MethodPatch || test.method == http.MethodPut {
				body = strings.NewReader("layer")
			}
			request, err := http.NewRequestWithContext(t.Context(), test.method, server.URL, body)
			if err != nil {
				t.Fatal(err)
			}
			clock := &fakeclock.Clock{}
			response, err := registryClient{clock: clock}.transport().RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if requests != test.requests || (response.StatusCode == test.status) != (test.requests == 1) {
				t.Errorf("%d requests and status %d, want %d", requests, response.StatusCode, test.requests)
			}
			if test.waits != nil && !slices.Equal(clock.Slept(), test.waits) {
				t.Errorf("waits = %v, want %v", clock.Slept(), test.waits)
			}
		})
	}
}

// A registry that sends an endless manifest is not read further than the limit. Layers have no limit here.
func TestEndlessManifest(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, maxManifest+1))
	}))
	defer server.Close()
	for path, isLimited := range map[string]bool{"/v2/a/manifests/1": true, "/v2/a/blobs/1": false} {
		response, err := (&http.Client{Transport: registryClient{}.transport()}).Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if errors.As(err, new(*httpclient.BodyTooLargeError)) != isLimited || n > maxManifest && isLimited {
			t.Errorf("%s: read %d bytes, %v", path, n, err)
		}
	}
}

func TestCanceledRegistryTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer server.Close()
	for _, method := range []string{http.MethodPatch, http.MethodGet} {
		cause := errors.New("timed out")
		ctx, cancel := context.WithCancelCause(t.Context())
		request, err := http.NewRequestWithContext(ctx, method, server.URL, bytes.NewReader(nil))
		if err != nil {
			t.Fatal(err)
		}
		clock := &fakeclock.Clock{OnSleep: func() { cancel(cause) }}
		if _, err := (registryClient{clock: clock}).transport().RoundTrip(request); !errors.Is(err, cause) {
			t.Errorf("%s: error = %v, want the cause", method, err)
		}
	}
}

func TestMayRetryUpload(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{io.EOF, true},
		{fmt.Errorf("patch: %w", io.ErrUnexpectedEOF), true},
		{fmt.Errorf("patch: %w", syscall.ECONNRESET), true},
		{syscall.EPIPE, true},
		{net.ErrClosed, true},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, true}, // the idle timeout
		{context.DeadlineExceeded, false},
		{errors.New("digest mismatch"), false},
		{&ReadError{Err: errors.New("builder")}, false},
		{&finalError{io.EOF}, false},
		{fmt.Errorf("post: %w", &finalError{syscall.ECONNREFUSED}), false},
	} {
		if got := mayRetryUpload(test.err); got != test.want {
			t.Errorf("%v: %t, want %t", test.err, got, test.want)
		}
	}
}
