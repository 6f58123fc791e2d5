package source

import "context"

// IsPublished reports whether the checkout's commit is what a branch of its remote, or a tag, was when it was fetched. A pull request's commit is not,
// however it was fetched: those have refs of other kinds, or none.
func (t Tree) IsPublished(ctx context.Context) (bool, error) {
	refs, err := t.git.run(ctx, nil, "for-each-ref", "--count=1", "--points-at="+t.SHA, "refs/remotes/origin", "refs/tags")
	return len(refs) > 0, err
}
