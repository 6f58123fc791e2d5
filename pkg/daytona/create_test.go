package daytona

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// image returns a small image for linux/amd64.
func image(t *testing.T) v1.Image {
	t.Helper()
	layer, err := random.Layer(100, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// push pushes an image and returns its reference by tag and its digest.
func push(t *testing.T, c *Client, img v1.Image) (access PushAccess, ref, digest string) {
	t.Helper()
	access, err := c.PushAccess(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(access.Registry + "/" + access.Project + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithAuth(&authn.Basic{Username: access.User, Password: access.Secret})
	if err := remote.Write(tag, img, auth); err != nil {
		t.Fatal(err)
	}
	hash, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return access, tag.String(), hash.String()
}

func TestCreate(t *testing.T) {
	for _, test := range []struct {
		name         string
		existing     *cloud.Snapshot
		post         cloud.Fault // for the create request
		faults       []cloud.Fault
		key          string
		organization string
		change       func(*Request)
		changeCloud  func(*cloud.Options)
		posts        int
		status       int
		want         string
		left         int // number of snapshots at the end
	}{
		{name: "success", posts: 1, left: 1},
		{name: "own organization", organization: "org-1", posts: 1, left: 1},
		{
			name: "created, connection reset", posts: 1, left: 1,
			post: cloud.Fault{Hangup: true, ReplaceResponse: true, Times: 1},
		},
		{
			name: "created, proxy error", posts: 1, left: 1,
			post: cloud.Fault{Status: 504, Body: "<html>", ReplaceResponse: true, Times: 1},
		},
		{
			name: "created, unexpected response", posts: 1, left: 1,
			post: cloud.Fault{Status: 200, Body: "<html>", ReplaceResponse: true, Times: 1},
		},
		{name: "not created, connection reset", post: cloud.Fault{Hangup: true, Times: 1}, posts: 2, left: 1},
		{name: "500 once", post: cloud.Fault{Status: 500, Times: 1}, posts: 2, left: 1},
		{
			name: "persistent 500", post: cloud.Fault{Status: 500, Message: "oh"}, posts: 4, status: 500,
			want: "create snapshot app-1: Daytona returned 500 Internal Server Error: oh (try again later",
		},
		{name: "429 once", post: cloud.Fault{Status: 429, Times: 1}, posts: 2, left: 1},
		{
			name: "unknown outcome, Daytona down", post: cloud.Fault{Status: 500}, posts: 4, status: 500, want: "app-1",
			faults: []cloud.Fault{{Method: "GET", Path: "/snapshots/app-1", Status: 503}},
		},
		{
			name: "unknown outcome, no access", post: cloud.Fault{Status: 500}, posts: 1, status: 500, want: "app-1",
			faults: []cloud.Fault{{Method: "GET", Path: "/snapshots/app-1", Status: 403, Message: "Access denied"}},
		},
		{
			name: "created, connection reset, not readable for a while", posts: 2, left: 1,
			post:   cloud.Fault{Hangup: true, ReplaceResponse: true, Times: 1},
			faults: []cloud.Fault{{Method: "GET", Path: "/snapshots/app-1", Status: 503, Times: 4}},
		},
		{
			name: "name taken", existing: &cloud.Snapshot{Name: "app-1", State: "error"}, posts: 1, left: 1, status: 409,
			want: "already exists for this organization (choose another name",
		},
		{
			name: "unknown outcome, name taken", existing: &cloud.Snapshot{Name: "app-1", Image: "other:1"},
			post: cloud.Fault{Status: 500, Times: 1}, posts: 2, left: 1, status: 409, want: "already exists",
		},
		{
			name: "over quota", change: func(r *Request) { r.Resources.CPU = 99 }, posts: 1, status: 400,
			want: "CPU request 99 exceeds maximum allowed per sandbox (4). Need higher",
		},
		{
			name: "quota", changeCloud: func(o *cloud.Options) { o.Organizations[0].Snapshots = 1 },
			existing: &cloud.Snapshot{Name: "other"}, posts: 1, left: 1, status: 400,
			want: "Maximum allowed: 1 (Daytona holds 1 of 1 snapshots: delete one",
		},
		{
			name: "region without a runner", change: func(r *Request) { r.Region = "void" }, posts: 1, status: 400,
			want: "No runners are configured in region 'Void' … (change the input region",
		},
		{
			name: "suspended", key: "dtn_suspended", posts: 1, status: 403,
			want: "Organization is suspended: unpaid (see https://app.daytona.io/dashboard/billing",
		},
		{
			name: "unknown region", change: func(r *Request) { r.Region = "mars" }, posts: 1, status: 404,
			want: "Region not found (set the input region to one listed at",
		},
		{
			name: "no permission", key: "dtn_read", posts: 1, status: 403,
			want: "use an API key with the write:snapshots permission",
		},
		{name: "another organization", organization: "org-2", posts: 1, want: "belongs to organization org-1, not to org-2"},
		{
			name: "another organization, delete fails", organization: "org-2", posts: 1, left: 1,
			faults: []cloud.Fault{{Method: "DELETE", Status: 403, Message: "Access denied"}},
			want:   "belongs to organization org-1 … delete snapshot app-1: Daytona returned 403",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startCloud(t, test.changeCloud)
			all := newClient(s, "dtn_all")
			_, ref, digest := push(t, all, image(t))
			if test.existing != nil {
				test.existing.Organization = "org-1"
				s.Put(*test.existing)
			}
			r := Request{
				Name: "app-1", Image: ref, Resources: Resources{2, 4, 10}, Entrypoint: []string{"sleep", "infinity"},
				Region: "us",
			}
			if test.change != nil {
				test.change(&r)
			}
			for _, f := range test.faults {
				s.Fail(f)
			}
			if test.post.Status != 0 || test.post.Hangup {
				test.post.Method, test.post.Path = "POST", "/snapshots"
				s.Fail(test.post)
			}
			c := newClient(s, cmp.Or(test.key, "dtn_all"))
			c.Organization = test.organization
			created, err := c.Create(t.Context(), r)
			checkError(t, err, test.want)
			if httpclient.Status(err) != test.status {
				t.Errorf("status %d, want %d", httpclient.Status(err), test.status)
			}
			if posts := countRequests(s, "POST"); posts != test.posts {
				t.Errorf("got %d requests, want %d", posts, test.posts)
			}
			s.ClearFaults()
			if err == nil {
				checkCreated(t, c, created, r, digest)
			}
			list, err := all.List(t.Context(), "")
			checkError(t, err, "")
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return s.State == Removing })
			if len(list) != test.left {
				t.Errorf("got %d snapshots at the end, want %d: %+v", len(list), test.left, list)
			}
		})
	}
}

func checkCreated(t *testing.T, c *Client, created Snapshot, r Request, digest string) {
	t.Helper()
	if created.Name != r.Name || created.Image != r.Image || created.Resources != r.Resources ||
		created.Regions[0] != r.Region || !slices.Equal(created.Entrypoint, r.Entrypoint) || created.Organization != "org-1" {
		t.Errorf("got %+v, want %+v", created, r)
	}
	active, err := c.WaitUntilActive(t.Context(), created.ID, digest, nil)
	if err != nil || active.SizeGB <= 0 || active.Used.IsZero() {
		t.Errorf("got %+v, %v", active, err)
	}
}

func TestCreateCanceled(t *testing.T) {
	interrupted := errors.New("interrupted")
	silentGet := cloud.Fault{Method: "GET", Path: "/snapshots/app-1", NoResponse: true}
	silentGetOnce := silentGet
	silentGetOnce.Times = 1 // so that Create is canceled while it looks for the snapshot
	const pushed = "the image that was pushed"
	for _, test := range []struct {
		name     string
		existing *cloud.Snapshot // with the same name
		post     cloud.Fault
		faults   []cloud.Fault
		grace    time.Duration
		want     string // in addition to the cause
		left     bool
	}{
		{name: "created, response pending", post: cloud.Fault{NoResponse: true, ReplaceResponse: true}},
		{
			name: "created, connection reset", post: cloud.Fault{Hangup: true, ReplaceResponse: true},
			faults: []cloud.Fault{silentGetOnce},
		},
		{
			name: "not created", post: cloud.Fault{NoResponse: true}, grace: 100 * time.Millisecond,
			want: "snapshot app-1 may have been created",
		},
		{
			name: "name taken by another image", existing: &cloud.Snapshot{Image: "other:1", State: "error"},
			post: cloud.Fault{NoResponse: true}, left: true,
		},
		{
			name: "active snapshot of the image", existing: &cloud.Snapshot{Image: pushed, State: "active"},
			post: cloud.Fault{NoResponse: true},
		},
		{
			name: "pending snapshot of the image", existing: &cloud.Snapshot{Image: pushed, State: "pending"},
			post: cloud.Fault{NoResponse: true},
		},
		{
			name: "delete fails", post: cloud.Fault{NoResponse: true, ReplaceResponse: true}, left: true,
			faults: []cloud.Fault{{Method: "DELETE", Status: 403, Message: "Access denied"}},
			want:   "delete snapshot app-1: Daytona returned 403",
		},
		{
			name: "Daytona does not respond", post: cloud.Fault{NoResponse: true, ReplaceResponse: true}, left: true,
			faults: []cloud.Fault{silentGet}, grace: 100 * time.Millisecond, want: "snapshot app-1 may have been created",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startCloud(t, nil)
			c := newClient(s, "dtn_all")
			c.Timing.ResponseGrace, c.Timing.CleanupGrace = 100*time.Millisecond, cmp.Or(test.grace, 30*time.Second)
			_, ref, _ := push(t, c, image(t))
			if test.existing != nil {
				existing := *test.existing
				existing.Organization, existing.Name = "org-1", "app-1"
				if existing.Image == pushed {
					existing.Image = ref
				}
				s.Put(existing)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			test.post.Method, test.post.Path = "POST", "/snapshots"
			for _, f := range append(test.faults, test.post, cloud.Fault{Snapshot: cloud.Stuck}) {
				s.Fail(f)
			}
			canceled := make(chan struct{})
			c.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				if test.post.Hangup && strings.HasSuffix(r.URL.Path, "/snapshots/app-1") { // Create looks for the snapshot
					cancel(interrupted)
				}
				return http.DefaultTransport.RoundTrip(r)
			})
			go func() {
				defer close(canceled)
				for test.post.ReplaceResponse && !test.post.Hangup { // until the snapshot exists
					if list, err := c.List(ctx, "app-1"); err != nil || len(list) == 1 {
						break
					}
				}
				if !test.post.Hangup {
					cancel(interrupted)
				}
			}()
			_, err := c.Create(ctx, Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
			if !errors.Is(err, interrupted) || (test.want == "" && err != interrupted) {
				t.Errorf("got %v, want the cause", err)
			}
			checkError(t, err, cmp.Or(test.want, "interrupted"))
			<-canceled
			s.ClearFaults()
			list, err := c.List(t.Context(), "")
			checkError(t, err, "")
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return s.State == Removing })
			if (len(list) == 1) != test.left {
				t.Errorf("snapshots at the end: %+v, want one: %v", list, test.left)
			}
		})
	}
}

