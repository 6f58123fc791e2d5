package credentials

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// actions is a stand-in for GitHub with an OIDC issuer, shared by all tests.
var actions *github.Server

func TestMain(m *testing.M) {
	var err error
	if actions, err = github.Start(context.Background(), github.Options{}); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	_ = actions.Close()
	os.Exit(code)
}

// startDepot starts a Depot API with a project "sandbox" that trusts org/sandbox-actions.
func startDepot(t *testing.T, changes ...func(*depotapi.Options)) *depotapi.Server {
	t.Helper()
	options := depotapi.Options{
		Projects: []depotapi.Project{
			{ID: "sandbox", Tokens: []string{"project-token"}, Trust: []string{"org/sandbox-actions"}},
		},
		OrganizationTokens: []string{"organization-token"}, UserTokens: []string{"user-token"},
		RunnerTokens: []string{"jit-token", "cache-token"},
		Issuer:       actions.Issuer(), LogInterval: time.Millisecond,
	}
	for _, change := range changes {
		change(&options)
	}
	s, err := depotapi.Start(options)
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

// inActions returns the environment of a job with id-token: write, with changes.
func inActions(changes map[string]string) func(string) string {
	variables := map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push", "GITHUB_RUN_ID": "1",
		"ACTIONS_ID_TOKEN_REQUEST_URL":   actions.IDTokenRequestURL(),
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": actions.IDTokenRequestToken(),
	}
	maps.Copy(variables, changes)
	return environment(variables)
}

// logger records log lines.
type logger struct {
	mu    sync.Mutex
	lines []string
}

func (l *logger) logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// depot returns a token source with short waits.
func depot(getenv func(string) string, l *logger) Depot {
	d := Depot{Getenv: getenv, OIDC: NewOIDC(getenv, nil), Logf: l.logf, ChallengeInterval: time.Millisecond}
	d.OIDC.HTTP.Policy = httpclient.Policy{MinWait: time.Millisecond}
	return d
}

