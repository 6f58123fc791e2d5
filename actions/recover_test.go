package actions

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/org/sandbox-actions/internal/fakeclock"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// cloud is a stand-in for Daytona, with a client for it.
type cloud struct {
	*cloudaytona.Server
	client daytona.Client
	spec   inputs.SnapshotSpec
	suite  string // content of suite.yaml in the workspace
}

// Organization and keys of the stand-in.
const (
	organization = "org-1"
	fullKey      = "dtn_all"
	writeKey     = "dtn_write"
	userToken    = "eyJh.eyJi.c"
)

func startDaytona(t *testing.T, change func(*cloudaytona.Options)) cloud {
	t.Helper()
	r, err := registry.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	write := []string{cloudaytona.WriteSnapshots}
	options := cloudaytona.Options{Registry: r, Organizations: []cloudaytona.Organization{{
		ID: organization, Name: "one", UserTokens: []string{userToken},
		Regions: []cloudaytona.Region{{ID: "us", Name: "US"}, {ID: "eu", Name: "EU"}},
		Keys: []cloudaytona.Key{
			{Name: "all", Value: fullKey, Permissions: append(write, cloudaytona.DeleteSnapshots)},
			{Name: "write", Value: writeKey, Permissions: write},
		},
	}}}
	if change != nil {
		change(&options)
	}
	s, err := cloudaytona.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	timing := daytona.Timing{MinPoll: time.Millisecond, MaxPoll: 10 * time.Millisecond, Missing: 50 * time.Millisecond}
	return cloud{s, daytona.Client{URL: s.URL(), Key: fullKey, Timing: timing}, inputs.SnapshotSpec{
		Image: "layout", NamePrefix: "agent", Resources: daytona.Resources{CPU: 1, Memory: 1, Disk: 1},
		IfExists: inputs.Reuse, Attempts: 3,
	}, ""}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// testImage returns an image with an ENTRYPOINT and a CMD.
func testImage(t *testing.T) v1.Image {
	t.Helper()
	img := imageOf(t, layerOf(t, tarFile{"bin/sh", 0o755, "x"}, tarFile{"init", 0o755, t.Name()}))
	config := &v1.ConfigFile{OS: "linux", Architecture: inputs.SnapshotPlatform[len("linux/"):]}
	config.Config.Entrypoint, config.Config.Cmd = []string{"/init"}, []string{"-x"}
	original, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.RootFS = original.RootFS
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// ensured is the result of ensureSnapshot.
type ensured struct {
	upload   imageUpload
	snapshot daytona.Snapshot
	log      string
	err      error
}

// ensure calls ensureSnapshot with the client, the spec, the region that preflight finds, and an existing image.
func (c cloud) ensure(ctx context.Context, t *testing.T, img v1.Image) ensured {
	t.Helper()
	job, _, stderr := testJob(t, nil)
	target := snapshotTarget{Client: c.client}
	var err error
	if target.Region, err = checkRegion(t.Context(), c.client, c.spec); err != nil {
		return ensured{err: err}
	}
	if target.Limits, err = readLimits(t.Context(), c.client, c.spec, target.Region); err != nil {
		return ensured{err: err}
	}
	session := snapshotSession{Image: existingImage{Image: img}}
	c.spec.Verify = inputs.VerifyOff
	created, err := ensureSnapshots(ctx, job, c.spec, session, []snapshotTarget{target})
	if err != nil {
		return ensured{log: stderr.String(), err: err}
	}
	return ensured{created[0].Upload, created[0].Snapshot, stderr.String(), nil}
}

// names lists the snapshots that Daytona is not removing.
func (c cloud) names(t *testing.T) []string {
	t.Helper()
	list, err := c.client.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list {
		if s.State != daytona.Removing {
			names = append(names, s.Name+" "+string(s.State))
		}
	}
	slices.Sort(names)
	return names
}

// repositories lists the repositories to which the program pushed a manifest.
func (c cloud) repositories() []string {
	var repositories []string
	for _, r := range c.Requests() {
		if r.Registry && r.Method == "PUT" && strings.Contains(r.Path, "/manifests/") {
			repositories = append(repositories, r.Path[:strings.Index(r.Path, "/manifests/")])
		}
	}
	return repositories
}

// The snapshot is created by a tag in a repository of its own, and starts what `docker run` starts.
func TestEnsureSnapshot(t *testing.T) {
	c, img := startDaytona(t, nil), testImage(t)
	c.spec.GPU, c.spec.SandboxClass = 0, "container"
	r := c.ensure(t.Context(), t, img)
	if r.err != nil {
		t.Fatal(r.err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	created := r.snapshot
	if created.State != daytona.Active || created.Digest != digest.String() || created.SandboxClass != "container" ||
		!slices.Equal(created.Entrypoint, []string{"/init", "-x"}) || r.upload.isReused() {
		t.Errorf("%+v", created)
	}
	if !strings.Contains(created.Image, "/agent-") || strings.Contains(created.Image, "@") ||
		!strings.HasSuffix(created.Image, ":"+imageTag(digest, true)) {
		t.Errorf("created from %s", created.Image)
	}
	again := c.ensure(t.Context(), t, img)
	if again.err != nil || !again.upload.isReused() || again.snapshot.ID != created.ID || len(c.repositories()) != 1 {
		t.Errorf("second run: %v, reused %t; pushed %q", again.err, again.upload.isReused(), c.repositories())
	}
	c.spec.IfExists, c.spec.Resources.CPU = inputs.Reuse, 2
	other := c.ensure(t.Context(), t, img)
	if pushed := c.repositories(); other.err != nil || len(slices.Compact(slices.Sorted(slices.Values(pushed)))) != 2 {
		t.Errorf("other resources: %v; pushed %q", other.err, pushed)
	}
}

// A failure of Daytona itself is followed by another attempt, after the failed snapshot is gone. A missing image is
// pushed again.
func TestEnsureSnapshotRetries(t *testing.T) {
	for _, test := range []struct {
		name   string
		fault  cloudaytona.Fault
		pushes int
		want   string // in the error; empty: an attempt succeeds
	}{
		{name: "inspection times out", fault: cloudaytona.Fault{Snapshot: cloudaytona.InspectTimesOut, Times: 1}, pushes: 1},
		{name: "runner unavailable twice", fault: cloudaytona.Fault{Snapshot: cloudaytona.RunnerUnavailable, Times: 2},
			pushes: 1},
		{name: "image not found", fault: cloudaytona.Fault{Snapshot: cloudaytona.ImageNotFound, Times: 1}, pushes: 2},
		{name: "unknown blob", fault: cloudaytona.Fault{Snapshot: cloudaytona.UnknownBlob, Times: 1}, pushes: 2},
		{name: "always", fault: cloudaytona.Fault{Snapshot: cloudaytona.InspectTimesOut}, pushes: 1, want: "timed out"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startDaytona(t, nil)
			c.Fail(test.fault)
			r := c.ensure(t.Context(), t, testImage(t))
			if (r.err == nil) != (test.want == "") || r.err != nil && !strings.Contains(r.err.Error(), test.want) {
				t.Fatalf("%v, want %q\n%s", r.err, test.want, r.log)
			}
			pushed := c.repositories()
			if unique := slices.Compact(slices.Sorted(slices.Values(pushed))); len(unique) != test.pushes {
				t.Errorf("pushed to %q, want %d repositories", pushed, test.pushes)
			}
			if !strings.Contains(r.log, "Attempt 1 to create a snapshot failed: snapshot agent-") {
				t.Errorf("the log does not contain the failed attempt:\n%s", r.log)
			}
			var want []string
			if test.want == "" {
				want = []string{r.snapshot.Name + " active"}
			}
			if left := c.names(t); !slices.Equal(left, want) {
				t.Errorf("left %q, want %q", left, want)
			}
		})
	}
}

// A failure because of the image is final.
func TestEnsureSnapshotFails(t *testing.T) {
	c := startDaytona(t, func(o *cloudaytona.Options) { o.Organizations[0].MaxSnapshotGB = 1e-9 })
	r := c.ensure(t.Context(), t, testImage(t))
	failed := (*daytona.SnapshotError)(nil)
	if !errors.As(r.err, &failed) || strings.Contains(r.log, "Attempt") || len(c.names(t)) > 0 {
		t.Errorf("%v; left %q\n%s", r.err, c.names(t), r.log)
	}
}

// Runs at the same time with one image all end well, although Daytona processes one snapshot of an image at a time and
// then deletes the pushed image.
func TestEnsureSnapshotsAtOnce(t *testing.T) {
	c, img := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = 2 }), testImage(t)
	var group sync.WaitGroup
	results := make([]ensured, 3)
	for i := range results {
		group.Go(func() {
			c := c
			c.spec.NamePrefix = string(rune('a' + i))
			c.spec.Resources.CPU = 1 + i // not reusable for the others
			results[i] = c.ensure(t.Context(), t, img)
		})
	}
	group.Wait()
	for i, r := range results {
		if r.err != nil || r.snapshot.State != daytona.Active || r.snapshot.Resources.CPU != 1+i {
			t.Errorf("run %d: %v, %+v\n%s", i, r.err, r.snapshot, r.log)
		}
	}
	if left := c.names(t); len(left) != len(results) {
		t.Errorf("left %q", left)
	}
}

// Identical runs at the same time, which generate the same name, share one snapshot.
func TestEnsureIdenticalSnapshotsAtOnce(t *testing.T) {
	c, img := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = 2 }), testImage(t)
	// Each run looks for a snapshot to reuse before the others create theirs.
	var looked sync.WaitGroup
	results := make([]ensured, 3)
	looked.Add(len(results))
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() {
			c := c
			var once sync.Once
			c.client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/snapshots") {
					once.Do(looked.Done)
					looked.Wait()
				}
				return http.DefaultTransport.RoundTrip(r)
			})
			results[i] = c.ensure(t.Context(), t, img)
		})
	}
	group.Wait()
	for i, r := range results {
		if r.err != nil || r.snapshot.ID != results[0].snapshot.ID {
			t.Errorf("run %d: %v, %s\n%s", i, r.err, r.snapshot.Name, r.log)
		}
	}
	if left := c.names(t); len(left) != 1 {
		t.Errorf("left %q", left)
	}
}

