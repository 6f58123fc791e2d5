package builder

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"golang.org/x/sync/errgroup"
)

func TestRequestIsSentToDepot(t *testing.T) {
	tags := []string{"registry.example.com/app:1", "registry.example.com/app:2"}
	for _, request := range []Request{
		{},
		{Platforms: []string{"linux/amd64", "linux/arm64"}, Tags: tags, Push: true},
		{Load: true},
		{Save: true},
	} {
		s := startDepot(t, func(o *depotapi.Options) {
			o.Registry = depotapi.Registry{
				Host: "registry.example.com", Credential: func(string, bool) (string, error) { return "password", nil },
			}
		})
		lease := acquire(t, depot(s, &journal{}, "project-token"), request)
		c := s.Calls()[0]
		if c.Push != request.Push || c.Load != request.Load || c.Save != request.Save || !slices.Equal(c.Tags, request.Tags) {
			t.Errorf("%+v: sent %+v", request, c)
		}
		page := s.URL() + "/projects/sandbox/builds/" + lease.ID
		if lease.ID != c.BuildID || lease.ProjectID != "sandbox" || lease.URL != page {
			t.Errorf("%+v: got ID %q, project %q, URL %q", request, lease.ID, lease.ProjectID, lease.URL)
		}
	}
}

func TestSecretsAreMasked(t *testing.T) {
	s := startDepot(t)
	j := &journal{}
	acquire(t, depot(s, j, "project-token"), Request{})
	masked := j.secrets()
	if len(masked) != 2 || masked[0] != "project-token" || !strings.HasPrefix(masked[1], "build_") {
		t.Errorf("masked %q, want the API token and the build token", masked)
	}
}

func TestPlatformNames(t *testing.T) {
	s := startDepot(t)
	for name, supported := range map[string]bool{
		"linux/amd64": true, "linux/amd64/v3": true, "linux/386": true,
		"linux/arm64": true, "linux/arm/v8": true, "linux/arm/v7": true, "linux/arm/v6": true,
		"": false, "amd64": false, "arm64": false, "LINUX/AMD64": false, "linux/aarch64": false, "linux/riscv64": false,
		"linux/arm64/v8": false, "windows/amd64": false, "linux/amd64,linux/arm64": false,
	} {
		before := len(s.Calls())
		lease, err := depot(s, &journal{}, "project-token").Acquire(t.Context(), Request{Platforms: []string{name}})
		if (err == nil) != supported {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			lease.Release(nil)
			continue
		}
		checkMessage(t, err)
		if len(s.Calls()) != before {
			t.Errorf("%q: Depot was called", name)
		}
	}
}

