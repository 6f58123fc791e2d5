package credentials

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// daytonaConfig is the configuration file of the Daytona CLI, as far as it concerns credentials
// (daytonaio/daytona v0.190.0, apps/cli/config/config.go).
type daytonaConfig struct {
	Active   string           `json:"activeProfile"`
	Profiles []daytonaProfile `json:"profiles"`
}

type daytonaProfile struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	API          daytonaAPI `json:"api"`
	Organization string     `json:"activeOrganizationId"`
}

type daytonaAPI struct {
	URL   string `json:"url"`
	Key   string `json:"key"`
	Token struct {
		Access  string    `json:"accessToken"`
		Expires time.Time `json:"expiresAt"`
	} `json:"token"`
}

// secret returns the API key or the access token of a user.
func (a daytonaAPI) secret() string { return cmp.Or(a.Key, a.Token.Access) }

// activeDaytonaProfile returns the profile that the Daytona CLI uses, or the zero profile without one.
func activeDaytonaProfile(getenv func(string) string) (daytonaProfile, error) {
	path, dir := "", getenv("DAYTONA_CONFIG_DIR")
	if user := userConfigDir(getenv); dir == "" && user != "" {
		dir = filepath.Join(user, "daytona")
	}
	if dir != "" {
		path = filepath.Join(dir, "config.json")
	}
	var config daytonaConfig
	data, err := readSettingsFile(path)
	if data != nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil {
		return daytonaProfile{}, fmt.Errorf("read the configuration of the Daytona CLI: %s: %w (run `daytona login`)",
			path, err)
	}
	for _, profile := range config.Profiles {
		if profile.ID == config.Active {
			return profile, nil
		}
	}
	return daytonaProfile{}, nil
}

// loginOf adds the credentials of the active profile to a client without a key. It does not send them to a server
// other than the profile's.
func loginOf(client daytona.Client, getenv func(string) string) (_ daytona.Client, from string, err error) {
	profile, err := activeDaytonaProfile(getenv)
	if err != nil || profile.API.secret() == "" {
		return client, "", err
	}
	api := profile.API
	if client.URL != "" && strings.TrimRight(client.URL, "/") != strings.TrimRight(api.URL, "/") {
		return client, "", fmt.Errorf("no Daytona API key for %s: the profile %q of `daytona login` belongs to %s "+
			"(set DAYTONA_API_KEY, or unset DAYTONA_API_URL)", client.URL, profile.Name, api.URL)
	}
	// The CLI renews a user's token with its own client secret.
	if api.Key == "" && !api.Token.Expires.IsZero() && time.Now().After(api.Token.Expires) {
		return client, "", fmt.Errorf("the login of the Daytona CLI expired at %s (run `daytona login`)",
			api.Token.Expires.Format(time.RFC3339))
	}
	client.URL, client.Key = cmp.Or(client.URL, api.URL), api.secret()
	client.Organization = cmp.Or(client.Organization, profile.Organization)
	return client, fmt.Sprintf("the profile %q of `daytona login`", profile.Name), nil
}
