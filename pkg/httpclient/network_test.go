package httpclient

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/internal/faultproxy"
)

// A body that does not arrive whole is retried, and is never the service's response.
func TestIncompleteBody(t *testing.T) {
	s := startServer(t, reply{body: `{"name":"n"}`, header: map[string]string{"Content-Type": "application/json"}})
	proxy, err := faultproxy.Start(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	for _, fault := range []faultproxy.Fault{
		faultproxy.ResetAfterHeaders(), faultproxy.CutBody(), faultproxy.Truncated(),
	} {
		t.Run(fault.Name, func(t *testing.T) {
			client := JSONClient{
				Service: Service{Name: "Service", URL: proxy.URL, Hints: []Hint{{Any, "", "check the URL"}}},
				HTTP:    Config{Clock: &fakeclock.Clock{}}.Client(),
			}
			proxy.Fail(faultproxy.Rule{Times: 2, Fault: fault})
			var answer struct{ Name string }
			if err := client.Do(t.Context(), JSONCall{Op: "read"}, &answer); err != nil || answer.Name != "n" {
				t.Errorf("%+v, %v", answer, err)
			}
			proxy.Fail(faultproxy.Rule{Fault: fault})
			defer proxy.Clear()
			err := client.Do(t.Context(), JSONCall{Op: "read"}, &answer)
			failed, ok := errors.AsType[*APIError](err)
			if !ok || !errors.As(err, new(*IncompleteError)) || !failed.Transient() || errors.Is(err, ErrFormat) ||
				strings.Contains(failed.Hint, "URL") || strings.Contains(failed.Message, "cannot reach") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The hint for a failed connection depends on its cause and not on the service.
func TestNetworkHints(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(http.NotFoundHandler()) // as a proxy, it refuses every connection
	defer plain.Close()
	closed := faultproxy.Refused(t)
	trusted := server.Client().Transport.(*http.Transport)
	with := func(change func(*http.Transport)) *http.Transport {
		transport := trusted.Clone()
		change(transport)
		return transport
	}
	at := func(year int) *http.Transport {
		return with(func(transport *http.Transport) {
			transport.TLSClientConfig.Time = func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
		})
	}
	through := func(address string) *http.Transport {
		return with(func(transport *http.Transport) {
			transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: address})
		})
	}
	const other = "check the network"
	for _, test := range []struct {
		name      string
		base      http.RoundTripper
		url       string // "" means that of the TLS server
		hint      string
		transient bool
	}{
		{name: "clock before the certificate", base: at(1900), hint: "check the clock of this machine"},
		{name: "expired certificate", base: at(2200), hint: "check the clock of this machine"},
		{name: "unknown authority", base: with(func(transport *http.Transport) {
			transport.TLSClientConfig = &tls.Config{}
		}), hint: "SSL_CERT_FILE"},
		{name: "certificate of another host", base: with(func(transport *http.Transport) {
			transport.TLSClientConfig.ServerName = "another.example.org"
		}), hint: "correct the host name"},
		{name: "server without TLS", base: trusted, url: "https://" + plain.Listener.Addr().String(), hint: "check the port"},
		{name: "proxy is down", base: through(closed), hint: "check HTTPS_PROXY", transient: true},
		{name: "proxy refuses", base: through(plain.Listener.Addr().String()), hint: "the proxy answered 404",
			transient: true},
		{name: "unknown host", base: roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}
		}), hint: "check the host name", transient: true},
		{name: "refused", base: trusted, url: "https://" + closed, hint: other, transient: true},
		{name: "credentials without TLS", base: trusted, url: "http://api.example.org", hint: other},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := test.url
			if address == "" {
				address = server.URL
			}
			client := JSONClient{
				Service: Service{Name: "Service", URL: address, Hints: []Hint{{NoResponse, "", other}}},
				HTTP:    Config{Base: test.base, Clock: &fakeclock.Clock{}}.Client(),
			}
			err := client.Do(t.Context(), JSONCall{Op: "read", Token: "secret", Hints: []Hint{{404, "", "call"}}}, nil)
			failed, ok := errors.AsType[*APIError](err)
			if !ok || !strings.Contains(failed.Hint, test.hint) || failed.Transient() != test.transient {
				t.Errorf("got %v, want the hint %q, transient %t", err, test.hint, test.transient)
			}
		})
	}
}

// A service that sends more than the limit is not read further.
func TestEndlessBody(t *testing.T) {
	s := startServer(t, reply{})
	proxy, err := faultproxy.Start(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	sent := make(chan int64, 1)
	const total = 1 << 30
	proxy.Fail(faultproxy.Rule{Fault: faultproxy.Huge(total, func(n int64) { sent <- n })})
	client := JSONClient{Service: Service{Name: "Service", URL: proxy.URL}, HTTP: Config{}.Client()}
	var answer struct{ Message string }
	err = client.Do(t.Context(), JSONCall{Op: "read"}, &answer)
	if !errors.As(err, new(*BodyTooLargeError)) || len(proxy.Requests()) != 1 {
		t.Errorf("%v after %d requests", err, len(proxy.Requests()))
	}
	if n := <-sent; n > total/4 {
		t.Errorf("read %d bytes", n)
	}
}
