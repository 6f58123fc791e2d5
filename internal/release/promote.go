package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/go-github/v62/github"
	"golang.org/x/mod/semver"
)

// promote moves the tag of the major version, such as v1, to the release, so that `uses: OWNER/NAME/build@v1` runs it.
// It verifies the release first. It never moves the tag to a release candidate or to a lower version.
func (p *publisher) promote(ctx context.Context) error {
	major := semver.Major(p.version)
	if isCandidate(p.version) {
		return fmt.Errorf("%s is a release candidate: %s moves only to releases", p.version, major)
	}
	defaultBranch, err := p.checkAccess(ctx)
	if err != nil {
		return err
	}
	commit, err := p.publishedCommit(ctx)
	if err != nil {
		return err
	}
	if err := p.checkMerged(ctx, commit, defaultBranch, true); err != nil {
		return err
	}
	release, err := p.publishedRelease(ctx)
	if err != nil {
		return err
	}
	if err := p.verifyPublished(ctx, release.GetID()); err != nil {
		return err
	}
	return p.retry(ctx, "move tag "+major, p.limits.Request, func(ctx context.Context) error {
		return p.moveMajorTag(ctx, major, commit)
	})
}

func (p *publisher) moveMajorTag(ctx context.Context, major, commit string) error {
	tags, err := p.remoteTags(ctx)
	if err != nil {
		return err
	}
	previous := highestVersionOn(tags, major)
	switch {
	case tags[major] == commit:
		p.log.Infof("release: %s already points to %s", major, p.version)
		return nil
	case tags[major] != "" && previous == "":
		return conflictf("tag %s points to %s, which is not a release (move the tag to a release or delete it)",
			major, tags[major])
	case tags[major] != "" && semver.Compare(previous, p.version) > 0:
		p.log.Infof("release: %s stays at %s, which is newer than %s", major, previous, p.version)
		return nil
	}
	if err := p.pushTag(ctx, commit, major, tags[major]); err != nil {
		return err
	}
	p.log.Infof("release: moved %s to %s", major, p.version)
	return nil
}

// highestVersionOn returns the highest version with a tag on the same commit as the major version's tag, or "".
func highestVersionOn(tags map[string]string, major string) (highest string) {
	for tag, commit := range tags {
		isVersion := semver.Canonical(tag) == tag && semver.Major(tag) == major
		if isVersion && commit == tags[major] && semver.Compare(tag, highest) > 0 {
			highest = tag
		}
	}
	return highest
}

// publishedCommit returns the commit of the version's tag on GitHub. It returns an error unless the commit contains the
// checksums of the artifacts.
func (p *publisher) publishedCommit(ctx context.Context) (commit string, err error) {
	err = p.retry(ctx, "fetch the commit of "+p.version, p.limits.Request, func(ctx context.Context) error {
		tags, err := p.remoteTags(ctx)
		if err != nil {
			return err
		}
		if commit = tags[p.version]; commit == "" {
			return conflictf("tag %s does not exist on GitHub (publish the release first)", p.version)
		}
		if err := p.fetchCommit(ctx, commit); err != nil {
			return err
		}
		checksums, err := p.checksumsOf(ctx, commit)
		if err == nil && checksums != string(p.checksums) {
			return conflictf("checksum mismatch: commit %s of tag %s on GitHub does not contain %s/checksums.txt "+
				"(build the release from its parent commit)", commit, p.version, p.path)
		}
		return err
	})
	return commit, err
}

// publishedRelease returns the version's release. It returns an error if the release is a draft or a pre-release.
func (p *publisher) publishedRelease(ctx context.Context) (release *github.RepositoryRelease, err error) {
	err = p.retry(ctx, "get release "+p.version, p.limits.Request, func(ctx context.Context) error {
		var response *github.Response
		release, response, err = p.api.Repositories.GetReleaseByTag(ctx, p.owner, p.name, p.version)
		switch {
		case response != nil && response.StatusCode == http.StatusNotFound:
			return conflictf("release %s is not published on GitHub (publish it first)", p.version)
		case err == nil && release.GetPrerelease():
			return conflictf(
				"release %s is a pre-release on GitHub (change it to a release there, and run the command again)",
				p.version,
			)
		}
		return err
	})
	return release, err
}
