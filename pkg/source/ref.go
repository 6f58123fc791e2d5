package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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

// CheckRef refuses what can not be the name of a ref (see git-check-ref-format) and what git could take for an option or
// an expression: a leading "-", control characters such as newlines, spaces, "..", and any of ~^:?*[\. It asks nobody.
func CheckRef(ref string) error {
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
	case strings.HasSuffix(ref, "."), strings.HasSuffix(ref, ".lock"), strings.HasPrefix(ref, "."), strings.Contains(ref, "/."):
		return refuse(`begins or ends a part with "." or ends with ".lock"`)
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
	if err := CheckRef(ref); err != nil {
		return Commit{}, err
	}
	if !namePattern.MatchString(r.Owner) || !namePattern.MatchString(r.Name) {
		return Commit{}, fmt.Errorf("%q is not a repository's name: it looks like owner/name", r.Owner+"/"+r.Name)
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
			return Commit{}, r.explain("resolve "+ref, err)
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

func (r Repository) bySHA(ctx context.Context, ref, sha string) (Commit, error) {
	found, err := retry(ctx, func(ctx context.Context) (*github.RepositoryCommit, error) {
		c, _, err := r.Client.Repositories.GetCommit(ctx, r.Owner, r.Name, sha, &github.ListOptions{PerPage: 1})
		return c, err
	})
	full := strings.ToLower(found.GetSHA())
	var answer *github.ErrorResponse
	switch {
	case isStatus(err, http.StatusUnprocessableEntity, http.StatusConflict) && errors.As(err, &answer) && strings.Contains(strings.ToLower(answer.Message), "ambiguous"):
		return Commit{}, fmt.Errorf("resolve %s: several commits of %s/%s begin with it (GitHub: %s): give more digits of the SHA", ref, r.Owner, r.Name, visible(answer.Message))
	case isStatus(err, http.StatusUnprocessableEntity, http.StatusNotFound, http.StatusConflict):
		if err := r.reachable(ctx, ref); err != nil {
			return Commit{}, err
		}
		text := fmt.Sprintf("%s/%s has no commit %s", r.Owner, r.Name, ref)
		if len(sha) < 40 {
			text += ", or several that begin so"
		}
		return Commit{}, &missingError{text + ": push it, or give the full SHA of a commit that GitHub has"}
	case err != nil:
		return Commit{}, r.explain("resolve "+ref, err)
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
			return "", fmt.Errorf("GitHub's API at %s answered no SHA for %s: check GITHUB_API_URL", r.Client.BaseURL.Host, full)
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
			return "", fmt.Errorf("%s names a %s, not a commit: give a ref that names a commit", full, visible(kind))
		}
	}
	return "", fmt.Errorf("%s is a tag of a tag more than ten deep: give the commit's SHA", full)
}

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
		return Commit{}, r.explain("resolve "+ref, err)
	}
	var n int
	fmt.Sscan(number, &n) // the pattern has checked the digits
	pull, err := retry(ctx, func(ctx context.Context) (*github.PullRequest, error) {
		pull, _, err := r.Client.PullRequests.Get(ctx, r.Owner, r.Name, n)
		return pull, err
	})
	switch {
	case isStatus(err, http.StatusNotFound):
		if err := r.reachable(ctx, ref); err != nil {
			return Commit{}, err
		}
		return Commit{}, fmt.Errorf("%s/%s has no pull request #%s (tried %s): check the number", r.Owner, r.Name, number, full)
	case err != nil:
		return Commit{}, r.explain("resolve "+ref, err)
	case side == "head" && shaPattern.MatchString(pull.GetHead().GetSHA()):
		return Commit{SHA: pull.GetHead().GetSHA(), Ref: full}, nil
	}
	why := "it conflicts with its base, or GitHub has not merged it for trial yet"
	if pull.GetState() == "closed" {
		why = "the pull request is closed"
	}
	return Commit{}, fmt.Errorf("pull request #%s of %s/%s has no %s: %s; use refs/pull/%s/head", number, r.Owner, r.Name, full, why, number)
}

// unknown says what was tried and what is near.
func (r Repository) unknown(ctx context.Context, ref string, tried []string) error {
	if err := r.reachable(ctx, ref); err != nil {
		return err
	}
	text := fmt.Sprintf("%s/%s has no %s (tried %s)", r.Owner, r.Name, ref, strings.Join(tried, ", "))
	if near := r.near(ctx, ref); len(near) > 0 {
		return fmt.Errorf("%s: did you mean %s?", text, strings.Join(near, ", "))
	}
	return fmt.Errorf("%s: check the name, or push it", text)
}

