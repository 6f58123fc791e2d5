package actions

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/source"
)

// buildSource is the code to build: the checkout, including uncommitted changes, or one commit.
type buildSource struct {
	Repository string        // owner/name; empty if unknown
	Commit     source.Commit // zero for the checkout
	Tree       source.Tree   // Dir is empty until the commit is fetched
	Paths      inputs.Paths  // zero until the commit is fetched
	Time       time.Time     // of the commit; zero if it is unknown or not needed
	Replaces   bool          // whether the commit is built instead of the files of the workspace, see mustBuildCommit
}

// openCheckout describes the checkout in the workspace. The input ref needs only its repository, and not even that in
// GitHub Actions.
func openCheckout(ctx context.Context, job job, spec inputs.BuildSpec) (source.Tree, error) {
	if spec.Ref != "" && job.Getenv("GITHUB_REPOSITORY") != "" {
		return source.Tree{}, nil
	}
	defer startActivity(ctx, "git to read the checkout")()
	checkout, err := source.OpenCheckout(ctx, job.Dir)
	if spec.Ref != "" && context.Cause(ctx) == nil {
		return checkout, nil // without a checkout, the error says that the ref needs a repository
	}
	return checkout, err
}

// resolveSource decides what to build: the commit of the input ref, the checkout if ref is empty, or the event's commit
// if GitHub Actions has no checkout.
func resolveSource(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, checkout source.Tree,
) (buildSource, error) {
	defer startActivity(ctx, "GitHub to resolve the ref")()
	repository := cmp.Or(job.Getenv("GITHUB_REPOSITORY"), checkout.Repository)
	ref, wholeRef := spec.Ref, ""
	if ref == "" && (spec.EventCommit || isMissing(job, spec, checkout)) {
		ref, wholeRef = job.Getenv("GITHUB_SHA"), job.Getenv("GITHUB_REF")
	}
	replaces := ref == "" && mustBuildCommit(job, spec)
	if replaces {
		ref = cmp.Or(checkout.SHA, job.Getenv("GITHUB_SHA"))
	}
	if ref == "" {
		return checkoutSource(ctx, job, spec, checkout, repository)
	}
	hosted, err := hostedRepository(job, spec, doppler, repository)
	if err != nil {
		return buildSource{}, err
	}
	commit, err := hosted.Resolve(ctx, ref)
	if err != nil {
		return buildSource{}, err
	}
	commit.Ref = cmp.Or(wholeRef, commit.Ref)
	s := buildSource{Repository: repository, Commit: commit, Replaces: replaces}
	s.Tree = source.Tree{SHA: commit.SHA, Ref: commit.Ref}
	job.Runner.Infof("%s", describeSource(s))
	return s, nil
}

// isMissing reports whether a workflow's workspace has neither a checkout nor a Dockerfile, so that the event's commit
// is built instead.
func isMissing(job job, spec inputs.BuildSpec, checkout source.Tree) bool {
	if checkout.SHA != "" || !job.Runner.InActions() || job.Getenv("GITHUB_SHA") == "" {
		return false
	}
	_, exists := spec.DockerfileIn(job.Dir)
	return !exists
}

// checkoutSource returns the checkout in the workspace as the source, including uncommitted changes.
func checkoutSource(
	ctx context.Context, job job, spec inputs.BuildSpec, checkout source.Tree, repository string,
) (buildSource, error) {
	if spec.GitContext != "" && !spec.GitContextOptional && checkout.SHA == "" {
		return buildSource{}, inputs.Errorf("git_context", spec.GitContext,
			"needs a commit; set ref, or build from a clone of a git repository")
	}
	s := buildSource{Repository: repository, Tree: checkout}
	job.Runner.Infof("%s", describeSource(s))
	var err error
	if checkout.SHA != "" {
		if s.Tree.Unfetched, err = checkout.FindUnfetched(ctx); err != nil {
			return buildSource{}, err
		}
	}
	s.Paths, err = spec.Resolve(checkout.Dir)
	warnUnfetched(job, spec, s.Tree, s.Paths)
	return s, err
}

