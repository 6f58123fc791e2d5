package daytona

import (
	"encoding/json"
	"fmt"
	"regexp"
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

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/internal/fakeclock"
)

// exchange sends a request of the key dtn_all and returns the status and the decoded body.
func exchange(t *testing.T, s *Server, method, path, body string) (int, map[string]any) {
	t.Helper()
	status, text := sendRequest(t, s, "dtn_all", method, path, body, "Content-Type", "application/json")
	var decoded map[string]any
	if text != "" {
		if err := json.Unmarshal([]byte(text), &decoded); err != nil {
			t.Fatal(err, text)
		}
	}
	return status, decoded
}

// exists reports whether a pushed image exists.
func exists(t *testing.T, s *Server, ref string) bool {
	t.Helper()
	at, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	a := requestAccess(t, s, "dtn_all")
	_, err = remote.Head(at, remote.WithAuth(&authn.Basic{Username: a.Username, Password: a.Secret}))
	return err == nil
}

// process creates a snapshot and returns it when it is active or has failed.
func process(t *testing.T, s *Server, name, image string) *api.SnapshotDto {
	t.Helper()
	return waitUntilProcessed(t, s, create(t, s, name, image).Id)
}

// arm64Index returns an index without linux/amd64.
func arm64Index(t *testing.T) v1.ImageIndex {
	t.Helper()
	return mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: image(t, "arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}},
	})
}

func TestErrorReasons(t *testing.T) {
	const uuid = `[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`
	failed := func(image, reason string) string {
		return "Snapshot HOST/" + image + " failed to inspect in registry on runner " + uuid + `\. Error: ` + reason
	}
	for _, test := range []struct {
		name, want string
		image      string          // "": a pushed image
		pushed     remote.Taggable // default: an image for amd64
		fault      Fault
	}{
		{
			name: "digest", image: "HOST/sbox-transient/app@sha256:" + strings.Repeat("a", 64),
			want: failed("sbox-transient/app:sha256:a{64}", "Error response from daemon: invalid reference format"),
		},
		{
			name: "tag and digest", image: "HOST/sbox-transient/app:1@sha256:" + strings.Repeat("a", 64),
			want: failed("sbox-transient/app:1:sha256:a{64}", "Error response from daemon: invalid reference format"),
		},
		{
			name: "never pushed", image: "HOST/sbox-transient/no:1",
			want: failed("sbox-transient/no:1",
				"Error response from daemon: unknown: artifact sbox-transient/no:1 not found"),
		},
		{
			name: "not visible yet", fault: Fault{Snapshot: ImageNotFound},
			want: failed("sbox-transient/app:1", "Error response from daemon: manifest unknown: manifest unknown"),
		},
		{
			name: "another registry", image: "docker.io/library/debian:12",
			want: "Snapshot docker.io/library/debian:12 failed to inspect in registry on runner " + uuid +
				`\. Error: Error response from daemon: unauthorized: authentication required`,
		},
		{
			name: "no registry", image: "debian:12",
			want: "Snapshot docker.io/debian:12 failed to inspect in registry on runner .*",
		},
		{
			name: "another project", image: "HOST/other/app:1",
			want: failed("other/app:1", "Error response from daemon: unauthorized: authentication required"),
		},
		{
			name: "inspection times out", fault: Fault{Snapshot: InspectTimesOut},
			want: "Job " + uuid + " timed out after 30000ms",
		},
		{
			name: "runner unavailable", fault: Fault{Snapshot: RunnerUnavailable},
			want: "Request failed with status code 502",
		},
		{
			name: "pull unavailable", fault: Fault{Snapshot: PullUnavailable}, want: "Request failed with status code 502",
		},
		{name: "internal registry lost a blob", fault: Fault{Snapshot: UnknownBlob}, want: "unknown blob"},
		{
			name: "push unavailable", fault: Fault{Snapshot: PushUnavailable},
			want: "error from registry: blob unknown to registry",
		},
		{
			name: "registry lost a blob", fault: Fault{Registry: BlobUnknown},
			want: "failed to copy: httpReadSeeker: failed open: could not fetch content descriptor sha256:[0-9a-f]{64} " +
				"from remote: not found",
		},
		{
			name: "registry unavailable", fault: Fault{Snapshot: RegistryUnavailable},
			want: failed("sbox-transient/app:1",
				"Error response from daemon: received unexpected HTTP status: 503 Service Unavailable"),
		},
		{
			name: "index without amd64", pushed: arm64Index(t),
			want: "Error response from daemon: no matching manifest for linux/amd64 in the manifest list entries: " +
				"no match for platform in manifest: not found",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startCloud(t, nil)
			ref := strings.Replace(test.image, "HOST", s.RegistryHost(), 1)
			if ref == "" {
				what := test.pushed
				if what == nil {
					what = image(t, "amd64")
				}
				ref = push(t, s, "app:1", what)
			}
			if test.fault.Snapshot != "" || test.fault.Registry != "" {
				s.Fail(test.fault)
			}
			got := process(t, s, "app-1", ref)
			want := "^" + strings.ReplaceAll(test.want, "HOST", regexp.QuoteMeta(s.RegistryHost())) + "$"
			if got.State != api.SNAPSHOTSTATE_ERROR || !regexp.MustCompile(want).MatchString(got.GetErrorReason()) {
				t.Errorf("%s: %q, want %s", got.State, got.GetErrorReason(), want)
			}
		})
	}
}

