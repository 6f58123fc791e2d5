package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/org/sandbox-actions/pkg/git"
)

// Fetch fetches one commit by its SHA, with depth 1, and checks out its files in dir, which it creates. The git
// objects are in dir + ".git", so dir contains only the commit's files. The token appears in no URL, argument or file.
//
// The permissions and times of the files are derived from the commit. Every machine gets an identical directory, and a
// builder recognizes files that did not change since an earlier commit.
func (r Repository) Fetch(ctx context.Context, c Commit, dir string) (Tree, error) {
	op := fmt.Sprintf("fetch %s of %s", c.SHA, r.fullName())
	if !shaPattern.MatchString(c.SHA) {
		return Tree{}, fmt.Errorf("%s: not a full SHA", op)
	}
	if err := r.validate(); err != nil {
		return Tree{}, err
	}
	t, err := r.fetchTree(ctx, c, dir)
	if hint := r.fetchHint(err); hint != "" {
		return Tree{}, fmt.Errorf("%s: %w (%s)", op, err, hint)
	} else if cause := context.Cause(ctx); err != nil && cause != nil {
		return Tree{}, cause
	} else if err != nil {
		return Tree{}, fmt.Errorf("%s: %w", op, err)
	}
	return t, nil
}

func (r Repository) fetchTree(ctx context.Context, c Commit, dir string) (Tree, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Tree{}, err
	}
	g := git.Git{Dir: dir, Clock: r.HTTP.Clock, IdleTimeout: r.GitIdleTimeout, Env: []string{
		"GIT_DIR=" + dir + ".git", "GIT_WORK_TREE=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
	}}
	if err := g.CheckVersion(ctx); err != nil {
		return Tree{}, err
	}
	objectFormat := "sha1"
	if len(c.SHA) == 64 {
		objectFormat = "sha256"
	}
	if _, err := g.Output(ctx, "init", "--quiet", "--template=", "--object-format="+objectFormat); err != nil {
		return Tree{}, err
	}
	if _, err := g.WithToken(r.serverURL(), r.Token).OutputWithRetry(ctx, "fetch", "--quiet", "--depth=1",
		"--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance",
		r.serverURL()+"/"+r.fullName(), c.SHA); err != nil {
		return Tree{}, err
	}
	if _, err := g.Output(ctx, "checkout", "--quiet", "--force", "--detach", c.SHA); err != nil {
		return Tree{}, err
	}
	head, err := g.Output(ctx, "rev-parse", "HEAD")
	if err != nil {
		return Tree{}, err
	}
	if got := strings.TrimSpace(string(head)); got != c.SHA {
		return Tree{}, fmt.Errorf("git checked out %s (try again)", got)
	}
	t := Tree{Dir: dir, SHA: c.SHA, Ref: c.Ref, git: g}
	return t, t.normalizeFiles(ctx)
}

// fetchHint returns how the user can fix a failed fetch, or "" if that is unknown.
func (r Repository) fetchHint(err error) string {
	failure, ok := errors.AsType[*git.Error](err)
	if !ok {
		return ""
	}
	tried := ""
	if failure.Attempts > 1 {
		tried = fmt.Sprintf("tried %d times; ", failure.Attempts)
	}
	switch failure.Cause {
	case git.RateLimited:
		if failure.RetryAfter > 0 {
			return tried + "the server limits requests: retry after " + failure.RetryAfter.String()
		}
		return tried + "the server limits requests: try again in a few minutes"
	case git.Network:
		return tried + "check the network, and that " + r.serverURL() + " (GITHUB_SERVER_URL) answers"
	case git.Unauthorized:
		if r.Token == "" {
			return "the repository is private or does not exist: set github_token to a token with contents: read"
		}
		return "set github_token to a token with contents: read that has not expired"
	case git.Moved:
		return "the repository was renamed or moved: use its current name"
	case git.NotFound:
		return "the repository does not exist, or the token cannot read it: check the name and the github_token"
	case git.MissingCommit:
		return "the server no longer has the commit: push it again, or use a ref that exists"
	case git.NotGit:
		return "not a git server: check " + r.serverURL() + " (GITHUB_SERVER_URL)"
	case git.InvalidPath:
		return "git refuses to write this file: remove it from the commit"
	case git.DiskFull:
		return "the disk is full: free disk space, or set RUNNER_TEMP to a directory on another disk"
	}
	return ""
}
