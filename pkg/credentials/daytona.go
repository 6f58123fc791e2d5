package credentials

import (
	"cmp"
	"fmt"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// DaytonaSource lists the sources of Daytona credentials. Inputs take precedence over Getenv, which looks up
// secrets of a Doppler config before environment variables.
type DaytonaSource struct {
	APIKey, OrganizationID, APIURL string // inputs
	DopplerConfig                  string // shown in the hint of an error
	Getenv                         func(string) string
	Mask                           func(secret string)
}

// Daytona returns a client for the API key of the first source that has one. It masks the key.
func Daytona(source DaytonaSource) (daytona.Client, error) {
	client := daytona.Client{
		URL: cmp.Or(source.APIURL, source.Getenv("DAYTONA_API_URL")),
		Key: cmp.Or(source.APIKey, source.Getenv("DAYTONA_API_KEY")),
		Organization: cmp.Or(source.OrganizationID, source.Getenv("DAYTONA_ORG_ID"),
			source.Getenv("DAYTONA_ORGANIZATION_ID")),
		Mask: source.Mask,
	}
	if client.Key == "" {
		return client, fmt.Errorf("no Daytona API key: set DAYTONA_API_KEY in the Doppler config %q, or set daytona_api_key",
			source.DopplerConfig)
	}
	source.Mask(client.Key)
	return client, nil
}

// HasDaytonaKey reports whether the input or DAYTONA_API_KEY provides a key.
func HasDaytonaKey(input string, getenv func(string) string) bool {
	return input != "" || getenv("DAYTONA_API_KEY") != ""
}