// A snapshot that is too large has a size, but no ref.
func TestSizeLimit(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.Organizations[0].MaxSnapshotGB = 0.01 })
	large, err := random.Image(11<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := process(t, s, "app-1", push(t, s, "app:1", large))
	if got.GetErrorReason() != "Snapshot size (0.01GB) exceeds maximum allowed size of 0.01GB" || got.Ref != nil ||
		got.GetSize() < 0.01 || got.GetInitialRunnerId() == "" {
		t.Errorf("%q, ref %v, size %v", got.GetErrorReason(), got.Ref, got.GetSize())
	}
}

func TestPushedImageIsDeletedWithItsTags(t *testing.T) {
	s := startCloud(t, nil)
	img := image(t, "amd64")
	first, second := push(t, s, "app:1", img), push(t, s, "app:2", img)
	other, nested := push(t, s, "other:1", img), push(t, s, "team/app:1", image(t, "amd64"))
	if got := process(t, s, "app-1", first); got.State != api.SNAPSHOTSTATE_ACTIVE {
		t.Fatal(got.GetErrorReason())
	}
	if exists(t, s, first) || exists(t, s, second) || !exists(t, s, other) {
		t.Error("want both tags deleted, and the image in another repository kept")
	}
	if got := process(t, s, "app-2", second); !strings.HasSuffix(got.GetErrorReason(), "app:2 not found") {
		t.Errorf("%s: %q", got.State, got.GetErrorReason())
	}
	// The runner has the image of an active snapshot, so the server does not look at the pushed one.
	if got := process(t, s, "app-3", other); got.State != api.SNAPSHOTSTATE_ACTIVE || !exists(t, s, other) {
		t.Errorf("%s: %q", got.State, got.GetErrorReason())
	}
	if got := process(t, s, "app-4", nested); got.State != api.SNAPSHOTSTATE_ACTIVE || !exists(t, s, nested) {
		t.Errorf("%s: %q; want the image in a nested repository kept", got.State, got.GetErrorReason())
	}
}

// waitForJob waits until the runner has a job for a resource.
func waitForJob(s *Server, resource string) {
	for begun := false; !begun; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		begun = s.jobs[resource]
		s.mu.Unlock()
	}
}