func TestTransientErrorsAreRetried(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault depotapi.Fault
	}{
		{"unavailable", depotapi.Fault{Code: connect.CodeUnavailable}},
		{"internal", depotapi.Fault{Code: connect.CodeInternal}},
		{"429", depotapi.Fault{Code: connect.CodeResourceExhausted}},
		{"502 of a proxy", depotapi.Fault{Status: 502, Body: "<html>Bad Gateway</html>"}},
		{"503 of a proxy", depotapi.Fault{Status: 503}},
		{"429 of a proxy", depotapi.Fault{Status: 429}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepotWithMachines(t)
			for _, method := range []string{"CreateBuild", "GetBuildKitConnection", "FinishBuild"} {
				f := test.fault
				f.Method, f.Times = method, 2
				s.Fail(f)
			}
			j := &journal{}
			lease := acquire(t, depot(s, j, "project-token"), Request{})
			if _, err := lease.Machine(t.Context(), "linux/amd64"); err != nil {
				t.Fatal(err)
			}
			lease.Release(nil)
			// One more GetBuildKitConnection: the first successful response is pending.
			for method, want := range map[string]int{"CreateBuild": 3, "GetBuildKitConnection": 4, "FinishBuild": 3} {
				if n := calls(s, method, nil); n != want {
					t.Errorf("got %d calls of %s, want %d", n, method, want)
				}
			}
			if lines := j.log(); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
}

// depot-go v0.5.1 writes to stdout and to the standard logger.
func TestNoOutput(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/output")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := startDepotWithMachines(t)
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = file, file
	log.SetOutput(file)
	defer func() {
		os.Stdout, os.Stderr = stdout, stderr
		log.SetOutput(stderr)
	}()
	s.Fail(depotapi.Fault{Method: "ReportBuildHealth", Code: connect.CodeInvalidArgument, Message: "no"})
	s.Fail(depotapi.Fault{Method: "FinishBuild", Code: connect.CodeInvalidArgument, Message: "no"})
	j := &journal{}
	d := depot(s, j, "project-token")
	d.Policy.HealthPeriod = time.Millisecond
	lease := acquire(t, d, Request{})
	if _, err := lease.Machine(t.Context(), "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second report", func() bool { return calls(s, "ReportBuildHealth", nil) > 1 })
	lease.Release(nil)
	written, err := os.ReadFile(file.Name())
	if err != nil || len(written) > 0 {
		t.Errorf("written: %q, %v", written, err)
	}
	lines := j.log() // each problem is logged once
	if len(lines) != 2 || !strings.Contains(lines[0], "report health: Depot returned 400 Bad Request: no") ||
		!strings.Contains(lines[1], "finish Depot build "+lease.ID+": Depot returned 400 Bad Request: no") {
		t.Errorf("logged %q", lines)
	}
}

func TestHealthReports(t *testing.T) {
	reports := func(s *depotapi.Server, platform string) int {
		return calls(s, "ReportBuildHealth", func(c depotapi.Call) bool { return c.Platform == platform })
	}

	t.Run("from the request for a machine to the release", func(t *testing.T) {
		hold := make(chan struct{})
		s := startDepotWithMachines(t)
		s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Hold: hold, Times: 1})
		d := depot(s, &journal{}, "project-token")
		d.Policy.HealthPeriod = time.Millisecond
		lease := acquire(t, d, Request{})
		var running errgroup.Group
		running.Go(func() error { _, err := lease.Machine(t.Context(), "linux/arm64"); return err })
		eventually(t, "a report before the machine is ready", func() bool { return reports(s, "linux/arm64") > 0 })
		if n := calls(s, "GetBuildKitConnection", func(c depotapi.Call) bool { return c.State == "active" }); n != 0 {
			t.Error("the machine is already active")
		}
		close(hold)
		if err := running.Wait(); err != nil {
			t.Fatal(err)
		}
		before := reports(s, "linux/arm64")
		eventually(t, "more reports", func() bool { return reports(s, "linux/arm64") > before+2 })
		mustReturn(t, "Release", func() { lease.Release(nil) }) // Release waits for the reports to end
		if n := reports(s, "linux/amd64"); n != 0 {
			t.Errorf("got %d reports for a platform that was not requested", n)
		}
	})

	t.Run("until the request for a machine is denied", func(t *testing.T) {
		s := startDepot(t)
		s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Code: connect.CodePermissionDenied, Message: "no"})
		d := depot(s, &journal{}, "project-token")
		d.Policy.HealthPeriod = time.Millisecond
		lease := acquire(t, d, Request{})
		if _, err := lease.Machine(t.Context(), "linux/amd64"); err == nil {
			t.Fatal("no error")
		}
		mustReturn(t, "the health report, before Release", lease.running.Wait)
		lease.Release(errors.New("no machine"))
	})
}

// Depot's responses to health reports contain the time when it will cancel the build.
func TestTimeLimitIsLogged(t *testing.T) {
	s := startDepotWithMachines(t, func(o *depotapi.Options) { o.Limit = time.Hour })
	j := &journal{}
	d := depot(s, j, "project-token")
	d.Policy.HealthPeriod = time.Millisecond
	lease := acquire(t, d, Request{})
	if _, err := lease.Machine(t.Context(), "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "several reports", func() bool { return calls(s, "ReportBuildHealth", nil) > 2 })
	lease.Release(nil)
	lines := j.log()
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "Depot will cancel this build at ") {
		t.Errorf("logged %q", lines)
	}
}

