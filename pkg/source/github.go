package source

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Repository is a client for one repository on a GitHub server.
type Repository struct {
	Owner, Name string // as in github.com/Owner/Name
	APIURL      string // of the REST API; default https://api.github.com
	ServerURL   string // from which git fetches; default https://github.com
	Token       string // needs contents: read; may be "" for a public repository

	HTTP           httpclient.Config // for API requests, and its clock for git; the zero value is the production default
	GitIdleTimeout time.Duration     // see git.Git and lfs.Server

	Logf func(format string, args ...any) // logs the progress of Fetch; nil logs nothing
}

func (r Repository) logf(format string, args ...any) {
	if r.Logf != nil {
		r.Logf(format, args...)
	}
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func isName(s string) bool { return namePattern.MatchString(s) && strings.Trim(s, ".") != "" }

func (r Repository) fullName() string { return r.Owner + "/" + r.Name }

func (r Repository) validate() error {
	if !isName(r.Owner) || !isName(r.Name) {
		return fmt.Errorf("invalid repository name %q: want owner/name", r.fullName())
	}
	api, err := url.Parse(r.apiURL())
	if err != nil || api.Host == "" || api.Scheme != "https" && api.Scheme != "http" {
		return fmt.Errorf("invalid GITHUB_API_URL %q: want a URL such as https://api.github.com", r.APIURL)
	}
	return nil
}

func (r Repository) apiURL() string {
	return strings.TrimSuffix(cmp.Or(r.APIURL, "https://api.github.com"), "/")
}

func (r Repository) serverURL() string {
	return strings.TrimSuffix(cmp.Or(r.ServerURL, "https://github.com"), "/")
}

// call sends one request to GitHub's API with go-github. op names the operation in errors; hints take precedence over
// those of all requests. call keeps the response, so that an error can show one that go-github cannot decode.
func call[T any](
	ctx context.Context, r Repository, op string, do func(*github.Client) (T, *github.Response, error),
	hints ...httpclient.Hint,
) (T, error) {
	config := r.HTTP
	if config.Policy.RateLimit == nil {
		config.Policy.RateLimit = httpclient.GitHubRateLimit
	}
	clock := config.Clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	base, err := url.Parse(r.apiURL() + "/")
	if err != nil {
		return *new(T), err
	}
	transport := config.Client()
	transport.CheckRedirect = followOnServer
	recorder := &responseRecorder{next: resetTransport{transport.Transport, clock}}
	transport.Transport = recorder
	client := github.NewClient(transport)
	client.BaseURL = base
	if r.Token != "" {
		client = client.WithAuthToken(r.Token)
	}
	answer, response, err := do(client)
	if err == nil {
		return answer, nil
	}
	service := httpclient.Service{Name: "GitHub", URL: r.apiURL(), Hints: r.hints(), Clock: clock}
	op = fmt.Sprintf("%s in %s", op, r.fullName())
	if response == nil {
		return answer, service.Failure(ctx, op, nil, err, []string{r.Token}, hints...)
	}
	response.Body = io.NopCloser(bytes.NewReader(recorder.body))
	return answer, service.Failure(ctx, op, response.Response, err, []string{r.Token}, hints...)
}

// responseRecorder records the body of the last response.
type responseRecorder struct {
	next http.RoundTripper
	body []byte
}

// RoundTrip implements [http.RoundTripper].
func (r *responseRecorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if r.body, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(r.body))
	return response, nil
}

