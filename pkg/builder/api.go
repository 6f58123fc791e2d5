package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/cenkalti/backoff/v5"
	"github.com/depot/depot-go/api"
	"github.com/depot/depot-go/proto/depot/cli/v1/cliv1connect"
)

// Variables for tests.
var (
	callTimeout = 20 * time.Second       // for one answer of the API
	firstWait   = 300 * time.Millisecond // before the second try; it grows with each
)

const (
	maxTries   = 5
	maxWait    = time.Minute // the longest retry-after that is waited for
	lingerTime = time.Second // for the answer to a call that was canceled and may have made something
)

// service is Depot's API: what depot-go has of it, and the one call that it has not.
type service struct {
	cliv1connect.BuildServiceClient
	pullInfo *connect.Client[pullInfoRequest, pullInfo]
}

// GetPullInfo's messages, depot.cli.v1 of github.com/depot/cli, in Connect's JSON.
type (
	pullInfoRequest struct {
		BuildID string `json:"buildId"`
	}
	pullInfo struct {
		Reference string `json:"reference"`
		Username  string `json:"username"`
		Password  string `json:"password"`
	}
)

// plainJSON lets Connect carry messages that no protocol buffer describes.
type plainJSON struct{}

func (plainJSON) Name() string                          { return "json" }
func (plainJSON) Marshal(message any) ([]byte, error)   { return json.Marshal(message) }
func (plainJSON) Unmarshal(data []byte, into any) error { return json.Unmarshal(data, into) }

func newService() service {
	listening := &http.Client{
		Transport: listener{},
		// No redirect is followed: the token is for this host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	options := connect.WithClientOptions(api.WithUserAgent(), connect.WithReadMaxBytes(4<<20))
	return service{
		BuildServiceClient: cliv1connect.NewBuildServiceClient(listening, apiURL(), options),
		pullInfo: connect.NewClient[pullInfoRequest, pullInfo](
			listening, apiURL()+"/"+cliv1connect.BuildServiceName+"/GetPullInfo", options, connect.WithCodec(plainJSON{})),
	}
}

func apiURL() string {
	if url := os.Getenv("DEPOT_API_URL"); url != "" {
		return strings.TrimSuffix(url, "/")
	}
	return "https://api.depot.dev"
}

// Whether a call whose outcome is not known may be made again.
const (
	again = true
	once  = false
)

// call makes one call of the API, and explains in one sentence why it failed.
//
// It asks again when the answer may be another one next time: 429, 5xx, a broken connection, silence. A call that may not be repeated is made again only
// when it has surely made nothing: it never arrived, or was refused. It is not cut when ctx ends, either, but given a moment more: what it
// made would be nobody's. So it may succeed although ctx has ended.
func call[Q, A any](ctx context.Context, doing, token string, request *Q, method func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), repeatable bool) (*A, error) {
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	var came *heard
	tries := 0
	answer, err := backoff.Retry(ctx, func() (*A, error) {
		tries++
		limited, cancel := ctx, context.CancelFunc(func() {})
		if !repeatable {
			limited, cancel = linger(ctx)
		}
		defer cancel()
		limited, stop := context.WithTimeout(limited, callTimeout)
		defer stop()
		limited, came = listen(limited)
		answer, err := method(limited, api.WithAuthentication(connect.NewRequest(request), token))
		switch {
		case err == nil:
			return answer.Msg, nil
		case ctx.Err() != nil || !came.mayPass(err, repeatable) || came.after() > maxWait:
			return nil, backoff.Permanent(err)
		case came.after() > 0:
			return nil, errors.Join(err, &backoff.RetryAfterError{Duration: came.after()})
		}
		return nil, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries))
	if err == nil {
		return answer, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return nil, &apiError{sentence: doing + ": " + came.explain(err, tries), err: err}
}

// linger is a context that ends a moment after ctx does.
func linger(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lingerTime, cancel) })
	return longer, func() { stop(); cancel() }
}

// apiError is one sentence of ours about an answer of Depot's.
type apiError struct {
	sentence string
	err      error
}

func (e *apiError) Error() string { return e.sentence }
func (e *apiError) Unwrap() error { return e.err }

