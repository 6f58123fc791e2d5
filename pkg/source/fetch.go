package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/org/sandbox-actions/pkg/git"
)

// FetchOptions selects what Fetch fetches in addition to the commit.
type FetchOptions struct {
	LFS        bool       // the content of Git LFS files
	Submodules Submodules // "" means NoSubmodules
}

// Fetch fetches one commit by its SHA, with depth 1, and checks out its files in dir, which it creates. The git
// objects are in dir + ".git", so dir contains only the commit's files. The token appears in no URL, argument or file.
//
// The permissions and times of the files are derived from the commit. Every machine gets an identical directory, and a
// builder recognizes files that did not change since an earlier commit.
func (r Repository) Fetch(ctx context.Context, c Commit, dir string, options FetchOptions) (Tree, error) {
	op := fmt.Sprintf("fetch %s of %s", c.SHA, r.fullName())
	if !shaPattern.MatchString(c.SHA) {
		return Tree{}, fmt.Errorf("%s: not a full SHA", op)
	}
	if err := r.validate(); err != nil {
		return Tree{}, err
	}
	f := &fetcher{r: r, options: options}
	t, err := f.fetchTree(ctx, remote{r.serverURL() + "/" + r.fullName(), r.Token}, c, dir, dir+".git", 0)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return Tree{}, cause
	} else if err != nil {
		if hint := r.fetchHint(err); hint != "" {
			return Tree{}, fmt.Errorf("%s: %w (%s)", op, err, hint)
		}
		return Tree{}, fmt.Errorf("%s: %w", op, err)
	}
	return t, nil
}

// fetcher is one call of [Repository.Fetch].
type fetcher struct {
	r          Repository
	options    FetchOptions
	submodules atomic.Int64 // number of submodules that were found
}

// fetchTree fetches a commit of a repository that is nested depth submodules deep.
func (f *fetcher) fetchTree(ctx context.Context, from remote, c Commit, dir, gitDir string, depth int) (Tree, error) {
	for _, created := range []string{dir, gitDir} {
		if err := os.MkdirAll(created, 0o755); err != nil {
			return Tree{}, err
		}
	}
	g := git.Git{Dir: dir, Clock: f.r.HTTP.Clock, IdleTimeout: f.r.GitIdleTimeout, Env: []string{
		"GIT_DIR=" + gitDir, "GIT_WORK_TREE=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ATTR_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=" + from.scheme(),
	}}
	if depth == 0 {
		if err := g.CheckVersion(ctx); err != nil {
			return Tree{}, err
		}
	}
	objectFormat := "sha1"
	if len(c.SHA) == 64 {
		objectFormat = "sha256"
	}
	if _, err := g.Output(ctx, "init", "--quiet", "--template=", "--object-format="+objectFormat); err != nil {
		return Tree{}, err
	}
	if _, err := g.WithToken(f.r.serverURL(), from.token).OutputWithRetry(ctx, "fetch", "--quiet", "--depth=1",
		"--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance",
		from.url, c.SHA); err != nil {
		return Tree{}, err
	}
	if _, err := g.Output(ctx, "checkout", "--quiet", "--force", "--detach", c.SHA); err != nil {
		return Tree{}, err
	}
	t := Tree{Dir: dir, SHA: c.SHA, Ref: c.Ref, git: g, gitDir: gitDir}
	commit, entries, err := t.readCommit(ctx)
	if err != nil {
		return Tree{}, err
	}
	t.commit = commit
	if err := f.addLFS(ctx, &t, from, entries); err != nil {
		return Tree{}, err
	}
	if err := t.normalizeFiles(entries); err != nil {
		return Tree{}, err
	}
	err = f.fetchSubmodules(ctx, &t, from, entries, depth)
	return t, err
}

// scheme returns the only protocol that git may use for the remote, also after a redirect.
func (from remote) scheme() string {
	scheme, _, _ := strings.Cut(from.url, ":")
	return scheme
}

// fetchHint returns how the user can fix a failed fetch, or "" if that is unknown.
func (r Repository) fetchHint(err error) string {
	const diskFull = "the disk is full: free disk space, or set RUNNER_TEMP to a directory on another disk"
	switch {
	case errors.As(err, new(*SubmoduleError)): // has its own hint
		return ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return diskFull
	}
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
	case git.Certificate: // GnuTLS reports no reason
		return "check the clock of this machine; if it is right, add the certificate authority of " + r.serverURL() +
			", or of a proxy that inspects TLS, to the system's trusted certificates, or set GIT_SSL_CAINFO"
	case git.NotTLS:
		return "check the port of " + r.serverURL() + " (GITHUB_SERVER_URL): the server there does not use TLS"
	case git.InvalidPath:
		return "git refuses to write this file: remove it from the commit"
	case git.DiskFull:
		return diskFull
	}
	return ""
}