func TestRelease(t *testing.T) {
	canceledCall := func(t *testing.T, lease *Lease) error {
		c, err := lease.Machine(t.Context(), "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = c.ListWorkers(ctx)
		return err
	}
	for _, test := range []struct {
		name    string
		outcome func(t *testing.T, lease *Lease) error
		want    string // the result and error that Depot receives
	}{
		{"success", func(*testing.T, *Lease) error { return nil }, "success "},
		{"failure", func(*testing.T, *Lease) error { return errors.New("exit code: 2") }, "error exit code: 2"},
		{
			"canceled", func(*testing.T, *Lease) error { return fmt.Errorf("solve: %w", context.Canceled) }, "canceled ",
		},
		{"canceled in BuildKit", canceledCall, "canceled "},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepotWithMachines(t)
			ctx, cancel := context.WithCancel(t.Context())
			lease, err := depot(s, &journal{}, "project-token").Acquire(ctx, Request{})
			if err != nil {
				t.Fatal(err)
			}
			outcome := test.outcome(t, lease)
			cancel() // Release does not depend on Acquire's context
			mustReturn(t, "concurrent Release", func() {
				var all sync.WaitGroup
				for range 5 {
					all.Go(func() { lease.Release(outcome) })
				}
				all.Wait()
			})
			lease.Release(errors.New("second release"))
			var got []string
			for _, c := range s.Calls() {
				if c.Method == "FinishBuild" {
					got = append(got, c.Result+" "+c.ResultError)
				}
			}
			if len(got) != 1 || got[0] != test.want {
				t.Errorf("Depot received %q, want %q once", got, test.want)
			}
			if _, err := lease.Machine(t.Context(), "linux/amd64"); !errors.Is(err, ErrReleased) {
				t.Errorf("Machine after Release: %v", err)
			}
		})
	}
}

// spyClock is the system clock. It records the durations of all sleeps.
type spyClock struct {
	httpclient.SystemClock
	mu     sync.Mutex
	sleeps []time.Duration
}

// Sleep implements [httpclient.Clock].
func (c *spyClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.sleeps = append(c.sleeps, d)
	c.mu.Unlock()
	return c.SystemClock.Sleep(ctx, d)
}

func (c *spyClock) slept(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.sleeps, d)
}

