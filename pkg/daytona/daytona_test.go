package daytona

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// userToken has the format of a user's token.
const userToken = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyLTEifQ.c2ln"

func startCloud(t *testing.T, change func(*cloud.Options)) *cloud.Server {
	t.Helper()
	r, err := registry.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	all := []string{WriteSnapshots, DeleteSnapshots}
	o := cloud.Options{
		Registry: r, Cron: -1,
		Organizations: []cloud.Organization{
			{
				ID: "org-1", Name: "one", UserTokens: []string{userToken}, Snapshots: 9,
				Regions: []cloud.Region{
					{ID: "us", Name: "US"}, {ID: "eu", Name: "EU", MaxCPU: 2}, {ID: "void", Name: "Void", NoRunners: true},
				},
				Keys: []cloud.Key{
					{
						Name: "all", Value: "dtn_all", Permissions: all,
						Expires: time.Date(2100, 1, 2, 0, 0, 0, 0, time.UTC),
					},
					{Name: "read", Value: "dtn_read"},
					{Name: "write", Value: "dtn_write", Permissions: []string{WriteSnapshots}},
					{Name: "expired", Value: "dtn_expired", Permissions: all, Expires: time.Now().Add(-time.Second)},
				},
			},
			{
				ID: "org-2", Name: "two", Regions: []cloud.Region{{ID: "asia", Name: "Asia"}},
				Keys: []cloud.Key{{Name: "other", Value: "dtn_other", Permissions: all}},
			},
			{
				ID: "org-3", Name: "three", Suspended: "unpaid", Regions: []cloud.Region{{ID: "us", Name: "US"}},
				Keys: []cloud.Key{{Name: "k", Value: "dtn_suspended", Permissions: all}},
			},
		},
	}
	if change != nil {
		change(&o)
	}
	s, err := cloud.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newClient returns a client for s with a fake clock. The periodic jobs of s run whenever the client sleeps.
func newClient(s *cloud.Server, key string) *Client {
	return &Client{
		URL: s.URL(), Key: key, HTTP: httpclient.Config{Clock: &fakeclock.Clock{OnSleep: s.Tick}},
		Timing: Timing{Removal: time.Hour}, // the stand-in processes snapshots in real time
	}
}

// checkError checks that err is one line and contains every part of want, separated by " … ". An empty want means no
// error.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if err == nil {
		t.Errorf("no error, want %q", want)
		return
	}
	for part := range strings.SplitSeq(want, " … ") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("got more than one line: %q", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestCurrentKey(t *testing.T) {
	s := startCloud(t, nil)
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "own"})
	s.Put(cloud.Snapshot{Name: "daytona", General: true})
	for _, test := range []struct {
		name, key, source, organization string
		missing                         string
		status                          int
		want                            string
	}{
		{name: "key", key: "dtn_all", organization: "org-1"},
		{name: "key without an organization", key: "dtn_all"},
		{name: "key without permissions", key: "dtn_read", missing: "write:snapshots delete:snapshots"},
		{name: "key that cannot delete", key: "dtn_write", missing: "delete:snapshots"},
		{name: "user", key: userToken, organization: "org-1"},
		{name: "user without an organization", key: userToken, want: "user token requires an organization"},
		{
			name: "user of another organization", key: userToken, organization: "org-2", status: 403,
			want: "check that the key or its user belongs to the organization",
		},
		{name: "key of another organization", key: "dtn_all", organization: "org-2", want: "belongs to organization org-1"},
		{name: "key of an organization without snapshots", key: "dtn_other", organization: "org-1"}, // Create detects it
		{
			name: "expired key", key: "dtn_expired", status: 401,
			want: "check the Daytona API key: Daytona returned 401 Unauthorized: Invalid credentials " +
				"(replace the key in daytona_api_key; create one at " +
				"https://app.daytona.io/dashboard/keys)",
		},
		{
			name: "expired key of a config", key: "dtn_expired", source: "DAYTONA_API_KEY in Doppler config dev", status: 401,
			want: "(replace the key in DAYTONA_API_KEY in Doppler config dev; create one at ",
		},
		{name: "no key", want: "no Daytona API key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(s, test.key)
			c.Organization, c.KeySource = test.organization, test.source
			key, err := c.CurrentKey(t.Context())
			checkError(t, err, test.want)
			if httpclient.Status(err) != test.status {
				t.Errorf("status %d, want %d", httpclient.Status(err), test.status)
			}
			if err != nil {
				return
			}
			needed := []string{WriteSnapshots, DeleteSnapshots}
			if got := strings.Join(key.Missing(needed...), " "); got != test.missing {
				t.Errorf("missing %q, want %q", got, test.missing)
			}
			if !slices.Equal(needed, []string{WriteSnapshots, DeleteSnapshots}) {
				t.Errorf("Missing modified its argument: %q", needed)
			}
			if test.key == "dtn_all" && (key.Name != "all" || key.Expires.Year() != 2100) {
				t.Errorf("got %+v", key)
			}
		})
	}
}

