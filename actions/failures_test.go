package actions

import (
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"golang.org/x/sys/unix"
)

// What goes wrong, and the one sentence that says so.
func TestFailures(t *testing.T) {
	w := cloud(t)
	const scratch = "FROM scratch\nCOPY Dockerfile /\n"
	stopped, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := stopped.Addr().String()
	if err := stopped.Close(); err != nil {
		t.Fatal(err)
	}
	noID := map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}
	expired, err := w.GitHub.Mint("https://depot.dev", func(claims map[string]any) { claims["exp"] = time.Now().Add(-time.Hour).Unix() })
	if err != nil {
		t.Fatal(err)
	}
	forged, err := w.GitHub.Forge("https://depot.dev")
	if err != nil {
		t.Fatal(err)
	}
	depot := func(f depotapi.Fault) func() { return func() { w.Depot.Fail(f) } }
	hub := func(f github.Fault) func() { return func() { w.GitHub.Fail(f) } }

	for _, test := range []struct {
		name     string
		do       func() // what goes wrong at the services
		docker   string
		dir      string
		inputs   map[string]string
		env      map[string]string
		sentence string // a regular expression
		spends   bool   // a build was created at Depot all the same
	}{
		{name: "platform", inputs: map[string]string{"platform": "linux/s390x"}, sentence: `^error: input platform: "linux/s390x" is not a platform that can be built`},
		{name: "malformed line of a list", inputs: map[string]string{"build_args": "A=1\n# fine\nB 2"}, sentence: `input build_args, line 3: "B 2" is no build argument`},
		{name: "open quote", inputs: map[string]string{"labels": "a=b\n\"c=d"}, sentence: `input labels: line 2: .*double a quote inside quotes, and close what is opened`},
		{name: "secret without a source", inputs: map[string]string{"secret_envs": "TOKEN=ABSENT"}, sentence: `input secret_envs, line 1: "TOKEN=ABSENT" has no source: the variable ABSENT is not set`},
		{name: "timeout", inputs: map[string]string{"timeout": "soon"}, sentence: `input timeout: expected duration but got "soon"`},
		{name: "builder's scheme", inputs: map[string]string{"builder": "ssh://host"}, sentence: `input builder: "ssh://host" is no builder: write depot, unix:///path/of/buildkitd.sock or tcp://host:port`},
		{name: "ref that is an option", inputs: map[string]string{"ref": "--upload-pack=x"}, sentence: `input ref: the ref "--upload-pack=x" begins with "-"`},
		{name: "ref with a line break", inputs: map[string]string{"ref": "main\n::error::x"}, sentence: `input ref: the ref "main\\n::error::x" holds`},
		{name: "no Dockerfile", dir: t.TempDir(), sentence: `input dockerfile: "Dockerfile" is not there`},
		{name: "context that is a file", inputs: map[string]string{"context": "Dockerfile"}, sentence: `input context: "Dockerfile" is a file: it must be a folder`},
		{name: "git_context without a commit", inputs: map[string]string{"git_context": "git"}, sentence: `input git_context: "git" needs a commit`},

		{name: "no project", env: map[string]string{"DEPOT_PROJECT_ID": ""}, sentence: `no Depot project: commit a depot.json .*, set DEPOT_PROJECT_ID, or give the input depot_project`},
		{name: "depot.json without an id", dir: folderOf(t, map[string]string{"Dockerfile": scratch, "depot.json": "{}"}), env: map[string]string{"DEPOT_PROJECT_ID": ""}, sentence: `depot.json" names no project`},
		{name: "depot.json that is none", dir: folderOf(t, map[string]string{"Dockerfile": scratch, "depot.json": "{"}), env: map[string]string{"DEPOT_PROJECT_ID": ""}, sentence: `depot.json" can not be understood: it holds \{"id"`},
		{name: "no project of that name", inputs: map[string]string{"depot_project": "absent", "depot_token": w.OrganizationToken}, sentence: `Depot does not find it \(project absent not found\): check the project's id`},
		{name: "no token and no OIDC", env: noID, sentence: "the job may not ask for an OIDC token: add these two lines to the workflow or the job: `permissions:` and, below it, `id-token: write`"},
		{name: "not trusted", env: map[string]string{"DEPOT_PROJECT_ID": "other"}, sentence: `Depot does not trust the caller \(.*no trust relationship with acme/caller\): add the repository to the project's trust relationships`},
		{name: "wrong token", inputs: map[string]string{"depot_token": "wrong"}, sentence: `Depot does not accept the token \(invalid API token\)`},
		{name: "expired token", inputs: map[string]string{"depot_token": expired}, sentence: `Depot does not accept the token \(the OIDC token has expired\)`},
		{name: "forged token", inputs: map[string]string{"depot_token": forged}, sentence: `Depot does not accept the token \(invalid OIDC token`},
		{name: "OIDC endpoint fails", do: hub(github.Fault{Path: "/oidc/token", Status: 500, Body: "oops"}), sentence: `ask GitHub for an OIDC token for https://depot.dev: `},
		{name: "429", do: depot(depotapi.Fault{Method: "CreateBuild", Code: connect.CodeResourceExhausted, Message: "slow down"}), sentence: `Depot asks to slow down \(429\), after 5 tries \(slow down\)`},
		{name: "503", do: depot(depotapi.Fault{Method: "CreateBuild", Code: connect.CodeUnavailable, Message: "maintenance"}), sentence: `failed \(503\), after 5 tries \(maintenance\): try again later`},
		{name: "502 of a proxy", do: depot(depotapi.Fault{Method: "CreateBuild", Status: 502, Body: "<html>Bad gateway</html>"}), sentence: `create a build in project "sandbox": Depot's API at .* failed \(502\), after 5 tries`},
		{name: "garbage", do: depot(depotapi.Fault{Method: "CreateBuild", Status: 200, Body: "<html>hello</html>"}), sentence: `is not Depot's API \(.*text/html.*\): check DEPOT_API_URL`},
		{name: "Depot is not there", env: map[string]string{"DEPOT_API_URL": "http://" + nobody}, sentence: `Depot's API at http://` + nobody + ` can not be reached, after 5 tries \(.*\): check the network and DEPOT_API_URL`},
		{name: "no machine in time", do: depot(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive}), inputs: map[string]string{"timeout": "2s"}, spends: true,
			sentence: `the timeout of 2s is over, while waiting for .*a machine for linux/amd64: raise the input timeout`},
		{name: "machine refuses", do: depot(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.RefusesClient}), spends: true,
			sentence: `the machine for linux/amd64 at 127.0.0.1:\d+: the TLS connection is refused`},
		{name: "machine of another authority", do: depot(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.UntrustedServer}), spends: true,
			sentence: `the machine for linux/amd64 at 127.0.0.1:\d+: the TLS connection is refused`},
		{name: "builder's socket is missing", inputs: map[string]string{"builder": "unix:///absent/buildkitd.sock"}, sentence: `builder unix:///absent/buildkitd.sock: there is no such socket`},

		{name: "ref that is not there", inputs: map[string]string{"ref": "mains"}, sentence: `acme/caller has no mains \(tried refs/heads/mains, refs/tags/mains.*main`},
		{name: "private repository without a token", inputs: map[string]string{"ref": "main"}, env: map[string]string{"GITHUB_TOKEN": ""}, sentence: `github_token`},
		{name: "GitHub is down", do: hub(github.Fault{Path: "/api/v3/", Status: 503, Body: "{}"}), inputs: map[string]string{"ref": "main"}, sentence: `GitHub`},

		{name: "failing step", docker: base + "RUN echo last words && exit 7\n", spends: true, sentence: `Dockerfile:2: process .* exit code: 7: mend that line`},
		{name: "syntax", docker: "FROM scratch\nCOPPY a b\n", spends: true, sentence: `Dockerfile:2: unknown instruction: COPPY`},
		{name: "file that is not in the context", docker: "FROM scratch\n\nCOPY absent /\n", spends: true, sentence: `Dockerfile:3: .*"/absent": not found`},
		{name: "no such stage", docker: scratch, inputs: map[string]string{"target": "absent"}, spends: true, sentence: `target stage "absent" could not be found`},
		{name: "no such base image", docker: "FROM " + nobody + "/absent:1\n", spends: true, sentence: `Dockerfile:1: .*` + nobody},
		{name: "push without a login", inputs: map[string]string{"push": w.Registry.Addr + "/team/x:1"}, spends: true, sentence: `push \S+/team/x:1: the registry does not accept the login.*log in to \S+ \(docker login\)`},

		{name: "no engine", env: map[string]string{"DOCKER_HOST": "unix:///absent.sock"}, sentence: `^error: input load: no Docker Engine answers.*unix:///absent.sock.*no such file.*or set load: false`},
		{name: "Doppler without a token", inputs: map[string]string{"doppler_config": "dev"}, env: map[string]string{"DOPPLER_TOKEN": ""}, sentence: `input doppler_config: "dev" can not be read without a token`},
		{name: "another Doppler config", inputs: map[string]string{"doppler_config": "prd"}, sentence: `Doppler`},
		{name: "wrong Doppler token", inputs: map[string]string{"doppler_config": "dev", "doppler_token": "dp.st.dev.wrong"}, sentence: `set doppler_token to a valid token that has not expired`},
		{name: "unknown Doppler identity", inputs: map[string]string{"doppler_config": "dev", "doppler_identity": "absent"}, sentence: `authenticate to Doppler as identity "absent": Doppler answered 401`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.docker == "" {
				test.docker = scratch
			}
			if test.do != nil {
				test.do()
				defer w.Depot.Heal()
				defer w.GitHub.Heal()
			}
			before := len(w.Depot.Calls())
			o := w.run(t, invocation{docker: test.docker, dir: test.dir, inputs: test.inputs, env: test.env})
			failedWith(t, o, test.sentence)
			created, finished := 0, ""
			for _, call := range w.Depot.Calls()[before:] {
				if call.Method == "CreateBuild" && call.Status == 200 && call.BuildID != "" {
					created++
				}
				if call.Method == "FinishBuild" {
					finished = call.Result
				}
			}
			if test.spends != (created == 1) || test.spends && finished != "error" && finished != "canceled" {
				t.Errorf("%d builds were created, finished as %q", created, finished)
			}
			for _, secret := range []string{w.OrganizationToken, expired, forged, "dp.st.dev.wrong"} {
				if strings.Contains(o.stderr, secret) {
					t.Errorf("the sentence holds a secret")
				}
			}
		})
	}
}

