package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/internal/faultproxy"
	standin "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestResolve(t *testing.T) {
	app := hubDir + "/app"
	first, second := sh(t, app, "git rev-parse trunk"), sh(t, app, "git rev-parse feature/x")
	merge := sh(t, app, "git rev-parse refs/pull/1/merge")
	for _, test := range []struct{ name, ref, sha, full string }{
		{"branch", "trunk", first, "refs/heads/trunk"},
		{"branch with a slash", "feature/x", second, "refs/heads/feature/x"},
		{"full name of a branch", "refs/heads/feature/x", second, "refs/heads/feature/x"},
		{"branch with heads/", "heads/feature/x", second, "refs/heads/feature/x"},
		{"tag", "light", first, "refs/tags/light"},
		{"annotated tag", "v1.0", first, "refs/tags/v1.0"},
		{"full name of an annotated tag", "refs/tags/v1.0", first, "refs/tags/v1.0"},
		{"tag of a tag", "latest", first, "refs/tags/latest"},
		{"branch and tag of the same name", "same", first, "refs/heads/same"},
		{"tag of the name of a branch", "tags/same", second, "refs/tags/same"},
		{"branch that looks like a SHA", "deadbeef", second, "refs/heads/deadbeef"},
		{"SHA", second, second, ""},
		{"SHA in capitals", strings.ToUpper(second), second, ""},
		{"short SHA", second[:10], second, ""},
		{"short SHA in capitals", strings.ToUpper(second[:10]), second, ""},
		{"SHA of a pull request only", merge, merge, ""},
		{"merge commit of a pull request", "refs/pull/1/merge", merge, "refs/pull/1/merge"},
		{"head of a pull request", "refs/pull/1/head", second, "refs/pull/1/head"},
		{"pull request", "#1", merge, "refs/pull/1/merge"},
		{"head of a pull request with conflicts", "refs/pull/2/head", second, "refs/pull/2/head"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := fromHub("app", goodToken).Resolve(t.Context(), test.ref)
			if want := (Commit{SHA: test.sha, Ref: test.full}); err != nil || got != want {
				t.Errorf("%s: %+v, %v; want %+v", test.ref, got, err, want)
			}
		})
	}
	if got, err := fromHub("public", "").Resolve(t.Context(), "trunk"); err != nil || got.SHA != first {
		t.Errorf("public repository without a token: %+v, %v", got, err)
	}
}

func TestResolveNotFound(t *testing.T) {
	app := hubDir + "/app"
	ambiguous := sh(t, app, "git rev-list many | cut -c1-4 | sort | uniq -d | grep '[a-f]' | head -1")
	// GitHub lists only the latest commits of the default branch, so create a branch for each of the two commits.
	sh(t, app, "i=0; for sha in $(git rev-list many | grep ^"+ambiguous+`); do
		i=$((i+1)); git branch -f ambiguous-$i $sha
	done`)
	t.Cleanup(func() {
		sh(t, app, "git branch -q -D $(git branch --list --format='%(refname:short)' 'ambiguous-*')")
	})
	tried := func(refs ...string) []string { return refs }
	for _, test := range []struct {
		name, ref    string
		reason, hint string // parts of them
		tried        []string
	}{
		{
			"mistyped branch", "featur/x", "not found", "did you mean feature/x?",
			tried("refs/heads/featur/x", "refs/tags/featur/x"),
		},
		{
			"branch in other letters", "Trunk", "not found", "did you mean trunk?", tried("refs/heads/Trunk", "refs/tags/Trunk"),
		},
		{
			"branch of a remote", "origin/trunk", "not found", "did you mean trunk?",
			tried("refs/heads/origin/trunk", "refs/tags/origin/trunk"),
		},
		{"end of a branch", "x", "not found", "did you mean feature/x?", tried("refs/heads/x", "refs/tags/x")},
		{"mistyped tag", "v1.1", "not found", "did you mean v1.0?", tried("refs/heads/v1.1", "refs/tags/v1.1")},
		{"tag as a branch", "refs/heads/light", "not found", "did you mean light?", tried("refs/heads/light")},
		{
			"nothing similar", "completely-different", "not found", "check the name, or push it",
			tried("refs/heads/completely-different", "refs/tags/completely-different"),
		},
		{"ambiguous SHA", ambiguous, "ambiguous short SHA; it matches " + ambiguous, "use more digits of the SHA", nil},
		{
			"unknown short SHA", "0123456", "not found, or an ambiguous short SHA", "use the full SHA",
			tried("refs/heads/0123456", "refs/tags/0123456", "commit 0123456"),
		},
		{"unknown SHA", strings.Repeat("0", 40), "commit not found", "push it", nil},
		{"tag of a tree", "of-a-tree", "refs/tags/of-a-tree points to a tree, not to a commit", "", nil},
		{"unknown pull request", "#4", "pull request #4 not found", "check the number", tried("refs/pull/4/merge")},
		{
			"pull request with conflicts", "#2", "refs/pull/2/merge does not exist: the pull request conflicts",
			"use refs/pull/2/head", nil,
		},
		{"closed pull request", "refs/pull/3/merge", "the pull request is closed", "use refs/pull/3/head", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := fromHub("app", goodToken).Resolve(t.Context(), test.ref)
			missing, ok := errors.AsType[*RefError](err)
			if !ok {
				t.Fatalf("error = %v, want a RefError", err)
			}
			if missing.Ref != test.ref || missing.Repository != "octo/app" ||
				!strings.Contains(missing.Reason, test.reason) ||
				!strings.Contains(missing.Hint, test.hint) ||
				!slices.Equal(missing.Tried, test.tried) {
				t.Errorf("error = %#v", missing)
			}
			checkError(t, err, test.reason, test.hint)
		})
	}
	_, err := fromHub("app", goodToken).Resolve(t.Context(), "featur/x")
	const want = "resolve featur/x in octo/app: not found; tried refs/heads/featur/x, refs/tags/featur/x " +
		"(did you mean feature/x?)"
	if err == nil || err.Error() != want {
		t.Errorf("error = %v\nwant    %s", err, want)
	}
}

