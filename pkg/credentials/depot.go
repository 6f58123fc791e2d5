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

// depotClaimURL is Depot's address for claims of workflow runs. depot-go has the same constant.
const depotClaimURL = "https://actions-public-oidc.depot.dev/claim"

// ErrNoDepotToken means that no source has a token for Depot.
var ErrNoDepotToken = errors.New(
	"no Depot token: set DEPOT_TOKEN or depot_token, or run in GitHub Actions, which needs neither",
)

// Depot finds the token that authenticates to Depot.
type Depot struct {
	Input  string                           // the input depot_token
	Getenv func(string) string              // DEPOT_TOKEN, and the event that started the run
	OIDC   OIDC                             // the job's identity; its HTTP configuration is used for Depot, too
	Logf   func(format string, args ...any) // required: Depot looks for the challenge of a fork's pull request in the log

	ClaimURL          string        // "" means Depot's
	ChallengeTimeout  time.Duration // how long Depot may take to see the challenge in the log; default 3 min
	ChallengeInterval time.Duration // between two requests for the token meanwhile; default 1 s
}

// Token returns, in this order: the input, DEPOT_TOKEN, an OIDC token. GitHub issues no OIDC token to a pull
// request from a fork; if its base repository is public, Token proves the run's identity to Depot by a challenge in
// the run's log. Errors: [ErrNoDepotToken] outside of Actions, [ErrNoIDToken] in a job without the permission, the
// cause of ctx, or one that wraps an *[httpclient.APIError].
func (d Depot) Token(ctx context.Context) (string, error) {
	for _, source := range []struct{ name, token string }{
		{"input depot_token", d.Input}, {"DEPOT_TOKEN", d.Getenv("DEPOT_TOKEN")},
	} {
		token := strings.TrimSpace(source.token)
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", fmt.Errorf("%s: invalid token: it contains white space or non-ASCII characters (copy it again)",
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

// forkToken returns the token for a pull request from a fork of a public repository, and an error for every other
// run.
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

// forkedRepository is the repository that a fork's pull request targets; "" for every other run.
func (d Depot) forkedRepository() (name string, private bool) {
	e := runner.ReadEvent(d.Getenv)
	if !e.IsFork() || e.Name != "pull_request" || e.HeadRepository == "" || d.Getenv("GITHUB_RUN_ID") == "" {
		return "", false
	}
	return e.Repository, e.Private
}

// challenge is Depot's answer to a claim.
type challenge struct {
	Code        string `json:"challengeCode"` // to print
	ExchangeURL string `json:"exchangeURL"`   // returns the token once Depot has seen the code
}

// answerChallenge proves which workflow run this is: Depot issues a code, the run prints it to its public log,
// where Depot reads it.
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

// claim requests a challenge for this run. Repeating it is safe: an unused challenge expires.
func (d Depot) claim(ctx context.Context, repository string) (challenge, error) {
	depot := httpclient.JSONClient{
		Service: httpclient.Service{
			Name: "Depot", URL: cmp.Or(d.ClaimURL, depotClaimURL), Clock: d.OIDC.HTTP.Clock,
			Hints: []httpclient.Hint{
				{On: httpclient.NoResponse, Text: "check the network, and rerun the job"},
				{On: httpclient.ServerErrors, Text: "rerun the job later; status: https://status.depot.dev"},
				{On: http.StatusTooManyRequests, Text: "rerun the job later"},
				{On: httpclient.ClientErrors, Text: "allow pull requests from forks in the project's settings at Depot"},
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

// exchange returns the token, or "" while Depot has not seen the code or does not answer.
func (d Depot) exchange(ctx context.Context, address string) string {
	config := d.OIDC.HTTP
	config.Policy.Attempts = 1 // the caller repeats it
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
		return "" // 403 until Depot has seen the code; a proxy's page
	}
	return token
}
