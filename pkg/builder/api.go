package builder

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/depot/depot-go/api"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/depot/depot-go/proto/depot/cli/v1/cliv1connect"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"google.golang.org/protobuf/encoding/protowire"
)

// DefaultAPIURL is the base URL of Depot's API.
const DefaultAPIURL = "https://api.depot.dev"

const (
	apiAttempts = 5
	maxResponse = 4 << 20 // bytes
)

// rejections are statuses that mean the call had no effect, so that even CreateBuild is safe to retry.
var rejections = []int{
	http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
}

const clockHint = "check the clock of the server that issued it"

var apiHints = []httpclient.Hint{
	{On: httpclient.NoResponse, Text: "check the network and DEPOT_API_URL; status: https://status.depot.dev"},
	{On: http.StatusTooManyRequests, Text: "check the organization's limits"},
	{On: httpclient.BadFormat, Text: "check DEPOT_API_URL and any proxy"},
	{
		On: http.StatusUnauthorized, Message: "expired",
		Text: "use a token that has not expired; an OIDC token is new, so with one, " + clockHint,
	},
	{On: http.StatusUnauthorized, Message: "not before", Text: clockHint}, // the claim nbf of an OIDC token
	{
		On: http.StatusUnauthorized,
		Text: "set depot_token or DEPOT_TOKEN to a valid token, or neither and add the repository to the project's " +
			"trust relationships at https://depot.dev",
	},
	{
		On: http.StatusForbidden,
		Text: "add the repository to the project's trust relationships at https://depot.dev, or use a token of this " +
			"project or of its organization",
	},
	{On: http.StatusNotFound, Text: "check the project ID in depot.json, DEPOT_PROJECT_ID or depot_project"},
	{On: http.StatusNotImplemented, Text: "check DEPOT_API_URL"},
	{On: httpclient.ServerErrors, Text: "try again later; status: https://status.depot.dev"},
	{On: httpclient.ClientErrors, Text: "run again; if it fails again, check the build's page on Depot"},
}

// buildHints apply to calls with the token of a build.
var buildHints = append([]httpclient.Hint{
	{On: http.StatusUnauthorized, Text: "the token of the build is no longer valid: run again"},
}, apiHints...)

// apiClient calls depot.cli.v1.BuildService, including methods that depot-go lacks.
type apiClient struct {
	cliv1connect.BuildServiceClient
	createBuild func(context.Context, *connect.Request[cliv1.CreateBuildRequest]) (
		*connect.Response[cliv1.CreateBuildResponse], error)
	getBuild     *connect.Client[getBuildRequest, existingBuild]
	getPullInfo  *connect.Client[pullInfoRequest, pullInfo]
	getPullToken *connect.Client[pullTokenRequest, pullToken]
	service      httpclient.Service // describes errors
}

// Messages in Connect's JSON encoding, from depot/cli b57f518, proto/depot/cli/v1/build.proto.
type (
	getBuildRequest struct {
		BuildID string `json:"buildId"`
	}
	existingBuild struct {
		BuildID   string `json:"buildId"`
		ProjectID string `json:"projectId"`
		BuildURL  string `json:"buildUrl"`
	}
	pullInfoRequest struct {
		BuildID string `json:"buildId"`
	}
	pullInfo struct {
		Reference   string `json:"reference"`
		Username    string `json:"username"`
		Password    string `json:"password"`
		SaveForLoad bool   `json:"saveForLoad"`
		Options     []struct {
			Save bool `json:"save"`
		} `json:"options"`
	}
	pullTokenRequest struct {
		ProjectID string `json:"projectId"`
	}
	pullToken struct {
		Token string `json:"token"`
	}
)

// jsonCodec encodes messages that have no generated protobuf type.
type jsonCodec struct{}

func (jsonCodec) Name() string                          { return "json" }
func (jsonCodec) Marshal(message any) ([]byte, error)   { return json.Marshal(message) }
func (jsonCodec) Unmarshal(data []byte, into any) error { return json.Unmarshal(data, into) }

