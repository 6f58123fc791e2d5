// Package daytona makes snapshots of images at Daytona: access to its registry, and the life of a snapshot.
//
// The API is https://www.daytona.io/docs/en/tools/api, spoken through its own client; how it behaves beyond that was read in the server
// v0.190.0 (https://github.com/daytonaio/daytona, apps/api/src), which is named where it matters.
package daytona

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"
	api "github.com/daytonaio/daytona/libs/api-client-go"
)

// DefaultURL is where Daytona's API is.
const DefaultURL = "https://app.daytona.io/api"

// Permissions that a key needs: to push an image and make a snapshot of it, and to delete one.
const (
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
)

// Client speaks for one organization. Its calls have deadlines, and are repeated where that is safe and may help.
type Client struct {
	URL          string       // "" for DefaultURL
	Key          string       // an API key, or a user's token (a JWT)
	Organization string       // its ID: needed with a user's token; a key belongs to one organization
	Mask         func(string) // is told each secret that is received, before anything else knows it; may be nil
}

// Me is who the client speaks for.
type Me struct {
	Name        string    // of the key; "" of a user
	Permissions []string  // of the key
	Expires     time.Time // zero: never, or not known
	user        bool
}

// Missing lists which of the permissions the key does not have. What a user may do is not known before it is tried.
func (m Me) Missing(permissions ...string) []string {
	if m.user {
		return nil
	}
	return slices.DeleteFunc(permissions, func(p string) bool { return slices.Contains(m.Permissions, p) })
}

// Me asks whether the key is good, what it may do, and whether it is one of c.Organization. The last can be told of a key only if the
// organization has a snapshot.
func (c *Client) Me(ctx context.Context) (Me, error) {
	if c.user() {
		_, err := c.organization(ctx)
		return Me{user: true}, err
	}
	key, err := ask(ctx, c, call{doing: "check the Daytona key"}, func(ctx context.Context, a *api.APIClient) (*api.ApiKeyList, *http.Response, error) {
		return a.ApiKeysAPI.GetCurrentApiKey(ctx).Execute()
	})
	if err != nil {
		return Me{}, err
	}
	me := Me{Name: key.Name, Permissions: key.Permissions}
	if expires := key.ExpiresAt.Get(); expires != nil {
		me.Expires = *expires
	}
	if c.Organization == "" {
		return me, nil
	}
	page, err := c.page(ctx, "", 1, 1)
	if err != nil {
		return me, err
	}
	for _, item := range page.Items {
		if !item.General && item.GetOrganizationId() != c.Organization {
			return me, fmt.Errorf("the Daytona key is one of the organization %s, not of %s: give the key of the right organization, or correct DAYTONA_ORG_ID", item.GetOrganizationId(), c.Organization)
		}
	}
	return me, nil
}

func (c *Client) organization(ctx context.Context) (*api.Organization, error) {
	if c.Organization == "" {
		return nil, errors.New("a user's token needs an organization: give daytona_organization_id, or use an API key, which belongs to one")
	}
	return ask(ctx, c, call{doing: "read the organization " + c.Organization}, func(ctx context.Context, a *api.APIClient) (*api.Organization, *http.Response, error) {
		return a.OrganizationsAPI.GetOrganization(ctx, c.Organization).Execute()
	})
}

// Region is where snapshots and sandboxes can be.
type Region struct{ ID, Name string }

