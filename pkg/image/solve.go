package image

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // accepts file names that are not UTF-8, as buildctl does
	"golang.org/x/sync/errgroup"
)

// Result is an image in the builder. It can be read while the connection to the builder is open.
//
// Two digests identify it. Digest depends on the compression of the layers. The digest of the config
// (Image.ConfigName, Docker's image ID) does not: it identifies the files and the configuration.
type Result struct {
	Platform string
	Digest   v1.Hash           // of the manifest, or of the index if there are attestations
	Image    v1.Image          // read on demand and verified
	Index    v1.ImageIndex     // nil without attestations
	Metadata map[string]string // from BuildKit's exporters

	// ExportLease is the ID of the lease that protects the image in Depot's builders from garbage collection. "" for other
	// builders.
	ExportLease string
	Unsupported []string // what the builder does not support of the request, as sentences without a full stop
}

// Solve builds r on c. It sends the progress to status and closes it; the caller must receive from status until then.
//
// The error has the type of its cause: a [*BuildError] for a failed step or an invalid Dockerfile, another type of this
// package with a [Position] if an input, a registry or the context is the cause, an [*httpclient.APIError] for a failed
// push, a [*BuilderError] for other failed builds, or the cause of ctx if that has ended.
func Solve(ctx context.Context, c *client.Client, r Request, status chan *client.SolveStatus) (*Result, error) {
	defer close(status)
	var err error
	if r.AddHosts, err = resolveHostGateway(ctx, c, r.AddHosts); err != nil {
		return nil, err
	}
	push := &pushMonitor{steps: stepRecorder{clean: r.Clean}}
	result, err := r.build(ctx, c, push, status)
	if err != nil && push.begun.Load() {
		return nil, &PushedError{err}
	}
	return result, err
}

// build runs the solves of the build and reads the image.
func (r Request) build(
	ctx context.Context, c *client.Client, push *pushMonitor, status chan<- *client.SolveStatus,
) (*Result, error) {
	var features capabilities
	if len(r.Outputs) > 0 || r.hasFixedTime() { // otherwise they make no difference
		var err error
		if features, err = readCapabilities(ctx, c); err != nil {
			return nil, classifyError(ctx, r, &push.steps, err)
		}
	}
	plan := r.extractOutputs().planExports(features)
	var layers content.Store
	if r.LayerDir != "" && r.hasFixedTime() && features.rewritesTimestamps {
		// The builder's next garbage collection, seconds later, removes layers with rewritten timestamps. Copy them now.
		var copied client.ExportEntry
		var err error
		if copied, layers, err = r.layerExport(); err != nil {
			return nil, err
		}
		plan.first = slices.Insert(plan.first, 0, copied)
	}
	response, err := r.solve(ctx, c, push, status, plan.first...)
	if err != nil {
		return nil, err
	}
	store := &contentStore{ctx: ctx, client: c.ContentClient(), local: layers}
	result, err := store.result(r.Platform, response)
	if err != nil {
		return nil, fmt.Errorf("read the image from the builder: %w", err)
	}
	if r.hasFixedTime() && !features.rewritesTimestamps {
		result.Unsupported = append(result.Unsupported, fileTimes)
	}
	again := r.fromCache()
	again.Attestations = r.Attestations
	for _, output := range plan.later {
		if _, err := again.solve(ctx, c, push, nil, output); err != nil {
			return nil, err
		}
	}
	if r.LayerDir != "" && store.local == nil {
		if err := r.copyMissingLayers(ctx, c, store, result.Image); err != nil {
			return nil, err
		}
	}
	if r.UnpulledDir != "" {
		store.copyUnpulled = sync.OnceValues(func() (content.Store, error) { return r.copyLayers(ctx, c, r.UnpulledDir) })
	}
	return result, nil
}

// fileTimes explains what SOURCE_DATE_EPOCH does on builders without rewrite-timestamp.
const fileTimes = "SOURCE_DATE_EPOCH does not set the modification times of files in the layers, because the " +
	"builder's BuildKit is older than v0.13; it sets those in the image's config only"

