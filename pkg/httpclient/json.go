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

// JSONCall is one call.
type JSONCall struct {
	Op         string   // for errors: "list regions"
	Method     string   // "": GET
	Path       string   // with the query; appended to the service's URL
	Token      string   // sent as a bearer token; "": none
	Body       any      // sent as JSON; nil: none
	Idempotent bool     // safe to repeat although its method is POST or PATCH
	Hints      []Hint   // before the service's own
	Secrets    []string // beside Token, what errors must not show
}

// Do makes the call and decodes the answer into answer; nil ignores its content. The error is an *[APIError], or the
// cause of ctx when that has ended.
func (c JSONClient) Do(ctx context.Context, call JSONCall, answer any) error {
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
	if answer == nil {
		return nil
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return fail(nil, err)
	}
	if err := json.Unmarshal(data, answer); err != nil {
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
