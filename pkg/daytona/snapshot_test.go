package daytona

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
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

// States and classes that this version does not know keep their names.
func TestUnknownValues(t *testing.T) {
	const snapshot = `{"id": "1", "name": "a", "state": "snapshotting", "sandboxClass": "quantum", "size": null}`
	c := &Client{Key: "dtn_all"}
	c.HTTP.Base = answers(map[string]string{
		"/snapshots/1": snapshot, "/snapshots": `{"items": [` + snapshot + `], "totalPages": 1}`,
	})
	got, err := c.Get(t.Context(), "1")
	checkError(t, err, "")
	list, err := c.List(t.Context(), "")
	checkError(t, err, "")
	for _, s := range append(list, got) {
		if s.State != "snapshotting" || s.SandboxClass != "quantum" {
			t.Errorf("got %+v", s)
		}
	}
	if len(list) != 1 {
		t.Errorf("got %+v", list)
	}
	c.HTTP.Base = answers(map[string]string{"/snapshots": `{"items": [{"id": "1", "name": "a"}]}`})
	_, err = c.List(t.Context(), "")
	checkError(t, err, "list snapshots: … the response is not in the API's format: state is missing (if https://app")
}

func TestListPages(t *testing.T) {
	for _, test := range []struct {
		name   string
		pages  int
		unique int // pages with new snapshots
		want   string
	}{
		{"many pages", 250, 250, ""},
		{"endless", 1 << 30, 3, "list snapshots: page 4 of 1073741824 has only snapshots of earlier pages (try again)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Client{Key: "dtn_all"}
			c.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				page, err := strconv.Atoi(r.URL.Query().Get("page"))
				body := fmt.Sprintf(`{"items": [{"id": "%d", "name": "a", "state": "active"}], "totalPages": %d}`,
					min(page, test.unique), test.pages)
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, err
			})
			list, err := c.List(t.Context(), "")
			checkError(t, err, test.want)
			if err == nil && len(list) != test.pages {
				t.Errorf("got %d snapshots", len(list))
			}
		})
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

// Ten minutes after the deactivation, Daytona pulls the pushed image again, which it has deleted.
func TestActivateGone(t *testing.T) {
	s := startCloud(t, nil)
	c, ctx := newClient(s, "dtn_all"), t.Context()
	_, ref, _ := push(t, c, image(t))
	put := func(name, image string, updated time.Time) Snapshot {
		return Snapshot{Name: name, ID: s.Put(cloud.Snapshot{
			Organization: "org-1", Name: name, Image: image, State: "inactive", Created: lastYear, Updated: updated,
			Digest: "sha256:" + strings.Repeat("ab", 32),
		})}
	}
	err := c.Activate(ctx, put("recent", ref, time.Now()))
	checkError(t, err, "activate snapshot recent: … still in progress … (wait ten minutes after the deactivation)")
	if !errors.Is(err, ErrDeactivating) || httpclient.Status(err) != http.StatusBadRequest {
		t.Errorf("got %v", err)
	}
	old := put("old", strings.TrimSuffix(ref, ":1")+":gone", lastYear)
	checkError(t, c.Activate(ctx, old), "")
	_, err = c.WaitUntilActive(ctx, old.ID, "", nil)
	if checkError(t, err, "snapshot old is in state error: … not found (push the image again)"); !NeedsPush(err) {
		t.Errorf("got %v", err)
	}
}