// tokenKind creates a build with a token and returns the kind that Depot recognized.
func tokenKind(t *testing.T, s *depotapi.Server, token string) depotapi.TokenKind {
	t.Helper()
	client := builder.Depot{
		Project: "sandbox", APIURL: s.URL(), Token: func(context.Context) (string, error) { return token, nil },
	}
	lease, err := client.Acquire(t.Context(), builder.Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(nil)
	for _, c := range s.Calls() {
		if c.Method == "CreateBuild" {
			return c.Token
		}
	}
	return ""
}

// loginHome returns a home directory in which `depot login` wrote content.
func loginHome(t *testing.T, content string) (home string) {
	t.Helper()
	home = t.TempDir()
	file := Depot{Getenv: environment(map[string]string{"HOME": home})}.loginFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return home
}

func TestDepotTokenPrecedence(t *testing.T) {
	home := loginHome(t, "api_token: user-token\norg_id: abc\n")
	login := Depot{Getenv: environment(map[string]string{"HOME": home})}.loginFile()
	for _, test := range []struct {
		name, input string
		getenv      func(string) string
		want        depotapi.TokenKind
		source      string // in the log; not checked if empty
		err         error
	}{
		{
			name: "input takes precedence", input: "project-token", want: depotapi.ProjectToken,
			source: "the input depot_token",
			getenv: inActions(map[string]string{"DEPOT_TOKEN": "unknown-token"}),
		},
		{name: "input with a line break", input: " project-token\n", getenv: inActions(nil), want: depotapi.ProjectToken},
		{
			name: "DEPOT_TOKEN before OIDC", want: depotapi.OrganizationToken, source: "DEPOT_TOKEN",
			getenv: inActions(map[string]string{"DEPOT_TOKEN": "organization-token"}),
		},
		{
			name: "DEPOT_TOKEN before DEPOT_API_TOKEN", want: depotapi.OrganizationToken, source: "DEPOT_TOKEN",
			getenv: environment(map[string]string{"DEPOT_TOKEN": "organization-token", "DEPOT_API_TOKEN": "user-token"}),
		},
		{
			name: "DEPOT_API_TOKEN before depot login", want: depotapi.OrganizationToken, source: "DEPOT_API_TOKEN",
			getenv: environment(map[string]string{"DEPOT_API_TOKEN": "organization-token", "HOME": home}),
		},
		{
			name: "depot login", want: depotapi.UserToken, getenv: environment(map[string]string{"HOME": home}),
			source: fmt.Sprintf("the token of `depot login` in %q", login),
		},
		{
			name: "depot login with XDG_CONFIG_HOME", want: depotapi.UserToken,
			getenv: environment(map[string]string{"XDG_CONFIG_HOME": filepath.Dir(filepath.Dir(login)), "HOME": "/absent"}),
		},
		{
			name: "depot login of another job of the runner", want: depotapi.OIDCToken,
			getenv: inActions(map[string]string{"HOME": home}),
		},
		{
			name: "another organization's logout", err: ErrNoDepotToken,
			getenv: environment(map[string]string{"HOME": loginHome(t, "api_token: \"\"\norg_id: 1\n")}),
		},
		{
			name: "OIDC", getenv: inActions(nil), want: depotapi.OIDCToken, source: "an OIDC token of " + actions.Issuer(),
		},
		{
			name: "OIDC before the token of Depot's runner", want: depotapi.OIDCToken,
			getenv: inActions(map[string]string{"DEPOT_JIT_TOKEN": "jit-token"}),
		},
		{
			name: "Depot's runner without id-token: write", want: depotapi.RunnerToken, source: "DEPOT_JIT_TOKEN",
			getenv: inActions(map[string]string{
				"ACTIONS_ID_TOKEN_REQUEST_URL": "", "DEPOT_JIT_TOKEN": "jit-token", "DEPOT_CACHE_TOKEN": "unknown-token",
			}),
		},
		{
			name: "cache token of Depot's runner", want: depotapi.RunnerToken, source: "DEPOT_CACHE_TOKEN",
			getenv: inActions(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "", "DEPOT_CACHE_TOKEN": "cache-token"}),
		},
		{
			name: "Depot's runner when GitHub refuses OIDC", want: depotapi.RunnerToken, source: "DEPOT_JIT_TOKEN",
			getenv: inActions(map[string]string{
				"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "stale-bearer", "DEPOT_JIT_TOKEN": "jit-token",
			}),
		},
		{
			name: "OIDC without GITHUB_ACTIONS", want: depotapi.OIDCToken,
			getenv: inActions(map[string]string{"GITHUB_ACTIONS": ""}),
		},
		{
			name: "no permission", err: ErrNoIDToken,
			getenv: inActions(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": ""}),
		},
		{
			name: "request token missing", err: ErrNoIDToken,
			getenv: inActions(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}),
		},
		{name: "outside GitHub Actions", getenv: environment(nil), err: ErrNoDepotToken},
		{
			name: "another CI system", err: ErrNoDepotToken,
			getenv: environment(map[string]string{"CI": "true", "GITHUB_ACTIONS": "false"}),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &logger{}
			d := depot(test.getenv, l)
			d.Input = test.input
			token, err := d.Token(t.Context())
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err != nil {
				return
			}
			if got := tokenKind(t, startDepot(t), token); got != test.want {
				t.Errorf("Depot recognized a token of kind %q, want %q", got, test.want)
			}
			if n := len(l.lines); test.source != "" && (n == 0 || l.lines[n-1] != "Authenticating to Depot with "+test.source) {
				t.Errorf("logged %q, want %q", l.lines, test.source)
			}
		})
	}
	if !strings.Contains(ErrNoIDToken.Error(), "`permissions: id-token: write`") {
		t.Errorf("%q does not name the permission", ErrNoIDToken)
	}
}

