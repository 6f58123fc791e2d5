package builder

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"golang.org/x/sync/errgroup"
)

// Past the time in the answer to a health report, the client releases the machine and finishes the build as canceled.
func TestDepotCancelsBuild(t *testing.T) {
	s := startDepotWithMachines(t)
	j := &journal{}
	d := depot(s, j, "project-token")
	d.Policy.HealthPeriod = time.Millisecond
	canceled := make(chan *CanceledError, 2)
	lease := acquire(t, d, Request{Canceled: func(err *CanceledError) { canceled <- err }})
	c, err := lease.Machine(t.Context(), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	var running errgroup.Group
	running.Go(func() error {
		for { // a build that ends only with its connection
			if _, err := c.ListWorkers(context.Background()); err != nil {
				return err
			}
		}
	})
	s.Cancel(lease.ID)
	mustReturn(t, "the build", func() { err = running.Wait() })
	got := <-canceled
	if got.Build != lease.ID || !strings.HasPrefix(got.Error(), "Depot canceled build "+lease.ID+" at ") {
		t.Errorf("got %v", got)
	}
	for name, err := range map[string]error{
		"Err": lease.Err(), "Explain": lease.Explain("linux/amd64", err), "Machine": func() error {
			_, err := lease.Machine(t.Context(), "linux/amd64")
			return err
		}(),
	} {
		if !errors.Is(err, got) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "the end of the build", func() bool {
		return calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "canceled" }) == 1
	})
	lease.Release(nil) // the success of a flow that did not notice
	if n := calls(s, "FinishBuild", nil); n != 1 || len(canceled) > 0 {
		t.Errorf("the build was finished %d times, and canceled once more: %v", n, len(canceled) > 0)
	}
}

// skewedClock is a system clock that is wrong by skew.
type skewedClock struct {
	httpclient.SystemClock
	skew time.Duration
}

func (c skewedClock) Now() time.Time { return c.SystemClock.Now().Add(c.skew) }

// Depot's clock decides when a build is canceled.
func TestCancelWithWrongClock(t *testing.T) {
	for _, skew := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		s := startDepotWithMachines(t, func(o *depotapi.Options) { o.Limit = 5 * time.Minute })
		d := depot(s, &journal{}, "project-token")
		d.Policy.Clock, d.Policy.HealthPeriod = skewedClock{skew: skew}, time.Millisecond
		lease := acquire(t, d, Request{})
		if _, err := lease.Machine(t.Context(), "linux/amd64"); err != nil {
			t.Fatal(err)
		}
		before := calls(s, "ReportBuildHealth", nil)
		eventually(t, "health reports", func() bool { return calls(s, "ReportBuildHealth", nil) > before+2 })
		if err := lease.Err(); err != nil {
			t.Errorf("skew %s: canceled before the time limit: %v", skew, err)
		}
		s.Cancel(lease.ID)
		eventually(t, "the cancellation", func() bool { return lease.Err() != nil })
	}
}

// A report that is in flight when the lease is released does not cancel a build that has ended.
func TestCancelAfterRelease(t *testing.T) {
	s := startDepot(t)
	lease := acquire(t, depot(s, &journal{}, "project-token"), Request{})
	lease.Release(nil)
	waiting := &session{
		Depot:      depot(s, &journal{}, ""),
		lease:      lease,
		onCanceled: func(err *CanceledError) { t.Error(err) },
	}
	waiting.cancel(time.Now())
	if lease.Err() != nil || calls(s, "FinishBuild", nil) != 1 {
		t.Errorf("got %v", lease.Err())
	}
}

// Depot may name a machine that does not start, or whose certificates are not valid: the client requests one again.
func TestMachineIsAcquiredAgain(t *testing.T) {
	for _, fault := range []depotapi.MachineFault{
		depotapi.Unreachable, depotapi.ClientRejected, depotapi.UntrustedServer, depotapi.NoCertificates,
		depotapi.InvalidAddress, depotapi.ClockBehind,
	} {
		t.Run(string(fault), func(t *testing.T) {
			s := startDepotWithMachines(t, func(o *depotapi.Options) { o.Pending = -1 })
			s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Machine: fault, Times: 1})
			j := &journal{}
			d := depot(s, j, "project-token")
			d.Policy.Connect.Timeout = 300 * time.Millisecond
			if fault != depotapi.Unreachable {
				d.Policy.Connect.Timeout = time.Hour
			}
			lease := acquire(t, d, Request{})
			if _, err := lease.Machine(t.Context(), "linux/amd64"); err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(j.log(), "\n"); !strings.Contains(text, "requesting a machine again") {
				t.Errorf("logged %q", text)
			}
		})
	}
}

// proxy forwards connections to addr until it is frozen: from then on it reads and drops what arrives.
type proxy struct {
	net.Listener
	addr   string
	frozen chan struct{}
	mu     sync.Mutex
	conns  []net.Conn
}

func startProxy(t *testing.T, addr string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: listener, addr: addr, frozen: make(chan struct{})}
	go p.serve()
	t.Cleanup(func() {
		_ = listener.Close()
		p.closeAll()
	})
	return p
}

func (p *proxy) serve() {
	for {
		from, err := p.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.addr)
		if err != nil {
			_ = from.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, from, to)
		p.mu.Unlock()
		go p.forward(to, from)
		go p.forward(from, to)
	}
}

func (p *proxy) forward(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-p.frozen:
		default:
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
}

