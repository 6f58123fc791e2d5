package doppler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	local "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/internal/localcloud/github"
)

func TestMain(m *testing.M) {
	firstWait = time.Millisecond
	os.Exit(m.Run())
}

const (
	name      = "DAYTONA_SNAPSHOT_NAME"
	linkName  = "VITE_DAYTONA_SNAPSHOT_NAME"
	link      = "${DAYTONA_SNAPSHOT_NAME}"
	readToken = "dp.st.dev.Reads"
	devToken  = "dp.st.dev.Writes"
	cliToken  = "dp.ct.Everything"
	oneToken  = "dp.sa.DevAndPrd"
	identity  = "11111111-2222-3333-4444-555555555555"
)

// start serves a project with three configs that have secrets, and one that has none.
func start(t *testing.T, issuer string) *local.Server {
	t.Helper()
	s, err := local.Start(t.Context(), local.Options{
		Projects: []local.Project{
			{Name: "sandbox", Configs: []local.Config{
				{Name: "dev", Secrets: map[string]string{name: "old", linkName: link, "DAYTONA_API_KEY": "key"}},
				{Name: "prd", Secrets: map[string]string{name: "released"}},
				{Name: "stg", Secrets: map[string]string{name: "${prd." + name + "}"}},
				{Name: "empty"},
			}},
			{Name: "website", Configs: []local.Config{{Name: "dev", Secrets: map[string]string{name: "pinned"}}}},
		},
		Tokens: []local.Token{
			{Value: readToken, Access: []local.Access{{Project: "sandbox", Config: "dev"}}},
			{Value: devToken, Access: []local.Access{{Project: "sandbox", Config: "dev", Write: true}}},
			{Value: cliToken, Access: []local.Access{{Project: "sandbox", Write: true}, {Project: "website"}}},
			{Value: oneToken, Access: []local.Access{{Project: "sandbox", Config: "dev", Write: true}, {Project: "sandbox", Config: "prd"}}},
		},
		Identities: []local.Identity{{
			ID: identity, Audience: "https://github.com/org", Claims: map[string]string{"sub": "repo:org/sandbox-actions:*"},
			Access: []local.Access{{Project: "sandbox", Write: true}},
		}},
		Issuer: issuer,
	})
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

func TestSecrets(t *testing.T) {
	s := start(t, "")
	dev := map[string]string{
		name: "old", linkName: "old", "DAYTONA_API_KEY": "key", "DOPPLER_PROJECT": "sandbox", "DOPPLER_ENVIRONMENT": "dev", "DOPPLER_CONFIG": "dev",
	}
	for _, test := range []struct {
		name   string
		client Client
		want   map[string]string
	}{
		{"a service token needs no names", Client{Token: readToken}, dev},
		{"a service token may be given its own", Client{Token: readToken, Project: "sandbox", Config: "dev"}, dev},
		{"a token of an account", Client{Token: cliToken, Project: "sandbox", Config: "dev"}, dev},
		{"a slash at the end of the host", Client{Host: s.URL() + "/", Token: readToken}, dev},
		{"a reference to another config", Client{Token: cliToken, Project: "sandbox", Config: "stg"}, map[string]string{
			name: "released", "DOPPLER_PROJECT": "sandbox", "DOPPLER_ENVIRONMENT": "stg", "DOPPLER_CONFIG": "stg",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.client.Host == "" {
				test.client.Host = s.URL()
			}
			got, err := test.client.Secrets(t.Context())
			if err != nil || !maps.Equal(got, test.want) {
				t.Errorf("%v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestRaw(t *testing.T) {
	s := start(t, "")
	got, err := Client{Host: s.URL(), Token: readToken}.Raw(t.Context(), name, linkName, "ABSENT")
	if want := map[string]string{name: "old", linkName: link}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	s.Fail(local.Fault{Status: http.StatusOK, Body: `{"secrets": {"DAYTONA_SNAPSHOT_NAME": {"raw": null, "computed": null}}, "success": true}`})
	_, err = Client{Host: s.URL(), Token: readToken}.Raw(t.Context(), name)
	if err == nil || !strings.Contains(err.Error(), "the secret DAYTONA_SNAPSHOT_NAME is restricted") {
		t.Errorf("of a restricted secret: %v", err)
	}
}

func TestCheckWrite(t *testing.T) {
	for _, test := range []struct {
		name   string
		client Client
		fault  local.Fault
		err    string
	}{
		{name: "a service token that writes", client: Client{Token: devToken}},
		{name: "a token of an account", client: Client{Token: cliToken, Project: "sandbox", Config: "prd"}},
		{name: "none of the names is there", client: Client{Token: cliToken, Project: "sandbox", Config: "stg"}},
		{name: "no secret is there", client: Client{Token: cliToken, Project: "sandbox", Config: "empty"}},
		{name: "Doppler objects to the request", client: Client{Token: devToken}, fault: local.Fault{Method: "POST", Status: 400, Body: `{"messages":["No changes"],"success":false}`}},
		{name: "a service token that reads", client: Client{Token: readToken},
			err: `find out whether Doppler's config can be written: Doppler answered 403, You do not have write access to this config's secrets: the token may only read: give one with read/write access to that config, or turn update_doppler off (--no-update-doppler)`},
		{name: "the same with another status", client: Client{Token: devToken}, fault: local.Fault{Method: "POST", Status: 400, Body: `{"messages":["You do not have write access to this config's secrets."],"success":false}`},
			err: `find out whether Doppler's config can be written: Doppler answered 400, You do not have write access to this config's secrets: the token may only read: give one with read/write access to that config, or turn update_doppler off (--no-update-doppler)`},
		{name: "an account that reads", client: Client{Token: oneToken, Project: "sandbox", Config: "prd"},
			err: `find out whether Doppler's config "prd" of the project "sandbox" can be written: Doppler answered 403, You do not have write access to this config's secrets: the token may only read: give one with read/write access to that config, or turn update_doppler off (--no-update-doppler)`},
		{name: "a token that is none", client: Client{Token: "dp.st.dev.no"},
			err: `find out whether Doppler's config can be written: Doppler answered 401, Invalid Auth token: give a doppler_token that is valid and has not expired`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			test.client.Host = s.URL()
			checkError(t, test.client.CheckWrite(t.Context(), name, linkName), test.err)
			if writes := s.Writes(); len(writes) > 0 {
				t.Errorf("it has changed %v", writes)
			}
		})
	}
}

func TestSet(t *testing.T) {
	both := map[string]string{name: "new", linkName: link}
	newer := errors.New("a newer one is there")
	unlessNewer := func(current map[string]string) error {
		if current[name] == "newer" {
			return newer
		}
		return nil
	}
	meanwhile := func(s *local.Server, value string) func() {
		return func() { s.SetSecret("sandbox", "dev", name, value) }
	}
	for _, test := range []struct {
		name    string
		client  Client
		want    map[string]string
		allow   func(map[string]string) error
		fault   func(*local.Server) local.Fault
		changed bool
		err     string
		writes  []map[string]string // what changed, by call
		posts   int
		after   string // the name in the client's config
	}{
		{name: "only what differs", client: Client{Token: devToken}, want: both, changed: true, writes: []map[string]string{{name: "new"}}, posts: 1, after: "new"},
		{name: "what was not there", client: Client{Token: cliToken, Project: "sandbox", Config: "empty"}, want: both, changed: true,
			writes: []map[string]string{both}, posts: 1, after: "new"},
		{name: "nothing differs", client: Client{Token: devToken}, want: map[string]string{name: "old", linkName: link}, after: "old"},
		{name: "a reference is not what it refers to", client: Client{Token: devToken}, want: map[string]string{linkName: "old"}, changed: true,
			writes: []map[string]string{{linkName: "old"}}, posts: 1, after: "old"},
		{name: "not allowed", client: Client{Token: devToken}, want: both, allow: func(current map[string]string) error {
			return fmt.Errorf("it is %s", current[name])
		}, err: "it is old", after: "old"},
		{name: "allowed", client: Client{Token: devToken}, want: both, allow: unlessNewer, changed: true, writes: []map[string]string{{name: "new"}}, posts: 1, after: "new"},
		{name: "somebody sets a newer one meanwhile", client: Client{Token: devToken}, want: both, allow: unlessNewer,
			fault: func(s *local.Server) local.Fault {
				return local.Fault{Method: "POST", Times: 1, Before: meanwhile(s, "newer")}
			}, err: newer.Error(), posts: 1, after: "newer"},
		{name: "somebody sets an older one meanwhile", client: Client{Token: devToken}, want: both, allow: unlessNewer,
			fault: func(s *local.Server) local.Fault {
				return local.Fault{Method: "POST", Times: 1, Before: meanwhile(s, "older")}
			}, changed: true, writes: []map[string]string{{name: "new"}}, posts: 2, after: "new"},
		{name: "somebody sets the same meanwhile", client: Client{Token: devToken}, want: both, allow: unlessNewer,
			fault: func(s *local.Server) local.Fault {
				return local.Fault{Method: "POST", Times: 1, Before: meanwhile(s, "new")}
			}, changed: true, posts: 1, after: "new"},
		{name: "somebody sets others all the time", client: Client{Token: devToken}, want: both,
			fault: func(s *local.Server) local.Fault {
				n := 0
				return local.Fault{Method: "POST", Before: func() { n++; s.SetSecret("sandbox", "dev", name, fmt.Sprint(n)) }}
			}, posts: 3, after: "3",
			err: `write DAYTONA_SNAPSHOT_NAME, VITE_DAYTONA_SNAPSHOT_NAME to Doppler's config: Doppler answered 409, The original value of 'DAYTONA_SNAPSHOT_NAME' does not match: somebody else writes to it at the same time: run this again`},
		{name: "the answer is lost", client: Client{Token: devToken}, want: both,
			fault:   func(*local.Server) local.Fault { return local.Fault{Method: "POST", Times: 1, Status: 502, Late: true} },
			changed: true, writes: []map[string]string{{name: "new"}}, posts: 2, after: "new"},
		{name: "Doppler objects", client: Client{Token: devToken}, want: map[string]string{"lower": "case"}, posts: 1, after: "old",
			err: `write lower to Doppler's config: Doppler answered 400, Secret names must only contain uppercase letters, numbers, and underscores: 'lower': check doppler_project and doppler_config`},
		{name: "a token that reads", client: Client{Token: readToken}, want: both, posts: 1, after: "old",
			err: `write DAYTONA_SNAPSHOT_NAME, VITE_DAYTONA_SNAPSHOT_NAME to Doppler's config: Doppler answered 403, You do not have write access to this config's secrets: the token may only read: give one with read/write access to that config, or turn update_doppler off (--no-update-doppler)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.fault != nil {
				s.Fail(test.fault(s))
			}
			test.client.Host = s.URL()
			changed, err := test.client.Set(t.Context(), test.want, test.allow)
			checkError(t, err, test.err)
			if changed != test.changed {
				t.Errorf("changed: %v, want %v", changed, test.changed)
			}
			writes := s.Writes()
			if !slices.EqualFunc(writes, test.writes, func(w local.Write, want map[string]string) bool {
				return maps.Equal(w.Set, want) && len(w.Deleted) == 0
			}) {
				t.Errorf("written: %v, want %v", writes, test.writes)
			}
			posts := 0
			for _, r := range s.Requests() {
				if r.Method == http.MethodPost {
					posts++
				}
			}
			if posts != test.posts {
				t.Errorf("%d POSTs, want %d", posts, test.posts)
			}
			config := test.client.Config
			if config == "" {
				config = "dev"
			}
			if after := s.Secret("sandbox", config, name); after != test.after {
				t.Errorf("it is %q, want %q", after, test.after)
			}
		})
	}
}

func TestEverywhere(t *testing.T) {
	all := map[string]string{"sandbox.dev": "old", "sandbox.prd": "released", "sandbox.stg": "released", "website.dev": "pinned"}
	own := map[string]string{"sandbox.dev": "old"}
	dev := Client{Token: cliToken, Project: "sandbox", Config: "dev"}
	for _, test := range []struct {
		name   string
		client Client
		fault  local.Fault
		spared int // requests that go well before the fault: one for its own config, two for the projects, two for the configs of each of the two
		want   map[string]string
		err    string // part of it
	}{
		{name: "all that an account sees", client: dev, want: all},
		{name: "from a config without it", client: Client{Token: cliToken, Project: "sandbox", Config: "empty"}, want: all},
		{name: "what a service account may see", client: Client{Token: oneToken, Project: "sandbox", Config: "dev"}, want: map[string]string{"sandbox.dev": "old", "sandbox.prd": "released"}},
		{name: "its own is all that a service token sees", client: Client{Token: readToken}, want: own},
		{name: "the list is denied", client: dev, fault: local.Fault{Status: 403}, spared: 1, want: own},
		{name: "the list can not be read now", client: dev, fault: local.Fault{Status: 503}, spared: 1, err: "list Doppler's projects: Doppler answered 503"},
		{name: "a project can not be read now", client: dev, fault: local.Fault{Status: 503}, spared: 4, err: "list Doppler's configs: Doppler answered 503"},
		{name: "the others are denied", client: dev, fault: local.Fault{Status: 404}, spared: 7, want: own},
		{name: "the others can not be read now", client: dev, fault: local.Fault{Status: 503}, spared: 7, err: `Doppler answered 503`},
		{name: "its own can not be read now", client: dev, fault: local.Fault{Status: 503}, err: `read Doppler's config "dev" of the project "sandbox": Doppler answered 503`},
		{name: "the others are restricted", client: dev, fault: local.Fault{Status: 200, Body: `{"secrets": {"DAYTONA_SNAPSHOT_NAME": {}}}`}, spared: 7,
			err: `the secret DAYTONA_SNAPSHOT_NAME is restricted`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.spared > 0 {
				s.Fail(local.Fault{Times: test.spared})
			}
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			test.client.Host = s.URL()
			got, err := test.client.Everywhere(t.Context(), name)
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	const read = `read Doppler's config: `
	for _, test := range []struct {
		name     string
		client   Client
		fault    local.Fault
		err      string // URL is the API's
		requests int    // of the call itself
	}{
		{name: "no token", err: read + `Doppler answered 401, Invalid Auth token: give a doppler_token that is valid and has not expired`, requests: 1},
		{name: "a service token with another config", client: Client{Token: readToken, Config: "prd"}, requests: 1,
			err: `read Doppler's config "prd": Doppler answered 400, This token does not have access to requested config 'prd': a service token opens only the config, "dev", that it was made for: name that one or none in doppler_project and doppler_config, or give a token of the other`},
		{name: "a service token with another project", client: Client{Token: readToken, Project: "website", Config: "dev"}, requests: 1,
			err: `read Doppler's config "dev" of the project "website": Doppler answered 400, This token does not have access to requested project 'website': a service token opens only the config, "dev", that it was made for: name that one or none in doppler_project and doppler_config, or give a token of the other`},
		{name: "no such config", client: Client{Token: cliToken, Project: "sandbox", Config: "production"}, requests: 1,
			err: `read Doppler's config "production" of the project "sandbox": Doppler answered 404, Could not find requested config 'production': check doppler_config: the token sees the configs "dev", "empty", "prd", "stg"`},
		{name: "no such project", client: Client{Token: cliToken, Project: "sandbx", Config: "dev"}, requests: 1,
			err: `read Doppler's config "dev" of the project "sandbx": Doppler answered 404, Could not find requested project 'sandbx': check doppler_project: the token sees the projects "sandbox", "website"`},
		{name: "no project", client: Client{Token: cliToken}, requests: 1,
			err: read + `Doppler answered 400, You must specify a project: only service tokens know their project and config: give doppler_project and doppler_config`},
		{name: "no config", client: Client{Token: cliToken, Project: "sandbox"}, requests: 1,
			err: read + `Doppler answered 400, You must specify a config: check doppler_config: the token sees the configs "dev", "empty", "prd", "stg"`},
		{name: "forbidden", client: Client{Token: readToken}, fault: local.Fault{Status: 403}, requests: 1,
			err: read + `Doppler answered 403, Forbidden: the token may not read that config: let the service account in, or name another config`},
		{name: "slow down, once", client: Client{Token: readToken}, fault: local.Fault{Status: 429, Times: 1}, requests: 2},
		{name: "slow down, once, for a second", client: Client{Token: readToken}, fault: local.Fault{Status: 429, Times: 1, Header: map[string]string{"Retry-After": "1"}}, requests: 2},
		{name: "slow down, always", client: Client{Token: readToken}, fault: local.Fault{Status: 429}, requests: 4,
			err: read + `Doppler answered 429, Too Many Requests: Doppler asks to slow down: try again in a minute`},
		{name: "slow down for longer than we wait", client: Client{Token: readToken}, fault: local.Fault{Status: 429, Header: map[string]string{"Retry-After": "61"}}, requests: 1,
			err: read + `Doppler answered 429, Too Many Requests: Doppler asks to slow down: try again in a minute`},
		{name: "500 once", client: Client{Token: readToken}, fault: local.Fault{Status: 500, Times: 1}, requests: 2},
		{name: "500 always", client: Client{Token: readToken}, fault: local.Fault{Status: 500}, requests: 4,
			err: read + `Doppler answered 500, Internal Server Error: it failed 4 times: try again later (https://www.dopplerstatus.com)`},
		{name: "a proxy's bad gateway", client: Client{Token: readToken}, fault: local.Fault{Status: 502, Body: "<html>bad</html>"}, requests: 4,
			err: read + `Doppler answered 502: it failed 4 times: try again later (https://www.dopplerstatus.com)`},
		{name: "a proxy's no", client: Client{Token: readToken}, fault: local.Fault{Status: 403, Body: "<html>no</html>"}, requests: 1,
			err: read + `Doppler answered 403: that is no answer of Doppler's API: check DOPPLER_API_HOST, and what is between here and URL`},
		{name: "HTML", client: Client{Token: readToken}, fault: local.Fault{Status: 200, Body: "<html>hello</html>"}, requests: 1,
			err: read + `the answer of URL is not one of Doppler's API: check DOPPLER_API_HOST`},
		{name: "elsewhere", client: Client{Token: readToken}, fault: local.Fault{Status: 302, Body: "moved", Header: map[string]string{"Location": "http://127.0.0.1:1/"}}, requests: 1,
			err: read + `Doppler answered 302: that is no answer of Doppler's API: check DOPPLER_API_HOST, and what is between here and URL`},
		{name: "an echo of the token", client: Client{Token: readToken}, fault: local.Fault{Status: 401, Body: `{"messages":["who is ` + readToken + `?\nnobody"]}`}, requests: 1,
			err: read + `Doppler answered 401, who is ***? nobody: give a doppler_token that is valid and has not expired`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			test.client.Host = s.URL()
			_, err := test.client.Secrets(t.Context())
			checkError(t, err, strings.ReplaceAll(test.err, "URL", s.URL()))
			requests := 0
			for _, r := range s.Requests() {
				if strings.HasSuffix(r.Path, "/download") {
					requests++
				}
			}
			if requests != test.requests {
				t.Errorf("%d requests, want %d", requests, test.requests)
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	before := callTimeout
	callTimeout = 20 * time.Millisecond
	t.Cleanup(func() { callTimeout = before })
	s := start(t, "")
	s.Fail(local.Fault{Silence: true})
	_, err := Client{Host: s.URL(), Token: readToken}.Secrets(t.Context())
	checkError(t, err, "read Doppler's config: "+s.URL()+" did not answer within 20ms, 4 times: check the network and https://www.dopplerstatus.com")
}

func TestNobodyIsThere(t *testing.T) {
	s := start(t, "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Client{Host: s.URL(), Token: readToken}.Secrets(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "read Doppler's config: "+s.URL()+" can not be reached: ") || !strings.HasSuffix(err.Error(), ": check the network and DOPPLER_API_HOST") {
		t.Errorf("%v", err)
	}
}

func TestCancel(t *testing.T) {
	s := start(t, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("interrupted")
	s.Fail(local.Fault{Before: func() { cancel(stop) }, Silence: true})
	if _, err := (Client{Host: s.URL(), Token: readToken}).Secrets(ctx); !errors.Is(err, stop) {
		t.Errorf("%v, want %v", err, stop)
	}
	if requests := s.Requests(); len(requests) != 1 {
		t.Errorf("%d requests, want 1", len(requests))
	}
}

func TestLogin(t *testing.T) {
	issuer, err := github.Start(t.Context(), github.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	const subject = "repo:org/sandbox-actions:ref:refs/heads/main"
	mint := func(audience string, change func(map[string]any)) string {
		token, err := issuer.Mint(audience, change)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	forged, err := issuer.Forge("https://github.com/org")
	if err != nil {
		t.Fatal(err)
	}
	says := func(subject, audience string) string {
		return fmt.Sprintf("check doppler_identity, and let that identity trust the subject %q with the audience %q", subject, audience)
	}
	for _, test := range []struct {
		name, identity, token string
		fault                 local.Fault
		reason, cure          string // of the error
	}{
		{name: "trusted", identity: identity, token: mint("https://github.com/org", nil)},
		{name: "no such identity", identity: "nobody", token: mint("https://github.com/org", nil), reason: "Could not find requested identity 'nobody'", cure: says(subject, "https://github.com/org")},
		{name: "another audience", identity: identity, token: mint("https://depot.dev", nil), reason: "audience", cure: says(subject, "https://depot.dev")},
		{name: "another repository", identity: identity, token: mint("https://github.com/org", func(c map[string]any) { c["sub"] = "repo:org/other:ref:refs/heads/main" }),
			reason: "The claim 'sub' of the OIDC token does not match the identity", cure: says("repo:org/other:ref:refs/heads/main", "https://github.com/org")},
		{name: "expired", identity: identity, token: mint("https://github.com/org", func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }),
			reason: "The OIDC token has expired", cure: says(subject, "https://github.com/org")},
		{name: "another issuer", identity: identity, token: mint("https://github.com/org", func(c map[string]any) { c["iss"] = "https://evil.example" }),
			reason: "issue", cure: says(subject, "https://github.com/org")},
		{name: "forged", identity: identity, token: forged, reason: "failed to verify signature", cure: says(subject, "https://github.com/org")},
		{name: "no token at all", identity: identity, token: "hello", reason: "Invalid OIDC token", cure: "check doppler_identity, and let that identity trust this workflow"},
		{name: "500 once", identity: identity, token: mint("https://github.com/org", nil), fault: local.Fault{Status: 500, Times: 1}},
		{name: "500 always", identity: identity, token: mint("https://github.com/org", nil), fault: local.Fault{Status: 500}, reason: "Doppler answered 500", cure: "it failed 4 times: try again later (https://www.dopplerstatus.com)"},
		{name: "HTML", identity: identity, token: mint("https://github.com/org", nil), fault: local.Fault{Status: 200, Body: "<html>"}, reason: "is not one of Doppler's API", cure: "check DOPPLER_API_HOST"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, issuer.Issuer())
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			token, err := Login(t.Context(), s.URL(), test.identity, test.token)
			if test.cure != "" {
				if token != "" || err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("enter Doppler as the identity %q: ", test.identity)) ||
					!strings.Contains(err.Error(), test.reason) || !strings.HasSuffix(err.Error(), ": "+test.cure) || strings.Contains(err.Error(), test.token) && len(test.token) > 10 {
					t.Errorf("%q, %v; want the reason %q and the cure %q", token, err, test.reason, test.cure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			changed, err := Client{Host: s.URL(), Token: token, Project: "sandbox", Config: "prd"}.Set(t.Context(), map[string]string{name: "new"}, nil)
			if err != nil || !changed || s.Secret("sandbox", "prd", name) != "new" {
				t.Errorf("the token does not write: %v, %v", changed, err)
			}
		})
	}
}

// A token of Login may live shorter than the build that it was made for.
func TestRenew(t *testing.T) {
	s := start(t, "")
	renewed := 0
	client := Client{Host: s.URL(), Token: devToken, Renew: func(context.Context) (string, error) {
		renewed++
		return devToken, s.AddToken(local.Token{Value: devToken, Access: []local.Access{{Project: "sandbox", Config: "dev", Write: true}}})
	}}
	s.Revoke(devToken)
	changed, err := client.Set(t.Context(), map[string]string{name: "new"}, nil)
	if err != nil || !changed || renewed != 1 {
		t.Errorf("%v, %v, renewed %d times", changed, err, renewed)
	}
	s.Revoke(devToken)
	client.Renew = func(context.Context) (string, error) { return "dp.st.dev.no", nil }
	_, err = client.Secrets(t.Context())
	checkError(t, err, "read Doppler's config: Doppler answered 401, Invalid Auth token: give a doppler_token that is valid and has not expired")
	client.Renew = func(context.Context) (string, error) { return "", errors.New("no more") }
	_, err = client.Secrets(t.Context())
	checkError(t, err, "no more")
}

// checkError compares the whole sentence; "" is for none.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if got := fmt.Sprint(err); err == nil && want != "" || err != nil && got != want {
		t.Errorf("error:\n%s\nwant\n%s", got, want)
	}
}
