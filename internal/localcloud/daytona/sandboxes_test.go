package daytona

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

func withSandboxKey(o *Options) {
	all := []string{WriteSnapshots, DeleteSnapshots, WriteSandboxes, DeleteSandboxes}
	o.Organizations[0].Keys = append(o.Organizations[0].Keys, Key{Name: "boxes", Value: "dtn_boxes", Permissions: all})
}

func TestSandbox(t *testing.T) {
	s := startCloud(t, func(o *Options) {
		withSandboxKey(o)
		o.Cron = -1
	})
	if got := process(t, s, "app-1", push(t, s, "app:1", image(t, "amd64"))); got.State != api.SNAPSHOTSTATE_ACTIVE {
		t.Fatal(got.GetErrorReason())
	}
	c := as(s, "dtn_boxes").SandboxAPI
	request := *api.NewCreateSandbox()
	request.SetSnapshot("app-1")
	request.SetName("box")
	request.SetLabels(map[string]string{"a": "b"})
	request.SetAutoDeleteInterval(0)
	made, _, err := c.CreateSandbox(t.Context()).CreateSandbox(request).Execute()
	if err != nil {
		t.Fatal(err)
	}
	if made.GetState() != api.SANDBOXSTATE_CREATING || made.Labels["a"] != "b" || made.GetAutoDeleteInterval() != 0 {
		t.Errorf("%+v", made)
	}
	got, _, err := c.GetSandbox(t.Context(), "box").Execute()
	if err != nil || got.GetState() != api.SANDBOXSTATE_STARTED || got.Id != made.Id {
		t.Error(got, err)
	}
	if status, body := exchange(t, s, "POST", "/sandbox", `{"snapshot":"app-1"}`); status != 403 {
		t.Error(status, body) // dtn_all has no permission for sandboxes
	}
	list, _, err := as(s, "dtn_reader").SandboxAPI.ListSandboxes(t.Context()).Snapshots([]string{"app-1", "x"}).Execute()
	if err != nil || len(list.Items) != 1 || list.Items[0].GetSnapshot() != "app-1" {
		t.Error(list, err)
	}
	if _, _, err := c.DeleteSandbox(t.Context(), "box").Execute(); err != nil {
		t.Fatal(err)
	}
	got, _, err = c.GetSandbox(t.Context(), made.Id).Execute()
	if err != nil || got.GetState() != api.SANDBOXSTATE_DESTROYING {
		t.Error(got, err)
	}
	if status, body := sendRequest(t, s, "dtn_boxes", "DELETE", "/sandbox/"+made.Id, ""); status != 409 ||
		errorMessage(t, "/sandbox/"+made.Id, body) != "Sandbox state change in progress" {
		t.Error(status, body)
	}
	s.Tick()
	if status, body := exchange(t, s, "GET", "/sandbox/"+made.Id, ""); status != 404 ||
		body["message"] != "Sandbox with ID or name "+made.Id+" not found" {
		t.Error(status, body)
	}
}

