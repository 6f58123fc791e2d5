package credentials

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/doppler"
)

// environ returns a getenv function for NAME=VALUE pairs.
func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

func TestDaytona(t *testing.T) {
	for _, test := range []struct {
		name                   string
		source                 DaytonaSource
		key, organization, url string
	}{
		{"inputs", DaytonaSource{APIKey: "input", OrganizationID: "org", APIURL: "https://input.example",
			Getenv: environ("DAYTONA_API_KEY=env", "DAYTONA_ORG_ID=env", "DAYTONA_API_URL=https://env.example")},
			"input", "org", "https://input.example"},
		{"environment", DaytonaSource{Getenv: environ("DAYTONA_API_KEY=env", "DAYTONA_ORG_ID=a", "DAYTONA_ORGANIZATION_ID=b",
			"DAYTONA_API_URL=https://env.example")}, "env", "a", "https://env.example"},
		{"alternative organization variable", DaytonaSource{
			Getenv: environ("DAYTONA_API_KEY=env", "DAYTONA_ORGANIZATION_ID=b"),
		},
			"env", "b", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var masked []string
			test.source.Mask = func(secret string) { masked = append(masked, secret) }
			client, from, err := Daytona(test.source)
			if err != nil {
				t.Fatal(err)
			}
			if client.Key != test.key || client.Organization != test.organization || client.URL != test.url ||
				client.KeySource != from {
				t.Errorf("key %s from %s, organization %s, URL %s", client.Key, client.KeySource, client.Organization, client.URL)
			}
			if !slices.Equal(masked, []string{test.key}) {
				t.Errorf("masked %q, want the key", masked)
			}
		})
	}
	_, _, err := Daytona(DaytonaSource{
		Doppler: Doppler{Client: &doppler.Client{Config: "dev"}}, InActions: true, Getenv: environ(), Mask: func(string) {},
	})
	if err == nil || !strings.Contains(err.Error(), "daytona_api_key") || !strings.Contains(err.Error(), `"dev"`) {
		t.Errorf("without a key: %v", err)
	}
	_, _, err = Daytona(DaytonaSource{InActions: true, Getenv: environ(), Mask: func(string) {}})
	if err == nil || !strings.Contains(err.Error(), "DAYTONA_API_KEY") || strings.Contains(err.Error(), "Doppler") {
		t.Errorf("without a key and Doppler: %v", err)
	}
}

func TestHasToken(t *testing.T) {
	for _, test := range []struct {
		variable string
		has      func(string, func(string) string) bool
	}{
		{"DAYTONA_API_KEY", hasDaytonaKeyInActions}, {"DOPPLER_TOKEN", HasDopplerToken},
		{"DEPOT_TOKEN", HasDepotToken}, {"DEPOT_API_TOKEN", HasDepotToken}, {"DEPOT_JIT_TOKEN", HasDepotToken},
		{"DEPOT_CACHE_TOKEN", HasDepotToken},
	} {
		if !test.has("input", environ()) || !test.has("", environ(test.variable+"=x")) || test.has("", environ("OTHER=x")) {
			t.Errorf("%s: not recognized, or recognized in another source", test.variable)
		}
	}
	if home := loginHome(t, "api_token: x\n"); !HasDepotToken("", environ("HOME="+home)) {
		t.Error("the token of `depot login` is not recognized")
	}
}

func hasDaytonaKeyInActions(input string, getenv func(string) string) bool {
	return HasDaytonaKey(input, getenv, true)
}

func TestGitHubToken(t *testing.T) {
	var masked []string
	mask := func(secret string) { masked = append(masked, secret) }
	if got := GitHubToken("input", environ("GITHUB_TOKEN=env"), mask); got != "input" {
		t.Errorf("got %q, want the input", got)
	}
	if got := GitHubToken("", environ("GITHUB_TOKEN=env"), mask); got != "env" {
		t.Errorf("got %q, want GITHUB_TOKEN", got)
	}
	if got := GitHubToken("", environ(), mask); got != "" {
		t.Errorf("got %q, want no token", got)
	}
	if want := []string{"input", "env"}; !slices.Equal(masked, want) {
		t.Errorf("masked %q, want %q", masked, want)
	}
}

func TestRepository(t *testing.T) {
	r := Repository(
		"acme", "app", "token", environ("GITHUB_SERVER_URL=https://git.example", "GITHUB_API_URL=https://git.example/api/v3"),
	)
	if r.Owner != "acme" || r.Name != "app" || r.Token != "token" || r.ServerURL != "https://git.example" ||
		r.APIURL != "https://git.example/api/v3" {
		t.Errorf("got %+v", r)
	}
}

func TestMaskEnvironment(t *testing.T) {
	var masked []string
	MaskEnvironment(
		func(name string) string { return "value of " + name },
		func(name, secret string) { masked = append(masked, secret+" as "+name) },
	)
	for _, name := range []string{
		"DEPOT_TOKEN", "DOPPLER_TOKEN", "DAYTONA_API_KEY", "GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
	} {
		if !slices.Contains(masked, "value of "+name+" as the variable "+name) {
			t.Errorf("%s is not masked", name)
		}
	}
}

// Test commands inherit this process's environment, which must not contain inputs or the OIDC request token.
func TestWithholdInputs(t *testing.T) {
	withheld := []string{
		"INPUT_DEPOT_TOKEN", "INPUT_REF", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
	}
	for _, name := range append(withheld, "MY_INPUT_REF") {
		t.Setenv(name, "value of "+name)
	}
	getenv := WithholdInputs(os.Environ())
	for _, name := range withheld {
		if value, ok := os.LookupEnv(name); ok {
			t.Errorf("%s is still in the environment: %q", name, value)
		}
		if getenv(name) != "value of "+name {
			t.Errorf("the returned getenv does not find %s", name)
		}
	}
	if os.Getenv("MY_INPUT_REF") == "" || getenv("MY_INPUT_REF") == "" {
		t.Error("an unrelated variable was removed")
	}
}

func TestMaskProxies(t *testing.T) {
	var masked []string
	getenv := environ("DEPOT_TOKEN=depot", "https_proxy=http://user:of-the-proxy@proxy:3128", "HTTP_PROXY=proxy:3128")
	MaskEnvironment(getenv, func(_, secret string) {
		if secret != "" {
			masked = append(masked, secret)
		}
	})
	if want := []string{"depot", "of-the-proxy"}; !slices.Equal(masked, want) {
		t.Errorf("masked %q, want %q", masked, want)
	}
}
