// Package doppler reads the secrets of one Doppler config: https://docs.doppler.com/reference (API v3).
package doppler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Client reads one config.
type Client struct {
	Host    string // "" for https://api.doppler.com
	Token   string // a service token, which is bound to one project and config, or a token of a service account
	Project string // "" where the token is bound
	Config  string // likewise
}

// Secrets are all names and values of the config, references between them resolved.
func (c Client) Secrets(ctx context.Context) (map[string]string, error) {
	query := url.Values{"format": {"json"}}
	if c.Project != "" {
		query.Set("project", c.Project)
	}
	if c.Config != "" {
		query.Set("config", c.Config)
	}
	doing := "read Doppler's config"
	if c.Config != "" {
		doing += " " + c.Config
	}
	data, err := request(ctx, doing, c.Host, http.MethodGet, "/v3/configs/config/secrets/download?"+query.Encode(), c.Token, nil)
	if err != nil {
		return nil, err
	}
	var secrets map[string]string
	if json.Unmarshal(data, &secrets) != nil {
		return nil, fmt.Errorf("%s: the answer of %s holds no secrets: check DOPPLER_API_HOST", doing, host(c.Host))
	}
	return secrets, nil
}

// Login trades a GitHub OIDC token for a token of the service account that identity belongs to. It lives for minutes.
func Login(ctx context.Context, apiHost, identity, idToken string) (string, error) {
	doing := "enter Doppler as the identity " + identity
	body, err := json.Marshal(map[string]string{"identity": identity, "token": idToken})
	if err != nil {
		return "", err
	}
	data, err := request(ctx, doing, apiHost, http.MethodPost, "/v3/auth/oidc", "", body)
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(data, &answer) != nil || answer.Token == "" {
		return "", fmt.Errorf("%s: the answer of %s holds no token: check DOPPLER_API_HOST", doing, host(apiHost))
	}
	return answer.Token, nil
}

const (
	callTimeout = 15 * time.Second
	maxTries    = 4
	maxAnswer   = 8 << 20 // bytes
	longestWait = 30      // seconds of a Retry-After
)

// firstWait is how long the second try waits; it doubles. A variable for tests.
var firstWait = 300 * time.Millisecond

// client follows no redirect: the token is for this host.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func host(apiHost string) string {
	if apiHost == "" {
		apiHost = "https://api.doppler.com"
	}
	return strings.TrimSuffix(apiHost, "/")
}

// request makes one call, again when that may help: reading is safe to repeat, and so is logging in. What Doppler says in its errors is
// passed on; values never are in them.
func request(ctx context.Context, doing, apiHost, method, path, token string, body []byte) ([]byte, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	data, err := backoff.Retry(ctx, func() ([]byte, error) {
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		r, err := http.NewRequestWithContext(limited, method, host(apiHost)+path, bytes.NewReader(body))
		if err != nil {
			return nil, backoff.Permanent(err)
		}
		r.Header.Set("Accept", "application/json")
		if body != nil {
			r.Header.Set("Content-Type", "application/json")
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
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
		failed := &statusError{status: response.StatusCode, messages: messages(data)}
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
	if err == nil {
		return data, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	failed := new(statusError)
	if !errors.As(err, &failed) {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("%s: %s did not answer within %s, %d times: check the network and https://www.dopplerstatus.com", doing, host(apiHost), callTimeout, maxTries)
		}
		return nil, fmt.Errorf("%s: %s can not be reached: %w: check the network and DOPPLER_API_HOST", doing, host(apiHost), err)
	}
	cure := "check doppler_project and doppler_config"
	switch {
	case failed.status == http.StatusUnauthorized:
		cure = "give a doppler_token that is valid and has not expired"
	case failed.status == http.StatusForbidden:
		cure = "the token may not read that config: a service token reads only its own; let the service account in, or name another config"
	case failed.status == http.StatusTooManyRequests:
		cure = "Doppler asks to slow down: try again in a minute"
	case failed.status >= 500:
		cure = fmt.Sprintf("it failed %d times: try again later (https://www.dopplerstatus.com)", maxTries)
	}
	return nil, &sentence{doing + ": " + failed.Error() + ": " + cure, err}
}

// statusError is an answer that is none.
type statusError struct {
	status   int
	messages string
}

func (e *statusError) Error() string {
	if e.messages == "" {
		return "Doppler answered " + strconv.Itoa(e.status)
	}
	return fmt.Sprintf("Doppler answered %d, %s", e.status, e.messages)
}

func messages(data []byte) string {
	var body struct {
		Messages []string `json:"messages"`
	}
	if json.Unmarshal(data, &body) != nil {
		return ""
	}
	text := strings.Join(strings.Fields(strings.Join(body.Messages, "; ")), " ")
	return text[:min(len(text), 300)]
}

type sentence struct {
	text string
	err  error
}

func (s *sentence) Error() string { return s.text }
func (s *sentence) Unwrap() error { return s.err }
