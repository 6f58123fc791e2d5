//go:build linux

package e2e

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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
)

// eventFile creates a file for GITHUB_EVENT_PATH and returns its path.
func eventFile(t *testing.T, payload string) string {
	t.Helper()
	if !json.Valid([]byte(payload)) {
		t.Fatalf("invalid JSON: %s", payload)
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
)

// pullFrom returns the payload of a pull request event. head is the head repository of the pull request.
func pullFrom(head, headCommit string) string {
	return `{
		"repository": {"full_name": "acme/caller"},
		"number": 7,
		"pull_request": {
			"number": 7,
			"merge_commit_sha": "` + mergeSHA + `",
			"head": {"sha": "` + headCommit + `", "ref": "main", "repo": {"full_name": "` + head + `"}},
			"base": {"sha": "` + baseSHA + `", "ref": "main", "repo": {"full_name": "acme/caller"}}
		}
	}`
}

// In a run with secrets, each program refuses to build a fork's code before it sends a request. A run of a fork's pull
// request can do everything that needs no secrets.
func TestForkPullRequests(t *testing.T) {
	e := setup(t)
	target := values{
		"GITHUB_EVENT_NAME": "pull_request_target",
		"GITHUB_EVENT_PATH": eventFile(t, pullFrom("evil/caller", git(t, e.caller, "rev-parse", "HEAD"))),
		"GITHUB_SHA":        eventSHA,
	}
	fork := values{
		"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": eventFile(t, pullFrom("friend/caller", headSHA)),
		"GITHUB_RUN_ID": "1", "GITHUB_SHA": mergeSHA,
		"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "", "DOPPLER_TOKEN": "", "DAYTONA_API_KEY": "",
	}
	const fromFork = `pull request #7 from the fork friend/caller.*(secrets|OIDC token)`
	for _, test := range []struct {
		name, program string
		inputs, env   map[string]string
		want          string
	}{
		{name: "target: SHA of the head", inputs: values{"ref": git(t, e.caller, "rev-parse", "HEAD")}, env: target,
			want: `^error: input ref: .*".{40}".*pull request #7 from the fork evil/caller.*pull_request_target`},
		{name: "target: snapshot", program: "action-snapshot", inputs: values{"ref": git(t, e.caller, "rev-parse", "HEAD")},
			env: target, want: `pull request #7`},
		{name: "target: test", program: "action-test", inputs: values{"ref": git(t, e.caller, "rev-parse", "HEAD")},
			env: target, want: `pull request #7`},
		{name: "fork: save", inputs: values{"save": "true", "load": "false"}, env: fork,
			want: `^error: input save: .*` + fromFork},
		{name: "fork: push", inputs: values{"push": e.Registry.Addr + "/team/fork:1"}, env: fork,
			want: `^error: input push: .*/team/fork:1.*` + fromFork},
		{name: "fork: Doppler", inputs: values{"doppler_config": "dev"}, env: fork,
			want: `^error: input doppler_config: .*"dev".*` + fromFork},
		{name: "fork: Doppler with an identity", inputs: values{"doppler_config": "dev", "doppler_identity": "id"}, env: fork,
			want: `^error: input doppler_config: .*"dev".*` + fromFork},
		{name: "fork: snapshot", program: "action-snapshot", env: fork, want: `^error: .*Daytona.*` + fromFork},
	} {
		t.Run(test.name, func(t *testing.T) {
			depotCalls, daytonaRequests := len(e.Depot.Calls()), len(e.Daytona.Requests())
			r := e.run(t, invocation{program: test.program, dockerfile: sleepDockerfile, inputs: test.inputs, env: test.env})
			assertFailed(t, r, test.want)
			if len(e.Depot.Calls()) != depotCalls || len(e.Daytona.Requests()) != daytonaRequests {
				t.Error("the program sent requests to Depot or Daytona")
			}
		})
	}

	t.Run("fork: build, load and test with a fork token from Depot", func(t *testing.T) {
		env := merge(fork, claimProxy(t, e.Depot.ClaimURL()))
		before := len(e.Depot.Calls())
		r := e.mustRun(t, invocation{
			program: "action-test",
			dir: writeFiles(t, values{
				"Dockerfile": fromDebian, "sandbox/tests.yaml": "tests:\n  - {name: runs, run: [\"true\"]}\n",
			}),
			env: env, inputs: values{"secrets": "TOKEN="},
		})
		if r.outputs["tests_passed"] != "1" || !strings.Contains(r.stdout, "Waiting for OIDC auth challenge ") ||
			!strings.Contains(r.stdout, "the secret TOKEN is left out") {
			t.Errorf("%v\n%s", r.outputs, r.stdout)
		}
		created := 0
		for _, call := range e.Depot.Calls()[before:] {
			if call.Method == "CreateBuild" && call.Token == depotapi.ForkToken {
				created++
			}
		}
		if created != 1 {
			t.Errorf("%d builds with a fork token, want 1", created)
		}
	})
}

// claimProxy returns variables that redirect https://actions-public-oidc.depot.dev, a constant URL, to the local cloud.
// They set a proxy and a certificate authority.
func claimProxy(t *testing.T, claimURL string) map[string]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const host = "actions-public-oidc.depot.dev"
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		DNSNames:              []string{host},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(claimURL)
	if err != nil {
		t.Fatal(err)
	}
	depot := httptest.NewUnstartedServer(
		&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL, r.Out.Host = target, target.Host }},
	)
	depot.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	depot.StartTLS()
	t.Cleanup(depot.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != host+":443" {
			http.Error(w, "the proxy allows only "+host, http.StatusForbidden)
			return
		}
		upstream, err := net.Dial("tcp", depot.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer upstream.Close()
		w.WriteHeader(http.StatusOK)
		client, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		go func() { _, _ = io.Copy(upstream, client) }() // returns when either connection closes
		_, _ = io.Copy(client, upstream)
	}))
	t.Cleanup(proxy.Close)
	dir := t.TempDir()
	writeFile(t, dir, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return values{"HTTPS_PROXY": proxy.URL, "SSL_CERT_FILE": filepath.Join(dir, "ca.pem")}
}