// failedWith asserts that a program ended with 1, one sentence and one annotation that say the same, and published nothing.
func failedWith(t *testing.T, o outcome, sentence string) {
	t.Helper()
	stderr, annotations := sentences(t, o)
	switch {
	case o.exit != 1:
		t.Errorf("exit %d:\n%s%s", o.exit, o.stdout, o.stderr)
	case len(stderr) != 1 || len(annotations) != 1:
		t.Errorf("%d lines on standard error, %d annotations:\n%s%s", len(stderr), len(annotations), o.stdout, o.stderr)
	case !regexp.MustCompile(sentence).MatchString(stderr[0]):
		t.Errorf("it says\n%s\nwant\n%s", stderr[0], sentence)
	case strings.Count(stderr[0], "\n") > 0 || len(stderr[0]) > 1500:
		t.Errorf("that is no sentence: %s", stderr[0])
	}
	if o.outputFile != "" || o.summary != "" {
		t.Errorf("published after a failure: %s%s", o.outputFile, o.summary)
	}
}

// Depot's passing troubles are nobody's.
func TestPassingTroubles(t *testing.T) {
	w := cloud(t)
	for _, fault := range []depotapi.Fault{
		{Method: "CreateBuild", Times: 2, Code: connect.CodeUnavailable, Message: "moment"},
		{Method: "CreateBuild", Times: 1, Code: connect.CodeResourceExhausted, Message: "moment"},
		{Method: "CreateBuild", Times: 1, Status: 502, Body: "<html>"},
		{Method: "GetBuildKitConnection", Times: 2, Code: connect.CodeInternal, Message: "moment"},
		{Method: "ReportBuildHealth", Code: connect.CodeInternal, Message: "for ever"},
		{Method: "FinishBuild", Times: 1, Code: connect.CodeUnavailable, Message: "moment"},
	} {
		t.Run(fault.Method+" "+fault.Message, func(t *testing.T) {
			w.Depot.Fail(fault)
			defer w.Depot.Heal()
			w.succeed(t, invocation{docker: "FROM scratch\nCOPY Dockerfile /\n", inputs: map[string]string{"load": "false"}})
		})
	}
}

