package actions

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
)

// reportFile is the name of the JUnit XML report in the directory report_dir.
const reportFile = "junit.xml"

// publishReport writes the report, the outputs and the summary, and returns an error if tests failed.
func publishReport(job job, spec inputs.TestSpec, subject testSubject, report *suite.Report, exitCode int) error {
	report.Duration = time.Since(report.Started)
	if err := writeJUnit(job, spec, report); err != nil {
		return err
	}
	if err := showReport(job, report); err != nil {
		return err
	}
	file := filepath.Join(spec.ReportDir, reportFile)
	var err error
	if spec.JSON {
		err = report.WriteJSON(job.Stdout)
	} else {
		err = publishTestOutputs(job, subject, report, file)
	}
	if err != nil {
		return err
	}
	return testFailure(spec, report, file, exitCode)
}

func writeJUnit(job job, spec inputs.TestSpec, report *suite.Report) error {
	var xml bytes.Buffer
	err := report.WriteJUnit(&xml)
	if err == nil {
		err = suite.WriteBelow(job.absolute(spec.ReportDir), reportFile, xml.Bytes())
	}
	if err != nil {
		return fmt.Errorf("write the report: %w (free disk space, or set report_dir)", err)
	}
	return nil
}

// showReport adds an annotation for each failed or flaky test and prints the report to the log.
func showReport(job job, report *suite.Report) error {
	for _, a := range report.Annotations() {
		annotation := runner.Annotation{Title: a.Title, File: a.File, Line: a.Line, Message: job.Runner.Clean(a.Message)}
		if a.Warning {
			job.Runner.Warning(annotation)
		} else {
			job.Runner.Error(annotation)
		}
	}
	untrusted := job.Runner.Untrusted()
	err := report.WriteText(job.Runner.Log(), untrusted)
	return errors.Join(err, untrusted.Close())
}

func publishTestOutputs(job job, subject testSubject, report *suite.Report, file string) error {
	var summary strings.Builder
	if err := report.WriteMarkdown(&summary); err != nil {
		return err
	}
	if subject.Summary != "" {
		summary.WriteString("\n" + subject.Summary)
	}
	return publish(job.Env, TestOutputs{
		BuildOutputs: subject.Build, TestsTotal: report.Total, TestsPassed: report.Passed, TestsFailed: report.Failed,
		TestsSkipped: report.Skipped, Report: file,
	}, summary.String())
}

// testFailure returns an error if a test or the command failed, or if no test matched.
func testFailure(spec inputs.TestSpec, report *suite.Report, file string, exitCode int) error {
	switch {
	case report.Failed > 0:
		err := fmt.Errorf("%d of %d tests failed; see the log above and %s", report.Failed, report.Total, file)
		return &ExitError{max(1, exitCode), err}
	case exitCode > 0:
		err := fmt.Errorf("the command %q failed with exit code %d; see its output in the log above", spec.Command, exitCode)
		return &ExitError{exitCode, err}
	case report.Total == 0 && spec.Command == "":
		return errors.New("no tests matched --run or --tags")
	}
	return nil
}