// Release interrupts every kind of wait in Machine and notifies Depot.
func TestReleaseWhileWaiting(t *testing.T) {
	const method = "GetBuildKitConnection"
	requested := func(s *depotapi.Server, _ *spyClock) bool { return calls(s, method, nil) > 0 }
	retryLater := map[string]string{"Retry-After": "60"}
	for _, test := range []struct {
		name    string
		fault   depotapi.Fault
		waiting func(*depotapi.Server, *spyClock) bool
	}{
		{"API does not respond", depotapi.Fault{Method: method, NoResponse: true}, requested},
		{
			"API is rate limited",
			depotapi.Fault{Method: method, Code: connect.CodeResourceExhausted, Header: retryLater},
			func(_ *depotapi.Server, c *spyClock) bool { return c.slept(time.Minute) },
		},
		{
			"machine stays pending", depotapi.Fault{Method: method, Machine: depotapi.NeverActive},
			func(_ *depotapi.Server, c *spyClock) bool { return c.slept(minPendingWait) },
		},
		{
			"machine is unreachable", depotapi.Fault{Method: method, Machine: depotapi.Unreachable},
			func(s *depotapi.Server, _ *spyClock) bool {
				return calls(s, method, func(c depotapi.Call) bool { return c.State == "active" }) > 0
			},
		},
		{"no response to any call", depotapi.Fault{NoResponse: true}, requested},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := startDepot
			if test.fault.Machine == depotapi.Unreachable {
				start = startDepotWithMachines
			}
			s := start(t)
			clock := &spyClock{}
			j := &journal{}
			d := depot(s, j, "project-token")
			d.Policy.Clock, d.Policy.Connect.Timeout = clock, time.Hour
			if test.fault.Method == "" {
				d.Policy.ReleaseTimeout = 50 * time.Millisecond
			}
			lease := acquire(t, d, Request{})
			s.Fail(test.fault)
			var running errgroup.Group
			running.Go(func() error { _, err := lease.Machine(context.Background(), "linux/amd64"); return err })
			eventually(t, "the wait for a machine", func() bool { return test.waiting(s, clock) })

			impatient, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("timed out")
			cancel(cause)
			if _, err := lease.Machine(impatient, "linux/amd64"); !errors.Is(err, cause) {
				t.Errorf("second caller with an ended context: %v", err)
			}
			mustReturn(t, "Release", func() { lease.Release(context.Canceled) })
			if err := running.Wait(); !errors.Is(err, ErrReleased) {
				t.Errorf("waiting caller: %v", err)
			}
			if test.fault.Method == "" {
				if text := strings.Join(j.log(), "\n"); !strings.Contains(text, "no response within 50ms") {
					t.Errorf("logged %q", text)
				}
				return
			}
			if n := calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "canceled" }); n != 1 {
				t.Errorf("Depot was notified %d times", n)
			}
		})
	}

	t.Run("daemon at an address does not respond", func(t *testing.T) {
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		connected := make(chan struct{})
		go func() {
			if conn, err := silent.Accept(); err == nil {
				defer conn.Close()
				close(connected)
				<-t.Context().Done()
			}
		}()
		lease, err := Address{Addr: "tcp://" + silent.Addr().String()}.Acquire(t.Context(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		var running errgroup.Group
		running.Go(func() error { _, err := lease.Machine(context.Background(), "linux/amd64"); return err })
		mustReturn(t, "the connection", func() { <-connected })
		mustReturn(t, "Release", func() { lease.Release(nil) })
		if err := running.Wait(); !errors.Is(err, ErrReleased) {
			t.Errorf("waiting caller: %v", err)
		}
	})
}

// Acquire releases a build that Depot creates while the context ends: only Acquire knows its ID.
func TestAcquireCanceledWhileCreating(t *testing.T) {
	hold := make(chan struct{})
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "CreateBuild", Hold: hold})
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	d := depot(s, &journal{}, "project-token")
	var running errgroup.Group
	running.Go(func() error { _, err := d.Acquire(ctx, Request{}); return err })
	eventually(t, "the call", func() bool { return calls(s, "CreateBuild", nil) > 0 })
	cancel(cause)
	close(hold)
	if err := running.Wait(); !errors.Is(err, cause) {
		t.Errorf("Acquire: %v", err)
	}
	if n := calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "canceled" }); n != 1 {
		t.Errorf("Depot was notified %d times of the canceled build, want once", n)
	}
	before := len(s.Calls())
	if _, err := d.Acquire(ctx, Request{}); !errors.Is(err, cause) {
		t.Errorf("Acquire with an ended context: %v", err)
	}
	if n := len(s.Calls()) - before; n != 0 {
		t.Errorf("got %d calls with an ended context", n)
	}
}

// A response to CreateBuild may take longer than those to other calls: a build without a known ID cannot be finished.
func TestLateBuild(t *testing.T) {
	hold := make(chan struct{})
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "CreateBuild", Hold: hold})
	d := depot(s, &journal{}, "project-token")
	d.Policy.HTTP.Timeout, d.Policy.NoticeAfter = 20*time.Millisecond, 50*time.Millisecond
	d.Logf = func(format string, args ...any) {
		if fmt.Sprintf(format, args...) == "Waiting for Depot to create the build" {
			close(hold)
		}
	}
	acquire(t, d, Request{})
}

// Acquire returns when the grace period for CreateBuild ends.
func TestAcquireCanceledWithoutResponse(t *testing.T) {
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "CreateBuild", NoResponse: true})
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	var running errgroup.Group
	running.Go(func() error { _, err := depot(s, &journal{}, "project-token").Acquire(ctx, Request{}); return err })
	eventually(t, "the call", func() bool { return calls(s, "CreateBuild", nil) > 0 })
	cancel(cause)
	mustReturn(t, "Acquire", func() {
		if err := running.Wait(); !errors.Is(err, cause) {
			t.Errorf("Acquire: %v", err)
		}
	})
}
