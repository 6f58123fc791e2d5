package daytona

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/internal/faultproxy"
	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestWaitUntilActive(t *testing.T) {
	old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name     string
		existing *cloud.Snapshot // nil for a snapshot of a pushed image
		fault    cloud.SnapshotFault
		state    State
		states   string
		want     string
		log      string
	}{
		{name: "success", state: Active, states: "pending pulling active"},
		{name: "unknown state", fault: cloud.UnknownState, state: Active, states: "pending pulling snapshotting active"},
		{
			name: "active once, then failed", fault: cloud.FailsAfterActive, state: Failed,
			states: "pending pulling active error",
			want:   "snapshot app-1 is in state error: Timeout processing snapshot on initial runner (try again)",
		},
		{
			name: "image not found", state: Failed, states: "error",
			existing: &cloud.Snapshot{
				State: "error", Reason: "GET http://r/v2/a/manifests/1: MANIFEST_UNKNOWN: manifest unknown",
			},
			want: "MANIFEST_UNKNOWN: manifest unknown (push the image again",
		},
		{
			name: "build failed", state: BuildFailed, states: "build_failed",
			existing: &cloud.Snapshot{State: "build_failed", Log: strings.Repeat("line\n", 30) + "step 2 failed\n"},
			want:     "in state build_failed: step 2 failed (try again; if it persists",
			log:      strings.Repeat("line\n", 19) + "step 2 failed",
		},
		{
			name: "no reason", existing: &cloud.Snapshot{State: "error", Log: "a log"}, state: Failed, states: "error",
			want: "is in state error: Daytona reported no reason (try again",
		},
		{
			name: "deactivated", existing: &cloud.Snapshot{State: "inactive", Created: old}, state: Inactive,
			states: "inactive", want: "was deactivated while waiting",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startCloud(t, func(o *cloud.Options) { o.ReadsPerState = 1 })
			c := newClient(s, "dtn_all")
			var id string
			if test.existing != nil {
				test.existing.Organization, test.existing.Name = "org-1", "app-1"
				id = s.Put(*test.existing)
			} else {
				_, ref, _ := push(t, c, image(t))
				if test.fault != "" {
					s.Fail(cloud.Fault{Snapshot: test.fault})
				}
				created, err := c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
				if err != nil {
					t.Fatal(err)
				}
				id = created.ID
			}
			var states []string
			var last time.Duration
			got, err := c.WaitUntilActive(t.Context(), id, "", func(s Snapshot, since time.Duration) {
				if len(states) == 0 || states[len(states)-1] != string(s.State) {
					states, last = append(states, string(s.State)), 0
					if since != 0 {
						t.Errorf("first report: %s for %s", s.State, since)
					}
				}
				if since < last {
					t.Errorf("got %s for %s, after a report of %s", s.State, since, last)
				}
				last = since
			})
			checkError(t, err, test.want)
			if got.State != test.state || strings.Join(states, " ") != test.states {
				t.Errorf("got %s after %q, want %s after %q", got.State, states, test.state, test.states)
			}
			failure, ok := errors.AsType[*SnapshotError](err)
			if isFailure := test.state == Failed || test.state == BuildFailed; ok != isFailure {
				t.Errorf("got %T", err)
			}
			if ok && (failure.Log != test.log || failure.Snapshot.State != test.state) {
				t.Errorf("got %+v, want the log %q", failure, test.log)
			}
		})
	}
}

