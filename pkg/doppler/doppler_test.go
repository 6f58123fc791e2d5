package doppler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	local "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

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

// start starts a stand-in with two projects: one with three configs and an empty config, and one with one config.
func start(t *testing.T, issuer string) *local.Server {
	t.Helper()
	s, err := local.Start(t.Context(), local.Options{
		Projects: []local.Project{
			{Name: "sandbox", Title: "The Sandbox", Configs: []local.Config{
				{Name: "dev", Secrets: map[string]string{name: "old", linkName: link, "DAYTONA_API_KEY": "key"}},
				{Name: "prd", Secrets: map[string]string{name: "released"}},
				{Name: "stg", Secrets: map[string]string{name: "${prd." + name + "}"}},
				{Name: "empty"},
			}},
			{Name: "website", Title: "Our Website", Configs: []local.Config{
				{Name: "dev", Secrets: map[string]string{name: "pinned"}},
			}},
		},
		Tokens: []local.Token{
			{Value: readToken, Access: []local.Access{{Project: "sandbox", Config: "dev"}}},
			{Value: devToken, Access: []local.Access{{Project: "sandbox", Config: "dev", Write: true}}},
			{Value: cliToken, Access: []local.Access{{Project: "sandbox", Write: true}, {Project: "website"}}},
			{Value: oneToken, Access: []local.Access{
				{Project: "sandbox", Config: "dev", Write: true}, {Project: "sandbox", Config: "prd"},
			}},
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

// withServer returns c for the stand-in, with a fake clock.
func (c Client) withServer(s *local.Server) Client {
	if c.Host == "" {
		c.Host = s.URL()
	}
	c.HTTP.Clock = &fakeclock.Clock{}
	return c
}

// checkError checks that err contains every part of want, separated by " … ". An empty want means no error.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("error: %v", err)
		}
		return
	}
	if err == nil {
		t.Errorf("no error, want %q", want)
		return
	}
	for part := range strings.SplitSeq(want, " … ") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want %q", err, part)
		}
	}
}

// requests counts the requests with the method and a path that ends in suffix.
func requests(s *local.Server, method, suffix string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Method == method && strings.HasSuffix(r.Path, suffix) {
			n++
		}
	}
	return n
}

func TestSecrets(t *testing.T) {
	s := start(t, "")
	dev := map[string]string{
		name: "old", linkName: "old", "DAYTONA_API_KEY": "key",
		"DOPPLER_PROJECT": "sandbox", "DOPPLER_ENVIRONMENT": "dev", "DOPPLER_CONFIG": "dev",
	}
	for _, test := range []struct {
		name   string
		client Client
		want   map[string]string
	}{
		{"service token alone", Client{Token: readToken}, dev},
		{"service token with its config", Client{Token: readToken, Project: "sandbox", Config: "dev"}, dev},
		{"account", Client{Token: cliToken, Project: "sandbox", Config: "dev"}, dev},
		{"host with a trailing slash", Client{Host: s.URL() + "/", Token: readToken}, dev},
		{"reference to another config", Client{Token: cliToken, Project: "sandbox", Config: "stg"}, map[string]string{
			name: "released", "DOPPLER_PROJECT": "sandbox", "DOPPLER_ENVIRONMENT": "stg", "DOPPLER_CONFIG": "stg",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.client.withServer(s).Secrets(t.Context())
			want := map[string]Secret{}
			for name, value := range test.want {
				want[name] = Secret{Value: value, Visibility: Masked}
			}
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		})
	}
}

