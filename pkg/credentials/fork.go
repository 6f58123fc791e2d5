package credentials

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/runner"
)

// depotClaimURL is the endpoint at which a workflow run requests a challenge. depot-go has the same constant.
const depotClaimURL = "https://actions-public-oidc.depot.dev/claim"

const forkOp = "authenticate to Depot for a pull request from a fork"

// maxClaims is the number of challenges that one call answers. Depot searches the log for each for about half a minute.
const maxClaims = 5

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
	return d.answerChallenges(ctx, repository)
}

// forkedRepository returns the repository that a fork's pull request targets, or "" for any other run.
func (d Depot) forkedRepository() (name string, private bool) {
	e := runner.ReadEvent(d.Getenv)
	if !e.IsFork() || e.Name != "pull_request" || e.HeadRepository == "" || d.Getenv("GITHUB_RUN_ID") == "" {
		return "", false
	}
	return e.Repository, e.Private
}

// challenge is Depot's response to a claim. It can be exchanged once: Depot invalidates it before it searches the log.
// Source: depot/actions-public-oidc 1e83ae2, src/index.ts and src/utils/dynamodb.ts.
type challenge struct {
	Code        string `json:"challengeCode"` // to print to the log
	ExchangeURL string `json:"exchangeURL"`   // returns the token once Depot has found the code in the log
}

// answerChallenges proves the identity of this workflow run: it prints a code from Depot to the run's public log, while
// Depot searches for it there. It requests another code if that fails.
func (d Depot) answerChallenges(ctx context.Context, repository string) (string, error) {
	timeout := cmp.Or(d.ChallengeTimeout, 10*time.Minute)
	hint := "rerun the job, or push the branch to " + repository
	ctx, cancel := context.WithTimeoutCause(ctx, timeout,
		fmt.Errorf("%s: timed out after %s waiting for Depot to find the challenge in the log (%s)", forkOp, timeout, hint),
	)
	defer cancel()
	for n := 1; ; n++ {
		challenge, err := d.claim(ctx, repository)
		if err != nil {
			return "", err
		}
		token, err := d.exchange(ctx, challenge, timeout, hint)
		if err == nil || n == maxClaims || context.Cause(ctx) != nil {
			return token, err
		}
		d.Logf("%v; requesting another challenge", err)
		wait := d.interval()
		if failed, ok := errors.AsType[*httpclient.APIError](err); ok {
			wait = max(wait, failed.RetryAfter)
		}
		if err := d.clock().Sleep(ctx, wait); err != nil {
			return "", err
		}
	}
}

func (d Depot) clock() httpclient.Clock {
	if d.OIDC.HTTP.Clock != nil {
		return d.OIDC.HTTP.Clock
	}
	return httpclient.SystemClock{}
}

func (d Depot) interval() time.Duration { return cmp.Or(d.ChallengeInterval, time.Second) }

// claim requests a challenge for this run. Retrying is safe because an unused challenge expires.
func (d Depot) claim(ctx context.Context, repository string) (challenge, error) {
	depot := httpclient.JSONClient{
		Service: httpclient.Service{
			Name: "Depot", URL: cmp.Or(d.ClaimURL, depotClaimURL), Clock: d.OIDC.HTTP.Clock, Message: issuerMessage,
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
	if attempt := d.Getenv("GITHUB_RUN_ATTEMPT"); attempt != "" { // so that Depot searches the jobs of this attempt
		claim["attempt"] = attempt
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

// exchange exchanges a challenge for a token, and prints its code at every interval until Depot answers. That may take
// minutes. It sends one request, because a second one for the same challenge would fail.
func (d Depot) exchange(ctx context.Context, c challenge, timeout time.Duration, hint string) (string, error) {
	show := func() { d.Logf("Waiting for OIDC auth challenge %s", c.Code) } // Depot searches for this line
	show()
	showing, stop := context.WithCancel(ctx)
	var shown sync.WaitGroup
	shown.Go(func() {
		for d.clock().Sleep(showing, d.interval()) == nil {
			show()
		}
	})
	defer shown.Wait()
	defer stop()

	config := d.OIDC.HTTP
	config.Policy.Attempts, config.Policy.Timeout = 1, timeout
	service := httpclient.Service{
		Name: "Depot", URL: c.ExchangeURL, Message: issuerMessage, Clock: d.OIDC.HTTP.Clock,
		Hints: []httpclient.Hint{{On: httpclient.Any, Text: hint}},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.ExchangeURL, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("%s: %w", forkOp, err)
	}
	response, err := config.Client().Do(request)
	if err != nil {
		return "", service.Failure(ctx, forkOp, nil, err, nil)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", service.Failure(ctx, forkOp, response, nil, nil)
	}
	body, err := io.ReadAll(response.Body)
	token := strings.TrimSpace(string(body))
	if err != nil || token == "" || strings.ContainsAny(token, " \t\r\n<") { // a proxy's web page
		return "", &httpclient.APIError{
			Service: service.Name, Op: forkOp, Status: response.StatusCode,
			Message: "no token in the response", Hint: hint, Err: httpclient.ErrFormat,
		}
	}
	return token, nil
}

// issuerMessage extracts the message of an error of Depot's issuer for forks.
func issuerMessage(body []byte) (string, bool) {
	var answer struct {
		Error string `json:"error"`
	}
	err := json.Unmarshal(body, &answer)
	return answer.Error, err == nil && answer.Error != ""
}
