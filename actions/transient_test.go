package actions

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
)

// shortClock is a clock with waits of at most a millisecond.
type shortClock struct{}

func (shortClock) Now() time.Time { return time.Now() }

func (shortClock) Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(min(d, time.Millisecond)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transientFaults injects failures of Daytona itself: into a part of the snapshots, and into a part of the calls. The
// seed determines the sequence of decisions.
type transientFaults struct {
	cloud
	snapshots, calls float64

	mu       sync.Mutex
	random   *rand.Rand
	requests int // with a fault
	failed   int // snapshots with a fault
}

// RoundTrip implements [http.RoundTripper].
func (f *transientFaults) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	isFault, isLate, kind := f.random.Float64() < f.calls, f.random.Float64() < 0.5, f.random.IntN(2)
	if isFault {
		f.requests++
	}
	isCreate := r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/snapshots")
	if isFailed := f.random.Float64() < f.snapshots; isCreate && isFailed && !(isFault && !isLate) {
		f.failed++
		kinds := []cloudaytona.SnapshotFault{
			cloudaytona.InspectTimesOut, cloudaytona.ImageNotFound, cloudaytona.RegistryUnavailable,
			cloudaytona.RunnerUnavailable, cloudaytona.PullUnavailable, cloudaytona.UnknownBlob, cloudaytona.PushUnavailable,
		}
		f.Fail(cloudaytona.Fault{Snapshot: kinds[f.random.IntN(len(kinds))], Times: 1})
	}
	f.mu.Unlock()
	if !isFault || strings.HasSuffix(r.URL.Path, "/regions") { // of the preflight
		return http.DefaultTransport.RoundTrip(r)
	}
	if isLate { // the request has its effect
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		response.Body.Close()
	}
	if kind == 0 {
		return nil, errors.New("connection reset by peer")
	}
	return &http.Response{
		Status: "503 Service Unavailable", StatusCode: http.StatusServiceUnavailable, Body: http.NoBody,
		Header: http.Header{}, Request: r,
	}, nil
}

// Twenty snapshots, of which 30 % fail for a reason of Daytona and for which 10 % of the calls fail: each becomes
// active, or is removed and named in the error. Doppler is not involved.
func TestTransientFailures(t *testing.T) {
	const snapshots = 20
	var variants []string
	for i := range snapshots {
		variants = append(variants, fmt.Sprintf("v%d: cpu=%d,region=%s", i, 1+i%4, []string{"us", "eu"}[i%2]))
	}
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			c := startDaytona(t, nil).withVariants(t, strings.Join(variants, "\n"), "--attempts=3")
			faults := &transientFaults{cloud: c, snapshots: 0.3, calls: 0.1, random: rand.New(rand.NewPCG(seed, 0))}
			c.client.HTTP.Base, c.client.HTTP.Clock = faults, shortClock{}
			c.client.Timing.MaxPoll, c.client.Timing.Removal = time.Millisecond, time.Hour
			r := c.run(t.Context(), t, testImage(t), credentials.Doppler{})
			if faults.failed == 0 || faults.requests == 0 {
				t.Error("no fault was injected")
			}
			c.client.HTTP.Base = nil
			active := map[string]bool{}
			list, err := c.client.List(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list {
				switch {
				case s.State == daytona.Active:
					active[s.Name[:strings.Index(s.Name, "-2")]] = true
				case s.State != daytona.Removing && (r.err == nil || !strings.Contains(r.err.Error(), s.Name)):
					t.Errorf("%s is %s, but not in the error", s.Name, s.State)
				}
			}
			for i := range snapshots {
				isReported := r.err != nil && strings.Contains(r.err.Error(), fmt.Sprintf("variant v%d: ", i))
				if active[fmt.Sprintf("agent-v%d", i)] == isReported {
					t.Errorf("variant v%d: active %t, reported as failed %t", i, !isReported, isReported)
				}
			}
			t.Logf("%d of %d active; %d snapshots and %d requests failed; %v", len(active), snapshots, faults.failed,
				faults.requests, r.err)
		})
	}
}
