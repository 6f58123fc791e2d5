package source

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/org/sandbox-actions/pkg/git"
)

// Tree is a directory of files to build.
type Tree struct {
	Dir        string // where the files are
	SHA        string // the commit; "" when Dir is not in a git repository, or there is no commit yet
	Ref        string // refs/heads/…, refs/tags/…; "" with a detached HEAD, or for a commit that was named by its SHA
	Dirty      bool   // files differ from the commit
	Repository string // owner/name from the URL of the remote "origin"; "" when the URL has no such form

	git git.Git // runs where the commit's objects are
}

// OpenCheckout describes dir with its uncommitted changes. The repository's settings cannot run commands.
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
		return Tree{}, fmt.Errorf("look for changed files: %w", err)
	}
	t.Dirty = len(status) > 0
	return t, nil
}

// IsPublished reports whether a branch of the remote "origin", or a tag, pointed to the commit when it was fetched. It
// is false for the commit of a pull request, which has refs of another kind, or none.
func (t Tree) IsPublished(ctx context.Context) (bool, error) {
	refs, err := t.git.Output(
		ctx,
		"for-each-ref",
		"--count=1",
		"--points-at="+t.SHA,
		"refs/remotes/origin",
		"refs/tags",
	)
	return len(refs) > 0, err
}

// UserName returns git's user.name for a directory; "" when it is not set.
func UserName(ctx context.Context, dir string) string {
	name, err := git.Git{Dir: dir}.Output(ctx, "config", "--get", "user.name")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

var remotePattern = regexp.MustCompile(`^(?:https?://(?:[^/@]+@)?[^/]+/|ssh://[^/]+/|[^/@:]+@[^/:]+:)` +
	`([A-Za-z0-9._-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?$`)

// ownerAndName reads owner/name from the URL of a remote; "" when it has no such form.
func ownerAndName(url string) string {
	if m := remotePattern.FindStringSubmatch(url); m != nil && isName(m[1]) && isName(m[2]) {
		return m[1] + "/" + m[2]
	}
	return ""
}
