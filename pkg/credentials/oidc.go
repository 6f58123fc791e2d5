package credentials

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// ErrNoIDToken means that the job cannot request an OIDC token because it lacks the permission id-token: write.
var ErrNoIDToken = errors.New("no OIDC token available: add `permissions: id-token: write` to the job " +
	"(and `contents: read`: permissions that are not listed default to none)")

// OIDC requests OIDC tokens from the Actions runner: GitHub's, or Depot CI's, which offers the same interface.
// https://docs.github.com/en/actions/reference/security/oidc and https://depot.dev/docs/ci/oidc
type OIDC struct {
	RequestURL   string              // ACTIONS_ID_TOKEN_REQUEST_URL
	RequestToken string              // ACTIONS_ID_TOKEN_REQUEST_TOKEN
	Mask         func(secret string) // called with each secret before its first use; may be nil
	HTTP         httpclient.Config
}

// NewOIDC reads the variables that the Actions runner sets for a job with the permission id-token: write.
func NewOIDC(getenv func(string) string, mask func(secret string)) OIDC {
	return OIDC{
		RequestURL:   getenv("ACTIONS_ID_TOKEN_REQUEST_URL"),
		RequestToken: getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
		Mask:         mask,
	}
}

// Available reports whether the job can request tokens.
func (o OIDC) Available() bool { return o.RequestURL != "" && o.RequestToken != "" }

// Token requests an OIDC token for audience and masks it. It returns [ErrNoIDToken] if the job cannot request one, the
// cause of ctx if ctx has ended, or an *[httpclient.APIError].
func (o OIDC) Token(ctx context.Context, audience string) (string, error) {
	if !o.Available() {
		return "", ErrNoIDToken
	}
	o.mask(o.RequestToken)
	op := "request an OIDC token for " + audience
	address, err := url.Parse(o.RequestURL)
	if err != nil {
		return "", fmt.Errorf("%s: parse ACTIONS_ID_TOKEN_REQUEST_URL: %w", op, err)
	}
	query := address.Query()
	query.Set("audience", audience)
	address.RawQuery = ""
	github := httpclient.JSONClient{
		Service: httpclient.Service{
			Name: issuerName(address), URL: address.String(), Clock: o.HTTP.Clock,
			Hints: []httpclient.Hint{
				{On: httpclient.NoResponse, Text: "check the network of the runner, and rerun the job"},
				{On: httpclient.Any, Text: "rerun the job"},
			},
		},
		HTTP: o.HTTP.Client(),
	}
	var answer struct {
		Value string `json:"value"`
	}
	call := httpclient.JSONCall{Op: op, Path: "?" + query.Encode(), Token: o.RequestToken}
	if err := github.Do(ctx, call, &answer); err != nil {
		return "", err
	}
	if answer.Value == "" {
		return "", &httpclient.APIError{
			Service: github.Name, Op: op, Status: http.StatusOK,
			Message: "no token in the response", Hint: "rerun the job", Err: httpclient.ErrFormat,
		}
	}
	o.mask(answer.Value)
	return answer.Value, nil
}

// issuerName returns the name of the service that issues tokens at address.
func issuerName(address *url.URL) string {
	if host := address.Hostname(); host == "depot.dev" || strings.HasSuffix(host, ".depot.dev") {
		return "Depot CI"
	}
	return "GitHub"
}

func (o OIDC) mask(secret string) {
	if o.Mask != nil {
		o.Mask(secret)
	}
}