// GitHub sends the same response for an unknown and for an ambiguous short SHA. If only one commit has the prefix, the
// SHA is not reported as ambiguous.
func TestResolveUnknownShortSHA(t *testing.T) {
	short := sh(t, hubDir+"/app", "git rev-parse trunk")[:12]
	injectFaults(t, standin.Fault{Path: "/commits/", Status: 422, Body: `{"message":"No commit found for SHA"}`})
	_, err := fromHub("app", goodToken).Resolve(t.Context(), short)
	missing, ok := errors.AsType[*RefError](err)
	if !ok || missing.Reason != "not found, or an ambiguous short SHA" {
		t.Errorf("error = %#v", err)
	}
}

func TestResolveRejected(t *testing.T) {
	zeros := strings.Repeat("0", 40)
	for _, test := range []struct {
		name, repository, token, ref string
		status                       int // of an APIError; 0: another error
		phrase                       string
	}{
		{"empty repository", "empty", goodToken, "trunk", 409, "push a commit first"},
		{
			"unknown repository", "nothing", goodToken, "trunk", 404,
			"check the name, and that the github_token has contents: read",
		},
		{"SHA in an unknown repository", "nothing", goodToken, zeros, 404, "check the name"},
		{"pull request in an unknown repository", "nothing", goodToken, "#1", 404, "check the name"},
		{"private repository without a token", "app", "", "trunk", 404, "a private repository needs a github_token"},
		{"SHA in a private repository without a token", "app", "", zeros, 404, "a private repository needs a github_token"},
		{
			"pull request in a private repository without a token", "app", "", "#1", 404,
			"a private repository needs a github_token",
		},
		{"bad token", "app", "ghs_another", "trunk", 401, "use a github_token that has not expired"},
		{"invalid repository name", "..", goodToken, "trunk", 0, "invalid repository name"},
		{"invalid ref", "app", goodToken, "-trunk", 0, "invalid ref"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := fromHub(test.repository, test.token).Resolve(t.Context(), test.ref)
			if got != (Commit{}) || httpclient.Status(err) != test.status {
				t.Errorf("%+v, %v; want status %d", got, err, test.status)
			}
			checkError(t, err, test.phrase)
		})
	}
	r := fromHub("app", goodToken)
	r.APIURL = "localhost/api"
	_, err := r.Resolve(t.Context(), "trunk")
	checkError(t, err, "invalid GITHUB_API_URL")
}