func TestMalformedDepotToken(t *testing.T) {
	for _, malformed := range []string{
		"two words-of-a-secret", "two\nlines-of-a-secret", "é-of-a-secret", "\x7f-of-a-secret",
	} {
		for name, d := range map[string]Depot{
			"input depot_token": {Input: malformed, Getenv: environment(nil)},
			"DEPOT_TOKEN":       {Getenv: environment(map[string]string{"DEPOT_TOKEN": malformed})},
		} {
			_, err := d.Token(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), name+": invalid token") ||
				strings.Contains(err.Error(), "of-a-secret") {
				t.Errorf("%q: got %v", malformed, err)
			}
		}
	}
}

func TestMalformedDepotLogin(t *testing.T) {
	for name, home := range map[string]string{
		"YAML": loginHome(t, "api_token: [of-a-secret"), "token": loginHome(t, "api_token: two words-of-a-secret"),
		"size": loginHome(t, "api_token: of-a-secret"+strings.Repeat("\n", maxSettingsFile)),
	} {
		_, err := Depot{Getenv: environment(map[string]string{"HOME": home})}.Token(t.Context())
		if err == nil || !strings.Contains(err.Error(), "depot login") || strings.Contains(err.Error(), "of-a-secret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Depot accepts the tokens of its own CI. Jobs there have GitHub's interface for OIDC.
func TestDepotCI(t *testing.T) {
	ci, err := github.Start(t.Context(), github.Options{Claims: map[string]string{"repository": "org/sandbox-actions"}})
	if err != nil {
		t.Fatal(err)
	}
	defer ci.Close()
	l := &logger{}
	getenv := inActions(map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_URL": ci.IDTokenRequestURL(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ci.IDTokenRequestToken(),
	})
	token, err := depot(getenv, l).Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := startDepot(t, func(o *depotapi.Options) { o.CIIssuer = ci.Issuer() })
	if got := tokenKind(t, s, token); got != depotapi.OIDCToken {
		t.Errorf("Depot recognized a token of kind %q", got)
	}
	if want := "Authenticating to Depot with an OIDC token of " + ci.Issuer(); !slices.Equal(l.lines, []string{want}) {
		t.Errorf("logged %q", l.lines)
	}
	address, err := url.Parse("https://identity.depot.dev/token")
	if err != nil || issuerName(address) != "Depot CI" {
		t.Errorf("got %q, %v", issuerName(address), err)
	}
}

func TestOIDCRequestFails(t *testing.T) {
	stopped, err := github.Start(t.Context(), github.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := stopped.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change map[string]string
		status int
	}{
		{"invalid request token", map[string]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "stale-bearer"}, 401},
		{"unreachable", map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": stopped.IDTokenRequestURL()}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := depot(inActions(test.change), &logger{}).Token(t.Context())
			failed, ok := errors.AsType[*httpclient.APIError](err)
			if !ok || failed.Service != "GitHub" || failed.Status != test.status ||
				!strings.Contains(err.Error(), "depot_token") {
				t.Fatalf("got %v", err)
			}
			for _, secret := range []string{"stale-bearer", actions.IDTokenRequestToken()} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a secret is in %q", err)
				}
			}
		})
	}
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := depot(inActions(nil), &logger{}).Token(ctx); err != cause { //nolint:errorlint // not wrapped
		t.Errorf("canceled: %v", err)
	}
}

