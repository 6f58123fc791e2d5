package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
)

// Tree is a directory of files to build.
type Tree struct {
	Dir        string // where the files are
	SHA        string // the commit; "" if Dir is not in a git repository, or the repository has no commit
	Ref        string // refs/heads/…, refs/tags/…; "" with a detached HEAD, or for a commit that was named by its SHA
	Dirty      bool   // whether files differ from the commit
	Repository string // owner/name from the URL of the remote "origin"; "" if the URL has another form

	Unfetched Unfetched // what is missing in Dir

	git       git.Git // runs in the repository that has the commit's objects
	gitDir    string  // directory of that repository; "" for a checkout
	commit    []byte  // content of the commit object
	isPartial bool    // whether the repository is a partial clone, which may lack objects of the commit
}

// OpenCheckout describes the working tree in dir, including uncommitted changes. The repository may come from an
// artifact, a cache or another user: OpenCheckout reads its settings before it runs any other git command in it, and
// runs no commands from them.
func OpenCheckout(ctx context.Context, dir string) (Tree, error) {
	g, settings, err := openRepository(ctx, dir)
	if err != nil {
		return Tree{}, err
	}
	t := Tree{Dir: dir, git: g}
	var changed []string
	var changedErr error
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return checkAlternates(groupCtx, g) })
	group.Go(func() (err error) {
		t.SHA, t.commit, err = readHead(groupCtx, g)
		return err
	})
	group.Go(func() error {
		ref, _ := g.Output(groupCtx, "symbolic-ref", "--quiet", "HEAD") // fails with a detached HEAD
		t.Ref = strings.TrimSpace(string(ref))
		return nil
	})
	group.Go(func() error { // fails outside a repository
		changed, changedErr = changedFiles(groupCtx, g, dir, 1, "--untracked-files=normal", "--ignore-submodules=dirty")
		return nil
	})
	switch err := group.Wait(); {
	case err != nil:
		return Tree{}, err
	case t.SHA == "":
		return Tree{Dir: dir, git: g}, nil
	case changedErr != nil:
		return Tree{}, fmt.Errorf("find changed files: %w", changedErr)
	}
	t.Dirty = len(changed) > 0
	for _, s := range settings {
		if s.Name == "remote.origin.url" {
			t.Repository = ownerAndName(s.Value)
		}
		t.isPartial = t.isPartial || promisorPattern.MatchString(s.Name)
	}
	return t, nil
}

var promisorPattern = regexp.MustCompile(`^remote\..*\.promisor$`)

// openRepository returns git for the repository in dir with hardened settings, and the settings.
func openRepository(ctx context.Context, dir string) (hardened git.Git, settings []git.Setting, err error) {
	g := git.Git{Dir: dir}
	var settingsErr error
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.CheckVersion(groupCtx) })
	group.Go(func() error { // a git that is too old also fails here
		hardened, settings, settingsErr = g.HardenedConfig(groupCtx)
		return nil
	})
	if err := group.Wait(); err != nil {
		return git.Git{}, nil, err
	}
	if settingsErr != nil {
		return git.Git{}, nil, fmt.Errorf("read the repository's settings: %w", settingsErr)
	}
	return hardened, settings, nil
}

// readHead returns the ID and the content of HEAD's commit object, or "" without a commit or a repository.
func readHead(ctx context.Context, g git.Git) (sha string, commit []byte, err error) {
	var out bytes.Buffer
	err = g.Run(ctx, strings.NewReader("HEAD^{commit}\n"), &out, "cat-file", "--batch")
	if _, failed := errors.AsType[*git.Error](err); failed {
		return "", nil, nil
	}
	head, object, _ := bytes.Cut(out.Bytes(), []byte("\n"))
	fields := strings.Fields(string(head)) // ID, type, size; or the name and "missing"
	if len(fields) != 3 || fields[1] != "commit" {
		return "", nil, err
	}
	return fields[0], bytes.TrimSuffix(object, []byte("\n")), err
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
func checkAlternates(ctx context.Context, g git.Git) error {
	out, err := g.Output(ctx, "rev-parse", "--git-path", "objects/info/alternates")
	if err != nil {
		return context.Cause(ctx) // not a repository
	}
	file := strings.TrimSpace(string(out))
	if !filepath.IsAbs(file) {
		file = filepath.Join(g.Dir, file)
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

// IsShallow reports whether the repository of a checkout has only a part of the history.
func (t Tree) IsShallow(ctx context.Context) (bool, error) {
	out, err := t.git.Output(ctx, "rev-parse", "--is-shallow-repository")
	return strings.TrimSpace(string(out)) == "true", err
}

// Extra returns up to limit paths of files in dir that are not, with the same content, part of the commit of t, a tree
// that was fetched. They include files that git ignores. Extra does not read the .git directory of dir.
func (t Tree) Extra(ctx context.Context, dir string, limit int) ([]string, error) {
	g := t.git
	g.Dir = dir
	g.Env = append(slices.Clone(g.Env), "GIT_WORK_TREE="+dir)
	changed, err := changedFiles(ctx, g, dir, limit, "--untracked-files=all", "--ignored", "--ignore-submodules=all")
	if err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", dir, t.SHA, err)
	}
	return changed, nil
}

// changedFiles returns up to limit paths from `git status` in dir, without Git LFS files that have the content of their
// pointers: git compares them with the pointers themselves, because it runs no filters of the repository.
func changedFiles(ctx context.Context, g git.Git, dir string, limit int, options ...string) ([]string, error) {
	out, err := g.Output(ctx, append([]string{"status", "--porcelain=v2", "-z", "--no-renames"}, options...)...)
	if err != nil {
		return nil, err
	}
	var paths []string
	for entry := range strings.SplitSeq(string(out), "\x00") {
		// git-status(1): "1 XY sub mH mI mW hH hI path", "u XY sub m1 m2 m3 mW h1 h2 h3 path", "? path", "! path"
		kind, _, _ := strings.Cut(entry, " ")
		count, known := map[string]int{"1": 9, "u": 11, "?": 2, "!": 2}[kind]
		fields := strings.SplitN(entry, " ", count)
		if !known || len(fields) < count || len(paths) == limit {
			continue
		}
		name := fields[count-1]
		sameMode := kind == "1" && fields[4] == fields[5]
		if sameMode && fields[1] == ".M" && isContentOf(filepath.Join(dir, name), fields[7]) {
			continue
		}
		paths = append(paths, name)
	}
	return paths, nil
}

// CommitTime returns the time at which the commit was created, in UTC.
func (t Tree) CommitTime() (time.Time, error) {
	committer := committerPattern.FindSubmatch(t.commit)
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

// RemoteRepository returns owner/name from the URL of the remote "origin" of the repository in dir, or "" if there is
// none or the URL has another form.
func RemoteRepository(ctx context.Context, dir string) string {
	url, err := git.Git{Dir: dir}.Output(ctx, "config", "--get", "remote.origin.url")
	if err != nil {
		return ""
	}
	return ownerAndName(strings.TrimSpace(string(url)))
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
