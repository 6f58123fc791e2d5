package actions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/internal/faultproxy"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	clouddoppler "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/doctor"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// ward is a set of services in which everything works, and the environment of a program that uses them.
type ward struct {
	daytona  cloud
	depot    *depotapi.Server
	doppler  *clouddoppler.Server
	github   *github.Server
	registry *registry.Registry
	environ  map[string]string
	dir      string
	clock    httpclient.Clock
	timeout  time.Duration // of requests
}

// Credentials of the ward. No output may contain one.
const (
	depotSecret    = "depot_project_secret"
	otherSecret    = "depot_other_secret" // of another project
	dopplerSecret  = "dp.st.dev.secret"
	readOnlySecret = "dp.st.dev.readonly"
	daytonaSecret  = "dtn_doctor_secret"
	expiredSecret  = "dtn_expired_secret"
	weakSecret     = "dtn_weak_secret" // without permissions
	pushSecret     = "registry-secret"
)

func startWard(t *testing.T) *ward {
	t.Helper()
	w := &ward{dir: t.TempDir(), timeout: 10 * time.Second}
	for _, arguments := range [][]string{
		{"init", "--quiet", "--initial-branch=main"}, {"commit", "--quiet", "--allow-empty", "--message=first"},
	} {
		command := exec.CommandContext(t.Context(), "git",
			append([]string{"-c", "user.name=a", "-c", "user.email=a@b"}, arguments...)...)
		command.Dir = w.dir
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", arguments, err, out)
		}
	}
	w.daytona = startDaytona(t, func(o *cloudaytona.Options) {
		all := []string{
			cloudaytona.WriteSnapshots, cloudaytona.DeleteSnapshots, cloudaytona.WriteSandboxes, cloudaytona.DeleteSandboxes,
		}
		o.Organizations[0].Snapshots = 2
		o.Organizations[0].Keys = []cloudaytona.Key{
			{Name: "ci", Value: daytonaSecret, Permissions: all},
			{Name: "old", Value: expiredSecret, Permissions: all, Expires: time.Now().Add(-time.Hour)},
			{Name: "weak", Value: weakSecret},
		}
		w.registry = o.Registry
	})
	w.registry.AddAccount(registry.Account{User: "robot", Password: pushSecret, Push: true})
	w.daytona.Put(cloudaytona.Snapshot{
		Organization: organization, Name: "iterate-sandbox-1", Created: time.Now(),
		Digest: "sha256:" + strings.Repeat("1", 64),
	})
	var err error
	if w.github, err = github.Start(t.Context(), github.Options{
		Repositories: []github.Repository{{Owner: "acme", Name: "app", Dir: w.dir, Private: true}},
		Tokens:       []string{"ghs_doctor_secret"}, Claims: map[string]string{"repository": "acme/app"},
	}); err != nil {
		t.Fatal(err)
	}
	if w.depot, err = depotapi.Start(depotapi.Options{
		Projects: []depotapi.Project{
			{ID: "sandbox", Tokens: []string{depotSecret}, Trust: []string{"acme/app"}},
			{ID: "other", Tokens: []string{otherSecret}},
		}, Issuer: w.github.Issuer(),
	}); err != nil {
		t.Fatal(err)
	}
	if w.doppler, err = clouddoppler.Start(t.Context(), clouddoppler.Options{
		Projects: []clouddoppler.Project{{Name: "app", Configs: []clouddoppler.Config{{
			Name: "dev", Secrets: map[string]string{"DAYTONA_API_KEY": daytonaSecret, nameSecret: "iterate-sandbox-1"},
		}}}},
		Tokens: []clouddoppler.Token{
			{Value: dopplerSecret, Access: []clouddoppler.Access{{Project: "app", Config: "dev", Write: true}}},
			{Value: readOnlySecret, Access: []clouddoppler.Access{{Project: "app", Config: "dev"}}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.github.Close(), w.depot.Close(), w.doppler.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(`{"auths":{"`+w.registry.Addr+
		`":{"username":"robot","password":"`+pushSecret+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.environ = map[string]string{
		"HOME": t.TempDir(), "LANG": "C.UTF-8", "RUNNER_TEMP": t.TempDir(), "DOCKER_HOST": fakeEngine(t),
		"DEPOT_API_URL": w.depot.URL(), "DEPOT_TOKEN": depotSecret, "DEPOT_PROJECT_ID": "sandbox",
		"DOPPLER_API_HOST": w.doppler.URL(), "DOPPLER_TOKEN": dopplerSecret, "DAYTONA_API_URL": w.daytona.URL(),
	}
	return w
}

// fakeEngine returns the DOCKER_HOST of an engine that only describes itself.
func fakeEngine(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "doctor-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("API-Version", "1.47") })
	mux.HandleFunc("/v1.47/info", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"ServerVersion":"29.1.0","Driver":"overlayfs","Name":"elsewhere","DockerRootDir":"/var/lib/docker",`+
			`"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}`)
	})
	mux.HandleFunc("/v1.47/version", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"Os":"linux","Arch":"amd64"}`)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return "unix://" + listener.Addr().String()
}

// silentEngine returns the DOCKER_HOST of a socket that accepts connections and does not answer.
func silentEngine(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return "tcp://" + listener.Addr().String()
}

// inActions makes the environment that of a job with the permission id-token: write.
func (w *ward) inActions() {
	maps.Copy(w.environ, map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "acme/app", "GITHUB_EVENT_NAME": "push",
		"GITHUB_API_URL": w.github.APIURL(), "GITHUB_SERVER_URL": w.github.ServerURL(), "GITHUB_TOKEN": "ghs_doctor_secret",
		"ACTIONS_ID_TOKEN_REQUEST_URL":   w.github.IDTokenRequestURL(),
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": w.github.IDTokenRequestToken(),
	})
	delete(w.environ, "DEPOT_TOKEN")
}

// env returns the environment of a program, and its output.
func (w *ward) env() (Env, *bytes.Buffer, *bytes.Buffer) {
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string { return w.environ[name] }
	return Env{
		Runner: runner.New(&stdout, &stderr, getenv), Getenv: getenv, Dir: w.dir, Stdout: &stdout,
		Probe: httpclient.Config{Clock: w.clock, Policy: httpclient.Policy{
			Timeout: w.timeout, MinWait: time.Millisecond,
		}},
	}, &stdout, &stderr
}

// doctor runs a command such as "build --load" with a format of --output and returns its standard output.
func (w *ward) doctor(t *testing.T, output inputs.Output, command string) (string, error) {
	t.Helper()
	env, stdout, stderr := w.env()
	env.Output = output
	program, arguments, _ := strings.Cut(command, " ")
	source := inputs.Source{Args: strings.Fields(arguments), Stdout: stdout}
	for name, value := range w.environ {
		source.Environ = append(source.Environ, name+"="+value)
	}
	parse := func(target any) {
		if _, err := source.Parse(target); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	switch program {
	case "build":
		var in inputs.Build
		parse(&in)
		err = DoctorBuild(t.Context(), env, in)
	case "test":
		var in inputs.Test
		parse(&in)
		err = DoctorTest(t.Context(), env, in)
	case "snapshot":
		var in inputs.Snapshot
		parse(&in)
		err = DoctorSnapshot(t.Context(), env, in)
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", stderr)
	}
	checkNoSecrets(t, stdout.String())
	return stdout.String(), err
}

var maskCommand = regexp.MustCompile("(?m)^::add-mask::.*$")

func checkNoSecrets(t *testing.T, text string) {
	t.Helper()
	text = maskCommand.ReplaceAllString(text, "")
	for _, secret := range []string{
		depotSecret, otherSecret, dopplerSecret, readOnlySecret, daytonaSecret, expiredSecret, weakSecret, pushSecret,
		"ghs_doctor_secret", userToken,
	} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %s", secret, text)
		}
	}
}

// variableText is what differs between runs of the same command.
var variableText = regexp.MustCompile(`\b(\d[\d.]* GB|go1\.[\d.]+, \w+/\w+|Git: [^;]+|commit [0-9a-f]{7})`)

// normalize replaces variable text.
func (w *ward) normalize(text string) string {
	text = strings.NewReplacer(
		w.environ["DOCKER_HOST"], "ENGINE", w.registry.Addr, "REGISTRY", w.environ["RUNNER_TEMP"], "TEMP",
	).Replace(text)
	return variableText.ReplaceAllStringFunc(text, func(found string) string {
		switch found[0] {
		case 'G':
			return "Git: VERSION"
		case 'c':
			return "commit SHA"
		case 'g':
			return "GO"
		}
		return "SIZE"
	})
}

// Where everything works, no check fails, and nothing changes anywhere.
func TestDoctorPasses(t *testing.T) {
	const machine = "✓ Version: built from source, GO\n- Runner: not in GitHub Actions\n✓ Disk: SIZE free in TEMP\n" +
		"✓ Git: VERSION; commit SHA, refs/heads/main\n"
	const engine = "✓ Docker Engine: 29.1.0 at ENGINE (DOCKER_HOST), linux/amd64, image store containerd\n"
	const depot = "✓ Depot: project \"sandbox\" (DEPOT_PROJECT_ID), authenticated with DEPOT_TOKEN\n"
	const network = "✓ Clock: within a minute of 127.0.0.1, 127.0.0.1\n- Proxy: HTTPS_PROXY and HTTP_PROXY are not set\n" +
		"✓ Certificates: those of the system\n"
	w := startWard(t)
	w.environ["SANDBOX_BUILD_PLATFORM"] = "linux/amd64"
	push := w.registry.Addr + "/team/app:1"
	build := machine + "- GitHub: not needed, because the checkout is built\n" + engine + depot +
		"- Registries: not needed, because push is empty\n" +
		"- Doppler: not configured (no token, or no input selects a config)\n" + network
	for _, test := range []struct{ command, want string }{
		{"build", build},
		{"test", build}, // the engine does not have the default image
		{"build --no-load --doppler-config dev --push " + push, machine +
			"- GitHub: not needed, because the checkout is built\n- Docker Engine: not needed, because load is false\n" + depot +
			"✓ Push to REGISTRY/team/app:1: allowed with the login in Docker's configuration\n" +
			"✓ Doppler: app.dev (selected by doppler_config), 5 secrets, token from " +
			"DOPPLER_TOKEN\n" + network},
		{"test --image app:1", machine + "- GitHub: not needed to test an existing image\n" + engine +
			"- Depot: not needed to test an existing image\n- Registries: not needed, because push is empty\n" +
			"- Doppler: not needed to test an existing image\n- Clock: no service answered with its time\n" +
			"- Proxy: HTTPS_PROXY and HTTP_PROXY are not set\n✓ Certificates: those of the system\n"},
		{"snapshot --image= --name-prefix iterate-sandbox", machine +
			"- GitHub: not needed, because the checkout is built\n" +
			"- Docker Engine: not needed, because a snapshot is not loaded\n" + depot +
			"- Registries: not needed, because push is empty\n" +
			"✓ Doppler: app.dev (selected by the service token in DOPPLER_TOKEN), 5 " +
			"secrets, token from DOPPLER_TOKEN\n" +
			"✓ Doppler write access: DAYTONA_SNAPSHOT_NAME will be set in app.dev\n" +
			"✓ Daytona key: \"ci\" with delete:sandboxes, delete:snapshots, write:sandboxes, write:snapshots, from " +
			"DAYTONA_API_KEY in Doppler config \"dev\" of project \"app\"\n" +
			"✓ Daytona region: the organization's default\n" +
			"✓ Daytona snapshots: 1 used, 1 with the prefix iterate-sandbox, in organization org-1\n" +
			strings.Replace(network, "127.0.0.1\n", "127.0.0.1, 127.0.0.1\n", 1)},
	} {
		t.Run(test.command, func(t *testing.T) {
			got, err := w.doctor(t, inputs.TextOutput, test.command)
			if err != nil {
				t.Error(err)
			}
			if got = w.normalize(got); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	w.checkUnchanged(t)
}

// checkUnchanged checks that the services have got no calls that change something.
func (w *ward) checkUnchanged(t *testing.T) {
	t.Helper()
	for _, r := range w.daytona.Requests() {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			t.Errorf("Daytona: %s %s", r.Method, r.Path)
		}
	}
	for _, c := range w.depot.Calls() {
		if c.Method != "ListBuilds" && c.Method != "/" {
			t.Errorf("Depot: %s", c.Method)
		}
	}
	for _, r := range w.github.Requests() {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			t.Errorf("GitHub: %s %s", r.Method, r.Path)
		}
	}
	if writes := w.doppler.Writes(); len(writes) > 0 {
		t.Errorf("Doppler: %+v", writes)
	}
	uploads := 0 // an upload without content is started and canceled
	for _, request := range w.registry.Requests() {
		method, _, _ := strings.Cut(request, " ")
		switch method {
		case http.MethodPost:
			uploads++
		case http.MethodPut, http.MethodPatch:
			t.Errorf("registry: %s", request)
		}
	}
	if uploads == 0 {
		t.Error("no permission to push was checked")
	}
}

// A job authenticates with OIDC, and its token can read the repository.
func TestDoctorInActions(t *testing.T) {
	w := startWard(t)
	w.inActions()
	got, err := w.doctor(t, inputs.TextOutput, "build --no-load --ref main")
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"✓ Runner: event push of acme/app, permission id-token: write", "✓ GitHub: main is commit ",
		"✓ Depot: project \"sandbox\" (DEPOT_PROJECT_ID), authenticated with an OIDC token of http://127.0.0.1",
		"✓ Clock: within a minute of ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	delete(w.environ, "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	got, err = w.doctor(t, inputs.TextOutput, "build --no-load --ref gone")
	if exit := (*ExitError)(nil); !errors.As(err, &exit) || exit.Code != 1 || exit.Err != nil {
		t.Errorf("got %v, want exit code 1", err)
	}
	for _, want := range []string{
		"✓ Runner: event push of acme/app, no permission id-token: write",
		"✗ Depot: no OIDC token available: add `permissions: id-token: write` to the job",
		"✗ GitHub: ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// A run for a fork's pull request says what it cannot do. It does not request the challenge of Depot, which is valid
// once.
func TestDoctorOfFork(t *testing.T) {
	w := startWard(t)
	w.inActions()
	delete(w.environ, "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	delete(w.environ, "DOPPLER_TOKEN")
	event := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(event, []byte(`{"repository":{"full_name":"acme/app"},"pull_request":{"number":7,
		"head":{"sha":"1","repo":{"full_name":"fork/app"}},"base":{"sha":"2"}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	maps.Copy(w.environ, map[string]string{
		"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": event, "GITHUB_RUN_ID": "1",
	})
	got, err := w.doctor(t, inputs.TextOutput, "build --no-load")
	const skipped = "- Depot: a pull request from a fork authenticates with a challenge in the log"
	if err != nil || !strings.Contains(got, "✓ Runner: event pull_request of ") || !strings.Contains(got, skipped) {
		t.Errorf("got %v and\n%s", err, got)
	}
	got, err = w.doctor(t, inputs.TextOutput, "build --no-load --save")
	if err == nil || !strings.Contains(got, "✗ Runner: input save: ") {
		t.Errorf("got %v and\n%s", err, got)
	}
}

// Each problem has its line, and what to do.
func TestDoctorFails(t *testing.T) {
	w := startWard(t)
	refused := "http://" + faultproxy.Refused(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("nothing"), 0o644); err != nil {
		t.Fatal(err)
	}
	const build, snapshot = "build --no-load", "snapshot --image="
	for _, test := range []struct {
		name, command string
		environ       map[string]string
		fault         func()
		clock         httpclient.Clock
		anonymous     bool     // without logins to registries
		check         string   // that fails
		want          []string // in its message
		hint          string   // in its hint
		skipped       []string // other checks
	}{
		{name: "unknown Depot token", command: build, environ: map[string]string{"DEPOT_TOKEN": "depot_unknown"},
			check: "Depot", want: []string{"401", "invalid API token"}, hint: "set depot_token or DEPOT_TOKEN to a valid token"},
		{name: "no Depot token", command: build, environ: map[string]string{"DEPOT_TOKEN": ""},
			check: "Depot", want: []string{"no Depot token: run `depot login`"}},
		{name: "Depot token of another project", command: build, environ: map[string]string{"DEPOT_TOKEN": otherSecret},
			check: "Depot", want: []string{"403", "sandbox"}, hint: "use a token of this project"},
		{name: "unknown Depot project", command: build, environ: map[string]string{"DEPOT_PROJECT_ID": "gone"},
			check: "Depot", want: []string{"404", "gone"}, hint: "check the project ID"},
		{name: "no Depot project", command: build, environ: map[string]string{"DEPOT_PROJECT_ID": ""},
			check: "Depot", want: []string{"no Depot project: run `depot init`"}},
		{name: "Depot refuses connections", command: build, environ: map[string]string{"DEPOT_API_URL": refused},
			check: "Depot", want: []string{"cannot reach Depot", "connection refused"},
			hint: "check the network and DEPOT_API_URL"},
		{name: "Depot is silent", command: build, fault: func() { w.depot.Fail(depotapi.Fault{NoResponse: true}) },
			check: "Depot", want: []string{"no response within 300ms"}, hint: "status.depot.dev"},
		{name: "Depot is down", command: build, fault: func() { w.depot.Fail(depotapi.Fault{Status: 503, Body: "x"}) },
			check: "Depot", want: []string{"503"}, hint: "try again later"},

		{name: "BuildKit refuses connections", command: build + " --builder " + strings.Replace(refused, "http", "tcp", 1),
			check: "BuildKit", want: []string{"connection refused"}, hint: "check that BuildKit is running"},
		{name: "no socket of BuildKit", command: build + " --builder unix:///nonexistent/b.sock",
			check: "BuildKit", want: []string{"no such file"}, hint: "start buildkitd, or correct the path"},

		{name: "no engine", command: "build", environ: map[string]string{"DOCKER_HOST": "unix:///nonexistent/d.sock"},
			check: "Docker Engine", want: []string{"unix:///nonexistent/d.sock (DOCKER_HOST): no such file"},
			hint: "start that engine, or unset the variable"},
		{name: "the engine is silent", command: "build", environ: map[string]string{"DOCKER_HOST": silentEngine(t)},
			check: "Docker Engine", want: []string{"timed out after 5s"}, hint: "start that engine"},
		{name: "no engine to test", command: "test --image=", environ: map[string]string{
			"DOCKER_HOST": strings.Replace(refused, "http", "tcp", 1),
		}, check: "Docker Engine", want: []string{"Is the docker daemon running?"}, hint: "start that engine"},
		{name: "platform of the engine", command: "build --platform linux/arm64,linux/386",
			check: "Docker Engine", want: []string{"lacks linux/amd64"}},

		{name: "unknown Doppler token", command: snapshot, environ: map[string]string{"DOPPLER_TOKEN": "dp.st.dev.unknown"},
			check: "Doppler", want: []string{"401", "Invalid Auth token"}, hint: "replace the token in DOPPLER_TOKEN",
			skipped: []string{"Doppler write access", "Daytona key", "Daytona region", "Daytona snapshots"}},
		{name: "Depot token in an unreadable config", command: snapshot, environ: map[string]string{
			"DOPPLER_TOKEN": "dp.st.dev.unknown", "DEPOT_TOKEN": "",
		}, check: "Doppler", want: []string{"401"}, hint: "replace the token in DOPPLER_TOKEN", skipped: []string{"Depot"}},
		{name: "unknown tokens of Doppler and Depot", command: snapshot, environ: map[string]string{
			"DOPPLER_TOKEN": "dp.st.dev.unknown", "DEPOT_TOKEN": "depot_unknown",
		}, check: "Depot", want: []string{"401"}, hint: "set depot_token"},
		{name: "Doppler config of another token", command: snapshot + " --doppler-project app --doppler-config prd",
			check: "Doppler", want: []string{"prd"}, hint: "a service token can access only its own config"},
		{name: "Doppler is silent", command: snapshot, fault: func() { w.doppler.Fail(clouddoppler.Fault{NoResponse: true}) },
			check: "Doppler", want: []string{"no response within 300ms"}, hint: "dopplerstatus",
			skipped: []string{"Daytona key"}},
		{name: "Doppler token can only read", command: snapshot, environ: map[string]string{"DOPPLER_TOKEN": readOnlySecret},
			check: "Doppler write access", want: []string{"write access"}, hint: "use a token with read/write access"},

		{name: "unknown Daytona key", command: snapshot + " --daytona-api-key dtn_unknown",
			check: "Daytona key", want: []string{"401"}, hint: "replace the key in the input daytona_api_key",
			skipped: []string{"Daytona region", "Daytona snapshots"}},
		{name: "expired Daytona key", command: snapshot + " --daytona-api-key " + expiredSecret,
			check: "Daytona key", want: []string{"401"}, hint: "replace the key in the input daytona_api_key"},
		{name: "Daytona key without a permission", command: snapshot + " --daytona-api-key " + weakSecret,
			check: "Daytona key", want: []string{`"weak" lacks the permission write:snapshots; create a key`}},
		{name: "no permission for keep", command: snapshot + " --keep 1 --verify boot --daytona-api-key " + weakSecret,
			check: "Daytona key", want: []string{"write:snapshots and delete:snapshots and write:sandboxes"}},
		{name: "Daytona key of another organization", command: snapshot + " --daytona-organization-id org-9",
			check: "Daytona key", want: []string{"belongs to organization org-1, not to org-9"}, hint: "correct DAYTONA_ORG_ID"},
		{name: "unknown region", command: snapshot + " --region mars",
			check: "Daytona region", want: []string{`unknown region "mars"`}, hint: "use one of us, eu"},
		{name: "resources", command: snapshot + " --cpu 64 --daytona-organization-id org-1 --daytona-api-key " + userToken,
			check: "Daytona region", want: []string{"cpu 64 exceeds the maximum of 4 cores"}, hint: "reduce them"},
		{name: "taken name", command: snapshot + " --name iterate-sandbox-1 --if-exists fail",
			check: "Daytona snapshots", want: []string{"already exists as a snapshot"}},
		{name: "quota", command: snapshot + " --daytona-organization-id org-1 --daytona-api-key " + userToken,
			fault: func() {
				w.daytona.Put(cloudaytona.Snapshot{
					Organization: organization, Name: "other-2", Digest: "sha256:" + strings.Repeat("2", 64), Created: time.Now(),
				})
			}, check: "Daytona snapshots", want: []string{"holds 2 of 2 snapshots"}, hint: "action-snapshot list"},
		{name: "Daytona is silent", command: snapshot,
			fault: func() { w.daytona.Fail(cloudaytona.Fault{NoResponse: true}) },
			check: "Daytona key", want: []string{"no response within 300ms"}, hint: "status.daytona.io"},

		{name: "no login", command: build + " --push " + w.registry.Addr + "/team/app:1",
			anonymous: true,
			check:     "Push to " + w.registry.Addr + "/team/app:1", want: []string{"401"}, hint: "docker login"},

		{name: "clock ahead", command: build, clock: shiftedClock(10 * time.Minute),
			check: "Clock", want: []string{"this machine is 10m0s ahead of 127.0.0.1"}, hint: "set the clock"},
		{name: "clock behind", command: build, clock: shiftedClock(-2 * time.Hour),
			check: "Clock", want: []string{"this machine is 2h0m0s behind 127.0.0.1"}, hint: "set the clock"},

		{name: "no file of certificates", command: build, environ: map[string]string{"SSL_CERT_FILE": "/nonexistent"},
			check: "Certificates", want: []string{"SSL_CERT_FILE: open /nonexistent"}, hint: "correct or unset"},
		{name: "no certificates in the file", command: build, environ: map[string]string{"SSL_CERT_FILE": file},
			check: "Certificates", want: []string{"contains no certificate in PEM format"}, hint: "correct or unset"},
		{name: "temporary directory", command: build, environ: map[string]string{"RUNNER_TEMP": "/nonexistent"},
			check: "Disk", want: []string{"/nonexistent"}, hint: "set RUNNER_TEMP to a writable directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.Contains(test.name, "engine is silent") && testing.Short() {
				t.Skip("waits for 5 s")
			}
			before := maps.Clone(w.environ)
			maps.Copy(w.environ, test.environ)
			w.clock = test.clock
			if strings.HasSuffix(test.name, "is silent") {
				w.timeout = 300 * time.Millisecond
			}
			defer func() {
				w.environ, w.clock, w.timeout = before, nil, 10*time.Second
				w.depot.ClearFaults()
				w.doppler.ClearFaults()
				w.daytona.ClearFaults()
			}()
			if test.anonymous {
				t.Setenv("DOCKER_CONFIG", t.TempDir())
			}
			if test.fault != nil {
				test.fault()
			}
			out, err := w.doctor(t, inputs.JSONOutput, test.command)
			if exit := (*ExitError)(nil); !errors.As(err, &exit) || exit.Code != 1 || exit.Err != nil {
				t.Errorf("got %v, want exit code 1", err)
			}
			var results []doctor.Result
			if err := json.Unmarshal([]byte(out), &results); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			find := func(name string) doctor.Result {
				i := slices.IndexFunc(results, func(r doctor.Result) bool { return r.Name == name })
				if i < 0 {
					t.Fatalf("no check %s in %s", name, out)
				}
				return results[i]
			}
			failed := find(test.check)
			for _, want := range test.want {
				if failed.Status != doctor.Failed || !strings.Contains(failed.Message, want) {
					t.Errorf("got %+v, want a failure with %q", failed, want)
				}
			}
			if !strings.Contains(failed.Hint, test.hint) {
				t.Errorf("got the hint %q, want %q", failed.Hint, test.hint)
			}
			for _, name := range test.skipped {
				if r := find(name); r.Status != doctor.Skipped {
					t.Errorf("%+v is not skipped", r)
				}
			}
		})
	}
}

// The proxy is checked without the services, which it would have to reach.
func TestExamineProxy(t *testing.T) {
	proxy := httptest.NewServer(nil)
	defer proxy.Close()
	refused := faultproxy.Refused(t)
	for _, test := range []struct {
		name    string
		environ map[string]string
		status  doctor.Status
		want    string // in the message
	}{
		{"none", nil, doctor.Skipped, "not set"},
		{"used", map[string]string{"HTTPS_PROXY": proxy.URL, "NO_PROXY": "daytona.example"}, doctor.OK,
			"used for: depot.example; not used for: daytona.example, 127.0.0.1, builders, the Docker Engine"},
		{"lower case", map[string]string{"https_proxy": proxy.URL, "no_proxy": ".example"}, doctor.OK, "used for: none"},
		{"only for HTTP", map[string]string{"http_proxy": "http://" + refused}, doctor.OK, "used for: none"},
		{"refuses connections", map[string]string{"https_proxy": "http://user:proxy-password@" + refused}, doctor.Failed,
			"connect to the proxy http://" + refused + ": "},
		{"without a scheme", map[string]string{"HTTPS_PROXY": refused}, doctor.Failed, "connect to the proxy http://"},
		{"not a URL", map[string]string{"HTTPS_PROXY": "http://user:proxy-password@[x"}, doctor.Failed,
			"not the URL of a proxy"},
		{"another scheme", map[string]string{"HTTP_PROXY": "ftp://" + refused}, doctor.Failed,
			"not the URL of a proxy"},
	} {
		job, _, _ := testJob(t, test.environ)
		e := examination{
			job:     job,
			servers: []string{"https://depot.example/api", "https://daytona.example", "http://127.0.0.1:1"},
		}
		got := e.examineProxy(t.Context())
		if got.Status != test.status || !strings.Contains(got.Message, test.want) ||
			strings.Contains(got.Message+got.Hint, "proxy-password") || (got.Status == doctor.Failed) != (got.Hint != "") {
			t.Errorf("%s: got %+v", test.name, got)
		}
	}
}

// shiftedClock returns a clock that differs from that of the system.
func shiftedClock(difference time.Duration) httpclient.Clock {
	return shifted{&fakeclock.Clock{}, difference}
}

type shifted struct {
	httpclient.Clock
	difference time.Duration
}

// Now implements [httpclient.Clock].
func (s shifted) Now() time.Time { return time.Now().Add(s.difference) }

// A failed run with the input doctor logs the results as a group. It does not change the error, and a success or a
// cancellation logs nothing.
func TestDiagnose(t *testing.T) {
	w := startWard(t)
	w.inActions()
	w.environ["DOCKER_HOST"] = "unix:///nonexistent/d.sock"
	source := inputs.Source{Environ: []string{"GITHUB_ACTIONS=true"}}
	var in inputs.Build
	if _, err := source.Parse(&in); err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, enabled bool) (string, error) {
		env, stdout, _ := w.env()
		in.Doctor = enabled
		err := Build(ctx, env, in)
		checkNoSecrets(t, stdout.String())
		return stdout.String(), err
	}
	_, want := run(t.Context(), false)
	log, err := run(t.Context(), true)
	if err == nil || err.Error() != want.Error() {
		t.Errorf("got %v, want %v", err, want)
	}
	_, group, found := strings.Cut(log, "::group::Diagnosis\n")
	if group, _, _ = strings.Cut(group, "::endgroup::"); !found || !strings.Contains(group, "\n✗ Docker Engine: ") ||
		!strings.Contains(group, "\n✓ Depot: ") {
		t.Errorf("the log is\n%s", log)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, enabled := range []bool{true, false} {
		if log, err := run(canceled, enabled); err == nil || strings.Contains(log, "Diagnosis") {
			t.Errorf("canceled: %v,\n%s", err, log)
		}
	}
	env, stdout, _ := w.env()
	env.Checks = buildChecks(env, inputs.BuildSpec{})
	env.diagnose(t.Context(), nil)
	if stdout.Len() > 0 {
		t.Errorf("after a success: %s", stdout)
	}
}
