package source

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/git"
)

// Tree is a directory of files to build.
type Tree struct {
	Dir        string // where the files are
	SHA        string // the commit; "" if Dir is not in a git repository, or the repository has no commit
	Ref        string // refs/heads/…, refs/tags/…; "" with a detached HEAD, or for a commit that was named by its SHA
	Dirty      bool   // whether files differ from the commit
	Repository string // owner/name from the URL of the remote "origin"; "" if the URL has another form

	git git.Git // runs in the repository that has the commit's objects
}

// OpenCheckout describes the working tree in dir, including uncommitted changes. It runs no commands from the
// repository's settings.
func OpenCheckout(ctx context.Context, dir string) (Tree, error) {
	t := Tree{Dir: dir, git: git.Git{Dir: dir}}
	if err := t.git.CheckVersion(ctx); err != nil {
		return Tree{}, err
	}
	sha, err := t.git.Output(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if _, failed := errors.AsType[*git.Error](err); failed {
		return t, nil
	} else if err != nil {
		return Tree{}, err
	}
	t.SHA = strings.TrimSpace(string(sha))
	if t.git, err = t.git.HardenedConfig(ctx); err != nil {
		return Tree{}, fmt.Errorf("read the repository's settings: %w", err)
	}
	if ref, err := t.git.Output(ctx, "symbolic-ref", "--quiet", "HEAD"); err == nil {
		t.Ref = strings.TrimSpace(string(ref))
	}
	if url, err := t.git.Output(ctx, "config", "--get", "remote.origin.url"); err == nil {
		t.Repository = ownerAndName(strings.TrimSpace(string(url)))
	}
	status, err := t.git.Output(ctx, "status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty")
	if err != nil {
		return Tree{}, fmt.Errorf("find changed files: %w", err)
	}
	t.Dirty = len(status) > 0
	return t, nil
}

// IsPublished reports whether a branch of the remote "origin", or a tag, pointed to the commit when it was fetched. For
// the commit of a pull request, which has other refs or none, it returns false.
func (t Tree) IsPublished(ctx context.Context) (bool, error) {
	refs, err := t.git.Output(ctx,
		"for-each-ref", "--count=1", "--points-at="+t.SHA, "refs/remotes/origin", "refs/tags")
	return len(refs) > 0, err
}

// CommitTime returns the time at which the commit was created, in UTC.
func (t Tree) CommitTime(ctx context.Context) (time.Time, error) {
	object, err := t.git.Output(ctx, "cat-file", "commit", t.SHA)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the time of commit %s: %w", t.SHA, err)
	}
	committer := committerPattern.FindSubmatch(object)
	if committer == nil {
		return time.Time{}, fmt.Errorf("read the time of commit %s: no committer line", t.SHA)
	}
	seconds, err := strconv.ParseInt(string(committer[1]), 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}

// committerPattern matches the committer of a commit object, whose last fields are a Unix time and a time zone.
var committerPattern = regexp.MustCompile(`(?m)^committer .* ([0-9]+) [+-][0-9]+$`)

// UserName returns git's user.name for a directory, or "" if it is not set.
func UserName(ctx context.Context, dir string) string {
	name, err := git.Git{Dir: dir}.Output(ctx, "config", "--get", "user.name")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

var remotePattern = regexp.MustCompile(`^(?:https?://(?:[^/@]+@)?[^/]+/|ssh://[^/]+/|[^/@:]+@[^/:]+:)` +
	`([A-Za-z0-9._-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?$`)

// ownerAndName returns owner/name from the URL of a remote, or "" if the URL has another form.
func ownerAndName(url string) string {
	if m := remotePattern.FindStringSubmatch(url); m != nil && isName(m[1]) && isName(m[2]) {
		return m[1] + "/" + m[2]
	}
	return ""
}
