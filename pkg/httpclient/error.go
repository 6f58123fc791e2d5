package httpclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// APIError reports a failed call to a service, with a response or without one (Status 0). Its text has the form
// `op: Service returned 403 Forbidden: message (hint)`.
type APIError struct {
	Service    string        // "Daytona"
	Op         string        // the operation: "list regions"
	Status     int           // HTTP status; 0 if there was no response
	Message    string        // from the service, or the problem with its response; one line, safe to print
	RetryAfter time.Duration // the wait that the service requests; 0 for none
	Hint       string        // what the user can do
	Err        error         // the cause, if there was no usable response; may be nil
}

// ErrFormat is wrapped by an APIError for a response that is not from the service's API, such as a proxy's web page.
var ErrFormat = errors.New("unexpected response")

func (e *APIError) Error() string {
	text := e.Op + ": "
	if e.Status != 0 {
		text += strings.TrimSpace(fmt.Sprintf("%s returned %d %s", e.Service, e.Status, http.StatusText(e.Status)))
		if e.Message != "" {
			text += ": "
		}
	}
	text += e.Message
	hint := e.Hint
	if e.RetryAfter > 0 {
		hint = strings.TrimPrefix(hint+"; retry after "+e.RetryAfter.Round(time.Second).String(), "; ")
	}
	if hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

func (e *APIError) Unwrap() error { return e.Err }

// Status returns the HTTP status of an [*APIError], or 0 for other errors and for calls without a response.
func Status(err error) int {
	if failed, ok := errors.AsType[*APIError](err); ok {
		return failed.Status
	}
	return 0
}

// Hint is advice for the failed calls that it matches. The first matching hint of a list applies.
type Hint struct {
	On      When
	Message string // substring of the message, in lower case; "" matches every message
	Text    string // an imperative: "check DAYTONA_API_URL"
}

// When is an HTTP status, or one of the classes below.
type When int

// Classes of failed calls. Other values are HTTP statuses.
const (
	Any          When = -1
	NoResponse   When = -2 // network errors and timeouts
	BadFormat    When = -3 // [ErrFormat], except with a status that a proxy sends for an overload or an outage
	ClientErrors When = -4 // 4xx
	ServerErrors When = -5 // 5xx
)

// Transient reports whether the same call may succeed later: there was no response because of the network, or the
// status is that of an overload or an outage.
func (e *APIError) Transient() bool {
	if e.Status == 0 {
		return !errors.Is(e.Err, ErrFormat) && isTransient(e.Err)
	}
	return e.isOutage()
}

// MayHaveArrived reports whether the service may have received the request.
func (e *APIError) MayHaveArrived() bool {
	return e.Status != 0 || isTransient(e.Err) && !neverSent(e.Err)
}

// isOutage reports whether the status means that the service, or a proxy in front of it, is overloaded or down.
func (e *APIError) isOutage() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
}

func (h Hint) matches(e *APIError) bool {
	if !strings.Contains(strings.ToLower(e.Message), h.Message) {
		return false
	}
	switch h.On {
	case Any:
		return true
	case NoResponse:
		return e.Status == 0 && !errors.Is(e.Err, ErrFormat)
	case BadFormat:
		return errors.Is(e.Err, ErrFormat) && !e.isOutage()
	case ClientErrors:
		return e.Status/100 == 4
	case ServerErrors:
		return e.Status/100 == 5
	}
	return e.Status == int(h.On)
}

// Service describes a service in errors.
type Service struct {
	Name  string // "Daytona"
	URL   string // base URL of its API, shown when it cannot be reached
	Hints []Hint

	// Message extracts the message from the body of an error response. It returns false if the body does not have the
	// service's format; the error then wraps [ErrFormat]. nil means the format {"message": "…"}.
	Message func(body []byte) (message string, ok bool)

	Clock Clock // for a Retry-After date; nil means the system clock
}

// maxMessage is the maximum number of characters that an error shows of a service's message.
const maxMessage = 400

// Failure returns the [*APIError] for a failed call, or the cause of ctx if ctx has ended. hints take precedence over
// the service's own. Failure removes secrets from the message. err is the HTTP client's error, or the reason why the
// response could not be used; a successful status with a nil err means the wrong format. Failure reads the response's
// body.
func (s Service) Failure(
	ctx context.Context, op string, response *http.Response, err error, secrets []string, hints ...Hint,
) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	e := &APIError{Service: s.Name, Op: op, Err: err}
	if response == nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the method and the full URL
		}
		problem := "cannot reach"
		if isTooLarge := errors.As(err, new(*BodyTooLargeError)); isTooLarge || errors.As(err, new(*IncompleteError)) {
			problem = "no usable response from"
			if isTooLarge {
				e.Err = errors.Join(ErrFormat, err)
			}
		}
		e.Message = fmt.Sprintf("%s %s: %v", problem, s.nameWithURL(), err)
		e.Hint = NetworkHint(err, s.URL)
	} else {
		s.readResponse(e, response)
	}
	e.Message = clean(e.Message, secrets)
	for _, hint := range slices.Concat(hints, s.Hints) {
		if e.Hint == "" && hint.matches(e) {
			e.Hint = hint.Text
			break
		}
	}
	return e
}

// nameWithURL returns the name and the URL, which may be the same for a host of which nothing else is known.
func (s Service) nameWithURL() string {
	if s.Name == s.URL {
		return s.Name
	}
	return s.Name + " at " + s.URL
}

func (s Service) readResponse(e *APIError, response *http.Response) {
	e.Status = response.StatusCode
	clock := s.Clock
	if clock == nil {
		clock = SystemClock{}
	}
	e.RetryAfter = RetryAfter(response.Header, clock.Now())
	data, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(data))
	read := s.Message
	if read == nil {
		read = jsonMessage
	}
	var ok bool
	if err == nil && e.Status >= 400 {
		e.Message, ok = read(data)
	}
	if !ok {
		e.Message = formatProblem(response, data)
		e.Err = errors.Join(ErrFormat, e.Err)
	}
}

func jsonMessage(body []byte) (string, bool) {
	var answer struct {
		Message string `json:"message"`
	}
	err := json.Unmarshal(body, &answer)
	return answer.Message, err == nil && answer.Message != ""
}

func formatProblem(response *http.Response, data []byte) string {
	switch {
	case len(data) == 0:
		return "the response is empty"
	case json.Valid(data):
		return "the response is not in the API's format"
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte("<")):
		return "the response is a web page, not JSON"
	}
	return "the response is not JSON"
}

// clean removes secrets before it truncates the message, so that no part of a secret remains.
func clean(message string, secrets []string) string {
	message = strings.TrimRight(safetext.Line(message, 0), ".:; ")
	secrets = slices.SortedFunc(slices.Values(secrets), func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		if secret != "" {
			message = strings.ReplaceAll(message, secret, "***")
		}
	}
	return safetext.Line(message, maxMessage)
}
