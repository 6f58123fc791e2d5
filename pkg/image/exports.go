package image

import (
	"maps"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// exportPlan distributes the exporters of a build over solves. The first solve builds. Each of the later ones runs one
// exporter from the builder's cache.
type exportPlan struct {
	first []client.ExportEntry // the last is the image's, because BuildKit returns the response of the last only
	later []client.ExportEntry
}

// planExports decides how many solves a build needs. A builder that runs several exporters in a solve needs one, and
// another one for each OCI layout directory, because BuildKit's client writes the index of a layout from the response
// of the solve. Other builders need one for each exporter.
func (r Request) planExports(features capabilities) exportPlan {
	image := client.ExportEntry{Type: client.ExporterImage, Attrs: r.exporterAttrs()}
	maps.Copy(image.Attrs, exportLeaseAttrs)
	outputs, layouts := r.splitOutputs()
	if features.severalExporters {
		return exportPlan{first: append(outputs, image), later: layouts}
	}
	for i := range outputs {
		outputs[i] = splitByPlatform(outputs[i], r.Platform)
	}
	return exportPlan{first: []client.ExportEntry{image}, later: append(outputs, layouts...)}
}

// splitOutputs separates the outputs that write an OCI layout directory from the others. Outputs without a compression
// get that of the image.
func (r Request) splitOutputs() (outputs, layouts []client.ExportEntry) {
	for _, output := range r.Outputs {
		if output.Type != client.ExporterLocal && output.Type != client.ExporterTar {
			attrs := maps.Clone(imageVersionAttrs)
			if output.Attrs["compression"] == "" {
				maps.Copy(attrs, r.Compression.exporterAttrs())
			}
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

// splitByPlatform replaces the attribute platform-split, which BuildKit before v0.13 ignores, by a subdirectory with
// the name that the attribute gives it.
func splitByPlatform(output client.ExportEntry, platform string) client.ExportEntry {
	const attribute = "platform-split"
	if output.Attrs[attribute] == "true" {
		output.Attrs = maps.Clone(output.Attrs)
		delete(output.Attrs, attribute)
		output.OutputDir = filepath.Join(output.OutputDir, strings.ReplaceAll(platform, "/", "_"))
	}
	return output
}

// layerExport returns an export that writes the image's layers to LayerDir, and the store that reads them from there.
func (r Request) layerExport() (client.ExportEntry, content.Store, error) {
	directory, err := local.NewStore(r.LayerDir)
	if err != nil {
		return client.ExportEntry{}, nil, err
	}
	attrs := r.exporterAttrs()
	delete(attrs, string(exptypes.OptKeyPush))
	delete(attrs, string(exptypes.OptKeyName))
	attrs["tar"] = "false"
	return client.ExportEntry{Type: client.ExporterOCI, Attrs: attrs, OutputStore: directory}, directory, nil
}
