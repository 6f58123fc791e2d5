package credentials

import (
	"cmp"
	"fmt"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// DaytonaSource says how to authenticate to Daytona. Inputs take precedence over Getenv, in which the secrets of a
// Doppler config take precedence over the environment.
type DaytonaSource struct {
	APIKey, OrganizationID, APIURL string // the inputs
	DopplerConfig                  string // for the hint of an error
	Getenv                         func(string) string
	Mask                           func(secret string)
}

// Daytona returns a client with a masked key.
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

// HasDaytonaKey reports whether a key is given: by the input or by DAYTONA_API_KEY.
func HasDaytonaKey(input string, getenv func(string) string) bool {
	return input != "" || getenv("DAYTONA_API_KEY") != ""
}