// A connection may break, or stay open while the machine no longer responds.
func TestLostConnection(t *testing.T) {
	for _, test := range []struct {
		name string
		lose func(*testing.T, *proxy)
		want string
	}{
		{"closed", func(_ *testing.T, p *proxy) { p.closeAll() }, "EOF"},
		{"network drops everything", func(_ *testing.T, p *proxy) { close(p.frozen) }, "stopped answering: no answer for "},
		{"daemon is frozen", freezeDaemon, "stopped answering: no answer for "},
	} {
		t.Run(test.name, func(t *testing.T) {
			machine, err := machines(t).Open("linux/amd64", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = machine.Close() })
			p := startProxy(t, strings.TrimPrefix(machine.Endpoint, "tcp://"))
			e := endpoint{
				addr: "tcp://" + p.Addr().String(), serverName: machine.ServerName,
			}
			if err := e.setCertificates(machine.CACert, machine.Cert, machine.Key); err != nil {
				t.Fatal(err)
			}
			lease := newLease(t.Context(), ConnectPolicy{PingAfter: time.Millisecond, PingTimeout: 5 * time.Second})
			lease.connect = func(ctx context.Context, _ string) (connection, error) { return e.connect(ctx) }
			t.Cleanup(func() { lease.Release(nil) })
			c, err := lease.Machine(t.Context(), "linux/amd64")
			if err != nil {
				t.Fatal(err)
			}
			failed := errors.New("exit code: 1")
			if got := lease.Explain("linux/amd64", failed); got != failed { //nolint:errorlint // the same value
				t.Errorf("a failure over a working connection is explained by %v", got)
			}
			silent, requested := startSilentServer(t)
			var running errgroup.Group
			running.Go(func() error { return solve(t.Context(), t, c, "FROM scratch\nADD http://"+silent+"/file /\n") })
			mustReturn(t, "the build's request", func() { <-requested })
			test.lose(t, p)
			mustReturn(t, "the build", func() { err = lease.Explain("linux/amd64", running.Wait()) })
			lost, ok := errors.AsType[*LostError](err)
			if !ok || lost.Platform != "linux/amd64" || lost.Addr != p.Addr().String() ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a LostError with %q", err, test.want)
			}
			if lease.Explain("linux/arm64", failed) != failed ||
				lease.Explain("linux/amd64", nil) != nil { //nolint:errorlint // same
				t.Error("explained an error that the lost machine did not cause")
			}
			checkMessage(t, err)
		})
	}
}

// freezeDaemon stops the daemon behind the proxy until the test ends.
func freezeDaemon(t *testing.T, _ *proxy) {
	t.Helper()
	resume, err := machines(t).Freeze("linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := resume(); err != nil {
			t.Error(err)
		}
	})
}

// A daemon that accepts connections but never answers is not worth the timeout of one that starts.
func TestFrozenFromTheStart(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // the kernel accepts connections
	a := Address{Addr: "tcp://" + listener.Addr().String(), Connect: ConnectPolicy{
		Timeout: time.Hour, FirstWait: time.Millisecond, AnswerTimeout: 50 * time.Millisecond,
	}}
	lease, err := a.Acquire(t.Context(), Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(nil)
	_, err = lease.Machine(t.Context(), "linux/amd64")
	want := "the builder accepts connections, but does not answer (3 attempts of 50ms; restart BuildKit)"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// startSilentServer starts a server that never answers. The channel is closed at the first connection.
func startSilentServer(t *testing.T) (addr string, connected <-chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	first := make(chan struct{})
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		close(first)
		<-t.Context().Done()
		_ = conn.Close()
	}()
	return listener.Addr().String(), first
}

// On Depot's own runners, the agent has to admit a machine before the first connection to it.
func TestEgressFilter(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "agentd")
	if err := os.WriteFile(agent, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, agent, answer, addr string
		want                      string // the request
		err                       string
	}{
		{"admitted", agent, `{"success":true}`, "10.0.0.1:443", `{"allowIPs":["10.0.0.1"]}`, ""},
		{"IPv6", agent, `{"success":true}`, "[::1]:443", `{"allowIPs":["::1"]}`, ""},
		{
			"refused", agent, `{"success":false,"error":"no\nsuch rule"}`, "10.0.0.1:443", `{"allowIPs":["10.0.0.1"]}`,
			"allow connections to 10.0.0.1: no such rule",
		},
		{"not JSON", agent, `<html>`, "10.0.0.1:443", `{"allowIPs":["10.0.0.1"]}`, "the response is a web page"},
		{"another runner", agent + "-absent", "", "10.0.0.1:443", "", ""},
		{"host name", agent, "", "machine.example.com:443", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = string(body)
				_, _ = io.WriteString(w, test.answer)
			}))
			defer server.Close()
			err := EgressFilter{Agent: test.agent, URL: server.URL}.admit(t.Context(), test.addr)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("sent %s, got %v; want %s, %q", got, err, test.want, test.err)
			}
		})
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	if err := (EgressFilter{Agent: agent, URL: closed.URL}).admit(t.Context(), "10.0.0.1:443"); err != nil {
		t.Errorf("a runner without a filter: %v", err)
	}

	t.Run("of a lease", func(t *testing.T) {
		s := startDepotWithMachines(t)
		var admitted atomic.Value
		filter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			admitted.Store(string(body))
			_, _ = io.WriteString(w, `{"success":false,"error":"full"}`)
		}))
		defer filter.Close()
		j := &journal{}
		d := depot(s, j, "project-token")
		d.Egress = EgressFilter{Agent: agent, URL: filter.URL}
		lease := acquire(t, d, Request{})
		if _, err := lease.Machine(t.Context(), "linux/amd64"); err != nil {
			t.Fatal(err)
		}
		const want = "The runner's egress filter may block the machine for linux/amd64: allow connections to 127.0.0.1: full"
		if log := j.log(); admitted.Load() != `{"allowIPs":["127.0.0.1"]}` || len(log) != 1 || log[0] != want {
			t.Errorf("sent %v, logged %q", admitted.Load(), log)
		}
	})
}
