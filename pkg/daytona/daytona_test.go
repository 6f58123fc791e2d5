package daytona

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
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
	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

func TestMain(m *testing.M) {
	firstWait, firstStep, longestStep = time.Millisecond, time.Millisecond, 5*time.Millisecond
	os.Exit(m.Run())
}

// set changes a variable for a test.
func set[T any](t *testing.T, variable *T, value T) {
	before := *variable
	*variable = value
	t.Cleanup(func() { *variable = before })
}

// A user's token is known by its shape.
const user = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyLTEifQ.c2ln"

func start(t *testing.T, change func(*cloud.Options)) *cloud.Server {
	t.Helper()
	r, err := registry.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	all := []string{WriteSnapshots, DeleteSnapshots}
	o := cloud.Options{
		Registry: r,
		Organizations: []cloud.Organization{
			{
				ID: "org-1", Name: "one", UserTokens: []string{user}, Snapshots: 9,
				Regions: []cloud.Region{{ID: "us", Name: "US"}, {ID: "eu", Name: "EU", MaxCPU: 2}, {ID: "void", Name: "Void", Empty: true}},
				Keys: []cloud.Key{
					{Name: "all", Value: "dtn_all", Permissions: all, Expires: time.Date(2100, 1, 2, 0, 0, 0, 0, time.UTC)},
					{Name: "reader", Value: "dtn_reader"},
					{Name: "keeper", Value: "dtn_keeper", Permissions: []string{WriteSnapshots}},
					{Name: "old", Value: "dtn_old", Permissions: all, Expires: time.Now().Add(-time.Second)},
				},
			},
			{ID: "org-2", Name: "two", Regions: []cloud.Region{{ID: "asia", Name: "Asia"}}, Keys: []cloud.Key{{Name: "other", Value: "dtn_other", Permissions: all}}},
			{ID: "org-3", Name: "three", Suspended: "unpaid", Regions: []cloud.Region{{ID: "us", Name: "US"}}, Keys: []cloud.Key{{Name: "k", Value: "dtn_suspended", Permissions: all}}},
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

// says fails the test unless an error says all of this; "" is no error.
func says(t *testing.T, err error, want string) {
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
			t.Errorf("%q, want %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a sentence: %q", err)
	}
}

func TestMe(t *testing.T) {
	s := start(t, nil)
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "one's"})
	s.Put(cloud.Snapshot{Name: "daytona", General: true})
	for _, test := range []struct {
		name, key, organization string
		missing                 string
		want                    string
	}{
		{name: "a key", key: "dtn_all", organization: "org-1"},
		{name: "a key alone", key: "dtn_all"},
		{name: "a key without permissions", key: "dtn_reader", missing: "write:snapshots delete:snapshots"},
		{name: "a key that can not delete", key: "dtn_keeper", missing: "delete:snapshots"},
		{name: "a user", key: user, organization: "org-1"},
		{name: "a user without an organization", key: user, want: "a user's token needs an organization: give daytona_organization_id"},
		{name: "a user of another organization", key: user, organization: "org-2", want: "Daytona answered 403, Invalid authentication context: the key or its user is not one of that organization"},
		{name: "a key of another organization", key: "dtn_all", organization: "org-2", want: "the Daytona key is one of the organization org-1, not of org-2: give the key"},
		{name: "a key of one without snapshots", key: "dtn_other", organization: "org-1"}, // Create sees it
		{name: "an expired key", key: "dtn_old", want: "check the Daytona key: Daytona answered 401, Invalid credentials: give a daytona_api_key that is valid and has not expired"},
		{name: "no key", want: "there is no key: give daytona_api_key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Client{URL: s.URL(), Key: test.key, Organization: test.organization}
			me, err := c.Me(t.Context())
			says(t, err, test.want)
			if err != nil {
				return
			}
			if got := strings.Join(me.Missing(WriteSnapshots, DeleteSnapshots), " "); got != test.missing {
				t.Errorf("it lacks %q, want %q", got, test.missing)
			}
			if test.key == "dtn_all" && (me.Name != "all" || me.Expires.Year() != 2100) {
				t.Errorf("%+v", me)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	s := start(t, nil)
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "there"})
	for _, test := range []struct {
		name, key, region string
		limits            Limits
		want              string
	}{
		{name: "a key", key: "dtn_all", limits: Limits{Sandbox: Resources{4, 8, 10}}},
		{name: "a key in a region with its own", key: "dtn_all", region: "eu", limits: Limits{Sandbox: Resources{2, 8, 10}}},
		{name: "a user", key: user, limits: Limits{Resources{4, 8, 10}, 9, 1}},
		{name: "a user in a region with its own", key: user, region: "eu", limits: Limits{Resources{2, 8, 10}, 9, 1}},
		{name: "no permission", key: "dtn_reader", want: "403, Access denied: the key lacks the permission write:snapshots"},
		{name: "no such region", key: "dtn_all", region: "mars", want: `404, Region not found: there is no region "mars" for this organization`},
		{name: "others' region", key: "dtn_all", region: "asia", want: "Region asia is not available to the organization"},
		{name: "no runner there", key: "dtn_all", region: "void", want: "No runners are configured in region 'Void' … correct the input region"},
		{name: "suspended", key: "dtn_suspended", want: "Organization is suspended: unpaid: the key or its user is not one of that organization, or the organization may not do it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Client{URL: s.URL(), Key: test.key, Organization: "org-1"}
			limits, err := c.Limits(t.Context(), test.region)
			says(t, err, test.want)
			if limits != test.limits {
				t.Errorf("%+v, want %+v", limits, test.limits)
			}
			list, err := c.List(t.Context(), "")
			if err == nil && test.key != "dtn_suspended" && len(list) != 1 {
				t.Errorf("to ask has made a snapshot: %v", list)
			}
		})
	}
	t.Run("an organization without limits", func(t *testing.T) {
		s := start(t, func(o *cloud.Options) {
			o.Organizations[0].MaxCPU, o.Organizations[0].MaxMemory, o.Organizations[0].MaxDisk = 1<<31-1, 1<<31-1, 5
		})
		c := &Client{URL: s.URL(), Key: "dtn_all"}
		s.Put(cloud.Snapshot{Organization: "org-1", Name: "sandbox-actions-asks-for-the-limit-of-memory"}) // another run does
		limits, err := c.Limits(t.Context(), "")
		says(t, err, "")
		if limits != (Limits{Sandbox: Resources{Disk: 5}}) {
			t.Errorf("%+v", limits)
		}
		if list, err := c.List(t.Context(), "sandbox-actions-asks-for-the-limit-of-cpu"); err != nil || (len(list) > 0 && list[0].State != Removing) {
			t.Errorf("it is left: %v, %v", list, err)
		}
	})
}

