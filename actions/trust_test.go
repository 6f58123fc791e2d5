package actions

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// eventFile is the file at GITHUB_EVENT_PATH.
func eventFile(t *testing.T, payload string) string {
	t.Helper()
	if !json.Valid([]byte(payload)) {
		t.Fatalf("that is no JSON: %s", payload)
	}
	dir := t.TempDir()
	writeFile(t, dir, "event.json", payload)
	return filepath.Join(dir, "event.json")
}

const (
	headSHA  = "1111111111111111111111111111111111111111"
	mergeSHA = "2222222222222222222222222222222222222222"
	baseSHA  = "3333333333333333333333333333333333333333"
	eventSHA = "4444444444444444444444444444444444444444"
	otherSHA = "5555555555555555555555555555555555555555"
)

// pullFrom is the payload of a pull request's events, as GitHub sends it.
func pullFrom(head, headCommit string) string {
	repo := `{"full_name": "` + head + `"}`
	if head == "" {
		repo = "null" // the fork was deleted
	}
	return `{"repository": {"full_name": "acme/caller"}, "number": 7, "pull_request": {"number": 7, "merge_commit_sha": "` + mergeSHA + `",
		"head": {"sha": "` + headCommit + `", "ref": "main", "repo": ` + repo + `}, "base": {"sha": "` + baseSHA + `", "ref": "main", "repo": {"full_name": "acme/caller"}}}}`
}

func runOf(head string) string {
	return `{"repository": {"full_name": "acme/caller"}, "workflow_run": {"event": "pull_request", "head_sha": "` + headSHA + `", "head_branch": "main",
		"head_repository": {"full_name": "` + head + `"}, "pull_requests": []}}`
}

// Whose code a commit is, in runs that anybody can start and that have secrets.
func TestForeignCommits(t *testing.T) {
	fork, own, gone := pullFrom("evil/caller", headSHA), pullFrom("acme/caller", headSHA), pullFrom("", headSHA)
	const comment = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7, "pull_request": {"url": "https://api.github.com/repos/acme/caller/pulls/7"}}}`
	const issue = `{"repository": {"full_name": "acme/caller"}, "issue": {"number": 7}}`
	branch, tag := "refs/heads/main", "refs/tags/v1"
	for _, test := range []struct {
		name, event, payload string
		commit               source.Commit
		refused              string // "": it is built
	}{
		{"a branch", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: branch}, ""},
		{"a tag", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: tag}, ""},
		{"the run's own commit", "pull_request_target", fork, source.Commit{SHA: eventSHA}, ""},
		{"the base's commit", "pull_request_target", fork, source.Commit{SHA: baseSHA}, ""},
		{"the fork's merge", "pull_request_target", fork, source.Commit{SHA: mergeSHA, Ref: "refs/pull/7/merge"}, `"REF" is code of the pull request #7 from the fork evil/caller, and this run (pull_request_target) has secrets of acme/caller`},
		{"the fork's merge, newer than the event", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, "code of the pull request #7 from the fork evil/caller"},
		{"the fork's head", "pull_request_target", fork, source.Commit{SHA: headSHA, Ref: "refs/pull/7/head"}, "code of the pull request #7 from the fork evil/caller"},
		{"the SHA of the head", "pull_request_target", fork, source.Commit{SHA: headSHA}, "code of the pull request #7 from the fork evil/caller"},
		{"the SHA of the merge", "pull_request_target", fork, source.Commit{SHA: mergeSHA}, "code of the pull request #7 from the fork evil/caller"},
		{"a branch that is the head", "pull_request_target", fork, source.Commit{SHA: headSHA, Ref: branch}, "code of the pull request #7 from the fork evil/caller"},
		{"a SHA that could be anybody's", "pull_request_target", fork, source.Commit{SHA: otherSHA}, "a commit that no branch or tag names, which may be code of the pull request #7 from the fork evil/caller"},
		{"another pull request", "pull_request_target", fork, source.Commit{SHA: otherSHA, Ref: "refs/pull/8/merge"}, "code of the pull request #8"},
		{"a fork that is gone", "pull_request_target", gone, source.Commit{SHA: headSHA, Ref: "refs/pull/7/head"}, "code of the pull request #7 from a fork,"},
		{"our own branch's merge", "pull_request_target", own, source.Commit{SHA: mergeSHA, Ref: "refs/pull/7/merge"}, ""},
		{"our own branch's head", "pull_request_target", own, source.Commit{SHA: headSHA}, ""},
		{"another pull request, from a run of our own", "pull_request_target", own, source.Commit{SHA: otherSHA, Ref: "refs/pull/8/head"}, "code of the pull request #8"},
		{"a name in other letters", "pull_request_target", pullFrom("ACME/Caller", headSHA), source.Commit{SHA: headSHA}, ""},
		{"an event that can not be read", "pull_request_target", `[]`, source.Commit{SHA: otherSHA}, "which may be code of a fork"},
		{"an event that can not be read, a branch", "pull_request_target", `[]`, source.Commit{SHA: otherSHA, Ref: branch}, ""},

		{"after a fork's run: its head", "workflow_run", runOf("evil/caller"), source.Commit{SHA: headSHA}, "code of the fork evil/caller, and this run (workflow_run)"},
		{"after a fork's run: its pull request", "workflow_run", runOf("evil/caller"), source.Commit{SHA: otherSHA, Ref: "refs/pull/7/head"}, "code of the pull request #7"},
		{"after a fork's run: a branch", "workflow_run", runOf("evil/caller"), source.Commit{SHA: otherSHA, Ref: branch}, ""},
		{"after our own run", "workflow_run", runOf("acme/caller"), source.Commit{SHA: headSHA}, ""},
		{"a comment on a pull request", "issue_comment", comment, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, "code of the pull request #7 from a fork,"},
		{"a comment, and a branch", "issue_comment", comment, source.Commit{SHA: otherSHA, Ref: branch}, ""},
		{"a comment on an issue, and a pull request", "issue_comment", issue, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, "code of the pull request #7"},
		{"a comment on an issue", "issue_comment", issue, source.Commit{SHA: otherSHA}, ""},

		{"a pull request, which has no secrets", "pull_request", fork, source.Commit{SHA: mergeSHA, Ref: "refs/pull/7/merge"}, ""},
		{"dispatched by who may", "workflow_dispatch", `{"repository": {"full_name": "acme/caller"}}`, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, ""},
		{"a push", "push", `{"repository": {"full_name": "acme/caller"}}`, source.Commit{SHA: otherSHA}, ""},
		{"a person", "", `{}`, source.Commit{SHA: otherSHA, Ref: "refs/pull/7/merge"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			environ := map[string]string{"GITHUB_EVENT_NAME": test.event, "GITHUB_EVENT_PATH": eventFile(t, test.payload), "GITHUB_REPOSITORY": "acme/caller", "GITHUB_SHA": eventSHA}
			for _, allowed := range []bool{false, true} {
				b := &build{Program: &Program{Dir: t.TempDir()}, commit: test.commit, event: runner.ReadEvent(func(name string) string { return environ[name] })}
				b.in = &BuildInputs{Ref: "REF", AllowUntrustedRef: allowed, Context: ".", Dockerfile: "Dockerfile"}
				trusted(t, b.trust(t.Context()), test.refused, allowed)
			}
		})
	}
}

