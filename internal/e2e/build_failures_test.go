//go:build linux

package e2e

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/internal/runnerlog"
)

// Each build failure produces one error with the cause and a hint.
func TestBuildFailures(t *testing.T) {
	e := setup(t)
	const scratch = "FROM scratch\nCOPY Dockerfile /\n"
	closed := faultproxy.Refused(t)
	noID := values{"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}
	expired, err := e.GitHub.Mint(
		"https://depot.dev",
		func(claims map[string]any) { claims["exp"] = time.Now().Add(-time.Hour).Unix() },
	)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := e.GitHub.Forge("https://depot.dev")
	if err != nil {
		t.Fatal(err)
	}
	depot := func(f depotapi.Fault) func() { return func() { e.Depot.Fail(f) } }
	hub := func(f github.Fault) func() { return func() { e.GitHub.Fail(f) } }

	for _, test := range []struct {
		name         string
		do           func() // injects a fault
		dockerfile   string
		dir          string
		inputs       map[string]string
		env          map[string]string
		want         string // regular expression that must match the error
		createsBuild bool   // the build is created before the failure
	}{
		{name: "platform", inputs: values{"platform": "linux/s390x"},
			want: `input platform: .*"linux/s390x".*linux/arm64`},
		{name: "malformed list element", inputs: values{"build_args": "A=1\n# fine\nB 2"},
			want: `input build_args, line 3: .*"B 2".*NAME=VALUE`},
		{name: "unclosed quote", inputs: values{"labels": "a=b\n\"c=d"}, want: `input labels.* line 2.*quote`},
		{name: "value in place of a secret", inputs: values{"secrets": "A=1\nvalue"},
			want: `input secrets, line 2: .*no ID.*ID=VALUE`},
		{name: "boolean push", inputs: values{"push": "false"}, want: `input push, line 1: "false" .*leave push empty`},
		{name: "annotation without a place", inputs: values{
			"annotations": "index:a=b", "push": e.Registry.Addr + "/team/a:1", "provenance": "false", "load": "false",
		}, want: `input annotations, line 1: "index:a=b" .*provenance: mode=min`},
		{name: "host gateway on Depot", inputs: values{"add_hosts": "a:host-gateway"},
			want: `input add_hosts, line 1: "a:host-gateway" .*IP address`},
		{name: "check as an error", dockerfile: "# check=error=true\nfrom scratch\nCOPY Dockerfile /\n", createsBuild: true,
			want: `lint violation`},
		{name: "invalid timeout", inputs: values{"timeout": "soon"}, want: `input timeout: .*"soon"`},
		{name: "unsupported scheme of builder", inputs: values{"builder": "ssh://host"},
			want: `input builder: .*"ssh://host".*unix:///.*tcp://`},
		{name: "option as ref", inputs: values{"ref": "--upload-pack=x"}, want: `input ref: .*"--upload-pack=x"`},
		{name: "ref with a line break", inputs: values{"ref": "main\n::error::x"},
			want: `input ref: .*"main\\n::error::x"`},
		{name: "no Dockerfile", dir: t.TempDir(), want: `input dockerfile: .*"Dockerfile"`},
		{name: "context that is a file", inputs: values{"context": "Dockerfile"},
			want: `input context: .*"Dockerfile".*file.*folder|directory`},
		{name: "git_context without a commit", inputs: values{"git_context": "git"},
			want: `input git_context: .*"git".*commit`},

		{name: "no project", env: values{"DEPOT_PROJECT_ID": ""},
			want: `(?i)Depot project.*depot.json.*DEPOT_PROJECT_ID.*depot_project`},
		{name: "depot.json without an id", dir: writeFiles(t, values{"Dockerfile": scratch, "depot.json": "{}"}),
			env: values{"DEPOT_PROJECT_ID": ""}, want: `depot.json".*project`},
		{name: "invalid depot.json", dir: writeFiles(t, values{"Dockerfile": scratch, "depot.json": "{"}),
			env: values{"DEPOT_PROJECT_ID": ""}, want: `depot.json".*\{"id"`},
		{name: "unknown project", inputs: values{"depot_project": "absent", "depot_token": e.OrganizationToken},
			want: `project absent not found`},
		{name: "no token and no OIDC", env: noID, want: `permissions: ?.*id-token: write`},
		{name: "untrusted repository", env: values{"DEPOT_PROJECT_ID": "other"},
			want: `no trust relationship with acme/caller.*trust relationships`},
		{name: "invalid token", inputs: values{"depot_token": "wrong"}, want: `Depot.*invalid API token`},
		{name: "expired token", inputs: values{"depot_token": expired}, want: `Depot.*the OIDC token has expired`},
		{name: "forged token", inputs: values{"depot_token": forged}, want: `Depot.*invalid OIDC token`},
		{name: "OIDC endpoint fails", do: hub(github.Fault{Path: "/oidc/token", Status: 500, Body: "oops"}),
			want: `OIDC token.* https://depot.dev.*500`},
		{name: "429",
			do:   depot(depotapi.Fault{Method: "CreateBuild", Code: connect.CodeResourceExhausted, Message: "slow down"}),
			want: `Depot.*429.*slow down`},
		{name: "503", do: depot(depotapi.Fault{Method: "CreateBuild", Code: connect.CodeUnavailable, Message: "maintenance"}),
			want: `Depot.*503.*maintenance`},
		{name: "502 from a proxy",
			do:   depot(depotapi.Fault{Method: "CreateBuild", Status: 502, Body: "<html>Bad gateway</html>"}),
			want: `Depot.*502`},
		{name: "web page", do: depot(depotapi.Fault{Method: "CreateBuild", Status: 200, Body: "<html>hello</html>"}),
			want: `Depot.*DEPOT_API_URL`},
		{name: "unreachable API", env: values{"DEPOT_API_URL": "http://" + closed},
			want: `create a build .* http://` + closed + `.*DEPOT_API_URL`},
		{name: "timeout waiting for a machine",
			do:     depot(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive}),
			inputs: values{"timeout": "5s"}, createsBuild: true,
			want: `5s.*waiting for .*linux/amd64.*timeout`},
		{name: "machine rejects the client",
			do:           depot(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.ClientRejected}),
			createsBuild: true,
			want:         `linux/amd64 at 127.0.0.1:\d+: .*tls: `},
		{name: "machine has an untrusted certificate",
			do: depot(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.UntrustedServer}), createsBuild: true,
			want: `linux/amd64 at 127.0.0.1:\d+: .*tls: `},
		{name: "missing socket of builder", inputs: values{"builder": "unix:///absent/buildkitd.sock"},
			want: `builder unix:///absent/buildkitd.sock: .*no such file`},

		{name: "unknown ref", inputs: values{"ref": "mains"},
			want: `mains in acme/caller.*refs/heads/mains, refs/tags/mains.* main\b`},
		{name: "private repository without a token", inputs: values{"ref": "main"}, env: values{"GITHUB_TOKEN": ""},
			want: `github_token`},
		{name: "GitHub is unavailable", do: hub(github.Fault{Path: "/api/v3/", Status: 503, Body: "{}"}),
			inputs: values{"ref": "main"}, want: `GitHub.*503`},

		{name: "failing step", dockerfile: fromDebian + "RUN echo last words && exit 7\n", createsBuild: true,
			want: "Dockerfile:2 \\(step 2/2\\) failed with exit code 7; last output: `last words`$"},
		{name: "failing platform", dockerfile: fromDebian + "ARG TARGETARCH\nRUN test $TARGETARCH = arm64\n",
			inputs: values{"platform": "linux/amd64,linux/arm64", "load": "false"}, createsBuild: true,
			want: `linux/amd64: Dockerfile:3 \(step 2/2\) failed with exit code 1 and no output`},
		{name: "Dockerfile syntax error", dockerfile: "FROM scratch\nCOPPY a b\n", createsBuild: true,
			want: `Dockerfile:2: unknown instruction: COPPY`},
		{name: "file missing in the context", dockerfile: "FROM scratch\n\nCOPY absent /\n", createsBuild: true,
			want: `Dockerfile:3: COPY absent: not in the build context`},
		{name: "unknown stage", dockerfile: scratch, inputs: values{"target": "absent"}, createsBuild: true,
			want: `stage "absent" not found in Dockerfile .*input target`},
		{name: "unreachable base image", dockerfile: "FROM " + closed + "/absent:1\n", createsBuild: true,
			want: `Dockerfile:1: .*` + closed},
		{name: "push without a login", inputs: values{"push": e.Registry.Addr + "/team/x:1"}, createsBuild: true,
			want: `push \S+/team/x:1: .*docker login`},

		{name: "no engine", env: values{"DOCKER_HOST": "unix:///absent.sock"},
			want: `^error: input load: .*Docker Engine.*unix:///absent.sock.*load: false`},
		{name: "Doppler without a token", inputs: values{"doppler_config": "dev"}, env: values{"DOPPLER_TOKEN": ""},
			want: `Doppler config "dev".*doppler_token`},
		{name: "another Doppler config", inputs: values{"doppler_config": "prd"},
			want: `access to requested config 'prd'`},
		{name: "invalid Doppler token", inputs: values{"doppler_config": "dev", "doppler_token": "dp.st.dev.wrong"},
			want: `doppler_token`},
		{name: "unknown Doppler identity", inputs: values{"doppler_config": "dev", "doppler_identity": "absent"},
			want: `Doppler.*"absent".*401`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.dockerfile == "" {
				test.dockerfile = scratch
			}
			if test.do != nil {
				test.do()
				defer e.Depot.ClearFaults()
				defer e.GitHub.ClearFaults()
			}
			before := len(e.Depot.Calls())
			r := e.run(t, invocation{dockerfile: test.dockerfile, dir: test.dir, inputs: test.inputs, env: test.env})
			assertFailed(t, r, test.want)
			created, finished := 0, ""
			for _, call := range e.Depot.Calls()[before:] {
				if call.Method == "CreateBuild" && call.Status == 200 && call.BuildID != "" {
					created++
				}
				if call.Method == "FinishBuild" {
					finished = call.Result
				}
			}
			if test.createsBuild != (created == 1) || test.createsBuild && finished != "error" && finished != "canceled" {
				t.Errorf("%d builds created, result %q", created, finished)
			}
			for _, secret := range []string{e.OrganizationToken, expired, forged, "dp.st.dev.wrong"} {
				if strings.Contains(strings.Join(errorMessages(r), "\n"), secret) {
					t.Error("the error message contains a secret")
				}
			}
		})
	}
}

