package daytona

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if stopShared != nil {
		stopShared()
	}
	os.Exit(code)
}

var stopShared func() // set by startShared

// startShared starts the engine that several tests use and returns its DOCKER_HOST.
var startShared = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "daytona-")
	if err != nil {
		return "", err
	}
	started, err := engine.Start(context.Background(), engine.Oldest, filepath.Join(dir, "engine"), nil)
	if err != nil {
		return "", err
	}
	stopShared = func() {
		_ = started.Stop()
		_ = os.RemoveAll(dir)
	}
	return started.Host, nil
})

// withEngine starts the shared engine on first use. It skips the test under -short.
func withEngine(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker Engine; run without -short")
	}
	host, err := startShared()
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// user is a user token: a JWT.
const user = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyLTEifQ.c2ln"

// startCloud starts a stand-in with four organizations: regular, a second one, suspended, and without a region.
func startCloud(t *testing.T, change func(*Options)) *Server {
	t.Helper()
	r, err := registry.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	o := Options{
		Registry: r,
		Organizations: []Organization{
			{
				ID: "org-1", Name: "one", UserTokens: []string{user}, MaxSnapshotGB: 1, Snapshots: 4,
				Regions: []Region{
					{ID: "us", Name: "US"},
					{ID: "eu", Name: "EU", MaxCPU: 2},
					{ID: "void", Name: "Void", NoRunners: true},
					{ID: "free", Name: "Free", NoQuotas: true, Project: "free-transient"},
				},
				Keys: []Key{
					{Name: "all", Value: "dtn_all", Permissions: []string{WriteSnapshots, DeleteSnapshots}},
					{Name: "sandboxes", Value: "dtn_sandboxes", Permissions: []string{WriteSandboxes}},
					{Name: "reader", Value: "dtn_reader"},
					{Name: "old", Value: "dtn_old", Permissions: []string{WriteSnapshots}, Expires: time.Now().Add(-time.Second)},
				},
			},
			{
				ID: "org-2", Name: "two", Regions: []Region{{ID: "asia", Name: "Asia"}},
				Keys: []Key{{Name: "other", Value: "dtn_other", Permissions: []string{WriteSnapshots, DeleteSnapshots}}},
			},
			{
				ID: "org-3", Name: "three", Suspended: "unpaid", Regions: []Region{{ID: "us", Name: "US"}},
				Keys: []Key{{Name: "k", Value: "dtn_suspended", Permissions: []string{WriteSnapshots}}},
			},
			{ID: "org-4", Name: "four", Keys: []Key{{Name: "k", Value: "dtn_nowhere", Permissions: []string{WriteSnapshots}}}},
		},
	}
	if change != nil {
		change(&o)
	}
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func as(s *Server, key string) *api.APIClient {
	c := api.NewConfiguration()
	c.Servers = api.ServerConfigurations{{URL: s.URL()}}
	c.AddDefaultHeader("Authorization", "Bearer "+key)
	return api.NewAPIClient(c)
}

// sendRequest sends a request and returns the status and the body of the response.
func sendRequest(t *testing.T, s *Server, key, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

// errorMessage checks the format of an error response and returns its message.
func errorMessage(t *testing.T, path, body string) string {
	t.Helper()
	var e struct {
		Path, Timestamp, Error, Message *string
		StatusCode                      *int
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil || e.Path == nil || e.Timestamp == nil || e.Error == nil || e.Message == nil ||
		e.StatusCode == nil {
		t.Fatalf("not an error response: %s (%v)", body, err)
	}
	if *e.Path != "/api"+path || *e.Error != http.StatusText(*e.StatusCode) {
		t.Errorf("path %q, error %q", *e.Path, *e.Error)
	}
	return *e.Message
}

// requestAccess requests push access with a key.
func requestAccess(t *testing.T, s *Server, key string) *api.RegistryPushAccessDto {
	t.Helper()
	a, _, err := as(s, key).DockerRegistryAPI.GetTransientPushAccess(t.Context()).Execute()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pushTo(t *testing.T, a *api.RegistryPushAccessDto, repository string, what remote.Taggable) (string, error) {
	t.Helper()
	ref, err := name.ParseReference(a.RegistryUrl + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithAuth(&authn.Basic{Username: a.Username, Password: a.Secret})
	if index, ok := what.(v1.ImageIndex); ok {
		return ref.String(), remote.WriteIndex(ref, index, auth)
	}
	return ref.String(), remote.Write(ref, what.(v1.Image), auth)
}

// push requests push access, pushes an image and returns its reference.
func push(t *testing.T, s *Server, repository string, what remote.Taggable) string {
	t.Helper()
	a := requestAccess(t, s, "dtn_all")
	ref, err := pushTo(t, a, a.Project+"/"+repository, what)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// image returns a small image for an architecture.
func image(t *testing.T, architecture string, entrypoint ...string) v1.Image {
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
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", architecture, entrypoint
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// waitUntilProcessed polls a snapshot until its state is active or error.
func waitUntilProcessed(t *testing.T, s *Server, id string) *api.SnapshotDto {
	t.Helper()
	for {
		dto, _, err := as(s, "dtn_all").SnapshotsAPI.GetSnapshot(t.Context(), id).Execute()
		if err != nil {
			t.Fatal(err)
		}
		switch dto.State {
		case api.SNAPSHOTSTATE_ACTIVE, api.SNAPSHOTSTATE_ERROR:
			return dto
		}
		time.Sleep(5 * time.Millisecond) // spares the CPU
	}
}

func create(t *testing.T, s *Server, name, image string, entrypoint ...string) *api.SnapshotDto {
	t.Helper()
	r := api.NewCreateSnapshot(name)
	r.SetImageName(image)
	r.Entrypoint = entrypoint
	dto, _, err := as(s, "dtn_all").SnapshotsAPI.CreateSnapshot(t.Context()).CreateSnapshot(*r).Execute()
	if err != nil {
		t.Fatal(err, string(err.(*api.GenericOpenAPIError).Body()))
	}
	return dto
}

func TestTokens(t *testing.T) {
	s := startCloud(t, nil)
	id := s.Put(Snapshot{Organization: "org-1", Name: "existing"})
	other := s.Put(Snapshot{Organization: "org-2", Name: "theirs"})
	const organization = "X-Daytona-Organization-ID"
	for _, test := range []struct {
		name, key, method, path string
		header                  []string
		status                  int
		message                 string // of an error
	}{
		{name: "no key", method: "GET", path: "/snapshots", status: 401, message: "Invalid credentials"},
		{name: "unknown key", key: "dtn_no", method: "GET", path: "/snapshots", status: 401, message: "Invalid credentials"},
		{
			name: "expired key", key: "dtn_old", method: "GET", path: "/api-keys/current", status: 401,
			message: "Invalid credentials",
		},
		{name: "key reads without permissions", key: "dtn_reader", method: "GET", path: "/snapshots", status: 200},
		{name: "key reads itself", key: "dtn_reader", method: "GET", path: "/api-keys/current", status: 200},
		{
			name: "user reads the current key", key: user, method: "GET", path: "/api-keys/current",
			header: []string{organization, "org-1"}, status: 401, message: "Invalid credentials",
		},
		{
			name: "key reads the organization", key: "dtn_all", method: "GET", path: "/organizations/org-1", status: 401,
			message: "Invalid credentials",
		},
		{
			name: "key reads the usage", key: "dtn_all", method: "GET", path: "/organizations/org-1/usage", status: 401,
			message: "Invalid credentials",
		},
		{name: "user reads the usage", key: user, method: "GET", path: "/organizations/org-1/usage", status: 200},
		{
			name: "user reads the usage of another organization", key: user, method: "GET", path: "/organizations/org-2/usage",
			status: 403, message: "Invalid authentication context",
		},
		{
			name: "user without an organization", key: user, method: "GET", path: "/snapshots", status: 403,
			message: "Invalid authentication context",
		},
		{
			name: "user of another organization", key: user, method: "GET", path: "/snapshots",
			header: []string{organization, "org-2"}, status: 403, message: "Invalid authentication context",
		},
		{
			name: "user with an organization", key: user, method: "GET", path: "/snapshots",
			header: []string{organization, "org-1"}, status: 200,
		},
		{
			name: "header with a key is ignored", key: "dtn_all", method: "GET", path: "/snapshots/existing",
			header: []string{organization, "org-2"}, status: 200,
		},
		{
			name: "another organization's snapshot", key: "dtn_other", method: "GET", path: "/snapshots/" + id, status: 404,
			message: "Snapshot with ID or name " + id + " not found",
		},
		{
			name: "another organization's snapshot, by name", key: "dtn_all", method: "GET", path: "/snapshots/theirs",
			status: 404, message: "Snapshot with name theirs not found",
		},
		{
			name: "push access without permission", key: "dtn_reader", method: "GET",
			path: "/docker-registry/registry-push-access", status: 403, message: "Access denied",
		},
		{
			name: "push access for sandboxes", key: "dtn_sandboxes", method: "GET",
			path: "/docker-registry/registry-push-access", status: 200,
		},
		{
			name: "push access in an unknown region", key: "dtn_all", method: "GET",
			path: "/docker-registry/registry-push-access?regionId=no", status: 500, message: "An unexpected error occurred.",
		},
		{
			name: "create without permission", key: "dtn_sandboxes", method: "POST", path: "/snapshots", status: 403,
			message: "Access denied",
		},
		{
			name: "activate without permission", key: "dtn_reader", method: "POST", path: "/snapshots/" + id + "/activate",
			status: 403, message: "Access denied",
		},
		{
			name: "delete without permission", key: "dtn_sandboxes", method: "DELETE", path: "/snapshots/" + id, status: 403,
			message: "Access denied",
		},
		{
			name: "delete by name", key: "dtn_all", method: "DELETE", path: "/snapshots/existing", status: 400,
			message: "Validation failed (uuid is expected)",
		},
		{
			name: "delete another organization's snapshot", key: "dtn_all", method: "DELETE", path: "/snapshots/" + other,
			status: 404, message: "Snapshot with ID or name " + other + " not found",
		},
		{
			name: "unknown call", key: "dtn_all", method: "PUT", path: "/snapshot", status: 404,
			message: "Cannot PUT /api/snapshot",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := sendRequest(t, s, test.key, test.method, test.path, "{}", test.header...)
			if status != test.status {
				t.Fatalf("%d, want %d: %s", status, test.status, body)
			}
			if test.message == "" {
				return
			}
			if got := errorMessage(t, test.path, body); got != test.message {
				t.Errorf("%q, want %q", got, test.message)
			}
		})
	}
	if status, body := sendRequest(t, s, "dtn_all", "GET", "/../snapshots", ""); status != 200 ||
		!strings.Contains(body, "<!doctype html>") {
		t.Errorf("outside the API: %d %s", status, body)
	}
}

func TestLifecycle(t *testing.T) {
	docker := withEngine(t)
	s := startCloud(t, func(o *Options) { o.Engine, o.ReadsPerState = docker, 1 })
	img := image(t, "amd64", "/program", "wait")
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref := push(t, s, "app:1", img)
	s.Fail(Fault{Registry: PushDenied}) // does not apply to the runner
	created := create(t, s, "app-1", ref)
	states := []string{string(created.State)}
	for created.State != api.SNAPSHOTSTATE_ACTIVE && created.State != api.SNAPSHOTSTATE_ERROR {
		dto, _, err := as(s, "dtn_all").SnapshotsAPI.GetSnapshot(t.Context(), "app-1").Execute()
		if err != nil {
			t.Fatal(err)
		}
		if created = dto; states[len(states)-1] != string(dto.State) {
			states = append(states, string(dto.State))
		}
	}
	if got := strings.Join(states, " "); got != "pending pulling active" {
		t.Fatalf("%s: %v", got, created.GetErrorReason())
	}
	if !strings.HasSuffix(created.GetRef(), "/daytona-"+digest.Hex+":daytona") || created.GetSize() <= 0 ||
		created.Entrypoint != nil {
		t.Errorf("ref %q, size %v, entrypoint %v", created.GetRef(), created.GetSize(), created.Entrypoint)
	}
	for _, r := range s.Requests() {
		if r.Registry && !strings.HasPrefix(r.Path, "/v2/sbox-transient/app/") && r.Path != "/v2/" && r.Path != "/token" {
			t.Errorf("request of the runner was recorded: %+v", r)
		}
		if r.Registry && r.Method == "GET" && strings.Contains(r.Path, "/sha256:") {
			t.Errorf("pull by the runner was recorded: %+v", r)
		}
	}
	// Daytona stores an unchanged copy of the image and deletes the pushed one.
	at, err := name.ParseReference(created.GetRef())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := remote.Image(at, s.remote(t.Context())...)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kept.Digest(); err != nil || got != digest || validate.Image(kept) != nil {
		t.Error(got, err)
	}
	a := requestAccess(t, s, "dtn_all")
	auth := remote.WithAuth(&authn.Basic{Username: a.Username, Password: a.Secret})
	pushed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(pushed, auth); err == nil {
		t.Error("the pushed image still exists")
	}
	if out := dockerOut(t, "ps", "--all", "--quiet"); out != "" {
		t.Errorf("started a container: %s", out)
	}
	if out := dockerOut(t, "images", "--quiet", s.local(created.GetRef())); out == "" {
		t.Error("the runner's engine does not have the image")
	}

	if _, err := as(s, "dtn_all").SnapshotsAPI.RemoveSnapshot(t.Context(), created.Id).Execute(); err != nil {
		t.Fatal(err)
	}
	dto, _, err := as(s, "dtn_all").SnapshotsAPI.GetSnapshot(t.Context(), created.Id).Execute()
	if err != nil || dto.State != api.SNAPSHOTSTATE_REMOVING {
		t.Fatal(dto, err)
	}
	for {
		_, answer, err := as(s, "dtn_all").SnapshotsAPI.GetSnapshot(t.Context(), created.Id).Execute()
		if err != nil {
			if answer == nil || answer.StatusCode != http.StatusNotFound {
				t.Error(err)
			}
			break
		}
	}
	if out := dockerOut(t, "images", "--quiet", s.local(created.GetRef())); out != "" {
		t.Error("the runner's engine still has the image")
	}
}

func dockerOut(t *testing.T, args ...string) string {
	t.Helper()
	arguments := append([]string{"--host", withEngine(t)}, args...)
	out, err := exec.Command("docker", arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker (scripts/setup.sh test installs it): %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestFullDisk(t *testing.T) {
	withEngine(t)
	dir := testdaemons.SmallDisk(t, "32m")
	full, err := engine.Start(t.Context(), engine.Oldest, filepath.Join(dir, "engine"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Stop()
	s := startCloud(t, func(o *Options) { o.Engine = full.Host })
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Mode: 0o644, Size: 48 << 20}); err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, 48<<20))
	w.Close()
	zeros, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
	)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(image(t, "amd64"), zeros)
	if err != nil {
		t.Fatal(err)
	}
	dto := waitUntilProcessed(t, s, create(t, s, "app-1", push(t, s, "app:1", img)).Id)
	if dto.State != api.SNAPSHOTSTATE_ERROR || !strings.Contains(dto.GetErrorReason(), "no space left on device") {
		t.Errorf("%s, %q", dto.State, dto.GetErrorReason())
	}
}

func TestPushAccess(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.AccessLifetime = time.Hour })
	a := requestAccess(t, s, "dtn_all")
	expires, err := time.Parse(time.RFC3339, a.ExpiresAt)
	if err != nil || time.Until(expires) < 50*time.Minute || time.Until(expires) > time.Hour {
		t.Errorf("expires at %q", a.ExpiresAt)
	}
	img := image(t, "amd64")
	if _, err := pushTo(t, a, a.Project+"/app:1", img); err != nil {
		t.Fatal(err)
	}
	if _, err := pushTo(t, a, "other/app:1", img); err == nil {
		t.Error("pushed to another project")
	}
	pushed, err := name.ParseReference(a.RegistryUrl + "/" + a.Project + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithAuth(&authn.Basic{Username: a.Username, Password: a.Secret})
	if err := remote.Delete(pushed, auth); err == nil || !strings.Contains(err.Error(), "UNAUTHORIZED") {
		t.Error("deleted a pushed image:", err)
	}
	for name, test := range map[string]struct {
		fault RegistryFault
		want  string
	}{
		"denied":                     {PushDenied, "DENIED"},
		"access expired during push": {AccessExpires, "UNAUTHORIZED"},
	} {
		s.Fail(Fault{Registry: test.fault})
		if _, err := pushTo(t, a, a.Project+"/new:1", image(t, "amd64")); err == nil ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		s.ClearFaults()
	}
	s.Fail(Fault{Registry: AccessExpires, Times: 1})
	img = image(t, "amd64")
	if _, err := pushTo(t, a, a.Project+"/new:1", img); err == nil {
		t.Error("pushed with revoked access")
	}
	if _, err := pushTo(t, requestAccess(t, s, "dtn_all"), a.Project+"/new:1", img); err != nil {
		t.Errorf("with new access: %v", err)
	}
	brief := startCloud(t, func(o *Options) { o.AccessLifetime = time.Nanosecond })
	if _, err := pushTo(t, requestAccess(t, brief, "dtn_all"), a.Project+"/app:1", img); err == nil {
		t.Error("pushed with expired access")
	}
}

func TestImagesAppearLater(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.ReadsUntilVisible = 2 })
	img := image(t, "amd64")
	pushed, err := name.ParseReference(push(t, s, "app:1", img))
	if err != nil {
		t.Fatal(err)
	}
	a := requestAccess(t, s, "dtn_all")
	auth := remote.WithAuth(&authn.Basic{Username: a.Username, Password: a.Secret})
	var seen []bool
	for range 3 {
		_, err := remote.Head(pushed, auth)
		seen = append(seen, err == nil)
	}
	if fmt.Sprint(seen) != "[false false true]" {
		t.Errorf("seen: %v", seen)
	}
}

func TestSnapshotFaults(t *testing.T) {
	for _, test := range []struct {
		fault SnapshotFault
		want  string
	}{
		{FailsAfterActive, "pending pulling active error"},
		{UnknownState, "pending pulling snapshotting active"},
	} {
		t.Run(string(test.fault), func(t *testing.T) {
			s := startCloud(t, func(o *Options) { o.ReadsPerState = 1 })
			ref := push(t, s, "app:1", image(t, "amd64"))
			s.Fail(Fault{Snapshot: test.fault, Times: 1})
			id := create(t, s, "app-1", ref).Id
			states := []string{"pending"}
			for last := test.want[strings.LastIndex(test.want, " ")+1:]; states[len(states)-1] != last; {
				_, body := sendRequest(t, s, "dtn_all", "GET", "/snapshots/"+id, "")
				var dto struct{ State string }
				if err := json.Unmarshal([]byte(body), &dto); err != nil {
					t.Fatal(err, body)
				}
				if states[len(states)-1] != dto.State {
					states = append(states, dto.State)
				}
			}
			if got := strings.Join(states, " "); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	t.Run("stuck", func(t *testing.T) {
		s := startCloud(t, nil)
		ref := push(t, s, "app:1", image(t, "amd64"))
		s.Fail(Fault{Snapshot: Stuck, Times: 1})
		stuck := create(t, s, "app-1", ref)
		if dto := waitUntilProcessed(t, s, create(t, s, "app-2", ref).Id); dto.State != api.SNAPSHOTSTATE_ACTIVE {
			t.Error(dto.State, dto.GetErrorReason())
		}
		if dto, _, err := as(s, "dtn_all").SnapshotsAPI.GetSnapshot(t.Context(), stuck.Id).Execute(); err != nil ||
			dto.State != api.SNAPSHOTSTATE_PENDING {
			t.Error(dto, err)
		}
	})
}

func TestFaults(t *testing.T) {
	s := startCloud(t, nil)
	s.Fail(
		Fault{
			Path:    "/regions",
			Times:   1,
			Status:  429,
			Message: "ThrottlerException: Too Many Requests",
			Header:  map[string]string{"Retry-After-authenticated": "7"},
		},
	)
	if status, body := sendRequest(t, s, "dtn_all", "GET", "/regions", ""); status != 429 ||
		errorMessage(t, "/regions", body) != "ThrottlerException: Too Many Requests" {
		t.Error(status, body)
	}
	if status, _ := sendRequest(t, s, "dtn_all", "GET", "/regions", ""); status != 200 {
		t.Error(status)
	}
	s.Fail(Fault{Method: "POST", Path: "/snapshots", Times: 1, Hangup: true, ReplaceResponse: true})
	r, err := http.NewRequestWithContext(
		t.Context(),
		"POST",
		s.URL()+"/snapshots",
		strings.NewReader(`{"name":"a","imageName":"a:1"}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer dtn_all")
	if answer, err := http.DefaultClient.Do(r); err == nil {
		t.Error("a response:", answer.Status)
	}
	if status, _ := sendRequest(t, s, "dtn_all", "GET", "/snapshots/a", ""); status != 200 {
		t.Errorf("the server did not handle the request: %d", status)
	}
	s.Fail(Fault{Path: "/snapshots", Status: 502, Body: "<html>bad gateway</html>"})
	if status, body := sendRequest(t, s, "dtn_all", "GET", "/snapshots", ""); status != 502 ||
		body != "<html>bad gateway</html>" {
		t.Error(status, body)
	}
	s.ClearFaults()
	if status, _ := sendRequest(t, s, "dtn_all", "GET", "/snapshots", ""); status != 200 {
		t.Error(status)
	}
	var statuses []int
	for _, r := range s.Requests() {
		statuses = append(statuses, r.Status)
	}
	if fmt.Sprint(statuses) != "[429 200 0 200 502 200]" {
		t.Errorf("recorded: %v", statuses)
	}
}

func TestPagesAndActivation(t *testing.T) {
	s := startCloud(t, func(o *Options) { o.Organizations[0].Snapshots = 100 })
	for i := range 5 {
		s.Put(
			Snapshot{
				Organization: "org-1",
				Name:         fmt.Sprint("App-", i),
				State:        "inactive",
				Created:      creationTime.Add(time.Duration(i) * time.Hour),
			},
		)
	}
	s.Put(Snapshot{Name: "daytona/app", General: true})
	list := func(query string) string {
		t.Helper()
		status, body := sendRequest(t, s, "dtn_all", "GET", "/snapshots?"+query, "")
		if status != 200 {
			return errorMessage(t, "/snapshots?"+query, body)
		}
		var page struct {
			Items             []struct{ Name string }
			Total, TotalPages int
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err, body)
		}
		var names []string
		for _, it := range page.Items {
			names = append(names, it.Name)
		}
		return fmt.Sprintf("%s of %d on %d", strings.Join(names, " "), page.Total, page.TotalPages)
	}
	for query, want := range map[string]string{
		"page=1&limit=2&sort=createdAt": "App-4 App-3 of 6 on 3",
		"page=3&limit=2&sort=createdAt": "App-0 daytona/app of 6 on 3",
		"page=9&limit=2":                " of 6 on 3",
		"name=P-1":                      "App-1 of 1 on 1",
		"sort=name&order=asc&limit=1":   "App-0 of 6 on 6",
		"limit=201":                     "limit must not be greater than 200",
		"page=0":                        "page must not be less than 1",
		"page=x":                        "page must be an integer number, page must not be less than 1",
		"limit=x&order=up": "limit must be an integer number, limit must not be less than 1, " +
			"limit must not be greater than 200, order must be one of the following values: asc, desc",
		"sort=size": "sort must be one of the following values: name, state, lastUsedAt, createdAt",
	} {
		if got := list(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}

	ref := push(t, s, "app:1", image(t, "amd64"))
	idle := s.Put(Snapshot{Organization: "org-1", Name: "idle", Image: ref, State: "inactive", Created: creationTime})
	change := func(id, what string, want int) string {
		t.Helper()
		path := "/snapshots/" + id + "/" + what
		status, body := sendRequest(t, s, "dtn_all", "POST", path, "")
		if status != want {
			t.Fatalf("%s: %d, want %d: %s", path, status, want, body)
		}
		if status < 400 {
			return ""
		}
		return errorMessage(t, path, body)
	}
	change(idle, "activate", 200)
	if dto := waitUntilProcessed(t, s, idle); dto.State != api.SNAPSHOTSTATE_ACTIVE {
		t.Fatal(dto.State, dto.GetErrorReason())
	}
	if got := change(idle, "activate", 400); got != "Snapshot "+idle+" is already active" {
		t.Error(got)
	}
	change(idle, "deactivate", 204)
	got := change(idle, "activate", 400)
	if got != "Snapshot deactivation is still in progress. Please try again in a few minutes." {
		t.Error(got)
	}
	broken := s.Put(Snapshot{Organization: "org-1", Name: "broken", State: "build_failed", Log: "step 1\nstep 2 failed\n"})
	got = change(broken, "activate", 400)
	if got != "Snapshot "+broken+" cannot be activated - it is in build_failed state" {
		t.Error(got)
	}
	if status, body := sendRequest(t, s, "dtn_all", "GET", "/snapshots/"+broken+"/build-logs", ""); status != 200 ||
		body != "step 1\nstep 2 failed\n" {
		t.Error(status, body)
	}
	if status, body := sendRequest(t, s, "dtn_all", "GET", "/snapshots/"+idle+"/build-logs", ""); status != 404 ||
		!strings.HasSuffix(errorMessage(t, "/snapshots/"+idle+"/build-logs", body), "has no build info") {
		t.Error(status, body)
	}
}

// Responses contain all fields that Daytona's official client requires, and no unknown fields.
func TestResponsesMatchTheClient(t *testing.T) {
	s := startCloud(t, nil)
	built := s.Put(Snapshot{Organization: "org-1", Name: "built", State: "build_failed", Reason: "no", Log: "log"})
	ref := push(t, s, "app:1", image(t, "amd64"))
	created := create(t, s, "made", ref)
	done := waitUntilProcessed(t, s, created.Id)
	idle := s.Put(Snapshot{Organization: "org-1", Name: "idle", Image: ref, State: "inactive", Created: creationTime})
	c, u, ctx := as(s, "dtn_all"), as(s, user), t.Context()
	answers := map[string]any{"create": created, "get": done}
	note := func(what string, answer any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		answers[what] = answer
	}
	key, _, err := c.ApiKeysAPI.GetCurrentApiKey(ctx).Execute()
	note("current key", key, err)
	list, _, err := c.SnapshotsAPI.GetAllSnapshots(ctx).Execute()
	note("list", list, err)
	regions, _, err := c.OrganizationsAPI.ListAvailableRegions(ctx).Execute()
	note("regions", regions, err)
	pushAccess, _, err := c.DockerRegistryAPI.GetTransientPushAccess(ctx).RegionId("eu").Execute()
	note("push access", pushAccess, err)
	organization, _, err := u.OrganizationsAPI.GetOrganization(ctx, "org-1").Execute()
	note("organization", organization, err)
	usage, _, err := u.OrganizationsAPI.GetOrganizationUsageOverview(ctx, "org-1").Execute()
	note("usage", usage, err)
	activated, _, err := c.SnapshotsAPI.ActivateSnapshot(ctx, idle).Execute()
	note("activate", activated, err)
	logs, _, err := c.SnapshotsAPI.GetSnapshotBuildLogsUrl(ctx, built).Execute()
	note("build logs' URL", logs, err)
	if len(list.Items) != 3 || len(regions) != 4 || len(usage.RegionUsage) != 6 || usage.CurrentSnapshotUsage < 1 {
		t.Errorf("%d snapshots, %d regions, usage %+v", len(list.Items), len(regions), usage)
	}
	for what, answer := range answers {
		findUnknown(reflect.ValueOf(answer), func(found string) { t.Errorf("%s: %s", what, found) })
	}
}

// findUnknown reports fields and enum values that the client does not know.
func findUnknown(v reflect.Value, report func(string)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			findUnknown(v.Elem(), report)
		}
	case reflect.Slice:
		for i := range v.Len() {
			findUnknown(v.Index(i), report)
		}
	case reflect.String:
		if v.String() == "11184809" {
			report("unknown enum value")
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "AdditionalProperties" {
				if v.Field(i).Len() > 0 {
					report(fmt.Sprintf("unknown fields in %s: %v", v.Type(), v.Field(i)))
				}
				continue
			}
			findUnknown(v.Field(i), report)
		}
	}
}