// Create also deletes a snapshot if the response arrives after ctx has ended.
func TestCreateCanceledWithResponse(t *testing.T) {
	s := startCloud(t, nil)
	c := newClient(s, "dtn_all")
	_, ref, _ := push(t, c, image(t))
	s.Fail(cloud.Fault{Snapshot: cloud.Stuck})
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	_, err := c.Create(ctx, Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
	if err != interrupted {
		t.Errorf("got %v, want the cause", err)
	}
	if posts, deletes := countRequests(s, "POST"), countRequests(s, "DELETE"); posts != deletes {
		t.Errorf("%d snapshots were created and %d deleted", posts, deletes)
	}
}

// Daytona accepts an image by digest, and then fails to read it.
func TestCreateImage(t *testing.T) {
	c := &Client{Key: "dtn_all"}
	c.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		t.Errorf("%s %s was requested", r.Method, r.URL)
		return nil, io.EOF
	})
	for _, image := range []string{
		"h.example/p/a@sha256:" + strings.Repeat("a", 64), "h.example/p/a:1@sha256:" + strings.Repeat("a", 64),
		"h.example/p/a:sha256:" + strings.Repeat("a", 64), "h.example/p/a", "h.example/p/a:latest", "", "A B",
	} {
		_, err := c.Create(t.Context(), Request{Name: "app-1", Image: image})
		checkError(t, err, "create snapshot app-1: … is not an image with a tag other than latest")
	}
}

