package daytona

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// A pending snapshot becomes active although Daytona accepted its deletion.
func TestRemovePending(t *testing.T) {
	s := startCloud(t, nil)
	c, ctx := newClient(s, "dtn_all"), t.Context()
	_, ref, _ := push(t, c, image(t))
	s.Fail(cloud.Fault{Snapshot: cloud.SlowInspect})
	created, err := c.Create(ctx, Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, c.Remove(ctx, created), "")
	if list, err := c.List(ctx, ""); err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
	if n := countRequests(s, "DELETE"); n < 2 {
		t.Errorf("the deletion was requested %d times, want again", n)
	}
}

func TestRemoveMissing(t *testing.T) {
	s := startCloud(t, nil)
	c, ctx := newClient(s, "dtn_all"), t.Context()
	one := Snapshot{ID: s.Put(cloud.Snapshot{Organization: "org-1", Name: "one", State: "error"}), Name: "one"}
	err := newClient(s, "dtn_write").Remove(ctx, one)
	checkError(t, err, "delete snapshot one: … use an API key with the delete:snapshots permission")
	if httpclient.Status(err) != http.StatusForbidden {
		t.Error(err)
	}
	s.Fail(cloud.Fault{Method: "DELETE", Hangup: true, ReplaceResponse: true, Times: 1})
	checkError(t, c.Remove(ctx, one), "")
	checkError(t, c.Remove(ctx, one), "")
	if _, found, err := c.Find(ctx, "one"); found || err != nil {
		t.Error(found, err)
	}
}

// fakeSnapshot answers GET with the states, in order, and then with the last one. "" means that the snapshot is gone,
// a number is the status of a failed response, "truncated" a part of one, "hang" no response, and "cancel" ends the
// context. It records the requests.
type fakeSnapshot struct {
	states   []string
	cancel   func()
	refuse   int // status of the response to DELETE; 0 for success
	requests []string
}

