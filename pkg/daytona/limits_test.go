package daytona

import (
	"strings"
	"testing"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestCheckName(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"typical", "iterate-sandbox-20260102-030405-abcdef0-jane", ""},
		{"all valid characters", "Team/app_1.2:v3", ""},
		{"digest", "app@sha256:" + strings.Repeat("a", 64), ""},
		{"empty", "", "name is empty"},
		{"too long", strings.Repeat("a", 256), "has 256 characters (use at most 255)"},
		{"longest", strings.Repeat("a", 255), ""},
		{"space", "a b", `invalid snapshot name "a b" (use letters`},
		{"unicode", "größe", `invalid snapshot name "größe"`},
		{"newline", "a\nb", `invalid snapshot name "a\nb"`},
		{"trailing slash", "a/", "invalid snapshot name"},
		{"two slashes", "a//b", "invalid snapshot name"},
		{"truncated digest", "a@sha256:12", "invalid snapshot name"},
		{"latest", "latest", "the tag latest is ambiguous"},
		{"tag latest", "app:latest", "the tag latest is ambiguous"},
		{"name ending in -latest", "app-latest", ""},
	} {
		t.Run(test.name, func(t *testing.T) { checkError(t, CheckName(test.text), test.want) })
	}
}

func TestLimitsCheck(t *testing.T) {
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
		{"one snapshot below the limit", Limits{Snapshots: 3, Used: 2}, Resources{1, 1, 1}, ""},
		{"too many snapshots", Limits{Snapshots: 3, Used: 3}, Resources{1, 1, 1}, "has 3 of at most 3 snapshots"},
		{"unknown number of snapshots", Limits{Used: 3}, Resources{1, 1, 1}, ""},
	} {
		t.Run(test.name, func(t *testing.T) { checkError(t, test.limits.Check(test.wanted), test.want) })
	}
}

func TestLimits(t *testing.T) {
	s := startCloud(t, nil)
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "existing"})
	for _, test := range []struct {
		name, key, region string
		limits            Limits
		status            int
		want              string
	}{
		{name: "key", key: "dtn_all", limits: Limits{Sandbox: Resources{4, 8, 10}}},
		{name: "key, region with limits", key: "dtn_all", region: "eu", limits: Limits{Sandbox: Resources{2, 8, 10}}},
		{name: "user", key: userToken, limits: Limits{Resources{4, 8, 10}, 9, 1}},
		{name: "user, region with limits", key: userToken, region: "eu", limits: Limits{Resources{2, 8, 10}, 9, 1}},
		{name: "no permission", key: "dtn_read", status: 403, want: "use an API key with the write:snapshots permission"},
		{name: "unknown region", key: "dtn_all", region: "mars", status: 404, want: `the organization has no region "mars"`},
		{
			name: "another organization's region", key: "dtn_all", region: "asia", status: 403,
			want: "Region asia is not available to the organization",
		},
		{
			name: "region without a runner", key: "dtn_all", region: "void", status: 400,
			want: "No runners are configured in region 'Void' … (change the input region",
		},
		{name: "suspended", key: "dtn_suspended", status: 403, want: "Organization is suspended: unpaid (check that the key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(s, test.key)
			c.Organization = "org-1"
			limits, err := c.Limits(t.Context(), test.region)
			checkError(t, err, test.want)
			if httpclient.Status(err) != test.status {
				t.Errorf("status %d, want %d", httpclient.Status(err), test.status)
			}
			if limits != test.limits {
				t.Errorf("got %+v, want %+v", limits, test.limits)
			}
			list, err := newClient(s, "dtn_all").List(t.Context(), "")
			if err != nil || len(list) != 1 {
				t.Errorf("Limits left a snapshot: %v, %v", list, err)
			}
		})
	}
}

func TestLimitsWithoutLimits(t *testing.T) {
	s := startCloud(t, func(o *cloud.Options) {
		o.Organizations[0].MaxCPU, o.Organizations[0].MaxMemory, o.Organizations[0].MaxDisk = 1<<31-1, 1<<31-1, 5
	})
	// Another run is probing.
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "sandbox-actions-limit-probe-memory"})
	c := newClient(s, "dtn_all")
	limits, err := c.Limits(t.Context(), "")
	checkError(t, err, "")
	if limits != (Limits{Sandbox: Resources{Disk: 5}}) {
		t.Errorf("got %+v", limits)
	}
	if n := countRequests(s, "DELETE"); n != 1 {
		t.Errorf("%d snapshots were deleted, want the one that the probe created", n)
	}
	s.Fail(cloud.Fault{Method: "DELETE", Status: 403, Message: "Access denied"})
	waitUntilRemoved(t, c, "sandbox-actions-limit-probe-cpu")
	if _, err = c.Limits(t.Context(), ""); httpclient.Status(err) != 403 {
		t.Errorf("got %v, want an error about deleting the probe's snapshot", err)
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

// waitUntilRemoved waits until the stand-in has removed a deleted snapshot.
func waitUntilRemoved(t *testing.T, c *Client, name string) {
	t.Helper()
	found, ok, err := c.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		checkError(t, c.WaitUntilRemoved(t.Context(), found.ID), "")
	}
}
