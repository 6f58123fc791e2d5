package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/org/sandbox-actions/pkg/runner"
)

// Audience is what an OIDC token for Depot is made for.
const Audience = "https://depot.dev"

// claimURL is where a pull request of a fork asks for its challenge, as depot-go has it.
const claimURL = "https://actions-public-oidc.depot.dev/claim"

// ErrNoIDToken says how a job is allowed to ask for an OIDC token.
var ErrNoIDToken = errors.New("the job may not ask for an OIDC token: add these two lines to the workflow or the job: `permissions:` and, below it, `id-token: write` (with contents: read, which is no longer implied)")

// ErrNoToken says how Depot is entered outside of Actions.
var ErrNoToken = errors.New("no Depot token: set DEPOT_TOKEN, give depot_token, or run in GitHub Actions, which needs none")

// TokenSource finds what opens Depot: a token that is given, else the job's identity.
type TokenSource struct {
	Input   string // the input depot_token
	Getenv  func(string) string
	IDToken func(ctx context.Context, audience string) (string, error) // of the Actions runner; errors where the job has none
	Log     func(format string, args ...any)                           // may not be nil: the second way needs it

	ClaimURL string // "" for Depot's
}

// Token returns the input, DEPOT_TOKEN, or an OIDC token. A pull request from a fork of a public repository is given no OIDC token by
// GitHub: for those it takes Depot's second way, and never tries the first.
func (s TokenSource) Token(ctx context.Context) (string, error) {
	for _, given := range []struct{ name, token string }{
		{"the input depot_token", s.Input}, {"DEPOT_TOKEN", s.Getenv("DEPOT_TOKEN")},
	} {
		token := strings.TrimSpace(given.token)
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", fmt.Errorf("%s is no token: it holds white space or other characters that no token has: copy it again", given.name)
		}
		if token != "" {
			return token, nil
		}
	}
	if s.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") == "" || s.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN") == "" {
		if s.Getenv("GITHUB_ACTIONS") != "true" {
			return "", ErrNoToken
		}
		repository, private := s.forkOf()
		switch {
		case repository == "":
			return "", ErrNoIDToken
		case private:
			return "", fmt.Errorf("enter Depot for a pull request from a fork: GitHub gives it no OIDC token, and Depot has another way only for public repositories: push the branch to %s itself", repository)
		}
		return s.challenge(ctx, repository)
	}
	token, err := s.IDToken(ctx, Audience)
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("enter Depot with GitHub OIDC: %w: run the job again, or give depot_token", err)
	}
	return token, nil
}

// forkOf is the repository that a fork's pull request is for; "" when the run is of anything else.
func (s TokenSource) forkOf() (name string, private bool) {
	e := runner.ReadEvent(s.Getenv)
	if !e.Fork() || e.Name != "pull_request" || e.Head == "" || s.Getenv("GITHUB_RUN_ID") == "" {
		return "", false
	}
	return e.Repository, e.Private
}

// Variables for tests.
var (
	challengeTime   = 3 * time.Minute // for Depot to see the challenge
	challengePeriod = time.Second     // between two looks
)

// challenge proves which workflow run we are: Depot gives a code, we print it into the run's public log, Depot reads it there.
func (s TokenSource) challenge(ctx context.Context, repository string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, challengeTime, fmt.Errorf("enter Depot for a pull request from a fork: Depot did not see the challenge in the run's log within %s: run the job again, or push the branch to %s itself", challengeTime, repository))
	defer cancel()
	got, err := s.claim(ctx, repository)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		return "", fmt.Errorf("enter Depot for a pull request from a fork: %w", err)
	}
	for {
		s.Log("Waiting for OIDC auth challenge %s", got.Code) // Depot looks for this line
		status, answer, err := post(ctx, got.Exchange, nil)
		token := strings.TrimSpace(string(answer))
		if err == nil && status == http.StatusOK && token != "" && !strings.ContainsAny(token, " \t\r\n<") {
			return token, nil
		}
		select {
		case <-time.After(challengePeriod):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// claimed is Depot's answer to a claim: what to print, and where to ask for the token then.
type claimed struct {
	Code     string `json:"challengeCode"`
	Exchange string `json:"exchangeURL"`
}

// claim says which run we are. It may be said again: an unused challenge expires.
func (s TokenSource) claim(ctx context.Context, repository string) (claimed, error) {
	body, err := json.Marshal(map[string]string{
		"aud": Audience, "eventName": "pull_request", "repo": repository, "runID": s.Getenv("GITHUB_RUN_ID"),
	})
	if err != nil {
		return claimed{}, err
	}
	url := s.ClaimURL
	if url == "" {
		url = claimURL
	}
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	return backoff.Retry(ctx, func() (claimed, error) {
		var got claimed
		status, answer, err := post(ctx, url, body)
		switch {
		case err != nil:
			return got, fmt.Errorf("%s can not be reached (%s): check the network, and run the job again", url, oneLine(err))
		case status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
			return got, fmt.Errorf("Depot failed (%d): run the job again later (https://status.depot.dev)", status)
		case status != http.StatusOK:
			return got, backoff.Permanent(fmt.Errorf("Depot refuses it (%d): see that the project allows pull requests from forks in its settings at Depot", status))
		case json.Unmarshal(answer, &got) != nil || got.Code == "" || !strings.HasPrefix(got.Exchange, "http"):
			return got, fmt.Errorf("the answer of %s holds no challenge: run the job again later", url)
		}
		return got, nil
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries))
}

func post(ctx context.Context, url string, body []byte) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, answer, err
}
