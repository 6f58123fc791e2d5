package actions

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// buildRequests returns the solve of each platform.
func buildRequests(
	job job, spec inputs.BuildSpec, session session, source buildSource, lease *builder.Lease,
) ([]image.Request, error) {
	secrets, err := buildSecrets(spec, session)
	if err != nil {
		return nil, err
	}
	layers := filepath.Join(job.Scratch, "layers")
	if err := os.MkdirAll(layers, 0o700); err != nil {
		return nil, fmt.Errorf("create a temporary directory: %w (free disk space, or set RUNNER_TEMP)", err)
	}
	var requests []image.Request
	for _, platform := range spec.Platforms {
		r := spec.Request
		r.Platform = platform
		r.Context, r.Dockerfile, r.Contexts = source.Paths.Context, source.Paths.Dockerfile, source.Paths.Contexts
		r.SharedKey = sharedKey(spec, source, platform)
		r.Secrets = secrets
		r.Auth = registryAuth(job, lease)
		r.Annotations = spec.Annotations(platform)
		r.Compression = compression(spec, session.Engine)
		r.Push = pushReferences(spec, lease)
		if r.Outputs, err = parseOutputs(job, spec); err != nil {
			return nil, err
		}
		if len(spec.Platforms) > 1 { // the index gets the tags
			r.PushByDigest = true
			r.Push = repositories(r.Push)
		}
		if spec.Load && platform == session.LoadPlatform {
			r.LayerDir = layers
		}
		requests = append(requests, r)
	}
	return requests, nil
}

// buildSecrets returns what a step may mount: the secrets of the inputs, and those of Doppler that the inputs do not
// name.
func buildSecrets(spec inputs.BuildSpec, session session) (map[string]func() ([]byte, error), error) {
	values := session.Doppler.BuildSecrets()
	own, err := spec.ReadSecrets()
	if err != nil {
		return nil, err
	}
	maps.Copy(values, own)
	secrets := map[string]func() ([]byte, error){}
	for id, value := range values {
		secrets[id] = func() ([]byte, error) { return []byte(value), nil }
	}
	return secrets, nil
}

func parseOutputs(job job, spec inputs.BuildSpec) ([]client.ExportEntry, error) {
	outputs := []client.ExportEntry{}
	for _, text := range spec.Outputs {
		output, err := image.ParseOutput(text, job.Dir, len(spec.Platforms) > 1)
		if err != nil {
			return nil, err
		}
		outputs = append(outputs, output)
	}
	return outputs, nil
}

// compression decides how layers are compressed, which takes much of the time of a cold build. An image that others
// will name by its digest is compressed as every registry expects, whatever was built before; one that only the engine
// gets, as fast as the engine can read.
func compression(spec inputs.BuildSpec, engine *dockerengine.Engine) image.Compression {
	published := len(spec.Push) > 0 || spec.Save || len(spec.Outputs) > 0 || len(spec.Platforms) > 1
	switch {
	case engine == nil || published:
		return image.Gzip
	case !engine.ReadsZstd():
		return image.GzipFast
	case builder.IsLocal(spec.Builder):
		return image.Uncompressed
	}
	return image.ZstdFast
}

// sharedKey names the copy of the context at the builder, which later builds update. The files of a commit have times
// derived from their content, so every machine can share a copy; a checkout's files are comparable on one machine only.
func sharedKey(spec inputs.BuildSpec, source buildSource, platform string) string {
	origin := source.Repository
	if source.Commit.SHA == "" {
		host, _ := os.Hostname() // without one, the directory alone names it
		origin = host + "\n" + source.Tree.Dir
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(origin+"\n"+spec.Context+"\n"+platform)))
}

// registryAuth returns the credentials of the lease, before those of Docker's configuration.
func registryAuth(job job, lease *builder.Lease) image.Auth {
	auth := image.Auth{Mask: job.Runner.Mask}
	for _, c := range lease.Credentials {
		auth.Credentials = append(auth.Credentials, image.Credential(c))
	}
	return auth
}

// pushReferences returns where the image is pushed: to Depot's registry, to save it, and to the references of the
// inputs.
func pushReferences(spec inputs.BuildSpec, lease *builder.Lease) []string {
	return append(savedReferences(spec, lease), spec.Push...)
}

// savedReferences returns the names of a saved image in Depot's registry: by build ID, and by each of the input
// save_tags.
func savedReferences(spec inputs.BuildSpec, lease *builder.Lease) []string {
	references := slices.Clone(lease.Tags)
	if len(references) > 0 {
		repository := withoutTag(references[0])
		for _, tag := range spec.SaveTags {
			references = append(references, repository+":"+tag)
		}
	}
	return references
}

func repositories(references []string) []string {
	var list []string
	for _, reference := range references {
		list = append(list, withoutTag(reference))
	}
	return list
}

// withoutTag returns the repository of a reference that may have a tag.
func withoutTag(reference string) string {
	if i := strings.LastIndex(reference, ":"); i > strings.LastIndex(reference, "/") {
		return reference[:i]
	}
	return reference
}
