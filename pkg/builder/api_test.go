package builder

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// wantError describes the expected *[httpclient.APIError] of a call, and how often the call is sent.
type wantError struct {
	calls   int
	status  int    // 0: no response
	format  bool   // the response is not from Depot
	message string // a substring
	hint    string // a substring
}

func checkAPIError(t *testing.T, err error, op string, want wantError) {
	t.Helper()
	got, ok := errors.AsType[*httpclient.APIError](err)
	if !ok {
		t.Fatalf("got %v, want an APIError", err)
	}
	if got.Service != "Depot" || got.Op != op || got.Status != want.status ||
		errors.Is(err, httpclient.ErrFormat) != want.format ||
		!strings.Contains(got.Message, want.message) || !strings.Contains(got.Hint, want.hint) {
		t.Errorf("got %+v, want op %q and %+v", got, op, want)
	}
}

// checkCalls checks how often a method was called under a fault. If the server does not respond, it may have recorded
// fewer calls, because it had no time to read a request: then the error's message counts the attempts.
func checkCalls(t *testing.T, s *depotapi.Server, method string, want int, fault depotapi.Fault) {
	t.Helper()
	if n := calls(s, method, nil); n > want || n < want && !fault.NoResponse {
		t.Errorf("got %d calls of %s, want %d", n, method, want)
	}
}