// unavailableRegistry matches BuildKit's message about an image whose registry may answer later. It has no code:
// moby/buildkit v0.34.2, client/llb/sourceresolver/imageresolver.go; containerd v2.1, core/remotes/docker, and v1.6.20,
// remotes/docker/resolver.go, in BuildKit v0.11.
var unavailableRegistry = regexp.MustCompile(
	`(failed to resolve source metadata for|pulling from host|httpReadSeeker: failed open|failed to do request)` +
		`.*(: (429|50[0234]) [A-Z]|EOF|connection (reset by peer|refused)|i/o timeout)`)

// solve runs one solve and returns the response of the last export. It retries errors of the builder's scheduler and of
// the registries of base images.
func (r Request) solve(
	ctx context.Context, c *client.Client, push *pushMonitor, status chan<- *client.SolveStatus,
	exports ...client.ExportEntry,
) (map[string]string, error) {
	opt, files, err := r.solveOpt()
	if err != nil {
		return nil, err
	}
	opt.Exports = exports
	retries, wait := 0, retryWait(schedulerRetryWait)
	response, err := backoff.Retry(ctx, func() (*client.SolveResponse, error) {
		solveStatus, waitForStatus := push.forward(status)
		response, err := c.Solve(ctx, nil, opt, solveStatus)
		waitForStatus()
		switch {
		case err == nil || isSchedulerError(err):
		case unavailableRegistry.MatchString(err.Error()) && !push.begun.Load():
			wait = retryWait(time.Duration(retries+1) * registryRetryWait)
		default:
			err = backoff.Permanent(err)
		}
		return response, err
	}, backoff.WithBackOff(&wait), backoff.WithMaxTries(1+maxSchedulerRetries),
		backoff.WithMaxElapsedTime(0), // the default would not retry a build that took 15 min
		backoff.WithNotify(func(err error, _ time.Duration) {
			retries++
			r.logf("Building for %s again (retry %d of %d): %s", r.Platform, retries, maxSchedulerRetries,
				buildkitMessage(r, err))
		}))
	if failed := files.failure(); err != nil && failed != nil && ctx.Err() == nil {
		return nil, failed
	}
	if err != nil {
		return nil, classifyError(ctx, r, &push.steps, err)
	}
	if err := checkConfirmed(exports[len(exports)-1], response.ExporterResponse); err != nil {
		return nil, err
	}
	return response.ExporterResponse, nil
}

// registryRetryWait is the wait before the first retry after a registry was unavailable. It grows linearly.
const registryRetryWait = time.Second

// retryWait implements [backoff.BackOff]. The failed attempt sets it.
type retryWait time.Duration

// NextBackOff implements [backoff.BackOff].
func (w *retryWait) NextBackOff() time.Duration { return time.Duration(*w) }

// Reset implements [backoff.BackOff].
func (w *retryWait) Reset() {}

// copyMissingLayers copies the layers to LayerDir if the builder has not pulled some of them.
func (r Request) copyMissingLayers(ctx context.Context, c *client.Client, store *contentStore, image v1.Image) error {
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, layer := range manifest.Layers {
		group.Go(func() error { return store.checkHas(layer.Digest) })
	}
	if err := group.Wait(); err == nil || !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		return err
	}
	store.local, err = r.copyLayers(ctx, c, r.LayerDir)
	return err
}

// copyLayers copies the image's layers to a directory. The builder does not pull layers of base images that no step
// reads. A second solve, from the cache, makes it pull and send them.
func (r Request) copyLayers(ctx context.Context, c *client.Client, dir string) (content.Store, error) {
	again := r.fromCache()
	again.LayerDir = dir
	copied, layers, err := again.layerExport()
	if err == nil {
		_, err = again.solve(ctx, c, &pushMonitor{}, nil, copied)
	}
	if err != nil {
		return nil, fmt.Errorf("copy the layers that the builder has not pulled: %w", err)
	}
	return layers, nil
}