func TestResolveAPIFailures(t *testing.T) {
	page := standin.Fault{Path: "/api/v3/", Status: 502, Body: "<html>\n::error::bad gateway</html>"}
	reset := fakeclock.Start.Add(time.Hour)
	undocumented := standin.SecondaryLimit(403, 0) // GitHub sometimes omits the link that identifies this limit
	undocumented.Body = strings.Replace(undocumented.Body, "#about-secondary-rate-limits", "", 1)
	forged := standin.Fault{Path: "/api/v3/", Status: 403, Body: `{"message":"no\n::error::forged\u001b[31m"}`}
	times := func(n int, f standin.Fault) standin.Fault { f.Times = n; return f }
	status := func(code int, body string) standin.Fault {
		return standin.Fault{Path: "/api/v3/", Status: code, Body: body}
	}
	answer := func(body string) standin.Fault { return standin.Fault{Path: "/git/ref/", Status: 200, Body: body} }
	const limit = "use a github_token with its own rate limit"
	for _, test := range []struct {
		name     string
		fault    standin.Fault
		requests int
		status   int      // of the APIError
		phrases  []string // nil: Resolve succeeds
	}{
		{"temporary 5xx", times(2, page), 3, 0, nil},
		{"5xx", page, 4, 502, []string{"try again later"}},
		{"503 in JSON", status(503, `{"message":"Service unavailable"}`), 4, 503, []string{"Service unavailable"}},
		{"primary rate limit", standin.PrimaryLimit(403, reset), 1, 403, []string{limit, "retry after "}},
		{"primary rate limit as 429", standin.PrimaryLimit(429, reset), 1, 429, []string{limit, "retry after "}},
		{
			"long secondary rate limit", standin.SecondaryLimit(403, 2*time.Minute), 1, 403, []string{limit, "retry after 2m0s"},
		},
		{
			"long secondary rate limit as 429", standin.SecondaryLimit(429, 2*time.Minute), 1, 429, []string{"retry after 2m0s"},
		},
		{"short secondary rate limit", times(1, standin.SecondaryLimit(429, time.Second)), 2, 0, nil},
		{"secondary rate limit without Retry-After", standin.SecondaryLimit(429, 0), 4, 429, []string{limit}},
		{"undocumented secondary rate limit", undocumented, 4, 403, []string{limit}},
		{
			"forbidden", status(403, `{"message":"Resource not accessible by integration"}`), 1, 403,
			[]string{"Resource not accessible by integration", "the github_token needs contents: read"},
		},
		{"forbidden with a workflow command", forged, 1, 403, []string{"no ::error::forged"}},
		{"unauthorized", status(401, `{"message":"Bad credentials"}`), 1, 401, []string{"has not expired"}},
		{"teapot", status(418, ""), 1, 418, []string{"check GITHUB_API_URL"}},
		{"web page", answer("<html>"), 1, 200, []string{"a web page, not JSON", "check GITHUB_API_URL"}},
		{"other JSON", answer("[1, 2]"), 1, 200, []string{"not in the API's format", "check GITHUB_API_URL"}},
		{"no SHA", answer("{}"), 1, 200, []string{"no SHA for refs/heads/trunk", "check GITHUB_API_URL"}},
		{"SHA that is an option", answer(`{"object":{"type":"commit","sha":"--upload-pack=x"}}`), 1, 200, []string{"no SHA"}},
		{
			"type with a workflow command",
			answer(`{"object":{"type":"\n::error::x","sha":"` + strings.Repeat("0", 40) + `"}}`), 1, 0,
			[]string{"points to a ::error::x, not to a commit"},
		},
		{
			"truncated response", standin.Fault{Path: "/git/ref/", Truncate: 9}, 4, 0,
			[]string{"the body is incomplete", "check the network"},
		},
		{
			"closed connection", standin.Fault{Path: "/api/v3/", Hangup: true}, 4, 0,
			[]string{"cannot reach", "GITHUB_API_URL"},
		},
		{
			"no answer", standin.Fault{NoResponse: true}, 4, 0,
			[]string{"no response within 100ms, after 4 attempts", "check the network"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			injectFaults(t, test.fault)
			r := fromHub("app", goodToken)
			if test.fault.NoResponse {
				r.HTTP.Policy.Timeout = 100 * time.Millisecond
			}
			before := len(hub.Requests())
			got, err := r.Resolve(t.Context(), "trunk")
			if test.phrases == nil {
				if err != nil || got.Ref != "refs/heads/trunk" {
					t.Errorf("%+v, %v", got, err)
				}
			} else {
				checkError(t, err, append(test.phrases, "resolve trunk in octo/app")...)
			}
			if got := httpclient.Status(err); got != test.status {
				t.Errorf("status = %d, want %d", got, test.status)
			}
			if n := len(hub.Requests()) - before; n > test.requests || n < test.requests && !test.fault.NoResponse {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
	t.Run("connection refused", func(t *testing.T) {
		r := fromHub("app", goodToken)
		r.APIURL = "http://" + faultproxy.Refused(t) + "/api/v3"
		_, err := r.Resolve(t.Context(), "trunk")
		checkError(t, err, "cannot reach GitHub at "+r.APIURL)
	})
	t.Run("commit of another SHA", func(t *testing.T) {
		injectFaults(t, standin.Fault{
			Path: "/commits/", Status: 200, Body: `{"sha":"` + strings.Repeat("1", 40) + `"}`,
		})
		_, err := fromHub("app", goodToken).Resolve(t.Context(), strings.Repeat("0", 40))
		if !errors.Is(err, httpclient.ErrFormat) {
			t.Errorf("error = %v, want ErrFormat", err)
		}
		checkError(t, err, "unexpected commit", "check GITHUB_API_URL")
	})
	t.Run("primary rate limit states the reset", func(t *testing.T) {
		injectFaults(t, standin.PrimaryLimit(403, reset))
		_, err := fromHub("app", goodToken).Resolve(t.Context(), "trunk")
		failure, ok := errors.AsType[*httpclient.APIError](err)
		if !ok || failure.RetryAfter != time.Hour+time.Second {
			t.Errorf("error = %#v, want to retry a second after the reset", err)
		}
	})
}

// Resolve follows redirects on the same server, for example of a renamed repository, with the token. It sends no
// request to other servers.
func TestResolveRedirects(t *testing.T) {
	const sha = "0123456789abcdef0123456789abcdef01234567"
	answer := func(w http.ResponseWriter) {
		fmt.Fprintf(w, `{"ref": "refs/heads/main", "object": {"type": "commit", "sha": %q}}`, sha)
	}
	otherRequests := 0
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		otherRequests++
		answer(w)
	}))
	defer other.Close()
	var api *httptest.Server
	target, requests := "", 0
	api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		switch {
		case r.Header.Get("Authorization") != "Bearer "+goodToken:
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasPrefix(r.URL.Path, "/repositories/"):
			answer(w)
		default:
			http.Redirect(w, r, target+"/repositories/1/git/ref/heads/main", http.StatusMovedPermanently)
		}
	}))
	defer api.Close()
	r := Repository{Owner: "octo", Name: "app", Token: goodToken, APIURL: api.URL}
	target = api.URL
	if got, err := r.Resolve(t.Context(), "main"); err != nil || got.SHA != sha {
		t.Errorf("on the same server: %+v, %v", got, err)
	}
	target = other.URL
	if got, err := r.Resolve(t.Context(), "main"); httpclient.Status(err) != http.StatusMovedPermanently {
		t.Errorf("to another server: %+v, %v; want the redirect as an error", got, err)
	}
	target, requests = api.URL+"/loop", 0
	if _, err := r.Resolve(t.Context(), "main"); httpclient.Status(err) != http.StatusMovedPermanently || requests > 10 {
		t.Errorf("loop: error = %v after %d requests", err, requests)
	}
	if otherRequests > 0 {
		t.Errorf("another server got %d requests", otherRequests)
	}
}

