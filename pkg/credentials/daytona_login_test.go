package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// At a prompt, the profile of `daytona login` provides the key, unless another source does.
func TestDaytonaLogin(t *testing.T) {
	const (
		keyProfile = `{"id": "b", "name": "key", "api": {"url": "https://d.example/api", "key": "dtn_login", "token": null},
			"activeOrganizationId": null}`
		userProfile = `{"id": "b", "name": "user", "api": {"url": "https://d.example/api", "key": null, "token":
			{"accessToken": "token", "refreshToken": "r", "expiresAt": "2999-01-01T00:00:00Z"}}, "activeOrganizationId": "org"}`
		expired = `{"id": "b", "name": "old", "api": {"url": "https://d.example/api", "token":
			{"accessToken": "token", "expiresAt": "2020-01-01T00:00:00Z"}}, "activeOrganizationId": "org"}`
		other = `{"id": "a", "name": "other", "api": {"url": "https://other.example/api", "key": "dtn_other"}}`
	)
	for _, test := range []struct {
		name, config, env              string
		inActions                      bool
		key, url, organization, source string
		failure                        string
	}{
		{name: "API key", config: keyProfile, key: "dtn_login", url: "https://d.example/api", source: `"key" of`},
		{name: "user", config: userProfile,
			key: "token", url: "https://d.example/api", organization: "org", source: `"user" of`},
		{name: "organization of the environment", config: userProfile, env: "DAYTONA_ORG_ID=mine",
			key: "token", url: "https://d.example/api", organization: "mine", source: `"user" of`},
		{name: "key of the environment", config: keyProfile, env: "DAYTONA_API_KEY=env",
			key: "env", source: "DAYTONA_API_KEY"},
		{name: "in GitHub Actions", config: keyProfile, inActions: true, failure: "no Daytona API key"},
		{name: "expired", config: expired, failure: "expired at 2020-01-01T00:00:00Z (run `daytona login`)"},
		{name: "another server", config: keyProfile, env: "DAYTONA_API_URL=https://evil.example/api",
			failure: `no Daytona API key for https://evil.example/api: the profile "key"`},
		{name: "no active profile", config: strings.Replace(keyProfile, `"b"`, `"c"`, 1), failure: "no Daytona API key"},
		{name: "not JSON", config: "{", failure: "config.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			config := `{"activeProfile": "b", "profiles": [` + other + `, ` + test.config + `]}`
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			getenv := environ("DAYTONA_CONFIG_DIR="+dir, test.env)
			masked := ""
			client, from, err := Daytona(DaytonaSource{
				InActions: test.inActions, Getenv: getenv, Mask: func(secret string) { masked = secret },
			})
			if test.failure != "" {
				if err == nil || !strings.Contains(err.Error(), test.failure) || client.Key != "" {
					t.Errorf("got %v, want an error that contains %q", err, test.failure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if client.Key != test.key || client.URL != test.url || client.Organization != test.organization ||
				masked != test.key || !strings.Contains(from, test.source) {
				t.Errorf("got key %q, URL %q, organization %q, source %q, masked %q",
					client.Key, client.URL, client.Organization, from, masked)
			}
			if !HasDaytonaKey("", getenv, false) {
				t.Error("HasDaytonaKey does not find the key")
			}
		})
	}
}
