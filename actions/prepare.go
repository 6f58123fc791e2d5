package actions

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
	"github.com/org/sandbox-actions/pkg/trust"
)

// session holds what a build needs before it acquires a builder: credentials, an engine, and the source.
type session struct {
	Doppler      credentials.Doppler
	Engine       *dockerengine.Engine // nil unless the image is loaded
	LoadPlatform string               // the platform to load
	Source       buildSource
	Untrusted    bool // whether allow_untrusted_ref admitted code that an outsider may have written
}

// prepare checks everything that can be checked before a build: the engine, the credentials and the checkout in
// parallel, then the ref. It refuses code that the run must not build.
// With an error, the session has the source if that is known.
func prepare(ctx context.Context, job job, spec inputs.BuildSpec) (s session, err error) {
	defer startPhase(ctx, "Prepare").inGroup(job.Runner).end(&err)
	for _, warning := range spec.Warnings {
		job.Runner.Warning(runner.Annotation{Message: warning})
	}
	var checkout source.Tree
	var group errgroup.Group
	if spec.Load {
		group.Go(func() (err error) {
			s.Engine, s.LoadPlatform, err = openEngine(ctx, job, spec) // not the group's context: the engine outlives it
			return err
		})
	}
	group.Go(func() (err error) {
		s.Doppler, err = readDoppler(ctx, job.Env, spec.Doppler)
		return err
	})
	group.Go(func() (err error) {
		checkout, err = openCheckout(ctx, job, spec)
		return err
	})
	if err := group.Wait(); err != nil {
		return session{}, err
	}
	if s.Source, err = resolveSource(ctx, job, spec, s.Doppler, checkout); err != nil {
		return session{}, err
	}
	if err := checkBuildNames(job, spec, s.Source); err != nil {
		return session{Source: s.Source}, err
	}
	warnSecretArguments(job, spec) // here, because the secrets of Doppler are masked already
	s.Untrusted, err = checkTrusted(ctx, job, spec, s.Doppler, s.Source)
	return s, err
}

// engineError reports that no Docker Engine is available.
type engineError struct{ err error }

func (e *engineError) Error() string { return e.err.Error() }
func (e *engineError) Unwrap() error { return e.err }

// openEngine opens the Docker Engine and returns the platform to load into it.
func openEngine(ctx context.Context, job job, spec inputs.BuildSpec) (*dockerengine.Engine, string, error) {
	defer startActivity(ctx, "the Docker Engine")()
	engine, err := dockerengine.Open(ctx, job.Getenv)
	if err != nil {
		return nil, "", &engineError{err}
	}
	native, err := engine.Platform(ctx)
	if err != nil {
		return nil, "", err
	}
	platform, err := loadPlatform(spec.Platforms, native)
	switch {
	case err != nil:
		return nil, "", err
	case platform != native:
		job.Runner.Infof("Loading %s into a Docker Engine on %s, where it runs under emulation", platform, native)
	case len(spec.Platforms) > 1:
		job.Runner.Infof("Loading %s, the platform of the Docker Engine", platform)
	}
	return engine, platform, nil
}

// loadPlatform returns the only platform, or the engine's own if there are several.
func loadPlatform(platforms []string, native string) (string, error) {
	if len(platforms) == 1 {
		return platforms[0], nil
	}
	if !slices.Contains(platforms, native) {
		return "", inputs.Errorf("platform", strings.Join(platforms, ","),
			"lacks %s, the platform of the Docker Engine; add it, or set load: false", native)
	}
	return native, nil
}

// buildNeeds returns the credentials that a build needs and that GitHub withholds from a fork's pull request.
func buildNeeds(job job, spec inputs.BuildSpec) trust.Needs {
	needs := trust.Needs{Push: spec.Push}
	needs.Save = spec.Save && !credentials.HasDepotToken(spec.DepotToken, job.Getenv)
	if !credentials.HasDopplerToken(spec.Doppler.DopplerToken, job.Getenv) {
		needs.DopplerConfig = cmp.Or(spec.Doppler.DopplerConfig, spec.Doppler.Default, spec.Doppler.DopplerIdentity)
	}
	return needs
}

// checkForkPermissions fails early if the inputs request something that a run for a fork's pull request cannot do.
func checkForkPermissions(ctx context.Context, job job, needs trust.Needs) error {
	if !job.Event.IsFork() || job.oidc().Available() {
		return nil
	}
	return trust.CheckForkPermissions(job.Event, needs, func(reference string) (bool, error) {
		err := image.CheckPushPermission(ctx, reference, image.Auth{Mask: job.Runner.Mask})
		if isDenied(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// isDenied reports whether a registry answered 401 or 403.
func isDenied(err error) bool {
	answer := (*transport.Error)(nil)
	return errors.As(err, &answer) &&
		(answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden)
}
