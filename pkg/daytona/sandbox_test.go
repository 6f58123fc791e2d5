package daytona

import (
	"context"
	"errors"
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

// startSandboxes starts a stand-in with a snapshot whose sandboxes are simulated, and a key that may create them. limit
// is how long Daytona waits for a sandbox.
func startSandboxes(t *testing.T, limit time.Duration) (*cloud.Server, *Client) {
	t.Helper()
	s := startCloud(t, func(o *cloud.Options) {
		o.StartTimeout, o.Simulation = limit, &cloud.Simulation{}
		o.Organizations[0].Keys = append(o.Organizations[0].Keys, cloud.Key{
			Name: "boxes", Value: "dtn_boxes", Permissions: []string{
				WriteSnapshots, DeleteSnapshots, WriteSandboxes, DeleteSandboxes,
			},
		})
	})
	c := newClient(s, "dtn_boxes")
	_, ref, _ := push(t, c, image(t))
	created, err := c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
	if err == nil {
		_, err = c.WaitUntilActive(t.Context(), created.ID, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// Whatever happens to the responses, there is one sandbox, which the caller gets, or none.
func TestCreateSandbox(t *testing.T) {
	created := func(f cloud.Fault) cloud.Fault {
		f.Method, f.Path, f.Times, f.ReplaceResponse = "POST", "/sandbox", 1, true
		return f
	}
	refused := func(f cloud.Fault) cloud.Fault {
		f.Method, f.Path = "POST", "/sandbox"
		return f
	}
	for _, test := range []struct {
		name   string
		key    string
		fault  cloud.Fault
		posts  int
		want   string // of CreateSandbox
		status int
	}{
		{name: "created", posts: 1},
		{name: "response lost", fault: created(cloud.Fault{Hangup: true}), posts: 1},
		{name: "no response", fault: created(cloud.Fault{NoResponse: true}), posts: 1},
		{name: "error after it was created", fault: created(cloud.Fault{Status: 502, Message: "no"}), posts: 1},
		{name: "web page after it was created", fault: created(cloud.Fault{Status: 200, Body: "<html>"}), posts: 1},
		{name: "request lost", fault: cloud.Fault{Method: "POST", Path: "/sandbox", Times: 1, Hangup: true}, posts: 2},
		{
			name: "rate limit", posts: 2,
			fault: cloud.Fault{
				Method: "POST", Path: "/sandbox", Times: 1, Status: 429, Message: "slow", Header: map[string]string{
					"Retry-After": "1",
				},
			},
		},
		{
			name: "outage", fault: refused(cloud.Fault{Status: 503, Message: "no"}), posts: 4, want: "returned 503", status: 503,
		},
		{
			name: "quota", fault: refused(
				cloud.Fault{Status: 400, Message: "Total disk limit exceeded. Maximum allowed: 9GiB."},
			),
			posts: 1, want: "create a sandbox of snapshot app-1: … (the organization's sandboxes use nearly all", status: 400,
		},
		{name: "wrong key", key: "dtn_none", posts: 1, want: "returned 401", status: 401},
		{
			name: "missing permission", key: "dtn_all", posts: 1, status: 403,
			want: "use an API key with the write:sandboxes permission",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c := startSandboxes(t, time.Minute)
			if test.key != "" {
				c.Key = test.key
			}
			if test.fault.Method != "" {
				s.Fail(test.fault)
			}
			c.HTTP.Policy.Timeout = time.Second
			before := countRequests(s, "POST")
			box, err := c.CreateSandbox(t.Context(), SandboxRequest{
				Snapshot: "app-1", Region: "us", AutoStop: 5, Labels: map[string]string{"a": "b"},
			})
			checkError(t, err, test.want)
			if httpclient.Status(err) != test.status || countRequests(s, "POST")-before != test.posts {
				t.Errorf("status %d, %d requests", httpclient.Status(err), countRequests(s, "POST")-before)
			}
			s.ClearFaults()
			list, listErr := newClient(s, "dtn_boxes").ListSandboxes(t.Context(), map[string]string{"a": "b"})
			isOnly := len(list) == 1 && err == nil && list[0].ID == box.ID && box.Snapshot == "app-1"
			if listErr != nil || !isOnly && (err == nil || len(list) != 0) {
				t.Errorf("got %+v, %v, the sandboxes are %+v", box, listErr, list)
			}
			if err != nil {
				return
			}
			if box, err = c.WaitUntilStarted(t.Context(), box.ID); err != nil || box.State != SandboxStarted {
				t.Errorf("got %+v, %v", box, err)
			}
			if others, err := c.ListSandboxes(t.Context(), map[string]string{"a": "other"}); err != nil || len(others) != 0 {
				t.Error(others, err)
			}
			checkError(t, c.DeleteSandbox(t.Context(), box.ID), "")
			checkError(t, c.DeleteSandbox(t.Context(), box.ID), "") // being deleted
			s.Tick()
			checkError(t, c.DeleteSandbox(t.Context(), box.ID), "") // gone
		})
	}
}

// A sandbox that fails while Daytona waits for it exists, and has to be deleted.
func TestCreateFailedSandbox(t *testing.T) {
	s, c := startSandboxes(t, time.Minute)
	s.Fail(cloud.Fault{Sandbox: cloud.RunnerFails, Times: 1})
	box, err := c.CreateSandbox(t.Context(), SandboxRequest{Snapshot: "app-1"})
	if err != nil || box.ID == "" {
		t.Fatal(box, err)
	}
	_, err = c.WaitUntilStarted(t.Context(), box.ID)
	checkError(t, err, "of snapshot app-1 is in state error: Request failed with status code 502 (try again)")
	if failed := (*SandboxError)(nil); !errors.As(err, &failed) || !IsTransient(err) {
		t.Errorf("got %#v", err)
	}
	checkError(t, c.DeleteSandbox(t.Context(), box.ID), "")
}

// A canceled run deletes the sandbox, or reports it if Daytona does not accept that in time.
func TestCreateSandboxCanceled(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault cloud.SandboxFault
		limit time.Duration
		want  string
	}{
		{"started", "", time.Minute, "interrupted"},
		{
			"starting", cloud.SlowStart, time.Millisecond,
			"interrupted; sandbox sandbox-actions- … may still exist: … state change in progress",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c := startSandboxes(t, test.limit)
			if test.fault != "" {
				s.Fail(cloud.Fault{Sandbox: test.fault})
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			c.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				response, err := http.DefaultTransport.RoundTrip(r)
				if r.Method == http.MethodPost {
					cancel(errors.New("interrupted"))
				}
				return response, err
			})
			c.Timing.Removal, c.Timing.CleanupGrace = time.Minute, time.Hour
			_, err := c.CreateSandbox(ctx, SandboxRequest{Snapshot: "app-1", Labels: map[string]string{"a": "b"}})
			checkError(t, err, test.want)
			left := (*LeftoverError)(nil)
			if errors.As(err, &left) != (test.fault != "") {
				t.Errorf("got %#v", err)
			}
			s.Tick()
			list, err := newClient(s, "dtn_boxes").ListSandboxes(t.Context(), map[string]string{"a": "b"})
			if err != nil || (len(list) > 0) != (test.fault != "") {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
}

func TestWaitUntilStarted(t *testing.T) {
	for _, test := range []struct {
		name   string
		states []string
		want   string
	}{
		{"slow", append(slices.Repeat([]string{"creating", "pulling_snapshot", "new state"}, 30), "started"), ""},
		{"outage", []string{"503", "creating", "truncated", "started"}, ""},
		{"not found at first", []string{"404", "started"}, ""},
		{"never found", []string{"404"}, "read sandbox 1: Daytona returned 404"},
		{"failed", []string{"creating", "error"}, "is in state error: Daytona reported no reason (check the image"},
		{"stopped", []string{"stopped"}, "is in state stopped"},
		{"deleted", []string{"destroying"}, "is in state destroying"},
		{"key revoked", []string{"401"}, "read sandbox 1: Daytona returned 401"},
		{"long outage", []string{"creating", "503"}, "read sandbox 1: Daytona returned 503"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := &fakeSnapshot{states: test.states}
			c := &Client{Key: "dtn_all", HTTP: httpclient.Config{
				Clock: &fakeclock.Clock{}, Base: server, Policy: httpclient.Policy{Attempts: 1},
			}}
			box, err := c.WaitUntilStarted(t.Context(), "1")
			checkError(t, err, test.want)
			if err == nil && box.State != SandboxStarted {
				t.Errorf("got %+v", box)
			}
		})
	}
}

// The toolbox is on another host, which must be known. Responses of a sandbox are not trusted.
func TestToolboxResponses(t *testing.T) {
	box := Sandbox{ID: "1", toolbox: "https://proxy.example/toolbox"}
	for _, test := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"dead sandbox", `{"message": "no IP address found. Is the Sandbox started?"}`, 400, "no IP address found"},
		{"gateway", "<html>", 502, "the response is a web page"},
		{"garbage", "x", 200, "the response is not JSON"},
		{"truncated", "[", 200, "no usable response from Daytona at https://proxy.example/toolbox: the body is incomplete"},
		{"other format", "[]", 200, "the response is not in the API's format"},
		{"other key", `{"message": "authentication failed"}`, 401, "authentication failed"},
		{"too large", strings.Repeat(" ", 2000), 200, "the response is larger than 1000 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Client{Key: "dtn_all", HTTP: httpclient.Config{
				Clock: &fakeclock.Clock{}, Policy: httpclient.Policy{Attempts: 1, MaxBody: 1000},
				Base: roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Host != "proxy.example" || r.Header.Get("Authorization") != "Bearer dtn_all" {
						t.Errorf("got a request to %s", r.URL)
					}
					response, err := jsonResponse(test.status, "")(r)
					response.Body = http.NoBody
					if test.body != "" {
						response.Body = io.NopCloser(strings.NewReader(test.body))
					}
					return response, err
				}),
			}}
			_, err := c.Execute(t.Context(), box, Command{Line: "true"})
			checkError(t, err, "run a command in sandbox 1: … "+test.want)
			_, _, err = c.Entrypoint(t.Context(), box)
			checkError(t, err, "read the state of the entry point in sandbox 1: … "+test.want)
			_, _, err = c.FileInfo(t.Context(), box, "/x")
			checkError(t, err, "read information about /x in sandbox 1: … "+test.want)
		})
	}
	_, err := (&Client{Key: "dtn_all"}).Execute(t.Context(), Sandbox{ID: "1"}, Command{Line: "true"})
	checkError(t, err, "Daytona returned no toolboxProxyUrl")
}
