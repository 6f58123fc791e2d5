package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-github/v62/github"
	"golang.org/x/mod/semver"
	"golang.org/x/sync/errgroup"
)

// publish makes the release at GitHub. Cut off anywhere, it leaves at most a draft, which the next run finishes.
func (r *hub) publish(ctx context.Context) error {
	commit, err := r.local(ctx)
	if err != nil {
		return err
	}
	if err := r.enter(ctx); err != nil {
		return err
	}
	if err := r.pushTag(ctx, commit); err != nil {
		return err
	}
	release, highest, err := r.draft(ctx)
	if err != nil {
		return err
	}
	if release.GetDraft() {
		if err := r.upload(ctx, release.GetID()); err != nil {
			return err
		}
		latest := !candidate(r.version) && semver.Compare(r.version, highest) > 0
		if err := r.publishDraft(ctx, release.GetID(), latest); err != nil {
			return err
		}
	}
	if err := r.verify(ctx, release.GetID()); err != nil {
		return err
	}
	r.Infof("release: %s/releases/tag/%s is published, and each of its %d assets is what was built", r.home, r.version, len(r.sums))
	return nil
}

// pushTag has GitHub name the release's commit, unless it does.
func (r *hub) pushTag(ctx context.Context, commit string) error {
	return r.step(ctx, "push the tag "+r.version, func(ctx context.Context) error {
		tags, err := r.tags(ctx)
		switch {
		case err != nil:
			return err
		case tags[r.version] == commit:
			return nil
		case tags[r.version] != "":
			return refused("GitHub has %s on another commit, %s, and this is %s: take the next version", r.version, tags[r.version], commit)
		}
		return r.push(ctx, commit, r.version, "")
	})
}

// draft finds the release, or begins one, and says which version is the highest of those that are published.
func (r *hub) draft(ctx context.Context) (release *github.RepositoryRelease, highest string, err error) {
	err = r.step(ctx, "make the release", func(ctx context.Context) error {
		release, highest = nil, ""
		all, err := r.releases(ctx)
		if err != nil {
			return err
		}
		for _, x := range all {
			switch {
			case x.GetTagName() == r.version && release != nil:
				return refused("GitHub has several releases of %s: delete the drafts among them", r.version)
			case x.GetTagName() == r.version:
				release = x
			case !x.GetDraft() && !x.GetPrerelease() && semver.Compare(x.GetTagName(), highest) > 0:
				highest = x.GetTagName()
			}
		}
		if release != nil {
			return nil
		}
		release, _, err = r.api.Repositories.CreateRelease(ctx, r.owner, r.name, &github.RepositoryRelease{
			TagName: &r.version, Name: &r.version, Body: &r.changelog, Draft: github.Bool(true), Prerelease: github.Bool(candidate(r.version)),
		})
		if err == nil && (release.GetID() == 0 || !release.GetDraft()) {
			return errGarbage
		}
		return err
	})
	if err == nil {
		// Uploads have a host of their own.
		host, _, _ := strings.Cut(release.GetUploadURL(), "repos/")
		if r.api.UploadURL, err = r.api.BaseURL.Parse(host); err != nil || host == "" {
			err = fmt.Errorf("make the release: %w", r.because(errGarbage))
		}
	}
	return release, highest, err
}

// upload sends the assets that the draft lacks, some at a time.
func (r *hub) upload(ctx context.Context, id int64) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, name := range slices.Sorted(maps.Keys(r.sums)) {
		group.Go(func() error {
			return r.transfer(ctx, "upload "+name, func(ctx context.Context) error {
				assets, err := r.assets(ctx, id)
				if err != nil {
					return err
				}
				if there := assets[name]; there != nil && there.GetState() == "uploaded" {
					return nil // it is looked into once all are there
				} else if there != nil { // what an upload left that was cut off
					if _, err := r.api.Repositories.DeleteReleaseAsset(ctx, r.owner, r.name, there.GetID()); err != nil {
						return err
					}
				}
				file, err := os.Open(filepath.Join(r.path, name))
				if err != nil {
					return err
				}
				defer file.Close()
				options := &github.UploadOptions{Name: name, MediaType: "application/octet-stream"}
				_, _, err = r.api.Repositories.UploadReleaseAsset(ctx, r.owner, r.name, id, options, file)
				return err
			})
		})
	}
	return group.Wait()
}

// publishDraft shows the release to everybody. Its assets are compared before, so that nobody gets what was not built.
func (r *hub) publishDraft(ctx context.Context, id int64, latest bool) error {
	if err := r.compare(ctx, id, r.asOwner); err != nil {
		return err
	}
	return r.step(ctx, "publish the release", func(ctx context.Context) error {
		_, _, err := r.api.Repositories.EditRelease(ctx, r.owner, r.name, id, &github.RepositoryRelease{
			TagName: &r.version, Draft: github.Bool(false), Prerelease: github.Bool(candidate(r.version)), MakeLatest: github.String(fmt.Sprint(latest)),
		})
		return err
	})
}

// verify downloads each asset as a stranger does: from a public repository without a token, by the address that people see.
func (r *hub) verify(ctx context.Context, id int64) error {
	if r.private {
		return r.compare(ctx, id, r.asOwner)
	}
	return r.compare(ctx, id, r.asStranger)
}

// compare has each asset downloaded, and refuses a release that has others than those that were built.
func (r *hub) compare(ctx context.Context, id int64, download func(context.Context, *github.ReleaseAsset) (string, error)) error {
	var assets map[string]*github.ReleaseAsset
	err := r.step(ctx, "list the release's assets", func(ctx context.Context) (err error) {
		assets, err = r.assets(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	if got, want := slices.Sorted(maps.Keys(assets)), slices.Sorted(maps.Keys(r.sums)); !slices.Equal(got, want) {
		return fmt.Errorf("the release %s at GitHub has the assets %s, and not %s: delete the release, or take the next version",
			r.version, strings.Join(got, ", "), strings.Join(want, ", "))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for name, want := range r.sums {
		group.Go(func() error {
			return r.transfer(ctx, "download "+name, func(ctx context.Context) error {
				got, err := download(ctx, assets[name])
				if err == nil && got != want {
					return refused("%s of %s at GitHub has the SHA-256 %s, and what was built has %s: delete the release, or take the next version",
						name, r.version, got, want)
				}
				return err
			})
		})
	}
	return group.Wait()
}