func TestEngineOutOfDisk(t *testing.T) {
	w := cloud(t)
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
	o := w.run(t, invocation{docker: base, env: map[string]string{"DOCKER_HOST": full.Host}})
	failedWith(t, o, `load iterate-sandbox:ci into the Docker Engine at unix:.*no space left on device: free some of the engine's disk`)
}

// The runner's own disk: there is no room for what a fetched ref needs.
func TestRunnerOutOfDisk(t *testing.T) {
	w := cloud(t)
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
			o := w.run(t, invocation{program: program, dir: t.TempDir(), inputs: map[string]string{"ref": "main"}, env: map[string]string{"RUNNER_TEMP": dir}})
			failedWith(t, o, `No space left on device.*free some space`)
			if left := tree(t, dir); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// Whenever it is told to stop, the build is canceled at Depot, nothing is published and nothing is left, within 5 seconds.
func TestCancel(t *testing.T) {
	w := cloud(t)
	slow := base + "RUN echo started && sleep 300\n"
	for _, test := range []struct {
		name   string
		signal unix.Signal
		docker string
		do     func()
		until  string // what the log or Depot's calls hold when the signal is sent
		call   string
		path   string // of what GitHub was asked
		inputs map[string]string
	}{
		{name: "interrupted in a step", signal: unix.SIGINT, docker: slow, until: "started"},
		{name: "terminated in a step", signal: unix.SIGTERM, docker: slow, until: "started"},
		{name: "two platforms", signal: unix.SIGINT, docker: slow, until: "started", inputs: map[string]string{"platform": "linux/amd64,linux/arm64"}},
		{name: "while a machine is waited for", signal: unix.SIGINT, docker: slow, call: "GetBuildKitConnection",
			do: func() { w.Depot.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive}) }},
		{name: "while Depot is silent", signal: unix.SIGINT, docker: slow, call: "CreateBuild",
			do: func() { w.Depot.Fail(depotapi.Fault{Method: "CreateBuild", Silence: true}) }},
		{name: "as soon as it begins", signal: unix.SIGINT, docker: slow, until: "add-mask"},
		{name: "while GitHub is silent", signal: unix.SIGINT, docker: slow, path: "/api/v3", inputs: map[string]string{"ref": "main"},
			do: func() { w.GitHub.Fail(github.Fault{Path: "/api/v3", Silence: true}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.do != nil {
				test.do()
				defer w.Depot.Heal()
				defer w.GitHub.Heal()
			}
			before, asked := len(w.Depot.Calls()), len(w.GitHub.Requests())
			var sent time.Time
			o := w.run(t, invocation{docker: test.docker, inputs: test.inputs, started: func(pid int, stdout *safeBuffer) {
				for {
					seen := test.until != "" && strings.Contains(stdout.String(), test.until)
					for _, call := range w.Depot.Calls()[before:] {
						seen = seen || test.call == call.Method
					}
					for _, request := range w.GitHub.Requests()[asked:] {
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
			}})
			if took := time.Since(sent); took > busyEnd {
				t.Errorf("it ended %s after the signal", took)
			}
			failedWith(t, o, `^error: canceled \((interrupt|terminated) signal received\), while waiting for .*: nothing was published, run it again`)
			created, canceled := 0, 0
			for _, call := range w.Depot.Calls()[before:] {
				if call.Method == "CreateBuild" && call.BuildID != "" {
					created++
				}
				if call.Method == "FinishBuild" && call.Result == "canceled" {
					canceled++
				}
			}
			if created != canceled {
				t.Errorf("%d builds created, %d finished as canceled", created, canceled)
			}
		})
	}
}

// What a build prints is data, wherever it ends up.
func TestHostileOutput(t *testing.T) {
	w := cloud(t)
	lines := []string{
		"::set-output name=digest::forged", "::add-mask::hello", "::error::forged", "::warning file=x::forged", "::stop-commands::forged", "::group::forged", "::endgroup::",
		"##[error]forged", "##[set-env name=FORGED]1", "_GitHubActionsFileCommandDelimeter_", "digest<<_GitHubActionsFileCommandDelimeter_", "EOF", "ghadelimiter_0",
		"\x1b[2J\x1b]0;forged\x07", "carriage\r::error::forged", "a\u2028::error::forged",
	}
	text := strings.Join(lines, "\n") + "\n"
	dir := folderOf(t, map[string]string{"lines": text, "Dockerfile": "FROM scratch AS Upper\n" + base + "COPY lines /\nLABEL forged=\"::error::forged\"\nRUN cat /lines && cat /lines >&2\n"})
	failing := folderOf(t, map[string]string{"lines": text, "Dockerfile": base + "COPY lines /\nRUN cat /lines; echo '::error::forged' >&2; exit 3\n"})
	for name, dir := range map[string]string{"a build that goes well": dir, "a build that fails": failing} {
		t.Run(name, func(t *testing.T) {
			o := w.run(t, invocation{dir: dir, inputs: map[string]string{"no_cache": "true", "labels": "x=::error::forged"}})
			if !strings.Contains(o.stdout, "forged") {
				t.Fatalf("the output is not there at all:\n%s%s", o.stdout, o.stderr)
			}
			for _, command := range obeyed(t, o.stdout) {
				if strings.Contains(command, "forged") && !strings.HasPrefix(command, "::error endLine=") && !strings.HasPrefix(command, "::group::") {
					t.Errorf("the runner obeys %q", command)
				}
			}
			for i, text := range []string{o.stdout, o.summary, o.outputFile} {
				if strings.ContainsAny(text, "\x1b\x07") || strings.Contains(strings.ReplaceAll(text, "\r\n", "\n"), "\r") {
					t.Errorf("text %d holds control characters: %q", i, text)
				}
			}
			if o.exit == 0 && (len(o.outputs) != len(outputsOf(BuildResult{})) || strings.Contains(o.outputs["digest"], "forged")) {
				t.Errorf("outputs %v", o.outputs)
			}
		})
	}
}

// obeyed are the lines of a log that the runner takes for commands.
func obeyed(t *testing.T, log string) []string {
	t.Helper()
	var commands []string
	stopped := ""
	for line := range strings.FieldsFuncSeq(log, func(c rune) bool { return c == '\n' || c == '\r' }) {
		trimmed := strings.TrimSpace(line)
		switch {
		case stopped != "":
			if trimmed == "::"+stopped+"::" {
				stopped = ""
			}
		case strings.HasPrefix(trimmed, "::stop-commands::"):
			stopped = strings.TrimPrefix(trimmed, "::stop-commands::")
			if len(stopped) < 20 {
				t.Errorf("a token that can be guessed: %q", stopped)
			}
		case strings.HasPrefix(trimmed, "::"), strings.HasPrefix(trimmed, "##["):
			commands = append(commands, trimmed)
		}
	}
	if stopped != "" {
		t.Error("commands stay stopped at the end")
	}
	return commands
}
