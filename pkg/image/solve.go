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
}

// Solve builds r on c. It sends the progress to status and closes it; the caller must receive from status until then.
//
// The error is a [*BuildError] for a failed step or an invalid Dockerfile, an [*httpclient.APIError] for a failed push,
// a [*BuilderError] for other failed builds, or the cause of ctx if that has ended.
func Solve(ctx context.Context, c *client.Client, r Request, status chan *client.SolveStatus) (*Result, error) {
	var err error
	if r.AddHosts, err = resolveHostGateway(ctx, c, r.AddHosts); err != nil {
		close(status)
		return nil, err
	}
	opt, err := r.solveOpt()
	if err != nil {
		close(status)
		return nil, err
	}
	outputs, layouts := r.splitOutputs()
	opt.Exports = append(opt.Exports, outputs...)
	store := &contentStore{ctx: ctx, client: c.ContentClient()}
	if r.LayerDir != "" && r.hasFixedTime() {
		// The builder's next garbage collection, seconds later, removes layers with rewritten timestamps. Copy them now.
		copied, err := r.copyLayersTo(store)
		if err != nil {
			close(status)
			return nil, err
		}
		opt.Exports = append(opt.Exports, copied)
	}
	// BuildKit returns only the response of the last exporter. The others may use another compression and digest.
	opt.Exports = append(opt.Exports, client.ExportEntry{Type: client.ExporterImage, Attrs: r.exporterAttrs()})
	response, err := c.Solve(ctx, nil, opt, status)
	if err != nil {
		return nil, classifyError(ctx, r, err)
	}
	result, err := store.result(r.Platform, response.ExporterResponse)
	if err != nil {
		return nil, fmt.Errorf("read the image from the builder: %w", err)
	}
	// BuildKit's client writes the index of an OCI layout from that response, so each layout needs a separate solve.
	for _, layout := range layouts {
		again := r.fromCache()
		again.Attestations = r.Attestations
		if err := again.export(ctx, c, layout); err != nil {
			return nil, classifyError(ctx, r, err)
		}
	}
	if r.LayerDir != "" && store.local == nil {
		if err := r.copyMissingLayers(ctx, c, store, result.Image); err != nil {
			return nil, fmt.Errorf("copy the layers that the builder has not pulled: %w", err)
		}
	}
	return result, nil
}

// splitOutputs separates the outputs that write an OCI layout directory from the others. Outputs without a compression
// get that of the image.
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

// copyMissingLayers copies the layers that the builder has not pulled because no step has read them. A second solve,
// from the cache, makes the builder pull and send them.
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

// export runs the build again with one exporter.
func (r Request) export(ctx context.Context, c *client.Client, entry client.ExportEntry) error {
	opt, err := r.solveOpt()
	if err != nil {
		return err
	}
	opt.Exports = []client.ExportEntry{entry}
	_, err = c.Solve(ctx, nil, opt, nil)
	return err
}

// copyLayersTo returns an export that writes the image's layers to LayerDir, and makes store read from there first.
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
