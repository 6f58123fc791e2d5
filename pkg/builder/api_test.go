package builder

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"golang.org/x/sync/errgroup"
)

// Every refusal and every trouble of Depot's API, what it takes us in calls, and the sentence that a person reads. API is the API's address.
func TestSentences(t *testing.T) {
	const (
		denied  = "add the repository to the project's trust relationships at https://depot.dev, or give a token of that project"
		expired = "give a depot_token or DEPOT_TOKEN that has not expired, or none to enter with GitHub OIDC"
		later   = "try again later (https://status.depot.dev)"
		create  = `create a build in project "sandbox": `
		get     = "get a machine for linux/amd64: "
		foreign = "check DEPOT_API_URL, and what stands between"
	)
	json := map[string]string{"Content-Type": "application/json"}
	for _, test := range []struct {
		name, token, project string
		fault                depotapi.Fault // of CreateBuild, when it names no method
		calls                int
		want                 string
	}{
		{name: "unknown token", token: "nobody's", calls: 1,
			want: create + "Depot does not accept the token (invalid API token): " + expired},
		{name: "token of another project", token: "other-token", calls: 1,
			want: create + "Depot does not trust the caller (this token may not use project sandbox): " + denied},
		{name: "no such project", project: "absent", calls: 1,
			want: `create a build in project "absent": Depot does not find it (project absent not found): check the project's id in depot.json, DEPOT_PROJECT_ID or depot_project`},
		{name: "no project", token: "organization-token", project: "-", calls: 1,
			want: ErrNoProject.Error()},
		{name: "conflict", fault: depotapi.Fault{Code: connect.CodeAlreadyExists, Message: "busy"}, calls: 1,
			want: create + "Depot refuses it (busy): run it again, and look at the build's page if it happens again"},
		{name: "429 for ever", fault: depotapi.Fault{Code: connect.CodeResourceExhausted, Message: "slow down"}, calls: 5,
			want: create + "Depot asks to slow down (429), after 5 tries (slow down): try again in a few minutes, or look at the organization's limits"},
		{name: "429 and an hour to wait", fault: depotapi.Fault{Code: connect.CodeResourceExhausted, Message: "slow down", Header: map[string]string{"Retry-After": "3600"}}, calls: 1,
			want: create + "Depot asks to slow down (429), and to come back in 1h0m0s (slow down): do so, or look at the organization's limits"},
		{name: "a proxy's 429 for ever", fault: depotapi.Fault{Status: 429, Body: "<html>"}, calls: 5,
			want: create + "Depot asks to slow down (429), after 5 tries (429 Too Many Requests): try again in a few minutes, or look at the organization's limits"},
		{name: "503 for ever", fault: depotapi.Fault{Code: connect.CodeUnavailable, Message: "maintenance"}, calls: 5,
			want: create + "Depot's API at API failed (503), after 5 tries (maintenance): " + later},
		{name: "500 for ever", fault: depotapi.Fault{Code: connect.CodeInternal, Message: "oh\nno"}, calls: 5,
			want: create + "Depot's API at API failed (500), after 5 tries (oh no): " + later},
		{name: "a proxy's 502 for ever", fault: depotapi.Fault{Status: 502, Body: "<html>"}, calls: 5,
			want: create + "Depot's API at API failed (502), after 5 tries (502 Bad Gateway): " + later},
		{name: "a proxy's 504, which may have made a build", fault: depotapi.Fault{Status: 504, Body: "<html>"}, calls: 1,
			want: create + "Depot's API at API failed (504) (504 Gateway Timeout): " + later},
		{name: "a proxy's 504 where a second call does no harm", fault: depotapi.Fault{Method: "GetBuildKitConnection", Status: 504}, calls: 5,
			want: get + "Depot's API at API failed (504), after 5 tries (504 Gateway Timeout): " + later},
		{name: "an HTML page", fault: depotapi.Fault{Status: 200, Body: "<html>Sign in to the Wi-Fi</html>"}, calls: 1,
			want: create + `what answers at API is not Depot's API (invalid content-type: "text/html; charset=utf-8"; expecting "application/proto"): ` + foreign},
		{name: "an HTML page where a second call does no harm", fault: depotapi.Fault{Method: "GetBuildKitConnection", Status: 200, Body: "<html>"}, calls: 5,
			want: get + `what answers at API is not Depot's API, after 5 tries (invalid content-type: "text/html; charset=utf-8"; expecting "application/proto"): ` + foreign},
		{name: "a proxy's 401", fault: depotapi.Fault{Status: 401, Body: "<html>"}, calls: 1,
			want: create + "what answers at API is not Depot's API (401 Unauthorized): " + foreign},
		{name: "a proxy's 403", fault: depotapi.Fault{Status: 403, Body: "<html>"}, calls: 1,
			want: create + "what answers at API is not Depot's API (403 Forbidden): " + foreign},
		{name: "another's 404", fault: depotapi.Fault{Status: 404, Body: "<html>"}, calls: 1,
			want: create + "what answers at API is not Depot's API (404 Not Found): " + foreign},
		{name: "another's JSON", fault: depotapi.Fault{Status: 404, Header: json, Body: `{"message":"Not Found"}`}, calls: 1,
			want: create + "what answers at API is not Depot's API (Not Found): " + foreign},
		{name: "an API that is too old", fault: depotapi.Fault{Code: connect.CodeUnimplemented, Message: "no such call"}, calls: 1,
			want: create + "what answers at API is not Depot's API (no such call): " + foreign},
		{name: "an empty answer", fault: depotapi.Fault{Status: 200, Header: map[string]string{"Content-Type": "application/proto"}}, calls: 1,
			want: "create a build at Depot: the answer of API names no build: check DEPOT_API_URL"},
		{name: "silence", fault: depotapi.Fault{Silence: true}, calls: 1,
			want: create + "Depot's API at API did not answer within 100ms: check the network, and https://status.depot.dev"},
		{name: "silence where a second call does no harm", fault: depotapi.Fault{Method: "GetBuildKitConnection", Silence: true}, calls: 5,
			want: get + "Depot's API at API did not answer within 100ms, after 5 tries: check the network, and https://status.depot.dev"},
		{name: "a broken connection, which may have made a build", fault: depotapi.Fault{Hangup: true}, calls: 1,
			want: create + "the connection to Depot's API at API broke (unexpected EOF): run it again, and check the network"},
		{name: "a broken connection where a second call does no harm", fault: depotapi.Fault{Method: "GetBuildKitConnection", Hangup: true}, calls: 5,
			want: get + "the connection to Depot's API at API broke, after 5 tries (unexpected EOF): run it again, and check the network"},
		{name: "neither a machine nor a wait", fault: depotapi.Fault{Method: "GetBuildKitConnection", Status: 200, Header: map[string]string{"Content-Type": "application/proto"}}, calls: 1,
			want: get + "the answer of API names neither a machine nor a wait: check DEPOT_API_URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t)
			method := test.fault.Method
			if method == "" {
				method, test.fault.Method = "CreateBuild", "CreateBuild"
			}
			if test.fault.Code != 0 || test.fault.Status != 0 || test.fault.Silence || test.fault.Hangup {
				s.Fail(test.fault)
			}
			j := &journal{}
			if test.token == "" {
				test.token = "project-token"
			}
			d := depot(j, test.token)
			switch test.project {
			case "":
			case "-":
				d.Project = ""
			default:
				d.Project = test.project
			}
			if test.fault.Silence && method == "CreateBuild" {
				set(t, &callTimeout, 100*time.Millisecond)
			}
			b, err := d.Start(t.Context(), Request{Platforms: []string{"linux/amd64"}})
			if err == nil {
				if test.fault.Silence {
					set(t, &callTimeout, 100*time.Millisecond)
				}
				_, err = b.Machine(t.Context(), "linux/amd64")
				b.Finish(err)
			}
			if err == nil {
				t.Fatal("it went well")
			}
			if got := strings.ReplaceAll(err.Error(), s.URL(), "API"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			oneSentence(t, err, append(j.secrets(), test.token)...)
			if n := calls(s, method, nil); n != test.calls {
				t.Errorf("%d calls of %s, want %d", n, method, test.calls)
			}
		})
	}
}

func TestDepotIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DEPOT_API_URL", "http://"+addr+"/")
	_, err = depot(&journal{}, "project-token").Start(t.Context(), Request{})
	want := `create a build in project "sandbox": Depot's API at http://` + addr + " can not be reached, after 5 tries (dial tcp " + addr +
		": connect: connection refused): check the network and DEPOT_API_URL"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// With an hour before the second try, only who obeys retry-after gets on.
func TestRetryAfterIsObeyed(t *testing.T) {
	for name, fault := range map[string]depotapi.Fault{
		"Depot's, in seconds":  {Code: connect.CodeResourceExhausted, Header: map[string]string{"Retry-After": "1"}},
		"a proxy's, as a time": {Status: 503, Header: map[string]string{"Retry-After": time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat)}},
	} {
		t.Run(name, func(t *testing.T) {
			set(t, &firstWait, time.Hour)
			s := startDepot(t)
			fault.Method, fault.Times = "CreateBuild", 1
			s.Fail(fault)
			returns(t, "Start", func() {
				b, err := depot(&journal{}, "project-token").Start(t.Context(), Request{})
				if err != nil {
					t.Error(err)
					return
				}
				b.Finish(nil)
			})
			if n := calls(s, "CreateBuild", nil); n != 2 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// The end of the context is the answer to everything, with its cause.
func TestTheContextHasTheLastWord(t *testing.T) {
	for name, fault := range map[string]depotapi.Fault{
		"the API is silent":    {Method: "GetBuildKitConnection", Silence: true},
		"the API fails":        {Method: "GetBuildKitConnection", Code: connect.CodeUnavailable, Header: map[string]string{"Retry-After": "60"}},
		"never active":         {Method: "GetBuildKitConnection", Machine: depotapi.NeverActive},
		"nothing listens":      {Method: "GetBuildKitConnection", Machine: depotapi.Unreachable},
		"no build can be made": {Method: "CreateBuild", Code: connect.CodeUnavailable, Header: map[string]string{"Retry-After": "60"}},
	} {
		t.Run(name, func(t *testing.T) {
			set(t, &connectPatience, time.Hour)
			set(t, &patienceUntilSaid, 0)
			s := startDepot(t)
			s.Fail(fault)
			cause := errors.New("the timeout of 30m is over")
			ctx, cancel := context.WithCancelCause(t.Context())
			j := &journal{}
			var asked errgroup.Group
			asked.Go(func() error {
				b, err := depot(j, "project-token").Start(ctx, Request{})
				if err != nil {
					return err
				}
				defer b.Finish(cause)
				_, err = b.Machine(ctx, "linux/amd64")
				return err
			})
			eventually(t, "the call", func() bool { return calls(s, fault.Method, nil) > 0 })
			if fault.Machine == depotapi.NeverActive {
				eventually(t, "a line that says what is waited for", func() bool {
					return strings.Contains(j.text(), "Waiting for a machine for linux/amd64: Depot is starting one, for ")
				})
			}
			cancel(cause)
			err := asked.Wait()
			if !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
		})
	}
}
