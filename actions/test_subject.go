package actions

import (
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// testSubject is the image under test, in the engine.
type testSubject struct {
	Name    string // in the engine
	Build   BuildOutputs
	Summary string // of the build; empty for an existing image
}

// provideSubject builds the image or opens an existing one, and loads it into the engine.
func provideSubject(ctx context.Context, job job, spec inputs.TestSpec, session session) (testSubject, error) {
	if spec.Image != "" {
		return provideExisting(ctx, job, spec, session)
	}
	built, err := buildAndLoad(ctx, job, spec.BuildSpec, session)
	if err != nil {
		return testSubject{}, err
	}
	outputs, err := buildOutputs(spec.BuildSpec, built)
	return testSubject{spec.ImageName, outputs, buildSummary(job, built, outputs)}, err
}

func provideExisting(ctx context.Context, job job, spec inputs.TestSpec, session session) (testSubject, error) {
	img, err := openImage(ctx, job, spec.BuildSpec, session.Doppler, session.Engine, spec.Image, "")
	if err != nil {
		return testSubject{}, err
	}
	digest, err := img.Digest()
	var id v1.Hash
	if err == nil {
		id, err = img.ConfigName()
	}
	if err != nil {
		return testSubject{}, inputs.Wrap("image", fmt.Errorf("read its manifest and config: %w", err))
	}
	name := spec.Image
	if !img.InEngine {
		name = spec.ImageName
		if err := loadImage(ctx, job, session.Engine, spec.ImageNames, img.Image); err != nil {
			return testSubject{}, err
		}
	}
	return testSubject{Name: name, Build: BuildOutputs{
		Digest: digest.String(), ImageID: id.String(), ImageRef: spec.Image, ImageName: name,
		GitSHA: session.Source.Tree.SHA, GitRef: session.Source.Tree.Ref,
	}}, nil
}