func TestRegionsAndPushAccess(t *testing.T) {
	s := start(t, nil)
	var masked []string
	c := &Client{URL: s.URL() + "/", Key: "dtn_all", Organization: "org-1", Mask: func(secret string) { masked = append(masked, secret) }}
	regions, err := c.Regions(t.Context())
	says(t, err, "")
	if fmt.Sprint(regions) != "[{us US} {eu EU} {void Void}]" {
		t.Error(regions)
	}
	access, err := c.PushAccess(t.Context(), "eu")
	says(t, err, "")
	if access.Registry != s.RegistryHost() || access.Project != "sbox-transient" || !strings.HasPrefix(access.User, "robot$sbox-transient+") || time.Until(access.Expires) < 50*time.Minute {
		t.Errorf("%+v", access)
	}
	if !slices.Equal(masked, []string{access.Secret}) {
		t.Errorf("masked: %q", masked)
	}
	_, err = (&Client{URL: s.URL(), Key: "dtn_reader"}).PushAccess(t.Context(), "")
	says(t, err, "ask Daytona for access to its registry: Daytona answered 403, Access denied: the key lacks the permission write:snapshots")
	u := &Client{URL: s.URL(), Key: user, Organization: "org-1"}
	for what, err := range map[string]error{
		"regions":     second(u.Regions(t.Context())),
		"push access": second(u.PushAccess(t.Context(), "")),
		"list":        second(u.List(t.Context(), "")),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i, r := range s.Requests() {
		if named := r.Organization != ""; named != (i > 2) { // the first three are with keys
			t.Errorf("%s: the header names %q", r.Path, r.Organization)
		}
	}
}

func TestRegion(t *testing.T) {
	c := &Client{URL: start(t, nil).URL(), Key: "dtn_all"}
	for _, test := range []struct {
		wanted string
		found  Region
		want   string
	}{
		{wanted: ""},
		{wanted: "eu", found: Region{"eu", "EU"}},
		{wanted: "Void", found: Region{"void", "Void"}},
		{wanted: "mars", want: `the organization has no region "mars": give one of us, eu, void, or none`},
	} {
		found, err := c.Region(t.Context(), test.wanted)
		says(t, err, test.want)
		if found != test.found {
			t.Errorf("%s: %v", test.wanted, found)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestErrors(t *testing.T) {
	s := start(t, nil)
	for _, test := range []struct {
		name     string
		fault    cloud.Fault
		requests int
		want     string
	}{
		{"a message", cloud.Fault{Status: 400, Message: "bad\nthing."}, 1, "list Daytona's regions: Daytona answered 400, bad thing: correct that input"},
		{"401", cloud.Fault{Status: 401, Message: "Invalid credentials"}, 1, "401, Invalid credentials: give a daytona_api_key"},
		{"403", cloud.Fault{Status: 403, Message: "Access denied"}, 1, "403, Access denied: the key or its user is not one of that organization"},
		{"404", cloud.Fault{Status: 404, Message: "gone"}, 1, "404, gone: check DAYTONA_API_URL and the organization"},
		{"409", cloud.Fault{Status: 409, Message: "in use"}, 1, "409, in use: it is taken or in use"},
		{"429 once", cloud.Fault{Status: 429, Message: "ThrottlerException: Too Many Requests", Times: 1}, 2, ""},
		{"429 once, and how long to wait", cloud.Fault{Status: 429, Message: "slow", Times: 1, Header: map[string]string{"Retry-After": "1"}}, 2, ""},
		{"429 for long", cloud.Fault{Status: 429, Message: "slow", Header: map[string]string{"Retry-After-authenticated": "3600"}}, 1, "429, slow: Daytona asks to slow down"},
		{"429 for ever", cloud.Fault{Status: 429, Message: "slow"}, 4, "429, slow: Daytona asks to slow down"},
		{"500 once", cloud.Fault{Status: 500, Message: "An unexpected error occurred.", Times: 1}, 2, ""},
		{"500 for ever", cloud.Fault{Status: 500, Message: "An unexpected error occurred."}, 4, "500, An unexpected error occurred: it failed 4 times: try again later"},
		{"a proxy's page", cloud.Fault{Status: 502, Body: "<html>"}, 4, "Daytona answered 502, which is not Daytona's way of answering: it failed 4 times"},
		{"a page instead of an answer", cloud.Fault{Status: 200, Body: "<html>"}, 1, "Daytona answered 200, which is not Daytona's way of answering: check DAYTONA_API_URL (" + s.URL() + "), which ends in /api"},
		{"garbage", cloud.Fault{Status: 200, Body: "[{", Header: map[string]string{"Content-Type": "application/json"}}, 1, "200, which is not Daytona's way"},
		{"another kind of JSON", cloud.Fault{Status: 200, Body: "{}", Header: map[string]string{"Content-Type": "application/json"}}, 1, "200, which is not Daytona's way"},
		{"parts missing", cloud.Fault{Status: 200, Body: "[{}]", Header: map[string]string{"Content-Type": "application/json"}}, 1, "200, which is not Daytona's way"},
		{"nothing", cloud.Fault{Status: 200, Body: "null", Header: map[string]string{"Content-Type": "application/json"}}, 1, "200, which is not Daytona's way"},
		{"a page that refuses", cloud.Fault{Status: 403, Body: "<html>"}, 1, "403, which is not Daytona's way"},
		{"elsewhere", cloud.Fault{Status: 302, Body: "x", Header: map[string]string{"Location": "http://127.0.0.1:1/"}}, 1, "302, which is not Daytona's way"},
		{"a broken connection once", cloud.Fault{Break: true, Times: 1}, 2, ""},
		{"a broken connection", cloud.Fault{Break: true}, 4, "list Daytona's regions: " + s.URL() + " can not be reached … EOF … check the network and DAYTONA_API_URL"},
		{"silence", cloud.Fault{Silence: true}, 4, s.URL() + " did not answer within 100ms: check the network"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.fault.Silence {
				set(t, &callTimeout, 100*time.Millisecond)
			}
			test.fault.Path = "/regions"
			s.Fail(test.fault)
			defer s.Heal()
			before := len(s.Requests())
			_, err := (&Client{URL: s.URL(), Key: "dtn_all"}).Regions(t.Context())
			says(t, err, test.want)
			if n := len(s.Requests()) - before; n != test.requests && !test.fault.Silence && !test.fault.Break { // of those it is noted late
				t.Errorf("%d requests, want %d", n, test.requests)
			}
			if failed := new(Error); err != nil && (!errors.As(err, &failed) || failed.Status != test.fault.Status) {
				t.Errorf("%#v", err)
			}
			if err != nil && strings.Contains(err.Error(), "dtn_") {
				t.Errorf("the key is in %q", err)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		_, err := (&Client{URL: "http://127.0.0.1:1/api", Key: "dtn_all"}).Regions(t.Context())
		says(t, err, "http://127.0.0.1:1/api can not be reached … connection refused … check the network and DAYTONA_API_URL")
	})
	t.Run("no API", func(t *testing.T) {
		_, err := (&Client{URL: strings.TrimSuffix(s.URL(), "/api"), Key: "dtn_all"}).Regions(t.Context())
		says(t, err, "Daytona answered 200, which is not Daytona's way of answering: check DAYTONA_API_URL")
	})
	t.Run("cancelled", func(t *testing.T) {
		s.Fail(cloud.Fault{Silence: true})
		defer s.Heal()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
		if _, err := (&Client{URL: s.URL(), Key: "dtn_all"}).Regions(ctx); err != why {
			t.Error(err)
		}
	})
}

// image is a small one for linux/amd64.
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

// push pushes an image and answers its name with the digest.
func push(t *testing.T, c *Client, img v1.Image) (PushAccess, string) {
	t.Helper()
	access, err := c.PushAccess(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(access.Registry + "/" + access.Project + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: access.User, Password: access.Secret})); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return access, ref.Context().Digest(digest.String()).String()
}

func TestCreate(t *testing.T) {
	for _, test := range []struct {
		name         string
		there        *cloud.Snapshot // already
		fault        cloud.Fault
		key          string
		organization string
		change       func(*Request)
		posts        int
		want         string
		left         int // snapshots, in the end
	}{
		{name: "as it should", posts: 1, left: 1},
		{name: "carried out, and the connection broke", fault: cloud.Fault{Break: true, After: true, Times: 1}, posts: 1, left: 1},
		{name: "carried out, and a proxy failed", fault: cloud.Fault{Status: 504, Body: "<html>", After: true, Times: 1}, posts: 1, left: 1},
		{name: "carried out, and another answer", fault: cloud.Fault{Status: 200, Body: "<html>", After: true, Times: 1}, posts: 1, left: 1},
		{name: "not carried out", fault: cloud.Fault{Break: true, Times: 1}, posts: 2, left: 1},
		{name: "500 once", fault: cloud.Fault{Status: 500, Times: 1}, posts: 2, left: 1},
		{name: "500 for ever", fault: cloud.Fault{Status: 500, Message: "oh"}, posts: 4, want: "make the snapshot app-1: Daytona answered 500, oh: try again later"},
		{name: "429 once", fault: cloud.Fault{Status: 429, Times: 1}, posts: 2, left: 1},
		{name: "a taken name", there: &cloud.Snapshot{Name: "app-1", State: "error"}, posts: 1, left: 1, want: `409, Snapshot with name "app-1" already exists for this organization: it is taken`},
		{
			name: "a doubt, and a taken name", there: &cloud.Snapshot{Name: "app-1", Image: "other:1"}, fault: cloud.Fault{Status: 500, Times: 1}, posts: 2, left: 1,
			want: `409, Snapshot with name "app-1" already exists`,
		},
		{name: "over quota", change: func(r *Request) { r.Resources.CPU = 99 }, posts: 1, want: "400, CPU request 99 exceeds maximum allowed per sandbox (4). Need higher"},
		{name: "no such region", change: func(r *Request) { r.Region = "mars" }, posts: 1, want: `404, Region not found: there is no region "mars"`},
		{name: "no permission", key: "dtn_reader", posts: 1, want: "403, Access denied: the key lacks the permission write:snapshots"},
		{name: "another organization", organization: "org-2", posts: 1, want: "the Daytona key is one of the organization org-1, not of org-2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, nil)
			all := &Client{URL: s.URL(), Key: "dtn_all"}
			_, ref := push(t, all, image(t))
			if test.there != nil {
				test.there.Organization = "org-1"
				s.Put(*test.there)
			}
			r := Request{Name: "app-1", Image: ref, Resources: Resources{2, 4, 10}, Entrypoint: []string{"sleep", "infinity"}, Region: "us"}
			if test.change != nil {
				test.change(&r)
			}
			if test.fault.Status != 0 || test.fault.Break {
				test.fault.Method, test.fault.Path = "POST", "/snapshots"
				s.Fail(test.fault)
			}
			c := &Client{URL: s.URL(), Key: "dtn_all", Organization: test.organization}
			if test.key != "" {
				c.Key = test.key
			}
			made, err := c.Create(t.Context(), r)
			says(t, err, test.want)
			posts := 0
			for _, r := range s.Requests() {
				if r.Method == "POST" && !r.Registry {
					posts++
				}
			}
			if posts != test.posts {
				t.Errorf("%d requests, want %d", posts, test.posts)
			}
			s.Heal()
			if err == nil {
				if made.Name != "app-1" || made.Image != ref || made.Resources != r.Resources || made.Regions[0] != "us" || made.Entrypoint[1] != "infinity" || made.Organization != "org-1" {
					t.Errorf("%+v", made)
				}
				if made, err = c.Wait(t.Context(), made.ID, nil); err != nil || "@"+made.Digest != ref[strings.Index(ref, "@"):] || made.SizeGB <= 0 || made.Used.IsZero() {
					t.Errorf("%+v, %v", made, err)
				}
			}
			list, err := all.List(t.Context(), "")
			says(t, err, "")
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return s.State == Removing })
			if len(list) != test.left {
				t.Errorf("%d snapshots are left: %+v", len(list), list)
			}
		})
	}
}

func TestCreateCancelled(t *testing.T) {
	set(t, &graceOfAnswer, 100*time.Millisecond)
	why := errors.New("why")
	get := cloud.Fault{Method: "GET", Path: "/snapshots/app-1", Silence: true, Times: 1} // the look that follows is what is cancelled
	for _, test := range []struct {
		name   string
		there  *cloud.Snapshot // of that name, already
		post   cloud.Fault
		others []cloud.Fault
		grace  time.Duration
		want   string
		left   bool
	}{
		{name: "with the answer on its way", post: cloud.Fault{Silence: true, After: true}},
		{name: "with a broken connection", post: cloud.Fault{Break: true, After: true}, others: []cloud.Fault{get}},
		{name: "before it was carried out", post: cloud.Fault{Silence: true}},
		{name: "when the name is another's", there: &cloud.Snapshot{Image: "other:1", State: "error"}, post: cloud.Fault{Silence: true}, left: true},
		{
			name: "and it can not be deleted", post: cloud.Fault{Silence: true, After: true}, others: []cloud.Fault{{Method: "DELETE", Status: 403, Message: "Access denied"}},
			want: "why; the snapshot app-1 was made and could not be deleted: delete it by `action-snapshot delete app-1`", left: true,
		},
		{
			name: "and Daytona is silent", post: cloud.Fault{Silence: true, After: true}, others: []cloud.Fault{{Method: "GET", Path: "/snapshots/app-1", Silence: true}}, grace: 100 * time.Millisecond,
			want: "why; whether the snapshot app-1 was made is not known", left: true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			set(t, &graceOfDelete, cmp.Or(test.grace, 30*time.Second))
			s := start(t, nil)
			c := &Client{URL: s.URL(), Key: "dtn_all"}
			_, ref := push(t, c, image(t))
			if test.there != nil {
				test.there.Organization, test.there.Name = "org-1", "app-1"
				s.Put(*test.there)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			test.post.Method, test.post.Path = "POST", "/snapshots"
			for _, f := range append(test.others, test.post, cloud.Fault{Snapshot: cloud.Stuck}) {
				s.Fail(f)
			}
			cancelled := make(chan struct{})
			go func() {
				defer close(cancelled)
				defer cancel(why)
				for test.post.After { // until it is carried out
					if list, err := c.List(ctx, "app-1"); err != nil || len(list) == 1 {
						return
					}
				}
			}()
			_, err := c.Create(ctx, Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
			says(t, err, cmp.Or(test.want, "why"))
			if !errors.Is(err, why) || (test.want == "" && err != why) {
				t.Error(err)
			}
			<-cancelled
			s.Heal()
			for {
				list, err := c.List(t.Context(), "")
				if err != nil || len(list) == 0 {
					says(t, err, "")
					if test.left {
						t.Error("it is gone")
					}
					break
				}
				if list[0].State != Removing {
					if !test.left {
						t.Errorf("it is left: %+v", list[0])
					}
					break
				}
			}
		})
	}
}

func TestWait(t *testing.T) {
	old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name   string
		there  *cloud.Snapshot // else one of a pushed image
		fault  cloud.SnapshotFault
		state  State
		states string
		want   string
		log    string
	}{
		{name: "as it should", state: Active, states: "pending pulling active"},
		{name: "a state that nobody knows", fault: cloud.Strange, state: Active, states: "pending pulling propagating active"},
		{name: "active, and then not", fault: cloud.Falls, state: Failed, states: "pending pulling active error", want: "the snapshot app-1 is in the state error: Timeout processing snapshot on initial runner: Daytona was too slow for it"},
		{
			name: "an image that is not there", there: &cloud.Snapshot{State: "error", Reason: "GET http://r/v2/a/manifests/1: MANIFEST_UNKNOWN: manifest unknown"}, state: Failed, states: "error",
			want: "MANIFEST_UNKNOWN: manifest unknown: the registry does not have the image: push it again",
		},
		{
			name: "a build that failed", there: &cloud.Snapshot{State: "build_failed", Log: strings.Repeat("line\n", 30) + "step 2 failed\n"}, state: BuildFailed, states: "build_failed",
			want: "in the state build_failed: step 2 failed: try again, and ask Daytona", log: strings.Repeat("line\n", 19) + "step 2 failed",
		},
		{name: "no reason", there: &cloud.Snapshot{State: "error"}, state: Failed, states: "error", want: "is in the state error: Daytona does not say why: try again"},
		{name: "switched off", there: &cloud.Snapshot{State: "inactive", Created: old}, state: Inactive, states: "inactive", want: "was switched off by somebody else"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, func(o *cloud.Options) { o.Linger = 1 })
			c := &Client{URL: s.URL(), Key: "dtn_all"}
			var id string
			if test.there != nil {
				test.there.Organization, test.there.Name = "org-1", "app-1"
				id = s.Put(*test.there)
			} else {
				_, ref := push(t, c, image(t))
				if test.fault != "" {
					s.Fail(cloud.Fault{Snapshot: test.fault})
				}
				made, err := c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
				if err != nil {
					t.Fatal(err)
				}
				id = made.ID
			}
			var states []string
			var last time.Duration
			got, err := c.Wait(t.Context(), id, func(s Snapshot, since time.Duration) {
				if len(states) == 0 || states[len(states)-1] != string(s.State) {
					states, last = append(states, string(s.State)), 0
				}
				if since < last {
					t.Errorf("%s since %s, and before that since %s", s.State, since, last)
				}
				last = since
			})
			says(t, err, test.want)
			if got.State != test.state || strings.Join(states, " ") != test.states {
				t.Errorf("%s by %q, want %s by %q", got.State, states, test.state, test.states)
			}
			if failure := new(Failure); errors.As(err, &failure) && failure.Log != test.log {
				t.Errorf("the log: %q", failure.Log)
			}
		})
	}
}

