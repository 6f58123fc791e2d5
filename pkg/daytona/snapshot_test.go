package daytona

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

var lastYear = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func TestFindAndList(t *testing.T) {
	s := startCloud(t, nil)
	c, ctx := newClient(s, "dtn_all"), t.Context()
	const n = 250 // more than two pages
	for i := range n {
		s.Put(cloud.Snapshot{
			Organization: "org-1", Name: fmt.Sprintf("app_%03d", i), State: "inactive",
			Created: lastYear.Add(time.Duration(i) * time.Minute),
		})
	}
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "my-app_1"})
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "APP_1"})
	s.Put(cloud.Snapshot{Name: "app_of_daytona", General: true})
	digest := "sha256:" + strings.Repeat("ab", 32)
	s.Put(cloud.Snapshot{
		Organization: "org-1", Name: "failed", Image: "r/app:1", Digest: digest, State: "error", Reason: "no",
		CPU: 2, Memory: 4, Disk: 10, Region: "eu",
	})

	list, err := c.List(ctx, "app_")
	checkError(t, err, "")
	if len(list) != n || list[0].Name != "app_249" || list[n-1].Name != "app_000" {
		t.Errorf("got %d snapshots", len(list))
	}
	failed, found, err := c.Find(ctx, "failed")
	if err != nil || !found || failed.Digest != digest || failed.State != Failed || failed.Reason != "no" ||
		failed.Resources != (Resources{2, 4, 10}) || failed.Regions[0] != "eu" {
		t.Errorf("got %+v, %v, %v", failed, found, err)
	}
	for _, absent := range []string{"nothing", "app_of_daytona", failed.ID} {
		if got, found, err := c.Find(ctx, absent); found || err != nil {
			t.Errorf("%s: %+v, %v", absent, got, err)
		}
	}
	_, err = c.Get(ctx, "00000000-0000-4000-8000-000000000000")
	checkError(t, err, "(list the snapshots with `action-snapshot list`)")
	s.Fail(cloud.Fault{Status: 403, Message: "no"})
	if _, _, err := c.Find(ctx, "failed"); httpclient.Status(err) != http.StatusForbidden {
		t.Error(err)
	}
	if _, err := c.List(ctx, ""); httpclient.Status(err) != http.StatusForbidden {
		t.Error(err)
	}
}

func TestActivate(t *testing.T) {
	s := startCloud(t, func(o *cloud.Options) { o.ReadsPerState = 1 })
	c, ctx := newClient(s, "dtn_all"), t.Context()
	_, ref, _ := push(t, c, image(t))
	put := func(name, state string) string {
		return s.Put(cloud.Snapshot{Organization: "org-1", Name: name, Image: ref, State: state, Created: lastYear})
	}
	id := put("one", "inactive")
	for range 2 { // the second time it is already active
		checkError(t, c.Activate(ctx, Snapshot{ID: id}), "")
		_, err := c.WaitUntilActive(ctx, id, "", nil)
		checkError(t, err, "")
	}
	s.Fail(cloud.Fault{Method: "POST", Status: 502, Body: "<html>", ReplaceResponse: true, Times: 1})
	checkError(t, c.Activate(ctx, Snapshot{ID: put("two", "inactive")}), "")
	for _, test := range []struct {
		name, key, state string
		fault            cloud.Fault
		status           int
		want             string
	}{
		{name: "failed", key: "dtn_all", state: "error", status: 400, want: "cannot be activated - it is in error state"},
		{
			name: "still inactive", key: "dtn_all", state: "inactive", status: 400, want: "not yet",
			fault: cloud.Fault{Method: "POST", Status: 400, Message: "not yet"},
		},
		{name: "denied", key: "dtn_read", state: "inactive", status: 403, want: "with the write:snapshots permission"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.fault.Status != 0 {
				s.Fail(test.fault)
				defer s.ClearFaults()
			}
			err := newClient(s, test.key).Activate(ctx, Snapshot{ID: put(test.name, test.state)})
			checkError(t, err, test.want)
			if httpclient.Status(err) != test.status {
				t.Error(err)
			}
		})
	}
}