func TestWaitUntilActiveFailures(t *testing.T) {
	s := startCloud(t, nil)
	c := newClient(s, "dtn_all")
	_, ref, _ := push(t, c, image(t))
	s.Fail(cloud.Fault{Snapshot: cloud.Stuck})
	created, err := c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	timeout := errors.New("timed out")
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		polls := 0
		got, err := c.WaitUntilActive(ctx, created.ID, "", func(Snapshot, time.Duration) {
			if polls++; polls == 3 {
				cancel(timeout)
			}
		})
		if !errors.Is(err, timeout) || got.State != Pending {
			t.Errorf("got %+v, %v", got, err)
		}
		checkError(t, err, "timed out; snapshot app-1 has been pending for … s (see the Snapshots page")
	})
	t.Run("context, before the first response", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(timeout)
		if _, err := c.WaitUntilActive(ctx, created.ID, "", nil); err != timeout {
			t.Error(err)
		}
	})
	t.Run("missing", func(t *testing.T) {
		s.Fail(cloud.Fault{Method: "GET", Status: 404, Message: "no", Times: 2})
		ctx, cancel := context.WithCancelCause(t.Context())
		got, err := c.WaitUntilActive(ctx, created.ID, "", func(Snapshot, time.Duration) { cancel(timeout) })
		if !errors.Is(err, timeout) || got.State != Pending {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("key revoked", func(t *testing.T) {
		s.Fail(cloud.Fault{Status: 401, Message: "Invalid credentials"})
		defer s.ClearFaults()
		_, err := c.WaitUntilActive(t.Context(), created.ID, "", nil)
		if httpclient.Status(err) != http.StatusUnauthorized || !errors.As(err, new(*UnconfirmedError)) {
			t.Error(err)
		}
	})
	t.Run("deleted, after transient errors", func(t *testing.T) {
		s.Fail(cloud.Fault{Status: 503, Message: "down", Times: 9})
		s.Fail(cloud.Fault{Status: 429, Message: "slow", Times: 9})
		_, err := c.WaitUntilActive(t.Context(), created.ID, "", func(Snapshot, time.Duration) {
			checkError(t, c.requestRemoval(t.Context(), created), "")
		})
		checkError(t, err, "cannot confirm that snapshot app-1 is active (last state: … Daytona returned 404 Not Found")
	})
}

func TestWaitUntilActiveOutages(t *testing.T) {
	type step struct {
		after  time.Duration // since the previous request
		status int           // of the response; 0 for the stand-in's response
	}
	const down = http.StatusServiceUnavailable
	for _, test := range []struct {
		name   string
		steps  []step
		status int // of the error; 0 if it still waits after the steps
	}{
		{"long outage", []step{{0, 0}, {time.Minute, down}, {90 * time.Second, down}}, down},
		{"outage at the start", []step{{time.Minute, down}, {90 * time.Second, down}}, down},
		{"two short outages", []step{{0, 0}, {90 * time.Second, down}, {0, 0}, {90 * time.Second, down}, {0, 0}}, 0},
		{"short outage", []step{{0, 0}, {time.Minute, down}, {30 * time.Second, down}, {0, 0}}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startCloud(t, nil)
			id := s.Put(cloud.Snapshot{Organization: "org-1", Name: "app-1", State: "pending"})
			clock := &fakeclock.Clock{}
			ctx, cancel := context.WithCancelCause(t.Context())
			finished := errors.New("finished")
			n := 0
			c := newClient(s, "dtn_all")
			c.HTTP = httpclient.Config{
				Clock: clock, Policy: httpclient.Policy{Attempts: 1},
				Base: roundTripper(func(r *http.Request) (*http.Response, error) {
					if n == len(test.steps) {
						cancel(finished)
						return nil, finished
					}
					step := test.steps[n]
					n++
					clock.Advance(step.after)
					if step.status == 0 {
						return http.DefaultTransport.RoundTrip(r)
					}
					body := io.NopCloser(strings.NewReader(`{"message":"down"}`))
					return &http.Response{StatusCode: step.status, Body: body}, nil
				}),
			}
			_, err := c.WaitUntilActive(ctx, id, "", nil)
			if httpclient.Status(err) != test.status || errors.Is(err, finished) != (test.status == 0) || n != len(test.steps) {
				t.Errorf("got %v after %d requests", err, n)
			}
		})
	}
}

// WaitUntilActive continues after a response that does not show the state, because the snapshot may be active.
func TestWaitUntilActiveUnusableResponses(t *testing.T) {
	s := startCloud(t, nil)
	digest := "sha256:" + strings.Repeat("ab", 32)
	id := s.Put(cloud.Snapshot{Organization: "org-1", Name: "app-1", Digest: digest})
	proxy, err := faultproxy.Start(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	for _, fault := range []faultproxy.Fault{
		faultproxy.Reset(), faultproxy.ResetAfterHeaders(), faultproxy.CutBody(), faultproxy.Truncated(),
		faultproxy.WrongTypes(), faultproxy.Empty(200), faultproxy.WebPage(200), faultproxy.WebPage(404),
		faultproxy.Empty(429), faultproxy.Status(500), faultproxy.Huge(100<<20, nil),
	} {
		t.Run(fault.Name, func(t *testing.T) {
			c := newClient(s, "dtn_all")
			c.URL, c.HTTP.Clock = proxy.URL, &fakeclock.Clock{}
			c.Timing.MaxPoll = 20 * time.Second
			proxy.Fail(faultproxy.Rule{Path: id, Times: 5, Fault: fault})
			if got, err := c.WaitUntilActive(t.Context(), id, digest, nil); err != nil || got.State != Active {
				t.Errorf("five times: %+v, %v", got, err)
			}
			proxy.Fail(faultproxy.Rule{Path: id, Skip: 1, Fault: fault})
			defer proxy.Clear()
			_, err := c.WaitUntilActive(t.Context(), id, digest, nil)
			unconfirmed, ok := errors.AsType[*UnconfirmedError](err)
			if !ok || unconfirmed.State != Active || unconfirmed.Name != "app-1" {
				t.Errorf("always: %v", err)
			}
		})
	}
}

// Another robot of the organization can replace the image between the push and the creation.
func TestWaitUntilActiveDigest(t *testing.T) {
	s := startCloud(t, nil)
	c := newClient(s, "dtn_all")
	clock := &fakeclock.Clock{OnSleep: s.Tick}
	c.HTTP.Clock = clock
	_, _, ours := push(t, c, image(t))
	_, ref, theirs := push(t, c, image(t)) // to the same tag
	created, err := c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.WaitUntilActive(t.Context(), created.ID, ours, nil)
	checkError(t, err, "snapshot app-1 has the image "+theirs+" instead of "+ours)
	if wrong, ok := errors.AsType[*DigestError](err); !ok || wrong.Snapshot.State != Active || IsTransient(err) {
		t.Errorf("got %#v", err)
	}
	slept := len(clock.Slept())
	active, err := c.WaitUntilActive(t.Context(), created.ID, theirs, nil)
	if err != nil || active.Digest != theirs {
		t.Errorf("got %+v, %v", active, err)
	}
	if len(clock.Slept()) != slept+1 {
		t.Error("no wait between the two polls of an active snapshot")
	}
}

// Only the reference under which Daytona stores the image has the digest that it read from the registry.
func TestDigest(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	for _, test := range []struct{ name, dto, want string }{
		{"stored", `"ref": "h:1/p/daytona-` + digest + `:daytona"`, "sha256:" + digest},
		{"not inspected", `"ref": null`, ""},
		{"absent", `"imageName": "h/p/a@sha256:` + digest + `"`, ""},
		{"another reference", `"ref": "h/p/a:` + digest + `"`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Client{Key: "dtn_all"}
			c.HTTP.Base = answers(map[string]string{
				"/snapshots/1": `{"id": "1", "name": "a", "state": "active", ` + test.dto + `}`,
			})
			if got, err := c.Get(t.Context(), "1"); err != nil || got.Digest != test.want {
				t.Errorf("got %q, %v, want %q", got.Digest, err, test.want)
			}
		})
	}
}

func TestCallTimeout(t *testing.T) {
	slow := call{timeout: time.Minute}
	for _, test := range []struct {
		policy time.Duration
		spec   call
		want   time.Duration
	}{
		{0, call{}, 0}, // the default of httpclient
		{0, slow, time.Minute},
		{time.Second, slow, time.Second},
	} {
		c := &Client{HTTP: httpclient.Config{Policy: httpclient.Policy{Timeout: test.policy}}}
		if got := c.config(test.spec).Policy.Timeout; got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}
