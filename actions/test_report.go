package actions

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
)

// reportFile is the name of the JUnit XML report in the directory report_dir.
const reportFile = "junit.xml"

// finishReport completes the report of a run that ended with runErr, shows it in the log, and writes the JUnit report.
// It returns an error if runErr is one, if tests failed, or if results are missing.
func finishReport(job job, spec inputs.TestSpec, report *suite.Report, command commandResult, runErr error) error {
	file := reportPath(job, spec, reportFile)
	if command.JUnit.Report != nil {
		report.Add(command.JUnit.Report)
	}
	report.Duration = time.Since(report.Started)
	failure := runErr
	if failure == nil {
		failure = testFailure(spec, report, file, command.ExitCode)
	}
	logFiles(job, spec, command.JUnit)
	damaged := damagedFiles(job, spec, command.JUnit)
	for i, err := range damaged {
		report.Incomplete = append(report.Incomplete, job.Runner.Clean(err.Error()))
		if failure == nil && i == 0 {
			failure = &ExitError{1, err} // and no annotation of its own
		} else {
			job.Runner.Warning(runner.Annotation{Message: err.Error()})
		}
	}
	if runErr != nil {
		report.Incomplete = append(report.Incomplete, job.Runner.Clean(runErr.Error()))
	}
	writeErr := writeJUnit(job.absolute(spec.ReportDir), report)
	if runErr != nil {
		note := "the results so far are in " + file
		if writeErr != nil {
			note = fmt.Sprintf("the results so far are in the log (%v)", writeErr)
		}
		failure, writeErr = &partialError{runErr, note}, nil
	}
	return errors.Join(failure, writeErr, showReport(job, report))
}

// maxIgnored is the maximum number of ignored files that the log names.
const maxIgnored = 20

// logFiles names the files in the report directory that were renamed or not counted.
func logFiles(job job, spec inputs.TestSpec, junit suite.JUnitFiles) {
	if junit.Renamed != "" {
		job.Runner.Infof("Renamed the command's %s to %s; the report has its tests, too", reportFile, junit.Renamed)
	}
	var lines []string
	for _, ignored := range junit.Ignored {
		lines = append(lines, fmt.Sprintf("%s: %v", reportPath(job, spec, ignored.File), ignored.Err))
	}
	for _, file := range junit.Old {
		if file != reportFile { // of an earlier run
			lines = append(lines, reportPath(job, spec, file)+": the command did not change it")
		}
	}
	for i, line := range lines {
		if i == maxIgnored {
			job.Runner.Infof("Ignored %d more files", len(lines)-i)
			break
		}
		job.Runner.Infof("Ignored %s", line)
	}
}

// reportPath returns the path of a file in the report directory, for messages.
func reportPath(job job, spec inputs.TestSpec, file string) string {
	return relativeTo(filepath.Join(job.absolute(spec.ReportDir), file), job.Dir)
}

// damagedFiles returns an error for each JUnit file with missing results.
func damagedFiles(job job, spec inputs.TestSpec, junit suite.JUnitFiles) (errs []error) {
	for _, damaged := range junit.Damaged {
		hint := "check that the command finished writing it; write other files to another directory"
		if errors.Is(damaged, fs.ErrPermission) {
			hint = `make it readable at the end of the command: chmod -R a+rX "$TEST_REPORT_DIR"`
		}
		file := reportPath(job, spec, damaged.File)
		errs = append(errs, fmt.Errorf("read the command's JUnit file %s: %w (%s)", file, damaged.Err, hint))
	}
	return errs
}

func writeJUnit(dir string, report *suite.Report) error {
	var xml bytes.Buffer
	err := report.WriteJUnit(&xml)
	if err == nil {
		err = suite.WriteBelow(dir, reportFile, xml.Bytes())
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

// testFailure returns an error if a test or the command failed, or if no test matched.
func testFailure(spec inputs.TestSpec, report *suite.Report, file string, exitCode int) error {
	switch {
	case report.Failed > 0:
		err := fmt.Errorf("%d of %d tests failed; see the log above and %s", report.Failed, report.Total, file)
		return &ExitError{max(1, exitCode), err}
	case exitCode > 0:
		err := fmt.Errorf("the command %q failed with exit code %d; see its output in the log above", commandName(spec),
			exitCode)
		return &ExitError{exitCode, err}
	case report.Total == 0 && spec.Command == "":
		return errors.New("no tests matched --run or --tags")
	}
	return nil
}
