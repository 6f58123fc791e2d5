package credentials

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// DaytonaSource lists the sources of Daytona credentials: inputs, the secrets of a Doppler config, and environment
// variables, in this order.
type DaytonaSource struct {
	APIKey, OrganizationID, APIURL string // inputs
	Doppler                        Doppler
	Getenv                         func(string) string
	Mask                           func(secret string)
}

// Daytona returns a client for the API key of the first source that has one. It masks the key.
func Daytona(source DaytonaSource) (daytona.Client, error) {
	getenv := source.Doppler.Over(source.Getenv)
	client := daytona.Client{
		URL:          cmp.Or(source.APIURL, getenv("DAYTONA_API_URL")),
		Key:          cmp.Or(source.APIKey, getenv("DAYTONA_API_KEY")),
		Organization: cmp.Or(source.OrganizationID, getenv("DAYTONA_ORG_ID"), getenv("DAYTONA_ORGANIZATION_ID")),
		Mask:         source.Mask,
	}
	switch {
	case client.Key == "" && source.Doppler.Client != nil:
		return client, fmt.Errorf("no Daytona API key: set DAYTONA_API_KEY in %s, or set daytona_api_key",
			source.Doppler.Client.Name())
	case client.Key == "":
		return client, errors.New("no Daytona API key: set daytona_api_key or DAYTONA_API_KEY")
	}
	source.Mask(client.Key)
	return client, nil
}

// HasDaytonaKey reports whether the input or DAYTONA_API_KEY provides a key.
func HasDaytonaKey(input string, getenv func(string) string) bool {
	return input != "" || getenv("DAYTONA_API_KEY") != ""
}