// Regions are those that the organization may use.
func (c *Client) Regions(ctx context.Context) ([]Region, error) {
	found, err := ask(ctx, c, call{doing: "list Daytona's regions"}, func(ctx context.Context, a *api.APIClient) (*[]api.Region, *http.Response, error) {
		r := a.OrganizationsAPI.ListAvailableRegions(ctx)
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		return pointer(r.Execute())
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

// Region finds one that the organization may use, by its ID or its name; "" is the default one, which stays "".
func (c *Client) Region(ctx context.Context, wanted string) (Region, error) {
	if wanted == "" {
		return Region{}, nil
	}
	regions, err := c.Regions(ctx)
	if err != nil {
		return Region{}, err
	}
	var names []string
	for _, r := range regions {
		if r.ID == wanted || strings.EqualFold(r.Name, wanted) {
			return r, nil
		}
		names = append(names, r.ID)
	}
	return Region{}, fmt.Errorf("the organization has no region %q: give one of %s, or none for the default one", wanted, strings.Join(names, ", "))
}

// pointer makes a slice that may be missing one like all other answers.
func pointer[T any](list []T, r *http.Response, err error) (*[]T, *http.Response, error) {
	if list == nil {
		return nil, r, err
	}
	return &list, r, err
}

// PushAccess lets an image be pushed to Registry/Project/NAME:TAG, and be looked at there.
type PushAccess struct {
	Registry string // host[:port]
	Project  string
	User     string
	Secret   string
	Expires  time.Time
}

// PushAccess asks for access to the registry of a region; "" is the organization's default.
func (c *Client) PushAccess(ctx context.Context, region string) (PushAccess, error) {
	doing := "ask Daytona for access to its registry"
	got, err := ask(ctx, c, call{doing: doing, permission: WriteSnapshots}, func(ctx context.Context, a *api.APIClient) (*api.RegistryPushAccessDto, *http.Response, error) {
		r := a.DockerRegistryAPI.GetTransientPushAccess(ctx)
		if region != "" {
			r = r.RegionId(region)
		}
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		return r.Execute()
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
		return PushAccess{}, fmt.Errorf("%s: the answer of %s names no registry: check DAYTONA_API_URL", doing, c.base())
	}
	if access.Expires, err = time.Parse(time.RFC3339, got.ExpiresAt); err != nil {
		access.Expires = time.Now().Add(time.Hour) // what Daytona grants
	}
	return access, nil
}

func (c *Client) base() string { return strings.TrimRight(cmp.Or(c.URL, DefaultURL), "/") }

var jwt = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// user reports whether the key is a user's token, which alone needs the header that names an organization.
func (c *Client) user() bool { return jwt.MatchString(c.Key) }

const (
	maxTries    = 4
	longestWait = 60 // seconds of a Retry-After: Daytona counts by the minute
)

// Variables for tests.
var (
	callTimeout = 20 * time.Second
	firstWait   = 300 * time.Millisecond // before the second try; it doubles
)

// httpClient follows no redirect: the key is for this host.
var httpClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// call says what a call is for.
type call struct {
	doing      string // "make the snapshot x"
	permission string // that it needs; "" is none
	once       bool   // it is not repeated when it may have been carried out
	missing    string // the cure when something is not found
}

// ask makes one call, again when that may help: reading is safe to repeat.
func ask[T any](ctx context.Context, c *Client, about call, send func(context.Context, *api.APIClient) (*T, *http.Response, error)) (*T, error) {
	if c.Key == "" {
		return nil, fmt.Errorf("%s: there is no key: give daytona_api_key, set DAYTONA_API_KEY, or keep it in the Doppler config", about.doing)
	}
	configuration := api.NewConfiguration()
	configuration.Servers = api.ServerConfigurations{{URL: c.base()}}
	configuration.HTTPClient = httpClient
	configuration.UserAgent = "sandbox-actions"
	configuration.AddDefaultHeader("Authorization", "Bearer "+c.Key)
	client := api.NewAPIClient(configuration)
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	got, err := backoff.Retry(ctx, func() (*T, error) {
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		got, response, err := send(limited, client)
		if err == nil && got != nil {
			return got, nil
		}
		failed := refusal(c, about, response, err)
		switch {
		case response == nil || failed.Status >= 500:
			if about.once {
				return nil, backoff.Permanent(failed)
			}
			return nil, failed
		case failed.Status == http.StatusTooManyRequests:
			if seconds := retryAfter(response.Header); seconds > longestWait {
				return nil, backoff.Permanent(failed)
			} else if seconds > 0 {
				return nil, errors.Join(failed, backoff.RetryAfter(seconds))
			}
			return nil, failed
		}
		return nil, backoff.Permanent(failed)
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries))
	if err == nil {
		return got, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if failed := new(Error); errors.As(err, &failed) {
		return nil, failed
	}
	return nil, err
}

// retryAfter is how many seconds to wait. Daytona names the limit that is reached in the header: Retry-After-authenticated.
func retryAfter(header http.Header) int {
	longest := 0
	for name, values := range header {
		if name == "Retry-After" || strings.HasPrefix(name, "Retry-After-") {
			seconds, _ := strconv.Atoi(values[0])
			longest = max(longest, seconds)
		}
	}
	return longest
}

// Error is a call that did not succeed.
type Error struct {
	Status  int    // of HTTP; 0 when there was no answer
	Message string // Daytona's, on one line; else what is wrong with the answer
	Doing   string // what the call was for
	Cure    string // what to do
	err     error
}

func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("%s: %s: %s", e.Doing, e.Message, e.Cure)
	}
	return fmt.Sprintf("%s: Daytona answered %d, %s: %s", e.Doing, e.Status, e.Message, e.Cure)
}

func (e *Error) Unwrap() error { return e.err }

// refusal says why a call failed, and what to do.
func refusal(c *Client, about call, response *http.Response, err error) *Error {
	e := &Error{Doing: about.doing, err: err}
	if response == nil {
		e.Message, e.Cure = fmt.Sprintf("%s can not be reached (%v)", c.base(), err), "check the network and DAYTONA_API_URL"
		if errors.Is(err, context.DeadlineExceeded) {
			e.Message, e.Cure = fmt.Sprintf("%s did not answer within %s", c.base(), callTimeout), "check the network and https://status.daytona.io"
		}
		return e
	}
	e.Status = response.StatusCode
	var known bool
	if e.Message, known = message(response); !known {
		e.Message = "which is not Daytona's way of answering"
		if e.Status < 500 {
			e.Cure = fmt.Sprintf("check DAYTONA_API_URL (%s), which ends in /api", c.base())
			return e
		}
	}
	switch {
	case e.Status == http.StatusUnauthorized:
		e.Cure = "give a daytona_api_key that is valid and has not expired (https://app.daytona.io/dashboard/keys makes one)"
	case e.Status == http.StatusForbidden && about.permission != "" && e.Message == "Access denied":
		e.Cure = "the key lacks the permission " + about.permission + ": make one that has it (https://app.daytona.io/dashboard/keys)"
	case e.Status == http.StatusForbidden:
		e.Cure = "the key or its user is not one of that organization, or the organization may not do it: look at https://app.daytona.io/dashboard"
	case e.Status == http.StatusNotFound:
		e.Cure = cmp.Or(about.missing, "check DAYTONA_API_URL and the organization")
	case e.Status == http.StatusConflict:
		e.Cure = "it is taken or in use: choose another name, or try again when it is free"
	case e.Status == http.StatusTooManyRequests:
		e.Cure = "Daytona asks to slow down: try again in a minute"
	case e.Status >= 500 && about.once:
		e.Cure = "try again later (https://status.daytona.io)"
	case e.Status >= 500:
		e.Cure = fmt.Sprintf("it failed %d times: try again later (https://status.daytona.io)", maxTries)
	default:
		e.Cure = "correct that input"
	}
	return e
}

// message is what Daytona says in its errors, {path, timestamp, statusCode, error, message}. Anything else is not known.
func message(response *http.Response) (text string, known bool) {
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20)) // the client has put it back
	var body struct {
		Message string `json:"message"`
	}
	if err != nil || response.StatusCode < 400 || json.Unmarshal(data, &body) != nil || body.Message == "" {
		return "", false
	}
	return oneLine(body.Message), true
}

// oneLine is a text of Daytona's as part of a sentence.
func oneLine(text string) string {
	words := strings.FieldsFunc(text, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) })
	text = strings.TrimRight(strings.Join(words, " "), ".:")
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}