// A run reuses the snapshot that another run is creating of the same image. If that fails, it creates its own.
func TestEnsureSnapshotWaitsForAnotherRun(t *testing.T) {
	for _, fails := range []bool{false, true} {
		c, img := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = 3 }), testImage(t)
		if fails {
			c.Fail(cloudaytona.Fault{Snapshot: cloudaytona.FailsAfterActive, Times: 1})
		}
		started, second := c.ensureDuring(t, img, img)
		one := <-started
		if one.err != nil || second.err != nil {
			t.Fatalf("fails %t: %v, %v\n%s\n%s", fails, one.err, second.err, one.log, second.log)
		}
		if !fails && second.snapshot.ID != one.snapshot.ID {
			t.Errorf("two snapshots: %q", c.names(t))
		}
	}
}

// A run that replaces a name waits for the snapshot that another run is creating with it: Daytona would make a deleted
// pending snapshot active.
func TestEnsureSnapshotsReplaceAtOnce(t *testing.T) {
	c := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = 3 })
	c.spec.Name, c.spec.IfExists = "agent-n", inputs.Replace
	c.client.Timing.MaxPoll = time.Millisecond
	img := testImage(t)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	labeled := config.Config
	labeled.Labels = map[string]string{"another": "digest"}
	other, err := mutate.Config(img, labeled)
	if err != nil {
		t.Fatal(err)
	}
	first, second := c.ensureDuring(t, img, other)
	// The second run may replace the active snapshot before the first run sees that it is active.
	if one := <-first; one.err != nil && httpclient.Status(one.err) != http.StatusNotFound {
		t.Errorf("first run: %v\n%s", one.err, one.log)
	}
	if second.err != nil || !strings.Contains(second.log, "Waiting for snapshot agent-n, which another run is creating") {
		t.Errorf("second run: %v\n%s", second.err, second.log)
	}
	if left := c.names(t); !slices.Equal(left, []string{"agent-n active"}) {
		t.Errorf("left %q", left)
	}
}

