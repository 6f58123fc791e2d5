package source

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Resolve finds the commit of a ref through GitHub's REST API. A ref is a branch, a tag (which may be annotated), a
// full or short SHA, any refs/…, refs/pull/N/merge, refs/pull/N/head, or #N. The last one means refs/pull/N/merge,
// which a workflow of that pull request checks out. 40 or 64 hexadecimal digits are always a SHA. Other names are tried
// as a branch, a tag and a short SHA, in the order of actions/checkout.
//
// The error is a [*RefError] if the repository does not have the ref, or an [*httpclient.APIError] if GitHub fails.
func (r Repository) Resolve(ctx context.Context, ref string) (Commit, error) {
	if err := ValidateRef(ref); err != nil {
		return Commit{}, err
	}
	if err := r.validate(); err != nil {
		return Commit{}, err
	}
	if lower := strings.ToLower(ref); shaPattern.MatchString(lower) {
		commit, err := r.resolveSHA(ctx, ref, lower)
		if isMissing(err) {
			return Commit{}, r.commitNotFound(ctx, ref)
		}
		return commit, err
	}
	if pull := pullPattern.FindStringSubmatch(ref); pull != nil {
		return r.resolvePullRequest(ctx, ref, pull[1]+pull[2], pull[3])
	}
	tried := candidates(ref)
	for _, full := range tried {
		sha, err := r.followReference(ctx, ref, full)
		if err == nil {
			return Commit{SHA: sha, Ref: full}, nil
		}
		if httpclient.Status(err) != http.StatusNotFound {
			return Commit{}, err
		}
	}
	if shortPattern.MatchString(ref) {
		tried = append(tried, "commit "+ref)
		commit, err := r.resolveSHA(ctx, ref, strings.ToLower(ref))
		if !isMissing(err) {
			return commit, err
		}
	}
	return Commit{}, r.notFound(ctx, ref, tried)
}

// candidates returns the full names that a ref may mean.
func candidates(ref string) []string {
	if strings.HasPrefix(ref, "refs/") {
		return []string{ref}
	}
	full := []string{"refs/heads/" + ref, "refs/tags/" + ref}
	if strings.HasPrefix(ref, "heads/") || strings.HasPrefix(ref, "tags/") {
		full = append(full, "refs/"+ref)
	}
	return full
}

// isMissing reports whether a commit is not in the repository. For an unknown SHA, GitHub answers 422.
func isMissing(err error) bool {
	status := httpclient.Status(err)
	return status == http.StatusUnprocessableEntity || status == http.StatusNotFound
}

func (r Repository) resolveSHA(ctx context.Context, ref, sha string) (Commit, error) {
	op := "resolve " + ref
	found, err := r.getCommit(ctx, op, sha)
	if err != nil {
		return Commit{}, err
	}
	full := strings.ToLower(found)
	if !shaPattern.MatchString(full) || !strings.HasPrefix(full, sha) {
		return Commit{}, r.unexpected(op, fmt.Sprintf("unexpected commit %q", safetext.Line(found, 80)))
	}
	return Commit{SHA: full}, nil
}

// followReference returns the commit of a full ref name.
func (r Repository) followReference(ctx context.Context, ref, full string) (string, error) {
	op := "resolve " + ref
	object, err := r.getReference(ctx, op, full)
	if err != nil {
		return "", err
	}
	const maxDepth = 10 // a tag may point to a tag
	for range maxDepth {
		if !shaPattern.MatchString(object.GetSHA()) {
			return "", r.unexpected(op, "no SHA for "+full)
		}
		switch object.GetType() {
		case "commit":
			return object.GetSHA(), nil
		case "tag":
			if object, err = r.getTag(ctx, op+": read the annotated tag "+full, object.GetSHA()); err != nil {
				return "", err
			}
		default:
			return "", &RefError{
				Repository: r.fullName(), Ref: ref,
				Reason: fmt.Sprintf("%s points to a %s, not to a commit", full, safetext.Line(object.GetType(), 40)),
			}
		}
	}
	return "", &RefError{
		Repository: r.fullName(), Ref: ref, Hint: "use the commit SHA",
		Reason: fmt.Sprintf("%s is nested more than %d tags deep", full, maxDepth),
	}
}