func TestOperationInProgress(t *testing.T) {
	const want = "An operation is already in progress for this resource"
	t.Run("one image name", func(t *testing.T) {
		s := startCloud(t, nil)
		ref := push(t, s, "app:1", image(t, "amd64"))
		s.Fail(Fault{Snapshot: SlowInspect, Times: 1})
		first := create(t, s, "app-1", ref)
		waitForJob(s, ref)
		if got := process(t, s, "app-2", ref); got.State != api.SNAPSHOTSTATE_ERROR || got.GetErrorReason() != want {
			t.Errorf("%s: %q", got.State, got.GetErrorReason())
		}
		if status, _ := exchange(t, s, "GET", "/snapshots/"+first.Id, ""); status != 200 {
			t.Error(status)
		}
	})
	t.Run("one digest", func(t *testing.T) {
		s := startCloud(t, func(o *Options) { o.ReadsPerState = 1 })
		img := image(t, "amd64")
		first := create(t, s, "app-1", push(t, s, "app:1", img)).Id
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, s, "GET", "/snapshots/"+first, "") // ends pending; the next read would end pulling
		waitForJob(s, s.internal(digest.Hex))
		if got := process(t, s, "app-2", push(t, s, "other:1", img)); got.GetErrorReason() != want {
			t.Errorf("%s: %q", got.State, got.GetErrorReason())
		}
		if got := waitUntilProcessed(t, s, first); got.State != api.SNAPSHOTSTATE_ACTIVE {
			t.Errorf("%s: %q", got.State, got.GetErrorReason())
		}
	})
	t.Run("after a timeout", func(t *testing.T) {
		s := startCloud(t, func(o *Options) { o.Cron = -1 })
		ref := push(t, s, "app:1", image(t, "amd64"))
		s.Fail(Fault{Snapshot: InspectTimesOut, Times: 1})
		process(t, s, "app-1", ref)
		if got := process(t, s, "app-2", ref); got.GetErrorReason() != want {
			t.Errorf("%s: %q", got.State, got.GetErrorReason())
		}
		s.Tick()
		if got := process(t, s, "app-3", ref); got.State != api.SNAPSHOTSTATE_ACTIVE {
			t.Errorf("%s: %q", got.State, got.GetErrorReason())
		}
	})
}

// A snapshot that is deleted while it is pending comes back and becomes active.
func TestDeleteWhilePending(t *testing.T) {
	s := startCloud(t, nil)
	s.Fail(Fault{Snapshot: SlowInspect, Times: 1})
	id := create(t, s, "app-1", push(t, s, "app:1", image(t, "amd64"))).Id
	if status, _ := exchange(t, s, "DELETE", "/snapshots/"+id, ""); status != 200 {
		t.Fatal(status)
	}
	if got := waitUntilProcessed(t, s, id); got.State != api.SNAPSHOTSTATE_ACTIVE {
		t.Fatalf("%s: %q", got.State, got.GetErrorReason())
	}
	if status, _ := exchange(t, s, "DELETE", "/snapshots/"+id, ""); status != 200 {
		t.Fatal(status)
	}
	for status := 200; status != 404; {
		status, _ = exchange(t, s, "GET", "/snapshots/"+id, "")
	}
}

// While ReadsPerState keeps a snapshot pending, a client that deletes it sees that it is removing first.
func TestDeleteWhilePendingIsSeenAsRemoving(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.ReadsPerState = 2 })
	id := create(t, s, "app-1", push(t, s, "app:1", image(t, "amd64"))).Id
	exchange(t, s, "DELETE", "/snapshots/"+id, "")
	var states []string
	for last := ""; last != "active"; {
		_, body := exchange(t, s, "GET", "/snapshots/"+id, "")
		if state := body["state"].(string); state != last {
			states, last = append(states, state), state
		}
	}
	if got := fmt.Sprint(states); got != "[removing pulling active]" {
		t.Error(got)
	}
}

