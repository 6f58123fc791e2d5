package depotapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/tonistiigi/fsutil"
)

// The real Depot CLI works with this server and reports its errors. Our builder succeeds and fails in the same cases.
func TestDepotCLI(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Depot CLI, BuildKit and Docker; run without -short")
	}
	program, err := filepath.Abs("../../../.cache/depot/depot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("the Depot CLI is missing: %v (run scripts/setup.sh test)", err)
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
	issuer := startIssuer(t)
	credential := func(_ string, mayPush bool) (string, error) {
		if mayPush {
			return push, nil
		}
		return pull, nil
	}
	s := start(t, Options{
		Machines: machines, Issuer: issuer.url, Registry: Registry{Host: host, Credential: credential},
		RunnerTokens: []string{"runner-token"},
	})

	engines := map[string]string{} // addresses by kind
	for _, kind := range []string{engine.Current, engine.Oldest} {
		e, err := engine.Start(t.Context(), kind, t.TempDir(), t.Output())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Stop(); err != nil {
				t.Error(err)
			}
		})
		engines[kind] = e.Host
	}

	dir := t.TempDir()
	metadata := filepath.Join(dir, "metadata.json")
	for file, content := range map[string]string{
		"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n",
		"failing":    "FROM scratch\nCOPY absent /\n",

		"apps/api/Dockerfile": "FROM scratch\nCOPY Dockerfile /\n", "apps/api/depot.json": `{"id": "sandbox"}`,
		"apps/other/file": "", "apps/other/depot.json": `{"id": "absent"}`,
		"docker/Dockerfile": "FROM scratch\nWORKDIR /\n", "docker/depot.json": `{"id": "sandbox"}`,
	} {
		file = filepath.Join(dir, file)
		err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	trusted := issuer.token(t, map[string]any{"repository": "org/sandbox-actions"})
	untrusted := issuer.token(t, map[string]any{"repository": "else/where"})
	expired := issuer.token(t, map[string]any{
		"repository": "org/sandbox-actions", "exp": time.Now().Add(-time.Minute).Unix(),
	})
	actions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"value": trusted})
	}))
	defer actions.Close()
	oidcVariables := map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_URL": actions.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "bearer",
	}
	with := func(variables map[string]string, more ...string) map[string]string {
		variables = maps.Clone(variables)
		for i := 0; i < len(more); i += 2 {
			variables[more[i]] = more[i+1]
		}
		return variables
	}
	const existingBuild = "token of an existing build"
	for _, test := range []struct {
		name, token, project, arguments string // token and project: "-" for none
		engine                          string // kind of the engine in DOCKER_HOST
		fault                           Fault
		ok                              bool
		output                          string // part of the CLI's output
		ours                            string // part of our builder's error; "" for success
		result                          string // of FinishBuild
		image                           string // in the registry or engine; BUILD is the build's ID
		platforms                       string // of that image

		env   map[string]string // more variables
		login string            // token of `depot login`
		kind  TokenKind         // that both send to CreateBuild; "" if it does not matter
	}{
		{name: "build", arguments: "build .", ok: true, result: "success"},
		{name: "metadata", arguments: "build --save --metadata-file " + metadata + " .", ok: true, result: "success"},
		{
			name: "push", arguments: "build --push -t " + host + "/team/image:1 .", ok: true, result: "success",
			image: host + "/team/image:1", platforms: "linux/amd64",
		},
		{
			name:      "push both platforms",
			arguments: "build --push -t " + host + "/team/image:2 --platform linux/amd64,linux/arm64 .",
			ok:        true, result: "success", image: host + "/team/image:2", platforms: "linux/amd64 linux/arm64",
		},
		{
			name: "save", arguments: "build --save .", ok: true, result: "success",
			image: host + "/sandbox:BUILD", platforms: "linux/amd64",
		},
		{
			name: "save with a tag", arguments: "build --save --save-tag v1 .", ok: true, result: "success",
			image: host + "/sandbox:v1", platforms: "linux/amd64",
		},
		{
			name: "save both platforms", arguments: "build --save --platform linux/amd64,linux/arm64 .", ok: true,
			result: "success", image: host + "/sandbox:BUILD", platforms: "linux/amd64 linux/arm64",
		},
		{
			name: "arm64", arguments: "build --save --platform linux/arm64 .", ok: true, result: "success",
			image: host + "/sandbox:BUILD", platforms: "linux/arm64",
		},
		{name: "pull token", arguments: "pull-token", ok: true, output: pull},
		{
			name: "organization token", token: "organization-token", arguments: "build .", ok: true, result: "success",
		},
		{
			name: "load into the current engine", engine: engine.Current, arguments: "build --load -t image:1 .",
			ok: true, result: "success", image: "image:1", platforms: "linux/amd64",
		},
		{
			name: "load into the oldest engine", engine: engine.Oldest, arguments: "build --load -t image:1 .",
			ok: true, result: "success", image: "image:1", platforms: "linux/amd64",
		},
		{
			// On Depot, the CLI loads one of the platforms through an extension of Depot's BuildKit. With an unmodified
			// BuildKit it uses the tar exporter, which supports only one platform.
			name: "load both platforms", engine: engine.Current,
			arguments: "build --load -t image:2 --platform linux/amd64,linux/arm64 .",
			output:    "docker exporter does not currently support exporting manifest lists", result: "error",
		},
		{
			name: "load, push and save", engine: engine.Current,
			arguments: "build --load --save --push -t " + host + "/team/image:3 .", ok: true, result: "success",
			image: host + "/team/image:3", platforms: "linux/amd64",
		},
		{name: "OIDC", token: trusted, arguments: "build .", ok: true, result: "success"},
		{
			name: "DEPOT_TOKEN first", arguments: "build .", ok: true, result: "success", kind: ProjectToken,
			env: map[string]string{"DEPOT_API_TOKEN": "organization-token"}, login: "user-token",
		},
		{
			name: "DEPOT_API_TOKEN before depot login", token: "-", arguments: "build .", ok: true, result: "success",
			env: map[string]string{"DEPOT_API_TOKEN": "organization-token"}, login: "user-token", kind: OrganizationToken,
		},
		{
			name: "depot login before OIDC", token: "-", arguments: "build .", ok: true, result: "success",
			env: oidcVariables, login: "user-token", kind: UserToken,
		},
		{
			name: "OIDC before the runner's tokens", token: "-", arguments: "build .", ok: true, result: "success",
			env: with(oidcVariables, "DEPOT_JIT_TOKEN", "runner-token"), kind: OIDCToken,
		},
		{
			name: "DEPOT_JIT_TOKEN", token: "-", arguments: "build .", ok: true, result: "success", kind: RunnerToken,
			env: map[string]string{"DEPOT_JIT_TOKEN": "runner-token", "DEPOT_CACHE_TOKEN": "unknown-token"},
		},
		{
			name: "DEPOT_CACHE_TOKEN", token: "-", arguments: "build .", ok: true, result: "success", kind: RunnerToken,
			env: map[string]string{"DEPOT_CACHE_TOKEN": "runner-token"},
		},
		{
			name: "runner's token when OIDC fails", token: "-", arguments: "build .", ok: true, result: "success",
			env:  with(oidcVariables, "DEPOT_JIT_TOKEN", "runner-token", "ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:1"),
			kind: RunnerToken,
		},
		{
			name: "depot.json next to the context", token: "organization-token", project: "-", arguments: "build apps/api",
			ok: true, result: "success",
		},
		{
			name: "depot.json next to the Dockerfile", token: "organization-token", project: "-",
			arguments: "build -f docker/Dockerfile .", ok: true, result: "success",
		},
		{
			name: "depot.json next to the Dockerfile before that of the context", token: "organization-token", project: "-",
			arguments: "build -f docker/Dockerfile apps/other", ok: true, result: "success",
		},
		{name: "existing build", token: existingBuild, project: "-", arguments: "build .", ok: true, result: "success"},
		{
			name: "failing Dockerfile", arguments: "build -f failing .", output: `"/absent": not found`,
			ours: `"/absent": not found`, result: "error",
		},
		{
			name: "unknown token", token: "unknown-token", arguments: "build .",
			output: "unauthenticated: invalid API token", ours: "Depot returned 401 Unauthorized: invalid API token",
		},
		{
			name: "OIDC of another repository", token: untrusted, arguments: "build .",
			output: "permission_denied: project sandbox has no trust relationship with else/where",
			ours:   "Depot returned 403 Forbidden: project sandbox has no trust relationship with else/where",
		},
		{
			name: "expired OIDC token", token: expired, arguments: "build .",
			output: "unauthenticated: the OIDC token has expired",
			ours:   "Depot returned 401 Unauthorized: the OIDC token has expired",
		},
		{
			name: "project of another token", project: "other", arguments: "build .",
			output: "permission_denied: this token may not use project other",
			ours:   "Depot returned 403 Forbidden: this token may not use project other",
		},
		{
			name: "unknown project", project: "absent", arguments: "build .", output: "sandbox,sandbox",
			ours: "Depot returned 404 Not Found: project absent not found",
		},
		{
			name: "no token", token: "-", arguments: "build .", output: "missing API token",
			ours: credentials.ErrNoDepotToken.Error(),
		},
		{name: "project of a project token", project: "-", arguments: "build .", ok: true, result: "success"},
		{
			name: "no project", project: "-", token: "organization-token", arguments: "build .",
			output: "project_id is required", ours: builder.ErrNoProject.Error(),
		},
		{
			name:      "unavailable",
			fault:     Fault{Method: "CreateBuild", Code: connect.CodeUnavailable, Message: "maintenance"},
			arguments: "build .", output: "unavailable: maintenance",
			ours: "Depot returned 503 Service Unavailable: maintenance",
		},
		{
			name: "rate limit",
			fault: Fault{
				Method: "CreateBuild", Code: connect.CodeResourceExhausted, Message: "slow down",
				Header: map[string]string{"Retry-After": "3600"},
			},
			arguments: "build .", output: "resource_exhausted: slow down", ours: "retry after 1h0m0s",
		},
		{
			name: "web page", fault: Fault{Method: "CreateBuild", Status: 200, Body: "<html>"}, arguments: "build .",
			output: "text/html", ours: "the response is a web page",
		},
		{
			name: "no machine",
			fault: Fault{
				Method: "GetBuildKitConnection", Code: connect.CodeFailedPrecondition,
				Message: "the plan has no minutes left",
			},
			arguments: "build .", output: "the plan has no minutes left",
			ours: "get a machine for linux/amd64: Depot returned 400 Bad Request: the plan has no minutes left", result: "error",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.token == "" {
				test.token = "project-token"
			}
			if test.project == "" {
				test.project = "sandbox"
			}
			variables := map[string]string{"DEPOT_TOKEN": test.token, "DEPOT_PROJECT_ID": test.project}
			maps.DeleteFunc(variables, func(_, value string) bool { return value == "-" })
			maps.Copy(variables, test.env)
			attach := func() {
				if test.token == existingBuild {
					build := createBuild(t, "project-token")
					variables["DEPOT_BUILD_ID"], variables["DEPOT_TOKEN"] = build.ID, build.Token
				}
			}
			attach()
			before := len(s.Calls())
			if test.fault.Method != "" {
				s.Fail(test.fault)
				defer s.ClearFaults()
			}
			home := t.TempDir()
			if strings.Contains(test.arguments, "--push") { // otherwise the credentials of CreateBuild suffice
				login := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("x-token:"+push)))
				if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(login), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if test.login != "" {
				file := filepath.Join(home, ".config/depot/depot.yaml")
				err := errors.Join(
					os.MkdirAll(filepath.Dir(file), 0o700),
					os.WriteFile(file, []byte("api_token: "+test.login), 0o600),
				)
				if err != nil {
					t.Fatal(err)
				}
			}
			command := exec.CommandContext(t.Context(), program, strings.Fields(test.arguments)...)
			command.WaitDelay = time.Second
			command.Dir = dir
			command.Env = []string{
				"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "DOCKER_CONFIG=" + home,
				"DEPOT_API_URL=" + s.URL(), "DEPOT_ERROR_TELEMETRY=0", "DEPOT_NO_UPDATE_NOTIFIER=1",
			}
			for name, value := range variables {
				command.Env = append(command.Env, name+"="+value)
			}
			if test.engine != "" {
				command.Env = append(command.Env, "DOCKER_HOST="+engines[test.engine])
			}
			if test.engine == engine.Oldest {
				command.Env = append(command.Env, "DOCKER_API_VERSION=1.41")
			}
			output, err := command.CombinedOutput()
			if (err == nil) != test.ok || !strings.Contains(string(output), test.output) {
				t.Fatalf("%v, want success: %v, and %q in\n%s", err, test.ok, test.output, output)
			}
			var result, build string
			for _, c := range s.Calls()[before:] {
				if c.HTTP != "HTTP/2.0" {
					t.Errorf("%s used %s, want HTTP/2.0", c.Method, c.HTTP)
				}
				if c.Method == "FinishBuild" {
					result, build = c.Result, c.BuildID
				}
			}
			if result != test.result {
				t.Errorf("the build's result is %q, want %q", result, test.result)
			}
			if test.image != "" && !strings.Contains(test.image, host) {
				if got := loaded(t, engines[test.engine], test.image); got != test.platforms {
					t.Errorf("platform of %s in the engine is %q, want %q", test.image, got, test.platforms)
				}
			} else if test.image != "" {
				reference := strings.ReplaceAll(test.image, "BUILD", build)
				if got := platforms(t, reference, pull); got != test.platforms {
					t.Errorf("platforms of %s are %q, want %q", reference, got, test.platforms)
				}
			}
			if strings.HasPrefix(test.arguments, "build") {
				message := ""
				attach()
				variables["HOME"] = home
				if err := buildWithOurs(t, dir, func(name string) string { return variables[name] }, test.arguments); err != nil {
					message = err.Error()
				}
				if !strings.Contains(message, test.ours) || (message == "") != (test.ours == "") {
					t.Errorf("our builder: %q, want %q", message, test.ours)
				}
			}
			for _, c := range s.Calls()[before:] {
				if c.Method == "CreateBuild" && test.kind != "" && c.Token != test.kind {
					t.Errorf("over %s: authenticated with a token of kind %q, want %q", c.HTTP, c.Token, test.kind)
				}
			}
		})
	}

	t.Run("canceled on Depot", func(t *testing.T) {
		requested := make(chan struct{}, 1)
		files := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			requested <- struct{}{}
			<-r.Context().Done()
		}))
		defer files.Close()
		dockerfile := "FROM scratch\nADD " + files.URL + "/file /\n"
		if err := os.WriteFile(filepath.Join(dir, "waiting"), []byte(dockerfile), 0o644); err != nil {
			t.Fatal(err)
		}
		before := len(s.Calls())
		command := exec.CommandContext(t.Context(), program, "build", "-f", "waiting", ".")
		command.Dir = dir
		command.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "DEPOT_API_URL=" + s.URL(), "DEPOT_ERROR_TELEMETRY=0",
			"DEPOT_NO_UPDATE_NOTIFIER=1", "DEPOT_TOKEN=project-token", "DEPOT_PROJECT_ID=sandbox",
		}
		go func() {
			<-requested
			for _, c := range s.Calls()[before:] {
				if c.Method == "CreateBuild" {
					s.Cancel(c.BuildID)
				}
			}
		}()
		output, err := command.CombinedOutput()
		var results []string
		for _, c := range s.Calls()[before:] {
			if c.Method == "FinishBuild" {
				results = append(results, c.Result)
			}
		}
		if err == nil || !slices.Equal(results, []string{"canceled"}) {
			t.Errorf("%v, finished %q:\n%s", err, results, output)
		}
	})

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
	if !strings.HasPrefix(written.Digest, "sha256:") || written.Build.BuildID == "" ||
		written.Build.ProjectID != "sandbox" {
		t.Errorf("metadata %s", data)
	}
}

