// Package daytona manages Daytona snapshots: it creates, finds and deletes them, and requests access to the registry.
//
// It wraps Daytona's client for https://www.daytona.io/docs/en/tools/api. Undocumented behavior refers to the source of
// server v0.190.0 (https://github.com/daytonaio/daytona, apps/api/src); comments name the file.
package daytona

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// DefaultURL is the base URL of Daytona's API.
const DefaultURL = "https://app.daytona.io/api"

// Permissions of an API key. WriteSnapshots allows pushing an image and creating a snapshot of it.
const (
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
)

// Client calls the API on behalf of one organization. Each call has a deadline and is retried if that is safe.
type Client struct {
	URL          string       // "" means DefaultURL
	Key          string       // an API key, or a user's token (a JWT)
	Organization string       // ID; required with a user's token, optional with a key, which belongs to one organization
	Mask         func(string) // called with each secret before its first use; may be nil

	HTTP   httpclient.Config
	Timing Timing
}

// Timing configures operations that make several calls. Zero fields mean the defaults.
type Timing struct {
	MinPoll       time.Duration // first polling interval; default 200 ms
	MaxPoll       time.Duration // maximum polling interval; default 5 s
	Outage        time.Duration // how long polling tolerates failing requests; default 2 min
	ImageVisible  time.Duration // how long to wait for a pushed image in the registry; default 2 min
	ResponseGrace time.Duration // how long a canceled Create waits for the response; default 2 s
	CleanupGrace  time.Duration // how long a canceled Create then has to delete what it created; default 2 s
}

func (t Timing) withDefaults() Timing {
	t.MinPoll = cmp.Or(t.MinPoll, 200*time.Millisecond)
	t.MaxPoll = cmp.Or(t.MaxPoll, 5*time.Second)
	t.Outage = cmp.Or(t.Outage, 2*time.Minute)
	t.ImageVisible = cmp.Or(t.ImageVisible, 2*time.Minute)
	t.ResponseGrace = cmp.Or(t.ResponseGrace, 2*time.Second)
	t.CleanupGrace = cmp.Or(t.CleanupGrace, 2*time.Second)
	return t
}

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

// CurrentKey checks that the key is valid and belongs to c.Organization, if that is set. Only snapshots show a key's
// organization, so this check succeeds in an organization without snapshots; Create checks again.
func (c *Client) CurrentKey(ctx context.Context) (Key, error) {
	if c.isUser() {
		_, err := c.organization(ctx)
		return Key{isUser: true}, err
	}
	found, err := do(ctx, c, call{op: "check the Daytona API key"},
		func(ctx context.Context, a *api.APIClient) (*api.ApiKeyList, *http.Response, error) {
			return a.ApiKeysAPI.GetCurrentApiKey(ctx).Execute()
		})
	if err != nil {
		return Key{}, err
	}
	key := Key{Name: found.Name, Permissions: found.Permissions}
	if expires := found.ExpiresAt.Get(); expires != nil {
		key.Expires = *expires
	}
	if c.Organization == "" {
		return key, nil
	}
	page, err := c.page(ctx, "", 1, 1)
	if err != nil {
		return key, err
	}
	for _, item := range page.Items {
		if !item.General && item.GetOrganizationId() != c.Organization {
			return key, c.wrongOrganization(item.GetOrganizationId())
		}
	}
	return key, nil
}

func (c *Client) wrongOrganization(actual string) error {
	return fmt.Errorf("the Daytona API key belongs to organization %s, not to %s "+
		"(use a key of organization %[2]s, or correct DAYTONA_ORG_ID)", actual, c.Organization)
}

func (c *Client) organization(ctx context.Context) (*api.Organization, error) {
	if c.Organization == "" {
		return nil, errors.New("a Daytona user token requires an organization " +
			"(set daytona_organization_id, or use an API key)")
	}
	return do(ctx, c, call{op: "read organization " + c.Organization},
		func(ctx context.Context, a *api.APIClient) (*api.Organization, *http.Response, error) {
			return a.OrganizationsAPI.GetOrganization(ctx, c.Organization).Execute()
		})
}

// Region is a location for snapshots and sandboxes.
type Region struct{ ID, Name string }

// Regions lists the regions available to the organization.
func (c *Client) Regions(ctx context.Context) ([]Region, error) {
	found, err := do(ctx, c, call{op: "list Daytona regions"},
		func(ctx context.Context, a *api.APIClient) (*[]api.Region, *http.Response, error) {
			list, response, err := a.OrganizationsAPI.ListAvailableRegions(ctx).Execute()
			if list == nil {
				return nil, response, err
			}
			return &list, response, err
		})
	if err != nil {
		return nil, err
	}
	regions := []Region{}
	for _, r := range *found {
		regions = append(regions, Region{r.Id, r.Name})
	}
	return regions, nil
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

// PushAccess is a temporary account for pushing to and pulling from Registry/Project/NAME:TAG.
type PushAccess struct {
	Registry string // host[:port]
	Project  string
	User     string
	Secret   string
	Expires  time.Time
}

// PushAccess requests access to the registry of a region; "" means the organization's default region.
func (c *Client) PushAccess(ctx context.Context, region string) (PushAccess, error) {
	const op = "request access to Daytona's registry"
	got, err := do(ctx, c, call{op: op, permission: WriteSnapshots},
		func(ctx context.Context, a *api.APIClient) (*api.RegistryPushAccessDto, *http.Response, error) {
			request := a.DockerRegistryAPI.GetTransientPushAccess(ctx)
			if region != "" {
				request = request.RegionId(region)
			}
			return request.Execute()
		})
	if err != nil {
		return PushAccess{}, err
	}
	if c.Mask != nil && got.Secret != "" {
		c.Mask(got.Secret)
	}
	access := PushAccess{Registry: got.RegistryUrl, Project: got.Project, User: got.Username, Secret: got.Secret}
	if _, host, ok := strings.Cut(access.Registry, "://"); ok {
		access.Registry = host
	}
	if access.Registry == "" || access.Project == "" || access.Secret == "" {
		return PushAccess{}, &httpclient.APIError{
			Service: serviceName, Op: op, Status: http.StatusOK, Err: httpclient.ErrFormat,
			Message: "the response lacks the registry, the project or the secret", Hint: c.checkURL(),
		}
	}
	if access.Expires, err = time.Parse(time.RFC3339, got.ExpiresAt); err != nil {
		access.Expires = c.clock().Now().Add(time.Hour) // the lifetime that Daytona grants
	}
	return access, nil
}

var jwt = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// isUser reports whether the key is a user's token. The API accepts the organization header only with such a token.
func (c *Client) isUser() bool { return jwt.MatchString(c.Key) }
