package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// start starts a proxy for a service that responds with a snapshot and counts its requests.
func start(t *testing.T) (p *Proxy, served *atomic.Int64) {
	t.Helper()
	served = new(atomic.Int64)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		_, _ = io.WriteString(w, `{"id":"`+r.Host+`","state":"active","cpu":1,"regions":["us"]}`)
	}))
	t.Cleanup(service.Close)
	p, err := Start(t.Context(), service.URL+"/api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, served
}

// get returns the status and the body, and the error of the request or of its body.
func get(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}

func TestFaults(t *testing.T) {
	for _, test := range []struct {
		fault  Fault
		status int
		body   string // {HOST} is the proxy's address
		cut    bool   // the request or its body ends with an error
	}{
		{fault: Reset(), cut: true},
		{fault: ResetAfterHeaders(), status: 200, cut: true},
		{fault: CutBody(), status: 200, body: `{"id":"{HOST}`, cut: true},
		{fault: Truncated(), status: 200, body: `{"id":"{HOST}`},
		{fault: WrongTypes(), status: 200, body: `{"cpu":"seven","id":7,"regions":{},"state":7}`},
		{
			fault: UnknownState(), status: 200,
			body: `{"cpu":1,"id":"{HOST}","regions":["us"],"state":"from-the-future"}`,
		},
		{fault: Status(502), status: 502, body: `{"statusCode":502,"message":"injected"`},
		{fault: WebPage(200), status: 200, body: "<!DOCTYPE html>"},
		{fault: Empty(200), status: 200},
		{fault: Slow(time.Microsecond), status: 200, body: `{"id":"{HOST}","state":"active","cpu":1,"regions":["us"]}`},
		{fault: Huge(100<<10, nil), status: 200, body: `{"message":"   `},
	} {
		t.Run(test.fault.Name, func(t *testing.T) {
			p, _ := start(t)
			p.Fail(Rule{Path: "/x", Fault: test.fault})
			status, body, err := get(t.Context(), p.URL+"/x")
			want := strings.ReplaceAll(test.body, "{HOST}", strings.TrimSuffix(strings.TrimPrefix(p.URL, "http://"), "/api"))
			if status != test.status || !strings.HasPrefix(body, want) || (err != nil) != test.cut {
				t.Errorf("%d %q, %v; want %d %q", status, body, err, test.status, want)
			}
		})
	}
}

// The times of a service are those of its clock, in the header and in the body.
func TestSkew(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"name":"n","created":[%q]}`, at.Format(time.RFC3339))
	}))
	defer service.Close()
	p, err := Start(t.Context(), service.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Fail(Rule{Fault: Skew(time.Hour)})
	response, err := http.Get(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	want := fmt.Sprintf(`{"created":[%q],"name":"n"}`, at.Add(time.Hour).Format(time.RFC3339))
	date, dateErr := http.ParseTime(response.Header.Get("Date"))
	if string(body) != want || err != nil || dateErr != nil || time.Until(date) < 30*time.Minute {
		t.Errorf("%s, %v, %s; want %s", body, err, date, want)
	}
}

func TestRules(t *testing.T) {
	p, served := start(t)
	p.Fail(Rule{Method: "GET", Path: "/x", Skip: 1, Times: 1, Late: true, Fault: Status(500)})
	p.Fail(
		Rule{Path: "/x", Times: 1, Match: func(r *http.Request) bool { return r.URL.RawQuery != "" }, Fault: Status(503)},
	)
	p.Fail(Rule{Method: "POST", Fault: Status(504)})
	for _, call := range []struct {
		path   string
		status int
		served int64 // by the service, in total
	}{{"/x", 200, 1}, {"/x", 500, 2}, {"/x", 200, 3}, {"/x?a", 503, 3}, {"/x?a", 200, 4}} {
		if status, body, err := get(t.Context(), p.URL+call.path); status != call.status || served.Load() != call.served {
			t.Errorf("%s: %d %q, %v, served %d; want %d, %d", call.path, status, body, err, served.Load(), call.status,
				call.served)
		}
	}
	want := []Request{
		{
			"GET",
			"/api/x",
			"",
		}, {"GET", "/api/x", "500"}, {"GET", "/api/x", ""}, {"GET", "/api/x", "503"}, {"GET", "/api/x", ""},
	}
	if got := p.Requests(); !reflect.DeepEqual(got, want) {
		t.Errorf("requests %q", got)
	}
}

func TestSilenceAndDown(t *testing.T) {
	p, _ := start(t)
	p.Fail(Rule{Path: "/silent", Fault: Silence()})
	ctx, cancel := context.WithCancel(t.Context())
	silent := make(chan error, 1)
	go func() {
		_, _, err := get(ctx, p.URL+"/silent")
		silent <- err
	}()
	for len(p.Requests()) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("no request")
		}
	}
	cancel()
	if err := <-silent; !errors.Is(err, context.Canceled) {
		t.Errorf("silence: %v", err)
	}
	if err := p.Down(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := get(t.Context(), p.URL); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("down: %v", err)
	}
	if err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, _, err := get(t.Context(), p.URL); status != 200 {
		t.Errorf("up again: %d, %v", status, err)
	}
}

// The proxy forwards to a socket of a local daemon, also a connection that a request upgrades. It closes it when it
// stops.
func TestUpgrade(t *testing.T) {
	held := make(chan struct{})
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffer, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = buffer.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello")
		_ = buffer.Flush()
		<-held
	}))
	socket := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	service.Listener.Close()
	service.Listener = listener
	service.Start()
	defer service.Close()
	defer close(held)
	p, err := Start(t.Context(), "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "tcp")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data := make([]byte, len("hello"))
	if _, err := io.ReadFull(response.Body, data); response.StatusCode != 101 || string(data) != "hello" || err != nil {
		t.Errorf("%d %q, %v", response.StatusCode, data, err)
	}
	if err := p.Down(); err != nil {
		t.Error(err)
	}
	_, _ = io.ReadAll(response.Body) // returns
}
