package actions

import (
	"context"
	"errors"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// withImage builds the image for every platform, pushes it to the references of the input push, calls use, and releases
// the builder. It does so once more on a new machine if Depot's machine is lost before anything is pushed. With an
// error, it returns what it reached.
func withImage(
	ctx context.Context, job job, spec inputs.BuildSpec, session session, use func(builtImage) error,
) (builtImage, error) {
	return onNewMachine(job, spec, session.Source, func(source buildSource) (built builtImage, err error) {
		session.Source = source
		if built, err = buildOnLease(ctx, job, spec, session); err != nil {
			return built, err
		}
		defer func() { err = release(ctx, job, built.Lease, err) }()
		err = use(built)
		if err != nil && len(pushReferences(spec, built.Lease)) > 0 {
			err = &image.PushedError{Err: err}
		}
		return built, err
	})
}

// onNewMachine calls build again, with the source that it has fetched, if Depot's machine is lost before anything is
// pushed.
func onNewMachine(
	job job, spec inputs.BuildSpec, source buildSource, build func(buildSource) (builtImage, error),
) (builtImage, error) {
	built, err := build(source)
	if canBuildAgain(job, spec, err) {
		job.Runner.Infof("%v; building again on a new machine", err)
		return build(built.Source)
	}
	return built, err
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
