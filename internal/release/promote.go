package main

import (
	"context"
	"fmt"

	"github.com/google/go-github/v62/github"
	"golang.org/x/mod/semver"
)

// promote has the major version's tag name the release: what `uses: OWNER/NAME/build@v1` means from then on.
func (r *hub) promote(ctx context.Context) error {
	major := semver.Major(r.version)
	if candidate(r.version) {
		return fmt.Errorf("%s is a candidate: %s names what everybody uses, and is moved to a release only", r.version, major)
	}
	if err := r.enter(ctx); err != nil {
		return err
	}
	commit, err := r.tagged(ctx)
	if err != nil {
		return err
	}
	release, err := r.published(ctx)
	if err != nil {
		return err
	}
	if err := r.verify(ctx, release.GetID()); err != nil {
		return err
	}
	return r.step(ctx, "move "+major, func(ctx context.Context) error {
		tags, err := r.tags(ctx)
		if err != nil {
			return err
		}
		was := ""
		for version, named := range tags {
			ours := semver.Canonical(version) == version && semver.Major(version) == major
			if ours && named == tags[major] && semver.Compare(version, was) > 0 {
				was = version
			}
		}
		switch {
		case tags[major] == commit:
			r.Infof("release: %s is %s", major, r.version)
			return nil
		case tags[major] != "" && was == "":
			return refused("%s is on %s, which is no release: move it to one by hand, or delete it", major, tags[major])
		case tags[major] != "" && semver.Compare(was, r.version) > 0:
			r.Infof("release: %s stays %s, which is newer than %s", major, was, r.version)
			return nil
		}
		if err := r.push(ctx, commit, major, tags[major]); err != nil {
			return err
		}
		r.Infof("release: %s is %s now", major, r.version)
		return nil
	})
}

// tagged is the commit that GitHub has for the version, with the sums that were built.
func (r *hub) tagged(ctx context.Context) (commit string, err error) {
	err = r.step(ctx, "find the commit of "+r.version, func(ctx context.Context) error {
		tags, err := r.tags(ctx)
		if err != nil {
			return err
		}
		if commit = tags[r.version]; commit == "" {
			return refused("GitHub has no tag %s: publish it first", r.version)
		}
		if err := r.fetch(ctx, commit); err != nil {
			return err
		}
		sums, err := r.sumsOf(ctx, commit)
		if err == nil && sums != string(r.checksums) {
			return refused("the commit %s that GitHub has for %s names other sums than %s/checksums.txt: build that commit's parent",
				commit, r.version, r.path)
		}
		return err
	})
	return commit, err
}

// published is the release, which everybody can see.
func (r *hub) published(ctx context.Context) (release *github.RepositoryRelease, err error) {
	err = r.step(ctx, "find the release "+r.version, func(ctx context.Context) error {
		var answer *github.Response
		release, answer, err = r.api.Repositories.GetReleaseByTag(ctx, r.owner, r.name, r.version)
		switch {
		case answer != nil && answer.StatusCode == 404:
			return refused("GitHub has no published release %s: publish it first", r.version)
		case err == nil && release.GetPrerelease():
			return refused("GitHub says that %s is a pre-release: say there that it is none, and try again", r.version)
		}
		return err
	})
	return release, err
}