func TestFollowOnServer(t *testing.T) {
	for _, test := range []struct {
		from, to string
		hops     int
		follow   bool
	}{
		{"https://api.example/a", "https://api.example/b", 1, true},
		{"https://api.example/a", "https://api.example/b", 5, true},
		{"https://api.example/a", "https://api.example/b", 6, false},
		{"https://api.example/a", "http://api.example/a", 1, false},
		{"https://api.example/a", "https://api.example:8443/a", 1, false},
		{"https://api.example/a", "https://other.example/a", 1, false},
	} {
		first, next := httptest.NewRequest("", test.from, nil), httptest.NewRequest("", test.to, nil)
		err := followOnServer(next, slices.Repeat([]*http.Request{first}, test.hops))
		if (err == nil) != test.follow || err != nil && !errors.Is(err, http.ErrUseLastResponse) {
			t.Errorf("%s to %s, hop %d: error = %v", test.from, test.to, test.hops, err)
		}
	}
}

func TestResolvePullRequest(t *testing.T) {
	merge := sh(t, hubDir+"/app", "git rev-parse refs/pull/1/merge")
	missing := standin.Fault{Path: "/git/ref/pull/1/", Status: 404, Body: `{"message":"Not Found"}`}
	missingOnce := missing
	missingOnce.Times = 1
	unmerged := standin.Fault{Path: "/pulls/1", Status: 200, Body: `{"number":1,"state":"open","mergeable":null}`}
	unmergedTwice := unmerged
	unmergedTwice.Times = 2
	for _, test := range []struct {
		name, ref string
		faults    []standin.Fault
		waits     int // for GitHub to create the merge commit
		phrases   []string
	}{
		{"merge commit created on request", "#1", []standin.Fault{missingOnce, unmergedTwice}, 2, nil},
		{
			"no merge commit yet", "#1", []standin.Fault{missing, unmerged}, 2,
			[]string{"GitHub has not created the merge commit", "try again in a minute, or use refs/pull/1/head"},
		},
		{
			"mergeable without a merge commit", "#1", []standin.Fault{missing}, 0,
			[]string{"GitHub has not created the merge commit"},
		},
		{
			"no head", "refs/pull/1/head", []standin.Fault{missing, unmerged}, 0,
			[]string{"refs/pull/1/head does not exist: the commits of the pull request no longer exist"},
		},
		{"closed", "refs/pull/3/merge", nil, 0, []string{"the pull request is closed"}},
		{
			"5xx for the ref", "#1", []standin.Fault{{Path: "/git/ref/", Status: 500}}, 3,
			[]string{"resolve #1 in octo/app", "500"},
		},
		{"5xx for the pull request", "#1", []standin.Fault{missing, {Path: "/pulls/", Status: 500}}, 3, []string{"500"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			injectFaults(t, test.faults...)
			r := fromHub("app", goodToken)
			got, err := r.Resolve(t.Context(), test.ref)
			if test.phrases != nil {
				checkError(t, err, test.phrases...)
			} else if want := (Commit{SHA: merge, Ref: "refs/pull/1/merge"}); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			if waits := r.HTTP.Clock.(*fakeclock.Clock).Slept(); len(waits) != test.waits {
				t.Errorf("waits = %v, want %d", waits, test.waits)
			}
		})
	}
}

