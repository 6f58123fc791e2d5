package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/suite"
)

const (
	suiteSandboxes = 4        // sandboxes that run tests at a time, if the organization's quota allows that
	maxSandboxBody = 64 << 20 // size of a response of a sandbox, for long output and the list of its files
)

// checkVerifySuite loads the suite of a verification before anything is built or pushed, if its directory is known
// already.
func checkVerifySuite(job job, spec inputs.SnapshotSpec, source buildSource) error {
	if spec.Verify != inputs.VerifySuite || spec.Image == "" && source.Tree.Dir == "" {
		return nil
	}
	_, err := loadVerifySuite(job, spec, source)
	return err
}

// loadVerifySuite reads the suite from the source of the image or, for an existing image, from the workspace.
func loadVerifySuite(job job, spec inputs.SnapshotSpec, source buildSource) (*suite.Suite, error) {
	root := cmp.Or(source.Tree.Dir, job.Dir)
	path, err := inputs.SecureJoin(root, spec.VerifySuite)
	if err != nil {
		return nil, inputs.Wrap("verify", err)
	}
	file := relativeTo(path, root, job.Dir)
	tests, err := suite.Load(path, file)
	if err != nil {
		annotateProblems(job.Runner, file, err)
		return nil, inputs.Wrap("verify", err)
	}
	return tests, nil
}

// verifySuite runs the suite in sandboxes of a snapshot. It adds annotations, the log, the summary and the JUnit report
// even if the run ends early. If tests failed, the error is a *[brokenError], unless all of them failed because of
// Daytona.
func verifySuite(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, upload imageUpload, s daytona.Snapshot,
) (*suite.Report, error) {
	tests, err := loadVerifySuite(job, spec, upload.Built.Source)
	if err != nil {
		return nil, err
	}
	client, image := target.Client, upload.Wanted.file
	client.HTTP.Policy.MaxBody = maxSandboxBody
	dir := job.absolute(spec.ReportDir)
	job.Runner.Group(fmt.Sprintf("Test snapshot %s with %s", s.Name, tests.File))
	report, err := suite.Run(ctx, tests, suite.Options{
		Config: image, ImageID: upload.Build.ImageID, Parallel: suiteSandboxes, ReportDir: dir,
		Target: suite.InSandboxes(&client, sandboxRequest(job, spec, target, s), image.Config),
		Log:    job.Runner.Log(), Clean: job.Runner.Clean, Progress: testProgress(job).Test,
	})
	job.Runner.EndGroup()
	if report == nil {
		return nil, err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		report.Incomplete = append(report.Incomplete, job.Runner.Clean(err.Error()))
	}
	for _, result := range report.Tests {
		result.Log = relativeTo(result.Log, job.Dir)
	}
	publishVerifyReport(job, dir, report)
	switch {
	case err != nil || report.Failed == 0:
	case report.Failed == report.Outages:
		err = fmt.Errorf("sandboxes failed during %d of %d tests of %s (see the log above and https://status.daytona.io)",
			report.Outages, report.Total, tests.File)
	default:
		err = &brokenError{Snapshot: s.Name, Problem: fmt.Sprintf("%d of %d tests of %s failed in a sandbox; see the log "+
			"above and %s", report.Failed, report.Total, tests.File, relativeTo(filepath.Join(dir, reportFile), job.Dir))}
	}
	return report, err
}

// publishVerifyReport shows a report in the log, and writes the JUnit report. It only logs failures,
// because they say nothing about the snapshot.
func publishVerifyReport(job job, dir string, report *suite.Report) {
	report.Duration = time.Since(report.Started)
	if err := errors.Join(showReport(job, report), writeJUnit(dir, report)); err != nil {
		job.Runner.Infof("Publishing the results of the suite failed: %v", err)
	}
}
