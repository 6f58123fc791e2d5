package daytona

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
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
	timeout    time.Duration     // for one request, if the server blocks longer than the client's default
	host       string            // base URL, if it is not that of the API
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
		{On: http.StatusUnauthorized, Text: "replace the key in " + cmp.Or(c.KeySource, "daytona_api_key") +
			"; create one at " + keysPage},
		{On: http.StatusForbidden, Text: "check that the key or its user belongs to the organization, and " +
			"that https://app.daytona.io/dashboard shows no problem with the organization"},
		{On: http.StatusNotFound, Text: "check DAYTONA_API_URL and the organization"},
		{On: http.StatusConflict, Text: "try again later"},
		{On: http.StatusTooManyRequests, Text: "try again in a minute"},
		{On: httpclient.ServerErrors, Text: "try again later; see https://status.daytona.io"},
		{On: httpclient.Any, Text: "correct the input"},
	}}
}

// sendFunc sends a request with the generated client, and returns the response with its body.
type sendFunc func(context.Context, *api.APIClient) (*http.Response, error)

// response drops the model that the generated client decoded. See [do].
func response[T any](_ T, r *http.Response, err error) (*http.Response, error) { return r, err }

// send makes one call. It returns an *[httpclient.APIError] if the call fails, or the cause of ctx if ctx has ended.
func (c *Client) send(ctx context.Context, spec call, send sendFunc) (*http.Response, error) {
	if c.Key == "" {
		return nil, fmt.Errorf("%s: no Daytona API key (set daytona_api_key or DAYTONA_API_KEY, "+
			"or store DAYTONA_API_KEY in the Doppler config)", spec.op)
	}
	configuration := api.NewConfiguration()
	configuration.Servers = api.ServerConfigurations{{URL: c.url()}}
	configuration.HTTPClient = c.config(spec).Client()
	configuration.UserAgent = userAgent
	configuration.AddDefaultHeader("Authorization", "Bearer "+c.Key)
	if c.isUser() {
		configuration.AddDefaultHeader("X-Daytona-Organization-ID", c.Organization)
	}
	attempt := ctx
	if spec.idempotent {
		attempt = httpclient.Idempotent(ctx)
	}
	r, err := send(attempt, api.NewAPIClient(configuration))
	if r == nil || r.StatusCode/100 != 2 {
		return nil, c.failure(ctx, spec, r, err)
	}
	return r, nil
}

// config returns the HTTP configuration of a call.
func (c *Client) config(spec call) httpclient.Config {
	config := c.HTTP
	if config.Policy.Timeout == 0 {
		config.Policy.Timeout = spec.timeout
	}
	return config
}

// do makes one call and decodes the response. It ignores the model of the generated client, which rejects a response
// that lacks any field of its version, and replaces unknown values of enumerations.
func do[T interface{ check() error }](ctx context.Context, c *Client, spec call, send sendFunc) (result T, err error) {
	r, err := c.send(ctx, spec, send)
	if err != nil {
		return result, err
	}
	data, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(data, &result)
	}
	if err == nil {
		err = result.check()
	}
	if err == nil {
		return result, nil
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	if !json.Valid(data) {
		return result, c.failure(ctx, spec, r, err)
	}
	spec.hints = append(spec.hints, httpclient.Hint{On: httpclient.BadFormat, Text: "if " + c.url() + " is Daytona's " +
		"API, update sandbox-actions or report this version of Daytona"})
	failed := c.failure(ctx, spec, r, err)
	if e, ok := errors.AsType[*httpclient.APIError](failed); ok {
		e.Message += ": " + safetext.Line(err.Error(), maxReason)
	}
	return result, failed
}

// field is a field of a response.
type field struct{ name, value string }

// require returns an error for the first field without a value.
func require(fields ...field) error {
	for _, f := range fields {
		if f.value == "" {
			return errors.New(f.name + " is missing")
		}
	}
	return nil
}

// failure returns the error of a failed call, with the explanation of a refusal that is known.
func (c *Client) failure(ctx context.Context, spec call, r *http.Response, err error) error {
	hints := spec.hints
	if spec.permission != "" {
		hints = append(hints, httpclient.Hint{
			On: http.StatusForbidden, Message: "access denied",
			Text: "use an API key with the " + spec.permission + " permission; create one at " + keysPage,
		})
	}
	service := c.service()
	service.URL = cmp.Or(spec.host, service.URL)
	err = service.Failure(ctx, spec.op, r, err, []string{c.Key}, hints...)
	if failed, ok := errors.AsType[*httpclient.APIError](err); ok {
		return explain(failed)
	}
	return err
}
