package actions

import (
	"context"
	"errors"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// buildImage builds the image for every platform and pushes it to the references of the input push. It builds once more
// on a new machine if Depot's machine is lost before anything is pushed. The caller must release the lease.
func buildImage(ctx context.Context, job job, spec inputs.BuildSpec, session session) (builtImage, error) {
	return onNewMachine(job, spec, session.Source, func(source buildSource) (builtImage, error) {
		session.Source = source
		return buildOnLease(ctx, job, spec, session)
	})
}

// onNewMachine calls build again if Depot's machine is lost before anything is pushed. With an error, build returns the
// source if it was fetched.
func onNewMachine(
	job job, spec inputs.BuildSpec, source buildSource, build func(buildSource) (builtImage, error),
) (builtImage, error) {
	built, err := build(source)
	if !canBuildAgain(job, spec, err) {
		return built, err
	}
	job.Runner.Infof("%v; building again on a new machine", err)
	return build(built.Source)
}

// canBuildAgain reports whether err is that of a lost machine for which Depot provides another one, and no reference
// can exist in part. The platforms of one image are pushed independently.
func canBuildAgain(job job, spec inputs.BuildSpec, err error) bool {
	lost, pushed := (*builder.LostError)(nil), (*image.PushedError)(nil)
	switch {
	case !errors.As(err, &lost), errors.As(err, &pushed):
		return false
	case len(spec.Platforms) > 1 && (len(spec.Push) > 0 || spec.Save):
		return false
	}
	return spec.Builder == "depot" && job.Getenv("DEPOT_BUILD_ID") == "" // an attached build has ended
}
