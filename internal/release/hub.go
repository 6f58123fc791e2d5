package main

import (
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
	"github.com/org/sandbox-actions/pkg/runner"
)

// hub is the repository at GitHub that a release belongs to.
type hub struct {
	folder
	api            *github.Client
	bare           *http.Client // carries no token of its own
	token          string
	private        bool // set by enter
	*runner.Runner      // shows what is done, and nothing of the token

	requests, transfers time.Duration // the most that one try may take
}

// connect prepares to speak to GitHub: at api, or where the server has its API.
func connect(f folder, api, token string, r *runner.Runner) (*hub, error) {
	if token == "" {
		return nil, errors.New("there is no GITHUB_TOKEN: set it to a token that has contents: write for the repository, such as `gh auth token` prints")
	}
	switch {
	case api != "":
	case f.server == "https://github.com":
		api = "https://api.github.com"
	default:
		api = f.server + "/api/v3"
	}
	base, err := url.Parse(strings.TrimSuffix(api, "/") + "/")
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("GITHUB_API_URL is %q, which is no address: it looks like https://api.github.com", api)
	}
	r.Mask(token)
	client := github.NewClient(nil).WithAuthToken(token)
	client.BaseURL = base
	return &hub{folder: f, Runner: r, api: client, bare: &http.Client{}, token: token, requests: 30 * time.Second, transfers: 5 * time.Minute}, nil
}

// enter sees whether the token opens the repository, and whether strangers may read it.
func (r *hub) enter(ctx context.Context) error {
	return r.step(ctx, "enter "+r.owner+"/"+r.name, func(ctx context.Context) error {
		repository, _, err := r.api.Repositories.Get(ctx, r.owner, r.name)
		if err == nil && repository.GetFullName() == "" {
			return errGarbage
		}
		r.private = repository.GetPrivate()
		return err
	})
}

// releases are all that the token may see, drafts too.
func (r *hub) releases(ctx context.Context) ([]*github.RepositoryRelease, error) {
	var all []*github.RepositoryRelease
	for page := 1; page != 0; {
		some, answer, err := r.api.Repositories.ListReleases(ctx, r.owner, r.name, &github.ListOptions{Page: page, PerPage: 100})
		if err != nil {
			return nil, err
		}
		all, page = append(all, some...), answer.NextPage
	}
	return all, nil
}

// assets are those of a release, by name.
func (r *hub) assets(ctx context.Context, id int64) (map[string]*github.ReleaseAsset, error) {
	all := map[string]*github.ReleaseAsset{}
	for page := 1; page != 0; {
		some, answer, err := r.api.Repositories.ListReleaseAssets(ctx, r.owner, r.name, id, &github.ListOptions{Page: page, PerPage: 100})
		if err != nil {
			return nil, err
		}
		for _, asset := range some {
			all[asset.GetName()] = asset
		}
		page = answer.NextPage
	}
	return all, nil
}

// asStranger downloads an asset by the address that people see, and returns its SHA-256.
func (r *hub) asStranger(ctx context.Context, asset *github.ReleaseAsset) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.home+"/releases/download/"+r.version+"/"+asset.GetName(), nil)
	if err != nil {
		return "", err
	}
	return r.download(request)
}

// asOwner downloads an asset by its number, with the token. The host that has the bytes gets no token: http.Client leaves it off there.
func (r *hub) asOwner(ctx context.Context, asset *github.ReleaseAsset) (string, error) {
	request, err := r.api.NewRequest(http.MethodGet, fmt.Sprintf("repos/%s/%s/releases/assets/%d", r.owner, r.name, asset.GetID()), nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "application/octet-stream")
	request.Header.Set("Authorization", "Bearer "+r.token)
	return r.download(request.WithContext(ctx))
}

func (r *hub) download(request *http.Request) (string, error) {
	answer, err := r.bare.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if err := github.CheckResponse(answer); err != nil {
		if answer.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", errNotYet, err)
		}
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, answer.Body); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

var (
	errGarbage = errors.New("an answer that makes no sense")
	errNotYet  = errors.New("not there yet") // what was published a moment ago may be shown a moment later
)

// refusal is the whole sentence, and final.
type refusal struct{ error }