// Snapshots exist until the next run of a job, and block their name. Their use does not matter.
func TestRemoval(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.Cron = -1 })
	for _, state := range []string{"active", "error", "inactive", "build_failed"} {
		id := s.Put(Snapshot{Organization: "org-1", Name: "app", State: state})
		box := s.PutSandbox(Sandbox{Organization: "org-1", Snapshot: "app"})
		for range 2 {
			if status, _ := exchange(t, s, "DELETE", "/snapshots/"+id, ""); status != 200 {
				t.Fatal(status)
			}
		}
		if _, body := exchange(t, s, "GET", "/snapshots/"+id, ""); body["state"] != "removing" {
			t.Error(body)
		}
		status, body := exchange(t, s, "POST", "/snapshots", `{"name":"app","imageName":"a:1"}`)
		if status != 409 || body["message"] != `Snapshot with name "app" already exists for this organization` {
			t.Error(status, body)
		}
		s.Tick()
		status, body = exchange(t, s, "GET", "/snapshots/"+id, "")
		if status != 404 || body["message"] != "Snapshot with name "+id+" not found" {
			t.Error(status, body)
		}
		if status, _ := exchange(t, s, "GET", "/sandbox/"+box, ""); status != 200 {
			t.Error("the sandbox is gone:", status)
		}
	}
}

// The pushed image of an active snapshot is gone, so that it cannot be activated again.
func TestReactivation(t *testing.T) {
	clock := new(fakeclock.Clock)
	s := startCloud(t, func(o *Options) { o.Clock = clock.Now })
	made := process(t, s, "app-1", push(t, s, "app:1", image(t, "amd64")))
	if status, _ := exchange(t, s, "POST", "/snapshots/"+made.Id+"/deactivate", ""); status != 204 {
		t.Fatal(status)
	}
	clock.Advance(cooldown - time.Second)
	status, body := exchange(t, s, "POST", "/snapshots/"+made.Id+"/activate", "")
	if want := "Snapshot deactivation is still in progress. Please try again in a few minutes."; status != 400 ||
		body["message"] != want {
		t.Error(status, body)
	}
	clock.Advance(time.Second)
	status, body = exchange(t, s, "POST", "/snapshots/"+made.Id+"/activate", "")
	if status != 200 || body["state"] != "pending" || body["ref"] != made.GetRef() {
		t.Error(status, body)
	}
	got := waitUntilProcessed(t, s, made.Id)
	image := s.RegistryHost() + "/sbox-transient/app:1"
	want := fmt.Sprintf("Error response from daemon: failed to resolve reference %q: %[1]s: not found", image)
	if got.GetErrorReason() != want {
		t.Errorf("%s: %q", got.State, got.GetErrorReason())
	}
}

// A response to POST leaves out the columns that the request did not set. Others are null.
func TestNulls(t *testing.T) {
	s := startCloud(t, nil)
	s.Fail(Fault{Snapshot: Stuck})
	_, created := exchange(t, s, "POST", "/snapshots", `{"name":"app","imageName":"a:1"}`)
	_, read := exchange(t, s, "GET", "/snapshots/app", "")
	for _, field := range []string{"ref", "initialRunnerId"} {
		value, ok := read[field]
		if _, has := created[field]; has || !ok || value != nil {
			t.Errorf("%s: %v in POST, %v in GET", field, created, read)
		}
	}
	for _, field := range []string{"size", "entrypoint", "errorReason", "lastUsedAt"} {
		if value, ok := created[field]; !ok || value != nil {
			t.Errorf("%s: %v", field, created)
		}
	}
}

func TestClassGPUAndEntrypoint(t *testing.T) {
	s := startCloud(t, func(o *Options) {
		o.Organizations[0].Regions[0].GPUs, o.Organizations[0].Regions[0].Classes = 1, []string{"container", "linux-vm"}
	})
	_, body := exchange(t, s, "POST", "/snapshots", `{"name":"app","imageName":"a:1","sandboxClass":"linux-vm","gpu":1,
		"entrypoint":["sh"," ","-c"]}`)
	got := fmt.Sprintf("%v %v %v %v", body["sandboxClass"], body["gpu"], body["gpuType"], body["entrypoint"])
	if got != "linux-vm 1 H100 [sh -c]" {
		t.Error(got)
	}
}