// exitCodes returns the documented exit codes of an error.
func exitCodes(message string) []int {
	switch {
	case strings.HasPrefix(message, "error: input "):
		return []int{1, 2} // 2 if the input itself is invalid
	case strings.HasPrefix(message, "error: canceled (interrupt signal"):
		return []int{130}
	case strings.HasPrefix(message, "error: canceled (terminated signal"):
		return []int{143}
	}
	return []int{1}
}

// assertFailed asserts that a program failed with its documented exit code, one annotation that matches pattern, no
// outputs, and no summary other than that of a failed run.
func assertFailed(t *testing.T, r result, pattern string) {
	t.Helper()
	messages := append(errorMessages(r), "")
	first, _, _ := strings.Cut(messages[0], "\n") // the last lines of a step's output can follow
	message := "error: " + first
	switch {
	case r.exitCode == 0 || !slices.Contains(exitCodes(message), r.exitCode):
		t.Errorf("exit code %d:\n%s%s", r.exitCode, r.stdout, r.stderr)
	case len(messages) != 2 || r.stderr != "": // the runner shows the annotation in the log, too
		t.Errorf("%d annotations, and on standard error %q:\n%s", len(messages)-1, r.stderr, r.stdout)
	case !regexp.MustCompile(pattern).MatchString(message):
		t.Errorf("got\n%s\nwant\n%s", message, pattern)
	case len(message) > 1500:
		t.Errorf("the error is not short: %s", message)
	}
	if r.outputFile != "" || r.summary != "" && !strings.HasPrefix(r.summary, "### ❌ ") {
		t.Errorf("outputs or summary after a failure: %s%s", r.outputFile, r.summary)
	}
}

