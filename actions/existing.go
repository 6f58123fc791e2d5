package actions

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// existingImage is an image from an earlier build.
type existingImage struct {
	v1.Image
	InEngine bool // it is in the Docker Engine already
}

// openImage opens the image that the input image names: in the engine, in the directory of an OCI layout, or in a
// registry. An empty platform accepts any. If engine is nil, openImage opens it when needed. The image can be read
// until ctx ends.
func openImage(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, engine *dockerengine.Engine,
	name, platform string,
) (_ existingImage, err error) {
	defer startActivity(ctx, "the image %s", name)()
	defer startPhase(ctx, "Open %s", name).end(&err)
	if directory, ok := layoutDirectory(name); ok {
		if err := checkLayout(ctx, job, spec, directory); err != nil {
			return existingImage{}, err
		}
		img, err := image.Open(ctx, "oci-layout://"+job.absolute(directory), platform, image.Auth{Mask: job.Runner.Mask})
		return existingImage{Image: img}, inputs.Wrap("image", err)
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return existingImage{}, inputs.Errorf("image", name, "is not an image name (%v); write a name in the engine, "+
			"a registry reference, or ./DIRECTORY of an OCI layout", err)
	}
	img, missing, err := openInEngine(ctx, job, engine, name, platform)
	if err != nil {
		return existingImage{}, inputs.Wrap("image", err)
	}
	if missing == nil {
		return existingImage{img, true}, nil
	}
	// A name without a registry means a local image here, although Docker would look for it on Docker Hub.
	if reference.Domain(named) == "docker.io" && !strings.HasPrefix(name, "docker.io/") {
		return existingImage{}, missing
	}
	img, err = openInRegistry(ctx, job, spec, doppler, named, name, platform)
	return existingImage{Image: img}, inputs.Wrap("image", err)
}

// openInRegistry opens the image that name refers to. named is the parsed name.
func openInRegistry(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, named reference.Named,
	name, platform string,
) (v1.Image, error) {
	img, err := image.Open(ctx, name, platform, image.Auth{Mask: job.Runner.Mask})
	if isDenied(err) && !strings.Contains(reference.Path(named), "/") {
		return openAtDepot(ctx, job, spec, doppler, name, platform, err)
	}
	return img, err
}

// outputsOfExisting returns the outputs of an existing image. Its commit is that of its label, see commitLabels.
func outputsOfExisting(img v1.Image, name string) (BuildOutputs, error) {
	digest, digestErr := img.Digest()
	id, idErr := img.ConfigName()
	config, configErr := img.ConfigFile()
	if err := errors.Join(digestErr, idErr, configErr); err != nil {
		return BuildOutputs{}, inputs.Wrap("image", fmt.Errorf("read its manifest and config: %w", err))
	}
	outputs := BuildOutputs{Digest: digest.String(), ImageID: id.String(), ImageRef: name}
	if sha := config.Config.Labels[specs.AnnotationRevision]; commitSHA.MatchString(sha) {
		outputs.GitSHA = sha
	}
	return outputs, nil
}

var commitSHA = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// openInEngine opens an image in the engine. If the engine or the image is missing, it returns the reason in missing.
func openInEngine(
	ctx context.Context, job job, engine *dockerengine.Engine, name, platform string,
) (img v1.Image, missing, err error) {
	if engine == nil {
		if engine, missing = dockerengine.Open(ctx, job.Getenv); missing != nil {
			return nil, missing, nil
		}
	}
	id, err := engine.ImageID(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if id == "" {
		return nil, notInEngine(name), nil
	}
	img, err = engine.Image(ctx, name, platform)
	return img, nil, err
}

// openAtDepot opens an image that another job may have saved in Depot's registry. denied is the registry's error
// without Depot's credentials.
func openAtDepot(
	ctx context.Context, job job, spec inputs.BuildSpec, doppler credentials.Doppler, name, platform string, denied error,
) (v1.Image, error) {
	credential, err := depot(job, spec, doppler, "").PullCredential(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("%w; authenticating to Depot's registry also failed: %w", denied, err)
	}
	auth := image.Auth{Mask: job.Runner.Mask, Credentials: []image.Credential{image.Credential(credential)}}
	return image.Open(ctx, name, platform, auth)
}

// layoutDirectory returns the directory of the OCI layout that name refers to, with its tag or digest if it has one.
func layoutDirectory(name string) (string, bool) {
	if directory, ok := strings.CutPrefix(name, "oci-layout://"); ok {
		return directory, true
	}
	isPath := strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../")
	return name, isPath
}

func notInEngine(name string) error {
	return inputs.Errorf("image", name,
		"not found in the Docker Engine; build it (action-build), or write a reference with a registry")
}