func (d Depot) api() *apiClient {
	url := strings.TrimSuffix(cmp.Or(d.APIURL, DefaultAPIURL), "/")
	policy := d.Policy.HTTP
	policy.Attempts, policy.Rejections = cmp.Or(policy.Attempts, apiAttempts), rejections
	client := d.httpClient(policy)
	options := connect.WithClientOptions(api.WithUserAgent(), connect.WithReadMaxBytes(maxResponse))
	service := url + "/" + cliv1connect.BuildServiceName
	asJSON := connect.WithClientOptions(options, connect.WithCodec(jsonCodec{}))
	// A build whose response arrives too late cannot be finished, and Depot keeps it until it notices.
	policy.Timeout = cmp.Or(d.Policy.CreateTimeout, 2*time.Minute)
	creating := cliv1connect.NewBuildServiceClient(d.httpClient(policy), url, options)
	return &apiClient{
		BuildServiceClient: cliv1connect.NewBuildServiceClient(client, url, options),
		createBuild:        creating.CreateBuild,
		getBuild:           connect.NewClient[getBuildRequest, existingBuild](client, service+"/GetBuild", asJSON),
		getPullInfo:        connect.NewClient[pullInfoRequest, pullInfo](client, service+"/GetPullInfo", asJSON),
		getPullToken:       connect.NewClient[pullTokenRequest, pullToken](client, service+"/GetPullToken", asJSON),
		service: httpclient.Service{
			Name: "Depot", URL: url, Hints: apiHints, Message: connectMessage, Clock: d.Policy.Clock,
		},
	}
}

func (d Depot) httpClient(policy httpclient.Policy) *http.Client {
	client := httpclient.Config{
		Policy: policy, Clock: d.Policy.Clock, Base: messageChecker{http.DefaultTransport},
	}.Client()
	client.Transport = responseRecorder{client.Transport}
	return client
}

// call makes one API call with retries. If ctx has ended, it returns the cause. Other errors are
// *[httpclient.APIError]; if the service responded, they wrap the *[connect.Error].
func call[Q, A any](
	ctx context.Context, c *apiClient, op, token string, request *Q,
	method func(context.Context, *connect.Request[Q]) (*connect.Response[A], error),
) (*A, error) {
	answer, err := callWithHeader(ctx, c, op, token, request, method)
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// callWithHeader is like call and also returns the header of the response.
func callWithHeader[Q, A any](
	ctx context.Context, c *apiClient, op, token string, request *Q,
	method func(context.Context, *connect.Request[Q]) (*connect.Response[A], error),
) (*connect.Response[A], error) {
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	last := &recorded{}
	recording := context.WithValue(ctx, recordedKey{}, last)
	answer, err := method(recording, api.WithAuthentication(connect.NewRequest(request), token))
	if err != nil {
		response, networkErr := last.get()
		return nil, c.service.Failure(ctx, op, response, cmp.Or(networkErr, err), []string{token})
	}
	return answer, nil
}

// connectMessage extracts the message of a Connect error in JSON. It returns false for a body without a code that
// Connect defines, such as a proxy's error page.
func connectMessage(body []byte) (string, bool) {
	var answer struct {
		Code    connect.Code `json:"code"`
		Message string       `json:"message"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Code == 0 {
		return "", false
	}
	return cmp.Or(answer.Message, answer.Code.String()), true
}

// messageChecker returns an [*httpclient.IncompleteError] for a response that ends in the middle of a field. A proxy
// may cut a body and send the rest as a complete one.
type messageChecker struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (c messageChecker) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(request)
	if err != nil || response.Header.Get("Content-Type") != "application/proto" {
		return response, err
	}
	body := response.Body
	data, err := io.ReadAll(io.LimitReader(body, maxResponse+1))
	if err == nil && len(data) <= maxResponse {
		err = checkFields(data)
	}
	if err != nil {
		_ = body.Close()
		return nil, &httpclient.IncompleteError{Err: err}
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(data), body), body}
	return response, nil
}

// checkFields returns [io.ErrUnexpectedEOF] if an encoded message ends in the middle of a field.
func checkFields(message []byte) error {
	for len(message) > 0 {
		_, _, n := protowire.ConsumeField(message)
		if err := protowire.ParseError(n); errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		} else if err != nil {
			return nil // not a message; Connect reports it
		}
		message = message[n:]
	}
	return nil
}

// responseRecorder records the result of each call's HTTP request. Connect's errors omit the status and headers of
// responses that are not from Depot, and the text of network errors.
type responseRecorder struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (r responseRecorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.next.RoundTrip(request)
	last, ok := request.Context().Value(recordedKey{}).(*recorded)
	if !ok {
		return response, err
	}
	if err != nil {
		last.set(nil, err)
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	kept := *response
	kept.Body = io.NopCloser(bytes.NewReader(body))
	last.set(&kept, nil)
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

type recordedKey struct{}

// recorded is the result of one call's HTTP request.
type recorded struct {
	mu       sync.Mutex
	response *http.Response
	err      error // set if there is no response
}

func (r *recorded) set(response *http.Response, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.response, r.err = response, err
}

func (r *recorded) get() (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.response, r.err
}

// incomplete returns the error for a successful response that lacks required fields.
func (c *apiClient) incomplete(op, problem string) error {
	return &httpclient.APIError{
		Service: c.service.Name, Op: op, Status: http.StatusOK, Message: problem + " in the response from " + c.service.URL,
		Hint: "check DEPOT_API_URL", Err: httpclient.ErrFormat,
	}
}
