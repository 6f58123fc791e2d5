package image

import (
	"context"
	"fmt"
	"maps"

	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // accepts file names that are not UTF-8, as buildctl does
	"golang.org/x/sync/errgroup"
)

// Result is an image that a builder holds. It can be read while the connection to the builder is open.
//
// Two digests identify it. Digest changes with the compression of the layers. The digest of the config
// (Image.ConfigName, Docker's image ID) does not: it identifies the files and the configuration.
type Result struct {
	Platform string
	Digest   v1.Hash           // of what was built and pushed: the manifest, or the index when there are attestations
	Image    v1.Image          // read on demand, and verified while it is read
	Index    v1.ImageIndex     // nil without attestations
	Metadata map[string]string // from BuildKit's exporters
}

// Solve builds r on c. It sends everything that happens to status and closes it; the caller must receive from status
// until then.
//
// The error is a [*BuildError] for a step that fails or an invalid Dockerfile, an [*httpclient.APIError] for a push,
// and the cause of ctx when that has ended.
func Solve(ctx context.Context, c *client.Client, r Request, status chan *client.SolveStatus) (*Result, error) {
	opt, err := r.solveOpt()
	if err != nil {
		close(status)
		return nil, err
	}
	outputs, layouts := r.splitOutputs()
	opt.Exports = append(opt.Exports, outputs...)
	store := &contentStore{ctx: ctx, client: c.ContentClient()}
	if r.LayerDir != "" && r.hasFixedTime() {
		// The builder's next clean-up, seconds later, removes layers with rewritten times, so they are copied now.
		copied, err := r.copyLayersTo(store)
		if err != nil {
			close(status)
			return nil, err
		}
		opt.Exports = append(opt.Exports, copied)
	}
	// BuildKit keeps only the answer of the last exporter. The others may compress differently, and give another digest.
	opt.Exports = append(opt.Exports, client.ExportEntry{Type: client.ExporterImage, Attrs: r.exporterAttrs()})
	response, err := c.Solve(ctx, nil, opt, status)
	if err != nil {
		return nil, classifyError(ctx, r, err)
	}
	result, err := store.result(r.Platform, response.ExporterResponse)
	if err != nil {
		return nil, fmt.Errorf("read the image from the builder: %w", err)
	}
	// BuildKit's client writes the index of an OCI layout from that one answer, so each layout needs a solve of its own.
	for _, layout := range layouts {
		again := r.fromCache()
		again.Attestations = r.Attestations
		if err := again.export(ctx, c, layout); err != nil {
			return nil, classifyError(ctx, r, err)
		}
	}
	if r.LayerDir != "" && store.local == nil {
		if err := r.copyMissingLayers(ctx, c, store, result.Image); err != nil {
			return nil, fmt.Errorf("copy the layers that the builder does not hold: %w", err)
		}
	}
	return result, nil
}

// splitOutputs separates the outputs that write an OCI layout directory from the others. All get the compression of the
// image, unless they have their own.
func (r Request) splitOutputs() (outputs, layouts []client.ExportEntry) {
	for _, output := range r.Outputs {
		hasLayers := output.Type != client.ExporterLocal && output.Type != client.ExporterTar
		if hasLayers && output.Attrs["compression"] == "" {
			attrs := r.Compression.exporterAttrs()
			maps.Copy(attrs, output.Attrs)
			output.Attrs = attrs
		}
		if output.OutputDir != "" && output.Type != client.ExporterLocal {
			layouts = append(layouts, output)
		} else {
			outputs = append(outputs, output)
		}
	}
	return outputs, layouts
}

// copyMissingLayers gets the layers that the builder knows but has not pulled, because no step read them. A second
// solve, from the cache, makes the builder send them.
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
	again := r.fromCache()
	copied, err := again.copyLayersTo(store)
	if err != nil {
		return err
	}
	return again.export(ctx, c, copied)
}

// export builds once more, for one exporter.
func (r Request) export(ctx context.Context, c *client.Client, entry client.ExportEntry) error {
	opt, err := r.solveOpt()
	if err != nil {
		return err
	}
	opt.Exports = []client.ExportEntry{entry}
	_, err = c.Solve(ctx, nil, opt, nil)
	return err
}

// copyLayersTo returns an export of the same image into LayerDir, from which store then reads first.
func (r Request) copyLayersTo(store *contentStore) (client.ExportEntry, error) {
	directory, err := local.NewStore(r.LayerDir)
	if err != nil {
		return client.ExportEntry{}, err
	}
	attrs := r.exporterAttrs()
	delete(attrs, string(exptypes.OptKeyPush))
	delete(attrs, string(exptypes.OptKeyName))
	attrs["tar"] = "false"
	store.local = directory
	return client.ExportEntry{Type: client.ExporterOCI, Attrs: attrs, OutputStore: directory}, nil
}