// pullRequest writes the event payload of a pull request to org/sandbox-actions and returns the file's path.
func pullRequest(t *testing.T, head string, private bool) string {
	t.Helper()
	type repository struct {
		FullName string `json:"full_name"`
		Private  bool   `json:"private"`
	}
	data, err := json.Marshal(map[string]any{
		"repository":   repository{"org/sandbox-actions", private},
		"pull_request": map[string]any{"number": 7, "head": map[string]any{"repo": repository{head, private}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return writeEvent(t, string(data))
}

func writeEvent(t *testing.T, payload string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(file, []byte(payload), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// forkJob returns the environment of a pull request job without OIDC, with changes.
func forkJob(event string, changes map[string]string) func(string) string {
	variables := map[string]string{
		"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": event,
		"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "",
	}
	maps.Copy(variables, changes)
	return inActions(variables)
}

func countCalls(s *depotapi.Server, method string) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Method == method {
			n++
		}
	}
	return n
}

// challenges returns the codes that the log shows, with the number of lines for each.
func (l *logger) challenges() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	codes := map[string]int{}
	for _, line := range l.lines {
		if code, ok := strings.CutPrefix(line, "Waiting for OIDC auth challenge "); ok {
			codes[code]++
		}
	}
	return codes
}

// Depot invalidates a challenge first and then searches the log for its code, for longer than other requests may take.
// The code is shown again and again meanwhile.
func TestForkAnswersChallenge(t *testing.T) {
	const lines = 400
	l := &logger{}
	s := startDepot(t, func(o *depotapi.Options) {
		o.FindInLog = func(code string) bool {
			for l.challenges()[code] < lines {
				time.Sleep(time.Millisecond)
			}
			return true
		}
	})
	d := depot(forkJob(pullRequest(t, "contributor/sandbox-actions", false), map[string]string{
		"GITHUB_RUN_ATTEMPT": "3",
	}), l)
	d.ClaimURL, d.ChallengeInterval = s.ClaimURL(), 5*time.Millisecond
	d.OIDC.HTTP.Policy.Timeout = lines * d.ChallengeInterval / 2
	before := len(actions.Requests())
	token, err := d.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := tokenKind(t, s, token); got != depotapi.ForkToken {
		t.Errorf("Depot recognized a token of kind %q", got)
	}
	if n := len(actions.Requests()) - before; n != 0 {
		t.Errorf("got %d requests to GitHub for a fork, want none", n)
	}
	if claims, exchanges := countCalls(s, "claim"), countCalls(s, "exchange"); claims != 1 || exchanges != 1 {
		t.Errorf("got %d claims and %d exchanges, want one each", claims, exchanges)
	}
	if attempt := s.Calls()[0].Attempt; attempt != "3" {
		t.Errorf("claimed attempt %q", attempt)
	}
	if n := len(l.challenges()); n != 1 {
		t.Errorf("the log shows %d codes", n)
	}
}

// longWaits is a clock that records waits of a second or more and does not wait for them.
type longWaits struct {
	httpclient.SystemClock
	waits []string
}

func (c *longWaits) Sleep(ctx context.Context, d time.Duration) error {
	if d < time.Second {
		return c.SystemClock.Sleep(ctx, d)
	}
	c.waits = append(c.waits, d.String())
	return context.Cause(ctx)
}

// A failed exchange uses up the challenge, so the run requests another one.
func TestForkRequestsAnotherChallenge(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault depotapi.Fault
		log   string // substring
	}{
		{"code is not in the log", depotapi.Fault{}, "Depot returned 500 Internal Server Error: no validated jobs"},
		{"connection lost", depotapi.Fault{Method: "exchange", Times: 1, Hangup: true}, "cannot reach Depot at http"},
		{
			"gateway timeout", depotapi.Fault{Method: "exchange", Times: 1, Status: 504, Body: "<html>"},
			"Depot returned 504 Gateway Timeout: the response is a web page",
		},
		{
			"rate limit", depotapi.Fault{
				Method: "exchange", Times: 1, Code: connect.CodeResourceExhausted, Header: map[string]string{"Retry-After": "7"},
			}, "retry after 7s",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := ""
			l := &logger{}
			s := startDepot(t, func(o *depotapi.Options) {
				o.FindInLog = func(code string) bool {
					first = cmp.Or(first, code)
					return test.fault.Method != "" || code != first
				}
			})
			d := depot(forkJob(pullRequest(t, "contributor/sandbox-actions", false), nil), l)
			d.ClaimURL = s.ClaimURL()
			clock := &longWaits{}
			d.OIDC.HTTP.Clock = clock
			if test.fault.Method != "" {
				s.Fail(test.fault)
			}
			token, err := d.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if wait := test.fault.Header["Retry-After"]; wait != "" && !slices.Equal(clock.waits, []string{wait + "s"}) {
				t.Errorf("waited %q, want %ss", clock.waits, wait)
			}
			if got := tokenKind(t, s, token); got != depotapi.ForkToken {
				t.Errorf("Depot recognized a token of kind %q", got)
			}
			if claims, exchanges := countCalls(s, "claim"), countCalls(s, "exchange"); claims != 2 || exchanges != 2 {
				t.Errorf("got %d claims and %d exchanges, want two each", claims, exchanges)
			}
			if log := strings.Join(l.lines, "\n"); !strings.Contains(log, test.log) || len(l.challenges()) != 2 {
				t.Errorf("logged %s", log)
			}
		})
	}
}

func TestForkWithoutToken(t *testing.T) {
	fork := pullRequest(t, "contributor/sandbox-actions", false)
	const (
		claimError = "authenticate to Depot for a pull request from a fork: "
		timedOut   = claimError + "timed out after 300ms waiting for Depot to find the challenge"
		noToken    = claimError + "Depot returned 200 OK: no token in the response (rerun the job, or push the branch to org/"
	)
	for _, test := range []struct {
		name, event string
		env         map[string]string // changes to the environment
		fault       depotapi.Fault
		err         error  // that the error wraps
		status      int    // of an APIError
		want        string // substring of the error
	}{
		{name: "branch of the repository", event: pullRequest(t, "org/sandbox-actions", false), err: ErrNoIDToken},
		{name: "deleted fork", event: pullRequest(t, "", false), err: ErrNoIDToken},
		{name: "review", event: fork, env: map[string]string{"GITHUB_EVENT_NAME": "pull_request_review"}, err: ErrNoIDToken},
		{name: "no run ID", event: fork, env: map[string]string{"GITHUB_RUN_ID": ""}, err: ErrNoIDToken},
		{name: "no event file", event: "/absent", err: ErrNoIDToken},
		{name: "malformed event", event: writeEvent(t, "{"), err: ErrNoIDToken},
		{
			name: "private repository", event: pullRequest(t, "contributor/sandbox-actions", true),
			want: claimError + "Depot supports forks of public repositories only (push the branch to org/sandbox-actions",
		},
		{
			name: "claim denied", event: fork, fault: depotapi.Fault{Method: "claim", Status: 403},
			status: 403, want: "allow pull requests from forks",
		},
		{
			name: "claim unavailable", event: fork, fault: depotapi.Fault{Method: "claim", Status: 503},
			status: 503, want: "rerun the job later",
		},
		{
			name: "web page", event: fork, fault: depotapi.Fault{Method: "claim", Status: 200, Body: "<html>"},
			err: httpclient.ErrFormat, status: 200, want: claimError,
		},
		{
			name: "no challenge", event: fork, fault: depotapi.Fault{Method: "claim", Status: 200, Body: "{}"},
			err: httpclient.ErrFormat, status: 200, want: "rerun the job later",
		},
		{
			name: "no challenge code", event: fork, err: httpclient.ErrFormat, status: 200,
			fault: depotapi.Fault{Method: "claim", Status: 200, Body: `{"exchangeURL":"http://127.0.0.1:1/exchange"}`},
		},
		{
			name: "no response", event: fork, fault: depotapi.Fault{Method: "claim", NoResponse: true},
			want: "no response within 50ms, after 4 attempts (check the network, and rerun the job)",
		},
		{
			name: "no response to the exchange", event: fork, want: timedOut,
			fault: depotapi.Fault{Method: "exchange", NoResponse: true},
		},
		{
			name: "run is not in progress", event: fork, status: 500,
			want:  claimError + "Depot returned 500 Internal Server Error: run not in progress (rerun the job, or push the ",
			fault: depotapi.Fault{Method: "exchange", Status: 500, Body: `{"error":"run not in progress"}`},
		},
		{
			name: "web page instead of a token", event: fork, want: noToken, err: httpclient.ErrFormat, status: 200,
			fault: depotapi.Fault{Method: "exchange", Status: 200, Body: "<html>"},
		},
		{
			name: "text instead of a token", event: fork, want: noToken, err: httpclient.ErrFormat, status: 200,
			fault: depotapi.Fault{Method: "exchange", Status: 200, Body: "not yet"},
		},
		{
			name: "empty token", event: fork, fault: depotapi.Fault{Method: "exchange", Status: 200}, want: noToken,
			err: httpclient.ErrFormat, status: 200,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t)
			d := depot(forkJob(test.event, test.env), &logger{})
			d.ClaimURL = s.ClaimURL()
			if test.fault.Method != "" {
				s.Fail(test.fault)
			}
			if test.want == timedOut {
				d.ChallengeTimeout = 300 * time.Millisecond
			} else if test.fault.NoResponse {
				d.OIDC.HTTP.Policy.Timeout = 50 * time.Millisecond
			}
			_, err := d.Token(t.Context())
			if err == nil || test.err != nil && !errors.Is(err, test.err) || httpclient.Status(err) != test.status ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("got\n%v\nwant\n%s (%v, status %d)", err, test.want, test.err, test.status)
			}
			if n := countCalls(s, "exchange"); test.fault.Method == "exchange" && test.want != timedOut && n != maxClaims {
				t.Errorf("got %d exchanges", n)
			}
		})
	}
}

