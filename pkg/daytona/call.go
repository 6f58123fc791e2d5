package daytona

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

const (
	serviceName = "Daytona"
	userAgent   = "sandbox-actions"
	keysPage    = "https://app.daytona.io/dashboard/keys"
)

// call describes one API call.
type call struct {
	op         string            // for errors: "create snapshot x"
	permission string            // required for the call; "" for none
	hints      []httpclient.Hint // take precedence over those of all calls
	idempotent bool              // whether a POST is safe to retry
}

func (c *Client) url() string { return strings.TrimRight(cmp.Or(c.URL, DefaultURL), "/") }

func (c *Client) clock() httpclient.Clock {
	if c.HTTP.Clock == nil {
		return httpclient.SystemClock{}
	}
	return c.HTTP.Clock
}

func (c *Client) checkURL() string {
	return fmt.Sprintf("check DAYTONA_API_URL (%s), which must end in /api", c.url())
}

func (c *Client) service() httpclient.Service {
	return httpclient.Service{Name: serviceName, URL: c.url(), Clock: c.clock(), Hints: []httpclient.Hint{
		{On: httpclient.NoResponse, Text: "check the network, DAYTONA_API_URL and https://status.daytona.io"},
		{On: httpclient.BadFormat, Text: c.checkURL()},
		{On: http.StatusUnauthorized, Text: "set daytona_api_key to a valid, unexpired key; create one at " +
			keysPage},
		{On: http.StatusForbidden, Text: "check that the key or its user belongs to the organization, and " +
			"that https://app.daytona.io/dashboard shows no problem with the organization"},
		{On: http.StatusNotFound, Text: "check DAYTONA_API_URL and the organization"},
		{On: http.StatusConflict, Text: "choose another name, or try again when the name is available"},
		{On: http.StatusTooManyRequests, Text: "try again in a minute"},
		{On: httpclient.ServerErrors, Text: "try again later; see https://status.daytona.io"},
		{On: httpclient.Any, Text: "correct the input"},
	}}
}

// do makes one call. It returns an *[httpclient.APIError] if the call fails, or the cause of ctx if ctx has ended.
func do[T any](
	ctx context.Context, c *Client, spec call,
	send func(context.Context, *api.APIClient) (*T, *http.Response, error),
) (*T, error) {
	if c.Key == "" {
		return nil, fmt.Errorf("%s: no Daytona API key (set daytona_api_key or DAYTONA_API_KEY, "+
			"or store DAYTONA_API_KEY in the Doppler config)", spec.op)
	}
	configuration := api.NewConfiguration()
	configuration.Servers = api.ServerConfigurations{{URL: c.url()}}
	configuration.HTTPClient = c.HTTP.Client()
	configuration.UserAgent = userAgent
	configuration.AddDefaultHeader("Authorization", "Bearer "+c.Key)
	if c.isUser() {
		configuration.AddDefaultHeader("X-Daytona-Organization-ID", c.Organization)
	}
	attempt := ctx
	if spec.idempotent {
		attempt = httpclient.Idempotent(ctx)
	}
	got, response, err := send(attempt, api.NewAPIClient(configuration))
	if err == nil && got != nil {
		return got, nil
	}
	hints := spec.hints
	if spec.permission != "" {
		hints = append(hints, httpclient.Hint{
			On: http.StatusForbidden, Message: "access denied",
			Text: "use an API key with the " + spec.permission + " permission; create one at " + keysPage,
		})
	}
	return nil, c.service().Failure(ctx, spec.op, response, err, []string{c.Key}, hints...)
}
