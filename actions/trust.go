package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
	"github.com/org/sandbox-actions/pkg/trust"
)

// mustBuildCommit reports whether a run must not use the files of the workspace, because anyone can trigger its event
// and an earlier step may have added files from outside, such as artifacts.
func mustBuildCommit(job job, spec inputs.BuildSpec) bool {
	return job.Event.IsPrivileged() && !spec.AllowUntrustedRef
}

// checkTrusted refuses code that an outsider may have written, if the run has secrets. With the input
// allow_untrusted_ref it returns whether the code is such code instead.
func checkTrusted(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, source buildSource,
) (untrusted bool, err error) {
	if job.Event.Name == "" {
		return false, nil
	}
	hosted, err := hostedRepository(job, spec, doppler, job.Event.Repository)
	if err != nil {
		return false, err
	}
	code := trust.Code{Ref: spec.Ref, Commit: source.Commit, Parents: source.Tree.Parents}
	code.Sources = []string{spec.Context, filepath.Dir(spec.Dockerfile)}
	if code.Commit.SHA == "" {
		code.Commit, code.Workspace = commitOfWorkspace(job, source.Tree), true
	}
	for _, from := range spec.Request.Contexts {
		code.Sources = append(code.Sources, from)
	}
	err = trust.Check(ctx, hosted, job.Event, code)
	refused := (*trust.UntrustedError)(nil)
	if !errors.As(err, &refused) || !spec.AllowUntrustedRef {
		return false, err
	}
	if !spec.AllowUntrustedSecrets {
		const effect = ". The build gets no secrets of Doppler; allow_untrusted_secrets: true provides them"
		job.Runner.Notice(runner.Annotation{Title: "Untrusted code", Message: refused.What + effect})
	}
	return true, nil
}

// checkTrustedWorkspace refuses a suite, a test command and an image from a checkout that an outsider may have written,
// if the run has secrets.
func checkTrustedWorkspace(ctx context.Context, job job, spec inputs.BuildSpec) error {
	if _, err := os.Lstat(filepath.Join(job.Dir, ".git")); err != nil || job.Event.Name == "" {
		return nil
	}
	checkout, err := source.OpenCheckout(ctx, job.Dir)
	if err != nil {
		return err
	}
	_, err = checkTrusted(ctx, job, spec, credentials.Doppler{}, buildSource{Tree: checkout})
	return err
}

// commitOfWorkspace returns the commit of a checkout in the workspace, or zero if the checkout is of another
// repository, which the workflow has chosen.
func commitOfWorkspace(job job, tree source.Tree) source.Commit {
	if tree.Repository != "" && !strings.EqualFold(tree.Repository, job.Event.Repository) {
		return source.Commit{}
	}
	return source.Commit{SHA: tree.SHA} // the name of its ref proves nothing
}

// warnLeftOut warns about files of the workspace that are not built because they are not part of the commit.
func warnLeftOut(ctx context.Context, job job, tree source.Tree) error {
	const limit = 10
	extra, err := tree.Extra(ctx, job.Dir, limit)
	if err != nil || len(extra) == 0 {
		return err
	}
	more := ""
	if len(extra) == limit {
		more = ", …"
	}
	message := fmt.Sprintf("Building commit %s without these changes in the workspace, because anyone can trigger this "+
		"run (%s): %s%s. After a review, allow_untrusted_ref: true builds the workspace",
		tree.SHA, job.Event.Name, strings.Join(extra, ", "), more)
	job.Runner.Warning(runner.Annotation{Title: "Files of the workspace are not built", Message: message})
	return nil
}

// checkLayout refuses an image in a directory if an outsider may have written it.
func checkLayout(ctx context.Context, job job, spec inputs.BuildSpec, directory string) error {
	if !mustBuildCommit(job, spec) {
		return checkTrustedWorkspace(ctx, job, spec)
	}
	return &trust.UntrustedError{
		What:  fmt.Sprintf("input image: the directory %q may be from %s", directory, trust.PullRequest(job.Event)),
		Event: job.Event,
	}
}
