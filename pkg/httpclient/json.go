package httpclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// JSONClient makes JSON calls to one service.
type JSONClient struct {
	Service
	HTTP *http.Client // from [Config.Client]
}

// JSONCall describes one call.
type JSONCall struct {
	Op         string   // for errors: "list regions"
	Method     string   // "" means GET
	Path       string   // including the query; appended to the service's URL
	Token      string   // sent as a bearer token; "" for none
	Body       any      // sent as JSON; nil for none
	Idempotent bool     // safe to retry even if the method is POST or PATCH
	Hints      []Hint   // take precedence over the service's own
	Secrets    []string // to remove from errors, in addition to Token
}

// Do makes the call and decodes the response into result, unless that is nil. It returns an *[APIError] if the call
// fails, or the cause of ctx if ctx has ended.
func (c JSONClient) Do(ctx context.Context, call JSONCall, result any) error {
	secrets := append(slices.Clone(call.Secrets), call.Token)
	fail := func(response *http.Response, err error) error {
		return c.Failure(ctx, call.Op, response, err, secrets, call.Hints...)
	}
	request, err := c.request(ctx, call)
	if err != nil {
		return fmt.Errorf("%s: %w", call.Op, err)
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return fail(nil, err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fail(response, nil)
	}
	if result == nil {
		return nil
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return fail(nil, err)
	}
	if err := json.Unmarshal(data, result); err != nil {
		response.Body = io.NopCloser(bytes.NewReader(data))
		return fail(response, err)
	}
	return nil
}

func (c JSONClient) request(ctx context.Context, call JSONCall) (*http.Request, error) {
	var body []byte
	if call.Body != nil {
		var err error
		if body, err = json.Marshal(call.Body); err != nil {
			return nil, err
		}
	}
	if call.Idempotent {
		ctx = Idempotent(ctx)
	}
	address := strings.TrimRight(c.URL, "/") + call.Path
	request, err := http.NewRequestWithContext(ctx, call.Method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if call.Body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if call.Token != "" {
		request.Header.Set("Authorization", "Bearer "+call.Token)
	}
	return request, nil
}