// The programs retry temporary failures of Depot.
func TestDepotRetries(t *testing.T) {
	e := setup(t)
	for _, fault := range []depotapi.Fault{
		{Method: "CreateBuild", Times: 2, Code: connect.CodeUnavailable, Message: "moment"},
		{Method: "CreateBuild", Times: 1, Code: connect.CodeResourceExhausted, Message: "moment"},
		{Method: "CreateBuild", Times: 1, Status: 502, Body: "<html>"},
		{Method: "GetBuildKitConnection", Times: 2, Code: connect.CodeInternal, Message: "moment"},
		{Method: "ReportBuildHealth", Code: connect.CodeInternal, Message: "always"},
		{Method: "FinishBuild", Times: 1, Code: connect.CodeUnavailable, Message: "moment"},
	} {
		t.Run(fault.Method+" "+fault.Message, func(t *testing.T) {
			e.Depot.Fail(fault)
			defer e.Depot.ClearFaults()
			e.mustRun(t, invocation{dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"load": "false"}})
		})
	}
}

func TestEngineDiskFull(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	full, err := engine.Start(t.Context(), engine.Current, filepath.Join(dir, "engine"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := full.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := e.run(t, invocation{dockerfile: fromDebian, env: values{"DOCKER_HOST": full.Host}})
	assertFailed(t, r, `sandbox:ci.*Docker Engine.*no space left on device`)
}

// Fetching a ref reports a full disk on the runner.
func TestRunnerDiskFull(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, program := range []string{"action-build", "action-snapshot", "action-test"} {
		t.Run(program, func(t *testing.T) {
			r := e.run(t, invocation{
				program: program, dir: t.TempDir(), inputs: values{"ref": "main"}, env: values{"RUNNER_TEMP": dir},
			})
			assertFailed(t, r, `(?i)no space left on device.*free`)
			if left := listFiles(t, dir); len(left) > 0 {
				t.Errorf("files left: %q", left)
			}
		})
	}
}

// A signal at any time cancels the build on Depot. The program writes no outputs and leaves no files.
func TestCancel(t *testing.T) {
	e := setup(t)
	slow := fromDebian + "RUN echo started && sleep 300\n"
	for _, test := range []struct {
		name       string
		signal     unix.Signal
		dockerfile string
		do         func()
		until      string // send the signal after the log contains this text,
		call       string // after this call to Depot,
		path       string // or after a request to GitHub with this path prefix
		inputs     map[string]string
	}{
		{name: "interrupted in a step", signal: unix.SIGINT, dockerfile: slow, until: "started"},
		{name: "terminated in a step", signal: unix.SIGTERM, dockerfile: slow, until: "started"},
		{name: "two platforms", signal: unix.SIGINT, dockerfile: slow, until: "started",
			inputs: values{"platform": "linux/amd64,linux/arm64"}},
		{name: "while waiting for a machine", signal: unix.SIGINT, dockerfile: slow, call: "GetBuildKitConnection",
			do: func() { e.Depot.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive}) }},
		{name: "while Depot does not respond", signal: unix.SIGINT, dockerfile: slow, call: "CreateBuild",
			do: func() { e.Depot.Fail(depotapi.Fault{Method: "CreateBuild", NoResponse: true}) }},
		{name: "at the start", signal: unix.SIGINT, dockerfile: slow, until: "add-mask"},
		{name: "while GitHub does not respond", signal: unix.SIGINT, dockerfile: slow, path: "/api/v3",
			inputs: values{"ref": "main"},
			do:     func() { e.GitHub.Fail(github.Fault{Path: "/api/v3", NoResponse: true}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.do != nil {
				test.do()
				defer e.Depot.ClearFaults()
				defer e.GitHub.ClearFaults()
			}
			depotCalls, githubRequests := len(e.Depot.Calls()), len(e.GitHub.Requests())
			var sent time.Time
			interrupt := func(pid int, stdout *programs.Buffer) {
				for {
					seen := test.until != "" && strings.Contains(stdout.String(), test.until)
					for _, call := range e.Depot.Calls()[depotCalls:] {
						seen = seen || test.call == call.Method
					}
					for _, request := range e.GitHub.Requests()[githubRequests:] {
						seen = seen || test.path != "" && strings.HasPrefix(request.Path, test.path)
					}
					if seen {
						break
					}
					if unix.Kill(pid, 0) != nil || t.Context().Err() != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				sent = time.Now()
				if err := unix.Kill(pid, test.signal); err != nil {
					t.Error(err)
				}
			}
			r := e.run(t, invocation{dockerfile: test.dockerfile, inputs: test.inputs, onStart: interrupt})
			if took := time.Since(sent); took > maxShutdown {
				t.Errorf("the program exited %s after the signal", took)
			}
			assertFailed(t, r, `^error: canceled .*(while waiting for|in step) `)
			created, canceled := 0, 0
			for _, call := range e.Depot.Calls()[depotCalls:] {
				if call.Method == "CreateBuild" && call.BuildID != "" {
					created++
				}
				if call.Method == "FinishBuild" && call.Result == "canceled" {
					canceled++
				}
			}
			if created != canceled {
				t.Errorf("%d builds created, %d canceled", created, canceled)
			}
		})
	}
}

// The runner never executes build output as workflow commands, neither in the log nor in files.
func TestHostileOutput(t *testing.T) {
	e := setup(t)
	lines := []string{
		"::set-output name=digest::forged", "::add-mask::hello", "::error::forged", "::warning file=x::forged",
		"::stop-commands::forged", "::group::forged", "::endgroup::",
		"##[error]forged", "##[set-env name=FORGED]1", "##[endgroup]", "##[group]forged", "[endgroup]", "[group]forged",
		"_GitHubActionsFileCommandDelimeter_",
		"digest<<_GitHubActionsFileCommandDelimeter_", "EOF", "ghadelimiter_0",
		"\x1b[2J\x1b]0;forged\x07", "carriage\r::error::forged", "a\u2028::error::forged",
	}
	text := strings.Join(lines, "\n") + "\n"
	dir := writeFiles(t, values{
		"lines": text,
		"Dockerfile": "FROM scratch AS Upper\n" + fromDebian +
			"COPY lines /\nLABEL forged=\"::error::forged\"\nRUN cat /lines && cat /lines >&2\n",
	})
	failing := writeFiles(t, values{
		"lines":      text,
		"Dockerfile": fromDebian + "COPY lines /\nRUN cat /lines; echo '::error::forged' >&2; exit 3\n",
	})
	for name, dir := range map[string]string{"successful build": dir, "failing build": failing} {
		t.Run(name, func(t *testing.T) {
			r := e.run(t, invocation{dir: dir, inputs: values{"no_cache": "true", "labels": "x=::error::forged"}})
			if !strings.Contains(r.stdout, "forged") {
				t.Fatalf("the log does not contain the output:\n%s%s", r.stdout, r.stderr)
			}
			for _, command := range workflowCommands(t, r.stdout) {
				if strings.Contains(command, "forged") && !strings.HasPrefix(command, "::error endLine=") &&
					!strings.HasPrefix(command, "::group::") {
					t.Errorf("the runner would execute %q", command)
				}
			}
			for i, text := range []string{r.stdout, r.summary, r.outputFile} {
				if strings.ContainsAny(text, "\x1b\x07") || strings.Contains(strings.ReplaceAll(text, "\r\n", "\n"), "\r") {
					t.Errorf("text %d contains control characters: %q", i, text)
				}
			}
			if r.exitCode == 0 &&
				(len(r.outputs) != len(outputsOf(t, "build")) || strings.Contains(r.outputs["digest"], "forged")) {
				t.Errorf("outputs %v", r.outputs)
			}
		})
	}
}

// workflowCommands returns the lines of a log that the runner executes as workflow commands. The groups of the log must
// be balanced.
func workflowCommands(t *testing.T, log string) []string {
	t.Helper()
	if _, err := runnerlog.Groups(log); err != nil {
		t.Errorf("%v:\n%s", err, log)
	}
	return runnerlog.Commands(log)
}
