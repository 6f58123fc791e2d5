// Package daytona manages snapshots at Daytona: access to its registry, and creating, finding and deleting snapshots.
//
// It wraps Daytona's own client of https://www.daytona.io/docs/en/tools/api. Behavior that this does not document was
// read in the server v0.190.0 (https://github.com/daytonaio/daytona, apps/api/src); comments name the file.
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

// Permissions that a key needs to push an image and create a snapshot of it, and to delete a snapshot.
const (
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
)

// Client calls the API on behalf of one organization. Each call has a deadline and is retried where that is safe.
type Client struct {
	URL          string       // "": DefaultURL
	Key          string       // an API key, or a user's token (a JWT)
	Organization string       // its ID; required with a user's token, while a key belongs to one organization
	Mask         func(string) // receives each secret before it is used elsewhere; may be nil

	HTTP   httpclient.Config
	Timing Timing
}

// Timing bounds operations of more than one call. A zero field means the default.
type Timing struct {
	MinPoll       time.Duration // the first interval of polling; it grows; 200 ms
	MaxPoll       time.Duration // the longest interval of polling; 5 s
	Outage        time.Duration // how long Daytona may fail to answer while it is polled; 2 min
	ImageVisible  time.Duration // how long a pushed image may stay invisible in the registry; 2 min
	AnswerGrace   time.Duration // how long a canceled Create waits for the answer; 2 s
	WithdrawGrace time.Duration // how long a canceled Create then takes to delete what it created; 2 s
}

func (t Timing) withDefaults() Timing {
	t.MinPoll = cmp.Or(t.MinPoll, 200*time.Millisecond)
	t.MaxPoll = cmp.Or(t.MaxPoll, 5*time.Second)
	t.Outage = cmp.Or(t.Outage, 2*time.Minute)
	t.ImageVisible = cmp.Or(t.ImageVisible, 2*time.Minute)
	t.AnswerGrace = cmp.Or(t.AnswerGrace, 2*time.Second)
	t.WithdrawGrace = cmp.Or(t.WithdrawGrace, 2*time.Second)
	return t
}

// Key describes the credential of a client.
type Key struct {
	Name        string    // "" for a user's token
	Permissions []string  // nil for a user's token
	Expires     time.Time // zero: never, or unknown
	isUser      bool
}

// Missing returns the permissions that the key lacks. Those of a user are not known in advance: it returns none.
func (k Key) Missing(permissions ...string) []string {
	var missing []string
	for _, p := range permissions {
		if !k.isUser && !slices.Contains(k.Permissions, p) {
			missing = append(missing, p)
		}
	}
	return missing
}

// CurrentKey checks that the key is valid and belongs to c.Organization, if that is set. Daytona shows a key's
// organization only in its snapshots, so the check succeeds in an organization without any; Create checks again.
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
		"(use a key of that organization, or correct DAYTONA_ORG_ID)", actual, c.Organization)
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

// Region is a location of snapshots and sandboxes.
type Region struct{ ID, Name string }

// Regions lists the regions that the organization may use.
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

// Region finds a region of the organization by ID or name. For "", the default region, it returns a zero Region.
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
	return Region{}, fmt.Errorf("unknown region %q (use one of %s, or none for the default)",
		wanted, strings.Join(ids, ", "))
}

// PushAccess is a temporary account that may push to Registry/Project/NAME:TAG and read from there.
type PushAccess struct {
	Registry string // host[:port]
	Project  string
	User     string
	Secret   string
	Expires  time.Time
}

// PushAccess requests access to the registry of a region; "" is the organization's default.
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
		access.Expires = c.clock().Now().Add(time.Hour) // what Daytona grants
	}
	return access, nil
}

var jwt = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// isUser reports whether the key is a user's token, the only kind with which the API accepts the organization header.
func (c *Client) isUser() bool { return jwt.MatchString(c.Key) }