func TestAPIErrors(t *testing.T) {
	const (
		create = `create a build in project "sandbox"`
		get    = "get a machine for linux/amd64"

		hintToken   = "depot_token or DEPOT_TOKEN"
		hintTrust   = "trust relationships"
		hintProject = "check the project ID"
		hintLimits  = "organization's limits"
		hintLater   = "try again later"
		hintURL     = "check DEPOT_API_URL"
		hintNetwork = "check the network"
		hintBuild   = "check the build's page"
	)
	protobuf := map[string]string{"Content-Type": "application/proto"}
	for _, test := range []struct {
		name, token, project string
		fault                depotapi.Fault // for CreateBuild unless it sets Method
		op                   string         // "": create
		want                 wantError
	}{
		{
			name: "unknown token", token: "unknown-token",
			want: wantError{1, 401, false, "invalid API token", hintToken},
		},
		{
			name: "token of another project", token: "other-token",
			want: wantError{1, 403, false, "this token may not use project sandbox", hintTrust},
		},
		{
			name: "unknown project", project: "absent", op: `create a build in project "absent"`,
			want: wantError{1, 404, false, "project absent not found", hintProject},
		},
		{
			name: "conflict", fault: depotapi.Fault{Code: connect.CodeAlreadyExists, Message: "busy"},
			want: wantError{1, 409, false, "busy", hintBuild},
		},
		{
			name: "429", fault: depotapi.Fault{Code: connect.CodeResourceExhausted, Message: "slow down"},
			want: wantError{5, 429, false, "slow down", hintLimits},
		},
		{
			name: "429 of a proxy", fault: depotapi.Fault{Status: 429, Body: "<html>"},
			want: wantError{5, 429, true, "web page", hintLimits},
		},
		{
			name: "503", fault: depotapi.Fault{Code: connect.CodeUnavailable, Message: "maintenance"},
			want: wantError{5, 503, false, "maintenance", hintLater},
		},
		{
			name: "500 with a message of two lines", fault: depotapi.Fault{Code: connect.CodeInternal, Message: "oh\nno"},
			want: wantError{5, 500, false, "oh no", hintLater},
		},
		{
			name: "502 of a proxy", fault: depotapi.Fault{Status: 502, Body: "<html>"},
			want: wantError{5, 502, true, "web page", hintLater},
		},
		{
			name: "504 of a proxy, after which a build may exist", fault: depotapi.Fault{Status: 504, Body: "<html>"},
			want: wantError{1, 504, true, "web page", hintLater},
		},
		{
			name: "504 of a proxy for an idempotent call", op: get,
			fault: depotapi.Fault{Method: "GetBuildKitConnection", Status: 504},
			want:  wantError{5, 504, true, "empty", hintLater},
		},
		{
			name: "web page", fault: depotapi.Fault{Status: 200, Body: "<html>Sign in to the Wi-Fi</html>"},
			want: wantError{1, 200, true, "web page", hintURL},
		},
		{
			name: "401 of a proxy", fault: depotapi.Fault{Status: 401, Body: "<html>"},
			want: wantError{1, 401, true, "web page", hintURL},
		},
		{
			name: "403 of a proxy", fault: depotapi.Fault{Status: 403, Body: "<html>"},
			want: wantError{1, 403, true, "web page", hintURL},
		},
		{
			name: "404 of another server", fault: depotapi.Fault{Status: 404, Body: "404 page not found"},
			want: wantError{1, 404, true, "not JSON", hintURL},
		},
		{
			name: "JSON of another API", fault: depotapi.Fault{
				Status: 404, Header: map[string]string{"Content-Type": "application/json"}, Body: `{"message":"Not Found"}`,
			},
			want: wantError{1, 404, true, "not in the API's format", hintURL},
		},
		{
			name: "unimplemented method", fault: depotapi.Fault{Code: connect.CodeUnimplemented, Message: "no such call"},
			want: wantError{1, 501, false, "no such call", hintURL},
		},
		{
			name: "empty response", fault: depotapi.Fault{Status: 200, Header: protobuf},
			want: wantError{1, 200, true, "no build ID or token", hintURL},
		},
		{
			name: "no response", fault: depotapi.Fault{NoResponse: true},
			want: wantError{1, 0, false, "no response within 100ms", hintNetwork},
		},
		{
			name: "no response to an idempotent call", op: get,
			fault: depotapi.Fault{Method: "GetBuildKitConnection", NoResponse: true},
			want:  wantError{5, 0, false, "after 5 attempts", hintNetwork},
		},
		{
			name: "broken connection, after which a build may exist", fault: depotapi.Fault{Hangup: true},
			want: wantError{1, 0, false, "EOF", hintNetwork},
		},
		{
			name: "broken connection of an idempotent call", op: get,
			fault: depotapi.Fault{Method: "GetBuildKitConnection", Hangup: true},
			want:  wantError{5, 0, false, "after 5 attempts", hintNetwork},
		},
		{
			name: "unknown build token", op: get,
			fault: depotapi.Fault{Method: "GetBuildKitConnection", Code: connect.CodeUnauthenticated, Message: "unknown"},
			want:  wantError{1, 401, false, "unknown", hintToken},
		},
		{
			name: "neither active nor pending", op: get,
			fault: depotapi.Fault{Method: "GetBuildKitConnection", Status: 200, Header: protobuf},
			want:  wantError{1, 200, true, "neither", hintURL},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t)
			method := test.fault.Method
			if method == "" {
				method, test.fault.Method = "CreateBuild", "CreateBuild"
			}
			if !reflect.DeepEqual(test.fault, depotapi.Fault{Method: "CreateBuild"}) {
				s.Fail(test.fault)
			}
			if test.token == "" {
				test.token = "project-token"
			}
			j := &journal{}
			d := depot(s, j, test.token)
			if test.project != "" {
				d.Project = test.project
			}
			var err error
			if method == "CreateBuild" {
				if test.fault.NoResponse {
					d.Policy.CreateTimeout = 100 * time.Millisecond
				}
				_, err = d.Acquire(t.Context(), Request{Platforms: []string{"linux/amd64"}})
			} else {
				lease := acquire(t, d, Request{Platforms: []string{"linux/amd64"}})
				if test.fault.NoResponse {
					d.Policy.HTTP.Timeout = 100 * time.Millisecond
				}
				err = waitForMachine(t, d, lease, j.secrets()[1])
			}
			if test.op == "" {
				test.op = create
			}
			checkAPIError(t, err, test.op, test.want)
			checkMessage(t, err, append(j.secrets(), test.token)...)
			checkCalls(t, s, method, test.want.calls, test.fault)
		})
	}
}

