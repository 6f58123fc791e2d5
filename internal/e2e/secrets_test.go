//go:build linux

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/localcloud"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	clouddoppler "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

// Recipients of secrets: services, and processes that the programs start.
const (
	toDepot           = "Depot"
	toDoppler         = "Doppler"
	toDaytona         = "Daytona"
	toGitHub          = "GitHub"
	toRunner          = "the runner's OIDC endpoint"
	toRegistry        = "the registry"
	toDepotRegistry   = "Depot's registry"
	toDaytonaRegistry = "Daytona's registry"
	toBuilder         = "the builder"
	toEngine          = "the Docker Engine"

	toGitFetch = "the environment of git fetch"
	toCommand  = "the environment of the test command" // inherits the step's environment, except inputs
)

// canary is a secret in a run, and the recipients that it may reach.
type canary struct {
	name, value string
	recipients  []string
}

// Sources of a run's credentials.
const (
	fromInputs      = "inputs"
	fromOIDC        = "OIDC and the Doppler config"
	fromEnvironment = "the environment, on the command line"
)

// Secrets reach only the services and processes that need them, and no log, output, file or argument, regardless of
// their source and of how the run ends.
func TestSecretsStaySecret(t *testing.T) {
	e := setup(t)
	waiting := func(_ *secretRun, stdout string) bool { return strings.Contains(stdout, "\nwaiting\n") }
	// The user's test command prints its environment and writes it to a report.
	const printEnvironment = `env; env >&2
printf '<testsuite name="s" tests="1"><testcase name="t"><failure message="%s"/></testcase></testsuite>' \
	"$(env | grep TOKEN | tr -d '<>&"\n')" > "$TEST_REPORT_DIR/host.xml"`
	pending := regexp.MustCompile(`"state": *"pending"`)
	isPending := func(s *secretRun, _ string) bool { return pending.MatchString(s.answered[toDaytona].String()) }
	stored := e.serviceStorage(t)
	for _, test := range []struct {
		program, from, end string
		last               string // last command in the build step
		inputs             map[string]string
		daytona            cloudaytona.SnapshotFault
		exitCode           int
		interrupt          func(s *secretRun, stdout string) bool
	}{
		{program: "action-build", from: fromEnvironment, end: "success", inputs: values{"save": "true"}},
		{program: "action-build", from: fromInputs, end: "failure", last: "exit 9", inputs: values{"save": "true"},
			exitCode: 1},
		{program: "action-build", from: fromOIDC, end: "cancel", last: "echo waiting; sleep 300",
			inputs: values{"save": "true"}, exitCode: 130, interrupt: waiting},
		{program: "action-snapshot", from: fromInputs, end: "success"},
		{program: "action-snapshot", from: fromOIDC, end: "failure", daytona: cloudaytona.FailsAfterActive, exitCode: 1},
		{program: "action-snapshot", from: fromEnvironment, end: "cancel", daytona: cloudaytona.Stuck, exitCode: 130,
			interrupt: isPending},
		{program: "action-test", from: fromOIDC, end: "success", inputs: values{"command": "env"}},
		{program: "action-test", from: fromEnvironment, end: "failure",
			inputs:   values{"command": printEnvironment + "; exit 7"},
			exitCode: 7},
		{program: "action-test", from: fromInputs, end: "cancel",
			inputs: values{"command": printEnvironment + "; echo waiting; sleep 300", "report_dir": "reports"}, exitCode: 130,
			interrupt: waiting},
	} {
		t.Run(test.program+" "+test.end, func(t *testing.T) {
			s := e.secretRun(t, test.program, test.from, test.last, stored)
			maps.Copy(s.inputs, test.inputs)
			maps.Copy(s.inputs, values{"report": "true", "report_dir": "reports"})
			if test.daytona != "" {
				e.Daytona.Fail(cloudaytona.Fault{Snapshot: test.daytona})
				defer e.Daytona.ClearFaults()
			}
			watcher := &processWatcher{}
			s.onStart = func(pid int, stdout *programs.Buffer) {
				for interrupted := false; unix.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
					watcher.sample(pid)
					if test.interrupt != nil && !interrupted && test.interrupt(s, stdout.String()) {
						interrupted = true
						_ = unix.Kill(pid, unix.SIGINT)
					}
					if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil ||
						strings.Contains(string(status), ") Z ") {
						return // it is a zombie that run waits for
					}
				}
			}
			r := e.run(t, s.invocation)
			if r.exitCode != test.exitCode {
				t.Fatalf("exit %d:\n%s%s", r.exitCode, r.stdout, r.stderr)
			}
			s.collectIssuedSecrets(t)
			f := &finder{}
			for _, c := range s.canaries {
				f.add(c.name, c.value)
			}

			// Search the output as the programs write it, before the runner masks it. Only add-mask commands are excluded.
			commands := workflowCommands(t, r.stdout)
			var printed, masks strings.Builder
			for line := range strings.Lines(r.stdout) {
				if value, ok := strings.CutPrefix(strings.TrimSpace(line), "::add-mask::"); ok &&
					slices.Contains(commands, strings.TrimSpace(line)) {
					masks.WriteString(strings.NewReplacer("%0D", "\r", "%0A", "\n", "%25", "%").Replace(value) + "\n")
				} else {
					printed.WriteString(line)
				}
			}
			places := values{
				"standard output": printed.String(), "standard error": r.stderr, "outputs": r.outputFile, "summary": r.summary,
				"arguments": strings.Join(watcher.arguments, "\n"), "temporary files": strings.Join(watcher.files, "\n"),
				"files in the workspace":      strings.Join(fileContents(s.dir, "host.xml"), "\n"),
				"files in the home directory": strings.Join(fileContents(s.home, ".docker/config.json"), "\n"),
			}
			if test.exitCode == 0 && s.inputs["load"] != "false" && test.program != "action-snapshot" {
				places["the image"] = docker(t, e.Engine.Host, "image", "inspect", "sandbox:secret") +
					docker(t, e.Engine.Host, "history", "--no-trunc", "sandbox:secret")
			}
			for place, environments := range watcher.startedEnvironments {
				places[place] = strings.Join(environments, "\n")
			}
			for place, environments := range s.startedEnvironments(t) {
				places[place] += strings.Join(environments, "\n")
			}
			for place, text := range places {
				s.check(t, place, f.find([]byte(text), minTextLength))
			}
			received := map[string]bool{}
			for service, sent := range s.sent {
				for _, found := range s.check(t, service, f.find([]byte(sent.String()), minBinaryLength)) {
					received[found.secret] = true
				}
			}
			stored.pushed = stored.pushed || test.exitCode == 0
			stored.canaries = append(stored.canaries, s.canaries...)

			// Verify the search itself: it must find the secrets that services do receive.
			for _, c := range s.canaries {
				isSent := slices.ContainsFunc(c.recipients, func(to string) bool { return s.sent[to] != nil })
				if test.exitCode == 0 && isSent && !received[c.name] {
					t.Errorf("%s was not found in the data sent to %s", c.name, c.recipients)
				}
				if test.from == fromEnvironment || !received[c.name] || strings.HasSuffix(c.name, "token of a registry") {
					continue
				}
				for line := range strings.FieldsFuncSeq(c.value, func(c rune) bool { return c == '\n' || c == '\r' }) {
					if line = strings.TrimSpace(line); len(line) >= 4 && !strings.Contains(masks.String(), line+"\n") {
						t.Errorf("%s is not masked", c.name)
					}
				}
			}
			if !strings.Contains(r.stdout+r.stderr, "***") || len(watcher.arguments) < 2 || len(watcher.files) == 0 {
				t.Errorf(
					"the watcher saw only %d command lines and %d temporary files\n%s%s",
					len(watcher.arguments),
					len(watcher.files),
					r.stdout,
					r.stderr,
				)
			}
			if name := r.outputs["snapshot_name"]; name != "" {
				e.deleteSnapshot(t, name)
			}
		})
	}
	stored.search(t, e.buildLogs(t))
}

