package actions

import (
	"context"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// localImage returns the image of a run at a prompt whose input image is not set: name, or "" to build one if the
// Docker Engine does not have that image. It logs which, with doing as the first word.
func localImage(ctx context.Context, job job, name, doing string) (string, error) {
	defer startActivity(ctx, "the Docker Engine")()
	engine, err := dockerengine.Open(ctx, job.Getenv)
	if err != nil {
		return "", err
	}
	defer engine.Close()
	info, err := engine.ImageInfo(ctx, name)
	switch {
	case err != nil:
		return "", err
	case info.ID == "":
		job.Runner.Infof("The Docker Engine has no image %s: building it", name)
		return "", nil
	}
	job.Runner.Infof("%s %s%s; --image= builds again", doing, name, origin(info))
	return name, nil
}

// firstYear is the first year in which an image can have been created. Reproducible images name an earlier one.
const firstYear = 2013

// origin describes when and from which commit an image was built, as far as it is known.
func origin(info dockerengine.ImageInfo) string {
	words := ""
	if info.Created.Year() >= firstYear {
		words = " " + ago(info.Created)
	}
	if sha := info.Labels[specs.AnnotationRevision]; commitSHA.MatchString(sha) {
		words += " from " + shortCommit(sha)
	}
	if words == "" {
		return ""
	}
	return ", built" + words
}

// chooseImage replaces the default of the input image in a spec if that image does not exist. Unlike a test, a snapshot
// does not need an engine.
func chooseImage(ctx context.Context, job job, spec inputs.SnapshotSpec) inputs.SnapshotSpec {
	name, err := localImage(ctx, job, spec.Image, "Using")
	if err != nil {
		job.Runner.Infof("Looking for %s failed, building an image: %s", spec.Image, err)
	}
	spec.Image = name
	for i := range spec.Variants {
		spec.Variants[i].Image = name
	}
	return spec
}