func (f *fakeSnapshot) RoundTrip(r *http.Request) (*http.Response, error) {
	f.requests = append(f.requests, r.Method)
	status, body := http.StatusOK, ""
	if r.Method == http.MethodDelete {
		if f.refuse != 0 {
			status, body = f.refuse, `{"message": "no"}`
		}
	} else {
		state := f.states[0]
		if len(f.states) > 1 {
			f.states = f.states[1:]
		}
		body = fmt.Sprintf(`{"id": "1", "name": "app-1", "state": %q}`, state)
		switch state {
		case "":
			state = "404"
		case "truncated":
			body = body[:9]
		case "cancel":
			f.cancel()
			body = `{"id": "1", "name": "app-1", "state": "removing"}`
		case "hang":
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		if _, err := fmt.Sscan(state, &status); err == nil {
			body = `{"message": "no"}`
		}
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func TestRemoveStates(t *testing.T) {

	for _, test := range []struct {
		name     string
		states   []string
		refuse   int
		requests string // the first ones
		want     string
	}{
		{"removed", []string{"removing", "removing", ""}, 0, "DELETE GET GET GET", ""},
		{"pulled", []string{"removing", "pulling", "removing", ""}, 0, "DELETE GET GET DELETE GET GET", ""},
		{"activated twice", []string{"active", "active", "removing", ""}, 0, "DELETE GET DELETE GET DELETE GET GET", ""},
		{"failed", []string{"error", ""}, 0, "DELETE GET DELETE GET", ""},
		{"outage", []string{"503", "removing", "502", ""}, 0, "DELETE GET GET GET GET", ""},
		{
			"never removed", []string{"removing"}, 0, "DELETE GET GET",
			"Daytona is still removing snapshot app-1: it exists after 1m … s (run `action-snapshot list` to check)",
		},
		{
			"always activated", []string{"active"}, 0, "DELETE GET DELETE GET DELETE",
			"delete snapshot app-1: not confirmed by Daytona, and the snapshot was last active: it exists after 1m … (run " +
				"`action-snapshot list`; if it lists the snapshot, run `action-snapshot delete app-1`)",
		},
		{"never read", []string{"503"}, 0, "DELETE GET GET", "app-1: not confirmed by Daytona: read snapshot"},
		{"refused", nil, 403, "DELETE", "delete snapshot app-1: Daytona returned 403"},
		{"response lost", []string{"removing", ""}, 500, "DELETE GET GET", ""},
		{
			"server error", []string{"active"}, 500, "DELETE GET DELETE GET",
			"not confirmed by Daytona, and the snapshot was last active: delete snapshot app-1: Daytona returned 500",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := &fakeSnapshot{states: test.states, refuse: test.refuse}
			c := &Client{Key: "dtn_all", HTTP: httpclient.Config{
				Clock: &fakeclock.Clock{}, Base: server, Policy: httpclient.Policy{Attempts: 1},
			}}
			err := c.Remove(t.Context(), Snapshot{ID: "1", Name: "app-1"})
			checkError(t, err, test.want)
			if got := strings.Join(server.requests, " "); !strings.HasPrefix(got, test.requests) ||
				test.want == "" && got != test.requests {
				t.Errorf("requests %s, want %s", got, test.requests)
			}
			unconfirmed, ok := errors.AsType[*RemovalError](err)
			if ok != (test.want != "" && test.refuse != 403) || ok && unconfirmed.Name != "app-1" {
				t.Errorf("got %#v", err)
			}
		})
	}
}

// A canceled run requests the deletion at once, and then looks as long as the grace allows.
func TestRemoveCanceled(t *testing.T) {
	interrupted := errors.New("interrupted")
	for _, test := range []struct {
		name   string
		states []string
		want   string
	}{
		{"removed in time", []string{"removing", "active", "removing", ""}, ""},
		{
			"not removed in time", []string{"removing", "hang"},
			"Daytona is still removing snapshot app-1: no time left to wait (run `action-snapshot list` to check)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(interrupted)
			server := &fakeSnapshot{states: test.states}
			c := &Client{
				Key: "dtn_all", HTTP: httpclient.Config{Clock: &fakeclock.Clock{}, Base: server},
				Timing: Timing{CleanupGrace: time.Minute},
			}
			if test.want != "" {
				c.Timing.CleanupGrace = time.Second
			}
			checkError(t, c.Remove(ctx, Snapshot{ID: "1", Name: "app-1"}), test.want)
			if server.requests[0] != "DELETE" {
				t.Errorf("requests %s", server.requests)
			}
		})
	}
}

// A snapshot may exist for minutes after its deletion, and may leave the state removing.
func TestWaitUntilRemoved(t *testing.T) {
	interrupted := errors.New("interrupted")
	for _, test := range []struct {
		name   string
		states []string
		state  State // of the returned snapshot
		want   string
	}{
		{"slow", append(slices.Repeat([]string{"removing"}, 100), ""), "", ""},
		{"outage", []string{"503", "removing", "truncated", ""}, "", ""},
		{"failed", []string{"removing", "error"}, Failed, ""},
		{"activated", []string{"removing", "active"}, Active, ""},
		{"canceled", []string{"removing", "cancel"}, "", "interrupted; snapshot app-1 still exists"},
		{"key revoked", []string{"401"}, "", "wait until Daytona has removed snapshot app-1: read snapshot"},
		{"long outage", []string{"removing", "503"}, "", "wait until Daytona has removed snapshot app-1: read snapshot"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			server := &fakeSnapshot{states: test.states, cancel: func() { cancel(interrupted) }}
			c := &Client{Key: "dtn_all", HTTP: httpclient.Config{
				Clock: &fakeclock.Clock{}, Base: server, Policy: httpclient.Policy{Attempts: 1},
			}}
			now, err := c.WaitUntilRemoved(ctx, Snapshot{ID: "1", Name: "app-1"})
			checkError(t, err, test.want)
			if now.State != test.state {
				t.Errorf("got %+v", now)
			}
		})
	}
}
