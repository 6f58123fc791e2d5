package actions

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Build builds an image and loads, pushes and saves it according to the inputs. The outputs are those of the image only
// after all of that has succeeded.
func Build(ctx context.Context, env Env, in inputs.Build) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return env.reject(err)
	}
	return env.runJob(ctx, spec.Timeout, spec.Report, func(
		ctx context.Context, job job,
	) (run runrecord.Record, err error) {
		if err := checkForkPermissions(ctx, job, buildNeeds(job, spec)); err != nil {
			return run, err
		}
		session, err := prepare(ctx, job, spec)
		run.Source = sourceRecord(job, spec, session.Source)
		if unavailable := (*engineError)(nil); errors.As(err, &unavailable) {
			return run, inputs.Wrap("load", fmt.Errorf("%w; or set load: false", err))
		}
		if err != nil {
			return run, err
		}
		built, err := buildAndLoad(ctx, job, spec, session)
		addBuild(&run, job, spec, built)
		if err != nil {
			return run, err
		}
		outputs, err := buildOutputs(spec, built)
		if err != nil {
			return run, err
		}
		run.Outputs = outputList(outputs)
		return run, nil
	})
}
