package actions

import (
	"context"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// checkBuildNames returns an error if a name that becomes an output of a build contains a masked secret. It runs before
// the build, so that the run does not fail when it writes the outputs.
func checkBuildNames(job job, spec inputs.BuildSpec, source buildSource) error {
	if spec.Load {
		if err := checkOutputName(job, "image_name", spec.ImageName); err != nil {
			return err
		}
	}
	for _, reference := range spec.Push {
		if err := checkOutputName(job, "push", reference); err != nil {
			return err
		}
	}
	return checkOutputName(job, "ref", source.Commit.Ref)
}

// checkSnapshotName is like [checkBuildNames] for an existing image and the name of a snapshot, given or generated.
func checkSnapshotName(ctx context.Context, job job, spec inputs.SnapshotSpec) error {
	if err := checkOutputName(job, "image", spec.Image); err != nil {
		return err
	}
	if spec.Name != "" {
		return checkOutputName(job, "name", spec.Name)
	}
	if err := checkOutputName(job, "name_prefix", spec.NamePrefix); err != nil {
		return err
	}
	return checkOutputName(job, "name", personOf(ctx, job)) // the end of a generated name
}

func checkOutputName(job job, input, value string) error {
	secret, found := job.Runner.FindSecret(value)
	if !found {
		return nil
	}
	return inputs.Errorf(input, value, "contains %s, so the outputs cannot contain it; write another value, or set the "+
		"visibility of a Doppler secret that is not sensitive to unmasked", secret)
}
