package actions

import (
	"context"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// testSubject is the image under test, in the engine.
type testSubject struct {
	Name     string // in the engine
	Build    BuildOutputs
	Built    builtImage                // zero for an existing image
	Existing existingImage             // zero for one that was built
	Contents []runrecord.PlatformImage // of an existing image; nil without a report
}

// provideSubject builds the image or opens an existing one, and loads it into the engine. With an error, it returns
// what it reached.
func provideSubject(ctx context.Context, job job, spec inputs.TestSpec, session session) (testSubject, error) {
	if spec.Image != "" {
		return provideExisting(ctx, job, spec, session)
	}
	built, err := buildAndLoad(ctx, job, spec.BuildSpec, session)
	subject := testSubject{Name: spec.ImageName, Built: built}
	if err != nil {
		return subject, err
	}
	subject.Build, err = buildOutputs(spec.BuildSpec, built)
	return subject, err
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
	if tree := session.Source.Tree; tree.SHA != "" { // the suite's
		outputs.GitSHA, outputs.GitRef = tree.SHA, tree.Ref
	}
	subject := testSubject{Name: spec.Image, Build: outputs, Existing: img}
	if !img.InEngine {
		subject.Name = spec.ImageName
		err = loadImage(ctx, job, session.Engine, spec.ImageNames, img.Image)
	}
	subject.Build.ImageName = subject.Name
	if err == nil {
		subject.Contents, err = readContents(ctx, job, &image.Result{Platform: outputs.Platforms, Image: img.Image})
	}
	return subject, err
}