func TestSandboxErrors(t *testing.T) {
	s := startCloud(t, func(o *Options) {
		withSandboxKey(o)
		o.StartTimeout = 5 * time.Second
	})
	for name, architecture := range map[string]string{"arm": "arm64", "app": "amd64"} {
		if got := process(t, s, name, push(t, s, name+":1", image(t, architecture))); got.State != api.SNAPSHOTSTATE_ACTIVE {
			t.Fatal(got.GetErrorReason())
		}
	}
	s.Put(Snapshot{Organization: "org-1", Name: "idle", State: "inactive"})
	s.Put(Snapshot{Organization: "org-1", Name: "european", Region: "eu"})
	for _, test := range []struct {
		name, body string
		status     int
		want       string
	}{
		{
			name: "arm64", body: `{"snapshot":"arm"}`, status: 400,
			want: "Sandbox failed to start: conflict: image sha256:[0-9a-f]{64} architecture \\(arm64\\) is not x64 compatible",
		},
		{
			name: "unknown snapshot", body: `{"snapshot":"no"}`, status: 400,
			want: "Snapshot no not found. Did you add it through the Daytona Dashboard\\?",
		},
		{name: "inactive", body: `{"snapshot":"idle"}`, status: 400, want: "Snapshot idle is inactive"},
		{
			name: "another region", body: `{"snapshot":"european"}`, status: 400,
			want: "Snapshot european is not available in region us",
		},
		{
			name: "resources", body: `{"snapshot":"app","cpu":2}`, status: 400,
			want: "Cannot specify Sandbox resources when using a snapshot",
		},
		{
			name: "URL in the name", body: `{"snapshot":"app","name":"www.x"}`, status: 400,
			want: "name must not contain HTML tags, URLs, or control characters",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := sendRequest(t, s, "dtn_boxes", "POST", "/sandbox", test.body)
			if got := errorMessage(t, "/sandbox", body); status != test.status ||
				!regexp.MustCompile("^"+test.want+"$").MatchString(got) {
				t.Errorf("%d, %q, want %s", status, got, test.want)
			}
		})
	}
	_, body := exchange(t, s, "GET", "/sandbox?states=error", "")
	if items, _ := json.Marshal(body["items"]); strings.Count(string(items), `"state":"error"`) != 1 {
		t.Errorf("want one failed sandbox: %s", items)
	}
}

// After StartTimeout, the response is that of a sandbox that has not started. Without a daemon, it fails later.
func TestSlowSandbox(t *testing.T) {
	for fault, want := range map[SandboxFault]string{SlowStart: "creating", NoShell: "error"} {
		t.Run(string(fault), func(t *testing.T) {
			s := startCloud(t, func(o *Options) {
				withSandboxKey(o)
				o.StartTimeout, o.Cron = time.Millisecond, -1
			})
			s.Put(Snapshot{Organization: "org-1", Name: "app", Digest: "sha256:" + strings.Repeat("a", 64)})
			s.Fail(Fault{Sandbox: fault})
			status, body := sendRequest(t, s, "dtn_boxes", "POST", "/sandbox", `{"snapshot":"app","name":"box"}`)
			if status != 200 || !strings.Contains(body, `"state":"creating"`) {
				t.Error(status, body)
			}
			if _, box := exchange(t, s, "GET", "/sandbox/box", ""); box["state"] != "creating" {
				t.Error(box)
			}
			s.Tick()
			_, box := exchange(t, s, "GET", "/sandbox/box", "")
			if box["state"] != want || want == "error" && box["errorReason"] != "timeout waiting for daemon to start" {
				t.Error(box)
			}
		})
	}
}

// debian returns debian:bookworm-slim.
func debian(t *testing.T) v1.Image {
	t.Helper()
	mirror, err := registry.StartMirror(t.Context(), filepath.Join("..", "..", "..", registry.BaseImage))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mirror.Stop() })
	ref, err := name.ParseReference(mirror.Addr + "/library/debian:bookworm-slim")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref, remote.WithPlatform(platform))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// With an engine, the entry point of the snapshot or the image runs in a container, without the image's CMD.
