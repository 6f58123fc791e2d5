// Package trust decides whether a run may build code.
//
// A run that has secrets must not build code that an outsider may have written, because a Dockerfile can read the
// secrets of its build. The origin of the code decides: a commit is trusted if GitHub confirms that a branch or tag of
// the repository contains it, because only people with write access can push there. The code's own claims, such as its
// .git directory, prove nothing, and the commits of forks can be fetched from the repository itself.
package trust

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// Code is the code that a run is about to use.
type Code struct {
	Ref       string        // the input ref; empty for the commit of the workspace
	Commit    source.Commit // zero for a workspace without a commit; Ref only if GitHub resolved it
	Workspace bool          // the files of the workspace are used, which may differ from the commit
	Sources   []string      // build contexts and the Dockerfile's directory: paths or URLs

	// Parents returns the parents of a commit in the repository of the workspace. It is required if Workspace is set.
	Parents func(ctx context.Context, sha string) ([]string, error)
}

// Repository is the repository of the run, as GitHub describes it. [source.Repository] implements it.
type Repository interface {
	// IsPublished reports whether a branch or tag contains the commit.
	IsPublished(ctx context.Context, sha string) (bool, error)
	// Parents returns the parents of a commit; nil if the commit does not exist on GitHub.
	Parents(ctx context.Context, sha string) ([]string, error)
}

// UntrustedError reports code that an outsider may have written, in a run that has secrets.
type UntrustedError struct {
	What  string // for example: input ref: "#7" is code from pull request #7
	Event runner.Event
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("%s, and this run (%s) has secrets of %s that the code could read "+
		"(build it in a workflow triggered by pull_request, or set allow_untrusted_ref: true after a review)",
		e.What, e.Event.Name, e.Event.Repository)
}

// Check returns an [*UntrustedError] if the run can have secrets and the code may come from an outsider. If anyone can
// trigger the event, all code must be part of the commit. Otherwise Check does not inspect the files of the workspace,
// which the steps of a trusted workflow wrote.
func Check(ctx context.Context, repository Repository, event runner.Event, code Code) error {
	if event.Name == "" || event.IsFork() {
		return nil
	}
	if origin, err := originOf(ctx, repository, event, code); err != nil {
		return err
	} else if origin != "" {
		return &UntrustedError{origin, event}
	}
	for _, from := range code.Sources {
		if !event.IsPrivileged() {
			if err := checkURL(ctx, repository, event, from); err != nil {
				return err
			}
			continue
		}
		switch {
		case isImage(from):
		case inputs.IsRemote(from) && !strings.HasPrefix(from, "oci-layout://"):
			return &UntrustedError{fmt.Sprintf("the context %q is fetched from elsewhere", from), event}
		case inputs.IsRemote(from), !filepath.IsLocal(filepath.Clean(from)):
			return &UntrustedError{fmt.Sprintf("%q is not a path in the repository", from), event}
		}
	}
	return nil
}

var (
	commitPattern = regexp.MustCompile(`\b([0-9a-f]{64}|[0-9a-f]{40})\b`)
	pullPattern   = regexp.MustCompile(`\bpull/\d+`)
)

// checkURL returns an [*UntrustedError] for a URL of the repository that names a pull request, or a commit that no
// branch or tag contains: the repository serves the commits of its forks, too. Other URLs name what the workflow has
// chosen.
func checkURL(ctx context.Context, repository Repository, event runner.Event, from string) error {
	if !inputs.IsRemote(from) || !strings.Contains(strings.ToLower(from), strings.ToLower(event.Repository)) {
		return nil
	}
	own := fmt.Sprintf("pull/%d", event.Pull)
	if pull := pullPattern.FindString(from); pull != "" && (pull != own || event.IsExternal()) {
		return &UntrustedError{fmt.Sprintf("the context %q may be code from a fork", from), event}
	}
	for _, sha := range commitPattern.FindAllString(strings.ToLower(from), -1) {
		if isOfEvent(event, sha) {
			continue
		}
		if published, err := repository.IsPublished(ctx, sha); err != nil {
			return err
		} else if !published {
			return &UntrustedError{fmt.Sprintf("the context %q names a commit that may be from a fork", from), event}
		}
	}
	return nil
}

// isImage reports whether a named context is an image in a registry, which is like a base image.
func isImage(from string) bool { return strings.HasPrefix(from, "docker-image://") }

