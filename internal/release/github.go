package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/go-github/v62/github"
	"github.com/org/sandbox-actions/pkg/git"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/runner"
)

// publisher publishes the artifacts of a release on GitHub.
type publisher struct {
	artifacts
	api       *github.Client
	git       git.Git
	downloads *http.Client // adds no credentials to requests
	token     string
	isPrivate bool // set by checkAccess
	limits    limits
	log       *runner.Runner
}

// limits contains timeouts and waits. Zero fields have the default.
type limits struct {
	Request  time.Duration // timeout of an attempt without a file transfer. Default: 30 s
	Transfer time.Duration // timeout of an attempt to upload or download a file. Default: 5 min
	MinWait  time.Duration // wait before the second attempt, which grows with each attempt. Default: 1 s
}

const (
	maxAttempts   = 4
	maxRetryAfter = 30 * time.Second // longer rate limits fail the operation
)

// newPublisher returns a publisher that uses the API at apiURL. If apiURL is "", it uses the API of the artifacts'
// server.
func newPublisher(a artifacts, apiURL, token string, l limits, log *runner.Runner) (*publisher, error) {
	if token == "" {
		return nil, errors.New("missing GITHUB_TOKEN (set it to a token with contents: write, for example $(gh auth token))")
	}
	switch {
	case apiURL != "":
	case a.server == "https://github.com":
		apiURL = "https://api.github.com"
	default:
		apiURL = a.server + "/api/v3"
	}
	base, err := url.Parse(strings.TrimSuffix(apiURL, "/") + "/")
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("invalid GITHUB_API_URL %q (set it to a URL such as https://api.github.com)", apiURL)
	}
	log.Mask(token)
	l.Request = cmp.Or(l.Request, 30*time.Second)
	l.Transfer = cmp.Or(l.Transfer, 5*time.Minute)
	l.MinWait = cmp.Or(l.MinWait, time.Second)
	// The HTTP client does not retry. p.retry repeats whole operations, which check the existing state first.
	once := httpclient.Policy{Attempts: 1, Timeout: l.Transfer}
	api := github.NewClient(httpclient.Config{Policy: once}.Client()).WithAuthToken(token)
	api.BaseURL = base
	once.StreamBody = true
	downloads := httpclient.Config{Policy: once, FollowRedirects: true}.Client()
	return &publisher{
		artifacts: a, api: api, git: git.Git{}.WithToken(a.server, token), downloads: downloads, token: token,
		limits: l, log: log,
	}, nil
}

// checkAccess checks that the token can read the repository. It sets p.isPrivate and returns the default branch.
func (p *publisher) checkAccess(ctx context.Context) (defaultBranch string, err error) {
	err = p.retry(ctx, "open "+p.owner+"/"+p.name, p.limits.Request, func(ctx context.Context) error {
		repository, _, err := p.api.Repositories.Get(ctx, p.owner, p.name)
		if err == nil && repository.GetFullName() == "" {
			return httpclient.ErrFormat
		}
		p.isPrivate, defaultBranch = repository.GetPrivate(), repository.GetDefaultBranch()
		return err
	})
	return defaultBranch, err
}

// checkMerged returns an error unless a commit is on the default branch: its rules require a review. With isRelease,
// the commit is that of a release: one commit after the default branch that adds only the checksums.
func (p *publisher) checkMerged(ctx context.Context, commit, defaultBranch string, isRelease bool) error {
	return p.retry(ctx, "compare with "+defaultBranch, p.limits.Request, func(ctx context.Context) error {
		found, _, err := p.api.Repositories.CompareCommits(ctx, p.owner, p.name, defaultBranch, commit, nil)
		switch {
		case err != nil:
			return err
		case found.AheadBy == nil:
			return httpclient.ErrFormat
		case found.GetAheadBy() == 0 && !isRelease:
			return nil
		case isRelease && found.GetAheadBy() == 1 && len(found.Files) == 1 && found.Files[0].GetFilename() == checksumsFile:
			return nil
		}
		return conflictf("commit %s is not on the branch %s (merge it, and release the merged commit)",
			commit, defaultBranch)
	})
}

