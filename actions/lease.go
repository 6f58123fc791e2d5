package actions

import (
	"cmp"
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// acquire fetches the source and acquires a machine for each platform, in parallel. The caller must release the lease.
func acquire(
	ctx context.Context, job job, spec inputs.BuildSpec, session session,
) (source buildSource, lease *builder.Lease, err error) {
	source = session.Source
	if mustBuildCommit(job, spec) { // the workspace's depot.json may name a project of an outsider
		if source, err = fetchSource(ctx, job, spec, session.Doppler, source); err != nil {
			return buildSource{}, nil, err
		}
	}
	provider, err := builderFor(job, spec, session.Doppler, source)
	if errors.Is(err, builder.ErrNoProject) && source.Commit.SHA != "" { // the commit's depot.json may name it
		if source, err = fetchSource(ctx, job, spec, session.Doppler, source); err == nil {
			provider, err = builderFor(job, spec, session.Doppler, source)
		}
	}
	if err != nil {
		return buildSource{}, nil, err
	}
	group, groupCtx := errgroup.WithContext(ctx) // the first failure cancels the rest
	group.Go(func() (err error) {
		source, err = fetchSource(groupCtx, job, spec, session.Doppler, source)
		return err
	})
	group.Go(func() (err error) {
		defer startActivity(ctx, "the builder")()
		acquired, err := provider.Acquire(groupCtx, builderRequest(spec))
		if err != nil {
			return err
		}
		lease = acquired
		context.AfterFunc(ctx, func() { acquired.Release(context.Canceled) })
		for _, platform := range spec.Platforms {
			group.Go(func() error {
				defer startActivity(ctx, "a machine for %s", platform)()
				_, err := lease.Machine(groupCtx, platform)
				return err
			})
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		if lease != nil {
			release(ctx, job, lease, err)
		}
		return buildSource{}, nil, err
	}
	return source, lease, nil
}

// provider acquires BuildKit machines. It is a [builder.Depot] or a [builder.Address].
type provider interface {
	Acquire(context.Context, builder.Request) (*builder.Lease, error)
}

// builderFor returns the provider that the input builder selects. The Depot project is the first of these that is set:
// the input depot_project, DEPOT_PROJECT_ID in Doppler or the environment, depot.json.
func builderFor(job job, spec inputs.BuildSpec, doppler credentials.Doppler, source buildSource) (provider, error) {
	if spec.Builder != "depot" {
		return builder.Address{
			Addr: spec.Builder, CertDir: job.Getenv(builder.CertPath), AllowPlaintext: spec.AllowPlaintextBuilder,
		}, nil
	}
	project := spec.DepotProject
	if project == "" {
		var err error
		dir := cmp.Or(source.Tree.Dir, job.Dir)
		if project, err = builder.FindProject(dir, doppler.Over(job.Getenv)); err != nil {
			return nil, err
		}
	}
	return depot(job, spec, doppler, project), nil
}

// depot returns a client for Depot with the credentials of the inputs and the job. An empty project stands for the
// project of the token.
func depot(job job, spec inputs.BuildSpec, doppler credentials.Doppler, project string) builder.Depot {
	token := credentials.Depot{
		Input: spec.DepotToken, Getenv: doppler.Over(job.Getenv), OIDC: job.oidc(), Logf: job.Runner.Infof,
	}
	return builder.Depot{
		Project: project, Token: token.Token, APIURL: job.Getenv("DEPOT_API_URL"),
		Logf: job.Runner.Infof, Mask: job.Runner.Mask,
	}
}

func builderRequest(spec inputs.BuildSpec) builder.Request {
	return builder.Request{
		Platforms: spec.Platforms, Tags: spec.Push, Push: len(spec.Push) > 0, Load: spec.Load, Save: spec.Save,
	}
}

// release releases the builder and reports the result of the build, err, to Depot.
func release(ctx context.Context, job job, lease *builder.Lease, err error) {
	switch {
	case ctx.Err() != nil:
		err = context.Canceled
	case err != nil:
		err = errors.New(job.Runner.Redact(err.Error()))
	}
	lease.Release(err)
}