func TestSandboxContainer(t *testing.T) {
	docker := withEngine(t)
	s := startCloud(t, func(o *Options) {
		withSandboxKey(o)
		o.Engine, o.Cron = docker, -1
	})
	base := debian(t)
	get := func(path string) (int, string) { return sendRequest(t, s, "dtn_boxes", "GET", path, "") }
	for _, test := range []struct {
		name            string
		entrypoint, cmd []string // of the image
		of              []string // the snapshot's
		session, log    string   // "": none
	}{
		{
			name: "ends", entrypoint: []string{"sh", "-c", "echo is up $*; exit 3", "sh"}, cmd: []string{"not passed"},
			session: `"command":"'sh' '-c' 'echo is up $*; exit 3' 'sh'","exitCode":3,`, log: "\x01\x01\x01is up\n",
		},
		{
			name: "missing", entrypoint: []string{"/bin/nope"}, session: `"command":"'/bin/nope'","exitCode":127,`,
			log: "\x02\x02\x02/usr/bin/bash: line 1: /bin/nope: No such file or directory\n",
		},
		{name: "command-only", cmd: []string{"sleep", "infinity"}},
		{
			name: "asked-for", entrypoint: []string{"false"}, of: []string{"sh", "-c", "exit 4"},
			session: `"command":"'sh' '-c' 'exit 4'","exitCode":4,`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, err := mutate.Config(base, v1.Config{Entrypoint: test.entrypoint, Cmd: test.cmd})
			if err != nil {
				t.Fatal(err)
			}
			made := create(t, s, test.name, push(t, s, "app:"+test.name, img), test.of...)
			if got := waitUntilProcessed(t, s, made.Id); got.State != api.SNAPSHOTSTATE_ACTIVE {
				t.Fatal(got.GetErrorReason())
			}
			status, body := sendRequest(t, s, "dtn_boxes", "POST", "/sandbox",
				fmt.Sprintf(`{"snapshot":%q,"name":%[1]q}`, test.name))
			if status != 200 {
				t.Fatal(body)
			}
			path := "/toolbox/" + test.name + "/process/"
			if status, body := get(path + "session/entrypoint"); test.session == "" {
				if status != 404 || !strings.Contains(body, `"message":"not found: session not found"`) {
					t.Error(status, body)
				}
			} else {
				for !strings.Contains(body, "exitCode") {
					_, body = get(path + "session/entrypoint")
				}
				_, log := get(path + "session/entrypoint/logs")
				if !strings.Contains(body, test.session) || log != test.log {
					t.Errorf("%s, log %q", body, log)
				}
			}
			if _, body := get("/sandbox/" + test.name); !strings.Contains(body, `"state":"started"`) {
				t.Error(body)
			}
			_, body = sendRequest(t, s, "dtn_boxes", "POST", path+"execute", `{"command":"echo out; echo err >&2; exit 5"}`)
			if want := `{"exitCode":5,"result":"out\nerr\n"}`; strings.TrimSpace(body) != want {
				t.Errorf("%s, want %s", body, want)
			}
			sendRequest(t, s, "dtn_boxes", "DELETE", "/sandbox/"+test.name, "")
		})
	}
	s.Tick()
	s.Close()
	if out := dockerOut(t, "ps", "--all", "--quiet"); out != "" {
		t.Errorf("containers are left: %s", out)
	}
}

// An image without a shell starts no daemon.
func TestSandboxWithoutShell(t *testing.T) {
	docker := withEngine(t)
	s := startCloud(t, func(o *Options) {
		withSandboxKey(o)
		o.Engine, o.StartTimeout, o.Cron = docker, time.Millisecond, -1
	})
	if got := process(t, s, "app", push(t, s, "app:1", image(t, "amd64"))); got.State != api.SNAPSHOTSTATE_ACTIVE {
		t.Fatal(got.GetErrorReason())
	}
	sendRequest(t, s, "dtn_boxes", "POST", "/sandbox", `{"snapshot":"app","name":"box"}`)
	var box map[string]any
	for box["state"] != "error" {
		s.Tick()
		_, box = exchange(t, s, "GET", "/sandbox/box", "")
	}
	if box["errorReason"] != "timeout waiting for daemon to start" {
		t.Error(box)
	}
}

