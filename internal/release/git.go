package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// checksumsFile is the only file that the commit of a release adds.
const checksumsFile = "actions/checksums.txt"

// localCommit returns the commit of the version's tag in this clone, and its parent, which is the commit that is
// released. It returns an error unless the commit contains the checksums of the artifacts.
func (p *publisher) localCommit(ctx context.Context) (commit, released string, err error) {
	tag := "refs/tags/" + p.version
	out, err := p.git.Output(ctx, "rev-parse", "--verify", "--end-of-options", tag+"^{commit}")
	if err != nil {
		return "", "", fmt.Errorf("this clone has no tag %s (run scripts/release-commit.sh %s)", p.version, p.path)
	}
	commit = strings.TrimSpace(string(out))
	out, err = p.git.Output(ctx, "rev-parse", "--verify", "--end-of-options", commit+"^1")
	checksums, checksumsErr := p.checksumsOf(ctx, commit)
	if errors.Join(err, checksumsErr) != nil || checksums != string(p.checksums) {
		return "", "", fmt.Errorf(
			"tag %s in this clone does not match the release in %s (delete the tag and run scripts/release-commit.sh %s)",
			p.version, p.path, p.path)
	}
	return commit, strings.TrimSpace(string(out)), nil
}

// remoteTags returns the repository's tags with their commits.
func (p *publisher) remoteTags(ctx context.Context) (map[string]string, error) {
	list, err := p.git.Output(ctx, "ls-remote", "--tags", p.repositoryURL()+".git")
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for line := range strings.Lines(string(list)) {
		sha, name, _ := strings.Cut(strings.TrimSpace(line), "\trefs/tags/")
		// The commit of an annotated tag follows the tag, with the name TAG^{}.
		tags[strings.TrimSuffix(name, "^{}")] = sha
	}
	return tags, nil
}

// pushTag moves a tag on GitHub to a commit. It returns an error if the tag does not point to previous. If previous is
// "", the tag must not exist.
func (p *publisher) pushTag(ctx context.Context, commit, tag, previous string) error {
	ref := "refs/tags/" + tag
	_, err := p.git.Output(ctx, "push", "--quiet", "--force-with-lease="+ref+":"+previous,
		p.repositoryURL()+".git", commit+":"+ref)
	return err
}

// fetchCommit fetches a commit into this clone.
func (p *publisher) fetchCommit(ctx context.Context, commit string) error {
	_, err := p.git.Output(ctx, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", p.repositoryURL()+".git", commit)
	return err
}

// checksumsOf returns the checksums.txt in a release commit.
func (p *publisher) checksumsOf(ctx context.Context, commit string) (string, error) {
	checksums, err := p.git.Output(ctx, "cat-file", "blob", commit+":"+checksumsFile)
	return string(checksums), err
}
