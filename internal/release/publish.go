package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-github/v62/github"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"golang.org/x/mod/semver"
	"golang.org/x/sync/errgroup"
)

// publish publishes the release. If it is interrupted, it may leave a draft, which the next run completes.
func (p *publisher) publish(ctx context.Context) error {
	commit, released, err := p.localCommit(ctx)
	if err != nil {
		return err
	}
	defaultBranch, err := p.checkAccess(ctx)
	if err != nil {
		return err
	}
	if err := p.checkMerged(ctx, released, defaultBranch, false); err != nil {
		return err
	}
	if err := p.publishTag(ctx, commit); err != nil {
		return err
	}
	release, highest, err := p.ensureRelease(ctx)
	if err != nil {
		return err
	}
	if release.GetDraft() {
		if err := p.uploadAssets(ctx, release.GetID()); err != nil {
			return err
		}
		isLatest := !isCandidate(p.version) && semver.Compare(p.version, highest) > 0
		if err := p.publishDraft(ctx, release.GetID(), isLatest); err != nil {
			return err
		}
	}
	if err := p.verifyPublished(ctx, release.GetID()); err != nil {
		return err
	}
	p.log.Infof("release: published %s/releases/tag/%s with %d verified assets", p.repositoryURL(), p.version, len(p.sums))
	return nil
}

// publishTag pushes the version's tag unless it exists on GitHub.
func (p *publisher) publishTag(ctx context.Context, commit string) error {
	return p.retry(ctx, "push tag "+p.version, p.limits.Request, func(ctx context.Context) error {
		tags, err := p.remoteTags(ctx)
		switch {
		case err != nil:
			return err
		case tags[p.version] == commit:
			return nil
		case tags[p.version] != "":
			return conflictf("tag %s on GitHub points to another commit: got %s, want %s (release the next version)",
				p.version, tags[p.version], commit)
		}
		return p.pushTag(ctx, commit, p.version, "")
	})
}

// ensureRelease returns the version's release and the highest version of the other published releases. It creates a
// draft if the release does not exist.
func (p *publisher) ensureRelease(ctx context.Context) (release *github.RepositoryRelease, highest string, err error) {
	const op = "create the release"
	err = p.retry(ctx, op, p.limits.Request, func(ctx context.Context) error {
		all, err := p.listReleases(ctx)
		if err != nil {
			return err
		}
		release, highest, err = p.findRelease(all)
		if release != nil || err != nil {
			return err
		}
		release, _, err = p.api.Repositories.CreateRelease(ctx, p.owner, p.name, &github.RepositoryRelease{
			TagName: &p.version, Name: &p.version, Body: &p.changelog,
			Draft: github.Bool(true), Prerelease: github.Bool(isCandidate(p.version)),
		})
		if err == nil && (release.GetID() == 0 || !release.GetDraft()) {
			return httpclient.ErrFormat
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	// Uploads use a different host than the API.
	base, _, _ := strings.Cut(release.GetUploadURL(), "repos/")
	p.api.UploadURL, err = p.api.BaseURL.Parse(base)
	if err != nil || base == "" {
		return nil, "", p.describe(ctx, op, errors.Join(httpclient.ErrFormat, err))
	}
	return release, highest, nil
}

// findRelease returns the version's release, or nil, and the highest version of the other releases. It ignores drafts
// and pre-releases among the others.
func (p *publisher) findRelease(all []*github.RepositoryRelease) (
	release *github.RepositoryRelease, highest string, err error,
) {
	for _, x := range all {
		tag := x.GetTagName()
		switch {
		case tag == p.version && release != nil:
			return nil, "", conflictf("GitHub has several releases for tag %s (delete the drafts among them)", p.version)
		case tag == p.version:
			release = x
		case !x.GetDraft() && !x.GetPrerelease() && semver.Compare(tag, highest) > 0:
			highest = tag
		}
	}
	return release, highest, nil
}

// maxTransfers is the maximum number of concurrent uploads or downloads.
const maxTransfers = 4

// uploadAssets uploads the assets that the draft lacks.
func (p *publisher) uploadAssets(ctx context.Context, id int64) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxTransfers)
	for _, name := range slices.Sorted(maps.Keys(p.sums)) {
		group.Go(func() error {
			return p.retry(ctx, "upload "+name, p.limits.Transfer, func(ctx context.Context) error {
				return p.uploadAsset(ctx, id, name)
			})
		})
	}
	return group.Wait()
}

func (p *publisher) uploadAsset(ctx context.Context, id int64, name string) error {
	assets, err := p.listAssets(ctx, id)
	if err != nil {
		return err
	}
	switch existing := assets[name]; {
	case existing == nil:
	case existing.GetState() == "uploaded":
		return nil // publishDraft verifies its content
	default: // delete an interrupted upload, which reserves the name
		if _, err := p.api.Repositories.DeleteReleaseAsset(ctx, p.owner, p.name, existing.GetID()); err != nil {
			return err
		}
	}
	file, err := os.Open(filepath.Join(p.path, name))
	if err != nil {
		return err
	}
	defer file.Close()
	options := &github.UploadOptions{Name: name, MediaType: "application/octet-stream"}
	_, _, err = p.api.Repositories.UploadReleaseAsset(ctx, p.owner, p.name, id, options, file)
	return err
}

// publishDraft verifies the draft's assets and publishes it.
func (p *publisher) publishDraft(ctx context.Context, id int64, isLatest bool) error {
	if err := p.verifyAssets(ctx, id, p.sumAuthenticated); err != nil {
		return err
	}
	return p.retry(ctx, "publish the release", p.limits.Request, func(ctx context.Context) error {
		_, _, err := p.api.Repositories.EditRelease(ctx, p.owner, p.name, id, &github.RepositoryRelease{
			TagName: &p.version, Draft: github.Bool(false), Prerelease: github.Bool(isCandidate(p.version)),
			MakeLatest: github.String(fmt.Sprint(isLatest)),
		})
		return err
	})
}

// verifyPublished downloads and verifies each asset, without a token if the repository is public.
func (p *publisher) verifyPublished(ctx context.Context, id int64) error {
	if p.isPrivate {
		return p.verifyAssets(ctx, id, p.sumAuthenticated)
	}
	return p.verifyAssets(ctx, id, p.sumPublic)
}

// verifyAssets returns an error unless the release's assets are identical to the artifacts. download returns the
// SHA-256 of an asset.
func (p *publisher) verifyAssets(
	ctx context.Context, id int64, download func(context.Context, *github.ReleaseAsset) (string, error),
) error {
	var assets map[string]*github.ReleaseAsset
	err := p.retry(ctx, "list the release's assets", p.limits.Request, func(ctx context.Context) (err error) {
		assets, err = p.listAssets(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	if got, want := slices.Sorted(maps.Keys(assets)), slices.Sorted(maps.Keys(p.sums)); !slices.Equal(got, want) {
		return fmt.Errorf("release %s on GitHub has the assets %s instead of %s (delete it, or release the next version)",
			p.version, strings.Join(got, ", "), strings.Join(want, ", "))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxTransfers)
	for name, want := range p.sums {
		group.Go(func() error {
			return p.retry(ctx, "download "+name, p.limits.Transfer, func(ctx context.Context) error {
				got, err := download(ctx, assets[name])
				if err == nil && got != want {
					return conflictf("checksum mismatch for %s in release %s on GitHub: got %s, want %s "+
						"(delete the release, or release the next version)", name, p.version, got, want)
				}
				return err
			})
		})
	}
	return group.Wait()
}
