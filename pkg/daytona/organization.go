package daytona

import (
	"context"
	"errors"
	"net/http"

	api "github.com/daytonaio/daytona/libs/api-client-go"
)

// organization is the part of an organization that is used. Newer servers omit or rename other fields.
type organization struct {
	ID                  string  `json:"id"`
	DefaultRegionID     string  `json:"defaultRegionId"`
	MaxCPUPerSandbox    float64 `json:"maxCpuPerSandbox"`
	MaxMemoryPerSandbox float64 `json:"maxMemoryPerSandbox"`
	MaxDiskPerSandbox   float64 `json:"maxDiskPerSandbox"`
}

func (o organization) check() error { return require(field{"id", o.ID}) }

// readOrganization requires a user's token: Daytona rejects an API key and records a failed login.
func (c *Client) readOrganization(ctx context.Context) (organization, error) {
	if c.Organization == "" {
		return organization{}, errors.New("a Daytona user token requires an organization " +
			"(set daytona_organization_id, or use an API key)")
	}
	return do[organization](ctx, c, call{op: "read organization " + c.Organization},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.OrganizationsAPI.GetOrganization(ctx, c.Organization).Execute())
		})
}
