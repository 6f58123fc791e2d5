package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/runner"
)

// DepotAudience is the audience of OIDC tokens for Depot.
const DepotAudience = "https://depot.dev"

// depotClaimURL is the endpoint at which a workflow run requests a challenge. depot-go has the same constant.
const depotClaimURL = "https://actions-public-oidc.depot.dev/claim"

// ErrNoDepotToken means that there is no token for Depot.
var ErrNoDepotToken = errors.New(
	"no Depot token: set DEPOT_TOKEN or depot_token, or run in GitHub Actions to authenticate with OIDC",
)

// Depot finds the token for authenticating to Depot.
type Depot struct {
	Input  string                           // the input depot_token
	Getenv func(string) string              // DEPOT_TOKEN, and the event that started the run
	OIDC   OIDC                             // its HTTP configuration also applies to requests to Depot
	Logf   func(format string, args ...any) // required: Depot reads the challenge for a fork's pull request from the log

	ClaimURL          string        // "" means the default
	ChallengeTimeout  time.Duration // how long to wait for Depot to find the challenge in the log; default 3 min
	ChallengeInterval time.Duration // between requests for the token; default 1 s
}

// Token returns the first of the input, DEPOT_TOKEN and an OIDC token. GitHub issues no OIDC tokens for pull requests
// from forks; if the base repository is public, Token proves the run's identity to Depot with a challenge in the run's
// log. Token returns [ErrNoDepotToken] outside GitHub Actions, [ErrNoIDToken] in a job without the permission, the
// cause of ctx, or an error that wraps an *[httpclient.APIError].
func (d Depot) Token(ctx context.Context) (string, error) {
	for _, source := range []struct{ name, token string }{
		{"input depot_token", d.Input}, {"DEPOT_TOKEN", d.Getenv("DEPOT_TOKEN")},
	} {
		token := strings.TrimSpace(source.token)
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", fmt.Errorf("%s: invalid token: contains white space or non-ASCII characters (copy it again)",
				source.name)
		}
		if token != "" {
			return token, nil
		}
	}
	if !d.OIDC.Available() {
		return d.forkToken(ctx)
	}
	token, err := d.OIDC.Token(ctx, DepotAudience)
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("authenticate to Depot without depot_token: %w", err)
	}
	return token, nil
}

const forkOp = "authenticate to Depot for a pull request from a fork"

// forkToken returns the token for a pull request from a fork of a public repository, and an error for any other run.
func (d Depot) forkToken(ctx context.Context) (string, error) {
	if d.Getenv("GITHUB_ACTIONS") != "true" {
		return "", ErrNoDepotToken
	}
	repository, private := d.forkedRepository()
	switch {
	case repository == "":
		return "", ErrNoIDToken
	case private:
		return "", fmt.Errorf("%s: Depot supports forks of public repositories only (push the branch to %s instead)",
			forkOp, repository)
	}
	return d.answerChallenge(ctx, repository)
}

// forkedRepository returns the repository that a fork's pull request targets, or "" for any other run.
func (d Depot) forkedRepository() (name string, private bool) {
	e := runner.ReadEvent(d.Getenv)
	if !e.IsFork() || e.Name != "pull_request" || e.HeadRepository == "" || d.Getenv("GITHUB_RUN_ID") == "" {
		return "", false
	}
	return e.Repository, e.Private
}

// challenge is Depot's response to a claim.
type challenge struct {
	Code        string `json:"challengeCode"` // to print to the log
	ExchangeURL string `json:"exchangeURL"`   // returns the token once Depot has found the code in the log
}

// answerChallenge proves the identity of this workflow run: it prints a code from Depot to the run's public log, and
// waits until Depot has found the code there.
func (d Depot) answerChallenge(ctx context.Context, repository string) (string, error) {
	timeout := cmp.Or(d.ChallengeTimeout, 3*time.Minute)
	ctx, cancel := context.WithTimeoutCause(
		ctx,
		timeout,
		fmt.Errorf("%s: timed out after %s waiting for Depot to find the challenge in the log "+
			"(rerun the job, or push the branch to %s)", forkOp, timeout, repository),
	)
	defer cancel()
	challenge, err := d.claim(ctx, repository)
	if err != nil {
		return "", err
	}
	clock := d.OIDC.HTTP.Clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	for {
		d.Logf("Waiting for OIDC auth challenge %s", challenge.Code) // Depot searches for this line
		if token := d.exchange(ctx, challenge.ExchangeURL); token != "" {
			return token, nil
		}
		if err := clock.Sleep(ctx, cmp.Or(d.ChallengeInterval, time.Second)); err != nil {
			return "", err
		}
	}
}

// claim requests a challenge for this run. Retrying is safe because an unused challenge expires.
func (d Depot) claim(ctx context.Context, repository string) (challenge, error) {
	depot := httpclient.JSONClient{
		Service: httpclient.Service{
			Name: "Depot", URL: cmp.Or(d.ClaimURL, depotClaimURL), Clock: d.OIDC.HTTP.Clock,
			Hints: []httpclient.Hint{
				{On: httpclient.NoResponse, Text: "check the network, and rerun the job"},
				{On: httpclient.ServerErrors, Text: "rerun the job later; status: https://status.depot.dev"},
				{On: http.StatusTooManyRequests, Text: "rerun the job later"},
				{On: httpclient.ClientErrors, Text: "allow pull requests from forks in the project's settings on Depot"},
			},
		},
		HTTP: d.OIDC.HTTP.Client(),
	}
	claim := map[string]string{
		"aud": DepotAudience, "eventName": "pull_request", "repo": repository, "runID": d.Getenv("GITHUB_RUN_ID"),
	}
	var got challenge
	err := depot.Do(ctx, httpclient.JSONCall{Op: forkOp, Method: http.MethodPost, Body: claim, Idempotent: true}, &got)
	if err == nil && (got.Code == "" || !strings.HasPrefix(got.ExchangeURL, "http")) {
		err = &httpclient.APIError{
			Service: depot.Name, Op: forkOp, Status: http.StatusOK,
			Message: "no challenge in the response", Hint: "rerun the job later",
			Err: httpclient.ErrFormat,
		}
	}
	return got, err
}

// exchange returns the token, or "" if Depot has not found the code yet or the request fails.
func (d Depot) exchange(ctx context.Context, address string) string {
	config := d.OIDC.HTTP
	config.Policy.Attempts = 1 // the caller retries
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, http.NoBody)
	if err != nil {
		return ""
	}
	response, err := config.Client().Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	token := strings.TrimSpace(string(body))
	if err != nil || response.StatusCode != http.StatusOK || strings.ContainsAny(token, " \t\r\n<") {
		return "" // 403 until Depot has found the code, or a proxy's web page
	}
	return token
}