func TestRegionalRegistry(t *testing.T) {
	s := startCloud(t, nil)
	a, _, err := as(s, "dtn_all").DockerRegistryAPI.GetTransientPushAccess(t.Context()).RegionId("free").Execute()
	if err != nil || a.Project != "free-transient" {
		t.Fatal(a, err)
	}
	ref, err := pushTo(t, a, a.Project+"/app:1", image(t, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	// A region of another organization is not rejected.
	if status, _ := exchange(t, s, "GET", "/docker-registry/registry-push-access?regionId=asia", ""); status != 200 {
		t.Error(status)
	}
	for region, want := range map[string]string{"free": "active", "us": "error"} {
		_, body := exchange(t, s, "POST", "/snapshots",
			fmt.Sprintf(`{"name":"app-%s","imageName":%q,"regionId":%[1]q}`, region, ref))
		got := waitUntilProcessed(t, s, body["id"].(string))
		if string(got.State) != want || fmt.Sprint(got.RegionIds) != "["+region+"]" {
			t.Errorf("%s: %s, %q", region, got.State, got.GetErrorReason())
		}
		if want == "active" {
			if ref, err = pushTo(t, a, a.Project+"/app:2", image(t, "amd64")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestMalformedBody(t *testing.T) {
	s := startCloud(t, nil)
	const want = `{"message":"Invalid JSON in request body","error":"Bad Request","statusCode":400}`
	for _, body := range []string{`{"name":`, `"name"`, `nothing`} {
		status, got := sendRequest(t, s, "", "POST", "/snapshots", body, "Content-Type", "application/json")
		if status != 400 || got != want {
			t.Errorf("%s: %d %s", body, status, got)
		}
	}
	if status, body := exchange(t, s, "POST", "/snapshots", "[]"); status != 400 ||
		body["message"] != "name must be a string" {
		t.Error(status, body)
	}
}

// The build log of a snapshot is found by its ID only.
func TestBuildLogByName(t *testing.T) {
	s := startCloud(t, nil)
	s.Put(Snapshot{Organization: "org-1", Name: "app", State: "build_failed", Log: "no"})
	status, body := exchange(t, s, "GET", "/snapshots/app/build-logs-url", "")
	if status != 500 || body["message"] != "An unexpected error occurred." {
		t.Error(status, body)
	}
}

// Clients that poll cause the removal, also if no time passes.
func TestRemovalByReads(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.Cron = time.Hour })
	id := s.Put(Snapshot{Organization: "org-1", Name: "app"})
	exchange(t, s, "DELETE", "/snapshots/"+id, "")
	var statuses []int
	for range readsUntilTick + 1 {
		status, _ := exchange(t, s, "GET", "/snapshots/"+id, "")
		statuses = append(statuses, status)
	}
	if got := fmt.Sprint(statuses); got != "[200 200 200 404]" {
		t.Error(got)
	}
}

func TestInspectTimeout(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.InspectTimeout = time.Millisecond })
	s.Fail(Fault{Snapshot: SlowInspect})
	got := process(t, s, "app-1", push(t, s, "app:1", image(t, "amd64")))
	if !regexp.MustCompile("^Job .{36} timed out after 1ms$").MatchString(got.GetErrorReason()) {
		t.Errorf("%s: %q", got.State, got.GetErrorReason())
	}
}

func TestDefaultRegion(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.Organizations[0].Default = "eu" })
	_, snapshot := exchange(t, s, "POST", "/snapshots", `{"name":"app","imageName":"a:1"}`)
	_, organization := sendRequest(t, s, user, "GET", "/organizations/org-1", "")
	if fmt.Sprint(snapshot["regionIds"]) != "[eu]" || !strings.Contains(organization, `"defaultRegionId":"eu"`) {
		t.Error(snapshot["regionIds"], organization)
	}
}

// A snapshot does not take over the entry point of its image.
func TestEntrypointStaysNull(t *testing.T) {
	s := startCloud(t, nil)
	got := process(t, s, "app-1", push(t, s, "app:1", image(t, "amd64", "/bin/sh")))
	if got.State != api.SNAPSHOTSTATE_ACTIVE || got.Entrypoint != nil {
		t.Errorf("%s, entry point %v", got.State, got.Entrypoint)
	}
}
