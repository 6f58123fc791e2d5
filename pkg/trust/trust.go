// Package trust decides whether a run may build code.
//
// Some events (pull_request_target, workflow_run, issue_comment) can be triggered by anyone, and their runs have the
// repository's secrets. Such a run must not build code that an outsider may have written, because a Dockerfile can read
// every secret of its build. Branches, tags and the run's own commit are trusted. Pull requests from forks are not, and
// neither is any other commit, because the commits of forks can be fetched from the repository itself.
package trust

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// Code is the code that a run is about to use. Relative paths are relative to Dir.
type Code struct {
	Ref         string        // the input ref, for messages
	Commit      source.Commit // zero for the checkout at Dir
	Dir         string        // absolute path of the workspace
	Contexts    []string      // build contexts and the Dockerfile's directory: paths or URLs
	Directories []string      // other directories that are used, absolute
}

// UntrustedError reports code that an outsider may have written, in a run that has secrets.
type UntrustedError struct {
	What  string // for example: the directory /work/pr is a checkout of a fork
	Event runner.Event
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("%s, and this run (%s) has secrets of %s that the code could read: "+
		"build it in a workflow triggered by pull_request, or set allow_untrusted_ref: true after a review",
		e.What, e.Event.Name, e.Event.Repository)
}

// Check returns an [*UntrustedError] if the run has secrets although anyone can trigger its event, and code may come
// from an outsider. It does not inspect files that an earlier step added to a checkout.
func Check(ctx context.Context, event runner.Event, code Code) error {
	if !event.IsPrivileged() {
		return nil
	}
	directories := slices.Clone(code.Directories)
	if code.Commit.SHA == "" {
		directories = append(directories, code.Dir)
	} else if author := externalCommit(event, code.Commit); author != "" {
		return &UntrustedError{fmt.Sprintf("input ref: %q is %s", code.Ref, author), event}
	}
	if !event.IsExternal() {
		return nil
	}
	for _, context := range code.Contexts {
		switch {
		case strings.Contains(context, "://") || strings.HasPrefix(context, "git@"):
			if isExternalURL(event, context) {
				return &UntrustedError{fmt.Sprintf("the context %q is %s", context, pullRequestCode(event)), event}
			}
		case filepath.IsAbs(context):
			directories = append(directories, context)
		case code.Commit.SHA == "": // otherwise it is part of the commit
			directories = append(directories, filepath.Join(code.Dir, context))
		}
	}
	return checkDirectories(ctx, event, directories)
}

func checkDirectories(ctx context.Context, event runner.Event, directories []string) error {
	slices.Sort(directories)
	for _, directory := range slices.Compact(directories) {
		if _, err := os.Stat(directory); err != nil {
			continue // reported where the directory is used
		}
		author, err := externalCheckout(ctx, event, directory)
		if err != nil {
			return err
		}
		if author != "" {
			return &UntrustedError{fmt.Sprintf("the directory %s is %s", directory, author), event}
		}
	}
	return nil
}

// externalCommit describes the origin of an untrusted commit. It returns "" for a commit of the repository.
func externalCommit(event runner.Event, commit source.Commit) string {
	if pull, ok := strings.CutPrefix(commit.Ref, "refs/pull/"); ok {
		number, _, _ := strings.Cut(pull, "/")
		switch {
		case number != fmt.Sprint(event.Pull):
			return "code from pull request #" + number
		case event.IsExternal():
			return pullRequestCode(event)
		}
		return ""
	}
	switch {
	case !event.IsExternal():
		return ""
	case slices.Contains(event.Commits, commit.SHA):
		return pullRequestCode(event)
	case commit.SHA == event.SHA, commit.SHA == event.BaseSHA,
		strings.HasPrefix(commit.Ref, "refs/heads/"), strings.HasPrefix(commit.Ref, "refs/tags/"):
		return ""
	}
	return "a commit that no branch or tag contains, which may be " + pullRequestCode(event)
}

// externalCheckout describes the origin of the untrusted code in a directory. It returns "" for code of the repository.
func externalCheckout(ctx context.Context, event runner.Event, directory string) (string, error) {
	tree, err := source.OpenCheckout(ctx, directory)
	switch {
	case err != nil:
		return "", err
	case tree.SHA == "":
		return "not a git checkout, and may hold " + pullRequestCode(event), nil
	case tree.Repository != "" && !strings.EqualFold(tree.Repository, event.Repository):
		return "a checkout of " + tree.Repository, nil
	case slices.Contains(event.Commits, tree.SHA):
		return "a checkout of " + pullRequestCode(event), nil
	case tree.SHA == event.SHA, tree.SHA == event.BaseSHA:
		return "", nil
	}
	if published, err := tree.IsPublished(ctx); published || err != nil {
		return "", err
	}
	return fmt.Sprintf("a checkout of %s, which no branch or tag contains and which may be %s",
		tree.SHA, pullRequestCode(event)), nil
}

// isExternalURL reports whether url refers to a pull request, or to the fork of the event's pull request.
func isExternalURL(event runner.Event, url string) bool {
	url, head := strings.ToLower(url), strings.ToLower(event.HeadRepository)
	return strings.Contains(url, "/pull/") || head != "" && strings.Contains(url, head)
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
