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

// APIError is a call to a service that failed: with an answer, or without one (Status 0). It prints as
// `op: Service answered 403 Forbidden: message (hint)`.
type APIError struct {
	Service    string        // "Daytona"
	Op         string        // what the call was for: "list regions"
	Status     int           // HTTP; 0: no answer
	Message    string        // the service's, or the problem with its answer; one safe line
	RetryAfter time.Duration // the wait that the service requests; 0: none
	Hint       string        // what the user can do
	Err        error         // the cause, when there was no answer or no usable one; may be nil
}

// ErrFormat is wrapped by an APIError whose answer does not come from the service's API: a proxy's page, other JSON.
var ErrFormat = errors.New("unexpected response")

func (e *APIError) Error() string {
	text := e.Op + ": "
	if e.Status != 0 {
		text += strings.TrimSpace(fmt.Sprintf("%s answered %d %s", e.Service, e.Status, http.StatusText(e.Status)))
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

// Status returns the HTTP status of a failed call; 0 when err is not one, or there was no answer.
func Status(err error) int {
	if failed, ok := errors.AsType[*APIError](err); ok {
		return failed.Status
	}
	return 0
}

// Hint is a row of a service's table: what to do about the answers it matches. The first row that matches counts.
type Hint struct {
	On      When
	Message string // a part of the message, in lower case; "" matches every message
	Text    string // an imperative: "check DAYTONA_API_URL"
}

// When is an HTTP status, or one of the classes below.
type When int

// Classes of failed calls. Any but these are statuses.
const (
	Any          When = -1
	NoAnswer     When = -2 // network errors and timeouts
	BadFormat    When = -3 // [ErrFormat], except with a server error: that is a proxy's
	ClientErrors When = -4 // 4xx
	ServerErrors When = -5 // 5xx
)

func (h Hint) matches(e *APIError) bool {
	if !strings.Contains(strings.ToLower(e.Message), h.Message) {
		return false
	}
	switch h.On {
	case Any:
		return true
	case NoAnswer:
		return e.Status == 0 && !errors.Is(e.Err, ErrFormat)
	case BadFormat:
		return errors.Is(e.Err, ErrFormat) && e.Status < 500
	case ClientErrors:
		return e.Status/100 == 4
	case ServerErrors:
		return e.Status/100 == 5
	}
	return e.Status == int(h.On)
}

// Service describes a service for its errors.
type Service struct {
	Name  string // "Daytona"
	URL   string // of its API, shown when it cannot be reached
	Hints []Hint

	// Message reads an answer that reports an error; false when it does not have the service's form, which makes the
	// error an [ErrFormat]. nil: {"message": "…"}.
	Message func(body []byte) (message string, ok bool)

	Clock Clock // for a Retry-After that is a date; nil: the system's
}

// maxMessage is the most characters of a service's message that an error shows.
const maxMessage = 400

// Failure describes how a call has failed. hints come before the service's own, and secrets are removed from the
// message. err is what the HTTP client returned, or why the answer could not be used; a successful status with a nil
// err has the wrong format. Failure reads the response's body. When ctx has ended, it returns the cause of that.
func (s Service) Failure(
	ctx context.Context, op string, response *http.Response, err error, secrets []string, hints ...Hint,
) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	e := &APIError{Service: s.Name, Op: op, Err: err}
	if response == nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without method and full URL
		}
		e.Message = fmt.Sprintf("cannot reach %s: %v", s.URL, err)
		if errors.As(err, new(*BodyTooLargeError)) {
			e.Message, e.Err = err.Error(), errors.Join(ErrFormat, err)
		}
	} else {
		s.readAnswer(e, response)
	}
	e.Message = clean(e.Message, secrets)
	for _, hint := range slices.Concat(hints, s.Hints) {
		if hint.matches(e) {
			e.Hint = hint.Text
			break
		}
	}
	return e
}

func (s Service) readAnswer(e *APIError, response *http.Response) {
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

// clean removes secrets before the text is cut, so that no part of one stays.
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
