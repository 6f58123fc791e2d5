package doppler

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// sendRequest sends a request and returns the status and the body of the response.
func sendRequest(t *testing.T, s *Server, method, path, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(data))
}

func TestRequests(t *testing.T) {
	const (
		secrets = "/v3/configs/config/secrets"
		dev     = "?project=sandbox&config=dev"
	)
	apiMessage := func(message string) string { return `{"messages":["` + message + `"],"success":false}` }
	for _, test := range []struct {
		name, method, path, token, body string
		status                          int
		answer                          string // response body; with the prefix …, a part of it
		set                             map[string]string
		deleted                         []string
	}{
		{name: "no token", path: secrets + dev, status: 401, answer: apiMessage("Invalid Auth token")},
		{
			name: "unknown path", path: "/v3/absent", token: cliToken, status: 404,
			answer: apiMessage("Could not find requested resource"),
		},
		{
			name: "one secret", path: "/v3/configs/config/secret" + dev + "&name=REFERENCE", token: cliToken, status: 200,
			answer: `…"computed":"\u003cone\u003e"`,
		},
		{
			name: "unknown secret", path: "/v3/configs/config/secret" + dev + "&name=ABSENT", token: cliToken, status: 404,
			answer: apiMessage("Could not find requested secret 'ABSENT'"),
		},
		{
			name: "some secrets", path: secrets + "/download" + dev + "&secrets=PLAIN,ABSENT", token: cliToken, status: 200,
			answer: `{"PLAIN":"one"}`,
		},
		{
			name: "unresolvable reference", path: secrets + "/download" + dev + "&secrets=NOWHERE", token: cliToken, status: 200,
			answer: `{"NOWHERE":"${ABSENT}"}`,
		},
		{
			name: "circular reference", path: secrets + "/download" + dev + "&secrets=CIRCLE", token: cliToken, status: 200,
			answer: `{"CIRCLE":"${CIRCLE}"}`,
		},
		{
			name: "unknown format", path: secrets + "/download" + dev + "&format=ini", token: cliToken, status: 400,
			answer: apiMessage("Please provide a valid format"),
		},
		{
			name: "names of a branch config", path: secrets + "/names?project=sandbox&config=dev_personal",
			token: cliToken, status: 200,
			answer: `{"names":["CHAIN","CIRCLE","DOPPLER_CONFIG","DOPPLER_ENVIRONMENT","DOPPLER_PROJECT","NOWHERE",` +
				`"PER_CONFIG","PLAIN","QUOTED","REFERENCE"],"success":true}`,
		},
		{
			name: "without managed secrets",
			path: secrets + "?include_managed_secrets=false&project=sandbox&config=dev&secrets=DOPPLER_CONFIG", token: cliToken,
			status: 200, answer: `{"secrets":{},"success":true}`,
		},
		{
			name: "config", path: "/v3/configs/config?project=sandbox&config=dev_personal", token: cliToken, status: 200,
			answer: `…"environment":"dev"`,
		},
		{
			name: "service account, another config", path: secrets + "?project=sandbox&config=dev_personal",
			token: "dp.sa.sandbox", status: 404, answer: apiMessage("Could not find requested config 'dev_personal'"),
		},
		{
			name: "service account, another project", path: secrets + "?project=other&config=dev", token: "dp.sa.sandbox",
			status: 404, answer: apiMessage("Could not find requested project 'other'"),
		},
		{
			name: "write by a read-only service account", method: "POST", path: secrets + dev, token: "dp.sa.sandbox",
			body: `{"secrets":{"A":"b"}}`, status: 403,
			answer: apiMessage("You do not have write access to this config's secrets."),
		},
		{
			name: "write by a service account", method: "POST", path: secrets, token: "dp.sa.sandbox",
			body: `{"project":"sandbox","config":"prd","secrets":{"A":"b"}}`, status: 200, answer: `…"A":`,
			set: map[string]string{"A": "b"},
		},
		{
			name: "same value", method: "POST", path: secrets + dev, token: writeToken, body: `{"secrets":{"PLAIN":"one"}}`,
			status: 200, answer: `…"PLAIN":`,
		},
		{
			name: "set and delete", method: "POST", path: secrets, token: writeToken,
			body: `{"secrets":{"A":"${PLAIN}","QUOTED":null,"ABSENT":null}}`, status: 200, answer: `…"A":`,
			set: map[string]string{"A": "${PLAIN}"}, deleted: []string{"QUOTED"},
		},
		{
			name: "all or nothing", method: "POST", path: secrets, token: writeToken, body: `{"secrets":{"A":"1","b":"2"}}`,
			status: 400, answer: apiMessage("Secret names must only contain uppercase letters, numbers, and underscores: 'b'"),
		},
		{
			name: "change request", method: "POST", path: secrets, token: writeToken,
			body: `{"change_requests":[{"name":"PLAIN","originalName":"PLAIN","value":"x","originalValue":"one"}]}`, status: 200,
			answer: `…`, set: map[string]string{"PLAIN": "x"},
		},
		{
			name: "change request without a value", method: "POST", path: secrets, token: writeToken,
			body: `{"change_requests":[{"name":"PLAIN","originalName":"PLAIN","value":null}]}`, status: 200, answer: `…`,
		},
		{
			name: "change request that expects another value", method: "POST", path: secrets, token: writeToken,
			body: `{"change_requests":[{"name":"A","originalName":null,"value":"x"},` +
				`{"name":"PLAIN","originalName":"PLAIN","value":"x","originalValue":"two"}]}`,
			status: 409, answer: apiMessage("The original value of 'PLAIN' does not match"),
		},
		{
			name: "change request for an unknown secret", method: "POST", path: secrets, token: writeToken,
			body: `{"change_requests":[{"name":"ABSENT","originalName":"ABSENT","value":"x"}]}`, status: 400,
			answer: apiMessage("Could not find requested secret 'ABSENT'"),
		},
		{
			name: "change request that deletes", method: "POST", path: secrets, token: writeToken,
			body:   `{"change_requests":[{"name":"PLAIN","originalName":"PLAIN","shouldDelete":true}]}`,
			status: 200, answer: `…`,
			deleted: []string{"PLAIN"},
		},
		{
			name: "neither secrets nor change requests", method: "POST", path: secrets, token: writeToken, body: `{}`,
			status: 400, answer: apiMessage("Please provide either secrets or change_requests"),
		},
		{
			name: "not JSON", method: "POST", path: secrets, token: writeToken, body: `hello`, status: 400,
			answer: apiMessage("Please provide a valid JSON body"),
		},
		{
			name: "second page", path: "/v3/configs?project=sandbox&page=2&per_page=2", token: cliToken, status: 200,
			answer: `…"name":"prd"`,
		},
		{
			name: "after the last page", path: "/v3/configs?project=sandbox&page=9", token: cliToken, status: 200,
			answer: `{"configs":[],"page":9,"success":true}`,
		},
		{
			name: "invalid page", path: "/v3/configs?project=sandbox&page=-1", token: cliToken, status: 400,
			answer: apiMessage("Please provide a valid page"),
		},
		{
			name: "environments", path: "/v3/environments?project=other", token: cliToken, status: 200,
			answer: `{"environments":[{"created_at":"2024-01-01T00:00:00.000Z","id":"dev","initial_fetch_at":null,` +
				`"name":"dev","project":"other","slug":"dev"}],"page":1,"success":true}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options())
			if test.method == "" {
				test.method = http.MethodGet
			}
			status, answer := sendRequest(t, s, test.method, test.path, test.token, test.body)
			part, isPart := strings.CutPrefix(test.answer, "…")
			if status != test.status || isPart && !strings.Contains(answer, part) || !isPart && answer != test.answer {
				t.Errorf("%d %s\nwant %d %s", status, answer, test.status, test.answer)
			}
			var set map[string]string
			var deleted []string
			for _, w := range s.Writes() {
				set, deleted = w.Set, w.Deleted
			}
			if !maps.Equal(set, test.set) || !slices.Equal(deleted, test.deleted) {
				t.Errorf("set %v, deleted %v; want %v and %v", set, deleted, test.set, test.deleted)
			}
		})
	}
}

func TestVisibleConfigs(t *testing.T) {
	s := start(t, options())
	for token, want := range map[string]string{
		readToken: "dev", "dp.sa.sandbox": "dev prd", cliToken: "dev dev_personal prd",
	} {
		_, body := sendRequest(t, s, http.MethodGet, "/v3/configs?project=sandbox", token, "")
		var answer struct{ Configs []struct{ Name string } }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range answer.Configs {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s sees %q, want %q", token, got, want)
		}
	}
}

func TestInvalidTokens(t *testing.T) {
	for _, token := range []Token{
		{Value: "secret"},
		{Value: "dp.st.dev.a"},
		{Value: "dp.st.dev.a", Access: []Access{{Project: "sandbox"}}},
		{Value: "dp.st.dev.a", Access: []Access{{Project: "sandbox", Config: "prd"}}},
		{Value: "dp.st.dev.a", Access: []Access{{Project: "sandbox", Config: "dev"}, {Project: "sandbox", Config: "prd"}}},
	} {
		if s, err := Start(t.Context(), Options{Tokens: []Token{token}}); err == nil {
			t.Errorf("Start accepts the token %v", token)
			_ = s.Close()
		}
		s := start(t, Options{})
		if err := s.AddToken(token); err == nil {
			t.Errorf("AddToken accepts the token %v", token)
		}
		if status, _ := sendRequest(t, s, http.MethodGet, "/v3/me", token.Value, ""); status != 401 {
			t.Errorf("status %d for the rejected token %v, want 401", status, token)
		}
	}
}

func TestOIDC(t *testing.T) {
	issuer, err := github.Start(t.Context(), github.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	const audience = "https://github.com/org"
	o := options()
	o.Issuer = issuer.Issuer()
	o.Identities = []Identity{
		{
			ID: "any-branch", Audience: audience, Claims: map[string]string{"sub": "repo:org/sandbox-actions:*"},
			Access: []Access{{Project: "sandbox", Config: "dev"}},
		},
		{
			ID: "one-workflow", Audience: audience,
			Claims: map[string]string{"repository": "org/sandbox-actions", "ref": "refs/heads/main", "environment": "prd"},
		},
		{ID: "short", Audience: audience, Access: []Access{{Project: "sandbox"}}, Lifetime: time.Nanosecond},
	}
	s := start(t, o)
	forged, err := issuer.Forge(audience)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, identity, audience string
		change                   func(map[string]any)
		token                    string
		status                   int
		message                  string
	}{
		{name: "trusted", identity: "any-branch", status: 200},
		{
			name: "missing claim", identity: "one-workflow", status: 401,
			message: "The claim 'environment' of the OIDC token does not match the identity",
		},
		{
			name: "all claims match", identity: "one-workflow", change: func(c map[string]any) { c["environment"] = "prd" },
			status: 200,
		},
		{
			name: "claim with another ending", identity: "one-workflow",
			change: func(c map[string]any) { c["environment"] = "prd"; c["ref"] = "refs/heads/main2" }, status: 401,
			message: "The claim 'ref'",
		},
		{
			name: "another repository", identity: "any-branch",
			change: func(c map[string]any) { c["sub"] = "repo:evil/repo:org/sandbox-actions:x" }, status: 401,
			message: "The claim 'sub'",
		},
		{
			name: "another audience", identity: "any-branch", audience: "https://depot.dev", status: 401,
			message: "expected audience",
		},
		{
			name: "expired", identity: "any-branch",
			change: func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }, status: 401,
			message: "The OIDC token has expired",
		},
		{
			name: "signed with another key", identity: "any-branch", token: forged, status: 401,
			message: "failed to verify signature",
		},
		{
			name: "unsigned", identity: "any-branch", token: "eyJhbGciOiJub25lIn0.e30.", status: 401,
			message: "Invalid OIDC token",
		},
		{name: "unknown identity", identity: "absent", status: 401, message: "Could not find requested identity 'absent'"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.audience == "" {
				test.audience = audience
			}
			if test.token == "" {
				if test.token, err = issuer.Mint(test.audience, test.change); err != nil {
					t.Fatal(err)
				}
			}
			status, answer := sendRequest(
				t,
				s,
				http.MethodPost,
				"/v3/auth/oidc",
				"",
				fmt.Sprintf(`{"identity":%q,"token":%q}`, test.identity, test.token),
			)
			if status != test.status || !strings.Contains(answer, test.message) {
				t.Errorf("%d %s, want %d and %q", status, answer, test.status, test.message)
			}
		})
	}

	login := func(identity string) string {
		token, err := issuer.Mint(audience, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, answer := sendRequest(
			t,
			s,
			http.MethodPost,
			"/v3/auth/oidc",
			"",
			fmt.Sprintf(`{"identity":%q,"token":%q}`, identity, token),
		)
		var issued struct {
			Token   string
			Expires time.Time `json:"expires_at"`
		}
		if err := json.Unmarshal([]byte(answer), &issued); err != nil || issued.Token == "" || issued.Expires.IsZero() {
			t.Fatalf("%v: %s", err, answer)
		}
		return issued.Token
	}
	const dev = "/v3/configs/config?project=sandbox&config=dev"
	token := login("any-branch")
	for _, test := range []struct {
		name, path, token string
		status            int
	}{
		{"own config", dev, token, 200},
		{"another config", "/v3/configs/config?project=sandbox&config=prd", token, 404},
		{"expired token", dev, login("short"), 401},
	} {
		if status, answer := sendRequest(t, s, http.MethodGet, test.path, test.token, ""); status != test.status {
			t.Errorf("%s: %d %s, want %d", test.name, status, answer, test.status)
		}
	}
	sendRequest(t, s, http.MethodPost, "/v3/auth/revoke", "", fmt.Sprintf(`{"token":%q}`, token))
	if status, _ := sendRequest(t, s, http.MethodGet, dev, token, ""); status != 401 {
		t.Errorf("revoked token: status %d, want 401", status)
	}
}

func TestFaults(t *testing.T) {
	s := start(t, options())
	const path = "/v3/configs/config/secrets"
	before := 0
	s.Fail(Fault{
		Method: "POST", Times: 1, Status: 504, ReplaceResponse: true, Body: "<html>",
		Header: map[string]string{"X-Test": "yes"},
	})
	s.Fail(Fault{Path: "/names", Times: 1, Before: func() { before++ }})
	s.Fail(Fault{Path: "/names", Status: 429})
	for i, want := range []struct {
		method, path, body string
		status             int
		answer             string
	}{
		{"GET", "/v3/me", "", 200, "service_token"},
		{"POST", path, `{"secrets":{"PLAIN":"late"}}`, 504, "<html>"},
		{"POST", path, `{"secrets":{"PLAIN":"late"}}`, 200, "late"},
		{"GET", path + "/names", "", 200, "PLAIN"},
		{"GET", path + "/names", "", 429, `{"messages":["Too Many Requests"],"success":false}`},
	} {
		if status, answer := sendRequest(t, s, want.method, want.path, writeToken, want.body); status != want.status ||
			!strings.Contains(answer, want.answer) {
			t.Errorf("%d: %d %s, want %d %s", i, status, answer, want.status, want.answer)
		}
	}
	if before != 1 || len(s.Writes()) != 1 {
		t.Errorf("Before ran %d times, %d writes; want 1 and 1", before, len(s.Writes()))
	}
	s.ClearFaults()
	if status, _ := sendRequest(t, s, http.MethodGet, path+"/names", writeToken, ""); status != 200 {
		t.Errorf("after ClearFaults: status %d, want 200", status)
	}
	requests := s.Requests()
	if want := (Request{Method: "POST", Path: path, Status: 504, Token: Service}); len(requests) != 6 ||
		requests[1] != want {
		t.Errorf("got %+v, want 6 requests with the second %+v", requests, want)
	}
}

func TestLogs(t *testing.T) {
	s := start(t, options())
	sendRequest(t, s, http.MethodPost, "/v3/configs/config/secrets", prdToken, `{"secrets":{"B":"1","A":"2"}}`)
	sendRequest(t, s, http.MethodPost, "/v3/configs/config/secrets", writeToken, `{"secrets":{"C":"3"}}`)
	_, answer := sendRequest(t, s, http.MethodGet, "/v3/configs/config/logs?project=sandbox&config=prd", cliToken, "")
	if !strings.Contains(answer, `"text":"Changed A, B"`) || strings.Contains(answer, "Changed C") {
		t.Error(answer)
	}
}

func TestRateLimit(t *testing.T) {
	o := options()
	o.Limit = 2
	s := start(t, o)
	var got []int
	for _, token := range []string{readToken, readToken, readToken, cliToken} {
		status, _ := sendRequest(t, s, http.MethodGet, "/v3/me", token, "")
		got = append(got, status)
	}
	if want := []int{200, 200, 429, 200}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s.mu.Lock()
	s.window = time.Now().Add(-time.Minute)
	s.mu.Unlock()
	if status, _ := sendRequest(t, s, http.MethodGet, "/v3/me", readToken, ""); status != 200 {
		t.Errorf("after one minute: status %d, want 200", status)
	}
}