// heard is what came back over HTTP for one call. Connect's errors do not tell an answer of the API from a proxy's page, nor hold
// that page's retry-after.
type heard struct{ response atomic.Pointer[http.Response] }

type heardKey struct{}

func listen(ctx context.Context) (context.Context, *heard) {
	h := &heard{}
	return context.WithValue(ctx, heardKey{}, h), h
}

// listener notes every answer for who listens.
type listener struct{}

// RoundTrip is [http.DefaultTransport]'s.
func (listener) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(request)
	if h, ok := request.Context().Value(heardKey{}).(*heard); ok && err == nil {
		h.response.Store(response)
	}
	return response, err
}

// status is HTTP's; 0 when nothing came.
func (h *heard) status() int {
	if response := h.response.Load(); response != nil {
		return response.StatusCode
	}
	return 0
}

// after is the answer's retry-after; 0 when it says nothing of it.
func (h *heard) after() time.Duration {
	response := h.response.Load()
	if response == nil {
		return 0
	}
	said := response.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(said, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(said); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// mayPass reports whether a failure is worth another try.
func (h *heard) mayPass(err error, repeatable bool) bool {
	switch status := h.status(); status {
	case 0: // unreachable, broken, or silent
		return repeatable || unreached(err)
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable:
		return true
	case http.StatusOK, http.StatusGatewayTimeout: // it arrived, and what became of it is not known
		return repeatable
	}
	return false
}

// unreached reports whether a call failed before anybody was there to take it.
func unreached(err error) bool {
	dial := new(net.OpError)
	return errors.As(err, &dial) && dial.Op == "dial"
}

// explain says what was heard, why, and what to do about it.
func (h *heard) explain(err error, tries int) string {
	said := oneLine(err)
	wire := new(connect.Error)
	if errors.As(err, &wire) {
		said = strings.Join(strings.Fields(wire.Message()), " ")
	}
	tried := ""
	if tries > 1 {
		tried = fmt.Sprintf(", after %d tries", tries)
	}
	theirs := connect.IsWireError(err) // and not a proxy's
	switch status := h.status(); {
	case status == 0 && connect.CodeOf(err) == connect.CodeDeadlineExceeded:
		return fmt.Sprintf("Depot's API at %s did not answer within %s%s: check the network, and https://status.depot.dev", apiURL(), callTimeout, tried)
	case status == 0 && !unreached(err):
		return fmt.Sprintf("the connection to Depot's API at %s broke%s (%s): run it again, and check the network", apiURL(), tried, said)
	case status == 0:
		return fmt.Sprintf("Depot's API at %s can not be reached%s (%s): check the network and DEPOT_API_URL", apiURL(), tried, said)
	case status == http.StatusTooManyRequests && h.after() > maxWait:
		return fmt.Sprintf("Depot asks to slow down (429), and to come back in %s (%s): do so, or look at the organization's limits", h.after().Round(time.Second), said)
	case status == http.StatusTooManyRequests:
		return fmt.Sprintf("Depot asks to slow down (429)%s (%s): try again in a few minutes, or look at the organization's limits", tried, said)
	case theirs && status == http.StatusUnauthorized:
		return fmt.Sprintf("Depot does not accept the token (%s): give a depot_token or DEPOT_TOKEN that has not expired, or none to enter with GitHub OIDC", said)
	case theirs && status == http.StatusForbidden:
		return fmt.Sprintf("Depot does not trust the caller (%s): add the repository to the project's trust relationships at https://depot.dev, or give a token of that project", said)
	case theirs && status == http.StatusNotFound && connect.CodeOf(err) == connect.CodeNotFound:
		return fmt.Sprintf("Depot does not find it (%s): check the project's id in depot.json, DEPOT_PROJECT_ID or depot_project", said)
	case status >= http.StatusInternalServerError && status != http.StatusNotImplemented:
		return fmt.Sprintf("Depot's API at %s failed (%d)%s (%s): try again later (https://status.depot.dev)", apiURL(), status, tried, said)
	case theirs && connect.CodeOf(err) != connect.CodeUnimplemented:
		return fmt.Sprintf("Depot refuses it (%s): run it again, and look at the build's page if it happens again", said)
	}
	return fmt.Sprintf("what answers at %s is not Depot's API%s (%s): check DEPOT_API_URL, and what stands between", apiURL(), tried, said)
}
