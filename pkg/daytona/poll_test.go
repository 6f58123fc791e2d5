package daytona

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/org/sandbox-actions/internal/fakeclock"
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
		{name: "unknown state", fault: cloud.UnknownState, state: Active, states: "pending pulling propagating active"},
		{
			name: "active once, then failed", fault: cloud.FailsAfterActive, state: Failed,
			states: "pending pulling active error",
			want:   "snapshot app-1 is in state error: Timeout processing snapshot on initial runner (try again, or make",
		},
		{
			name: "image not found", state: Failed, states: "error",
			existing: &cloud.Snapshot{
				State: "error", Reason: "GET http://r/v2/a/manifests/1: MANIFEST_UNKNOWN: manifest unknown",
			},
			want: "MANIFEST_UNKNOWN: manifest unknown (the image is not in the registry",
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
				_, ref := push(t, c, image(t))
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
			got, err := c.WaitUntilActive(t.Context(), id, func(s Snapshot, since time.Duration) {
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

// The reasons are messages from Daytona's runners, Docker and registries.
func TestHints(t *testing.T) {
	for _, test := range []struct{ reason, want string }{
		{"Snapshot size (21.50GB) exceeds maximum allowed size of 20GB", "make the image smaller, or request"},
		{"image sha256:12 architecture (arm64) is not x64 compatible", "build the image for linux/amd64"},
		{"no matching manifest for linux/amd64 in the manifest list entries", "build the image for linux/amd64"},
		{"failed to register layer: write /usr/lib/x: no space left on device", "Daytona's runner is out of disk space"},
		{"Timeout while pulling snapshot to runner", "try again, or make the image smaller"},
		{"container exited with code 3 at once: nothing to do", "use an entrypoint that keeps running"},
		{`exec: "slep": executable file not found in $PATH`, "correct the entrypoint"},
		{"exec /x: no such file or directory", "correct the entrypoint"},
		{"BLOB_UNKNOWN: blob unknown to registry", "a layer is missing from the registry"},
		{"MANIFEST_UNKNOWN: manifest unknown", "the image is not in the registry"},
		{"artifact sbox/app:1 not found", "the image is not in the registry"},
		{"requested access denied", "Daytona cannot read the image"},
		{"UNAUTHORIZED: authentication required", "Daytona cannot read the image"},
		{"open /x: permission denied", "try again; if it persists"},
	} {
		err := &SnapshotError{Snapshot: Snapshot{Name: "app-1", State: Failed, Reason: test.reason}}
		checkError(t, err, "snapshot app-1 is in state error: "+test.reason+" ("+test.want)
	}
	err := &SnapshotError{Snapshot: Snapshot{Name: "app-1", State: Failed, Reason: "a\nb\x1b" + strings.Repeat("c", 600)}}
	checkError(t, err, `a b\u001bccc … c…`)
	if len(err.Error()) > 800 {
		t.Errorf("got %d bytes", len(err.Error()))
	}
}

func TestWaitUntilActiveFailures(t *testing.T) {
	s := startCloud(t, nil)
	c := newClient(s, "dtn_all")
	_, ref := push(t, c, image(t))
	s.Fail(cloud.Fault{Snapshot: cloud.Stuck})
	created, err := c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	timeout := errors.New("timed out")
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		polls := 0
		got, err := c.WaitUntilActive(ctx, created.ID, func(Snapshot, time.Duration) {
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
		if _, err := c.WaitUntilActive(ctx, created.ID, nil); err != timeout {
			t.Error(err)
		}
	})
	t.Run("key revoked", func(t *testing.T) {
		s.Fail(cloud.Fault{Status: 401, Message: "Invalid credentials"})
		defer s.ClearFaults()
		_, err := c.WaitUntilActive(t.Context(), created.ID, nil)
		if httpclient.Status(err) != http.StatusUnauthorized {
			t.Error(err)
		}
	})
	t.Run("deleted, after transient errors", func(t *testing.T) {
		s.Fail(cloud.Fault{Status: 503, Message: "down", Times: 9})
		s.Fail(cloud.Fault{Status: 429, Message: "slow", Times: 9})
		_, err := c.WaitUntilActive(t.Context(), created.ID, func(Snapshot, time.Duration) {
			checkError(t, c.Delete(t.Context(), created.ID), "")
		})
		checkError(t, err, "snapshot app-1 was deleted while waiting")
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
			_, err := c.WaitUntilActive(ctx, id, nil)
			if httpclient.Status(err) != test.status || errors.Is(err, finished) != (test.status == 0) || n != len(test.steps) {
				t.Errorf("got %v after %d requests", err, n)
			}
		})
	}
}

func TestWaitUntilRemoved(t *testing.T) {
	s := startCloud(t, func(o *cloud.Options) { o.ReadsPerState = 2 })
	c, ctx := newClient(s, "dtn_all"), t.Context()
	id := s.Put(cloud.Snapshot{Organization: "org-1", Name: "kept", State: "error"})
	checkError(t, c.WaitUntilRemoved(ctx, id), "snapshot kept was deleted, but is now error")
	checkError(t, c.Delete(ctx, id), "")
	ended, cancel := context.WithCancelCause(ctx)
	interrupted := errors.New("interrupted")
	c.HTTP.Clock = &fakeclock.Clock{OnSleep: func() { cancel(interrupted) }}
	err := c.WaitUntilRemoved(ended, id)
	if checkError(t, err, "still removing snapshot kept"); !errors.Is(err, interrupted) {
		t.Error(err)
	}
	checkError(t, c.WaitUntilRemoved(ctx, id), "")
	s.Fail(cloud.Fault{Status: 401, Message: "no"})
	if err := c.WaitUntilRemoved(ctx, id); httpclient.Status(err) != http.StatusUnauthorized {
		t.Error(err)
	}
}

func TestWaitForImage(t *testing.T) {
	s := startCloud(t, func(o *cloud.Options) { o.ReadsUntilVisible = 3 })
	c := newClient(s, "dtn_all")
	access, ref := push(t, c, image(t))
	digest, err := c.WaitForImage(t.Context(), access, ref)
	if err != nil || !strings.HasSuffix(ref, "@"+digest) {
		t.Errorf("got %q, %v, want the digest of %s", digest, err, ref)
	}
	repository, _, _ := strings.Cut(ref, "@")
	clock := &fakeclock.Clock{}
	c.HTTP.Clock = clock
	_, err = c.WaitForImage(t.Context(), access, repository+":none")
	checkError(t, err, "find "+repository+":none in Daytona's registry: not visible 2m0s after the push (run again)")
	if missing, ok := errors.AsType[*transport.Error](err); !ok || missing.StatusCode != http.StatusNotFound {
		t.Errorf("cause: %v", err)
	}
	if waited := clock.Now().Sub(fakeclock.Start); waited < 2*time.Minute || waited > 3*time.Minute {
		t.Errorf("waited %s", waited)
	}
	_, err = c.WaitForImage(t.Context(), access, "A B")
	checkError(t, err, `invalid image reference "A B"`)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	c.HTTP.Clock = &fakeclock.Clock{OnSleep: func() { cancel(interrupted) }}
	if _, err = c.WaitForImage(ctx, access, repository+":none"); err != interrupted {
		t.Errorf("got %v, want the cause", err)
	}
	access.Secret = "wrong"
	_, err = c.WaitForImage(t.Context(), access, ref)
	checkError(t, err, "access has expired (run again)")
	if httpclient.Status(err) != http.StatusUnauthorized {
		t.Error(err)
	}
}

func TestWaitForImageFaults(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, test := range []struct {
		name   string
		faults int64 // number of failing requests for the manifest
		status int   // of those responses; 0 for no response
		found  bool
		want   int // status of the error
	}{
		{name: "found", found: true},
		{name: "no response once", faults: 1, found: true},
		{name: "no response", faults: 1000},
		{name: "server error once", faults: 1, status: 500, found: true},
		{name: "not found once", faults: 1, status: 404, found: true},
		{name: "unauthorized once", faults: 1, status: 401, want: 401},
		{name: "forbidden once", faults: 1, status: 403, want: 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			var n atomic.Int64
			registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !strings.Contains(r.URL.Path, "/manifests/"):
				case n.Add(1) > test.faults:
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					w.Header().Set("Docker-Content-Digest", digest)
					w.Header().Set("Content-Length", "7")
				case test.status == 0:
					<-r.Context().Done()
				default:
					w.WriteHeader(test.status)
				}
			}))
			defer registry.Close()
			c := &Client{HTTP: httpclient.Config{
				Clock: &fakeclock.Clock{}, Policy: httpclient.Policy{Timeout: 50 * time.Millisecond, Attempts: 1},
			}, Timing: Timing{ImageVisible: time.Second}}
			image := fmt.Sprintf("%s/p/app:1", strings.TrimPrefix(registry.URL, "http://"))
			got, err := c.WaitForImage(t.Context(), PushAccess{User: "u", Secret: "s"}, image)
			switch {
			case test.found && (err != nil || got != digest), !test.found && err == nil:
				t.Errorf("got %q, %v", got, err)
			case httpclient.Status(err) != test.want:
				t.Errorf("got %v, want status %d", err, test.want)
			case !test.found && test.want == 0 && !errors.Is(err, context.DeadlineExceeded):
				t.Errorf("got %v, want a timeout", err)
			}
		})
	}
}