func TestSandboxPages(t *testing.T) {
	s := startCloud(t, nil)
	want := map[string]bool{}
	for range 5 {
		want[s.PutSandbox(Sandbox{Organization: "org-1", Snapshot: "app"})] = true
	}
	s.PutSandbox(Sandbox{Organization: "org-2", Snapshot: "app"})
	pages := 0
	for cursor := ""; ; pages++ {
		status, body := exchange(t, s, "GET", "/sandbox?limit=2&cursor="+cursor, "")
		if status != 200 {
			t.Fatal(body)
		}
		for _, item := range body["items"].([]any) {
			delete(want, item.(map[string]any)["id"].(string))
		}
		next, ok := body["nextCursor"].(string)
		if !ok {
			break
		}
		cursor = next
	}
	if len(want) > 0 || pages != 2 {
		t.Errorf("%d pages before the last, missing %v", pages, want)
	}
	if status, body := exchange(t, s, "GET", "/sandbox?cursor=x", ""); status != 400 ||
		body["message"] != "Invalid cursor provided: x" {
		t.Error(status, body)
	}
}

// A key can read warm pools and their sandboxes only on newer servers, which delete them with their snapshot.
func TestWarmPools(t *testing.T) {
	for _, newer := range []bool{false, true} {
		t.Run(fmt.Sprintf("newer=%v", newer), func(t *testing.T) {
			s := startCloud(t, func(o *Options) { o.Newer, o.Cron = newer, -1 })
			id := s.Put(Snapshot{Organization: "org-1", Name: "app"})
			pool := s.PutWarmPool(WarmPool{Organization: "org-1", Snapshot: "app", Region: "us", Size: 2})
			status, pools := sendRequest(t, s, "dtn_reader", "GET", "/warm-pools", "")
			_, body := exchange(t, s, "GET", "/sandbox?snapshots=app", "")
			items := body["items"].([]any)
			switch {
			case !newer && (status != 404 || errorMessage(t, "/warm-pools", pools) != "Cannot GET /api/warm-pools" ||
				len(items) != 0):
				t.Error(status, pools, items)
			case newer && (status != 200 || !strings.Contains(pools, `"currentSize":2`) || len(items) != 2 ||
				items[0].(map[string]any)["warmPoolId"] != pool):
				t.Error(status, pools, items)
			}
			exchange(t, s, "DELETE", "/snapshots/"+id, "")
			s.Tick()
			if left := len(s.sandboxes); newer != (left == 0) {
				t.Errorf("%d unclaimed sandboxes are left", left)
			}
		})
	}
}

// A new sandbox is taken from the warm pool and is started at once.
func TestWarmSandbox(t *testing.T) {
	s := startCloud(t, withSandboxKey)
	s.Put(Snapshot{Organization: "org-1", Name: "app", Digest: "sha256:" + strings.Repeat("a", 64)})
	s.PutWarmPool(WarmPool{Organization: "org-1", Snapshot: "app", Region: "us", Size: 1})
	status, body := sendRequest(t, s, "dtn_boxes", "POST", "/sandbox", `{"snapshot":"app"}`)
	if status != 200 || !strings.Contains(body, `"state":"started"`) ||
		!strings.Contains(body, `"organizationId":"org-1"`) {
		t.Error(status, body)
	}
}

func TestUsage(t *testing.T) {
	for newer, field := range map[bool]string{false: "maxCpuPerGpuSandbox", true: "maxCpuPerGpu"} {
		s := startCloud(t, func(o *Options) {
			o.Newer, o.Organizations[0].Regions = newer, []Region{{ID: "us", Name: "US"}}
		})
		_, body := sendRequest(t, s, user, "GET", "/organizations/org-1/usage", "")
		if !strings.Contains(body, `"`+field+`":null`) {
			t.Errorf("newer=%v: %s", newer, body)
		}
	}
	s := startCloud(t, func(o *Options) { o.Organizations[0].Regions = []Region{{ID: "us", Name: "US", NoQuotas: true}} })
	_, body := sendRequest(t, s, user, "GET", "/organizations/org-1/usage", "")
	if !strings.Contains(body, `"regionUsage":[]`) {
		t.Error(body)
	}
}
