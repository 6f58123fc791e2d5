package actions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
)

// trust refuses code that a stranger may have written, in a run that has secrets of this repository: pull_request_target, workflow_run and
// issue_comment are started by anybody. A branch, a tag and the run's own commit are the repository's; a pull request of a fork is not, nor
// is any commit that could be one of its, since a fork's commits can be fetched from the repository itself. folders are more that
// is used besides the context. What a step has put into a checkout besides, such as an artifact, is not seen.
func (b *build) trust(ctx context.Context, folders ...string) error {
	e := b.event
	if !e.IsPrivileged() || b.in.AllowUntrustedRef {
		return nil
	}
	refused := func(what string) error {
		return fmt.Errorf("%s, and this run (%s) has secrets of %s, which that code could take: build it in a workflow on pull_request, or, if it was reviewed, set allow_untrusted_ref: true", what, e.Name, e.Repository)
	}
	if b.commit.SHA != "" {
		if what := foreignCommit(e, b.commit); what != "" {
			return refused(fmt.Sprintf("input ref: %q is %s", b.in.Ref, what))
		}
	} else {
		folders = append(folders, b.Dir)
	}
	if !e.IsExternal() {
		return nil
	}
	used := []string{b.in.Context, filepath.Dir(b.in.Dockerfile)}
	for _, item := range b.in.BuildContexts {
		_, from, _ := strings.Cut(item.Text, "=")
		used = append(used, from)
	}
	for _, from := range used {
		switch {
		case strings.Contains(from, "://") || strings.HasPrefix(from, "git@"):
			if lower := strings.ToLower(from); strings.Contains(lower, "/pull/") || e.HeadRepository != "" && strings.Contains(lower, strings.ToLower(e.HeadRepository)) {
				return refused(fmt.Sprintf("the context %q is %s", from, ofPull(e)))
			}
		case filepath.IsAbs(from):
			folders = append(folders, from)
		case b.commit.SHA == "": // else it is in the commit
			folders = append(folders, filepath.Join(b.Dir, from))
		}
	}
	slices.Sort(folders)
	for _, folder := range slices.Compact(folders) {
		if _, err := os.Stat(folder); err != nil {
			continue // that is said elsewhere
		}
		what, err := foreignCheckout(ctx, e, folder)
		if err != nil {
			return err
		}
		if what != "" {
			return refused(fmt.Sprintf("the folder %s is %s", folder, what))
		}
	}
	return nil
}

// foreignCommit says whose a commit is, or may be; "" when it is the repository's own.
func foreignCommit(e runner.Event, c source.Commit) string {
	if pull, ok := strings.CutPrefix(c.Ref, "refs/pull/"); ok {
		if number, _, _ := strings.Cut(pull, "/"); number == fmt.Sprint(e.Pull) && !e.IsExternal() {
			return ""
		} else if number != fmt.Sprint(e.Pull) {
			return "code of the pull request #" + number
		}
		return ofPull(e)
	}
	switch {
	case !e.IsExternal():
		return ""
	case slices.Contains(e.Commits, c.SHA):
		return ofPull(e)
	case c.SHA == e.SHA, c.SHA == e.BaseSHA, strings.HasPrefix(c.Ref, "refs/heads/"), strings.HasPrefix(c.Ref, "refs/tags/"):
		return ""
	}
	return "a commit that no branch or tag names, which may be " + ofPull(e)
}

// foreignCheckout says the same of a folder of the workspace.
func foreignCheckout(ctx context.Context, e runner.Event, folder string) (string, error) {
	tree, err := source.OpenCheckout(ctx, folder)
	switch {
	case err != nil:
		return "", err
	case tree.SHA == "":
		return "no checkout of a known commit, and may hold " + ofPull(e), nil
	case tree.Repository != "" && !strings.EqualFold(tree.Repository, e.Repository):
		return "a checkout of " + tree.Repository, nil
	case slices.Contains(e.Commits, tree.SHA):
		return "a checkout of " + ofPull(e), nil
	case tree.SHA == e.SHA, tree.SHA == e.BaseSHA:
		return "", nil
	}
	if published, err := tree.IsPublished(ctx); published || err != nil {
		return "", err
	}
	return "a checkout of " + tree.SHA + ", which no branch or tag names, and which may be " + ofPull(e), nil
}

// ofPull names the code of the event's pull request.
func ofPull(e runner.Event) string { return "code of " + pullRequest(e) }

func pullRequest(e runner.Event) string {
	from := "a fork"
	if e.HeadRepository != "" {
		from = "the fork " + e.HeadRepository
	}
	if e.Pull == 0 {
		return from
	}
	return fmt.Sprintf("the pull request #%d from %s", e.Pull, from)
}

// afford refuses, before anything is spent, what the pull request of a fork can not do: it is given no secrets and no OIDC token. What
// is left is a build that Depot lets forks have, or one on a BuildKit of one's own, loaded and tested here.
func (b *build) afford(ctx context.Context) error {
	if !b.withoutSecrets() {
		return nil
	}
	refused := func(what string) error {
		return fmt.Errorf("%s: this run is of %s, which GitHub gives neither secrets nor an OIDC token: leave it out for forks, or do it when the pull request is merged", what, pullRequest(b.event))
	}
	if b.in.Save && b.in.DepotToken == "" && b.Getenv("DEPOT_TOKEN") == "" {
		return refused("input save: Depot's registry is not open to forks")
	}
	if (b.in.DopplerConfig != "" || b.in.DopplerIdentity != "") && !b.withoutDoppler && b.in.DopplerToken == "" && b.Getenv("DOPPLER_TOKEN") == "" {
		return refused(fmt.Sprintf("input doppler_config: %q can not be read without a token", b.in.DopplerConfig))
	}
	for _, reference := range b.plan.push {
		if err := image.CheckPushPermission(ctx, reference, image.Auth{Mask: b.Runner.Mask}); denied(err) {
			return refused(fmt.Sprintf("input push: %s does not let it push", reference))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// withoutSecrets says that the run is of a fork's pull request and was given nothing.
func (b *build) withoutSecrets() bool {
	return b.event.IsFork() && b.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") == ""
}