func TestResolveNestedTags(t *testing.T) {
	app := hubDir + "/app"
	sh(t, app, "to=trunk; for i in $(seq 11); do git tag -m x deep-$i $to; to=deep-$i; done")
	t.Cleanup(func() { sh(t, app, "git tag -d $(git tag -l 'deep-*')") })
	got, err := fromHub("app", goodToken).Resolve(t.Context(), "deep-9")
	if err != nil || got.SHA != sh(t, app, "git rev-parse trunk") {
		t.Errorf("9 tags: %+v, %v", got, err)
	}
	_, err = fromHub("app", goodToken).Resolve(t.Context(), "deep-11")
	checkError(t, err, "refs/tags/deep-11 is nested more than 10 tags deep", "use the commit SHA")
	injectFaults(t, standin.Fault{Path: "/git/tags/", Status: 503})
	_, err = fromHub("app", goodToken).Resolve(t.Context(), "v1.0")
	if httpclient.Status(err) != http.StatusServiceUnavailable {
		t.Errorf("error = %v, want status 503", err)
	}
	checkError(t, err, "resolve v1.0", "read the annotated tag refs/tags/v1.0 in octo/app")
}

func TestCanceledResolve(t *testing.T) {
	injectFaults(t, standin.Fault{Path: "/api/v3/", NoResponse: true})
	before := len(hub.Requests())
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("timed out")
	go func() {
		for len(hub.Requests()) == before {
			runtime.Gosched()
		}
		cancel(cause)
	}()
	if _, err := fromHub("app", goodToken).Resolve(ctx, "trunk"); !errors.Is(err, cause) {
		t.Errorf("error = %v, want the cause", err)
	}
}
