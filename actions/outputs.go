package actions

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// BuildOutputs are the outputs of the build action. The struct tag output holds a field's name in a workflow, and
// outputHelp its description.
type BuildOutputs struct {
	Digest      string `output:"digest"`
	ImageID     string `output:"image_id"`
	ImageRef    string `output:"image_ref"`
	ImageName   string `output:"image_name"`
	Platforms   string `output:"platforms"`
	GitSHA      string `output:"git_sha"`
	GitRef      string `output:"git_ref"`
	BuildID     string `output:"build_id"`
	BuildURL    string `output:"build_url"`
	ProjectID   string `output:"project_id"`
	CachedSteps int    `output:"cached_steps"`
	TotalSteps  int    `output:"total_steps"`
	Metadata    string `output:"metadata"`
	ReportHTML  string `output:"report_html"`
	Record      string `output:"record"`
}

// SnapshotOutputs are the outputs of the snapshot action.
type SnapshotOutputs struct {
	BuildOutputs
	SnapshotName   string  `output:"snapshot_name"`
	SnapshotID     string  `output:"snapshot_id"`
	SnapshotState  string  `output:"snapshot_state"`
	SnapshotSizeGB float64 `output:"snapshot_size_gb"`
	Reused         bool    `output:"reused"`
	Verified       string  `output:"verified"`
	DopplerUpdated bool    `output:"doppler_updated"`

	Snapshots variantList `output:"snapshots"`
}

// PromoteOutputs are the outputs of the promote action.
type PromoteOutputs struct {
	SnapshotName     string `output:"snapshot_name"`
	SnapshotID       string `output:"snapshot_id"`
	Digest           string `output:"digest"`
	GitSHA           string `output:"git_sha"`
	PreviousSnapshot string `output:"previous_snapshot"`
	DopplerUpdated   bool   `output:"doppler_updated"`
}

// TestOutputs are the outputs of the test action. They are also written when tests fail and when the run is canceled.
type TestOutputs struct {
	BuildOutputs
	TestsTotal   int    `output:"tests_total"`
	TestsPassed  int    `output:"tests_passed"`
	TestsFailed  int    `output:"tests_failed"`
	TestsSkipped int    `output:"tests_skipped"`
	Report       string `output:"report"`
}

// outputHelp describes each output, for action.yml, the workflows and docs/reference.md.
var outputHelp = map[string]string{
	"digest": "Digest of the image: of the manifest, or of the index if there are several platforms or attestations. " +
		"An image that is pushed, saved or exported can be compressed differently from one that is not. Its digest then " +
		"differs, but its image_id does not.",
	"image_id": "Digest of the image's config. With several platforms, the config of the loaded platform's image.",
	"image_ref": "Reference for later steps and jobs: the first pushed reference with the digest, otherwise the " +
		"reference in Depot's registry with the digest, otherwise the local name.",
	"image_name":   "Name in the local engine; empty if the image was not loaded.",
	"platforms":    "Platforms that were built, comma-separated.",
	"git_sha":      "Commit that was built.",
	"git_ref":      "Full name of the ref that was built; empty if ref was a SHA.",
	"build_id":     "ID of the build at Depot.",
	"build_url":    "URL of the build at Depot.",
	"project_id":   "ID of the Depot project.",
	"cached_steps": "Number of Dockerfile steps that came from the cache.",
	"total_steps":  "Number of Dockerfile steps on all platforms, without FROM.",
	"metadata":     "Metadata from BuildKit's exporter, as JSON; keyed by platform if there are several.",
	"report_html": "Path of the report, a page for a browser, if report is true. It is also set if the run fails, like " +
		"record.",
	"record": "Path of the record of the run as JSON, if report is true.",

	"snapshot_name":    "Name of the active snapshot. With variants, this and the next five are of the first one.",
	"snapshot_id":      "ID of the snapshot at Daytona.",
	"snapshot_state":   "State of the snapshot, always active.",
	"snapshot_size_gb": "Size of the snapshot in GB, as Daytona reports it.",
	"reused":           "Whether an existing snapshot of the same image was reused. If true, nothing was pushed.",
	"verified": "How the snapshot was verified in a sandbox: boot or suite. none if it was not verified: verify is off, " +
		"the key lacks the permissions, or it is a reused snapshot that Doppler names already.",
	"previous_snapshot": "Name of the snapshot that the first config of to named before.",
	"doppler_updated":   "Whether a name in Doppler changed.",
	"snapshots": "All snapshots as a JSON list, in the order of variants. Each has variant, name, id, state, size_gb, " +
		"reused, verified, cpu, memory, disk, gpu, sandbox_class, region (ID) and doppler_secret.",

	"tests_total":  "Number of tests in the suite and in the command's JUnit reports.",
	"tests_passed": "Number of tests that passed on the first attempt.",
	"tests_failed": "Number of tests that failed.",
	"tests_skipped": "Number of tests that were skipped, including those that did not end before the run was canceled" +
		" or timed out.",
	"report": "Path of the JUnit XML report of all tests.",
}

