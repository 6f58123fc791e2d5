package daytona

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestLimitsCheckResources(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		wanted Resources
		want   string
	}{
		{"at the limits", Limits{Sandbox: Resources{4, 8, 10}}, Resources{4, 8, 10}, ""},
		{"unknown limits", Limits{}, Resources{99, 99, 99}, ""},
		{
			"one limit exceeded", Limits{Sandbox: Resources{4, 8, 10}}, Resources{8, 8, 10},
			"exceed the organization's limits: cpu 8 exceeds the maximum of 4 cores per sandbox (reduce them",
		},
		{
			"two limits exceeded", Limits{Sandbox: Resources{4, 8, 10}}, Resources{4, 9, 20},
			"memory 9 exceeds the maximum of 8 GB per sandbox; disk 20 exceeds the maximum of 10 GB per sandbox (reduce them",
		},
	} {
		t.Run(test.name, func(t *testing.T) { checkError(t, test.limits.CheckResources(test.wanted), test.want) })
	}
}

func TestLimitsCheckSnapshots(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		wanted int
		want   string
	}{
		{"one below the limit", Limits{Snapshots: 3, Used: 2}, 1, ""},
		{"one too many", Limits{Snapshots: 3, Used: 3}, 1, "Daytona holds 3 of 3 snapshots (delete one (`action-snapshot"},
		{"several", Limits{Snapshots: 3, Used: 2}, 4, "2 of 3 snapshots, and 4 more are needed (delete 3, see `action-"},
		{"none wanted", Limits{Snapshots: 3, Used: 4}, 0, ""},
		{"unknown limit", Limits{Used: 3}, 9, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.limits.CheckSnapshots(test.wanted)
			checkError(t, err, test.want)
			if errors.Is(err, ErrQuota) != (test.want != "") {
				t.Errorf("quota: %v", err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	s := startCloud(t, nil)
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "existing"})
	newer := startCloud(t, func(o *cloud.Options) { o.Newer = true })
	for _, test := range []struct {
		name, key string
		request   Request
		limits    Limits
	}{
		{name: "user", key: userToken, limits: Limits{Resources{4, 8, 10}, 9, 1}},
		{name: "user, region", key: userToken, request: Request{Region: "eu"}, limits: Limits{Resources{2, 8, 10}, 9, 1}},
		{name: "key", key: "dtn_all"}, // cannot read them
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(s, test.key)
			c.Organization = "org-1"
			limits, err := c.Limits(t.Context(), test.request)
			if err != nil || limits != test.limits {
				t.Errorf("got %+v, %v, want %+v", limits, err, test.limits)
			}
			c.URL = newer.URL()
			limits, err = c.Limits(t.Context(), test.request)
			if test.limits.Used = 0; err != nil || limits != test.limits {
				t.Errorf("newer server: got %+v, %v, want %+v", limits, err, test.limits)
			}
		})
	}
	if n := countRequests(s, "POST"); n != 0 {
		t.Errorf("Limits sent %d requests that create snapshots", n)
	}
	for _, r := range s.Requests() {
		if strings.Contains(r.Path, "/organizations") && r.Organization == "" {
			t.Errorf("%s was requested with an API key, which Daytona counts as a failed login", r.Path)
		}
	}
}

// Servers since v0.201 rename and add fields of the usage.
func TestLimitsNewerServer(t *testing.T) {
	const usage = `{
		"regionUsage": [{
			"regionId": "us", "sandboxClass": "container", "totalCpu": 100, "usedCpu": 1, "maxCpuPerSandbox": 3,
			"maxMemoryPerSandbox": null, "maxCpuPerGpu": 2, "maxDiskPerGpuSandbox": 5
		}],
		"totalSnapshotQuota": 30, "currentSnapshotUsage": 30, "images": {"total": 7}
	}`
	for _, test := range []struct {
		name, usage string
		request     Request
		want        Limits
	}{
		{"renamed fields", usage, Request{Region: "us"}, Limits{Resources{3, 8, 10}, 30, 30}},
		{"GPU", usage, Request{Region: "us", GPU: 1}, Limits{Resources{2, 8, 5}, 30, 30}},
		{"default region", usage, Request{}, Limits{Resources{3, 8, 10}, 30, 30}},
		{"another class", usage, Request{Region: "us", SandboxClass: "linux-vm"}, Limits{Resources{4, 8, 10}, 30, 30}},
		{"without quotas", `{"regionUsage": []}`, Request{}, Limits{Sandbox: Resources{4, 8, 10}}},
		{"unknown fields only", `{"usage": 1}`, Request{}, Limits{Sandbox: Resources{4, 8, 10}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Client{Key: userToken, Organization: "org-1"}
			c.HTTP.Base = answers(map[string]string{
				"/organizations/org-1": `{
					"id": "org-1", "maxCpuPerSandbox": 4, "maxMemoryPerSandbox": 8, "maxDiskPerSandbox": 10, "defaultRegionId": "us"
				}`,
				"/organizations/org-1/usage": test.usage,
			})
			limits, err := c.Limits(t.Context(), test.request)
			if err != nil || limits != test.want {
				t.Errorf("got %+v, %v, want %+v", limits, err, test.want)
			}
		})
	}
	c := &Client{Key: userToken, Organization: "org-1"}
	c.HTTP.Base = answers(map[string]string{"/organizations/org-1": `{"id": 5}`})
	_, err := c.Limits(t.Context(), Request{})
	checkError(t, err,
		"read organization org-1: … the response is not in the API's format: json: … update sandbox-actions")
	if !errors.Is(err, httpclient.ErrFormat) {
		t.Error(err)
	}
}

// answers returns a transport that answers GET requests for these paths of the API.
func answers(bodies map[string]string) roundTripper {
	return func(r *http.Request) (*http.Response, error) {
		body, ok := bodies[strings.TrimPrefix(r.URL.Path, "/api")]
		status := http.StatusOK
		if !ok {
			status, body = http.StatusNotFound, fmt.Sprintf(`{"message": "Cannot GET %s"}`, r.URL.Path)
		}
		return &http.Response{
			StatusCode: status, Body: io.NopCloser(strings.NewReader(body)),
			Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}},
		}, nil
	}
}

func countRequests(s *cloud.Server, method string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Method == method && !r.Registry {
			n++
		}
	}
	return n
}