// Doppler withholds restricted secrets from the tokens of users, and so those that refer to them.
func TestVisibility(t *testing.T) {
	s, err := local.Start(t.Context(), local.Options{
		Projects: []local.Project{{Name: "p", Configs: []local.Config{{
			Name:       "dev",
			Secrets:    map[string]string{"WORD": "sandbox", "KEY": "k3y", "ROOT": "r00t", "LINK": "<${ROOT}>"},
			Visibility: map[string]local.Visibility{"WORD": local.Unmasked, "ROOT": local.Restricted},
		}}}},
		Tokens: []local.Token{
			{Value: readToken, Access: []local.Access{{Project: "p", Config: "dev"}}},
			{Value: cliToken, Access: []local.Access{{Project: "p"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for token, want := range map[string]map[string]Secret{
		readToken: {
			"WORD": {Value: "sandbox", Visibility: Unmasked}, "KEY": {Value: "k3y", Visibility: Masked},
			"ROOT": {Value: "r00t", Visibility: Restricted}, "LINK": {Value: "<r00t>", Visibility: Restricted},
		},
		cliToken: {
			"WORD": {Value: "sandbox", Visibility: Unmasked}, "KEY": {Value: "k3y", Visibility: Masked},
			"ROOT": {Withheld: true, Visibility: Restricted}, "LINK": {Withheld: true, Visibility: Restricted},
		},
	} {
		got, err := Client{Token: token, Project: "p", Config: "dev"}.withServer(s).Secrets(t.Context())
		maps.DeleteFunc(got, func(name string, _ Secret) bool { return strings.HasPrefix(name, "DOPPLER_") })
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", token, got, err, want)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestDefaultHost(t *testing.T) {
	var url string
	client := Client{Token: readToken, HTTP: httpclient.Config{
		Policy: httpclient.Policy{Attempts: 1},
		Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			url = r.URL.String()
			return nil, errors.New("offline")
		}),
	}}
	_, err := client.Secrets(t.Context())
	if err == nil || url != "https://api.doppler.com/v3/configs/config/secrets" {
		t.Errorf("got %s, %v", url, err)
	}
}

func TestRaw(t *testing.T) {
	s := start(t, "")
	client := Client{Token: readToken}.withServer(s)
	got, err := client.Raw(t.Context(), name, linkName, "ABSENT")
	if want := map[string]string{name: "old", linkName: link}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	restricted := `{"secrets": {"DAYTONA_SNAPSHOT_NAME": {"raw": null, "computed": null}}, "success": true}`
	s.Fail(local.Fault{Status: http.StatusOK, Body: restricted})
	_, err = client.Raw(t.Context(), name)
	checkError(t, err, "the value of DAYTONA_SNAPSHOT_NAME is restricted")
}

func TestCheckWrite(t *testing.T) {
	denied := local.Fault{
		Method: "POST", Status: 400, Body: `{"messages":["You do not have write access to this config's secrets."]}`,
	}
	const hint = "(use a token with read/write access to that config"
	for _, test := range []struct {
		name   string
		client Client
		fault  local.Fault
		posts  int
		status int
		err    string
	}{
		{name: "service token with write access", client: Client{Token: devToken}, posts: 1},
		{name: "account", client: Client{Token: cliToken, Project: "sandbox", Config: "prd"}, posts: 1},
		{name: "one of the names exists", client: Client{Token: cliToken, Project: "sandbox", Config: "stg"}, posts: 1},
		{name: "no secret exists", client: Client{Token: cliToken, Project: "sandbox", Config: "empty"}},
		{
			name: "request rejected", client: Client{Token: devToken}, posts: 1,
			fault: local.Fault{Method: "POST", Status: 400, Body: `{"messages":["No changes"],"success":false}`},
		},
		{
			name: "service token with read access", client: Client{Token: readToken}, posts: 1, status: 403,
			err: "check write access to the Doppler config: Doppler returned 403 Forbidden: You do not have write access " +
				"to this config's secrets (use a token with read/write access to that config, or disable update_doppler " +
				"(--no-update-doppler))",
		},
		{name: "denied with 400", client: Client{Token: devToken}, fault: denied, posts: 1, status: 400, err: hint},
		{
			name: "denied with 403 and another message", client: Client{Token: devToken}, posts: 1, status: 403, err: hint,
			fault: local.Fault{Method: "POST", Status: 403},
		},
		{
			name: "account with read access", client: Client{Token: oneToken, Project: "sandbox", Config: "prd"}, posts: 1,
			status: 403, err: hint,
		},
		{name: "invalid token", client: Client{Token: "dp.st.dev.no", TokenSource: "DOPPLER_TOKEN"}, status: 401,
			err: "(replace the token in DOPPLER_TOKEN)"},
		{
			name: "rate limit", client: Client{Token: devToken}, posts: 4, status: 429, err: "Doppler returned 429",
			fault: local.Fault{Method: "POST", Status: 429},
		},
		{
			name: "server error", client: Client{Token: devToken}, posts: 4, status: 500, err: "Doppler returned 500",
			fault: local.Fault{Method: "POST", Status: 500},
		},
		{
			name: "web page of a proxy", client: Client{Token: devToken}, posts: 1, status: 200, err: "web page",
			fault: local.Fault{Method: "POST", Status: 200, Body: "<html>"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			err := test.client.withServer(s).CheckWrite(t.Context(), name, linkName)
			checkError(t, err, test.err)
			if httpclient.Status(err) != test.status {
				t.Errorf("status %d, want %d", httpclient.Status(err), test.status)
			}
			if writes := s.Writes(); len(writes) > 0 {
				t.Errorf("got writes %v, want none", writes)
			}
			if posts := requests(s, "POST", ""); posts != test.posts {
				t.Errorf("got %d POSTs, want %d", posts, test.posts)
			}
		})
	}
}

// CheckWrite prefers a secret that will be written for its request.
func TestCheckWriteRequest(t *testing.T) {
	var body string
	client := Client{Token: devToken, HTTP: httpclient.Config{
		Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			answer := `{"names":["AAA","DOPPLER_CONFIG","ZZZ"]}`
			if r.Method == http.MethodPost {
				data, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				body, answer = string(data), "{}"
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(answer))}, nil
		}),
	}}
	for _, test := range []struct {
		names []string
		want  string
	}{
		{[]string{"ZZZ", "BBB"}, "ZZZ"},
		{[]string{"BBB", "ZZZ"}, "ZZZ"},
		{[]string{"BBB"}, "AAA"},
	} {
		err := client.CheckWrite(t.Context(), test.names...)
		want := fmt.Sprintf(`{"change_requests":[{"name":%q,"originalName":%q,"value":null}]}`, test.want, test.want)
		if err != nil || body != want {
			t.Errorf("%q: sent %s, %v; want %s", test.names, body, err, want)
		}
	}
}

func TestSet(t *testing.T) {
	both := map[string]string{name: "new", linkName: link}
	onlyName := []map[string]string{{name: "new"}}
	newer := errors.New("a newer snapshot exists")
	unlessNewer := func(current map[string]string) error {
		if current[name] == "newer" {
			return newer
		}
		return nil
	}
	before := func(change func(*local.Server)) func(*local.Server) local.Fault {
		return func(s *local.Server) local.Fault {
			return local.Fault{Method: "POST", Times: 1, Before: func() { change(s) }}
		}
	}
	set := func(value string) func(*local.Server) local.Fault {
		return before(func(s *local.Server) { s.SetSecret("sandbox", "dev", name, value) })
	}
	dev := Client{Token: devToken}
	for _, test := range []struct {
		name    string
		client  Client
		want    map[string]string
		allow   func(map[string]string) error
		fault   func(*local.Server) local.Fault
		changed bool
		status  int
		err     string
		writes  []map[string]string // changed values, by call
		posts   int
		after   string // value of the snapshot name in the client's config
	}{
		{name: "one differs", client: dev, want: both, changed: true, writes: onlyName, posts: 1, after: "new"},
		{
			name: "none exists", client: Client{Token: cliToken, Project: "sandbox", Config: "empty"}, want: both,
			changed: true, writes: []map[string]string{both}, posts: 1, after: "new",
		},
		{name: "none differs", client: dev, want: map[string]string{name: "old", linkName: link}, after: "old"},
		{
			name: "a reference differs from its value", client: dev, want: map[string]string{linkName: "old"}, changed: true,
			writes: []map[string]string{{linkName: "old"}}, posts: 1, after: "old",
		},
		{
			name: "not allowed", client: dev, want: both, err: "it is old", after: "old",
			allow: func(current map[string]string) error { return fmt.Errorf("it is %s", current[name]) },
		},
		{
			name: "allowed", client: dev, want: both, allow: unlessNewer, changed: true, writes: onlyName, posts: 1,
			after: "new",
		},
		{
			name: "concurrent write of a newer value", client: dev, want: both, allow: unlessNewer, fault: set("newer"),
			err: newer.Error(), posts: 1, after: "newer",
		},
		{
			name: "concurrent write of an older value", client: dev, want: both, allow: unlessNewer, fault: set("older"),
			changed: true,
			writes:  onlyName, posts: 2, after: "new",
		},
		{
			name: "concurrent write of the same value", client: dev, want: both, allow: unlessNewer, fault: set("new"),
			changed: true,
			posts:   1, after: "new",
		},
		{
			name: "continuous concurrent writes", client: dev, want: both, posts: 3, after: "3", status: 409,
			fault: func(s *local.Server) local.Fault {
				n := 0
				change := func() { n++; s.SetSecret("sandbox", "dev", name, fmt.Sprint(n)) }
				return local.Fault{Method: "POST", Before: change}
			},
			err: "write DAYTONA_SNAPSHOT_NAME, VITE_DAYTONA_SNAPSHOT_NAME to the Doppler config: Doppler returned 409 " +
				"Conflict: The original value of 'DAYTONA_SNAPSHOT_NAME' does not match " +
				"(another client is writing to this config: run again)",
		},
		{
			name: "response lost", client: dev, want: both, changed: true, writes: onlyName, posts: 2, after: "new",
			fault: func(*local.Server) local.Fault {
				return local.Fault{Method: "POST", Times: 1, Status: 502, ReplaceResponse: true}
			},
		},
		{
			name: "all responses lost", client: dev, want: both, changed: true, writes: onlyName, posts: 4, after: "new",
			fault: func(*local.Server) local.Fault {
				return local.Fault{Method: "POST", Status: 500, ReplaceResponse: true}
			},
		},
		{
			name: "all responses lost, nothing written", client: dev, want: both, posts: 4, after: "old", status: 500,
			err:   "Doppler returned 500",
			fault: func(*local.Server) local.Fault { return local.Fault{Method: "POST", Status: 500} },
		},
		{
			name: "effect unknown", client: dev, want: both, writes: onlyName, posts: 4, after: "new", status: 500,
			err: "Doppler returned 500 … the config may have the new value",
			fault: func(s *local.Server) local.Fault {
				outage := func() { s.Fail(local.Fault{Method: "GET", Status: 503}) }
				return local.Fault{Method: "POST", Before: outage, Status: 500, ReplaceResponse: true}
			},
		},
		{
			name: "values unavailable", client: dev, want: both, after: "old", status: 503, err: "Doppler returned 503",
			fault: func(*local.Server) local.Fault { return local.Fault{Method: "GET", Status: 503} },
		},
		{
			name: "rejected", client: dev, want: map[string]string{"lower": "case"}, posts: 1, after: "old", status: 400,
			err: "Secret names must only contain … (check doppler_project and doppler_config)",
		},
		{
			name: "token with read access", client: Client{Token: readToken}, want: both, posts: 1, after: "old", status: 403,
			err: "(use a token with read/write access",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.fault != nil {
				s.Fail(test.fault(s))
			}
			changed, err := test.client.withServer(s).Set(t.Context(), test.want, test.allow)
			checkError(t, err, test.err)
			if httpclient.Status(err) != test.status {
				t.Errorf("status %d, want %d", httpclient.Status(err), test.status)
			}
			if changed != test.changed {
				t.Errorf("changed: %v, want %v", changed, test.changed)
			}
			writes := s.Writes()
			if !slices.EqualFunc(writes, test.writes, func(w local.Write, want map[string]string) bool {
				return maps.Equal(w.Set, want) && len(w.Deleted) == 0
			}) {
				t.Errorf("written: %v, want %v", writes, test.writes)
			}
			if posts := requests(s, "POST", ""); posts != test.posts {
				t.Errorf("got %d POSTs, want %d", posts, test.posts)
			}
			config := test.client.Config
			if config == "" {
				config = "dev"
			}
			if after := s.Secret("sandbox", config, name); after != test.after {
				t.Errorf("value afterwards %q, want %q", after, test.after)
			}
		})
	}
}

// Update derives the new values from the current ones, again after another client has changed them. It leaves out
// secrets that do not exist, and creates those that change adds.
func TestUpdate(t *testing.T) {
	s := start(t, "")
	s.Fail(local.Fault{Method: "POST", Times: 1, Before: func() { s.SetSecret("sandbox", "dev", name, "other") }})
	client := Client{Token: devToken}.withServer(s)
	var seen []string
	changed, err := client.Update(t.Context(), []string{"LOG", name, "ABSENT"}, func(values map[string]string) error {
		seen = append(seen, values[name])
		values["LOG"], values[name] = values[name], "new"
		return nil
	})
	if err != nil || !changed || !slices.Equal(seen, []string{"old", "other"}) {
		t.Errorf("changed %t, saw %q, %v", changed, seen, err)
	}
	writes := s.Writes()
	if len(writes) != 1 || !maps.Equal(writes[0].Set, map[string]string{"LOG": "other", name: "new"}) {
		t.Errorf("wrote %v", writes)
	}
	changed, err = client.Update(t.Context(), []string{name}, func(map[string]string) error { return nil })
	if err != nil || changed || len(s.Writes()) != 1 {
		t.Errorf("unchanged: %t, %v, %v", changed, err, s.Writes())
	}
}

// A canceled write whose response is lost counts if it had an effect.
func TestSetCanceled(t *testing.T) {
	for _, written := range []bool{true, false} {
		s := start(t, "")
		ctx, cancel := context.WithCancelCause(t.Context())
		interrupted := errors.New("interrupted")
		s.Fail(local.Fault{Method: "POST", NoResponse: true, ReplaceResponse: written, Before: func() {
			if !written {
				cancel(interrupted)
			}
		}})
		if written { // the client disconnects after the write
			go func() {
				for len(s.Writes()) == 0 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				cancel(interrupted)
			}()
		}
		changed, err := Client{Token: devToken}.withServer(s).Set(ctx, map[string]string{name: "new"}, nil)
		if changed != written || !written && !errors.Is(err, interrupted) || written && err != nil {
			t.Errorf("written %t: changed %t, %v", written, changed, err)
		}
	}
}

func TestSetIgnoresChangesByAllow(t *testing.T) {
	s := start(t, "")
	allow := func(current map[string]string) error {
		clear(current)
		return nil
	}
	changed, err := Client{Token: devToken}.withServer(s).Set(t.Context(), map[string]string{name: "new"}, allow)
	if err != nil || !changed || s.Secret("sandbox", "dev", name) != "new" {
		t.Errorf("got %v, %v", changed, err)
	}
}

func TestValuesByConfig(t *testing.T) {
	all := map[string]string{
		"sandbox.dev": "old", "sandbox.prd": "released", "sandbox.stg": "released", "website.dev": "pinned",
	}
	own := map[string]string{"sandbox.dev": "old"}
	dev := Client{Token: cliToken, Project: "sandbox", Config: "dev"}
	for _, test := range []struct {
		name   string
		client Client
		fault  local.Fault
		// spared requests succeed before the fault: one for the client's config, two for the projects, and two for the
		// configs of each of the two projects.
		spared int
		want   map[string]string
		status int
		err    string

		unreadable string // part of the description
	}{
		{name: "account", client: dev, want: all},
		{
			name: "account, config without the secret", client: Client{Token: cliToken, Project: "sandbox", Config: "empty"},
			want: all,
		},
		{
			name: "service account", client: Client{Token: oneToken, Project: "sandbox", Config: "dev"},
			want: map[string]string{"sandbox.dev": "old", "sandbox.prd": "released"},
		},
		{
			name: "service token", client: Client{Token: readToken}, want: own,
			unreadable: `the other configs of project "sandbox"`,
		},
		{
			name: "projects denied", client: dev, fault: local.Fault{Status: 403}, spared: 1, want: own,
			unreadable: `the other configs of project "sandbox"`,
		},
		{
			name: "projects unavailable", client: dev, fault: local.Fault{Status: 503}, spared: 1, status: 503,
			err: "list Doppler projects",
		},
		{
			name: "projects without a list", client: dev, spared: 1, status: 200, err: "the response has no projects",
			fault: local.Fault{Status: 200, Body: `{"success":true}`},
		},
		{
			name: "configs unavailable", client: dev, fault: local.Fault{Status: 503}, spared: 4, status: 503,
			err: "list Doppler configs",
		},
		{
			name: "other configs denied", client: dev, fault: local.Fault{Status: 404}, spared: 7, want: own,
			unreadable: `config "prd"`,
		},
		{
			name: "other configs unavailable", client: dev, fault: local.Fault{Status: 503}, spared: 7, status: 503,
			err: "read Doppler config",
		},
		{
			name: "own config unavailable", client: dev, fault: local.Fault{Status: 503}, status: 503,
			err: `read Doppler config "dev" of project "sandbox"`,
		},
		{
			name: "other configs restricted", client: dev, spared: 7, err: "DAYTONA_SNAPSHOT_NAME is restricted",
			fault: local.Fault{Status: 200, Body: `{"secrets": {"DAYTONA_SNAPSHOT_NAME": {}}}`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.spared > 0 {
				s.Fail(local.Fault{Times: test.spared})
			}
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			got, unreadable, err := test.client.withServer(s).ValuesByConfig(t.Context(), name)
			if text := strings.Join(unreadable, ", "); !strings.Contains(text, test.unreadable) ||
				(test.unreadable == "") != (text == "") {
				t.Errorf("unreadable: %q, want %q", text, test.unreadable)
			}
			checkError(t, err, test.err)
			if httpclient.Status(err) != test.status {
				t.Errorf("status %d, want %d", httpclient.Status(err), test.status)
			}
			names := map[string]string{}
			for config, values := range got {
				names[config] = values[name]
			}
			if !maps.Equal(names, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	const bound = `a service token can access only its own config "dev"`
	service := Client{Token: readToken}
	page := func(status int) local.Fault { return local.Fault{Status: status, Body: "<html>hello</html>"} }
	slow := func(seconds string, times int) local.Fault {
		return local.Fault{Status: 429, Times: times, Header: map[string]string{"Retry-After": seconds}}
	}
	for _, test := range []struct {
		name     string
		client   Client
		fault    local.Fault
		status   int
		format   bool   // whether the response is not from the API
		err      string // "" for no error
		requests int    // number of attempts of the call
	}{
		{name: "no token", status: 401, err: "Invalid Auth token (replace the token in doppler_token", requests: 1},
		{
			name: "service token, another config", client: Client{Token: readToken, Config: "prd"}, requests: 1, status: 400,
			err: `read Doppler config "prd": Doppler returned 400 Bad Request: This token does not have access to ` +
				`requested config 'prd' (a service token can access only its own config "dev": correct or omit ` +
				`doppler_project and doppler_config, or use a token of that config)`,
		},
		{
			name: "service token, another project", client: Client{Token: readToken, Project: "website", Config: "dev"},
			requests: 1, status: 400, err: "requested project 'website' (" + bound,
		},
		{
			name: "unknown config", client: Client{Token: cliToken, Project: "sandbox", Config: "production"}, requests: 1,
			status: 404, err: `(check doppler_config; visible to the token: "dev", "empty", "prd", "stg")`,
		},
		{
			name: "unknown config in a project with one config", client: Client{
				Token: cliToken, Project: "website", Config: "prd",
			},
			requests: 1, status: 404, err: `(check doppler_config; visible to the token: "dev")`,
		},
		{
			name: "unknown project", client: Client{Token: cliToken, Project: "sandbx", Config: "dev"}, requests: 1,
			status: 404, err: `(check doppler_project; visible to the token: "sandbox", "website")`,
		},
		{
			name: "no project", client: Client{Token: cliToken}, requests: 1, status: 400,
			err: "You must specify a project (set doppler_project and doppler_config: only a service token implies them)",
		},
		{
			name: "no config", client: Client{Token: cliToken, Project: "sandbox"}, requests: 1, status: 400,
			err: `You must specify a config (check doppler_config; visible to the token: "dev", "empty", "prd", "stg")`,
		},
		{
			name: "forbidden", client: service, fault: local.Fault{Status: 403}, requests: 1, status: 403,
			err: "(grant the token's account access to the config",
		},
		{name: "429 once", client: service, fault: local.Fault{Status: 429, Times: 1}, requests: 2},
		{name: "429 with the maximum wait", client: service, fault: slow("60", 1), requests: 2},
		{
			name: "persistent 429", client: service, fault: local.Fault{Status: 429}, requests: 4, status: 429,
			err: "(try again in a minute)",
		},
		{
			name: "429 over the maximum wait", client: service, fault: slow("61", 0), requests: 1, status: 429,
			err: "(try again in a minute; retry after 1m1s)",
		},
		{name: "500 once", client: service, fault: local.Fault{Status: 500, Times: 1}, requests: 2},
		{
			name: "429 of a proxy", client: service, fault: page(429), requests: 4, status: 429, format: true,
			err: "(try again in a minute)",
		},
		{
			name: "persistent 500", client: service, fault: local.Fault{Status: 500}, requests: 4, status: 500,
			err: "(try again later; see https://www.dopplerstatus.com)",
		},
		{
			name: "502 of a proxy", client: service, fault: page(502), requests: 4, status: 502, format: true,
			err: "(try again later",
		},
		{
			name: "403 of a proxy", client: service, fault: page(403), requests: 1, status: 403, format: true,
			err: "the response is a web page, not JSON (check DOPPLER_API_HOST",
		},
		{
			name: "web page with 200", client: service, fault: page(200), requests: 1, status: 200, format: true,
			err: "the response is a web page, not JSON (check DOPPLER_API_HOST",
		},
		{
			name: "unexpected JSON", client: service, requests: 1, status: 400, format: true,
			err:   "the response is not in the API's format (check DOPPLER_API_HOST",
			fault: local.Fault{Status: 400, Body: `{"error":"no"}`},
		},
		{
			name: "no secrets", client: service, requests: 1, status: 200, format: true, err: "the response has no secrets",
			fault: local.Fault{Status: 200, Body: `{"success":true}`},
		},
		{
			name: "redirect", client: service, requests: 1, status: 302, format: true, err: "(check DOPPLER_API_HOST",
			fault: local.Fault{Status: 302, Body: "moved", Header: map[string]string{"Location": "http://127.0.0.1:1/"}},
		},
		{
			name: "too large", client: service, requests: 1, format: true, err: "the response is larger than 8388608 bytes",
			fault: local.Fault{Status: 200, Body: `{"A":"` + strings.Repeat("x", 9<<20) + `"}`},
		},
		{
			name: "echoed token", client: service, requests: 1, status: 401, err: "unknown token: ***, try again (",
			fault: local.Fault{Status: 401, Body: `{"messages":["unknown token: ` + readToken + `,\ntry again"]}`},
		},
		{
			name: "two messages", client: service, requests: 1, status: 400, err: "one; two (",
			fault: local.Fault{Status: 400, Body: `{"messages":["one", "two."]}`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, "")
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			_, err := test.client.withServer(s).Secrets(t.Context())
			checkError(t, err, test.err)
			if httpclient.Status(err) != test.status || errors.Is(err, httpclient.ErrFormat) != test.format {
				t.Errorf("got %#v", err)
			}
			if n := requests(s, "GET", "/secrets"); n != test.requests {
				t.Errorf("got %d requests, want %d", n, test.requests)
			}
		})
	}
}

func TestLocationHintWithoutLists(t *testing.T) {
	s := start(t, "")
	s.Fail(local.Fault{Path: "/secrets"})
	s.Fail(local.Fault{Status: 403})
	_, err := Client{Token: cliToken, Project: "sandbox", Config: "production"}.withServer(s).Secrets(t.Context())
	checkError(t, err, "(check doppler_project and doppler_config, and that the token can access them)")
}

func TestUnreachable(t *testing.T) {
	s := start(t, "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Client{Token: readToken}.withServer(s).Secrets(t.Context())
	checkError(
		t,
		err,
		"read the Doppler config: cannot reach Doppler at "+s.URL()+": … (check the network, DOPPLER_API_HOST",
	)
}

func TestTimeout(t *testing.T) {
	s := start(t, "")
	s.Fail(local.Fault{NoResponse: true})
	client := Client{Token: readToken}.withServer(s)
	client.HTTP.Policy.Timeout = 20 * time.Millisecond
	_, err := client.Secrets(t.Context())
	checkError(t, err, "no response within 20ms, after 4 attempts (check the network")
	if !errors.As(err, new(*httpclient.TimeoutError)) {
		t.Errorf("got %#v", err)
	}
}

func TestCancel(t *testing.T) {
	s := start(t, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	s.Fail(local.Fault{Before: func() { cancel(interrupted) }, NoResponse: true})
	if _, err := (Client{Token: readToken}).withServer(s).Secrets(ctx); err != interrupted {
		t.Errorf("got %v, want the cause", err)
	}
	if n := len(s.Requests()); n != 1 {
		t.Errorf("got %d requests, want 1", n)
	}
}

func TestLogin(t *testing.T) {
	issuer, err := github.Start(t.Context(), github.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	const (
		subject  = "repo:org/sandbox-actions:ref:refs/heads/main"
		audience = "https://github.com/org"
	)
	mint := func(audience string, change func(map[string]any)) string {
		token, err := issuer.Mint(audience, change)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	claim := func(name string, value any) string {
		return mint(audience, func(claims map[string]any) { claims[name] = value })
	}
	forged, err := issuer.Forge(audience)
	if err != nil {
		t.Fatal(err)
	}
	trust := func(subject, audience string) string {
		return fmt.Sprintf("configure that identity to trust the subject %q with the audience %q)", subject, audience)
	}
	valid := mint(audience, nil)
	for _, test := range []struct {
		name, identity, token string
		fault                 local.Fault
		status                int
		message, hint         string // of the error
	}{
		{name: "trusted", token: valid},
		{
			name: "unknown identity", identity: "unknown", token: valid, status: 401,
			message: "Could not find requested identity 'unknown'", hint: trust(subject, audience),
		},
		{
			name: "another audience", token: mint("https://depot.dev", nil), status: 401, message: "audience",
			hint: trust(subject, "https://depot.dev"),
		},
		{
			name: "another repository", token: claim("sub", "repo:org/other:ref:refs/heads/main"), status: 401,
			message: "The claim 'sub' of the OIDC token does not match the identity",
			hint:    trust("repo:org/other:ref:refs/heads/main", audience),
		},
		{
			name: "expired", token: claim("exp", time.Now().Add(-time.Hour).Unix()), status: 401,
			message: "The OIDC token has expired", hint: "check the clock of the server that issued it",
		},
		{
			name: "another issuer", token: claim("iss", "https://evil.example"), status: 401, message: "issue",
			hint: trust(subject, audience),
		},
		{
			name: "forged", token: forged, status: 401, message: "failed to verify signature",
			hint: trust(subject, audience),
		},
		{name: "not a token", token: "hello", status: 401, message: "Invalid OIDC token", hint: "to trust this workflow)"},
		{name: "500 once", token: valid, fault: local.Fault{Status: 500, Times: 1}},
		{
			name: "persistent 500", token: valid, fault: local.Fault{Status: 500}, status: 500,
			message: "Internal Server Error", hint: "(try again later",
		},
		{
			name: "web page", token: valid, fault: local.Fault{Status: 200, Body: "<html>"}, status: 200, message: "web page",
			hint: "(check DOPPLER_API_HOST",
		},
		{
			name: "no token", token: valid, fault: local.Fault{Status: 200, Body: `{"success":true}`}, status: 200,
			message: "the response has no token", hint: "(check DOPPLER_API_HOST",
		},
		{
			name: "echoed token", token: valid, status: 401, message: "who sent ***? (", hint: trust(subject, audience),
			fault: local.Fault{Status: 401, Body: `{"messages":["who sent ` + valid + `?"]}`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, issuer.Issuer())
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			id := test.identity
			if id == "" {
				id = identity
			}
			token, err := Client{}.withServer(s).Login(t.Context(), id, test.token)
			if test.hint != "" {
				op := fmt.Sprintf("authenticate to Doppler as identity %q: ", id)
				checkError(t, err, op+" … "+test.message+" … "+test.hint)
				if token != "" || httpclient.Status(err) != test.status {
					t.Errorf("got %q, %v; want status %d", token, err, test.status)
				}
				if len(test.token) > 10 && strings.Contains(err.Error(), test.token) {
					t.Errorf("the OIDC token is in %q", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			client := Client{Token: token, Project: "sandbox", Config: "prd"}.withServer(s)
			changed, err := client.Set(t.Context(), map[string]string{name: "new"}, nil)
			if err != nil || !changed || s.Secret("sandbox", "prd", name) != "new" {
				t.Errorf("the token cannot write: %v, %v", changed, err)
			}
		})
	}
}

// A token from Login may expire before a build ends.
func TestRenew(t *testing.T) {
	s := start(t, "")
	renewed := 0
	client := Client{Token: devToken, Renew: func(context.Context) (string, error) {
		renewed++
		const newToken = "dp.st.dev.New"
		return newToken, s.AddToken(local.Token{
			Value: newToken, Access: []local.Access{{Project: "sandbox", Config: "dev", Write: true}},
		})
	}}.withServer(s)
	if _, err := client.Secrets(t.Context()); err != nil || renewed != 0 {
		t.Errorf("got %v, renewed %d times", err, renewed)
	}
	s.Revoke(devToken)
	if _, err := client.Secrets(t.Context()); err != nil || renewed != 1 {
		t.Errorf("got %v, renewed %d times", err, renewed)
	}
	// The requests for a hint use the new token.
	account := Client{
		Token:   "dp.ct.expired",
		Project: "sandbox",
		Config:  "production",
		Renew: func(context.Context) (string, error) {
			return cliToken, nil
		},
	}
	_, err := account.withServer(s).Secrets(t.Context())
	checkError(t, err, `visible to the token: "dev"`)
	client.Renew = func(context.Context) (string, error) { return "dp.st.dev.no", nil }
	if _, err := client.Secrets(t.Context()); httpclient.Status(err) != http.StatusUnauthorized {
		t.Error(err)
	}
	expired := errors.New("no more")
	client.Renew = func(context.Context) (string, error) { return "", expired }
	if _, err := client.Secrets(t.Context()); err != expired {
		t.Error(err)
	}
}

// Doppler's lists may have several pages.
func TestListPages(t *testing.T) {
	var pages []string
	client := Client{Token: cliToken, Project: "p", Config: "c", HTTP: httpclient.Config{
		Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			page := r.URL.Query().Get("page")
			pages = append(pages, page+"/"+r.URL.Query().Get("per_page"))
			body := map[string]string{
				"1": `{"configs":[{"name":"a"},{"name":"b"}]}`, "2": `{"configs":[{"name":"b"},{"name":"c"}]}`,
			}[page]
			if body == "" {
				body = `{"configs":[]}`
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
		}),
	}}
	names, err := client.list(t.Context(), "configs", map[string][]string{})
	if err != nil || !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("got %q, %v", names, err)
	}
	if !slices.Equal(pages, []string{"1/100", "2/100", "3/100"}) {
		t.Errorf("pages %q", pages)
	}
}

func TestQuoted(t *testing.T) {
	var names []string
	for i := range 13 {
		names = append(names, fmt.Sprint(i))
	}
	if got := quoted(names[:12]); !strings.HasSuffix(got, `"10", "11"`) {
		t.Error(got)
	}
	if got := quoted(names); !strings.HasSuffix(got, `"11", …`) {
		t.Error(got)
	}
}