func TestForkTokenWithLineBreak(t *testing.T) {
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "exchange", Status: http.StatusOK, Body: "fork-token\r\n"})
	d := depot(forkJob(pullRequest(t, "contributor/sandbox-actions", false), nil), &logger{})
	d.ClaimURL, d.ChallengeTimeout = s.ClaimURL(), 10*time.Second
	if token, err := d.Token(t.Context()); err != nil || token != "fork-token" {
		t.Errorf("got %q, %v", token, err)
	}
}

func TestClaimIsRetried(t *testing.T) {
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "claim", Times: 2, Status: http.StatusBadGateway})
	d := depot(forkJob(pullRequest(t, "contributor/sandbox-actions", false), nil), &logger{})
	d.ClaimURL = s.ClaimURL()
	if _, err := d.Token(t.Context()); err != nil {
		t.Error(err)
	}
	if n := countCalls(s, "claim"); n != 3 {
		t.Errorf("got %d claims, want 3", n)
	}
}

func TestExchangeURLMustBeHTTP(t *testing.T) {
	local := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"challengeCode":"code","exchangeURL":"file:///etc/passwd"}`))
	}))
	defer local.Close()
	l := &logger{}
	d := depot(forkJob(pullRequest(t, "contributor/sandbox-actions", false), nil), l)
	d.ClaimURL = local.URL
	if _, err := d.Token(t.Context()); !errors.Is(err, httpclient.ErrFormat) || len(l.lines) > 0 {
		t.Errorf("got %v, logged %q", err, l.lines)
	}
}

// FuzzForkedRepository checks that only a pull request from another repository counts as one from a fork.
func FuzzForkedRepository(f *testing.F) {
	for _, seed := range []string{
		`{"repository":{"full_name":"o/r","private":false},"pull_request":{"head":{"repo":{"full_name":"c/r"}}}}`,
		`{"repository":{"full_name":"o/r"},"pull_request":{"number":1,"head":{"repo":{"full_name":"c/r"}}}}`,
		`{"repository":{"full_name":"o/r","private":true},"pull_request":{"head":{"repo":{"full_name":"o/r"}}}}`,
		`{"pull_request":{"head":{"repo":null}}}`, `{}`, `[]`, ``, `{"repository":7}`,
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "event.json")
	d := Depot{Getenv: environment(map[string]string{
		"GITHUB_EVENT_NAME": "pull_request", "GITHUB_RUN_ID": "1", "GITHUB_EVENT_PATH": file,
	})}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		name, private := d.forkedRepository()
		var event struct {
			PullRequest struct {
				Head struct {
					Repo struct {
						FullName string `json:"full_name"`
					}
				}
			} `json:"pull_request"`
		}
		head := ""
		if json.Unmarshal(data, &event) == nil {
			head = event.PullRequest.Head.Repo.FullName
		}
		if (name != "" || private) && (head == "" || name == head) {
			t.Errorf("got %q, %t with head repository %q", name, private, head)
		}
	})
}