func trusted(t *testing.T, err error, refused string, allowed bool) {
	t.Helper()
	switch {
	case refused == "" || allowed:
		if err != nil {
			t.Errorf("allowed: %t; %v", allowed, err)
		}
	case err == nil:
		t.Errorf("it is built, want %s", refused)
	case !strings.Contains(err.Error(), refused) || !strings.HasSuffix(err.Error(), "or, if it was reviewed, set allow_untrusted_ref: true") || strings.Contains(err.Error(), "\n"):
		t.Errorf("it says\n%s\nwant\n%s", err, refused)
	}
}

// What lies in the workspace is looked at, too: a checkout of a pull request is the usual way in.
func TestForeignCheckouts(t *testing.T) {
	dir := t.TempDir()
	hub, work := filepath.Join(dir, "hub"), filepath.Join(dir, "work")
	git(t, dir, "init", "--quiet", "--initial-branch=main", hub)
	commit := func(message string) string {
		git(t, hub, "commit", "--quiet", "--allow-empty", "--message="+message)
		return git(t, hub, "rev-parse", "HEAD")
	}
	oldest := commit("first")
	git(t, hub, "tag", "v1")
	begin := commit("begin") // which the event is of
	git(t, hub, "checkout", "--quiet", "-b", "fork")
	head := commit("head")
	git(t, hub, "update-ref", "refs/pull/7/head", head)
	newer := commit("pushed after the event")
	git(t, hub, "update-ref", "refs/pull/7/merge", newer)
	git(t, hub, "checkout", "--quiet", "main")
	git(t, hub, "branch", "--quiet", "-D", "fork")
	git(t, hub, "config", "uploadpack.allowAnySHA1InWant", "true")
	commit("main has moved")
	event := runner.Event{Name: "pull_request_target", Repository: "acme/caller", SHA: begin, Pull: 7, HeadRepository: "evil/caller", Commits: []string{head, mergeSHA}}
	const of = "code of the pull request #7 from the fork evil/caller"

	for _, test := range []struct {
		name    string
		fetch   []string // arguments of git fetch, as actions/checkout has them
		origin  string   // "" for acme/caller
		inputs  BuildInputs
		folder  string // of the checkout; "" for the workspace
		refused string
	}{
		{name: "the run's own commit", fetch: []string{begin}},
		{name: "a branch that has moved", fetch: []string{"+refs/heads/main:refs/remotes/origin/main"}},
		{name: "a tag", fetch: []string{"+refs/tags/v1:refs/tags/v1"}},
		{name: "an older commit that nothing names", fetch: []string{oldest + ":refs/heads/x"}, refused: "a checkout of " + oldest + ", which no branch or tag names"},
		{name: "the head", fetch: []string{head}, refused: "a checkout of " + of},
		{name: "the head as a branch", fetch: []string{"+refs/pull/7/head:refs/heads/pr"}, refused: "a checkout of " + of},
		{name: "the merge, newer than the event", fetch: []string{"+refs/pull/7/merge:refs/remotes/pull/7/merge"}, refused: "a checkout of " + newer + ", which no branch or tag names, and which may be " + of},
		{name: "the fork's branch", fetch: []string{"+refs/heads/main:refs/remotes/origin/main"}, origin: "https://github.com/evil/caller", refused: "a checkout of evil/caller"},
		{name: "no checkout", refused: "no checkout of a known commit, and may hold " + of},
		{name: "the head beside our own", fetch: []string{head}, folder: "pr", inputs: BuildInputs{Context: "pr"}, refused: "the folder WORK/pr is a checkout of " + of},
		{name: "only its Dockerfile", fetch: []string{head}, folder: "pr", inputs: BuildInputs{Dockerfile: "pr/Dockerfile"}, refused: "the folder WORK/pr is a checkout of " + of},
		{name: "a named context", fetch: []string{head}, folder: "pr", inputs: BuildInputs{BuildContexts: Lines{{Text: "app=pr"}}}, refused: "the folder WORK/pr is a checkout of " + of},
		{name: "beside it, and not used", fetch: []string{head}, folder: "pr"},
		{name: "the fork's URL", fetch: []string{begin}, inputs: BuildInputs{Context: "https://github.com/Evil/caller.git#main"}, refused: `the context "https://github.com/Evil/caller.git#main" is ` + of},
		{name: "the pull request's URL", fetch: []string{begin}, inputs: BuildInputs{Context: "https://github.com/acme/caller.git#refs/pull/7/merge"}, refused: "is " + of},
		{name: "another's URL", fetch: []string{begin}, inputs: BuildInputs{Context: "https://github.com/moby/buildkit.git#v0.20.0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.RemoveAll(work); err != nil {
				t.Fatal(err)
			}
			clone := func(folder string, fetch ...string) {
				git(t, dir, "init", "--quiet", folder)
				git(t, folder, "fetch", "--quiet", "--no-tags", "--depth=1", hub, fetch[0])
				git(t, folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
				git(t, folder, "remote", "add", "origin", first(test.origin, "https://github.com/acme/caller"))
			}
			switch {
			case test.folder != "":
				clone(work, begin)
				clone(filepath.Join(work, test.folder), test.fetch...)
			case test.fetch != nil:
				clone(work, test.fetch...)
			default:
				if err := os.Mkdir(work, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, allowed := range []bool{false, true} {
				in := test.inputs
				in.AllowUntrustedRef, in.Context, in.Dockerfile = allowed, first(in.Context, "."), first(in.Dockerfile, "Dockerfile")
				b := &build{Program: &Program{Dir: work}, event: event, in: &in}
				trusted(t, b.trust(t.Context()), strings.ReplaceAll(test.refused, "WORK", work), allowed)
			}
		})
	}
}

// The programs themselves: a pull request that anybody sends is refused before Depot hears of it, by all three; and what a fork may do, it can.
func TestPullRequestsOfForks(t *testing.T) {
	w := cloud(t)
	target := map[string]string{"GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_EVENT_PATH": eventFile(t, pullFrom("evil/caller", git(t, w.caller, "rev-parse", "HEAD"))), "GITHUB_SHA": eventSHA}
	fork := map[string]string{
		"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": eventFile(t, pullFrom("friend/caller", headSHA)), "GITHUB_RUN_ID": "1", "GITHUB_SHA": mergeSHA,
		"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "", "DOPPLER_TOKEN": "", "DAYTONA_API_KEY": "",
	}
	const noSecrets = `this run is of the pull request #7 from the fork friend/caller, which GitHub gives neither secrets nor an OIDC token: `
	for _, test := range []struct {
		name, program string
		inputs, env   map[string]string
		sentence      string
	}{
		{name: "target: the head's SHA", inputs: map[string]string{"ref": git(t, w.caller, "rev-parse", "HEAD")}, env: target, sentence: `^error: input ref: ".{40}" is code of the pull request #7 from the fork evil/caller, and this run \(pull_request_target\)`},
		{name: "target: a snapshot", program: "action-snapshot", inputs: map[string]string{"ref": git(t, w.caller, "rev-parse", "HEAD")}, env: target, sentence: `is code of the pull request #7`},
		{name: "target: a test", program: "action-test", inputs: map[string]string{"ref": git(t, w.caller, "rev-parse", "HEAD")}, env: target, sentence: `is code of the pull request #7`},
		{name: "target: the suite of a workspace", program: "action-test", inputs: map[string]string{"image": "iterate-sandbox:ci", "suite": "none", "command": "true"}, env: target, sentence: `the folder \S+ is no checkout of a known commit`},
		{name: "fork: save", inputs: map[string]string{"save": "true", "load": "false"}, env: fork, sentence: `^error: input save: Depot's registry is not open to forks: ` + noSecrets + `leave it out for forks`},
		{name: "fork: push", inputs: map[string]string{"push": w.Registry.Addr + "/team/fork:1"}, env: fork, sentence: `^error: input push: \S+/team/fork:1 does not let it push: ` + noSecrets},
		{name: "fork: Doppler", inputs: map[string]string{"doppler_config": "dev"}, env: fork, sentence: `^error: input doppler_config: "dev" can not be read without a token: ` + noSecrets},
		{name: "fork: Doppler by identity", inputs: map[string]string{"doppler_config": "dev", "doppler_identity": "id"}, env: fork, sentence: `input doppler_config: "dev" can not be read without a token: ` + noSecrets},
		{name: "fork: a secret that is empty", inputs: map[string]string{"secrets": "TOKEN="}, env: fork, sentence: `input secrets, line 1: the secret TOKEN has no value \(GitHub gives the pull request of a fork no secrets\)`},
		{name: "fork: snapshot", program: "action-snapshot", env: fork, sentence: `^error: a snapshot needs Daytona's key: ` + noSecrets + `make the snapshot when the pull request is merged`},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, asked := len(w.Depot.Calls()), len(w.Daytona.Requests())
			failedWith(t, w.run(t, invocation{program: test.program, docker: small, inputs: test.inputs, env: test.env}), test.sentence)
			if len(w.Depot.Calls()) != before || len(w.Daytona.Requests()) != asked {
				t.Error("Depot or Daytona was asked")
			}
		})
	}

	t.Run("fork: a build, by Depot's way for forks, loaded and tested", func(t *testing.T) {
		env := withEnv(fork, claimProxy(t, w.Depot.ClaimURL()))
		before := len(w.Depot.Calls())
		o := w.succeed(t, invocation{program: "action-test", dir: folderOf(t, map[string]string{"Dockerfile": base, "sandbox/tests.yaml": "tests:\n  - {name: runs, run: [\"true\"]}\n"}), env: env})
		if o.outputs["tests_passed"] != "1" || !strings.Contains(o.stdout, "Waiting for OIDC auth challenge ") {
			t.Errorf("%v\n%s", o.outputs, o.stdout)
		}
		created := 0
		for _, call := range w.Depot.Calls()[before:] {
			if call.Method == "CreateBuild" && call.Token == depotapi.ForkToken {
				created++
			}
		}
		if created != 1 {
			t.Errorf("%d builds by a fork's token", created)
		}
	})
}

// claimProxy is the environment in which https://actions-public-oidc.depot.dev, which no variable names, is the local cloud: a proxy, and an authority
// that vouches for it.
func claimProxy(t *testing.T, claimURL string) map[string]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const host = "actions-public-oidc.depot.dev"
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(claimURL)
	if err != nil {
		t.Fatal(err)
	}
	depot := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL, r.Out.Host = to, to.Host }})
	depot.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	depot.StartTLS()
	t.Cleanup(depot.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != host+":443" {
			http.Error(w, "only Depot is behind this proxy", http.StatusForbidden)
			return
		}
		there, err := net.Dial("tcp", depot.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		go func() { _, _ = io.Copy(there, here) }() // ends with either connection
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(proxy.Close)
	dir := t.TempDir()
	writeFile(t, dir, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return map[string]string{"HTTPS_PROXY": proxy.URL, "SSL_CERT_FILE": filepath.Join(dir, "ca.pem")}
}