// The reasons are those of Daytona's runners, of Docker and of registries.
func TestCures(t *testing.T) {
	for _, test := range []struct{ reason, want string }{
		{"Snapshot size (21.50GB) exceeds maximum allowed size of 20GB", "make the image smaller, or ask Daytona"},
		{"image sha256:12 architecture (arm64) is not x64 compatible", "build it for linux/amd64"},
		{"no matching manifest for linux/amd64 in the manifest list entries", "build it for linux/amd64"},
		{"failed to register layer: write /usr/lib/x: no space left on device", "the runner's disk is full"},
		{"Timeout while pulling snapshot to runner", "Daytona was too slow"},
		{"container exited with code 3 at once: nothing to do", "give an entrypoint that runs on"},
		{`exec: "slep": executable file not found in $PATH`, "correct the entrypoint"},
		{"BLOB_UNKNOWN: blob unknown to registry", "the registry has lost a part of the image"},
		{"artifact sbox/app:1 not found", "the registry does not have the image"},
		{"pull access denied for app, repository does not exist", "Daytona may not read the image"},
		{"open /x: permission denied", "try again, and ask Daytona"},
	} {
		err := &Failure{Snapshot: Snapshot{Name: "app-1", State: Failed, Reason: test.reason}}
		says(t, err, "the snapshot app-1 is in the state error: "+test.reason+": "+test.want)
	}
}

