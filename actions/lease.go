package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// acquire fetches the source and acquires a machine for each platform, in parallel. The caller must release the lease.
func acquire(
	ctx context.Context, job job, spec inputs.BuildSpec, session session,
) (source buildSource, lease *builder.Lease, err error) {
	defer startPhase(ctx, "Acquire a builder").inGroup(job.Runner).end(&err)
	provider, source, err := selectBuilder(ctx, job, spec, session)
	if err != nil {
		return buildSource{}, nil, err
	}
	group, groupCtx := errgroup.WithContext(ctx) // the first failure cancels the rest
	group.Go(func() (err error) {
		source, err = fetchSource(groupCtx, job, spec, session.Doppler, source)
		return err
	})
	group.Go(func() (err error) {
		defer startActivity(ctx, "%s to accept the build", provider)()
		request := builderRequest(spec)
		request.Canceled = func(err *builder.CanceledError) { interrupt(ctx, err) }
		acquired, err := provider.Acquire(groupCtx, request)
		if err != nil {
			return err
		}
		lease = acquired
		context.AfterFunc(ctx, func() { acquired.Release(context.Canceled) })
		for _, platform := range spec.Platforms {
			group.Go(func() error {
				defer startActivity(ctx, "a machine of %s for %s", provider, platform)()
				_, err := lease.Machine(groupCtx, platform)
				return err
			})
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		if lease != nil {
			err = release(ctx, job, lease, err)
		}
		return buildSource{}, nil, err
	}
	return source, lease, nil
}

// selectBuilder returns the provider of the builder, and the session's source. It fetches the source first if only the
// commit's depot.json may name the Depot project: that of the workspace may name a project of an outsider.
func selectBuilder(
	ctx context.Context, job job, spec inputs.BuildSpec, session session,
) (selected provider, source buildSource, err error) {
	source = session.Source
	if !mustBuildCommit(job, spec) {
		selected, err = builderFor(job, spec, session.Doppler, source)
		if !errors.Is(err, builder.ErrNoProject) || source.Commit.SHA == "" {
			return selected, source, err
		}
	}
	if source, err = fetchSource(ctx, job, spec, session.Doppler, source); err != nil {
		return nil, buildSource{}, err
	}
	selected, err = builderFor(job, spec, session.Doppler, source)
	return selected, source, err
}

// provider acquires BuildKit machines. It is a [builder.Depot] or a [builder.Address].
type provider interface {
	fmt.Stringer // the name in messages
	Acquire(context.Context, builder.Request) (*builder.Lease, error)
}

// builderFor returns the provider that the input builder selects. The Depot project is the first of these that is set:
// the input depot_project, DEPOT_PROJECT_ID in Doppler or the environment, the depot.json nearest to the Dockerfile, to
// the context, or to the root of the source.
func builderFor(job job, spec inputs.BuildSpec, doppler credentials.Doppler, source buildSource) (provider, error) {
	if spec.Builder != "depot" {
		return builder.Address{
			Addr: spec.Builder, CertDir: job.Getenv(builder.CertPath), AllowPlaintext: spec.AllowPlaintextBuilder,
		}, nil
	}
	project := spec.DepotProject
	if project == "" {
		var err error
		getenv := doppler.Over(job.Getenv)
		project, err = builder.FindProject(getenv, job.Runner.Infof, projectDirs(job, spec, source)...)
		if err != nil && !(errors.Is(err, builder.ErrNoProject) && job.Getenv("DEPOT_BUILD_ID") != "") {
			return nil, err
		}
	}
	return depot(job, spec, doppler, project), nil
}

// projectDirs returns the directories from which depot.json is searched upward, in the order of their precedence.
// Before a commit is fetched, they are those of the workspace.
func projectDirs(job job, spec inputs.BuildSpec, source buildSource) []string {
	root := cmp.Or(source.Tree.Dir, job.Dir)
	below := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(root, path)
	}
	dockerfile, _ := spec.DockerfileIn(root)
	dirs := []string{filepath.Dir(below(dockerfile))}
	if !inputs.IsRemote(spec.Context) {
		dirs = append(dirs, below(spec.Context))
	}
	return append(dirs, root)
}

// depot returns a client for Depot with the credentials of the inputs and the job. An empty project stands for the
// project of the token.
func depot(job job, spec inputs.BuildSpec, doppler credentials.Doppler, project string) builder.Depot {
	token := credentials.Depot{
		Input: spec.DepotToken, Getenv: doppler.Over(job.Getenv), OIDC: job.oidc(), Logf: job.Runner.Infof,
	}
	return builder.Depot{
		Project: project, Token: token.Token, APIURL: job.Getenv("DEPOT_API_URL"), BuildID: job.Getenv("DEPOT_BUILD_ID"),
		Logf: job.Runner.Infof, Mask: job.Runner.Mask,
	}
}

func builderRequest(spec inputs.BuildSpec) builder.Request {
	return builder.Request{
		Platforms: spec.Platforms, Tags: spec.Push, Push: len(spec.Push) > 0, Load: spec.Load,
		Save: spec.Save, SaveTags: spec.SaveTags,
	}
}

// release releases the builder, reports the result of the build, err, to Depot, and returns it. If Depot has canceled
// the build, it returns that error instead.
func release(ctx context.Context, job job, lease *builder.Lease, err error) error {
	outcome := err
	switch {
	case ctx.Err() != nil:
		outcome = context.Canceled
	case err != nil:
		outcome = errors.New(job.Runner.Redact(err.Error()))
	}
	lease.Release(outcome)
	return cmp.Or(lease.Err(), err)
}
