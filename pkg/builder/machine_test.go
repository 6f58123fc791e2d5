package builder

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"golang.org/x/sync/errgroup"
)

// Both platforms are requested concurrently: Depot responds to the first request only after the second arrives.
func TestConcurrentPlatforms(t *testing.T) {
	hold := make(chan struct{})
	s := startDepotWithMachines(t)
	s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Times: 2, Hold: hold})
	request := Request{Platforms: []string{"linux/amd64", "linux/arm64"}}
	lease := acquire(t, depot(s, &journal{}, "project-token"), request)
	var running errgroup.Group
	for _, platform := range request.Platforms {
		for range 2 { // concurrent callers get the same client
			running.Go(func() error {
				c, err := lease.Machine(t.Context(), platform)
				if err != nil {
					return err
				}
				if second, err := lease.Machine(t.Context(), platform); err != nil || second != c {
					t.Errorf("%s, second call: %v, %v", platform, second, err)
				}
				workers, err := c.ListWorkers(t.Context())
				if err != nil {
					return err
				}
				if p := workers[0].Platforms[0]; p.OS+"/"+p.Architecture != platform {
					t.Errorf("got a machine for %[2]s/%[3]s, want %[1]s", platform, p.OS, p.Architecture)
				}
				return solve(t.Context(), t, c, oneFile)
			})
		}
	}
	eventually(t, "a request for each platform", func() bool { return calls(s, "GetBuildKitConnection", nil) == 2 })
	close(hold)
	if err := running.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, platform := range request.Platforms {
		active := func(c depotapi.Call) bool { return c.Platform == platform && c.State == "active" }
		if n := calls(s, "GetBuildKitConnection", active); n != 1 {
			t.Errorf("%s: %d machines", platform, n)
		}
	}
}

func TestBrokenMachines(t *testing.T) {
	const (
		hintNetwork      = "no response within 300ms; check that BuildKit is running"
		hintCertificates = "the certificates do not match or have expired"
	)
	for _, test := range []struct {
		fault  depotapi.MachineFault
		format bool // the API's response is unusable
		want   []string
	}{
		{depotapi.Unreachable, false, []string{"connect: connection refused", hintNetwork}},
		{depotapi.ClientRejected, false, []string{"remote error: tls: ", hintCertificates}},
		{depotapi.UntrustedServer, false, []string{"certificate signed by unknown authority", hintCertificates}},
		{depotapi.ClockAhead, false, []string{"is not yet valid", "check the clock of this machine"}},
		{depotapi.ClockBehind, false, []string{"has expired", "check the clock of this machine"}},
		{depotapi.NoCertificates, true, []string{"invalid CA certificate"}},
		{depotapi.MalformedKey, true, []string{"invalid client certificate"}},
		{depotapi.InvalidAddress, true, []string{"invalid machine address"}},
	} {
		t.Run(string(test.fault), func(t *testing.T) {
			j := &journal{}
			s := startDepotWithMachines(t)
			s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Machine: test.fault})
			d := depot(s, j, "project-token")
			if test.fault == depotapi.Unreachable {
				d.Policy.Connect.Timeout = 300 * time.Millisecond
			}
			lease := acquire(t, d, Request{})
			_, err := lease.Machine(t.Context(), "linux/amd64")
			if err == nil {
				t.Fatal("no error")
			}
			if errors.Is(err, httpclient.ErrFormat) != test.format {
				t.Errorf("got %v, want ErrFormat: %t", err, test.format)
			}
			for _, part := range append(test.want, "connect to the machine for linux/amd64") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got\n%v\nwant %q", err, part)
				}
			}
			checkMessage(t, err, j.secrets()...)
			if _, second := lease.Machine(t.Context(), "linux/amd64"); second != err { //nolint:errorlint // the same value
				t.Errorf("second call: %v", second)
			}
		})
	}
}

