package doppler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"
)

const (
	maxTries    = 4
	maxAnswer   = 8 << 20 // bytes
	longestWait = 60      // seconds of a Retry-After: Doppler counts requests by the minute
)

// Variables for tests.
var (
	callTimeout = 15 * time.Second
	firstWait   = 300 * time.Millisecond // before the second try; it doubles
)

// client follows no redirect: the token is for this host.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func host(apiHost string) string {
	if apiHost == "" {
		apiHost = "https://api.doppler.com"
	}
	return strings.TrimSuffix(apiHost, "/")
}

// call is one call of the API. All calls are safe to repeat: a write says what it expects to find, and sets what it has set before.
type call struct {
	doing        string // for sentences
	method, path string // the path with the query
	token        string
	body         any    // nil for none
	hidden       string // beside the token, what no message may show
}

// send makes the call, again when that may help. Its error is a statusError, or of the way there; explain makes a sentence of it.
func (c call) send(ctx context.Context, apiHost string) ([]byte, error) {
	var body []byte
	if c.body != nil {
		var err error
		if body, err = json.Marshal(c.body); err != nil {
			return nil, err
		}
	}
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	return backoff.Retry(ctx, func() ([]byte, error) {
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		r, err := http.NewRequestWithContext(limited, c.method, host(apiHost)+c.path, bytes.NewReader(body))
		if err != nil {
			return nil, backoff.Permanent(err)
		}
		r.Header.Set("Accept", "application/json")
		if body != nil {
			r.Header.Set("Content-Type", "application/json")
		}
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		response, err := client.Do(r)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		if err != nil {
			return nil, err
		}
		if response.StatusCode == http.StatusOK {
			return data, nil
		}
		failed := &statusError{status: response.StatusCode}
		failed.read(data, c.token, c.hidden)
		switch {
		case failed.status == http.StatusTooManyRequests:
			seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
			if seconds > longestWait {
				return nil, backoff.Permanent(failed)
			}
			if seconds > 0 {
				return nil, errors.Join(failed, backoff.RetryAfter(seconds))
			}
			return nil, failed
		case failed.status >= 500:
			return nil, failed
		}
		return nil, backoff.Permanent(failed)
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries))
}

// explain makes a sentence of what send has met. cure is what helps when Doppler refuses; "" when it is not Doppler that does.
func explain(ctx context.Context, doing, apiHost string, err error, cure string) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	failed := new(statusError)
	if !errors.As(err, &failed) {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%s: %s did not answer within %s, %d times: check the network and https://www.dopplerstatus.com", doing, host(apiHost), callTimeout, maxTries)
		}
		return fmt.Errorf("%s: %s can not be reached: %w: check the network and DOPPLER_API_HOST", doing, host(apiHost), err)
	}
	switch {
	case failed.status == http.StatusTooManyRequests:
		cure = "Doppler asks to slow down: try again in a minute"
	case failed.status >= 500:
		cure = fmt.Sprintf("it failed %d times: try again later (https://www.dopplerstatus.com)", maxTries)
	case !failed.isDoppler:
		cure = "that is no answer of Doppler's API: check DOPPLER_API_HOST, and what is between here and " + host(apiHost)
	}
	return failed.sentence(doing, cure)
}

// notDoppler is the error for a good answer that makes no sense.
func notDoppler(doing, apiHost string) error {
	return fmt.Errorf("%s: the answer of %s is not one of Doppler's API: check DOPPLER_API_HOST", doing, host(apiHost))
}

// statusError is an answer that is none.
type statusError struct {
	status    int
	isDoppler bool   // the answer has the form of Doppler's errors
	messages  string // what it says
}

func (e *statusError) Error() string {
	if e.messages == "" {
		return "Doppler answered " + strconv.Itoa(e.status)
	}
	return fmt.Sprintf("Doppler answered %d, %s", e.status, e.messages)
}

// isDenial is whether Doppler says that something is not there, or not for this token: it says either as it likes, with 400, 403 or 404.
func (e *statusError) isDenial() bool {
	switch e.status {
	case http.StatusForbidden, http.StatusNotFound:
		return e.isDoppler
	case http.StatusBadRequest:
		return e.isDoppler && (strings.Contains(e.messages, "does not have access") || strings.Contains(e.messages, "must specify"))
	}
	return false
}

func isDenial(err error) bool {
	failed := new(statusError)
	return errors.As(err, &failed) && failed.isDenial()
}

// isObjection is whether Doppler objects to what is asked for, and neither to the token nor to the moment.
func (e *statusError) isObjection() bool {
	return e.isDoppler && e.status < 500 && e.status != http.StatusUnauthorized && e.status != http.StatusTooManyRequests && !e.isDenial() && !e.forbidsWrite()
}

// forbidsWrite is whether the token may only read. Which status comes with it is not documented.
func (e *statusError) forbidsWrite() bool {
	return e.isDoppler && strings.Contains(e.messages, "write access")
}

// read takes over what the answer says: {"messages": […], "success": false}.
func (e *statusError) read(data []byte, hidden ...string) {
	var body struct {
		Messages []string `json:"messages"`
	}
	if json.Unmarshal(data, &body) != nil {
		return
	}
	words := strings.FieldsFunc(strings.Join(body.Messages, "; "), func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) })
	text := strings.Join(words, " ")
	for _, secret := range hidden {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	if runes := []rune(text); len(runes) > 300 {
		text = string(runes[:300]) + "…"
	}
	e.isDoppler, e.messages = body.Messages != nil, strings.TrimSuffix(text, ".")
}

// sentence is the whole error.
func (e *statusError) sentence(doing, cure string) error {
	return &sentence{doing + ": " + e.Error() + ": " + cure, e}
}

type sentence struct {
	text string
	err  error
}

func (s *sentence) Error() string { return s.text }
func (s *sentence) Unwrap() error { return s.err }