// The organization header may only be sent with a user's token.
func TestOrganizationHeader(t *testing.T) {
	for _, test := range []struct{ name, key, header string }{
		{"key", "dtn_all", ""},
		{"user", userToken, "org-1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startCloud(t, nil)
			s.Put(cloud.Snapshot{Organization: "org-1", Name: "own"})
			c := newClient(s, test.key)
			c.Organization = "org-1"
			inactive := s.Put(cloud.Snapshot{
				Organization: "org-1", Name: "inactive", State: "inactive", Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			})
			failed := s.Put(cloud.Snapshot{Organization: "org-1", Name: "failed", State: "build_failed", Log: "no"})
			_, ref, _ := push(t, c, image(t))
			if log := c.buildLog(t.Context(), Snapshot{ID: failed, State: BuildFailed}); log != "no" {
				t.Errorf("build log %q", log)
			}
			for _, call := range []struct {
				name string
				err  error
			}{
				{"CurrentKey", second(c.CurrentKey(t.Context()))},
				{"Regions", second(c.Regions(t.Context()))},
				{"PushAccess", second(c.PushAccess(t.Context(), "us"))},
				{"Limits", second(c.Limits(t.Context(), Request{}))},
				{"List", second(c.List(t.Context(), ""))},
				{"Get", second(c.Get(t.Context(), inactive))},
				{"Activate", c.Activate(t.Context(), Snapshot{ID: inactive})},
				{"Create", second(c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}}))},
				{"Remove", c.Remove(t.Context(), Snapshot{ID: failed})},
			} {
				if call.err != nil {
					t.Errorf("%s: %v", call.name, call.err)
				}
			}
			calls := map[string]bool{}
			for _, r := range s.Requests() {
				if r.Registry {
					continue
				}
				calls[r.Method+" "+r.Path] = true
				if r.Organization != test.header || !r.HasToken {
					t.Errorf("%s %s: header %q, want %q; token: %v", r.Method, r.Path, r.Organization, test.header, r.HasToken)
				}
			}
			if len(calls) < 9 {
				t.Errorf("only %d kinds of requests: %v", len(calls), calls)
			}
		})
	}
}

// countingTransport counts the requests that a client sends. It disables keep-alives, because net/http itself retries a
// request when a reused connection breaks.
type countingTransport struct {
	http.Transport
	n atomic.Int64
}

func (c *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.Transport.RoundTrip(r)
}

