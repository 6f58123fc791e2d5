package actions

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// buildRequests returns one solve request per platform.
func buildRequests(
	job job, spec inputs.BuildSpec, session session, source buildSource, lease *builder.Lease,
) ([]image.Request, error) {
	secrets, err := buildSecrets(job, spec, session, source)
	if err != nil {
		return nil, err
	}
	buildArgs, err := addProxies(job, spec)
	if err != nil {
		return nil, err
	}
	layers, err := layerDirectory(job)
	if err != nil {
		return nil, err
	}
	common := spec.Request
	paths := source.Paths
	common.Context, common.Contexts = paths.Context, paths.Contexts
	common.Dockerfile, common.Definition = paths.Dockerfile, paths.Definition
	common.Secrets, common.BuildArgs, common.Labels = secrets, buildArgs, imageLabels(job, spec, source)
	common.VCS, common.Auth, common.Logf = vcsAttributes(job, source), registryAuth(job, lease), job.Runner.Infof
	var reason string
	common.Compression, reason = compression(spec)
	job.Runner.Infof("Compression of layers: %s", reason)
	common.CommitFiles = job.Scratch
	common.Clean, common.DockerfileName = job.Runner.Clean, relativeTo(paths.Dockerfile, source.Tree.Dir, job.Dir)
	common.Push = pushReferences(spec, lease)
	var requests []image.Request
	for _, platform := range spec.Platforms {
		r := common
		r.Platform, r.Annotations = platform, spec.Annotations(platform)
		r.SharedKey = sharedKey(job, spec, session, source, platform)
		if r.Outputs, err = parseOutputs(job, spec); err != nil {
			return nil, err
		}
		if len(spec.Platforms) > 1 { // the index gets the tags
			r.PushByDigest = true
		}
		switch {
		case !spec.Load:
			r.UnpulledDir = layers // for the check of a snapshot's entry point
		case platform == session.LoadPlatform:
			r.LayerDir = layers
		}
		requests = append(requests, r)
	}
	return requests, nil
}

func layerDirectory(job job) (string, error) {
	dir := filepath.Join(job.Scratch, "layers")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create a temporary directory: %w", err)
	}
	return dir, nil
}

// addProxies returns the build arguments of the inputs and the proxies of Docker's configuration. It returns an error
// if a provenance attestation would contain the password of a proxy: modes other than min contain all build arguments.
func addProxies(job job, spec inputs.BuildSpec) (map[string]string, error) {
	hasPassword := false
	args, err := image.AddProxies(spec.Request.BuildArgs, spec.Builder, func(password string) {
		hasPassword = true
		job.Runner.Mask(password)
	})
	provenance, attested := spec.Request.Attestations["provenance"]
	if hasPassword && attested && !strings.Contains(","+provenance+",", ",mode=min,") {
		return nil, inputs.Errorf("provenance", provenance, "would publish the password of a proxy in Docker's "+
			"configuration; write mode=min, or pass a proxy without a password as HTTP_PROXY and HTTPS_PROXY in build_args")
	}
	return args, err
}

// buildSecrets returns the secrets that a step can mount: those of Doppler, unless the code is untrusted, overridden by
// those of the inputs, and the token for git contexts. It masks those of the inputs, because Main cannot mask the
// values behind secret_envs and secret_files.
func buildSecrets(
	job job, spec inputs.BuildSpec, session session, source buildSource,
) (map[string]func() ([]byte, error), error) {
	values := map[string]string{}
	if !session.Untrusted || spec.AllowUntrustedSecrets {
		values = session.Doppler.BuildSecrets()
	}
	own, err := spec.ReadSecrets()
	if err != nil {
		return nil, err
	}
	for id, value := range own {
		job.Runner.MaskAs("the build secret "+id, value)
	}
	maps.Copy(values, own)
	addGitToken(job, spec, session.Doppler, source.Paths, values)
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

// compression selects how new layers are compressed, which accounts for much of the time of a cold build, and returns
// the reason. It does not depend on the engine or the command, so that building, testing and making a snapshot give the
// same digest.
func compression(spec inputs.BuildSpec) (image.Compression, string) {
	published := len(spec.Push) > 0 || spec.Save || len(spec.Outputs) > 0 || len(spec.Platforms) > 1
	switch {
	case published:
		return image.Gzip, "gzip, which every registry and engine can read"
	case !builder.IsLocal(spec.Builder):
		return image.ZstdFast, "zstd for new layers, the fastest for engines and Daytona; existing layers keep theirs"
	case spec.Load:
		return image.Uncompressed, "none for new layers, because the builder runs on this machine"
	}
	return image.Gzip, "gzip, because layers that were built for a local engine are not compressed"
}

// registryAuth returns the credentials of the lease, which take precedence over those in Docker's configuration.
func registryAuth(job job, lease *builder.Lease) image.Auth {
	auth := image.Auth{Mask: job.Runner.Mask}
	for _, c := range lease.Credentials {
		auth.Credentials = append(auth.Credentials, image.Credential(c))
	}
	return auth
}

// pushReferences returns the references to push: those in Depot's registry if the image is saved, and those of the
// input push.
func pushReferences(spec inputs.BuildSpec, lease *builder.Lease) []string {
	return slices.Concat(lease.Tags, spec.Push)
}
