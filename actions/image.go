package actions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// builtImage is an image in a builder's content store. It can be read until its lease is released.
type builtImage struct {
	Source   buildSource
	Lease    *builder.Lease
	Requests []image.Request // in the order of the platforms
	Results  []*image.Result // in the order of the platforms
	Loaded   *image.Result   // the result for the engine's platform, or the first
	Stats    image.Stats
	Index    v1.ImageIndex // of several platforms; nil for one
	Digest   string        // of the manifest, or of the index if there are several platforms or attestations
	Names    []string      // in the engine; empty until it is loaded

	Files    map[string]string         // hashes of the context's files; nil without a report
	Contents []runrecord.PlatformImage // in the order of the platforms; nil without a report
}

// buildAndLoad builds the image and loads it into the engine if the input load is set. With an error, it returns what
// it reached.
func buildAndLoad(ctx context.Context, job job, spec inputs.BuildSpec, session session) (builtImage, error) {
	var loaded []string
	var contents []runrecord.PlatformImage
	built, err := withImage(ctx, job, spec, session, func(built builtImage) (err error) {
		if spec.Load {
			if err := loadImage(ctx, job, session.Engine, spec.ImageNames, built.Loaded.Image); err != nil {
				return built.Lease.Explain(session.LoadPlatform, err)
			}
			loaded = spec.ImageNames
		}
		contents, err = readContents(ctx, job, built.Results...)
		return err
	})
	built.Names, built.Contents = loaded, contents
	return built, err
}

// buildOnLease acquires a lease, builds the image for every platform and pushes it to the references of the input push.
// The caller must release the lease. With an error, the source is set, if it was fetched, and the statistics.
func buildOnLease(ctx context.Context, job job, spec inputs.BuildSpec, session session) (_ builtImage, err error) {
	source, lease, err := acquire(ctx, job, spec, session)
	if err != nil {
		return builtImage{Source: session.Source}, err
	}
	built := builtImage{Source: source}
	defer func() {
		if err != nil {
			err = release(ctx, job, lease, err)
		}
	}()
	if lease.URL != "" {
		job.Runner.Infof("Depot build %s: %s", lease.ID, lease.URL)
	}
	requests, err := buildRequests(job, spec, session, source, lease)
	if err != nil {
		return built, err
	}
	built.Requests = requests
	sourceHashes := startSourceHashes(ctx, job, source)
	results, stats, err := solve(ctx, job, lease, requests)
	built.Stats, built.Files = stats, sourceHashes()
	annotate(job, stats.Warnings, requests[0].DockerfileName)
	if err != nil {
		logFailure(job, err)
		return built, err
	}
	warnUnsupported(job, results)
	index, digest, err := pushIndex(ctx, spec, lease, results, registryAuth(job, lease))
	if err != nil {
		return built, err
	}
	if err = checkPushes(ctx, job, pushReferences(spec, lease), digest, registryAuth(job, lease)); err != nil {
		return built, err
	}
	loaded := results[max(0, slices.Index(spec.Platforms, session.LoadPlatform))]
	built.Lease, built.Results, built.Loaded, built.Index, built.Digest = lease, results, loaded, index, digest.String()
	return built, nil
}

// checkPushes checks that the registries have the image. A registry that only the builder can reach is not an error.
func checkPushes(ctx context.Context, job job, references []string, digest v1.Hash, auth image.Auth) error {
	var checks errgroup.Group
	for _, reference := range references {
		checks.Go(func() error {
			defer startActivity(ctx, "the registry to confirm %s", reference)()
			err := image.CheckPushed(ctx, reference, digest, auth)
			if errors.Is(err, image.ErrUnreachable) {
				job.Runner.Warning(runner.Annotation{Message: err.Error()})
				return nil
			}
			return err
		})
	}
	return checks.Wait()
}

// pushIndex pushes an index of the platforms' images to each reference and returns it with its digest. BuildKit has
// already pushed the images: by digest if there are several platforms, and by tag if there is one, which needs no
// index.
func pushIndex(
	ctx context.Context, spec inputs.BuildSpec, lease *builder.Lease, results []*image.Result, auth image.Auth,
) (_ v1.ImageIndex, digest v1.Hash, err error) {
	if len(results) == 1 {
		return nil, results[0].Digest, nil
	}
	index, err := image.JoinPlatforms(results, spec.IndexAnnotations())
	if err == nil {
		digest, err = index.Digest()
	}
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("create the index of %s: %w", strings.Join(spec.Platforms, " and "), err)
	}
	var pushes errgroup.Group
	for _, reference := range pushReferences(spec, lease) {
		pushes.Go(func() (err error) {
			defer startActivity(ctx, "the push of %s", reference)()
			defer startPhase(ctx, "Push %s", reference).end(&err)
			return image.PushIndex(ctx, reference, index, auth)
		})
	}
	return index, digest, pushes.Wait()
}

// loadImage loads an image into the engine and tags it with the names.
func loadImage(ctx context.Context, job job, engine *dockerengine.Engine, names []string, img v1.Image) (err error) {
	defer startActivity(ctx, "the Docker Engine to load %s", names[0])()
	var sent int64
	phase := startPhase(ctx, "Load %s", strings.Join(names, ", "))
	defer func() { phase.endAfter(sent, &err) }()
	job.Runner.Group("Load " + strings.Join(names, ", "))
	defer job.Runner.EndGroup()
	task := job.Screen.Start("Loading", "load "+strings.Join(names, ", "), "unpack")
	defer func() { task.End(err) }()
	started := time.Now()
	engine.TempDir, engine.Progress = job.Scratch, logTransfer(job, "Loading", task)
	for _, name := range names { // the first load sends the layers, the others add a tag
		loaded, err := engine.Load(ctx, name, img)
		if err != nil {
			return err
		}
		sent += loaded.Sent
		job.Runner.Infof("Loaded %s in %s: %s", name, humanize.Duration(time.Since(started)), loaded)
	}
	return nil
}