func TestCertificatesAreValidForOneBuild(t *testing.T) {
	open := func(lifetime time.Duration) *builders.Connection {
		c, err := machines(t).Open("linux/amd64", lifetime)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	one, two := open(time.Minute), open(time.Minute)
	expired := open(-time.Second)
	for _, test := range []struct {
		name     string
		machine  *builders.Connection
		ca, cert *builders.Connection
		want     string // "" for success
	}{
		{"own certificate", one, one, one, ""},
		{"certificate of another build", one, one, two, "remote error: tls: "},
		{"machine of another build", two, one, one, "tls: failed to verify certificate"},
		{"expired certificate", expired, expired, expired, "x509: certificate has expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := endpoint{addr: test.machine.Endpoint, serverName: one.ServerName}
			if err := e.setCertificates(test.ca.CACert, test.cert.Cert, test.cert.Key); err != nil {
				t.Fatal(err)
			}
			c, err := e.connect(t.Context())
			if err == nil {
				_ = c.client.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPendingWait(t *testing.T) {
	for _, test := range []struct {
		name     string
		proposed time.Duration
		want     time.Duration
	}{
		{"none", time.Nanosecond, 50 * time.Millisecond},
		{"shorter than the minimum", time.Millisecond, 10 * time.Millisecond},
		{"milliseconds", 20 * time.Millisecond, 20 * time.Millisecond},
		{"negative", -time.Second, 50 * time.Millisecond},
		{"short", 700 * time.Millisecond, 700 * time.Millisecond},
		{"longer than the maximum", 24 * time.Hour, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t, func(o *depotapi.Options) { o.Wait = test.proposed })
			s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive})
			clock := newFakeClock()
			clock.limit = 3
			err := waitWithClock(t, s, &journal{}, clock)
			want := slices.Repeat([]time.Duration{test.want}, 3)
			if !errors.Is(err, errClock) || !slices.Equal(clock.sleeps, want) {
				t.Errorf("waited %s (%v), want %s", clock.sleeps, err, want)
			}
		})
	}
}

func TestLongWaitIsLogged(t *testing.T) {
	s := startDepot(t, func(o *depotapi.Options) { o.Wait = time.Second })
	s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive})
	clock := newFakeClock()
	clock.limit = 15
	j := &journal{}
	if err := waitWithClock(t, s, j, clock); !errors.Is(err, errClock) {
		t.Fatal(err)
	}
	// The first line after more than 2 s, further ones after more than 10 s each.
	want := []string{
		"Waiting for Depot to start a machine for linux/amd64 (3s so far)",
		"Waiting for Depot to start a machine for linux/amd64 (14s so far)",
	}
	if got := j.log(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// waitWithClock waits for a machine with a fake clock.
func waitWithClock(t *testing.T, s *depotapi.Server, j *journal, clock *fakeClock) error {
	t.Helper()
	d := depot(s, j, "project-token")
	lease := acquire(t, d, Request{})
	d.Policy.Clock = clock
	return waitForMachine(t, d, lease, j.secrets()[1])
}

// waitForMachine waits for a machine of a lease, with the policy of d and without health reports.
func waitForMachine(t *testing.T, d Depot, lease *Lease, token string) error {
	t.Helper()
	d.Policy = d.Policy.withDefaults()
	waiting := &session{Depot: d, api: d.api(), lease: lease, token: token}
	platform, err := depotPlatform("linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	_, err = waiting.waitForMachine(t.Context(), "linux/amd64", platform)
	return err
}

// After Release, a client that the caller still holds no longer reaches its machine.
func TestMachineAfterRelease(t *testing.T) {
	s := startDepotWithMachines(t)
	lease := acquire(t, depot(s, &journal{}, "project-token"), Request{})
	c, err := lease.Machine(t.Context(), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	lease.Release(nil)
	if _, err := c.ListWorkers(t.Context()); err == nil {
		t.Error("the machine still responds after Release")
	}
	if n := calls(s, "FinishBuild", nil); n != 1 {
		t.Errorf("got %d calls of FinishBuild", n)
	}
}