func TestErrors(t *testing.T) {
	s := startCloud(t, nil)
	header := func(name, value string) map[string]string { return map[string]string{name: value} }
	page := func(status int, body string) cloud.Fault {
		return cloud.Fault{Status: status, Body: body, Header: header("Content-Type", "application/json")}
	}
	for _, test := range []struct {
		name     string
		fault    cloud.Fault
		requests int64
		format   bool   // whether the response is not from the API
		want     string // "" for no error
	}{
		{
			name: "message", fault: cloud.Fault{Status: 400, Message: "bad\nthing."}, requests: 1,
			want: "list Daytona regions: Daytona returned 400 Bad Request: bad thing (correct the input)",
		},
		{
			name: "401", fault: cloud.Fault{Status: 401, Message: "no"}, requests: 1,
			want: "no (replace the key in daytona_api_key",
		},
		{
			name: "403 without a permission to name", fault: cloud.Fault{Status: 403, Message: "Access denied"}, requests: 1,
			want: "Access denied (check that the key or its user belongs to the organization",
		},
		{name: "404", fault: cloud.Fault{Status: 404, Message: "no"}, requests: 1, want: "no (check DAYTONA_API_URL and"},
		{name: "409", fault: cloud.Fault{Status: 409, Message: "in use"}, requests: 1, want: "in use (try again later"},
		{name: "429 once", fault: cloud.Fault{Status: 429, Message: "slow", Times: 1}, requests: 2},
		{
			name: "429 with the maximum wait", requests: 2,
			fault: cloud.Fault{Status: 429, Message: "slow", Times: 1, Header: header("Retry-After-authenticated", "60")},
		},
		{
			name: "429 over the maximum wait", requests: 1, want: "slow (try again in a minute; retry after 1m1s)",
			fault: cloud.Fault{Status: 429, Message: "slow", Header: header("Retry-After-authenticated", "61")},
		},
		{
			name: "persistent 429", fault: cloud.Fault{Status: 429, Message: "slow"}, requests: 4,
			want: "slow (try again in a minute)",
		},
		{name: "500 once", fault: cloud.Fault{Status: 500, Message: "no", Times: 1}, requests: 2},
		{name: "persistent 500", fault: cloud.Fault{Status: 500, Message: "no"}, requests: 4, want: "no (try again later"},
		{name: "web page of a proxy", fault: page(502, "<html>"), requests: 4, format: true, want: "(try again later"},
		{
			name: "web page with 200", fault: cloud.Fault{Status: 200, Body: "<html>"}, requests: 1, format: true,
			want: "(check DAYTONA_API_URL (" + s.URL() + "), which must end in /api)",
		},
		{
			name: "429 of a proxy", fault: page(429, "<html>"), requests: 4, format: true, want: "(try again in a minute)",
		},
		{
			name: "unexpected JSON", fault: page(200, "{}"), requests: 1, format: true,
			want: "Daytona returned 200 OK: the response is not in the API's format: json: cannot unmarshal object … (if " +
				s.URL() + " is Daytona's API, update sandbox-actions or report this version of Daytona)",
		},
		{name: "missing fields", fault: page(200, "[{}]"), requests: 1, format: true, want: "format: id is missing (if"},
		{name: "null", fault: page(200, "null"), requests: 1, format: true, want: "format: the list is missing (if"},
		{name: "web page with 403", fault: page(403, "<html>"), requests: 1, format: true, want: "check DAYTONA_API_URL"},
		{
			name: "redirect", requests: 1, format: true, want: "check DAYTONA_API_URL",
			fault: cloud.Fault{Status: 302, Body: "x", Header: header("Location", "http://127.0.0.1:1/")},
		},
		{
			name: "echoed key", fault: cloud.Fault{Status: 401, Message: "dtn_all is bad"}, requests: 1,
			want: "*** is bad",
		},
		{name: "connection reset once", fault: cloud.Fault{Hangup: true, Times: 1}, requests: 2},
		{
			name: "persistent connection reset", fault: cloud.Fault{Hangup: true}, requests: 4,
			want: "cannot reach Daytona at " + s.URL() + " … (check the network, DAYTONA_API_URL",
		},
		{name: "no response", fault: cloud.Fault{NoResponse: true}, requests: 4, want: "no response within 50ms"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sent := &countingTransport{Transport: http.Transport{DisableKeepAlives: true}}
			c := newClient(s, "dtn_all")
			c.HTTP.Base = sent
			if test.fault.NoResponse {
				c.HTTP.Policy.Timeout = 50 * time.Millisecond
			}
			test.fault.Path = "/regions"
			s.Fail(test.fault)
			defer s.ClearFaults()
			_, err := c.Regions(t.Context())
			checkError(t, err, test.want)
			if n := sent.n.Load(); n != test.requests {
				t.Errorf("got %d requests, want %d", n, test.requests)
			}
			if err == nil {
				return
			}
			if failed, ok := errors.AsType[*httpclient.APIError](err); !ok || failed.Status != test.fault.Status {
				t.Errorf("got %#v", err)
			}
			if errors.Is(err, httpclient.ErrFormat) != test.format {
				t.Errorf("is ErrFormat: %v, want %v", !test.format, test.format)
			}
			if strings.Contains(err.Error(), "dtn_") {
				t.Errorf("the key is in %q", err)
			}
		})
	}
}

func TestURL(t *testing.T) {
	s := startCloud(t, nil)
	c := newClient(s, "dtn_all")
	c.URL = strings.TrimSuffix(s.URL(), "/api")
	if _, err := c.Regions(t.Context()); !errors.Is(err, httpclient.ErrFormat) {
		t.Errorf("dashboard: got %v", err)
	}
	var url string
	c = &Client{Key: "dtn_all", HTTP: httpclient.Config{Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		url = r.URL.String()
		return nil, errors.New("offline")
	}), Policy: httpclient.Policy{Attempts: 1}}}
	if _, err := c.Regions(t.Context()); err == nil || url != "https://app.daytona.io/api/regions" {
		t.Errorf("requested %s (%v), want the default URL", url, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// jsonResponse returns a transport that answers every request with a message of the API.
func jsonResponse(status int, message string) roundTripper {
	return func(*http.Request) (*http.Response, error) {
		body, err := json.Marshal(map[string]any{"statusCode": status, "message": message})
		return &http.Response{
			StatusCode: status, Body: io.NopCloser(bytes.NewReader(body)),
			Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}},
		}, err
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	c := newClient(startCloud(t, nil), "dtn_all")
	c.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		cancel(interrupted)
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	if _, err := c.Regions(ctx); err != interrupted {
		t.Errorf("got %v, want the cause", err)
	}
}