func TestCreateRequest(t *testing.T) {
	for _, test := range []struct {
		name    string
		request Request
		want    string
	}{
		{
			"complete", Request{
				Name: "a", Image: "h.example/p/a:1", Resources: Resources{1, 2, 3}, GPU: 1, SandboxClass: "linux-vm",
				Entrypoint: []string{"sh"}, Region: "eu",
			}, `{"name":"a","imageName":"h.example/p/a:1","entrypoint":["sh"],"cpu":1,"gpu":1,"memory":2,"disk":3,` +
				`"regionId":"eu","sandboxClass":"linux-vm"}`,
		},
		{
			"defaults", Request{Name: "a", Image: "h.example/p/a:1", Resources: Resources{1, 2, 3}},
			`{"name":"a","imageName":"h.example/p/a:1","cpu":1,"memory":2,"disk":3}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var body []byte
			c := &Client{Key: "dtn_all"}
			c.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				var err error
				body, err = io.ReadAll(r.Body)
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(
					`{"id": "1", "name": "a", "state": "pending", "gpu": 1, "sandboxClass": "linux-vm", "initialRunnerId": "r"}`,
				))}, err
			})
			created, err := c.Create(t.Context(), test.request)
			checkError(t, err, "")
			var got, want any
			if json.Unmarshal(body, &got) != nil || json.Unmarshal([]byte(test.want), &want) != nil ||
				!reflect.DeepEqual(got, want) {
				t.Errorf("sent %s, want %s", body, test.want)
			}
			if created.GPU != 1 || created.SandboxClass != "linux-vm" || created.Runner != "r" {
				t.Errorf("got %+v", created)
			}
		})
	}
}