// resolvePullRequest resolves refs/pull/NUMBER/SIDE. If the ref does not exist yet, it requests the pull request, which
// makes GitHub create the merge commit ("Checking mergeability of pull requests" in
// https://docs.github.com/en/rest/guides/using-the-rest-api-to-interact-with-your-git-database).
func (r Repository) resolvePullRequest(ctx context.Context, ref, number, side string) (Commit, error) {
	if side == "" {
		side = "merge"
	}
	full := "refs/pull/" + number + "/" + side
	sha, err := r.followReference(ctx, ref, full)
	if err == nil {
		return Commit{SHA: sha, Ref: full}, nil
	}
	if httpclient.Status(err) != http.StatusNotFound {
		return Commit{}, err
	}
	pull, err := r.waitForMerge(ctx, ref, number, side)
	if httpclient.Status(err) == http.StatusNotFound {
		if err := r.checkAccess(ctx, "resolve "+ref); err != nil {
			return Commit{}, err
		}
		return Commit{}, &RefError{
			Repository: r.fullName(), Ref: ref, Reason: fmt.Sprintf("pull request #%s not found", number),
			Tried: []string{full}, Hint: "check the number",
		}
	}
	if err != nil {
		return Commit{}, err
	}
	if pull.Mergeable != nil && *pull.Mergeable {
		sha, err = r.followReference(ctx, ref, full)
		if err == nil {
			return Commit{SHA: sha, Ref: full}, nil
		}
		if httpclient.Status(err) != http.StatusNotFound {
			return Commit{}, err
		}
	}
	missing := &RefError{Repository: r.fullName(), Ref: ref, Hint: fmt.Sprintf("use refs/pull/%s/head", number)}
	switch {
	case side == "head":
		missing.Reason, missing.Hint = full+" does not exist: the commits of the pull request no longer exist", ""
	case pull.GetState() == "closed":
		missing.Reason = full + " does not exist: the pull request is closed"
	case pull.Mergeable != nil && !*pull.Mergeable:
		missing.Reason = full + " does not exist: the pull request conflicts with its base"
	default:
		missing.Reason = full + " does not exist yet: GitHub has not created the merge commit"
		missing.Hint = fmt.Sprintf("try again in a minute, or use refs/pull/%s/head", number)
	}
	return Commit{}, missing
}

const (
	mergeAttempts = 3
	mergeWait     = 3 * time.Second
)

// waitForMerge reads a pull request. If it is open, waitForMerge waits until GitHub knows whether it can be merged.
func (r Repository) waitForMerge(ctx context.Context, ref, number, side string) (*github.PullRequest, error) {
	clock := r.HTTP.Clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		pull, err := r.getPullRequest(ctx, "resolve "+ref, n)
		known := err != nil || side == "head" || pull.GetState() != "open" || pull.Mergeable != nil
		if known || attempt == mergeAttempts {
			return pull, err
		}
		if err := clock.Sleep(ctx, mergeWait); err != nil {
			return pull, err
		}
	}
}

func (r Repository) commitNotFound(ctx context.Context, ref string) error {
	if err := r.checkAccess(ctx, "resolve "+ref); err != nil {
		return err
	}
	return &RefError{Repository: r.fullName(), Ref: ref, Reason: "commit not found", Hint: "push it, or check the SHA"}
}

// notFound returns the error for a ref that does not exist under any of the tried names, with suggestions.
func (r Repository) notFound(ctx context.Context, ref string, tried []string) error {
	if err := r.checkAccess(ctx, "resolve "+ref); err != nil {
		return err
	}
	missing := &RefError{
		Repository: r.fullName(), Ref: ref, Reason: "not found", Tried: tried, Hint: "check the name, or push it",
	}
	names, commits := r.suggest(ctx, ref)
	switch {
	case len(commits) > 1: // GitHub sends the same response for an ambiguous SHA as for an unknown one
		missing.Reason = fmt.Sprintf("ambiguous short SHA; it matches %s", strings.Join(commits, ", "))
		missing.Tried, missing.Hint = nil, "use more digits of the SHA"
	case len(names) > 0:
		missing.Hint = "did you mean " + strings.Join(names, ", ") + "?"
	case shortPattern.MatchString(ref):
		missing.Reason, missing.Hint = "not found, or an ambiguous short SHA", "check it, push it, or use the full SHA"
	}
	return missing
}