// hostedRepository returns a client for the repository in which a ref is resolved, with the token of the inputs or the
// environment.
func hostedRepository(
	job job, spec inputs.BuildSpec, doppler credentials.Doppler, repository string,
) (source.Repository, error) {
	owner, name, ok := strings.Cut(repository, "/")
	if !ok {
		return source.Repository{}, inputs.Errorf("ref", spec.Ref,
			"needs a repository; set GITHUB_REPOSITORY to owner/name, or run in a clone with a GitHub remote")
	}
	token := credentials.GitHubToken(spec.GitHubToken, doppler.Over(job.Getenv), job.Runner.Mask)
	return credentials.Repository(owner, name, token, job.Getenv), nil
}

// fetchSource fetches the files of a commit, unless the source is the checkout. It reads the time of the commit and
// adds the named contexts that are known only then: directories of the event's commit, and the git context.
func fetchSource(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, s buildSource,
) (_ buildSource, err error) {
	if s.Tree.Dir == "" {
		if s.Tree, err = fetchCommit(ctx, job, spec, doppler, s, "source"); err != nil {
			return buildSource{}, err
		}
		if s.Replaces {
			if err := warnLeftOut(ctx, job, s.Tree); err != nil {
				return buildSource{}, err
			}
		}
		s.Paths, err = spec.Resolve(s.Tree.Dir)
		warnUnfetched(job, spec, s.Tree, s.Paths)
		if err != nil {
			return buildSource{}, err
		}
	}
	if spec.DefaultLabels && s.Tree.SHA != "" {
		if s.Time, err = s.Tree.CommitTime(); err != nil {
			return buildSource{}, err
		}
	}
	s.Paths.Contexts = maps.Clone(s.Paths.Contexts)
	if err := addEventContexts(ctx, job, spec, doppler, s); err != nil {
		return buildSource{}, err
	}
	if spec.GitContext == "" || s.Tree.SHA == "" || s.Paths.Contexts[spec.GitContext] != "" {
		return s, nil
	}
	dir := filepath.Join(job.Scratch, "git")
	if err := s.Tree.WriteGitDir(ctx, dir); err != nil {
		return buildSource{}, inputs.Wrap("git_context", err)
	}
	s.Paths.Contexts[spec.GitContext] = dir
	return s, nil
}

// addEventContexts adds the named contexts that are directories of the event's commit, and fetches that commit if the
// build uses the checkout.
func addEventContexts(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, s buildSource,
) error {
	if len(spec.EventContexts) == 0 {
		return nil
	}
	root := s.Tree.Dir
	if s.Commit.SHA == "" {
		event := buildSource{Repository: job.Event.Repository, Commit: source.Commit{SHA: job.Event.SHA}}
		tree, err := fetchCommit(ctx, job, spec, doppler, event, "event")
		if err != nil {
			return err
		}
		root = tree.Dir
	}
	for name, directory := range spec.EventContexts {
		resolved, err := inputs.ResolveDirectory(root, name, directory)
		if err != nil {
			return err
		}
		s.Paths.Contexts[name] = resolved
	}
	return nil
}

// fetchCommit fetches the files of a commit into a directory of the run's temporary files.
func fetchCommit(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, s buildSource, directory string,
) (_ source.Tree, err error) {
	defer startActivity(ctx, "git to fetch %s", s.Commit.SHA)()
	defer startPhase(ctx, "Fetch %s", s.Commit.SHA).end(&err)
	hosted, err := hostedRepository(job, spec, doppler, s.Repository)
	if err != nil {
		return source.Tree{}, err
	}
	hosted.Logf = job.Runner.Infof
	return hosted.Fetch(ctx, s.Commit, filepath.Join(job.Scratch, directory), spec.Fetch)
}

// describeSource returns a log line that describes the source.
func describeSource(source buildSource) string {
	switch {
	case source.Tree.SHA == "":
		return fmt.Sprintf("Building %s, which is not a git repository", source.Tree.Dir)
	case source.Tree.Dirty:
		return fmt.Sprintf("Building the checkout with uncommitted changes: %s-dirty %s", source.Tree.SHA, source.Tree.Ref)
	}
	return fmt.Sprintf("Building %s %s", source.Tree.SHA, source.Tree.Ref)
}
