package depotapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
)

// The real Depot CLI: what it can do here, it can do at Depot, and what it says of our refusals, its users read.
func TestTheDepotCLI(t *testing.T) {
	program, err := filepath.Abs("../../../.cache/depot/depot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("the Depot CLI is not installed: run scripts/depot-cli.sh (%v)", err)
	}
	const push, pull = "push-password", "pull-password"
	host := startRegistry(t, push, pull)
	machines, err := builders.Start(t.Context(), builders.Options{Dir: t.TempDir(), Insecure: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := machines.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := start(t, Options{Machines: machines, Registry: Registry{Host: host, Credential: func(_ string, mayPush bool) (string, error) {
		if mayPush {
			return push, nil
		}
		return pull, nil
	}}})

	dir := t.TempDir()
	metadata := filepath.Join(dir, "metadata.json")
	for file, content := range map[string]string{
		"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n",
		"failing":    "FROM scratch\nCOPY absent /\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name, token, project, arguments string
		ok                              bool
		output                          string // what the CLI has to say
		result                          string // of FinishBuild
		image                           string // what the registry has to have; BUILD is the build's ID
		platforms                       string // of that image
	}{
		{name: "build", arguments: "build .", ok: true, result: "success"},
		{name: "metadata", arguments: "build --save --metadata-file " + metadata + " .", ok: true, result: "success"},
		{name: "push", arguments: "build --push -t " + host + "/team/image:1 .", ok: true, result: "success",
			image: host + "/team/image:1", platforms: "linux/amd64"},
		{name: "push both platforms", arguments: "build --push -t " + host + "/team/image:2 --platform linux/amd64,linux/arm64 .",
			ok: true, result: "success", image: host + "/team/image:2", platforms: "linux/amd64 linux/arm64"},
		{name: "save", arguments: "build --save .", ok: true, result: "success",
			image: host + "/sandbox:BUILD", platforms: "linux/amd64"},
		{name: "save with a tag", arguments: "build --save --save-tag v1 .", ok: true, result: "success",
			image: host + "/sandbox:v1", platforms: "linux/amd64"},
		{name: "save both platforms", arguments: "build --save --platform linux/amd64,linux/arm64 .", ok: true, result: "success",
			image: host + "/sandbox:BUILD", platforms: "linux/amd64 linux/arm64"},
		{name: "arm64", arguments: "build --save --platform linux/arm64 .", ok: true, result: "success",
			image: host + "/sandbox:BUILD", platforms: "linux/arm64"},
		{name: "pull token", arguments: "pull-token", ok: true, output: pull},
		{name: "organization token", token: "organization-token", arguments: "build .", ok: true, result: "success"},
		{name: "failing Dockerfile", arguments: "build -f " + filepath.Join(dir, "failing") + " .", output: `"/absent": not found`, result: "error"},
		{name: "bad token", token: "nobody's", arguments: "build .", output: "unauthenticated: invalid API token"},
		{name: "another's project", project: "other", arguments: "build .", output: "permission_denied: this token may not use project other"},
		{name: "no such project", project: "absent", arguments: "build .", output: "sandbox,sandbox"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(s.Calls())
			if test.token == "" {
				test.token = "project-token"
			}
			if test.project == "" {
				test.project = "sandbox"
			}
			home := t.TempDir()
			if strings.Contains(test.arguments, "--push") { // the others have to do with what CreateBuild gives them
				login := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("x-token:"+push)))
				if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(login), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			command := exec.CommandContext(t.Context(), program, strings.Fields(test.arguments)...)
			command.WaitDelay = time.Second
			command.Dir = dir
			command.Env = []string{
				"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "DOCKER_CONFIG=" + home, "DEPOT_ERROR_TELEMETRY=0", "DEPOT_NO_UPDATE_NOTIFIER=1",
				"DEPOT_API_URL=" + s.URL(), "DEPOT_TOKEN=" + test.token, "DEPOT_PROJECT_ID=" + test.project,
			}
			output, err := command.CombinedOutput()
			if (err == nil) != test.ok || !strings.Contains(string(output), test.output) {
				t.Fatalf("%v, want success: %v, and %q in\n%s", err, test.ok, test.output, output)
			}
			var result, build string
			for _, c := range s.Calls()[before:] {
				if c.HTTP != "HTTP/2.0" {
					t.Errorf("%s came over %s", c.Method, c.HTTP)
				}
				if c.Method == "FinishBuild" {
					result, build = c.Result, c.BuildID
				}
			}
			if result != test.result {
				t.Errorf("the build's result is %q, want %q", result, test.result)
			}
			if test.image != "" {
				reference := strings.ReplaceAll(test.image, "BUILD", build)
				if got := platforms(t, reference, pull); got != test.platforms {
					t.Errorf("%s is for %q, want %q", reference, got, test.platforms)
				}
			}
		})
	}

	data, err := os.ReadFile(metadata)
	if err != nil {
		t.Fatal(err)
	}
	var written struct {
		Digest string                              `json:"containerimage.digest"`
		Build  struct{ BuildID, ProjectID string } `json:"depot.build"`
	}
	if err := json.Unmarshal(data, &written); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(written.Digest, "sha256:") || written.Build.BuildID == "" || written.Build.ProjectID != "sandbox" {
		t.Errorf("metadata %s", data)
	}
}

// startRegistry is a registry that wants x-token's password: one to push, another to pull.
func startRegistry(t *testing.T, push, pull string) string {
	t.Helper()
	images := registry.New(registry.Logger(log.New(bytes.NewBuffer(nil), "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		user, password, _ := r.BasicAuth()
		if user != "x-token" || password != push && (password != pull || !reads) {
			w.Header().Set("WWW-Authenticate", `Basic realm="Depot"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// platforms of an image in the registry; attestations are none.
func platforms(t *testing.T, reference, password string) string {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithAuth(&authn.Basic{Username: "x-token", Password: password})
	descriptor, err := remote.Get(ref, auth)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	if !descriptor.MediaType.IsIndex() {
		image, err := descriptor.Image()
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		return config.Platform().String()
	}
	index, err := descriptor.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		if m.Platform.OS != "unknown" {
			found = append(found, m.Platform.String())
		}
	}
	slices.Sort(found) // the CLI pushes them in no particular order
	return strings.Join(found, " ")
}
