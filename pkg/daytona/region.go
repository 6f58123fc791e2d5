package daytona

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	api "github.com/daytonaio/daytona/libs/api-client-go"
)

// Region is a location for snapshots and sandboxes.
type Region struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type regionList []Region

func (l regionList) check() error {
	if l == nil {
		return errors.New("the list is missing")
	}
	for _, r := range l {
		if err := require(field{"id", r.ID}); err != nil {
			return err
		}
	}
	return nil
}

// Regions lists the regions available to the organization.
func (c *Client) Regions(ctx context.Context) ([]Region, error) {
	return do[regionList](ctx, c, call{op: "list Daytona regions"},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.OrganizationsAPI.ListAvailableRegions(ctx).Execute())
		})
}

// Region finds a region by ID or name. For "", it returns the zero Region, which means the default region.
func (c *Client) Region(ctx context.Context, wanted string) (Region, error) {
	if wanted == "" {
		return Region{}, nil
	}
	regions, err := c.Regions(ctx)
	if err != nil {
		return Region{}, err
	}
	var ids []string
	for _, r := range regions {
		if r.ID == wanted || strings.EqualFold(r.Name, wanted) {
			return r, nil
		}
		ids = append(ids, r.ID)
	}
	return Region{}, fmt.Errorf("unknown region %q (use one of %s, or leave it empty for the default)",
		wanted, strings.Join(ids, ", "))
}

// DefaultRegion returns the ID of the organization's default region, in which Daytona creates a snapshot if the request
// names no region, or "" if it is unknown. Only a user's token can read it; with an API key, it is known if only one
// region is available.
//
// An organization's default region never changes once it is set (setDefaultRegion in
// apps/api/src/organization/services/organization.service.ts).
func (c *Client) DefaultRegion(ctx context.Context) (string, error) {
	if c.isUser() {
		o, err := c.readOrganization(ctx)
		return o.DefaultRegionID, err
	}
	regions, err := c.Regions(ctx)
	if err != nil || len(regions) != 1 {
		return "", err
	}
	return regions[0].ID, nil
}