// The user cannot replace the token of a build.
func TestExpiredBuildToken(t *testing.T) {
	s := startDepot(t)
	lease := acquire(t, depot(s, &journal{}, "project-token"), Request{})
	s.Fail(depotapi.Fault{Code: connect.CodeUnauthenticated, Message: "invalid API token"})
	_, err := lease.Machine(t.Context(), "linux/amd64")
	if err == nil || !strings.HasSuffix(err.Error(), "(the token of the build is no longer valid: run again)") {
		t.Errorf("got %v", err)
	}
}

func TestAPIErrorMessage(t *testing.T) {
	s := startDepot(t)
	_, err := depot(s, &journal{}, "other-token").Acquire(t.Context(), Request{})
	const want = `create a build in project "sandbox": Depot returned 403 Forbidden: ` +
		`this token may not use project sandbox (add the repository to the project's ` +
		`trust relationships at https://depot.dev, or use a token of this project or of its organization)`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestNoProject(t *testing.T) {
	s := startDepot(t)
	d := depot(s, &journal{}, "organization-token")
	d.Project = ""
	if _, err := d.Acquire(t.Context(), Request{}); !errors.Is(err, ErrNoProject) {
		t.Errorf("organization token: got %v, want ErrNoProject", err)
	}
	d = depot(s, &journal{}, "project-token")
	d.Project = ""
	if lease := acquire(t, d, Request{}); lease.ProjectID != "sandbox" {
		t.Errorf("project token: got project %q, want sandbox", lease.ProjectID)
	}
}

// Depot rejects OIDC tokens that are not valid for the project.
func TestRejectedOIDCTokens(t *testing.T) {
	actions, err := github.Start(t.Context(), github.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = actions.Close() })
	mint := func(audience string, change func(map[string]any)) string {
		token, err := actions.Mint(audience, change)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	forged, err := actions.Forge(credentials.DepotAudience)
	if err != nil {
		t.Fatal(err)
	}
	expired := mint(credentials.DepotAudience, func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() })
	early := mint(credentials.DepotAudience, func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() })
	untrusted := mint(credentials.DepotAudience, func(c map[string]any) { c["repository"] = "else/where" })
	for _, test := range []struct {
		name, token string
		want        wantError
	}{
		{"expired", expired, wantError{1, 401, false, "the OIDC token has expired", "check the clock of the server"}},
		{"not yet valid", early, wantError{1, 401, false, "invalid OIDC token", "check the clock of the server"}},
		{"untrusted repository", untrusted, wantError{1, 403, false, "no trust relationship with else/where", "trust"}},
		{"forged signature", forged, wantError{1, 401, false, "invalid OIDC token", "depot_token"}},
		{"wrong audience", mint("", nil), wantError{1, 401, false, "invalid OIDC token", "depot_token"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t, func(o *depotapi.Options) { o.Issuer = actions.Issuer() })
			_, err := depot(s, &journal{}, test.token).Acquire(t.Context(), Request{})
			checkAPIError(t, err, `create a build in project "sandbox"`, test.want)
			checkMessage(t, err, test.token, test.token[strings.LastIndex(test.token, ".")+1:])
			if n := len(s.Calls()); n != test.want.calls {
				t.Errorf("got %d calls, want %d", n, test.want.calls)
			}
		})
	}
}

func TestUnreachableAPI(t *testing.T) {
	addr := faultproxy.Refused(t)
	d := depot(startDepot(t), &journal{}, "project-token")
	d.APIURL = "http://" + addr + "/"
	_, err := d.Acquire(t.Context(), Request{})
	// Even CreateBuild is retried, because the request was never sent.
	checkAPIError(t, err, `create a build in project "sandbox"`, wantError{
		message: "cannot reach Depot at http://" + addr + ": dial tcp " + addr + ": connect: connection refused, after 5 " +
			"attempts",
		hint: "check the network and DEPOT_API_URL",
	})
}