// listReleases returns the releases that the token can read, including drafts.
func (p *publisher) listReleases(ctx context.Context) ([]*github.RepositoryRelease, error) {
	var all []*github.RepositoryRelease
	for page := 1; page != 0; {
		some, response, err := p.api.Repositories.ListReleases(ctx, p.owner, p.name,
			&github.ListOptions{Page: page, PerPage: 100})
		if err != nil {
			return nil, err
		}
		all, page = append(all, some...), response.NextPage
	}
	return all, nil
}

// listAssets returns the assets of a release by name.
func (p *publisher) listAssets(ctx context.Context, id int64) (map[string]*github.ReleaseAsset, error) {
	all := map[string]*github.ReleaseAsset{}
	for page := 1; page != 0; {
		some, response, err := p.api.Repositories.ListReleaseAssets(ctx, p.owner, p.name, id,
			&github.ListOptions{Page: page, PerPage: 100})
		if err != nil {
			return nil, err
		}
		for _, asset := range some {
			all[asset.GetName()] = asset
		}
		page = response.NextPage
	}
	return all, nil
}

// sumPublic downloads an asset from its public URL, without a token, and returns its SHA-256.
func (p *publisher) sumPublic(ctx context.Context, asset *github.ReleaseAsset) (string, error) {
	address := p.repositoryURL() + "/releases/download/" + p.version + "/" + asset.GetName()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	return p.sumDownload(request)
}

// sumAuthenticated downloads an asset through the API, which works for drafts and private repositories, and returns
// its SHA-256.
func (p *publisher) sumAuthenticated(ctx context.Context, asset *github.ReleaseAsset) (string, error) {
	path := fmt.Sprintf("repos/%s/%s/releases/assets/%d", p.owner, p.name, asset.GetID())
	request, err := p.api.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "application/octet-stream")
	request.Header.Set("Authorization", "Bearer "+p.token)
	return p.sumDownload(request.WithContext(ctx))
}

func (p *publisher) sumDownload(request *http.Request) (string, error) {
	response, err := p.downloads.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if err := github.CheckResponse(response); err != nil {
		if response.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", errNotYet, err)
		}
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, response.Body); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// errNotYet reports that an asset does not exist yet: GitHub may serve it with a delay after it is published.
var errNotYet = errors.New("not published yet")

// conflictError reports a state of the repository that the program does not change. Its message needs no context.
type conflictError struct{ message string }

func (e *conflictError) Error() string { return e.message }

func conflictf(format string, args ...any) error { return &conflictError{fmt.Sprintf(format, args...)} }

// retry runs an operation and repeats it after temporary failures. timeout limits each attempt. do must be safe to
// repeat: it must check the existing state before it changes anything. Errors begin with op, except conflict errors.
func (p *publisher) retry(ctx context.Context, op string, timeout time.Duration, do func(context.Context) error) error {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = p.limits.MinWait
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempt, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		err := do(attempt)
		wait, temporary := isTemporary(err)
		switch {
		case err == nil:
			return struct{}{}, nil
		case ctx.Err() != nil || !temporary:
			return struct{}{}, backoff.Permanent(err)
		case wait > 0:
			return struct{}{}, errors.Join(err, &backoff.RetryAfterError{Duration: wait})
		}
		return struct{}{}, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxAttempts), backoff.WithMaxElapsedTime(0))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: canceled (run the command again to continue)", op)
	case errors.As(err, new(*conflictError)):
		return err
	}
	return p.describe(ctx, op, err)
}

// isTemporary reports whether an operation that failed with err may succeed if it is repeated, and how long to wait
// first if GitHub specifies it.
func isTemporary(err error) (wait time.Duration, temporary bool) {
	if errors.Is(err, errNotYet) {
		return 0, true
	}
	if failed, ok := errors.AsType[*git.Error](err); ok {
		return 0, failed.Temporary()
	}
	if response := responseOf(err); response != nil {
		if wait, limited := httpclient.GitHubRateLimit(response, time.Now()); limited {
			return wait, wait < maxRetryAfter
		}
		return 0, response.StatusCode >= 500 || response.StatusCode == http.StatusRequestTimeout
	}
	return 0, isNetworkError(err)
}