// ensureDuring starts a run, and another one while the first one's snapshot is pending. The first run continues when
// the other one has looked for snapshots.
func (c cloud) ensureDuring(t *testing.T, img, other v1.Image) (first <-chan ensured, second ensured) {
	t.Helper()
	created, looked := make(chan struct{}), make(chan struct{})
	results, one := make(chan ensured, 1), c
	one.afterCreate(func() {
		close(created)
		<-looked
	})
	go func() { results <- one.ensure(t.Context(), t, img) }()
	select {
	case <-created:
	case r := <-results:
		t.Fatalf("the first run ended early: %v\n%s", r.err, r.log)
	}
	seen := sync.OnceFunc(func() { close(looked) })
	defer seen()
	c.client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		if strings.Contains(r.URL.Path, "/snapshots") {
			defer seen()
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	return results, c.ensure(t.Context(), t, other)
}

// afterCreate makes the client call f when it reads its new snapshot for the first time.
func (c *cloud) afterCreate(f func()) {
	f = sync.OnceFunc(f)
	var created atomic.Bool
	c.client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		if isRead := r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/snapshots"); isRead && created.Load() {
			f()
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/snapshots") {
			created.Store(true)
		}
		return response, err
	})
}

// An inactive snapshot is activated. If its image is gone, which happens after the first activation, another snapshot
// is created. In the first ten minutes, it keeps its name.
func TestEnsureSnapshotReplacesInactive(t *testing.T) {
	for _, test := range []struct {
		name    string
		named   bool
		updated time.Duration // since the deactivation
		want    string        // in the error
		log     string
	}{
		{name: "generated name", updated: time.Hour, log: "cannot be reused"},
		{name: "generated name, just deactivated", log: "cannot be reused"},
		{name: "requested name", named: true, updated: time.Hour, log: "which is in state error"},
		{name: "requested name, just deactivated", named: true, want: "ten minutes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, img := startDaytona(t, nil), testImage(t)
			digest, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			c.Put(cloudaytona.Snapshot{
				Organization: organization, Name: "agent-1", State: "inactive", Digest: digest.String(),
				Image: c.RegistryHost() + "/sbox-transient/agent-x:" + imageTag(digest, true),
				CPU:   1, Memory: 1, Disk: 1, Entrypoint: []string{"/init", "-x"}, SandboxClass: "container",
				Updated: time.Now().Add(-test.updated),
			})
			if test.named {
				c.spec.Name = "agent-1"
			}
			r := c.ensure(t.Context(), t, img)
			if (r.err == nil) != (test.want == "") || r.err != nil && !strings.Contains(r.err.Error(), test.want) {
				t.Fatalf("%v, want %q\n%s", r.err, test.want, r.log)
			}
			if !strings.Contains(r.log, test.log) || r.err == nil && (r.upload.isReused() || len(c.repositories()) != 1) {
				t.Errorf("reused %t, pushed %q; log\n%s", r.upload.isReused(), c.repositories(), r.log)
			}
			if r.err == nil && test.named && r.snapshot.Name != "agent-1" {
				t.Errorf("created %s", r.snapshot.Name)
			}
		})
	}
}

