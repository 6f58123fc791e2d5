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
	Removal       time.Duration // how long to wait until a deleted snapshot is gone; default 90 s
	ResponseGrace time.Duration // how long a canceled Create waits for the response; default 2 s
	CleanupGrace  time.Duration // how long Remove continues after its context has ended; default 4 s
}

func (t Timing) withDefaults() Timing {
	t.MinPoll = cmp.Or(t.MinPoll, 200*time.Millisecond)
	t.MaxPoll = cmp.Or(t.MaxPoll, 5*time.Second)
	t.Outage = cmp.Or(t.Outage, 2*time.Minute)
	t.ImageVisible = cmp.Or(t.ImageVisible, 2*time.Minute)
	t.Removal = cmp.Or(t.Removal, 90*time.Second)
	t.ResponseGrace = cmp.Or(t.ResponseGrace, 2*time.Second)
	t.CleanupGrace = cmp.Or(t.CleanupGrace, 4*time.Second)
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

var jwt = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// isUser reports whether the key is a user's token. The API accepts the organization header only with such a token.
func (c *Client) isUser() bool { return jwt.MatchString(c.Key) }