func TestWaitEnds(t *testing.T) {
	s := start(t, nil)
	c := &Client{URL: s.URL(), Key: "dtn_all"}
	_, ref := push(t, c, image(t))
	s.Fail(cloud.Fault{Snapshot: cloud.Stuck})
	made, err := c.Create(t.Context(), Request{Name: "app-1", Image: ref, Resources: Resources{1, 1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("the timeout is over")
	t.Run("with the context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		looks := 0
		got, err := c.Wait(ctx, made.ID, func(Snapshot, time.Duration) {
			if looks++; looks == 3 {
				cancel(why)
			}
		})
		if !errors.Is(err, why) || got.State != Pending {
			t.Errorf("%+v, %v", got, err)
		}
		says(t, err, "the timeout is over; the snapshot app-1 has been pending for … s: the Snapshots page of Daytona's dashboard may say why")
	})
	t.Run("with the context, before anything is known", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if _, err := c.Wait(ctx, made.ID, nil); err != why {
			t.Error(err)
		}
	})
	t.Run("when Daytona does not answer for long", func(t *testing.T) {
		set(t, &outage, 0)
		s.Fail(cloud.Fault{Status: 503, Message: "down"})
		_, err := c.Wait(t.Context(), made.ID, nil)
		says(t, err, "Daytona answered 503, down: it failed 4 times")
	})
	s.Heal()
	t.Run("not when it does not for a while, but when it is deleted", func(t *testing.T) {
		s.Fail(cloud.Fault{Status: 503, Message: "down", Times: 9})
		s.Fail(cloud.Fault{Status: 429, Message: "slow", Times: 9})
		_, err := c.Wait(t.Context(), made.ID, func(Snapshot, time.Duration) {
			says(t, c.Delete(t.Context(), made.ID), "")
		})
		says(t, err, "the snapshot app-1 was deleted by somebody else while it was waited for")
	})
	t.Run("when the key is taken away", func(t *testing.T) {
		s.Fail(cloud.Fault{Status: 401, Message: "Invalid credentials"})
		defer s.Heal()
		_, err := c.Wait(t.Context(), made.ID, nil)
		says(t, err, "look at the snapshot "+made.ID+": Daytona answered 401")
	})
}

func TestFindListDeleteActivate(t *testing.T) {
	s := start(t, func(o *cloud.Options) { o.Organizations[0].Snapshots = 1000; o.Linger = 1 })
	c, ctx := &Client{URL: s.URL(), Key: "dtn_all"}, t.Context()
	_, ref := push(t, c, image(t))
	old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const many = 250
	for i := range many {
		s.Put(cloud.Snapshot{Organization: "org-1", Name: fmt.Sprintf("app_%03d", i), Image: ref, State: "inactive", Created: old.Add(time.Duration(i) * time.Minute)})
	}
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "my-app_1"})
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "APP_1"})
	s.Put(cloud.Snapshot{Name: "app_of_daytona", General: true})
	digest := "sha256:" + strings.Repeat("ab", 32)
	s.Put(cloud.Snapshot{Organization: "org-1", Name: "kept", Image: "r/app:1", Digest: digest, State: "error", Reason: "no", CPU: 2, Memory: 4, Disk: 10, Region: "eu"})

	list, err := c.List(ctx, "app_")
	says(t, err, "")
	if len(list) != many || list[0].Name != "app_249" || list[many-1].Name != "app_000" {
		t.Errorf("%d snapshots", len(list))
	}
	kept, found, err := c.Find(ctx, "kept")
	if err != nil || !found || kept.Digest != digest || kept.State != Failed || kept.Reason != "no" || kept.Resources != (Resources{2, 4, 10}) || kept.Regions[0] != "eu" {
		t.Errorf("%+v, %v, %v", kept, found, err)
	}
	for _, absent := range []string{"nothing", "app_of_daytona", kept.ID} {
		if _, found, err := c.Find(ctx, absent); found || err != nil {
			t.Errorf("%s: %v, %v", absent, found, err)
		}
	}

	idle, _, err := c.Find(ctx, "app_007")
	says(t, err, "")
	for range 2 { // the second finds it done
		now, err := c.Activate(ctx, idle.ID)
		if err != nil || now.State == Inactive {
			t.Errorf("%+v, %v", now, err)
		}
		_, err = c.Wait(ctx, idle.ID, nil)
		says(t, err, "")
	}
	s.Fail(cloud.Fault{Method: "POST", Status: 502, Body: "<html>", After: true, Times: 1})
	another, _, err := c.Find(ctx, "app_008")
	says(t, err, "")
	_, err = c.Activate(ctx, another.ID)
	says(t, err, "")
	_, err = c.Activate(ctx, kept.ID)
	says(t, err, "activate the snapshot "+kept.ID+": Daytona answered 400 … cannot be activated - it is in error state")

	says(t, (&Client{URL: s.URL(), Key: "dtn_keeper"}).Delete(ctx, kept.ID), "delete the snapshot "+kept.ID+": Daytona answered 403, Access denied: the key lacks the permission delete:snapshots")
	s.Fail(cloud.Fault{Method: "DELETE", Status: http.StatusConflict, Message: "Snapshot is in use", Times: 1})
	err = c.Delete(ctx, kept.ID)
	if failed := new(Error); !errors.As(err, &failed) || failed.Status != http.StatusConflict {
		t.Error(err)
	}
	says(t, c.WaitGone(ctx, kept.ID), "the snapshot kept was deleted, and is error again")
	s.Fail(cloud.Fault{Method: "DELETE", Break: true, After: true, Times: 1})
	says(t, c.Delete(ctx, kept.ID), "")
	ended, end := context.WithCancelCause(ctx)
	end(errors.New("why"))
	says(t, c.WaitGone(ended, kept.ID), "why")
	says(t, c.WaitGone(ctx, kept.ID), "")
	says(t, c.Delete(ctx, kept.ID), "")
	if _, found, err := c.Find(ctx, "kept"); found || err != nil {
		t.Error(found, err)
	}
}

func TestWaitForImage(t *testing.T) {
	s := start(t, func(o *cloud.Options) { o.Late = 3 })
	c := &Client{URL: s.URL(), Key: "dtn_all"}
	access, ref := push(t, c, image(t))
	digest, err := access.WaitForImage(t.Context(), ref)
	if err != nil || !strings.HasSuffix(ref, "@"+digest) {
		t.Errorf("%q, %v, want that of %s", digest, err, ref)
	}
	where, _, _ := strings.Cut(ref, "@")
	set(t, &appears, 50*time.Millisecond)
	_, err = access.WaitForImage(t.Context(), where+":none")
	says(t, err, "look for "+where+":none in Daytona's registry: it was pushed, and is not there after 50ms: run it again")
	set(t, &appears, time.Minute)
	access.Secret = "wrong"
	_, err = access.WaitForImage(t.Context(), ref)
	says(t, err, "the registry answered 401: its access has ended")
	_, err = access.WaitForImage(t.Context(), "A B")
	says(t, err, "it is no image's name")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = access.WaitForImage(ctx, ref); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