func isNetworkError(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, new(net.Error))
}

func isFormatError(err error) bool {
	return errors.Is(err, httpclient.ErrFormat) || errors.As(err, new(*json.SyntaxError)) ||
		errors.As(err, new(*json.UnmarshalTypeError))
}

// responseOf returns the response that err contains, or nil.
func responseOf(err error) *http.Response {
	if e, ok := errors.AsType[*github.ErrorResponse](err); ok {
		return e.Response
	}
	if e, ok := errors.AsType[*github.RateLimitError](err); ok {
		return e.Response
	}
	if e, ok := errors.AsType[*github.AbuseRateLimitError](err); ok {
		return e.Response
	}
	return nil
}

// describe adds op and a hint to the error of an operation. The result is an *httpclient.APIError, or wraps a
// *git.Error, if GitHub or the network caused the failure.
func (p *publisher) describe(ctx context.Context, op string, err error) error {
	service := httpclient.Service{Name: "GitHub", URL: p.server, Message: readMessage, Hints: p.hints()}
	response := responseOf(err)
	failedGit, isGit := errors.AsType[*git.Error](err)
	switch {
	case isGit:
		return fmt.Errorf("%s: %w (%s)", op, err, p.gitHint(failedGit.Cause))
	case isFormatError(err):
		return &httpclient.APIError{
			Service: service.Name, Op: op, Message: "the response is not in the API's format", Hint: "check GITHUB_API_URL",
			Err: errors.Join(httpclient.ErrFormat, err),
		}
	case response != nil, isNetworkError(err):
		return service.Failure(ctx, op, response, err, []string{p.token})
	}
	return fmt.Errorf("%s: %w", op, err)
}

const (
	hintLater      = "try again later; see https://www.githubstatus.com"
	hintToken      = "GITHUB_TOKEN is invalid or expired: set a new one"
	hintPermission = "GITHUB_TOKEN lacks a permission: grant the job `contents: write`"
)

func (p *publisher) hints() []httpclient.Hint {
	return []httpclient.Hint{
		{On: http.StatusTooManyRequests, Text: hintLater},
		{On: http.StatusForbidden, Message: "rate limit", Text: hintLater},
		{On: http.StatusUnauthorized, Text: hintToken},
		{On: http.StatusForbidden, Text: hintPermission},
		{On: http.StatusNotFound, Text: p.hintRepository()},
		{On: http.StatusConflict, Text: p.hintCompare()},
		{On: http.StatusUnprocessableEntity, Text: p.hintCompare()},
		{On: httpclient.ServerErrors, Text: hintLater},
		{On: httpclient.NoResponse, Text: "check the network, and run the command again"},
	}
}

func (p *publisher) gitHint(cause git.Cause) string {
	switch cause {
	case git.Network, git.RateLimited:
		return hintLater
	case git.Unauthorized:
		return hintPermission
	case git.NotFound:
		return p.hintRepository()
	}
	return p.hintCompare()
}

func (p *publisher) hintRepository() string {
	return "check that " + p.repositoryURL() + " exists and that GITHUB_TOKEN has `contents: write` for it"
}

func (p *publisher) hintCompare() string {
	return "compare with " + p.repositoryURL() + "/releases, and run the command again"
}

// readMessage returns the message and the details of an error response of GitHub's API.
// https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api#validation-failed
func readMessage(body []byte) (string, bool) {
	var answer struct {
		Message string
		Errors  []struct{ Code, Field, Message string }
	}
	if json.Unmarshal(body, &answer) != nil || answer.Message == "" {
		return "", false
	}
	for _, e := range answer.Errors {
		answer.Message += " " + e.Code + " " + e.Field + " " + e.Message
	}
	return answer.Message, true
}