func refused(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

const (
	maxTries    = 4
	longestWait = 30 * time.Second // of a Retry-After that we wait for
)

// firstWait is before the second try; it doubles.
var firstWait = time.Second

// step does something at GitHub, and tries again when it failed for a reason that may pass. That is safe for all that is done here: do looks
// what there is before it changes anything. what names it in the error.
func (r *hub) step(ctx context.Context, what string, do func(context.Context) error) error {
	return r.try(ctx, r.requests, what, do)
}

// transfer is a step that moves a file.
func (r *hub) transfer(ctx context.Context, what string, do func(context.Context) error) error {
	return r.try(ctx, r.transfers, what, do)
}

func (r *hub) try(ctx context.Context, most time.Duration, what string, do func(context.Context) error) error {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		once, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		err := do(once)
		wait, again := passes(err)
		switch {
		case err == nil:
			return struct{}{}, nil
		case ctx.Err() != nil || !again:
			return struct{}{}, backoff.Permanent(err)
		case wait > 0:
			return struct{}{}, errors.Join(err, &backoff.RetryAfterError{Duration: wait})
		}
		return struct{}{}, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries), backoff.WithMaxElapsedTime(0))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: it was canceled: run it again, and it goes on from there", what)
	case errors.As(err, &refusal{}):
		return err
	}
	return fmt.Errorf("%s: %w", what, r.because(err))
}

// passes says whether a failure may be gone at the next try, and how long GitHub asks to wait until then.
func passes(err error) (wait time.Duration, again bool) {
	var (
		answer  *github.ErrorResponse
		primary *github.RateLimitError
		abuse   *github.AbuseRateLimitError
		said    *gitError
	)
	switch {
	case errors.As(err, &primary):
		wait = time.Until(primary.Rate.Reset.Time)
		return wait, wait < longestWait
	case errors.As(err, &abuse):
		return abuse.GetRetryAfter(), abuse.GetRetryAfter() < longestWait
	case errors.Is(err, errNotYet):
		return 0, true
	case errors.As(err, &answer):
		status := answer.Response.StatusCode
		return 0, status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests
	case errors.As(err, &said):
		return 0, said.status() == 0 || said.status() >= 500
	}
	return 0, errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(net.Error))
}

// because says what GitHub's answer, or none, means, and what to do.
func (r *hub) because(err error) error {
	status, words := 0, err.Error()
	var (
		answer *github.ErrorResponse
		said   *gitError
	)
	if errors.As(err, &answer) {
		status, words = answer.Response.StatusCode, answer.Message
		for _, one := range answer.Errors {
			words += " " + strings.TrimSpace(one.Code+" "+one.Field+" "+one.Message)
		}
	} else if errors.As(err, &said) {
		status = said.status()
	}
	words = r.Clean(words[:min(len(words), 300)])
	switch _, limited := errors.AsType[*github.RateLimitError](err); {
	case limited || errors.As(err, new(*github.AbuseRateLimitError)) || status == http.StatusTooManyRequests:
		return fmt.Errorf("GitHub asks to slow down (%s): try again later", words)
	case status == http.StatusUnauthorized:
		return errors.New("GitHub does not know GITHUB_TOKEN, or no longer: give one that has not expired")
	case status == http.StatusForbidden:
		return fmt.Errorf("GITHUB_TOKEN may not do that in %s/%s (%s): give the job `contents: write`", r.owner, r.name, words)
	case status == http.StatusNotFound:
		return fmt.Errorf("GitHub has none, or does not show it to GITHUB_TOKEN: see that %s is right, and that the token has `contents: write`", r.home)
	case status == http.StatusConflict, status == http.StatusUnprocessableEntity:
		return fmt.Errorf("GitHub refuses it (%s): see what %s/releases has, and run it again", words, r.home)
	case status >= 500:
		return fmt.Errorf("GitHub failed %d times (%d): try again later (https://www.githubstatus.com)", maxTries, status)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("GitHub did not answer in time, %d times: see that %s can be reached, and run it again", maxTries, r.server)
	case errors.Is(err, errGarbage), errors.As(err, new(*json.SyntaxError)), errors.As(err, new(*json.UnmarshalTypeError)):
		return fmt.Errorf("what answers at %s is not GitHub's API (%s): see that GITHUB_API_URL is right", r.api.BaseURL.Host, words)
	case errors.As(err, new(net.Error)), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the connection to GitHub failed %d times (%s): see that %s can be reached, and run it again", maxTries, words, r.server)
	}
	return errors.New(words)
}
