package builder

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// mint makes an OIDC token as GitHub would for a job, with claims changed.
func mint(t *testing.T, audience string, change func(map[string]any)) string {
	t.Helper()
	token, err := actions.Mint(audience, change)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenOrder(t *testing.T) {
	for _, test := range []struct {
		name, input string
		getenv      func(string) string
		want        depotapi.TokenKind
		err         error
	}{
		{name: "input before all", input: "project-token", getenv: inActions(map[string]string{"DEPOT_TOKEN": "nobody's"}), want: depotapi.ProjectToken},
		{name: "input with a line's end", input: " project-token\n", getenv: inActions(nil), want: depotapi.ProjectToken},
		{name: "DEPOT_TOKEN before OIDC", getenv: inActions(map[string]string{"DEPOT_TOKEN": "organization-token"}), want: depotapi.OrganizationToken},
		{name: "OIDC", getenv: inActions(nil), want: depotapi.OIDCToken},
		{name: "OIDC where the runner does not say that it is Actions", getenv: inActions(map[string]string{"GITHUB_ACTIONS": ""}), want: depotapi.OIDCToken},
		{name: "no permission", getenv: inActions(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": ""}), err: ErrNoIDToken},
		{name: "half a permission", getenv: inActions(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}), err: ErrNoIDToken},
		{name: "a person without a token", getenv: environment(nil), err: ErrNoToken},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t)
			j := &journal{}
			token, err := tokenSource(t, j, test.input, test.getenv).Token(t.Context())
			if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err != nil {
				oneSentence(t, err)
				return
			}
			startBuild(t, depot(j, token), Request{})
			if got := s.Calls()[0].Token; got != test.want {
				t.Errorf("Depot sees a token of kind %q, want %q", got, test.want)
			}
			if masked := j.secrets(); len(masked) < 2 || masked[0] != token {
				t.Errorf("masked first: %q, want the token", masked)
			}
		})
	}
	for _, line := range []string{"`permissions:`", "`id-token: write`"} {
		if !strings.Contains(ErrNoIDToken.Error(), line) {
			t.Errorf("%q does not name the line %s", ErrNoIDToken, line)
		}
	}
}

func TestTokensThatAreNone(t *testing.T) {
	for name, source := range map[string]TokenSource{
		"the input depot_token": {Input: "two words-of-a-secret", Getenv: environment(nil)},
		"DEPOT_TOKEN":           {Getenv: environment(map[string]string{"DEPOT_TOKEN": "two\nlines-of-a-secret"})},
	} {
		_, err := source.Token(t.Context())
		want := name + " is no token: it holds white space or other characters that no token has: copy it again"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What Depot says of OIDC tokens that are not good, in our words.
func TestOIDCTokensThatDepotRefuses(t *testing.T) {
	forged, err := actions.Forge(Audience)
	if err != nil {
		t.Fatal(err)
	}
	const (
		create  = `create a build in project "sandbox": `
		unknown = create + "Depot does not accept the token (invalid OIDC token: "
		remedy  = "): give a depot_token or DEPOT_TOKEN that has not expired, or none to enter with GitHub OIDC"
	)
	for _, test := range []struct{ name, token, prefix, suffix string }{
		{"expired", mint(t, Audience, func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }),
			create + "Depot does not accept the token (the OIDC token has expired", remedy},
		{"untrusted repository", mint(t, Audience, func(c map[string]any) { c["repository"] = "else/where" }),
			create + "Depot does not trust the caller (project sandbox has no trust relationship with else/where",
			"): add the repository to the project's trust relationships at https://depot.dev, or give a token of that project"},
		{"forged signature", forged, unknown, remedy},
		{"wrong audience", mint(t, "", nil), unknown, remedy},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t)
			j := &journal{}
			_, err := depot(j, test.token).Start(t.Context(), Request{})
			if err == nil || !strings.HasPrefix(err.Error(), test.prefix) || !strings.HasSuffix(err.Error(), test.suffix) {
				t.Fatalf("got\n%v\nwant\n%s…%s", err, test.prefix, test.suffix)
			}
			oneSentence(t, err, test.token, test.token[strings.LastIndex(test.token, ".")+1:])
			if n := len(s.Calls()); n != 1 {
				t.Errorf("%d calls for a token that will not get better", n)
			}
		})
	}
}

func TestGitHubGivesNoToken(t *testing.T) {
	gone, err := github.Start(t.Context(), github.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change map[string]string
	}{
		{"the job's bearer is wrong", map[string]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "stale-bearer"}},
		{"GitHub is not there", map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": gone.IDTokenRequestURL()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := gone.Close(); err != nil {
				t.Fatal(err)
			}
			_, err := tokenSource(t, &journal{}, "", inActions(test.change)).Token(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), "enter Depot with GitHub OIDC: ask GitHub for an OIDC token for https://depot.dev: ") ||
				!strings.HasSuffix(err.Error(), ": run the job again, or give depot_token") {
				t.Fatalf("got %v", err)
			}
			oneSentence(t, err, "stale-bearer", actions.IDTokenRequestToken())
		})
	}
	cause := errors.New("Ctrl-C")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := tokenSource(t, &journal{}, "", inActions(nil)).Token(ctx); !errors.Is(err, cause) {
		t.Errorf("canceled: %v", err)
	}
}