// A name that Daytona is still removing, or that a failed snapshot has, becomes available.
func TestEnsureSnapshotFreesName(t *testing.T) {
	for _, state := range []string{"error", "build_failed", "removing"} {
		t.Run(state, func(t *testing.T) {
			c := startDaytona(t, nil)
			c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken", State: state})
			c.spec.Name = "taken"
			if r := c.ensure(t.Context(), t, testImage(t)); r.err != nil || r.snapshot.State != daytona.Active {
				t.Errorf("%v\n%s", r.err, r.log)
			}
		})
	}
}

// A snapshot with the requested name may be in the state removing for a while, and then leave it.
func TestEnsureSnapshotAfterRemoval(t *testing.T) {
	for _, test := range []struct {
		name, becomes string
		ifExists      inputs.IfExists
		want          string // in the error
	}{
		{name: "fails", becomes: "error", ifExists: inputs.Reuse},
		{
			name: "becomes active", becomes: "active", ifExists: inputs.Reuse,
			want: "already exists as a snapshot in state active",
		},
		{name: "becomes active, replaced", becomes: "active", ifExists: inputs.Replace},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startDaytona(t, func(o *cloudaytona.Options) { o.Cron = -1 })
			id := c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken", State: "removing"})
			c.spec.Name, c.spec.IfExists = "taken", test.ifExists
			polls := 0
			c.client.HTTP.Clock = &fakeclock.Clock{OnSleep: func() {
				if polls++; polls == 50 {
					c.SetState(id, test.becomes)
				}
				if polls > 50 {
					c.Tick()
				}
			}}
			r := c.ensure(t.Context(), t, testImage(t))
			if (r.err == nil) != (test.want == "") || r.err != nil && !strings.Contains(r.err.Error(), test.want) {
				t.Errorf("%v, want %q\n%s", r.err, test.want, r.log)
			}
			if left := c.names(t); !slices.Equal(left, []string{"taken active"}) {
				t.Errorf("left %q", left)
			}
		})
	}
}