// The token must not be sent to another host.
func TestRedirectIsNotFollowed(t *testing.T) {
	var requests atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	t.Cleanup(other.Close)
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		s := startDepot(t)
		s.Fail(depotapi.Fault{Status: status, Header: map[string]string{"Location": other.URL}})
		d := depot(s, &journal{}, "project-token")
		_, err := d.Acquire(t.Context(), Request{})
		want := wantError{status: status, format: true, hint: "DEPOT_API_URL"}
		checkAPIError(t, err, `create a build in project "sandbox"`, want)
		if _, err := d.PullCredential(t.Context(), "registry.example.com/sandbox:build"); httpclient.Status(err) != status {
			t.Errorf("PullCredential: %v", err)
		}
		if len(s.Calls()) != 2 {
			t.Errorf("%d: %d calls, want 2", status, len(s.Calls()))
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("got %d requests to the redirect target, want none", n)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault depotapi.Fault
		want  []time.Duration // waits before further attempts
	}{
		{
			name: "seconds, from Depot",
			fault: depotapi.Fault{
				Code: connect.CodeResourceExhausted, Times: 1, Header: map[string]string{"Retry-After": "7"},
			},
			want: []time.Duration{7 * time.Second},
		},
		{
			name: "date, from a proxy",
			fault: depotapi.Fault{
				Status: 503, Times: 1,
				Header: map[string]string{"Retry-After": newFakeClock().Now().Add(30 * time.Second).Format(http.TimeFormat)},
			},
			want: []time.Duration{30 * time.Second},
		},
		{
			name: "too long",
			fault: depotapi.Fault{
				Code: connect.CodeResourceExhausted, Message: "slow down", Header: map[string]string{"Retry-After": "3600"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t)
			test.fault.Method = "CreateBuild"
			s.Fail(test.fault)
			clock := newFakeClock()
			d := depot(s, &journal{}, "project-token")
			d.Policy.Clock = clock
			lease, err := d.Acquire(t.Context(), Request{})
			if !slices.Equal(clock.sleeps, test.want) {
				t.Errorf("waited %s, want %s", clock.sleeps, test.want)
			}
			if n := calls(s, "CreateBuild", nil); n != len(test.want)+1 {
				t.Errorf("got %d calls", n)
			}
			if test.want != nil {
				if err != nil {
					t.Fatal(err)
				}
				lease.Release(nil)
				return
			}
			if got, ok := errors.AsType[*httpclient.APIError](err); !ok || got.Status != 429 || got.RetryAfter != time.Hour {
				t.Errorf("got %v", err)
			}
		})
	}
}

// When the context ends, Machine and Acquire return its cause, regardless of what they are waiting for.
func TestContextCause(t *testing.T) {
	retryLater := map[string]string{"Retry-After": "60"}
	for _, test := range []struct {
		name  string
		fault depotapi.Fault
	}{
		{"API does not respond", depotapi.Fault{Method: "GetBuildKitConnection", NoResponse: true}},
		{"API is unavailable", depotapi.Fault{
			Method: "GetBuildKitConnection", Code: connect.CodeUnavailable, Header: retryLater,
		}},
		{"machine stays pending", depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive}},
		{"machine is unreachable", depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.Unreachable}},
		{"no build can be created", depotapi.Fault{
			Method: "CreateBuild", Code: connect.CodeUnavailable, Header: retryLater,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := startDepot
			if test.fault.Machine == depotapi.Unreachable {
				start = startDepotWithMachines
			}
			s := start(t)
			s.Fail(test.fault)
			cause := errors.New("timed out after 30m")
			ctx, cancel := context.WithCancelCause(t.Context())
			d := depot(s, &journal{}, "project-token")
			d.Policy.Connect.Timeout = time.Hour
			var running errgroup.Group
			running.Go(func() error {
				lease, err := d.Acquire(ctx, Request{})
				if err != nil {
					return err
				}
				defer lease.Release(cause)
				_, err = lease.Machine(ctx, "linux/amd64")
				return err
			})
			eventually(t, "the call", func() bool { return calls(s, test.fault.Method, nil) > 0 })
			cancel(cause)
			if err := running.Wait(); !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
		})
	}
}
