package source

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Repository is one repository of a GitHub server.
type Repository struct {
	Owner, Name string // as in github.com/Owner/Name
	APIURL      string // of the REST API; "": https://api.github.com
	ServerURL   string // where git fetches from; "": https://github.com
	Token       string // needs contents: read; "" for a public repository

	HTTP           httpclient.Config // for API requests, and its clock for git; the zero value is the production default
	GitIdleTimeout time.Duration     // see git.Git
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

// get requests a path below the repository's API and decodes the answer; op is for errors.
func (r Repository) get(ctx context.Context, op, path string, answer any) error {
	config := r.HTTP
	if config.Policy.RateLimit == nil {
		config.Policy.RateLimit = httpclient.GitHubRateLimit
	}
	clock := config.Clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	client := config.Client()
	client.CheckRedirect = followOnServer
	client.Transport = resetTransport{client.Transport, clock}
	service := httpclient.Service{Name: "GitHub", URL: r.apiURL(), Hints: r.hints(), Clock: clock}
	return httpclient.JSONClient{Service: service, HTTP: client}.Do(ctx, httpclient.JSONCall{
		Op:    fmt.Sprintf("%s in %s", op, r.fullName()),
		Path:  "/repos/" + r.fullName() + path,
		Token: r.Token,
	}, answer)
}

// followOnServer follows the redirect of a renamed repository, and none to another server: that one's answer could name
// another commit.
func followOnServer(next *http.Request, via []*http.Request) error {
	const maxRedirects = 5
	first := via[0].URL
	if next.URL.Host != first.Host || next.URL.Scheme != first.Scheme || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

func (r Repository) hints() []httpclient.Hint {
	// GitHub answers 404 for a private repository that the caller must not see.
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
		{On: httpclient.NoAnswer, Text: "check the network and GITHUB_API_URL"},
		{On: httpclient.Any, Text: "check GITHUB_API_URL"},
	}
}

// resetTransport adds a Retry-After to answers that name the reset of a rate limit only, so that errors show it.
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

// unexpected is the error for an answer that has the API's format, but makes no sense.
func (r Repository) unexpected(op, message string) error {
	return &httpclient.APIError{
		Service: "GitHub", Op: fmt.Sprintf("%s in %s", op, r.fullName()), Status: http.StatusOK,
		Message: message, Hint: "check GITHUB_API_URL", Err: httpclient.ErrFormat,
	}
}

// The parts of GitHub's answers that are read.
type (
	gitObject struct {
		Type string `json:"type"` // commit, tag, tree, blob
		SHA  string `json:"sha"`
	}
	gitReference struct {
		Ref    string    `json:"ref"` // refs/…
		Object gitObject `json:"object"`
	}
	commitAnswer struct {
		SHA string `json:"sha"`
	}
	pullRequest struct {
		State     string `json:"state"`     // open or closed
		Mergeable *bool  `json:"mergeable"` // nil while GitHub computes it
	}
)

func (r Repository) getReference(ctx context.Context, op, ref string) (found gitReference, err error) {
	return found, r.get(ctx, op, "/git/ref/"+escapePath(strings.TrimPrefix(ref, "refs/")), &found)
}

func (r Repository) getTag(ctx context.Context, op, sha string) (found gitReference, err error) {
	return found, r.get(ctx, op, "/git/tags/"+sha, &found)
}

func (r Repository) getCommit(ctx context.Context, op, sha string) (found commitAnswer, err error) {
	return found, r.get(ctx, op, "/commits/"+sha+"?per_page=1", &found) // one of its changed files is enough
}

func (r Repository) getPullRequest(ctx context.Context, op, number string) (found pullRequest, err error) {
	return found, r.get(ctx, op, "/pulls/"+number, &found)
}

// listReferences lists refs/heads/… or refs/tags/….
func (r Repository) listReferences(ctx context.Context, op, kind string) (found []gitReference, err error) {
	return found, r.get(ctx, op, "/git/matching-refs/"+kind, &found)
}

// listCommits lists the latest commits of the default branch.
func (r Repository) listCommits(ctx context.Context, op string) (found []commitAnswer, err error) {
	return found, r.get(ctx, op, "/commits?per_page=100", &found)
}

// checkAccess tells a missing ref from a missing or hidden repository: GitHub answers 404 to both.
func (r Repository) checkAccess(ctx context.Context, op string) error { return r.get(ctx, op, "", nil) }

func escapePath(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}
