package actions

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// Build builds an image and loads, pushes and saves it according to the inputs. It writes the outputs and the summary
// after all of that has succeeded.
func Build(ctx context.Context, env Env, in inputs.Build) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return err
	}
	return env.runJob(ctx, spec.Timeout, func(ctx context.Context, job job) error {
		if err := checkForkPermissions(ctx, job, buildNeeds(job, spec)); err != nil {
			return err
		}
		session, err := prepare(ctx, job, spec)
		if unavailable := (*engineError)(nil); errors.As(err, &unavailable) {
			return inputs.Wrap("load", fmt.Errorf("%w; or set load: false", err))
		}
		if err != nil {
			return err
		}
		built, err := buildAndLoad(ctx, job, spec, session)
		if err != nil {
			return err
		}
		outputs, err := buildOutputs(spec, built)
		if err != nil {
			return err
		}
		return publish(env, outputs, buildSummary(job, built, outputs))
	})
}
