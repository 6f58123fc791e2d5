// Package faultproxy is an HTTP reverse proxy that injects faults between a program and a service.
//
//	proxy, err := faultproxy.Start(ctx, cloud.URL())
//	// The first two reads of a snapshot end in the middle of the body.
//	proxy.Fail(faultproxy.Rule{Method: "GET", Path: "/snapshots/", Times: 2, Fault: faultproxy.CutBody()})
//	// The service creates the snapshot, but the client receives a 502.
//	proxy.Fail(faultproxy.Rule{Method: "POST", Path: "/snapshots", Times: 1, Late: true, Fault: faultproxy.Status(502)})
//	client := daytona.Client{URL: proxy.URL}
//	…
//	if requests := proxy.Requests(); …
//
// Requests without a fault are forwarded with their Host header, so that the URLs in a response lead to the proxy. The
// proxy also forwards connections that a request upgrades, and HTTP/2 without TLS.
package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Proxy forwards requests to one service.
type Proxy struct {
	URL string // http://127.0.0.1:PORT, with the path of the service's URL

	upstream  *url.URL
	transport *http.Transport
	forward   *httputil.ReverseProxy
	running   sync.WaitGroup

	mu       sync.Mutex
	address  string
	server   *http.Server // nil while the proxy is down
	stop     context.CancelFunc
	rules    []Rule
	requests []Request
}

// Rule selects the requests that get a fault.
type Rule struct {
	Method string                   // "" means any
	Path   string                   // part of the path; "" means any
	Match  func(*http.Request) bool // further condition, such as a random one; nil means any
	Skip   int                      // number of matching requests without the fault before the first one with it
	Times  int                      // number of requests with the fault; 0 means all
	Late   bool                     // the service handles the request, and the fault replaces its response
	Fault  Fault
}

// Request is a request that the proxy received.
type Request struct {
	Method, Path string
	Fault        string // name of the fault; "" if the request was forwarded
}

// Start starts a proxy for the service at upstream, on a free loopback port. upstream is an HTTP URL, or
// unix:///PATH for a socket.
func Start(ctx context.Context, upstream string) (*Proxy, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, fmt.Errorf("start a fault proxy: %w", err)
	}
	p := &Proxy{upstream: target, transport: &http.Transport{DisableCompression: true}, address: "127.0.0.1:0"}
	if target.Scheme == "unix" {
		socket := target.Path
		p.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
		p.upstream = &url.URL{Scheme: "http", Host: "socket"}
	}
	p.forward = &httputil.ReverseProxy{
		Transport: p.transport, FlushInterval: -1, // without a delay
		Rewrite:      func(r *httputil.ProxyRequest) { p.redirect(r.Out) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	if err := p.Up(ctx); err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(p.upstream.Path, "/")
	p.upstream.Path = ""
	p.URL = "http://" + p.address + path
	return p, nil
}

// redirect addresses a request to the service. It keeps the Host header.
func (p *Proxy) redirect(r *http.Request) {
	r.URL.Scheme, r.URL.Host = p.upstream.Scheme, p.upstream.Host
}

// Up makes the proxy listen again after Down, at the same address.
func (p *Proxy) Up(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
	if err != nil {
		return fmt.Errorf("start a fault proxy: %w", err)
	}
	p.address = listener.Addr().String()
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	// http.Server.Close does not close connections that a request upgraded. The end of their requests does.
	forwarding, stop := context.WithCancel(context.WithoutCancel(ctx))
	server.BaseContext = func(net.Listener) context.Context { return forwarding }
	p.server, p.stop = server, stop
	p.running.Go(func() { _ = server.Serve(listener) }) // returns after Down
	return nil
}

// Down closes all connections and refuses new ones.
func (p *Proxy) Down() error {
	p.mu.Lock()
	server, stop := p.server, p.stop
	p.server = nil
	p.mu.Unlock()
	if server == nil {
		return nil
	}
	defer p.running.Wait()
	defer stop()
	return server.Close()
}

// Close stops the proxy.
func (p *Proxy) Close() error {
	defer p.transport.CloseIdleConnections()
	return p.Down()
}

// Fail adds a rule. The first rule that matches a request applies.
func (p *Proxy) Fail(r Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, r)
}

// Clear removes all rules.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = nil
}

// Requests returns the requests in the order of their arrival.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// next records a request and returns the rule that applies to it.
func (p *Proxy) next(r *http.Request) (rule Rule, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.rules {
		candidate := &p.rules[i]
		if candidate.Method != "" && candidate.Method != r.Method || !strings.Contains(r.URL.Path, candidate.Path) ||
			candidate.Match != nil && !candidate.Match(r) {
			continue
		}
		if candidate.Skip > 0 {
			candidate.Skip--
			continue
		}
		rule, ok = *candidate, true
		switch {
		case candidate.Times == 1:
			p.rules = slices.Delete(p.rules, i, i+1)
		case candidate.Times > 1:
			candidate.Times--
		}
		break
	}
	p.requests = append(p.requests, Request{r.Method, r.URL.Path, rule.Fault.Name})
	return rule, ok
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rule, ok := p.next(r)
	if !ok {
		p.forward.ServeHTTP(w, r)
		return
	}
	var response *response
	if rule.Late || rule.Fault.needsResponse {
		var err error
		if response, err = p.send(r); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	// net/http notices that the client has disconnected only after it has read the body.
	_, _ = io.Copy(io.Discard, r.Body)
	rule.Fault.serve(w, r, response)
}

// response is a complete response of the service.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (p *Proxy) send(r *http.Request) (*response, error) {
	out := r.Clone(r.Context())
	p.redirect(out)
	out.RequestURI = ""
	out.Header.Del("Accept-Encoding") // faults change the content
	answer, err := p.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	answer.Header.Del("Content-Length")
	return &response{answer.StatusCode, answer.Header, bytes.Clone(body)}, nil
}
