package source

import (
	"context"
	"sync/atomic"

	"github.com/google/go-github/v62/github"
	"golang.org/x/sync/errgroup"
)

const (
	maxBranches         = 100 // maximum number of branches that isOnBranch searches
	parallelComparisons = 8
)

// IsPublished reports whether a branch or tag of the repository contains a commit. The repository also serves the
// commits of its forks, which none of them contains. IsPublished searches the history of the default branch and of the
// first 100 branches, and compares with the heads of all branches and tags.
func (r Repository) IsPublished(ctx context.Context, sha string) (bool, error) {
	for _, find := range []func(context.Context, string) (bool, error){
		r.isBranchHead, r.isOnDefaultBranch, r.isTagged, r.isOnBranch,
	} {
		if found, err := find(ctx, sha); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

func (r Repository) isBranchHead(ctx context.Context, sha string) (bool, error) {
	heads, err := call(ctx, r, "find the branches of "+sha,
		func(c *github.Client) ([]*github.BranchCommit, *github.Response, error) {
			return c.Repositories.ListBranchesHeadCommit(ctx, r.Owner, r.Name, sha)
		})
	if isMissing(err) {
		return false, nil
	}
	return len(heads) > 0, err
}

func (r Repository) isOnDefaultBranch(ctx context.Context, sha string) (bool, error) {
	repository, err := call(ctx, r, "read the default branch",
		func(c *github.Client) (*github.Repository, *github.Response, error) {
			return c.Repositories.Get(ctx, r.Owner, r.Name)
		})
	if err != nil {
		return false, err
	}
	return r.isInHistory(ctx, sha, repository.GetDefaultBranch())
}

// isInHistory reports whether a branch contains the commit.
func (r Repository) isInHistory(ctx context.Context, sha, branch string) (bool, error) {
	found, err := call(ctx, r, "compare "+sha+" with "+branch,
		func(c *github.Client) (*github.CommitsComparison, *github.Response, error) {
			return c.Repositories.CompareCommits(ctx, r.Owner, r.Name, branch, sha, &github.ListOptions{PerPage: 1})
		})
	if isMissing(err) {
		return false, nil
	}
	return found.GetStatus() == "identical" || found.GetStatus() == "behind", err
}

func (r Repository) isTagged(ctx context.Context, sha string) (bool, error) {
	for page := 1; page != 0; {
		next := 0
		tags, err := call(ctx, r, "list the tags", func(c *github.Client) ([]*github.RepositoryTag, *github.Response, error) {
			list, response, err := c.Repositories.ListTags(ctx, r.Owner, r.Name, &github.ListOptions{Page: page, PerPage: 100})
			if response != nil {
				next = response.NextPage
			}
			return list, response, err
		})
		if err != nil {
			return false, err
		}
		for _, tag := range tags {
			if tag.GetCommit().GetSHA() == sha {
				return true, nil
			}
		}
		page = next
	}
	return false, nil
}

func (r Repository) isOnBranch(ctx context.Context, sha string) (bool, error) {
	branches, err := call(ctx, r, "list the branches",
		func(c *github.Client) ([]*github.Branch, *github.Response, error) {
			return c.Repositories.ListBranches(ctx, r.Owner, r.Name,
				&github.BranchListOptions{ListOptions: github.ListOptions{PerPage: maxBranches}})
		})
	if err != nil {
		return false, err
	}
	var found atomic.Bool
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelComparisons)
	for _, branch := range branches {
		group.Go(func() error {
			if found.Load() {
				return nil
			}
			contained, err := r.isInHistory(groupCtx, sha, branch.GetName())
			if contained {
				found.Store(true)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil && !found.Load() {
		return false, err
	}
	return found.Load(), nil
}

// Parents returns the SHAs of a commit's parents. It returns nil if the repository does not have the commit.
func (r Repository) Parents(ctx context.Context, sha string) ([]string, error) {
	found, err := call(ctx, r, "read commit "+sha,
		func(c *github.Client) (*github.RepositoryCommit, *github.Response, error) {
			return c.Repositories.GetCommit(ctx, r.Owner, r.Name, sha, &github.ListOptions{PerPage: 1})
		})
	switch {
	case isMissing(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	parents := []string{}
	for _, parent := range found.Parents {
		parents = append(parents, parent.GetSHA())
	}
	return parents, nil
}
