//go:build linux

package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Each call counts against a service's limits, and one that others wait for makes each run longer. If a number changes,
// give the reason in the commit message.
func TestCallsPerRun(t *testing.T) {
	e := setup(t)
	dir := writeFiles(t, values{
		"Dockerfile": sleepDockerfile, "tests.yaml": "tests:\n  - name: passes\n    run: [\"true\"]\n",
	})
	const depot = `
1 Depot: CreateBuild
1 Depot: FinishBuild
2 Depot: GetBuildKitConnection
1 Depot: ReportBuildHealth`
	const oidc = `
1 OIDC: GET /oidc/token`
	const daytona = `
1 Daytona: GET /api/api-keys/current
1 Daytona: GET /api/docker-registry/registry-push-access
1 Daytona: GET /api/regions
1 Daytona: GET /api/snapshots
1 Daytona: GET /api/snapshots/…`
	const doppler = `
3 Doppler: GET /v3/configs/config/secrets
1 Doppler: GET /v3/configs/config/secrets/names`
	snapshot := invocation{
		program: "action-snapshot", dir: dir, inputs: values{"name_prefix": "calls"},
		env: values{"DAYTONA_API_KEY": "", "GITHUB_ACTOR": "octocat"},
	}
	e.mustRun(t, invocation{dir: dir, inputs: values{"load": "false"}}) // fills the builder's cache
	for _, test := range []struct {
		name string
		run  invocation
		want string
	}{
		{"cached build", invocation{dir: dir, inputs: values{"load": "false"}}, depot + oidc},
		{
			"build of a ref", invocation{dir: t.TempDir(), inputs: values{"load": "false", "ref": "main"}}, depot + `
1 GitHub API: GET /api/v3/repos/acme/caller/git/ref/heads/main` + oidc + `
1 git: GET /acme/caller/info/refs
1 git: POST /acme/caller/git-upload-pack`,
		},
		{
			"push", invocation{
				dir: dir, inputs: values{"load": "false", "push": e.Registry.Addr + "/team/calls:1"},
				env: values{"HOME": e.login(t)},
			}, depot + oidc + `
1 registry: HEAD /v2/team/calls/manifests/1
3 registry: HEAD /v2/team/calls/manifests/sha256:…
1 registry: PUT /v2/team/calls/manifests/1
1 registry: PUT /v2/team/calls/manifests/sha256:…`,
		},
		{"test", invocation{program: "action-test", dir: dir, inputs: values{"suite": "tests.yaml"}}, depot + oidc},
		{"snapshot", snapshot, daytona + `
1 Daytona: POST /api/snapshots
1 Daytona's registry: HEAD /v2/sbox-transient/…/manifests/sha256-…-default
1 Daytona's registry: HEAD /v2/sbox-transient/…/manifests/sha256:…
1 Daytona's registry: PUT /v2/sbox-transient/…/manifests/sha256-…-default
1 Daytona's registry: PUT /v2/sbox-transient/…/manifests/sha256:…` + depot + doppler + `
2 Doppler: POST /v3/configs/config/secrets` + oidc},
		{"reused snapshot", snapshot, daytona + depot + doppler + `
1 Doppler: POST /v3/configs/config/secrets` + oidc},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := e.calls()
			e.mustRun(t, test.run)
			calls := e.calls()
			for service, earlier := range before {
				calls[service] = calls[service][len(earlier):]
			}
			if got := describeCalls(calls); got != strings.TrimPrefix(test.want, "\n") {
				t.Errorf("calls:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

// calls returns the calls to each service so far, in the order of their arrival.
func (e *environment) calls() map[string][]string {
	calls := map[string][]string{}
	for _, c := range e.Depot.Calls() {
		calls["Depot"] = append(calls["Depot"], c.Method)
	}
	for _, r := range e.GitHub.Requests() {
		service := "git"
		switch {
		case strings.HasPrefix(r.Path, "/oidc/"):
			service = "OIDC"
		case strings.HasPrefix(r.Path, "/api/"):
			service = "GitHub API"
		}
		calls[service] = append(calls[service], r.Method+" "+r.Path)
	}
	for _, r := range e.Doppler.Requests() {
		calls["Doppler"] = append(calls["Doppler"], r.Method+" "+r.Path)
	}
	for _, r := range e.Daytona.Requests() {
		service := "Daytona"
		if r.Registry {
			service = "Daytona's registry"
		}
		calls[service] = append(calls[service], r.Method+" "+r.Path)
	}
	for _, r := range e.Registry.Requests() {
		if !strings.Contains(r, "/sbox") { // Daytona's
			calls["registry"] = append(calls["registry"], r)
		}
	}
	return calls
}

// variablePart matches the parts of paths that differ between runs.
var variablePart = regexp.MustCompile(`[0-9a-f]{40,64}|[0-9a-f]{8}-[0-9a-f-]{27}|calls-[a-z0-9-]+`)

// repeated are the calls that count once: those that are repeated until something happens, and BuildKit's pushes of
// manifests, of which the registry may have some.
var repeated = []string{
	"ReportBuildHealth", "GET /api/snapshots/…", "PUT /v2/team/calls/manifests/sha256:…",
	"PUT /v2/sbox-transient/…/manifests/sha256:…",
}

// describeCalls returns a line for each kind of call with its number, which is 1 for those that are repeated. Of the
// calls to registries, only those for manifests count: BuildKit's others depend on its timing.
func describeCalls(calls map[string][]string) string {
	var lines []string
	for _, service := range slices.Sorted(maps.Keys(calls)) {
		counts := map[string]int{}
		for _, call := range calls[service] {
			call = variablePart.ReplaceAllString(call, "…")
			if strings.Contains(service, "registry") && !strings.Contains(call, "/manifests/") {
				continue
			}
			counts[call]++
			if slices.Contains(repeated, call) {
				counts[call] = 1
			}
		}
		for _, call := range slices.Sorted(maps.Keys(counts)) {
			lines = append(lines, fmt.Sprintf("%d %s: %s", counts[call], service, call))
		}
	}
	return strings.Join(lines, "\n")
}

// transferPattern matches the end of the upload of a context in BuildKit's log.
var transferPattern = regexp.MustCompile(`transferring context\S*: ([0-9.]+)(k|M)?B .*done`)

// A later run of a checkout sends what has changed, although the .git context is in another directory in each run.
func TestSecondRunSendsChanges(t *testing.T) {
	e := setup(t)
	const size = 1_000_000
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	dir := writeFiles(t, values{
		"Dockerfile": fromDebian + "COPY . /src\nCOPY --from=git . /src/.git\n", "data": hex.EncodeToString(data),
	})
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "--quiet", "--message=first")
	send := func() (bytes float64) {
		r := e.mustRun(t, invocation{
			dir: dir, inputs: values{"load": "false", "git_context": "git"},
			env: values{"GITHUB_ACTIONS": ""}, // the log of a terminal has the sizes
		})
		for _, line := range transferPattern.FindAllStringSubmatch(r.stdout+r.stderr, -1) {
			n, err := strconv.ParseFloat(line[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			bytes += n * map[string]float64{"": 1, "k": 1e3, "M": 1e6}[line[2]]
		}
		return bytes
	}
	if sent := send(); sent < 3*size { // the file in hexadecimal, and compressed in .git
		t.Errorf("the first run sent %.0f bytes, want at least %d", sent, 3*size)
	}
	if sent := send(); sent > size/10 {
		t.Errorf("the second run sent %.0f bytes, want at most %d", sent, size/10)
	}
}