// secretRun is a run with a secret in every place that can contain one.
type secretRun struct {
	invocation
	home     string
	records  string // directory with the environments and arguments of started programs
	canaries []canary

	sent, answered map[string]*programs.Buffer // by service
}

// secret registers a canary and returns its value.
func (s *secretRun) secret(name, value string, recipients ...string) string {
	s.canaries = append(s.canaries, canary{name, value, recipients})
	return value
}

// secretRun prepares a run that builds a commit with a Dockerfile that prints each build secret. last is the last
// command in that build step.
func (e *environment) secretRun(t *testing.T, program, from, last string, stored *serviceStorage) *secretRun {
	s := &secretRun{
		home:     t.TempDir(),
		records:  t.TempDir(),
		sent:     map[string]*programs.Buffer{},
		answered: map[string]*programs.Buffer{},
	}
	s.program, s.dir = program, t.TempDir()
	for _, service := range []string{
		toDepot, toDoppler, toDaytona, toGitHub, toRunner, toRegistry, toDepotRegistry, toDaytonaRegistry, toBuilder,
		toEngine,
	} {
		s.sent[service], s.answered[service] = &programs.Buffer{}, &programs.Buffer{}
	}
	r := rand.Text

	// The build step prints build secrets with characters that are hard to mask.
	file, key := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "key")
	config := values{
		"APP_KEY": s.secret("Doppler's plain value", "canary-"+r(), toBuilder),
		"LINES": s.secret(
			"Doppler's multi-line value",
			"first-"+r()+"\n  second "+r()+"\n\n-\nthird-"+r()+"\n",
			toBuilder,
		),
		"CRLF":                  s.secret("Doppler's value with CRLF", "first-"+r()+"\r\nsecond-"+r(), toBuilder),
		"RETURN":                s.secret("Doppler's value with a carriage return", "before-"+r()+"\rafter-"+r(), toBuilder),
		"REGEX":                 s.secret("Doppler's regular expression", `^(canary|[$]{2}.*\d+)?`+r()+`+$`, toBuilder),
		"PERCENT":               s.secret("Doppler's value with percents", "%0A::add-mask::canary%25%"+r(), toBuilder),
		"QUOTES":                s.secret("Doppler's value with quotes", `"canary'`+"`"+r()+`\"<&>`, toBuilder),
		"JSON":                  s.secret("Doppler's JSON", `{"key": "`+r()+`", "lines": "a\nb"}`, toBuilder),
		"CONTROL":               s.secret("Doppler's value with control characters", "canary\x1b[31m"+r()+"\x07", toBuilder),
		"UNICODE":               s.secret("Doppler's non-ASCII value", "канарейка-"+r(), toBuilder),
		"SPACES":                s.secret("Doppler's value with surrounding spaces", "  canary "+r()+"  ", toBuilder),
		"SHORT":                 s.secret("Doppler's short value", "~"+r()[:3]+"~%", toBuilder),
		"DOPPLER_SERVICE_TOKEN": s.secret("Doppler's value of DOPPLER_SERVICE_TOKEN", "canary-"+r(), toBuilder),
	}
	shown := append(slices.Sorted(maps.Keys(config)), "a", "b", "c")
	config["UNUSED"] = s.secret("Doppler's value that no step uses", "canary-"+r())
	s.inputs = values{
		"secrets":      "a=" + s.secret("secrets", `canary "`+r()+`' 100%25 \n`, toBuilder),
		"secret_envs":  "b=BUILD_SECRET",
		"secret_files": "c=" + file, "ssh": "default=" + key,
		"doppler_config": "dev", "dockerfile": "Dockerfile", "image_name": "sandbox:secret", "no_cache": "true",
		"git_context": "git", "provenance": "mode=max",
	}
	s.env = values{
		"HOME":         s.home,
		"BUILD_SECRET": s.secret("secret_envs", "canary of an environment "+r(), toBuilder, toCommand),
	}
	for _, name := range []string{"GITHUB_ENV", "GITHUB_STATE", "GITHUB_PATH"} {
		s.env[name] = filepath.Join(s.home, name)
	}
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, s.secret("secret_files", "first "+r()+"\nsecond "+r()+"\n", toBuilder))
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	s.secret("ssh, the key itself", string(private.Seed()))
	lines := strings.Split(string(pem.EncodeToMemory(block)), "\n")
	s.secret("ssh, the key's file", strings.Join(lines[1:len(lines)-2], "\n"))
	write(key, strings.Join(lines, "\n"))

	// The programs must use each credential from one source. The other sources contain decoys.
	serviceToken := "dp.st.dev." + r()
	usesDaytona, uses := program == "action-snapshot", map[string][]string{
		"DEPOT_TOKEN": {e.DepotToken, toDepot}, "DOPPLER_TOKEN": {serviceToken, toDoppler}, "DAYTONA_API_KEY": {e.DaytonaKey},
		"GITHUB_TOKEN": {e.GitHubToken, toGitHub, toGitFetch},
	}
	if usesDaytona {
		uses["DAYTONA_API_KEY"] = append(uses["DAYTONA_API_KEY"], toDaytona)
	}
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		value, recipients := uses[name][0], uses[name][1:]
		input := strings.ToLower(name)
		isInput := from == fromInputs && (name != "DAYTONA_API_KEY" || usesDaytona)
		switch {
		case isInput:
			s.inputs[input] = s.secret("input "+input, value, recipients...)
		case from == fromOIDC && (name == "DAYTONA_API_KEY" || name == "GITHUB_TOKEN"):
			config[name] = s.secret("Doppler's "+name, value, recipients...)
		case from == fromEnvironment:
			s.env[name] = s.secret("variable "+name, value, append(recipients, toCommand)...)
		}
		if s.env[name] == "" && (from != fromOIDC || name != "DEPOT_TOKEN") {
			s.env[name] = s.secret("unused variable "+name, "decoy-"+r(), toCommand)
		}
		if from == fromInputs && name != "DOPPLER_TOKEN" {
			config[name] = s.secret("Doppler's unused "+name, "decoy-"+r())
		}
	}
	var idTokenRecipients []string
	switch from {
	case fromOIDC:
		s.inputs["doppler_identity"], s.inputs["doppler_project"] = localcloud.DopplerIdentity, localcloud.Project
		idTokenRecipients = []string{toRunner}
	case fromEnvironment:
		s.env["GITHUB_ACTIONS"] = ""
		if program != "action-build" {
			s.args = []string{"--image="} // on the command line, the default is an existing image
		}
	}
	s.secret("ACTIONS_ID_TOKEN_REQUEST_TOKEN", e.GitHub.IDTokenRequestToken(), idTokenRecipients...)

	// Each service is behind a recording proxy.
	access := []clouddoppler.Access{{Project: localcloud.Project, Config: "dev", Write: true}}
	doppler, err := clouddoppler.Start(t.Context(), clouddoppler.Options{
		Projects: []clouddoppler.Project{
			{Name: localcloud.Project, Configs: []clouddoppler.Config{{Name: "dev", Secrets: config}}},
		},
		Tokens: []clouddoppler.Token{{Value: serviceToken, Access: access}}, Issuer: e.GitHub.Issuer(),
		Identities: []clouddoppler.Identity{
			{
				ID:       localcloud.DopplerIdentity,
				Audience: "https://github.com/acme",
				Access:   access,
				Claims:   values{"sub": "repo:" + callerRepository + ":*"},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = doppler.Close() })
	for variable, front := range map[string]struct{ service, url string }{
		"DEPOT_API_URL": {toDepot, e.Depot.URL()}, "DOPPLER_API_HOST": {toDoppler, doppler.URL()},
		"DAYTONA_API_URL": {toDaytona, e.Daytona.URL()},
		"GITHUB_API_URL":  {toGitHub, e.GitHub.APIURL()}, "GITHUB_SERVER_URL": {toGitHub, e.GitHub.ServerURL()},
		"ACTIONS_ID_TOKEN_REQUEST_URL": {toRunner, e.GitHub.IDTokenRequestURL()},
	} {
		s.env[variable] = s.recordingProxy(t, front.service, front.url)
	}
	s.env["DOCKER_HOST"] = s.recordingSocketProxy(t, toEngine, e.Engine.Host)
	e.Builders.Tap(s.sent[toBuilder])
	t.Cleanup(func() { e.Builders.Tap(io.Discard) })
	password := s.secret("registry's password", stored.password, toRegistry)
	own := stored.registry
	own.Tap(func(r *http.Request) { s.record(toRegistry, r) })
	e.Registry.Tap(func(r *http.Request) {
		if r.Host == e.Daytona.RegistryHost() {
			s.record(toDaytonaRegistry, r)
		} else {
			s.record(toDepotRegistry, r)
		}
	})
	t.Cleanup(func() { e.Registry.Tap(nil) })
	if err := os.Mkdir(filepath.Join(s.home, ".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(
		filepath.Join(s.home, ".docker/config.json"),
		fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, own.Addr, base64.StdEncoding.EncodeToString([]byte("robot:"+password))),
	)
	s.inputs["push"] = own.Addr + "/team/secret:1"

	// Wrappers of git and sh record their environment and arguments.
	programs := t.TempDir()
	for _, name := range []string{"git", "sh"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf(
			"#!/bin/sh\n{ tr '\\0' '\\n' </proc/$$/environ; printf '\\0'; tr '\\0' ' ' </proc/$$/cmdline; } >%s/$$\n"+
				"exec %s \"$@\"\n",
			s.records,
			real,
		)
		if err := os.WriteFile(filepath.Join(programs, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.env["PATH"] = programs + ":" + os.Getenv("PATH")

	// The step prints all its secrets, at once and in parts, and fails if it can access others.
	var mounts strings.Builder
	for _, id := range append(shown, "DAYTONA_API_KEY", "DEPOT_TOKEN") {
		fmt.Fprintf(&mounts, "--mount=type=secret,id=%s ", id)
	}
	step := "RUN " + mounts.String() + "--mount=type=ssh " +
		"cd /run/secrets; for s in " + strings.Join(shown, " ") + "; do " +
		"cat $s; echo; cat $s >&2; echo >&2; head -c 6 $s; sleep 0.02; tail -c +7 $s; echo; done; " +
		`test -S "$SSH_AUTH_SOCK" && ! test -e DAYTONA_API_KEY && ! test -e DEPOT_TOKEN` + strings.TrimSuffix("; "+last, "; ")
	s.inputs["ref"] = commitFiles(t, e.caller, values{
		"Dockerfile": fromDebian + "COPY --from=git . /srv/.git\nRUN printf %s%s canary-of- the-image > /marker\n" + step +
			"\nCMD [\"sleep\", \"60\"]\n",
		"tests.yaml": "tests:\n  - name: is Debian\n    run: [cat, /etc/debian_version]\n",
	})
	if program == "action-test" {
		s.inputs["suite"] = "tests.yaml"
	}
	return s
}

// collectIssuedSecrets adds the secrets that services issued in their responses during the run.
func (s *secretRun) collectIssuedSecrets(t *testing.T) {
	find := func(name, service, pattern string, recipients ...string) (found []string) {
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(s.answered[service].String(), -1) {
			found = append(found, s.secret(name, match[1], recipients...))
		}
		return found
	}
	find("token of a build", toDepot, `(build_[A-Z2-7]{26})`, toDepot)
	var registries []string // Depot issues a credential for every build, which is used only to save the image
	if s.inputs["save"] == "true" {
		registries = []string{toDepotRegistry}
	}
	// The pattern matches base64 of x-token:PASSWORD.
	credentials := find("credential for Depot's registry", toDepot, `(eC10b2tlb[A-Za-z0-9+/]+=*)`, registries...)
	if len(credentials) == 0 {
		t.Error("Depot issued no credential for its registry")
	}
	for _, credential := range credentials {
		decoded, err := base64.StdEncoding.DecodeString(credential)
		if err != nil {
			t.Fatal(err)
		}
		s.secret("password for Depot's registry", strings.TrimPrefix(string(decoded), "x-token:"), registries...)
	}
	if find("private key for a machine", toDepot, `(?s)-----BEGIN PRIVATE KEY-----\n(.*?)\n-----END`) == nil {
		t.Error("Depot issued no private key for a machine")
	}
	find("token of a Doppler identity", toDoppler, `(dp\.said\.[A-Z2-7]+)`, toDoppler)
	if found := find("access to Daytona's registry", toDaytona, `"secret": *"([^"]+)"`, toDaytonaRegistry); found == nil &&
		s.program == "action-snapshot" {
		t.Error("Daytona issued no push access")
	}
	idToken := regexp.MustCompile(`"value": *"([^"]+)"`)
	for _, match := range idToken.FindAllStringSubmatch(s.answered[toRunner].String(), -1) {
		var claims struct{ Aud string }
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(match[1], ".")[1])
		if err == nil {
			err = json.Unmarshal(payload, &claims)
		}
		if err != nil {
			t.Fatal(err)
		}
		recipient := values{"https://depot.dev": toDepot, "https://github.com/acme": toDoppler}[claims.Aud]
		s.secret("ID token for "+claims.Aud, match[1], recipient)
	}
	for _, service := range []string{toRegistry, toDepotRegistry, toDaytonaRegistry} {
		bearer := regexp.MustCompile(`Authorization: Bearer (\S+)`)
		for _, match := range bearer.FindAllStringSubmatch(s.sent[service].String(), -1) {
			if !slices.ContainsFunc(s.canaries, func(c canary) bool { return c.value == match[1] }) {
				s.secret(service+": token of a registry", match[1], service, toBuilder)
			}
		}
	}
}

// check reports secrets that must not be in a place, and returns those that are allowed in it.
func (s *secretRun) check(t *testing.T, place string, all []found) (allowed []found) {
	t.Helper()
	reported := map[string]bool{}
	for _, f := range all {
		i := slices.IndexFunc(s.canaries, func(c canary) bool { return c.name == f.secret })
		if slices.Contains(s.canaries[i].recipients, place) {
			allowed = append(allowed, f)
		} else if !reported[f.secret] {
			reported[f.secret] = true
			t.Errorf("%s contains %s (%s): …%q…", place, f.secret, f.form, f.context)
		}
	}
	return allowed
}

// recordingProxy returns the URL of a proxy that records a service's requests and responses.
func (s *secretRun) recordingProxy(t *testing.T, service, target string) string {
	at, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: at.Scheme, Host: at.Host})
			r.Out.Header.Del("Accept-Encoding") // keeps responses uncompressed
		},
		ModifyResponse: func(answer *http.Response) error {
			body, err := io.ReadAll(answer.Body)
			answer.Body = io.NopCloser(bytes.NewReader(body))
			_, _ = s.answered[service].Write(append(body, '\n'))
			return err
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.record(service, r)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.Replace(target, at.Host, server.Listener.Addr().String(), 1)
}

// record records a request. It omits the bodies of layer uploads, which serviceStorage searches.
func (s *secretRun) record(service string, r *http.Request) {
	head, err := httputil.DumpRequest(r, false)
	if err != nil {
		head = []byte(err.Error())
	}
	if !strings.Contains(r.URL.Path, "/blobs/uploads/") {
		body, _ := io.ReadAll(r.Body) // the service reports errors
		r.Body = io.NopCloser(bytes.NewReader(body))
		head = append(append(head, decompress(body)...), '\n')
	}
	_, _ = s.sent[service].Write(head)
}

// recordingSocketProxy is like recordingProxy, but for a Docker Engine. It records only requests.
func (s *secretRun) recordingSocketProxy(t *testing.T, service, target string) string {
	dir, err := os.MkdirTemp("", "engine-") // paths of t.TempDir are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	address := filepath.Join(dir, "docker.sock")
	listener, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	pass := func(to, from net.Conn, tap io.Writer) {
		_, _ = io.Copy(to, io.TeeReader(from, tap))
		_ = to.(*net.UnixConn).CloseWrite()
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			engine, err := net.Dial("unix", strings.TrimPrefix(target, "unix://"))
			if err != nil {
				_ = conn.Close()
				continue
			}
			go pass(engine, conn, s.sent[service])
			go pass(conn, engine, io.Discard)
		}
	}()
	return "unix://" + address
}

