package credentials

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// DaytonaSource lists the sources of Daytona credentials: inputs, the secrets of a Doppler config, environment
// variables and, outside GitHub Actions, the profile of `daytona login`, in this order.
type DaytonaSource struct {
	APIKey, OrganizationID, APIURL string // inputs
	Doppler                        Doppler
	InActions                      bool
	Getenv                         func(string) string
	Mask                           func(secret string)
}

// Daytona returns a client for the API key of the first source that has one, and describes that source for the log. It
// masks the key.
func Daytona(source DaytonaSource) (client daytona.Client, from string, err error) {
	getenv := source.Doppler.Over(source.Getenv)
	client = daytona.Client{
		URL:          cmp.Or(source.APIURL, getenv("DAYTONA_API_URL")),
		Key:          cmp.Or(source.APIKey, getenv("DAYTONA_API_KEY")),
		Organization: cmp.Or(source.OrganizationID, getenv("DAYTONA_ORG_ID"), getenv("DAYTONA_ORGANIZATION_ID")),
		Mask:         source.Mask,
	}
	switch {
	case source.APIKey != "":
		from = "the input daytona_api_key"
	case source.Doppler.Secrets["DAYTONA_API_KEY"] != "":
		from = "DAYTONA_API_KEY in " + source.Doppler.Client.Name()
	case client.Key != "":
		from = "DAYTONA_API_KEY"
	case !source.InActions:
		if client, from, err = loginOf(client, getenv); err != nil {
			return daytona.Client{}, "", err
		}
	}
	switch {
	case client.Key == "" && source.Doppler.Client != nil:
		return daytona.Client{}, "", fmt.Errorf("no Daytona API key: set DAYTONA_API_KEY in %s, or set daytona_api_key",
			source.Doppler.Client.Name())
	case client.Key == "":
		return daytona.Client{}, "", errors.New("no Daytona API key: set daytona_api_key or DAYTONA_API_KEY")
	}
	source.Mask(client.Key)
	client.KeySource = from
	return client, from, nil
}

// HasDaytonaKey reports whether the input, DAYTONA_API_KEY or, outside GitHub Actions, `daytona login` provides a key.
func HasDaytonaKey(input string, getenv func(string) string, inActions bool) bool {
	if provided := input != "" || getenv("DAYTONA_API_KEY") != ""; provided || inActions {
		return provided
	}
	profile, err := activeDaytonaProfile(getenv)
	return err == nil && profile.API.secret() != ""
}
