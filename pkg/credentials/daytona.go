package credentials

import (
	"cmp"
	"fmt"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// DaytonaSource lists the sources of Daytona credentials. Inputs take precedence over Getenv, which looks up
// secrets of a Doppler config before environment variables. Outside GitHub Actions, the profile of `daytona login` is
// the last source.
type DaytonaSource struct {
	APIKey, OrganizationID, APIURL string // inputs
	DopplerConfig                  string // shown in the hint of an error
	InActions                      bool
	Getenv                         func(string) string
	Mask                           func(secret string)
}

// Daytona returns a client for the API key of the first source that has one, and describes that source for the log. It
// masks the key.
func Daytona(source DaytonaSource) (client daytona.Client, from string, err error) {
	client = daytona.Client{
		URL: cmp.Or(source.APIURL, source.Getenv("DAYTONA_API_URL")),
		Key: cmp.Or(source.APIKey, source.Getenv("DAYTONA_API_KEY")),
		Organization: cmp.Or(source.OrganizationID, source.Getenv("DAYTONA_ORG_ID"),
			source.Getenv("DAYTONA_ORGANIZATION_ID")),
		Mask: source.Mask,
	}
	switch {
	case source.APIKey != "":
		from = "the input daytona_api_key"
	case client.Key != "":
		from = "DAYTONA_API_KEY"
	case !source.InActions:
		if client, from, err = loginOf(client, source.Getenv); err != nil {
			return daytona.Client{}, "", err
		}
	}
	if client.Key == "" {
		return daytona.Client{}, "", fmt.Errorf(
			"no Daytona API key: set DAYTONA_API_KEY in the Doppler config %q, or set daytona_api_key", source.DopplerConfig)
	}
	source.Mask(client.Key)
	return client, from, nil
}

// HasDaytonaKey reports whether the input, DAYTONA_API_KEY or, outside GitHub Actions, `daytona login` provides a key.
func HasDaytonaKey(input string, getenv func(string) string, inActions bool) bool {
	if input != "" || getenv("DAYTONA_API_KEY") != "" {
		return true
	}
	profile, err := activeDaytonaProfile(getenv)
	return !inActions && err == nil && profile.API.secret() != ""
}