// originOf describes the origin of untrusted code. It returns "" for code of the repository.
func originOf(ctx context.Context, repository Repository, event runner.Event, code Code) (string, error) {
	subject := fmt.Sprintf("input ref: %q", code.Ref)
	if code.Ref == "" {
		subject = "the workspace"
	}
	sha, ref := code.Commit.SHA, code.Commit.Ref
	switch {
	case code.Workspace && event.IsPrivileged():
		return subject + " may hold " + pullRequestCode(event), nil
	case sha == "", isOfEvent(event, sha), strings.HasPrefix(ref, "refs/heads/"), strings.HasPrefix(ref, "refs/tags/"):
		return "", nil
	case slices.Contains(event.Commits, sha) && event.IsExternal():
		return fmt.Sprintf("%s is %s", subject, pullRequestCode(event)), nil
	case event.Pull != 0 && !event.IsExternal() && ref == event.PullRef():
		return "", nil
	case code.Workspace:
		unpublished, err := findUnpublished(ctx, repository, event, code)
		if unpublished == "" || err != nil {
			return "", err
		}
		sha = unpublished
	default:
		if published, err := isPublished(ctx, repository, code.Commit); published || err != nil {
			return "", err
		}
	}
	if pull, ok := strings.CutPrefix(ref, "refs/pull/"); ok {
		number, _, _ := strings.Cut(pull, "/")
		return fmt.Sprintf("%s is code from pull request #%s", subject, number), nil
	}
	verb := "is"
	if sha != code.Commit.SHA {
		verb = "contains"
	}
	return fmt.Sprintf("%s %s commit %s, which no branch or tag of %s contains and which may be from a fork",
		subject, verb, sha, event.Repository), nil
}

// isOfEvent reports whether a commit is the run's own, or of a pull request from the repository itself.
func isOfEvent(event runner.Event, sha string) bool {
	return sha == event.SHA || sha == event.BaseSHA || slices.Contains(event.Commits, sha) && !event.IsExternal()
}

// maxLocalCommits is how many commits of the workspace may be unknown to GitHub.
const maxLocalCommits = 20

// findUnpublished returns a commit in the workspace that no branch or tag contains, or "". GitHub knows the commits of
// forks, but not those that a step has created, such as a merge of a pull request: these have trusted parents.
func findUnpublished(
	ctx context.Context, repository Repository, event runner.Event, code Code,
) (unpublished string, err error) {
	commits := []string{code.Commit.SHA}
	for i := 0; i < len(commits); i++ {
		sha := commits[i]
		if isOfEvent(event, sha) {
			continue
		}
		if published, err := repository.IsPublished(ctx, sha); err != nil {
			return "", err
		} else if published {
			continue
		}
		known, err := repository.Parents(ctx, sha)
		if known != nil || err != nil || i == maxLocalCommits {
			return sha, err
		}
		parents, err := code.Parents(ctx, sha)
		if err != nil {
			return "", err
		}
		for _, parent := range parents {
			if !slices.Contains(commits, parent) {
				commits = append(commits, parent)
			}
		}
	}
	return "", nil
}

// isPublished reports whether a branch or tag contains the commit or, for the merge of a pull request, which GitHub
// creates, both of its parents.
func isPublished(ctx context.Context, repository Repository, commit source.Commit) (bool, error) {
	if !strings.HasPrefix(commit.Ref, "refs/pull/") || !strings.HasSuffix(commit.Ref, "/merge") {
		return repository.IsPublished(ctx, commit.SHA)
	}
	parents, err := repository.Parents(ctx, commit.SHA)
	if err != nil || len(parents) == 0 {
		return false, err
	}
	for _, parent := range parents {
		if published, err := repository.IsPublished(ctx, parent); !published || err != nil {
			return false, err
		}
	}
	return true, nil
}

func pullRequestCode(event runner.Event) string { return "code from " + PullRequest(event) }

// PullRequest describes the pull request of an event: "pull request #7 from the fork evil/caller".
func PullRequest(event runner.Event) string {
	from := "a fork"
	if event.HeadRepository != "" {
		from = "the fork " + event.HeadRepository
	}
	if event.Pull == 0 {
		return from
	}
	return fmt.Sprintf("pull request #%d from %s", event.Pull, from)
}