// startedEnvironments returns the recorded environments of started programs by recipient, and their arguments.
func (s *secretRun) startedEnvironments(t *testing.T) map[string][]string {
	all := map[string][]string{}
	files, err := os.ReadDir(s.records)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		environment, arguments, _ := strings.Cut(read(t, filepath.Join(s.records, file.Name())), "\x00")
		place := "the environment of git"
		switch {
		case strings.Contains(arguments, "/git fetch "):
			place = toGitFetch
		case strings.Contains(environment, "RUN_LOCAL_DOCKER_TESTS=true"):
			place = toCommand
		}
		all[place] = append(all[place], environment)
		all["arguments of programs"] = append(all["arguments of programs"], arguments)
	}
	if len(all[toGitFetch]) == 0 {
		t.Errorf("git fetch was not recorded: %v", slices.Collect(maps.Keys(all)))
	}
	return all
}

// processWatcher samples a program and its descendants while they run.
type processWatcher struct {
	arguments           []string
	startedEnvironments map[string][]string // by recipient
	files               []string            // files in its temporary directory
	known               map[string]bool
}

// isNew reports whether this is the first call with this key.
func (s *processWatcher) isNew(parts ...string) bool {
	if s.known == nil {
		s.known, s.startedEnvironments = map[string]bool{}, map[string][]string{}
	}
	key := strings.Join(parts, "\x00")
	isKnown := s.known[key]
	s.known[key] = true
	return !isKnown
}

