package doppler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// DefaultHost is the base URL of Doppler's API.
const DefaultHost = "https://api.doppler.com"

const writeHint = "use a token with read/write access to that config, or disable update_doppler (--no-update-doppler)"

var (
	// outageHints apply to every call.
	outageHints = []httpclient.Hint{
		{On: httpclient.NoResponse, Text: "check the network, DOPPLER_API_HOST and https://www.dopplerstatus.com"},
		{On: httpclient.BadFormat, Text: "check DOPPLER_API_HOST and any proxy"},
		{On: http.StatusTooManyRequests, Text: "try again in a minute"},
		{On: httpclient.ServerErrors, Text: "try again later; see https://www.dopplerstatus.com"},
	}
	configHints = append(slices.Clone(outageHints), []httpclient.Hint{
		{On: httpclient.Any, Message: writeDenied, Text: writeHint},
		{On: http.StatusForbidden, Text: "grant the token's account access to the config, or use another config"},
		{On: httpclient.Any, Text: "check doppler_project and doppler_config"},
	}...)
)

// hints returns the hints for calls for the config.
func (c Client) hints() []httpclient.Hint {
	return append([]httpclient.Hint{{
		On: http.StatusUnauthorized, Text: "replace the token in " + cmp.Or(c.TokenSource, "doppler_token"),
	}}, configHints...)
}

// api returns a client for API calls.
func (c Client) api(hints []httpclient.Hint) httpclient.JSONClient {
	host := c.Host
	if host == "" {
		host = DefaultHost
	}
	return httpclient.JSONClient{
		HTTP: c.HTTP.Client(),
		Service: httpclient.Service{
			Name: "Doppler", URL: strings.TrimRight(host, "/"), Hints: hints, Message: errorMessage, Clock: c.HTTP.Clock,
		},
	}
}

// errorMessage extracts the messages from {"messages": […], "success": false}.
func errorMessage(body []byte) (string, bool) {
	var answer struct {
		Messages []string `json:"messages"`
	}
	err := json.Unmarshal(body, &answer)
	return strings.Join(answer.Messages, "; "), err == nil && answer.Messages != nil
}

// call describes a call for the config. All calls are safe to retry: a write contains the value that it expects to
// replace, and is rejected if it has already been applied.
func (c Client) call(op, method, path string, query url.Values) httpclient.JSONCall {
	if query == nil {
		query = url.Values{}
	}
	for name, value := range map[string]string{"project": c.Project, "config": c.Config} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return httpclient.JSONCall{Op: op, Method: method, Path: path, Idempotent: true}
}

// do makes a call and decodes the response. If Doppler rejects the token, do retries with a renewed one. API errors are
// *[httpclient.APIError].
func (c Client) do(ctx context.Context, call httpclient.JSONCall, answer any) error {
	call.Token = c.Token
	err := c.api(c.hints()).Do(ctx, call, answer)
	if httpclient.Status(err) == http.StatusUnauthorized && c.Renew != nil {
		if call.Token, err = c.Renew(ctx); err != nil {
			return err
		}
		err = c.api(c.hints()).Do(ctx, call, answer)
	}
	if failed, ok := errors.AsType[*httpclient.APIError](err); ok && isNotFound(err) {
		failed.Hint = c.locationHint(ctx, call)
	}
	return err
}

// Doppler documents neither the statuses nor the messages of its errors, and sends no codes. These are substrings of
// observed messages.
const (
	writeDenied     = "write access"
	accessDenied    = "does not have access"
	locationMissing = "must specify"
)

// isNotFound reports whether a project or config does not exist or is not visible to the token: Doppler returns 404, or
// 400 with one of two messages.
func isNotFound(err error) bool {
	failed, ok := dopplerError(err)
	switch {
	case !ok:
		return false
	case failed.Status == http.StatusBadRequest:
		return strings.Contains(failed.Message, accessDenied) || strings.Contains(failed.Message, locationMissing)
	}
	return failed.Status == http.StatusNotFound
}

// isDenied reports whether the token has no access to the requested resource.
func isDenied(err error) bool {
	failed, ok := dopplerError(err)
	return ok && (failed.Status == http.StatusForbidden || isNotFound(err))
}

// isRejected reports whether Doppler rejected the content of a request, rather than the token or the request rate.
func isRejected(err error) bool {
	failed, ok := dopplerError(err)
	return ok && failed.Status < 500 && failed.Status != http.StatusUnauthorized &&
		failed.Status != http.StatusTooManyRequests && !isDenied(err) && !strings.Contains(failed.Message, writeDenied)
}

// dopplerError returns err as an APIError if it is a response from Doppler rather than from a proxy.
func dopplerError(err error) (*httpclient.APIError, bool) {
	failed, ok := errors.AsType[*httpclient.APIError](err)
	return failed, ok && failed.Status != 0 && !errors.Is(err, httpclient.ErrFormat)
}

// formatError returns the error for a successful response that lacks required fields.
func formatError(op, problem string) error {
	return &httpclient.APIError{
		Service: "Doppler", Op: op, Status: http.StatusOK, Message: problem, Err: httpclient.ErrFormat,
		Hint: "check DOPPLER_API_HOST and any proxy",
	}
}

// servicePrefix begins a service token: https://docs.doppler.com/reference/auth-token-formats
const servicePrefix = "dp.st."

// IsServiceToken reports whether a token can access only one config, which it implies.
func IsServiceToken(token string) bool { return strings.HasPrefix(token, servicePrefix) }

// locationHint returns the hint for a project or config that does not exist or is not visible to the token.
func (c Client) locationHint(ctx context.Context, call httpclient.JSONCall) string {
	switch {
	case IsServiceToken(call.Token):
		config := ""
		if name, _, ok := strings.Cut(strings.TrimPrefix(call.Token, servicePrefix), "."); ok {
			config = " " + strconv.Quote(name)
		}
		return "a service token can access only its own config" + config +
			": correct or omit doppler_project and doppler_config, or use a token of that config"
	case c.Project == "":
		return "set doppler_project and doppler_config: only a service token implies them"
	}
	c.Token, c.Renew = call.Token, nil
	for _, level := range []struct {
		kind, input string
		query       url.Values
	}{
		{"configs", "doppler_config", url.Values{"project": {c.Project}}},
		{"projects", "doppler_project", url.Values{}},
	} {
		if strings.HasPrefix(call.Path, "/v3/"+level.kind+"?") {
			break // this is the call that failed
		}
		names, err := c.list(ctx, level.kind, level.query)
		if err == nil && len(names) > 0 {
			slices.Sort(names)
			return fmt.Sprintf("check %s; visible to the token: %s", level.input, quoted(names))
		}
	}
	return "check doppler_project and doppler_config, and that the token can access them"
}

func quoted(names []string) string {
	const limit = 12
	var list []string
	for _, name := range names[:min(len(names), limit)] {
		list = append(list, strconv.Quote(name))
	}
	if len(names) > limit {
		list = append(list, "…")
	}
	return strings.Join(list, ", ")
}
