package daytona

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"
)

// Key describes the API key or user token of a client.
type Key struct {
	Name        string    // "" for a user's token
	Permissions []string  // nil for a user's token
	Expires     time.Time // zero if never or unknown
	isUser      bool
}

// Missing returns the permissions that the key lacks. The permissions of a user's token are unknown: it returns nil.
func (k Key) Missing(permissions ...string) []string {
	var missing []string
	for _, p := range permissions {
		if !k.isUser && !slices.Contains(k.Permissions, p) {
			missing = append(missing, p)
		}
	}
	return missing
}

// currentKey is the response to a request for the key in use.
type currentKey struct {
	Name        string    `json:"name"`
	Permissions []string  `json:"permissions"`
	ExpiresAt   time.Time `json:"expiresAt"` // null if never
}

func (k currentKey) check() error {
	if k.Permissions == nil {
		return errors.New("permissions are missing")
	}
	return nil
}

// CurrentKey checks that the key is valid and belongs to c.Organization, if that is set. Only snapshots show a key's
// organization, so this check succeeds in an organization without snapshots; Create checks again.
func (c *Client) CurrentKey(ctx context.Context) (Key, error) {
	if c.isUser() {
		_, err := c.readOrganization(ctx)
		return Key{isUser: true}, err
	}
	found, err := do[currentKey](ctx, c, call{op: "check the Daytona API key"},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.ApiKeysAPI.GetCurrentApiKey(ctx).Execute())
		})
	if err != nil {
		return Key{}, err
	}
	key := Key{Name: found.Name, Permissions: found.Permissions, Expires: found.ExpiresAt}
	if c.Organization == "" {
		return key, nil
	}
	page, err := c.page(ctx, "", 1, 1)
	if err != nil {
		return key, err
	}
	for _, item := range page.Items {
		if !item.General && item.OrganizationID != c.Organization {
			return key, c.wrongOrganization(item.OrganizationID)
		}
	}
	return key, nil
}

func (c *Client) wrongOrganization(actual string) error {
	return fmt.Errorf("the Daytona API key belongs to organization %s, not to %s "+
		"(use a key of organization %[2]s, or correct DAYTONA_ORG_ID)", actual, c.Organization)
}