// sample records the processes' arguments and environments and the temporary files. It skips processes and files that
// disappear during the call.
func (s *processWatcher) sample(pid int) {
	temp, own := "", ""
	for _, descendant := range processTree(pid) {
		read := func(name string) string {
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", descendant, name))
			return string(data)
		}
		// Between fork and exec, a child still has the program and environment of its parent.
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", descendant))
		arguments, environment := read("cmdline"), read("environ")
		if s.isNew("arguments", arguments) {
			s.arguments = append(s.arguments, strings.ReplaceAll(arguments, "\x00", " "))
		}
		if descendant == pid {
			own = program
			for variable := range strings.SplitSeq(environment, "\x00") {
				if dir, ok := strings.CutPrefix(variable, "RUNNER_TEMP="); ok {
					temp = dir
				}
			}
			continue
		}
		if err != nil || program == own {
			continue
		}
		place := "the environment of a child process"
		switch {
		case strings.Contains(environment, "\x00GIT_CONFIG_COUNT="): // git fetch and its children
			place = toGitFetch
		case strings.Contains(environment, "RUN_LOCAL_DOCKER_TESTS=true"):
			place = toCommand
		}
		if s.isNew("environment", environment) {
			s.startedEnvironments[place] = append(s.startedEnvironments[place], strings.ReplaceAll(environment, "\x00", "\n"))
		}
	}
	if temp == "" {
		return
	}
	_ = filepath.WalkDir(temp, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "host.xml" { // the report of the test command itself
			return nil
		}
		// Large files are layers, which serviceStorage searches.
		if info, err := e.Info(); err == nil && info.Size() < 1<<20 &&
			s.isNew("file", path, info.ModTime().String(), strconv.FormatInt(info.Size(), 10)) {
			if data, err := os.ReadFile(path); err == nil {
				s.files = append(s.files, path+"\n"+string(data))
			}
		}
		return nil
	})
}