// Daytona may refuse the name of a snapshot for a while after it is removed. No other run is blamed for it.
func TestEnsureSnapshotNameNotReleased(t *testing.T) {
	for _, refusals := range []int{8, 0} { // 0: always
		c := startDaytona(t, nil)
		clock := &fakeclock.Clock{OnSleep: c.Tick}
		c.client.HTTP.Clock, c.spec.Name = clock, "gone"
		c.Fail(cloudaytona.Fault{
			Method: "POST", Path: "/snapshots", Times: refusals, Status: 409,
			Message: `Snapshot with name "gone" already exists for this organization`,
		})
		r := c.ensure(t.Context(), t, testImage(t))
		if (r.err == nil) != (refusals > 0) || strings.Contains(r.log, "another run") {
			t.Errorf("%v\n%s", r.err, r.log)
		}
		if r.err != nil && !strings.Contains(r.err.Error(), "has not released the name") {
			t.Error(r.err)
		}
	}
}

// A request that Daytona refuses for another reason than its name leaves the snapshot that it was to replace.
func TestEnsureSnapshotKeepsReplaced(t *testing.T) {
	c := startDaytona(t, nil)
	c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken"})
	c.spec.Name, c.spec.IfExists, c.spec.Resources.CPU = "taken", inputs.Replace, 99
	r := c.ensure(t.Context(), t, testImage(t))
	if r.err == nil || !strings.Contains(r.err.Error(), "at most 4") || strings.Contains(r.err.Error(), "deleted") {
		t.Errorf("%v", r.err)
	}
	if left := c.names(t); !slices.Equal(left, []string{"taken active"}) {
		t.Errorf("left %q", left)
	}
	// The quota counts the snapshot that is replaced.
	c = startDaytona(t, func(o *cloudaytona.Options) { o.Organizations[0].Snapshots = 1 })
	c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken"})
	c.spec.Name, c.spec.IfExists = "taken", inputs.Replace
	if r := c.ensure(t.Context(), t, testImage(t)); r.err != nil {
		t.Errorf("within the quota: %v", r.err)
	}
}

// A replaced snapshot that is lost is part of the error.
func TestEnsureSnapshotReportsReplaced(t *testing.T) {
	c := startDaytona(t, func(o *cloudaytona.Options) { o.Organizations[0].MaxSnapshotGB = 1e-9 })
	c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken"})
	c.spec.Name, c.spec.IfExists = "taken", inputs.Replace
	r := c.ensure(t.Context(), t, testImage(t))
	left := (*daytona.LeftoverError)(nil)
	if !errors.As(r.err, &left) || len(left.Leftovers) != 1 || !strings.Contains(left.Leftovers[0], "taken") {
		t.Errorf("%v", r.err)
	}
	// Another run that replaces it at the same time may have succeeded.
	c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken"})
	failed := errors.New("failed")
	if err := reportReplaced(t.Context(), c.client, daytona.Snapshot{ID: "1", Name: "taken"}, failed); err != failed {
		t.Errorf("the name is taken again: %v", err)
	}
}