// OutputField describes one output to the generators of documents and workflows.
type OutputField struct{ Name, Help string }

// OutputFields returns the outputs that a struct such as [BuildOutputs] declares, in order.
func OutputFields(outputs any) []OutputField {
	var fields []OutputField
	for _, field := range reflect.VisibleFields(reflect.TypeOf(outputs)) {
		if !field.Anonymous {
			name := field.Tag.Get("output")
			fields = append(fields, OutputField{name, outputHelp[name]})
		}
	}
	return fields
}

// buildOutputs returns the outputs of a build.
func buildOutputs(spec inputs.BuildSpec, built builtImage) (BuildOutputs, error) {
	config, err := built.Loaded.Image.ConfigName()
	if err != nil {
		return BuildOutputs{}, fmt.Errorf("read the image's config: %w", err)
	}
	metadata, err := metadataJSON(spec, built)
	if err != nil {
		return BuildOutputs{}, err
	}
	outputs := BuildOutputs{
		Digest: built.Digest, ImageID: config.String(), ImageRef: imageRef(spec, built.Lease, built.Digest),
		Platforms: strings.Join(spec.Platforms, ","), GitSHA: built.Source.Tree.SHA, GitRef: built.Source.Tree.Ref,
		BuildID: built.Lease.ID, BuildURL: built.Lease.URL, ProjectID: built.Lease.ProjectID,
		CachedSteps: built.Stats.Cached, TotalSteps: built.Stats.Total, Metadata: metadata,
	}
	if spec.Load {
		outputs.ImageName = spec.ImageName
	}
	return outputs, nil
}

// snapshotOutputs returns the outputs of a run. Those about one snapshot are about the first variant.
func snapshotOutputs(created []createdSnapshot, update dopplerUpdate) SnapshotOutputs {
	upload, snapshot, verified := created[0].Upload, created[0].Snapshot, created[0].Verified
	return SnapshotOutputs{
		Snapshots: variantOutputs(created), BuildOutputs: upload.Build, SnapshotName: snapshot.Name, SnapshotID: snapshot.ID,
		SnapshotState: string(snapshot.State), SnapshotSizeGB: snapshot.SizeGB, Reused: upload.isReused(),
		DopplerUpdated: len(update.Written) > 0, Verified: verified.output(),
	}
}

// imageRef returns the reference for later steps and jobs: the first pushed one, the one in Depot's registry, or the
// local name. It is empty if the image is only in the builder.
func imageRef(spec inputs.BuildSpec, lease *builder.Lease, digest string) string {
	for _, references := range [][]string{spec.Push, lease.Tags} {
		if len(references) > 0 {
			return references[0] + "@" + digest
		}
	}
	if spec.Load {
		return spec.ImageName
	}
	return ""
}

// metadataJSON returns the metadata of BuildKit's exporters in the format of docker buildx's metadata file, in which
// the image descriptor is decoded. With several platforms it describes the index, and each platform's metadata is under
// its name.
func metadataJSON(spec inputs.BuildSpec, built builtImage) (string, error) {
	if built.Index == nil {
		data, err := json.Marshal(exporterMetadata(built.Results[0]))
		return string(data), err
	}
	descriptor, err := partial.Descriptor(built.Index)
	if err != nil {
		return "", fmt.Errorf("describe the index: %w", err)
	}
	metadata := map[string]any{
		exptypes.ExporterImageDescriptorKey: descriptor,
		exptypes.ExporterImageDigestKey:     built.Digest,
	}
	if references := pushReferences(spec, built.Lease); len(references) > 0 {
		metadata[exptypes.ExporterImageNameKey] = strings.Join(references, ",")
	}
	for _, result := range built.Results {
		metadata[result.Platform] = exporterMetadata(result)
	}
	data, err := json.Marshal(metadata)
	return string(data), err
}

func exporterMetadata(result *image.Result) map[string]any {
	fields := map[string]any{}
	for name, value := range result.Metadata {
		fields[name] = value
		descriptor, err := base64.StdEncoding.DecodeString(value)
		if name == exptypes.ExporterImageDescriptorKey && err == nil && json.Valid(descriptor) {
			fields[name] = json.RawMessage(descriptor)
		}
	}
	return fields
}

// outputList returns the outputs in a struct such as [BuildOutputs].
func outputList(outputs any) (list []runrecord.Output) {
	value := reflect.ValueOf(outputs)
	for _, field := range reflect.VisibleFields(value.Type()) {
		if !field.Anonymous {
			text := fmt.Sprint(value.FieldByIndex(field.Index).Interface())
			list = append(list, runrecord.Output{Name: field.Tag.Get("output"), Value: text})
		}
	}
	return list
}