// buildWithOurs runs the build that the CLI's arguments describe with our builder. It also requests a pull credential
// if the build saves the image.
func buildWithOurs(t *testing.T, dir string, getenv func(string) string, arguments string) (err error) {
	request := builder.Request{Platforms: []string{"linux/amd64"}, Save: strings.Contains(arguments, "--save")}
	dockerfile, words := "", strings.Fields(arguments)
	for i, word := range words {
		switch word {
		case "--platform":
			request.Platforms = strings.Split(words[i+1], ",")
		case "-f":
			dockerfile = words[i+1]
		case "--save-tag":
			request.SaveTags = append(request.SaveTags, words[i+1])
		}
	}
	buildContext := filepath.Join(dir, words[len(words)-1])
	file := filepath.Join(dir, dockerfile)
	if dockerfile == "" {
		file = filepath.Join(buildContext, "Dockerfile")
	}
	tree, err := fsutil.NewFS(buildContext)
	if err != nil {
		t.Fatal(err)
	}
	files, err := fsutil.NewFS(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	project, _, err := builder.FindProject(getenv, t.Logf, filepath.Dir(file), buildContext)
	if err != nil && !errors.Is(err, builder.ErrNoProject) { // the token may identify the project
		return err
	}
	depot := builder.Depot{
		Project: project, APIURL: os.Getenv("DEPOT_API_URL"),
		BuildID: getenv("DEPOT_BUILD_ID"),
		Token:   credentials.Depot{Getenv: getenv, Logf: t.Logf, OIDC: credentials.NewOIDC(getenv, nil)}.Token,
		Policy:  builder.Policy{HTTP: httpclient.Policy{MinWait: time.Millisecond}},
	}
	b, err := depot.Acquire(t.Context(), request)
	if err != nil {
		return err
	}
	defer func() { b.Release(err) }()
	for _, platform := range request.Platforms {
		machine, err := b.Machine(t.Context(), platform)
		if err != nil {
			return err
		}
		if _, err := machine.Solve(t.Context(), nil, client.SolveOpt{
			Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": filepath.Base(file)},
			LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": files},
			Exports:     []client.ExportEntry{{Type: client.ExporterImage}},
		}, nil); err != nil {
			return err
		}
	}
	for _, reference := range b.Tags {
		if _, err := depot.PullCredential(t.Context(), reference); err != nil {
			return err
		}
	}
	return nil
}

// loaded returns the platform of an image in a Docker Engine.
func loaded(t *testing.T, host, image string) string {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	response, err := c.Get("http://engine/v1.41/images/" + image + "/json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var inspected struct{ Os, Architecture string }
	if err := json.NewDecoder(response.Body).Decode(&inspected); err != nil {
		t.Fatal(err)
	}
	return inspected.Os + "/" + inspected.Architecture
}

// startRegistry starts a registry that accepts two passwords for the user x-token: one can push, the other only pull.
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

// platforms returns the platforms of an image in the registry, without attestations.
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
	slices.Sort(found) // the CLI pushes them in any order
	return strings.Join(found, " ")
}
