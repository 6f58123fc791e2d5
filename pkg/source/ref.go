package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agext/levenshtein"
	"github.com/cenkalti/backoff/v5"
	"github.com/google/go-github/v62/github"
)

// Repository is one repository of a GitHub server.
type Repository struct {
	Owner, Name string         // as in github.com/Owner/Name
	Client      *github.Client // speaks to the server's REST API, with Token if there is one
	ServerURL   string         // where git fetches from, for example https://github.com
	Token       string         // for git; "" for a public repository
}

// Commit is what a ref means at one moment.
type Commit struct {
	SHA string // in full
	Ref string // refs/heads/…, refs/tags/…, refs/pull/…; "" when the commit was named by its SHA
}

var (
	shaPattern   = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	shortPattern = regexp.MustCompile(`^[0-9a-fA-F]{4,63}$`)
	pullPattern  = regexp.MustCompile(`^(?:#([1-9][0-9]{0,9})|refs/pull/([1-9][0-9]{0,9})/(merge|head))$`)
	namePattern  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// ValidateRef refuses what can not be the name of a ref (see git-check-ref-format) and what git could take for an option or
// an expression: a leading "-", control characters such as newlines, spaces, "..", and any of ~^:?*[\. It asks nobody.
func ValidateRef(ref string) error {
	refuse := func(why string) error {
		return fmt.Errorf("the ref %q %s: give a branch, a tag, a commit's SHA, refs/pull/N/merge, refs/pull/N/head or #N", ref, why)
	}
	switch {
	case ref == "":
		return refuse("is empty")
	case len(ref) > 1024:
		return fmt.Errorf("the ref %q… is longer than 1024 bytes: give a branch, a tag or a commit's SHA", ref[:40])
	case strings.HasPrefix(ref, "-"):
		return refuse(`begins with "-"`)
	case strings.Contains(ref, ".."):
		return refuse(`holds ".."`)
	case strings.Contains(ref, "@{"):
		return refuse(`holds "@{"`)
	case strings.Contains(ref, "//"), strings.HasPrefix(ref, "/"), strings.HasSuffix(ref, "/"):
		return refuse(`has a "/" with nothing beside it`)
	case strings.HasPrefix(ref, "."), strings.Contains(ref, "/."), strings.HasSuffix(ref, "."):
		return refuse(`ends with ".", or begins a part with it`)
	case strings.HasSuffix(ref, ".lock"), strings.Contains(ref, ".lock/"):
		return refuse(`ends a part with ".lock"`)
	case strings.ToValidUTF8(ref, "") != ref:
		return refuse("is not UTF-8")
	case strings.HasPrefix(ref, "#") && !pullPattern.MatchString(ref):
		return refuse("is not the number of a pull request")
	}
	for _, c := range ref {
		switch {
		case unicode.IsSpace(c):
			return refuse("holds a space or a line break")
		case unicode.IsControl(c), unicode.Is(unicode.Cf, c):
			return refuse("holds a control character")
		case strings.ContainsRune(`~^:?*[\`, c):
			return refuse(fmt.Sprintf("holds %q", c))
		}
	}
	return nil
}

// Resolve asks GitHub's REST API for the commit that a ref means: a branch, a tag (annotated ones are followed to their
// commit), a full or short SHA, any refs/…, refs/pull/N/merge, refs/pull/N/head, or #N, which is refs/pull/N/merge: what a
// workflow of that pull request checks out. 40 hexadecimal digits are a SHA. A plain name is looked for among the branches first,
// then the tags, then the short SHAs, in the order of actions/checkout.
//
// An error says what was tried, and which names are near.
func (r Repository) Resolve(ctx context.Context, ref string) (Commit, error) {
	if err := ValidateRef(ref); err != nil {
		return Commit{}, err
	}
	if err := r.check(); err != nil {
		return Commit{}, err
	}
	if lower := strings.ToLower(ref); shaPattern.MatchString(lower) {
		return r.bySHA(ctx, ref, lower)
	}
	if pull := pullPattern.FindStringSubmatch(ref); pull != nil {
		return r.byPull(ctx, ref, pull[1]+pull[2], pull[3])
	}
	var try []string
	if strings.HasPrefix(ref, "refs/") {
		try = []string{ref}
	} else {
		try = []string{"refs/heads/" + ref, "refs/tags/" + ref}
		if strings.HasPrefix(ref, "heads/") || strings.HasPrefix(ref, "tags/") {
			try = append(try, "refs/"+ref)
		}
	}
	for _, full := range try {
		if sha, err := r.byName(ctx, full); err == nil {
			return Commit{SHA: sha, Ref: full}, nil
		} else if !isStatus(err, http.StatusNotFound) {
			return Commit{}, r.explain(ctx, "resolve "+ref, err)
		}
	}
	if shortPattern.MatchString(ref) {
		try = append(try, "the commit "+ref)
		commit, err := r.bySHA(ctx, ref, strings.ToLower(ref))
		if missing := new(missingError); err == nil || !errors.As(err, &missing) {
			return commit, err
		}
	}
	return Commit{}, r.unknown(ctx, ref, try)
}

// missingError is a commit that GitHub does not have.
type missingError struct{ text string }

func (e *missingError) Error() string { return e.text }

// unusableError says in full what is wrong with what GitHub has.
type unusableError struct{ text string }

func (e *unusableError) Error() string { return e.text }

// check refuses what is the name of no repository.
func (r Repository) check() error {
	if !isName(r.Owner) || !isName(r.Name) {
		return fmt.Errorf("%q is not a repository's name: it looks like owner/name", r.Owner+"/"+r.Name)
	}
	return nil
}

func isName(s string) bool { return namePattern.MatchString(s) && strings.Trim(s, ".") != "" }

func (r Repository) bySHA(ctx context.Context, ref, sha string) (Commit, error) {
	found, err := retry(ctx, func(ctx context.Context) (*github.RepositoryCommit, error) {
		c, _, err := r.Client.Repositories.GetCommit(ctx, r.Owner, r.Name, sha, &github.ListOptions{PerPage: 1})
		return c, err
	})
	full := strings.ToLower(found.GetSHA())
	switch {
	case isStatus(err, http.StatusUnprocessableEntity, http.StatusNotFound):
		if err := r.reachable(ctx, ref); err != nil {
			return Commit{}, err
		}
		return Commit{}, &missingError{fmt.Sprintf("%s/%s has no commit %s: push it, or give the SHA of a commit that GitHub has", r.Owner, r.Name, ref)}
	case err != nil:
		return Commit{}, r.explain(ctx, "resolve "+ref, err)
	case !shaPattern.MatchString(full) || !strings.HasPrefix(full, sha):
		return Commit{}, fmt.Errorf("resolve %s: GitHub's API at %s answered %q, which is no commit of that SHA: check GITHUB_API_URL", ref, r.Client.BaseURL.Host, found.GetSHA())
	}
	return Commit{SHA: full}, nil
}

// byName follows a full ref name to its commit.
func (r Repository) byName(ctx context.Context, full string) (string, error) {
	found, err := retry(ctx, func(ctx context.Context) (*github.Reference, error) {
		ref, _, err := r.Client.Git.GetRef(ctx, r.Owner, r.Name, full)
		return ref, err
	})
	if err != nil {
		return "", err
	}
	kind, sha := found.GetObject().GetType(), found.GetObject().GetSHA()
	for range 10 { // a tag may name a tag
		if !shaPattern.MatchString(sha) {
			return "", &unusableError{fmt.Sprintf("GitHub's API at %s answered no SHA for %s: check GITHUB_API_URL", r.Client.BaseURL.Host, full)}
		}
		switch kind {
		case "commit":
			return sha, nil
		case "tag":
			tag, err := retry(ctx, func(ctx context.Context) (*github.Tag, error) {
				tag, _, err := r.Client.Git.GetTag(ctx, r.Owner, r.Name, sha)
				return tag, err
			})
			if err != nil {
				return "", fmt.Errorf("read the annotated tag %s: %w", full, err)
			}
			kind, sha = tag.GetObject().GetType(), tag.GetObject().GetSHA()
		default:
			return "", &unusableError{fmt.Sprintf("%s names a %s, not a commit: give a ref that names a commit", full, visible(kind))}
		}
	}
	return "", &unusableError{full + " is a tag of a tag, more than ten deep: give the commit's SHA"}
}

// errUnmerged says that GitHub is still at merging a pull request for trial. To ask for one makes it begin.
// https://docs.github.com/en/rest/guides/using-the-rest-api-to-interact-with-your-git-database#checking-mergeability-of-pull-requests
var errUnmerged = errors.New("not merged for trial yet")

func (r Repository) byPull(ctx context.Context, ref, number, side string) (Commit, error) {
	if side == "" {
		side = "merge"
	}
	full := "refs/pull/" + number + "/" + side
	sha, err := r.byName(ctx, full)
	if err == nil {
		return Commit{SHA: sha, Ref: full}, nil
	}
	if !isStatus(err, http.StatusNotFound) {
		return Commit{}, r.explain(ctx, "resolve "+ref, err)
	}
	var n int
	fmt.Sscan(number, &n) // the pattern has checked the digits
	pull, err := retry(ctx, func(ctx context.Context) (*github.PullRequest, error) {
		pull, _, err := r.Client.PullRequests.Get(ctx, r.Owner, r.Name, n)
		if err == nil && side == "merge" && pull.GetState() == "open" && pull.Mergeable == nil {
			err = later{errUnmerged, mergeWait}
		}
		return pull, err
	})
	if err == nil && pull.GetMergeable() {
		sha, err = r.byName(ctx, full)
		if err == nil {
			return Commit{SHA: sha, Ref: full}, nil
		}
		if isStatus(err, http.StatusNotFound) {
			err = errUnmerged
		}
	}
	why := "it conflicts with its base"
	switch {
	case isStatus(err, http.StatusNotFound):
		if err := r.reachable(ctx, ref); err != nil {
			return Commit{}, err
		}
		return Commit{}, fmt.Errorf("%s/%s has no pull request #%s (tried %s): check the number", r.Owner, r.Name, number, full)
	case errors.Is(err, errUnmerged):
		why = "GitHub has not merged it for trial yet; try again in a minute"
	case err != nil:
		return Commit{}, r.explain(ctx, "resolve "+ref, err)
	case side == "head":
		why = "its commits are gone"
	case pull.GetState() == "closed":
		why = "the pull request is closed"
	}
	text := fmt.Sprintf("pull request #%s of %s/%s has no %s: %s", number, r.Owner, r.Name, full, why)
	if side == "merge" {
		text += fmt.Sprintf("; use refs/pull/%s/head", number)
	}
	return Commit{}, errors.New(text)
}

// unknown says what was tried and what is near.
func (r Repository) unknown(ctx context.Context, ref string, tried []string) error {
	if err := r.reachable(ctx, ref); err != nil {
		return err
	}
	names, commits := r.near(ctx, ref)
	if len(commits) > 1 {
		// Of an ambiguous SHA GitHub says the same as of one that there is not.
		return fmt.Errorf("several commits of %s/%s begin with %s, among them %s: give more digits of the SHA", r.Owner, r.Name, ref, strings.Join(commits, ", "))
	}
	text := fmt.Sprintf("%s/%s has no %s (tried %s)", r.Owner, r.Name, ref, strings.Join(tried, ", "))
	switch {
	case len(names) > 0:
		return fmt.Errorf("%s: did you mean %s?", text, strings.Join(names, ", "))
	case shortPattern.MatchString(ref):
		return fmt.Errorf("%s, or several commits begin so: check it, push it, or give the full SHA", text)
	}
	return fmt.Errorf("%s: check the name, or push it", text)
}

// near lists at most three branches and tags whose names are like ref, and, if it may be a short SHA, three commits that begin so, of the
// latest and those that branches and tags name. It is only advice: without an answer, none.
func (r Repository) near(ctx context.Context, ref string) (names, commits []string) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	type match struct {
		name  string
		score float64
	}
	name := ref
	for _, prefix := range []string{"refs/", "heads/", "tags/", "remotes/", "origin/"} {
		name = strings.TrimPrefix(name, prefix)
	}
	var matches []match
	begins := func(sha string) {
		if shortPattern.MatchString(ref) && shaPattern.MatchString(sha) && strings.HasPrefix(sha, strings.ToLower(ref)) && !slices.Contains(commits, sha) {
			commits = append(commits, sha)
		}
	}
	for _, kind := range []string{"heads/", "tags/"} {
		refs, err := retry(ctx, func(ctx context.Context) ([]*github.Reference, error) {
			refs, _, err := r.Client.Git.ListMatchingRefs(ctx, r.Owner, r.Name, &github.ReferenceListOptions{Ref: kind})
			return refs, err
		})
		if err != nil {
			continue
		}
		for _, found := range refs {
			if found.GetObject().GetType() == "commit" {
				begins(found.GetObject().GetSHA())
			}
			short := strings.TrimPrefix(found.GetRef(), "refs/"+kind)
			score := levenshtein.Match(strings.ToLower(name), strings.ToLower(short), nil)
			if strings.HasSuffix(short, "/"+name) || strings.HasSuffix(name, "/"+short) {
				score = 1
			}
			if score >= 0.6 {
				matches = append(matches, match{visible(short), score})
			}
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.name, b.name)) })
	for _, m := range matches[:min(3, len(matches))] {
		names = append(names, m.name)
	}
	if shortPattern.MatchString(ref) {
		latest, err := retry(ctx, func(ctx context.Context) ([]*github.RepositoryCommit, error) {
			latest, _, err := r.Client.Repositories.ListCommits(ctx, r.Owner, r.Name, &github.CommitsListOptions{ListOptions: github.ListOptions{PerPage: 100}})
			return latest, err
		})
		if err == nil {
			for _, c := range latest {
				begins(c.GetSHA())
			}
		}
	}
	return names, commits[:min(3, len(commits))]
}

// reachable tells a ref that is not there from a repository that is not there, or not for us: GitHub answers 404 to both.
func (r Repository) reachable(ctx context.Context, ref string) error {
	_, err := retry(ctx, func(ctx context.Context) (*github.Repository, error) {
		repository, _, err := r.Client.Repositories.Get(ctx, r.Owner, r.Name)
		return repository, err
	})
	if err == nil {
		return nil
	}
	return r.explain(ctx, "resolve "+ref, err)
}

// explain turns what the API or the network answered into one sentence: what failed, why, what to do.
func (r Repository) explain(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	doing = fmt.Sprintf("%s in %s/%s", doing, r.Owner, r.Name)
	if unusable := new(unusableError); errors.As(err, &unusable) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	fail := func(cure, format string, args ...any) error {
		detail := visible(strings.TrimSpace(strings.TrimSuffix(err.Error(), "[]")))
		return &apiError{fmt.Sprintf("%s: %s (%s): %s", doing, fmt.Sprintf(format, args...), detail, cure), err}
	}
	var answer *github.ErrorResponse
	status := 0
	if errors.As(err, &answer) && answer.Response != nil {
		status = answer.Response.StatusCode
	}
	limit, limited := limitOf(err)
	host := r.Client.BaseURL.Host
	switch {
	case limited && !limit.reset.IsZero():
		return fail("try again then, or give a github_token with its own limit", "GitHub's rate limit is used up until %s", limit.reset.UTC().Format("15:04:05 UTC on 2006-01-02"))
	case limited && limit.wait > 0:
		return fail(fmt.Sprintf("try again in %s", limit.wait.Round(time.Second)), "GitHub asks to slow down")
	case limited:
		return fail("try again in a few minutes", "GitHub asks to slow down")
	case status == http.StatusUnauthorized:
		return fail("give a github_token that has not expired", "GitHub refused the token")
	case status == http.StatusNotFound && r.Token == "":
		return fail("check the name, or give a github_token that may read it", "GitHub says that there is no such repository, which is also its answer for a private one without a token")
	case status == http.StatusNotFound:
		return fail("check the name, and that the github_token has contents: read there", "GitHub says that there is no such repository, which is also its answer when the token may not read it")
	case status == http.StatusConflict:
		return fail("push a commit first", "the repository is empty")
	case status == http.StatusForbidden:
		return fail("the github_token needs contents: read", "GitHub forbids it")
	case status >= 500:
		return fail("try again later (https://www.githubstatus.com)", "GitHub's API at %s failed %d times", host, maxTries)
	case errors.Is(err, context.DeadlineExceeded):
		return fail("check the network", "GitHub's API at %s did not answer within %s, %d times", host, requestTimeout, maxTries)
	case broken(err):
		return fail("check the network and GITHUB_API_URL", "GitHub's API at %s can not be reached", host)
	}
	return fail("check GITHUB_API_URL", "GitHub's API at %s gave an answer that can not be used", host)
}

// apiError is what an answer of the API, or none, means for us. What the other side said is on one line of it.
type apiError struct {
	text string
	err  error
}

func (e *apiError) Error() string { return e.text }
func (e *apiError) Unwrap() error { return e.err }

// limit is GitHub's wish for fewer requests.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
type limit struct {
	reset time.Time     // when the requests of an hour begin anew; zero for the limit on how fast we ask
	wait  time.Duration // until we may ask again; 0 when it does not say
}

// limitOf reads it in all of its forms, of which go-github knows some: 403 and 429, for both limits, with and without Retry-After.
func limitOf(err error) (limit, bool) {
	var (
		primary   *github.RateLimitError
		secondary *github.AbuseRateLimitError
		answer    *github.ErrorResponse
	)
	switch {
	case errors.As(err, &primary):
		return limit{reset: primary.Rate.Reset.Time, wait: time.Until(primary.Rate.Reset.Time)}, true
	case errors.As(err, &secondary):
		return limit{wait: secondary.GetRetryAfter()}, true
	case !isStatus(err, http.StatusForbidden, http.StatusTooManyRequests) || !errors.As(err, &answer):
		return limit{}, false
	}
	header := answer.Response.Header
	if seconds, err := strconv.ParseInt(header.Get("X-RateLimit-Reset"), 10, 64); err == nil && header.Get("X-RateLimit-Remaining") == "0" {
		reset := time.Unix(seconds, 0)
		return limit{reset: reset, wait: time.Until(reset)}, true
	}
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	limited := err == nil || answer.Response.StatusCode == http.StatusTooManyRequests || strings.Contains(strings.ToLower(answer.Message), "rate limit")
	return limit{wait: time.Duration(seconds) * time.Second}, limited
}

// broken reports whether the network failed, and not who answered over it.
func broken(err error) bool {
	var transport *url.Error
	return errors.As(err, &transport) || errors.As(err, new(net.Error)) || errors.Is(err, io.ErrUnexpectedEOF)
}

const maxTries = 3

var (
	requestTimeout = 20 * time.Second       // for one answer of the API
	firstWait      = 500 * time.Millisecond // before the second try; it doubles
	longestWait    = 30 * time.Second       // of a Retry-After that we wait for
	mergeWait      = 3 * time.Second        // for GitHub to merge a pull request for trial
)

// retry asks again when the answer may be another one next time: 5xx, a limit with a short wait, silence, a broken connection.
func retry[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	return backoff.Retry(ctx, func() (T, error) {
		once, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		value, err := ask(once)
		if err == nil {
			return value, nil
		}
		var answer *github.ErrorResponse
		limit, limited := limitOf(err)
		switch {
		case ctx.Err() != nil:
			return value, backoff.Permanent(context.Cause(ctx))
		case errors.As(err, new(*backoff.RetryAfterError)):
			return value, err
		case limited && limit.wait > longestWait:
			return value, backoff.Permanent(err)
		case limited && limit.wait > 0:
			return value, later{err, limit.wait}
		case limited && limit.reset.IsZero(), errors.As(err, &answer) && answer.Response != nil && answer.Response.StatusCode >= 500:
			return value, err
		case errors.Is(err, context.DeadlineExceeded), broken(err):
			return value, err
		}
		return value, backoff.Permanent(err)
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries), backoff.WithMaxElapsedTime(5*time.Minute))
}

// later is an error that may be gone after a wait.
type later struct {
	error
	wait time.Duration
}

func (l later) Unwrap() []error { return []error{l.error, &backoff.RetryAfterError{Duration: l.wait}} }

func isStatus(err error, statuses ...int) bool {
	var answer *github.ErrorResponse
	return errors.As(err, &answer) && answer.Response != nil && slices.Contains(statuses, answer.Response.StatusCode)
}

// visible makes text of another's making safe to print on one line.
func visible(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Cf, c) {
			return ' '
		}
		return c
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), 300)], "")
}
