package actions

import (
	"context"
	"path/filepath"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/imagecontent"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// readContents describes the files and packages of images for the report; without a report, it returns nil. It does not
// read layers that the previous run has read. What cannot be read is left out, so that the error is the cause of ctx.
func readContents(
	ctx context.Context, job job, results ...*image.Result,
) (contents []runrecord.PlatformImage, err error) {
	if job.Report.Dir == "" {
		return nil, nil
	}
	defer startActivity(ctx, "the layers of the image for the report")()
	defer startPhase(ctx, "Read the layers for the report").end(&err)
	options := imagecontent.Options{Clean: job.Runner.Redact}
	if previous := job.previous(); previous != nil && previous.Image != nil {
		options.Known = previous.Image.Platforms
	}
	for _, result := range results {
		if stored, ok := result.Image.(*dockerengine.Image); ok {
			options.Order = stored.ReadOrder
		}
		content, err := imagecontent.Describe(result.Image, result.Platform, options.Clean)
		if err == nil {
			err = imagecontent.Read(ctx, result.Image, &content, options)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			job.Runner.Infof("Reading the image for the report failed: %v", err)
		}
		contents = append(contents, content)
	}
	return contents, nil
}

// startSourceHashes starts to hash the files of the build context for the report. The returned function waits for them,
// and returns nil without a report.
func startSourceHashes(ctx context.Context, job job, source buildSource) (wait func() map[string]string) {
	directory := source.Paths.Context
	if job.Report.Dir == "" || inputs.IsRemote(directory) || !filepath.IsAbs(directory) {
		return func() map[string]string { return nil }
	}
	hashed := make(chan map[string]string, 1)
	go func() {
		files, err := hashSource(ctx, source)
		if err != nil && ctx.Err() == nil {
			job.Runner.Infof("The report cannot show which files changed: %v", err)
		}
		hashed <- files
	}()
	return func() map[string]string { return <-hashed }
}

func hashSource(ctx context.Context, source buildSource) (map[string]string, error) {
	knownID, err := source.Tree.FileIDs(ctx, source.Paths.Context)
	if err != nil {
		return nil, err
	}
	var ignore []byte
	if source.Paths.Definition != nil {
		ignore = source.Paths.Definition.Ignore()
	}
	return imagecontent.HashContext(ctx, source.Paths.Context, ignore, knownID, imagecontent.ContextLimits{})
}

// addSourceHashes adds what a later run needs to find the input that broke the cache.
func addSourceHashes(record *runrecord.Source, job job, built builtImage) {
	if record == nil || job.Report.Dir == "" || len(built.Requests) == 0 {
		return
	}
	record.Files = built.Files
	record.BuildArgs = runrecord.HashBuildArgs(built.Requests[0].BuildArgs, job.Runner.Redact)
}