// Another image under the name is kept, also in a state that this version does not know.
func TestEnsureSnapshotKeepsOtherSnapshot(t *testing.T) {
	for _, state := range []string{"active", "pending", "snapshotting"} {
		c := startDaytona(t, nil)
		c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken", State: state})
		c.spec.Name = "taken"
		r := c.ensure(t.Context(), t, testImage(t))
		invalid := (*inputs.Error)(nil)
		if !errors.As(r.err, &invalid) || invalid.Input != "name" || len(c.repositories()) > 0 {
			t.Errorf("%s: %v; pushed %q", state, r.err, c.repositories())
		}
	}
}

// A canceled run removes its snapshot, although a snapshot that is deleted while it is pending becomes active.
func TestEnsureSnapshotCanceled(t *testing.T) {
	c := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = 2 })
	ctx, cancel := context.WithCancel(t.Context())
	c.afterCreate(cancel)
	r := c.ensure(ctx, t, testImage(t))
	if !errors.Is(r.err, context.Canceled) {
		t.Errorf("%v", r.err)
	}
	if left := c.names(t); len(left) > 0 {
		t.Errorf("left %q after %v\n%s", left, r.err, r.log)
	}
}

// A canceled run that has deleted the snapshot with the name keeps its replacement.
func TestEnsureSnapshotCanceledReplacement(t *testing.T) {
	c := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = 2 })
	old := c.Put(cloudaytona.Snapshot{Organization: organization, Name: "taken"})
	c.spec.Name, c.spec.IfExists = "taken", inputs.Replace
	ctx, cancel := context.WithCancel(t.Context())
	c.client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := http.DefaultTransport.RoundTrip(r)
		isRead := err == nil && r.Method == http.MethodGet && response.StatusCode == http.StatusOK
		if isRead && strings.Contains(r.URL.Path, "/snapshots/") && !strings.HasSuffix(r.URL.Path, "/taken") &&
			!strings.HasSuffix(r.URL.Path, old) {
			cancel() // while the run waits for the new snapshot
		}
		return response, err
	})
	r := c.ensure(ctx, t, testImage(t))
	left := (*daytona.LeftoverError)(nil)
	if !errors.Is(r.err, context.Canceled) || !errors.As(r.err, &left) || len(left.Leftovers) != 1 ||
		!strings.Contains(left.Leftovers[0], "snapshot taken was not deleted, because it replaces a deleted one") {
		t.Errorf("%v\n%s", r.err, r.log)
	}
	if names := c.names(t); len(names) != 1 || !strings.HasPrefix(names[0], "taken ") {
		t.Errorf("left %q", names)
	}
}

// Without the permission to delete, a failed attempt is final, and the error names the snapshot that is left.
func TestEnsureSnapshotWithoutDeletePermission(t *testing.T) {
	c := startDaytona(t, nil)
	c.client.Key = writeKey
	c.Fail(cloudaytona.Fault{Snapshot: cloudaytona.InspectTimesOut, Times: 1})
	r := c.ensure(t.Context(), t, testImage(t))
	left := (*daytona.LeftoverError)(nil)
	if !errors.As(r.err, &left) || len(c.names(t)) != 1 || !strings.Contains(r.err.Error(), "delete:snapshots") {
		t.Errorf("%v; left %q", r.err, c.names(t))
	}
}

// If Daytona refuses to create a snapshot for now, the next attempt follows after a while.
func TestEnsureSnapshotWaitsAfterRefusal(t *testing.T) {
	c := startDaytona(t, nil)
	clock := &fakeclock.Clock{}
	c.client.HTTP.Clock = clock
	c.Fail(cloudaytona.Fault{
		Method: "POST", Path: "/snapshots", Times: 1, Status: 409, Message: "Snapshot was modified by another operation",
	})
	r := c.ensure(t.Context(), t, testImage(t))
	if r.err != nil || !slices.Contains(clock.Slept(), retryDelay) {
		t.Errorf("%v; slept %v", r.err, clock.Slept())
	}
	if !strings.Contains(r.log, "Snapshot was modified by another operation; trying again\n") {
		t.Errorf("the log does not contain the reason without the hint:\n%s", r.log)
	}
}

