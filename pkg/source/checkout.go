package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/git"
	"github.com/org/sandbox-actions/pkg/lfs"
)

// Tree is a directory of files to build.
type Tree struct {
	Dir        string // where the files are
	SHA        string // the commit; "" if Dir is not in a git repository, or the repository has no commit
	Ref        string // refs/heads/…, refs/tags/…; "" with a detached HEAD, or for a commit that was named by its SHA
	Dirty      bool   // whether files differ from the commit
	Repository string // owner/name from the URL of the remote "origin"; "" if the URL has another form

	Unfetched Unfetched // what is missing in Dir

	git    git.Git                // runs in the repository that has the commit's objects
	gitDir string                 // directory of that repository; "" for a checkout
	lfs    map[string]lfs.Pointer // Git LFS files whose content was fetched
}

// OpenCheckout describes the working tree in dir, including uncommitted changes. The repository may come from an
// artifact, a cache or another user: OpenCheckout reads its settings before it runs any other git command in it, and
// runs no commands from them.
func OpenCheckout(ctx context.Context, dir string) (Tree, error) {
	t := Tree{Dir: dir, git: git.Git{Dir: dir}}
	if err := t.git.CheckVersion(ctx); err != nil {
		return Tree{}, err
	}
	var err error
	if t.git, err = t.git.HardenedConfig(ctx); err != nil {
		return Tree{}, fmt.Errorf("read the repository's settings: %w", err)
	}
	if err := t.checkAlternates(ctx); err != nil {
		return Tree{}, err
	}
	sha, err := t.git.Output(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if _, failed := errors.AsType[*git.Error](err); failed {
		return t, nil
	} else if err != nil {
		return Tree{}, err
	}
	t.SHA = strings.TrimSpace(string(sha))
	var ref, url, status []byte
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		ref, _ = t.git.Output(groupCtx, "symbolic-ref", "--quiet", "HEAD") // fails with a detached HEAD
		return nil
	})
	group.Go(func() error {
		url, _ = t.git.Output(groupCtx, "config", "--get", "remote.origin.url") // fails without a remote
		return nil
	})
	group.Go(func() (err error) {
		status, err = t.git.Output(groupCtx, "status", "--porcelain", "--untracked-files=normal",
			"--ignore-submodules=dirty")
		return err
	})
	if err := group.Wait(); err != nil {
		return Tree{}, fmt.Errorf("find changed files: %w", err)
	}
	t.Ref, t.Repository = strings.TrimSpace(string(ref)), ownerAndName(strings.TrimSpace(string(url)))
	t.Dirty = len(status) > 0
	return t, nil
}

// FindUnfetched returns the submodules of a checkout whose directories are empty, and its Git LFS files that contain
// only pointers.
func (t Tree) FindUnfetched(ctx context.Context) (Unfetched, error) {
	out, err := t.git.Output(ctx, "ls-files", "-z", "--stage")
	if err != nil {
		return Unfetched{}, fmt.Errorf("list the files of the checkout: %w", err)
	}
	var found Unfetched
	var paths []string
	for line := range strings.SplitSeq(string(out), "\x00") {
		head, name, _ := strings.Cut(line, "\t")
		switch mode, _, _ := strings.Cut(head, " "); mode {
		case "160000":
			if files, err := os.ReadDir(filepath.Join(t.Dir, name)); err == nil && len(files) == 0 {
				found.Submodules = append(found.Submodules, name)
			}
		case "100644", "100755":
			paths = append(paths, name)
		}
	}
	pointers, err := t.findPointers(ctx, paths)
	found.Pointers = slices.Sorted(maps.Keys(pointers))
	return found, err
}

// checkAlternates returns an error if the repository reads objects of other repositories, which may be anywhere on the
// machine.
func (t Tree) checkAlternates(ctx context.Context) error {
	out, err := t.git.Output(ctx, "rev-parse", "--git-path", "objects/info/alternates")
	if err != nil {
		return context.Cause(ctx) // not a repository
	}
	file := strings.TrimSpace(string(out))
	if !filepath.IsAbs(file) {
		file = filepath.Join(t.Dir, file)
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("read the repository: %s: objects of other repositories are not supported "+
			"(run `git repack -a -d` and remove the file)", file)
	}
	return nil
}

// Parents returns the SHAs of a commit's parents. In a shallow clone, the oldest commits have none.
func (t Tree) Parents(ctx context.Context, sha string) ([]string, error) {
	out, err := t.git.Output(ctx, "rev-parse", sha+"^@")
	if err != nil {
		return nil, fmt.Errorf("read the parents of commit %s: %w", sha, err)
	}
	return strings.Fields(string(out)), nil
}

// Extra returns up to limit paths of files in dir that are not, with the same content, part of the commit of t, a tree
// that was fetched. They include files that git ignores. Extra does not read the .git directory of dir.
func (t Tree) Extra(ctx context.Context, dir string, limit int) ([]string, error) {
	g := t.git
	g.Dir = dir
	g.Env = append(slices.Clone(g.Env), "GIT_WORK_TREE="+dir)
	out, err := g.Output(ctx, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignored",
		"--ignore-submodules=all")
	if err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", dir, t.SHA, err)
	}
	var paths []string
	for entry := range strings.SplitSeq(string(out), "\x00") {
		const status = len("XY ")
		if len(entry) > status && len(paths) < limit && !t.hasContent(dir, entry[status:]) {
			paths = append(paths, entry[status:])
		}
	}
	return paths, nil
}

// hasContent reports whether a file in dir has the content that Git LFS has for its path.
func (t Tree) hasContent(dir, name string) bool {
	pointer, ok := t.lfs[name]
	if !ok {
		return false
	}
	info, err := os.Lstat(filepath.Join(dir, name))
	if err != nil || !info.Mode().IsRegular() || info.Size() != pointer.Size {
		return false
	}
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return false
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == pointer.OID
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

// committerPattern matches the committer of a commit object. Its last fields are a Unix time and a time zone.
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
