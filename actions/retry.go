package actions

import (
	"context"
	"errors"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// buildImage builds the image for every platform and pushes it to the references of the input push. It builds once more
// on a new machine if Depot's machine is lost and nothing can have been published. The caller must release the lease.
func buildImage(ctx context.Context, job job, spec inputs.BuildSpec, session session) (builtImage, error) {
	built, err := buildOnLease(ctx, job, spec, session)
	lost := (*builder.LostError)(nil)
	if !errors.As(err, &lost) || !canBuildAgain(job, spec) {
		return built, err
	}
	job.Runner.Infof("%v; building again on a new machine", err)
	session.Source = built.Source // fetched
	return buildOnLease(ctx, job, spec, session)
}

// canBuildAgain reports whether Depot provides another machine, and the build publishes nothing that the lost machine
// may have published in part.
func canBuildAgain(job job, spec inputs.BuildSpec) bool {
	published := len(spec.Push) > 0 || spec.Save || len(spec.Outputs) > 0
	return spec.Builder == "depot" && job.Getenv("DEPOT_BUILD_ID") == "" && !published
}