// near lists at most three branches and tags whose names are like ref. It is only advice: without an answer, none.
func (r Repository) near(ctx context.Context, ref string) []string {
	type match struct {
		name  string
		score float64
	}
	name := ref
	for _, prefix := range []string{"refs/", "heads/", "tags/", "remotes/", "origin/"} {
		name = strings.TrimPrefix(name, prefix)
	}
	var matches []match
	for _, kind := range []string{"heads/", "tags/"} {
		refs, err := retry(ctx, func(ctx context.Context) ([]*github.Reference, error) {
			refs, _, err := r.Client.Git.ListMatchingRefs(ctx, r.Owner, r.Name, &github.ReferenceListOptions{Ref: kind})
			return refs, err
		})
		if err != nil {
			continue
		}
		for _, found := range refs {
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
	var names []string
	for _, m := range matches[:min(3, len(matches))] {
		names = append(names, m.name)
	}
	return names
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
	return r.explain("resolve "+ref, err)
}

// explain turns what the API or the network answered into one sentence: what failed, why, what to do.
func (r Repository) explain(doing string, err error) error {
	var (
		limit  *github.RateLimitError
		abuse  *github.AbuseRateLimitError
		answer *github.ErrorResponse
	)
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s in %s/%s: %s: %w", doing, r.Owner, r.Name, fmt.Sprintf(format, args...), err)
	}
	status := 0
	if errors.As(err, &answer) && answer.Response != nil {
		status = answer.Response.StatusCode
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s in %s/%s: %w", doing, r.Owner, r.Name, err)
	case errors.As(err, &limit):
		return fail("GitHub's rate limit is used up until %s; try again then, or give a github_token with its own limit", limit.Rate.Reset.UTC().Format("15:04:05 UTC on 2006-01-02"))
	case errors.As(err, &abuse):
		return fail("GitHub asks to slow down (secondary rate limit); try again in %s", abuse.GetRetryAfter())
	case status == http.StatusUnauthorized:
		return fail("GitHub refused the token (401); give a github_token that has not expired")
	case status == http.StatusNotFound && r.Token == "":
		return fail("GitHub says that there is no such repository (404), which is also its answer for a private one without a token; check the name, or give a github_token that may read it")
	case status == http.StatusNotFound:
		return fail("GitHub says that there is no such repository (404), which is also its answer when the token may not read it; check the name, and that the github_token has contents: read there")
	case status == http.StatusForbidden:
		return fail("GitHub forbids it (403); the github_token needs contents: read")
	case status == http.StatusTooManyRequests:
		return fail("GitHub asks to slow down (429); try again in a few minutes")
	case status >= 500:
		return fail("GitHub's API at %s answered %d, %d times; try again later (https://www.githubstatus.com)", r.Client.BaseURL.Host, status, maxTries)
	case errors.Is(err, context.DeadlineExceeded):
		return fail("GitHub's API at %s did not answer in time; check the network", r.Client.BaseURL.Host)
	case status > 0:
		return fail("GitHub's API at %s answered %d", r.Client.BaseURL.Host, status)
	}
	if transport := new(url.Error); errors.As(err, &transport) {
		return fail("GitHub's API at %s can not be reached; check the network and GITHUB_API_URL", r.Client.BaseURL.Host)
	}
	return fail("GitHub's API at %s gave an answer that can not be used; check GITHUB_API_URL", r.Client.BaseURL.Host)
}

const maxTries = 3

var (
	requestTimeout = 20 * time.Second       // for one answer of the API
	firstWait      = 500 * time.Millisecond // before the second try; it doubles
	longestWait    = 30 * time.Second       // of a Retry-After that we wait for
)

// retry asks again when the answer may be another one next time: 5xx, 429 with a short wait, silence, a broken connection.
func retry[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	return backoff.Retry(ctx, func() (T, error) {
		once, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		value, err := ask(once)
		var (
			limit     *github.RateLimitError
			abuse     *github.AbuseRateLimitError
			answer    *github.ErrorResponse
			transport *url.Error
		)
		switch {
		case err == nil:
			return value, nil
		case ctx.Err() != nil:
			return value, backoff.Permanent(context.Cause(ctx))
		case errors.As(err, &limit):
			return value, backoff.Permanent(err)
		case errors.As(err, &abuse):
			if wait := abuse.GetRetryAfter(); wait > 0 && wait <= longestWait {
				return value, retryAfter(ctx, err, wait)
			}
			return value, backoff.Permanent(err)
		case errors.As(err, &answer) && answer.Response != nil:
			status := answer.Response.StatusCode
			if status == http.StatusTooManyRequests {
				seconds, _ := time.ParseDuration(answer.Response.Header.Get("Retry-After") + "s")
				if seconds > longestWait {
					return value, backoff.Permanent(err)
				}
				return value, retryAfter(ctx, err, seconds)
			}
			if status < 500 {
				return value, backoff.Permanent(err)
			}
			return value, err
		case errors.As(err, &transport), errors.Is(err, context.DeadlineExceeded), errors.As(err, new(net.Error)):
			return value, err
		}
		return value, backoff.Permanent(err)
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries), backoff.WithMaxElapsedTime(5*time.Minute))
}

// retryAfter waits as long as the server asked for, then lets the error be tried again.
func retryAfter(ctx context.Context, err error, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return backoff.Permanent(context.Cause(ctx))
	case <-time.After(wait):
		return err
	}
}

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
	return text[:min(len(text), 300)]
}
