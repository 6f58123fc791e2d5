package actions

import (
	"context"

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
	outputs, err := outputsOfExisting(img, spec.Image)
	if err != nil {
		return testSubject{}, err
	}
	name := spec.Image
	if !img.InEngine {
		name = spec.ImageName
		if err := loadImage(ctx, job, session.Engine, spec.ImageNames, img.Image); err != nil {
			return testSubject{}, err
		}
	}
	outputs.ImageName = name
	if tree := session.Source.Tree; tree.SHA != "" { // the suite's
		outputs.GitSHA, outputs.GitRef = tree.SHA, tree.Ref
	}
	return testSubject{Name: name, Build: outputs}, nil
}