// followOnServer follows redirects on the same server, which GitHub sends for a renamed repository. It does not follow
// a redirect to another server, which could return another commit.
func followOnServer(next *http.Request, via []*http.Request) error {
	const maxRedirects = 5
	first := via[0].URL
	if next.URL.Host != first.Host || next.URL.Scheme != first.Scheme || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

func (r Repository) hints() []httpclient.Hint {
	// GitHub answers 404 for a private repository that the token cannot read.
	notFound := "check the name; a private repository needs a github_token with contents: read"
	if r.Token != "" {
		notFound = "check the name, and that the github_token has contents: read for this repository"
	}
	return []httpclient.Hint{
		{On: http.StatusTooManyRequests, Text: "use a github_token with its own rate limit"},
		{On: http.StatusForbidden, Message: "rate limit", Text: "use a github_token with its own rate limit"},
		{On: http.StatusForbidden, Text: "the github_token needs contents: read"},
		{On: http.StatusUnauthorized, Text: "use a github_token that has not expired"},
		{On: http.StatusNotFound, Text: notFound},
		{On: http.StatusConflict, Text: "push a commit first"}, // the repository is empty
		{On: httpclient.ServerErrors, Text: "try again later; see https://www.githubstatus.com"},
		{On: httpclient.NoResponse, Text: "check the network and GITHUB_API_URL"},
		{On: httpclient.Any, Text: "check GITHUB_API_URL"},
	}
}

// resetTransport adds the header Retry-After to a response that only has the reset time of a rate limit, so that errors
// show it.
type resetTransport struct {
	next  http.RoundTripper
	clock httpclient.Clock
}

// RoundTrip implements [http.RoundTripper].
func (t resetTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if wait, limited := httpclient.GitHubRateLimit(response, t.clock.Now()); limited && wait > 0 {
		response.Header.Set("Retry-After", strconv.Itoa(int(wait.Seconds())))
	}
	return response, nil
}

// unexpected returns the error for a response that has the API's format but unexpected values.
func (r Repository) unexpected(op, message string) error {
	return &httpclient.APIError{
		Service: "GitHub", Op: fmt.Sprintf("%s in %s", op, r.fullName()), Status: http.StatusOK,
		Message: message, Hint: "check GITHUB_API_URL", Err: httpclient.ErrFormat,
	}
}

func (r Repository) getReference(ctx context.Context, op, ref string) (*github.GitObject, error) {
	found, err := call(ctx, r, op, func(c *github.Client) (*github.Reference, *github.Response, error) {
		return c.Git.GetRef(ctx, r.Owner, r.Name, ref)
	})
	return found.GetObject(), err
}

func (r Repository) getTag(ctx context.Context, op, sha string) (*github.GitObject, error) {
	found, err := call(ctx, r, op, func(c *github.Client) (*github.Tag, *github.Response, error) {
		return c.Git.GetTag(ctx, r.Owner, r.Name, sha)
	})
	return found.GetObject(), err
}

// getCommit returns the full SHA of a commit.
func (r Repository) getCommit(ctx context.Context, op, sha string) (string, error) {
	found, err := call(ctx, r, op, func(c *github.Client) (*github.RepositoryCommit, *github.Response, error) {
		oneFile := &github.ListOptions{PerPage: 1} // limits the list of changed files in the response
		return c.Repositories.GetCommit(ctx, r.Owner, r.Name, sha, oneFile)
	})
	return found.GetSHA(), err
}

func (r Repository) getPullRequest(ctx context.Context, op string, number int) (*github.PullRequest, error) {
	return call(ctx, r, op, func(c *github.Client) (*github.PullRequest, *github.Response, error) {
		return c.PullRequests.Get(ctx, r.Owner, r.Name, number)
	})
}

// listReferences lists refs/heads/… or refs/tags/….
func (r Repository) listReferences(ctx context.Context, op, kind string) ([]*github.Reference, error) {
	return call(ctx, r, op, func(c *github.Client) ([]*github.Reference, *github.Response, error) {
		return c.Git.ListMatchingRefs(ctx, r.Owner, r.Name, &github.ReferenceListOptions{Ref: kind})
	})
}

// listCommits lists the latest commits of the default branch.
func (r Repository) listCommits(ctx context.Context, op string) ([]*github.RepositoryCommit, error) {
	return call(ctx, r, op, func(c *github.Client) ([]*github.RepositoryCommit, *github.Response, error) {
		page := &github.CommitsListOptions{ListOptions: github.ListOptions{PerPage: 100}}
		return c.Repositories.ListCommits(ctx, r.Owner, r.Name, page)
	})
}

// checkAccess returns an error if the repository does not exist or the token cannot read it. GitHub answers 404 for
// that as well as for a missing ref.
func (r Repository) checkAccess(ctx context.Context, op string) error {
	_, err := call(ctx, r, op, func(c *github.Client) (*github.Repository, *github.Response, error) {
		return c.Repositories.Get(ctx, r.Owner, r.Name)
	})
	return err
}