// pullRequest is the event file of a pull request to org/sandbox-actions from a head repository.
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
	file := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func fork(event string) map[string]string {
	return map[string]string{
		"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": event,
		"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "",
	}
}

func TestAForksPullRequestTakesTheSecondWay(t *testing.T) {
	set(t, &challengePeriod, time.Millisecond)
	s := startDepot(t)
	j := &journal{}
	source := tokenSource(t, j, "", inActions(fork(pullRequest(t, "contributor/sandbox-actions", false))))
	source.ClaimURL = s.ClaimURL()
	before := len(actions.Requests())
	token, err := source.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	startBuild(t, depot(j, token), Request{})
	if n := calls(s, "CreateBuild", func(c depotapi.Call) bool { return c.Token == depotapi.ForkToken }); n != 1 {
		t.Errorf("calls: %+v", s.Calls())
	}
	if n := len(actions.Requests()) - before; n != 0 {
		t.Errorf("GitHub was asked %d times for a token that it does not give", n)
	}
	for line := range strings.Lines(j.text()) {
		if !strings.HasPrefix(line, "Waiting for OIDC auth challenge ") {
			t.Errorf("in the log: %s", line)
		}
	}
	if j.text() == "" {
		t.Error("the challenge is not in the log")
	}
}

func TestPullRequestsWithoutASecondWay(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(garbage, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	const doing = "enter Depot for a pull request from a fork: "
	for _, test := range []struct {
		name, event, claim string
		fault              depotapi.Fault
		want               string
	}{
		{name: "a branch of the repository itself", event: pullRequest(t, "org/sandbox-actions", false), want: ErrNoIDToken.Error()},
		{name: "a fork that is gone", event: pullRequest(t, "", false), want: ErrNoIDToken.Error()},
		{name: "no event", event: "/absent", want: ErrNoIDToken.Error()},
		{name: "garbage for an event", event: garbage, want: ErrNoIDToken.Error()},
		{name: "a fork of a private repository", event: pullRequest(t, "contributor/sandbox-actions", true),
			want: doing + "GitHub gives it no OIDC token, and Depot has another way only for public repositories: push the branch to org/sandbox-actions itself"},
		{name: "refused", fault: depotapi.Fault{Method: "claim", Status: 403},
			want: doing + "Depot refuses it (403): see that the project allows pull requests from forks in its settings at Depot"},
		{name: "5xx for ever", fault: depotapi.Fault{Method: "claim", Status: 503},
			want: doing + "Depot failed (503): run the job again later (https://status.depot.dev)"},
		{name: "garbage", fault: depotapi.Fault{Method: "claim", Status: 200, Body: "<html>"},
			want: doing + "the answer of CLAIM holds no challenge: run the job again later"},
		{name: "silence", fault: depotapi.Fault{Method: "claim", Silence: true},
			want: doing + "CLAIM can not be reached (Post \"CLAIM\": context deadline exceeded): check the network, and run the job again"},
		{name: "a challenge that nobody sees", fault: depotapi.Fault{Method: "exchange", Status: 403},
			want: doing + "Depot did not see the challenge in the run's log within 300ms: run the job again, or push the branch to org/sandbox-actions itself"},
		{name: "a page instead of a token", fault: depotapi.Fault{Method: "exchange", Status: 200, Body: "<html>"},
			want: doing + "Depot did not see the challenge in the run's log within 300ms: run the job again, or push the branch to org/sandbox-actions itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			set(t, &challengePeriod, time.Millisecond)
			if test.fault.Method == "exchange" {
				set(t, &challengeTime, 300*time.Millisecond)
			}
			if test.fault.Silence {
				set(t, &callTimeout, 50*time.Millisecond)
			}
			s := startDepot(t)
			if test.fault.Method != "" {
				s.Fail(test.fault)
			}
			if test.event == "" {
				test.event = pullRequest(t, "contributor/sandbox-actions", false)
			}
			source := tokenSource(t, &journal{}, "", inActions(fork(test.event)))
			source.ClaimURL = s.ClaimURL()
			_, err := source.Token(t.Context())
			if err == nil {
				t.Fatal("a token")
			}
			if got := strings.ReplaceAll(err.Error(), s.ClaimURL(), "CLAIM"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			oneSentence(t, err)
		})
	}
}

// The claim's trouble passes, as that of the API does; and what Depot's own address is, nobody has to say.
func TestAClaimIsRetried(t *testing.T) {
	set(t, &challengePeriod, time.Millisecond)
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "claim", Times: 2, Status: http.StatusBadGateway})
	source := tokenSource(t, &journal{}, "", inActions(fork(pullRequest(t, "contributor/sandbox-actions", false))))
	source.ClaimURL = s.ClaimURL()
	if _, err := source.Token(t.Context()); err != nil {
		t.Error(err)
	}
	if n := calls(s, "claim", nil); n != 3 {
		t.Errorf("%d claims", n)
	}
	// An address that is no address of a service is not asked for anything.
	local := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"challengeCode":"code","exchangeURL":"file:///etc/passwd"}`))
	}))
	defer local.Close()
	source.ClaimURL = local.URL
	if _, err := source.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "holds no challenge") {
		t.Errorf("got %v", err)
	}
}