// processTree returns a process and its descendants.
func processTree(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		data, _ := os.ReadFile(list) // the process may have exited
		for field := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, processTree(child)...)
			}
		}
	}
	return all
}

// serviceStorage is the storage of services: images, layers, attestations, caches, logs and build records.
type serviceStorage struct {
	folders  []string
	began    time.Time
	canaries []canary // of all runs; the storage must contain none of them
	registry *registry.Registry
	password string
	pushed   bool // a run has pushed an image
}

// marker is only in a layer of each image, so finding it proves that search covers layers.
const marker = "canary-of-the-image"

// serviceStorage returns the storage of the cloud, the builders, and a registry that it starts for this test.
func (e *environment) serviceStorage(t *testing.T) *serviceStorage {
	s := &serviceStorage{
		began:    time.Now(),
		folders:  []string{t.TempDir(), "../../" + cloudState, "../../.cache/test/daemons"},
		password: `Pa$$%41"` + rand.Text() + `'\ &:`,
	}
	var err error
	s.registry, err = registry.Start(
		t.Context(),
		s.folders[0],
		registry.Account{User: "robot", Password: s.password, Push: true},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.registry.Stop() })
	return s
}

// search searches all files that have changed since the start, except the logs of build steps.
func (s *serviceStorage) search(t *testing.T, logs map[string]bool) {
	f := &finder{}
	for i, c := range s.canaries {
		f.add(fmt.Sprintf("%s (%d)", c.name, i), c.value)
	}
	f.add(marker, marker)
	marked := map[string]bool{}
	for _, folder := range s.folders {
		searched := map[[sha256.Size]byte]bool{} // by content
		err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !e.Type().IsRegular() || logs[filepath.Base(path)] {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return nil // the file was deleted
			}
			if changed := info.Sys().(*syscall.Stat_t).Ctim; time.Unix(changed.Unix()).Before(s.began) {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			sum := sha256.Sum256(data)
			if searched[sum] {
				return nil
			}
			searched[sum] = true
			for _, found := range f.find(data, minBinaryLength) {
				if found.secret == marker {
					marked[folder] = true
					continue
				}
				t.Errorf("%s contains %s (%s): …%q…", path, found.secret, found.form, found.context)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if s.pushed && len(marked) < len(s.folders) {
		t.Errorf("found layers only in %v", slices.Collect(maps.Keys(marked)))
	}
}

// buildLogs returns the names of the blobs in which the builders store the logs of build steps.
func (e *environment) buildLogs(t *testing.T) map[string]bool {
	logs := map[string]bool{}
	c, err := client.New(t.Context(), e.Builders.Address("linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list := func(activeOnly bool) (records []*controlapi.BuildHistoryRecord) {
		events, err := c.ControlClient().
			ListenBuildHistory(t.Context(), &controlapi.BuildHistoryRequest{ActiveOnly: activeOnly, EarlyExit: true})
		for err == nil {
			var event *controlapi.BuildHistoryEvent
			if event, err = events.Recv(); err == nil {
				records = append(records, event.Record)
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return records
	}
	// Wait for canceled builds to end, but not for builds that other packages start in the meantime, and not for long: a
	// build of another package may be waiting for a fault.
	pending := map[string]bool{}
	for _, record := range list(true) {
		pending[record.Ref] = true
	}
	isPending := func(record *controlapi.BuildHistoryRecord) bool { return pending[record.Ref] }
	for end := time.Now().Add(3 * time.Minute); slices.ContainsFunc(list(true), isPending) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	for _, record := range list(false) {
		if record.GetLogs() != nil {
			logs[strings.TrimPrefix(record.Logs.Digest, "sha256:")] = true
		}
	}
	return logs
}

// commitFiles commits files to a repository, without changing a branch, and returns the commit.
func commitFiles(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, dir, "checkout", "--quiet", "--detach")
	defer git(t, dir, "checkout", "--quiet", "--force", "main")
	git(t, dir, "commit", "--quiet", "--all", "--message=test")
	return git(t, dir, "rev-parse", "HEAD")
}

// fileContents returns the content of the files below a directory, except files with the path suffix exceptSuffix. It
// skips files that disappear during the call.
func fileContents(dir, exceptSuffix string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || exceptSuffix != "" && strings.HasSuffix(path, exceptSuffix) {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil {
			found = append(found, string(data))
		}
		return nil
	})
	return found
}
