package daytona

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		name  string
		newer bool
		pool  Usage
	}{
		{"server v0.190.0", false, Usage{}},
		{"newer server", true, Usage{WarmPools: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startCloud(t, func(o *cloud.Options) { o.Newer = test.newer })
			names := []string{"unused", "pool"}
			want := map[string]Usage{}
			for i := range 3 { // more than a page of sandboxes
				name := fmt.Sprintf("app-%d", i)
				names, want[name] = append(names, name), Usage{Sandboxes: 70}
				for range 70 {
					s.PutSandbox(cloud.Sandbox{Organization: "org-1", Snapshot: name, State: "stopped"})
				}
			}
			for i := range 60 { // more than a request's names
				names = append(names, fmt.Sprintf("name-%d", i))
			}
			want["name-59"] = Usage{Sandboxes: 1}
			s.PutSandbox(cloud.Sandbox{Organization: "org-1", Snapshot: "name-59", State: "started"})
			s.PutSandbox(cloud.Sandbox{Organization: "org-1", Snapshot: "other", State: "started"})
			s.PutSandbox(cloud.Sandbox{Organization: "org-2", Snapshot: "unused", State: "started"})
			s.PutWarmPool(cloud.WarmPool{Organization: "org-1", Snapshot: "pool", Region: "us"})
			if test.pool != (Usage{}) {
				want["pool"] = test.pool
			}
			got, err := newClient(s, "dtn_read").Usage(t.Context(), names...)
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestUsageUnknown(t *testing.T) {
	s := startCloud(t, nil)
	c := newClient(s, "dtn_all")
	if got, err := c.Usage(t.Context()); len(got) != 0 || err != nil || len(s.Requests()) != 0 {
		t.Errorf("got %v, %v, for no names", got, err)
	}
	for _, path := range []string{"/sandbox", "/warm-pools"} {
		s.Fail(cloud.Fault{Path: path, Status: http.StatusForbidden, Message: "no"})
		if got, err := c.Usage(t.Context(), "a"); httpclient.Status(err) != http.StatusForbidden || got != nil {
			t.Errorf("%s: got %v, %v", path, got, err)
		}
		s.ClearFaults()
	}
	c = &Client{Key: "dtn_all"}
	c.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		body := "[]" // warm pools
		if strings.HasSuffix(r.URL.Path, "/sandbox") {
			next := map[string]string{"": "first", "first": "second", "second": "first"}[r.URL.Query().Get("cursor")]
			body = fmt.Sprintf(`{"items": [{"snapshot": "a"}], "nextCursor": %q}`, next)
		}
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
	})
	_, err := c.Usage(t.Context(), "a")
	checkError(t, err, "list the sandboxes of snapshots: Daytona returned the same page twice (try again)")
}
