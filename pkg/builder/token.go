package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
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
	Log     func(format string, args ...any)

	ClaimURL string // "" for Depot's
}

// Token returns the input, DEPOT_TOKEN, or an OIDC token. A pull request from a fork of a public repository is given no OIDC token by
// GitHub: for those it takes Depot's second way, and never tries the first.
func (s TokenSource) Token(ctx context.Context) (string, error) {
	if s.Input != "" {
		return s.Input, nil
	}
	if token := s.Getenv("DEPOT_TOKEN"); token != "" {
		return token, nil
	}
	if s.Getenv("GITHUB_ACTIONS") != "true" && s.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") == "" {
		return "", ErrNoToken
	}
	if s.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") == "" {
		if repository := s.forkOf(); repository != "" {
			return s.challenge(ctx, repository)
		}
		return "", ErrNoIDToken
	}
	return s.IDToken(ctx, Audience)
}

// forkOf is the public repository that a fork's pull request is for; "" when the run is of anything else.
func (s TokenSource) forkOf() string {
	if s.Getenv("GITHUB_EVENT_NAME") != "pull_request" || s.Getenv("GITHUB_RUN_ID") == "" {
		return ""
	}
	data, err := os.ReadFile(s.Getenv("GITHUB_EVENT_PATH"))
	if err != nil {
		return ""
	}
	type repository struct {
		FullName string `json:"full_name"`
		Private  bool   `json:"private"`
	}
	var event struct {
		Repository  repository `json:"repository"`
		PullRequest struct {
			Head struct {
				Repo repository `json:"repo"`
			} `json:"head"`
		} `json:"pull_request"`
	}
	if json.Unmarshal(data, &event) != nil || event.Repository.Private ||
		event.PullRequest.Head.Repo.FullName == "" || event.PullRequest.Head.Repo.FullName == event.Repository.FullName {
		return ""
	}
	return event.Repository.FullName
}

const (
	challengeTime   = 3 * time.Minute
	challengePeriod = time.Second
)

// challenge proves which workflow run we are: Depot gives a code, we print it into the run's public log, Depot reads it there.
func (s TokenSource) challenge(ctx context.Context, repository string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, challengeTime, fmt.Errorf("Depot did not see the challenge in the run's log within %s: run the job again, or push the branch to %s itself", challengeTime, repository))
	defer cancel()
	claim, err := json.Marshal(map[string]string{
		"aud": Audience, "eventName": "pull_request", "repo": repository, "runID": s.Getenv("GITHUB_RUN_ID"),
	})
	if err != nil {
		return "", err
	}
	url := s.ClaimURL
	if url == "" {
		url = claimURL
	}
	const doing = "enter Depot for a pull request from a fork"
	status, answer, err := post(ctx, url, claim)
	var got struct {
		Code     string `json:"challengeCode"`
		Exchange string `json:"exchangeURL"`
	}
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("%s: %w: run the job again", doing, err)
	case status != http.StatusOK:
		return "", fmt.Errorf("%s: Depot refused it (%d): see that the project allows pull requests from forks in its settings at Depot", doing, status)
	case json.Unmarshal(answer, &got) != nil || got.Code == "" || !strings.HasPrefix(got.Exchange, "http"):
		return "", fmt.Errorf("%s: the answer of %s holds no challenge: try again later", doing, url)
	}
	for {
		s.Log("Waiting for OIDC auth challenge %s", got.Code) // Depot looks for this line
		status, answer, err := post(ctx, got.Exchange, nil)
		if token := strings.TrimSpace(string(answer)); err == nil && status == http.StatusOK && token != "" {
			return token, nil
		}
		select {
		case <-time.After(challengePeriod):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
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