// A generated name that another run has just taken is followed by another one.
func TestEnsureSnapshotNameTaken(t *testing.T) {
	c := startDaytona(t, nil)
	c.Fail(cloudaytona.Fault{
		Method: "POST", Path: "/snapshots", Times: 1, Status: 409,
		Message: `Snapshot with name "agent-1" already exists for this organization`,
	})
	r := c.ensure(t.Context(), t, testImage(t))
	if r.err != nil || len(c.repositories()) != 1 || !strings.Contains(r.log, "Attempt 1 ") {
		t.Errorf("%v; pushed %q\n%s", r.err, c.repositories(), r.log)
	}
}

// Without a region, only a snapshot of the default region is reused, and access is requested for its registry.
func TestEnsureSnapshotInDefaultRegion(t *testing.T) {
	c, img := startDaytona(t, nil), testImage(t)
	c.spec.Region = "eu"
	eu := c.ensure(t.Context(), t, img)
	c.spec.Region = ""
	us := c.ensure(t.Context(), t, img)
	again := c.ensure(t.Context(), t, img)
	if eu.err != nil || us.err != nil || again.err != nil {
		t.Fatal(eu.err, us.err, again.err)
	}
	if !slices.Equal(eu.snapshot.Regions, []string{"eu"}) || !slices.Equal(us.snapshot.Regions, []string{"us"}) {
		t.Errorf("regions %q and %q", eu.snapshot.Regions, us.snapshot.Regions)
	}
	if us.upload.isReused() || again.snapshot.ID != us.snapshot.ID {
		t.Errorf("reused %t, then %s instead of %s", us.upload.isReused(), again.snapshot.Name, us.snapshot.Name)
	}
	if region, err := checkRegion(t.Context(), c.client, c.spec); region != "us" || err != nil {
		t.Errorf("default region %q, %v", region, err)
	}
}

// A user's token can read the limits, so that exceeding them is reported before the push. An organization with the
// maximum number of snapshots can still reuse one.
func TestEnsureSnapshotWithinLimits(t *testing.T) {
	c, img := startDaytona(t, func(o *cloudaytona.Options) { o.Organizations[0].Snapshots = 1 }), testImage(t)
	c.client.Key, c.client.Organization = userToken, organization
	first, second := c.ensure(t.Context(), t, img), c.ensure(t.Context(), t, img)
	if first.err != nil || second.err != nil || !second.upload.isReused() {
		t.Fatal(first.err, second.err)
	}
	c.spec.Resources.CPU = 2
	if r := c.ensure(t.Context(), t, img); r.err == nil ||
		!strings.Contains(r.err.Error(), "Daytona holds 1 of 1 snapshots") {
		t.Errorf("too many snapshots: %v", r.err)
	}
	c.spec.Resources.CPU = 64
	if r := c.ensure(t.Context(), t, img); r.err == nil || !strings.Contains(r.err.Error(), "cpu 64 exceeds") {
		t.Errorf("too many cores: %v", r.err)
	}
	if pushed := c.repositories(); len(pushed) != 1 {
		t.Errorf("pushed %q", pushed)
	}
	// An API key cannot read the limits; Daytona's refusal contains them.
	c.client.Key, c.client.Organization = fullKey, ""
	if r := c.ensure(t.Context(), t, img); r.err == nil || !strings.Contains(r.err.Error(), "at most 4") {
		t.Errorf("refusal: %v", r.err)
	}
}

// A snapshot that stays pulling although another one of the image is active in its region is created again, once.
func TestEnsureSnapshotStalls(t *testing.T) {
	const reads = 20
	for region, stalls := range map[string]bool{"us": true, "eu": false} {
		c, img := startDaytona(t, func(o *cloudaytona.Options) { o.ReadsPerState = reads }), testImage(t)
		c.client.HTTP.Clock = &fakeclock.Clock{}
		c.client.Timing = daytona.Timing{MinPoll: 2 * stallLimit / reads, MaxPoll: 2 * stallLimit / reads, Removal: time.Hour}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		c.Put(cloudaytona.Snapshot{
			Organization: organization, Name: "other", Digest: digest.String(), Region: region, CPU: 4,
		})
		c.spec.Region = "us"
		r := c.ensure(t.Context(), t, img)
		if retried := strings.Contains(r.log, "Attempt 1 "); r.err != nil || retried != stalls {
			t.Errorf("another snapshot in %s: %v, retried %t, want %t\n%s", region, r.err, retried, stalls, r.log)
		}
	}
}
