package actions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/org/sandbox-actions/pkg/htmlreport"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/suite"
	"github.com/org/sandbox-actions/pkg/summary"
	"github.com/org/sandbox-actions/pkg/terminal"
)

// The files in the directory of the report.
const (
	recordFile   = "record.json"
	previousFile = "previous.json" // the last record with an image, if recordFile has none
	htmlFile     = "report.html"
)

// present shows what a run that ended with err has reached: in the outputs of the step, the report, the job summary and
// on standard output. It is the only function that does. It returns err together with the errors of these.
func (j job) present(ctx context.Context, run runrecord.Record, err error) error {
	if j.Report.Dir != "" {
		setOutput(&run, "report_html", filepath.Join(j.Report.Dir, htmlFile))
		setOutput(&run, "record", filepath.Join(j.Report.Dir, recordFile))
	}
	if outputsErr := j.writeOutputs(run.Outputs); outputsErr != nil {
		err = errors.Join(err, j.writeError("the outputs (GITHUB_OUTPUT)", outputsErr))
		run.Outputs = nil
	}
	record := j.complete(run, err)
	record.Changes = runrecord.Compare(j.previous(), &record)
	if j.Report.Dir != "" {
		if reportErr := j.writeReport(&record); reportErr != nil {
			err = errors.Join(err, fmt.Errorf("write the report: %w (free disk space, or set report_dir)", reportErr))
		}
	}
	if summaryErr := j.writeSummary(&record); summaryErr != nil {
		err = errors.Join(err, j.writeError("the job summary (GITHUB_STEP_SUMMARY)", summaryErr))
	}
	j.comment(ctx, &record)
	record = j.complete(record, err)
	if line := record.Line(); line != "" && (j.Runner.InActions() || j.Output != inputs.TextOutput) {
		j.Runner.Infof("%s", line)
	}
	if stdoutErr := j.writeStdout(&record); stdoutErr != nil {
		err = errors.Join(err, j.writeError("to standard output", stdoutErr))
	}
	return err
}

// writeError describes an error of writing something.
func (j job) writeError(something string, err error) error {
	return explainFullDisk(fmt.Errorf("write %s: %w", something, err), j.Scratch)
}

// fail presents the record of a command that failed with err, and returns err.
func (e Env) fail(err error) error {
	return job{Env: e, Started: time.Now()}.present(context.Background(), runrecord.Record{}, err)
}

// reject is [Env.fail] for a command that did not start because of an invalid argument or input.
func (e Env) reject(err error) error { return e.fail(&usageError{err}) }

// presentList prints rows as a JSON list or, if err is not nil, the record of the failed command.
func (e Env) presentList(rows any, err error) error {
	if err != nil {
		return e.fail(err)
	}
	encoder := json.NewEncoder(e.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(rows)
}

// setOutput sets an output, in its place if the list has it.
func setOutput(record *runrecord.Record, name, value string) {
	output := runrecord.Output{Name: name, Value: value}
	isSame := func(o runrecord.Output) bool { return o.Name == name }
	if i := slices.IndexFunc(record.Outputs, isSame); i >= 0 {
		record.Outputs[i] = output
	} else {
		record.Outputs = append(record.Outputs, output)
	}
}

// writeSummary writes the job summary. DOCKER_BUILD_SUMMARY=false turns it off, as in docker/build-push-action.
func (e Env) writeSummary(record *runrecord.Record) error {
	if e.isOff("DOCKER_BUILD_SUMMARY") {
		return nil
	}
	return e.Runner.Summary(summary.Markdown(record))
}

// isOff reports whether an environment variable is set to false, or another form of it.
func (e Env) isOff(variable string) bool {
	on, err := strconv.ParseBool(e.Getenv(variable))
	return err == nil && !on
}

func (e Env) writeOutputs(outputs []runrecord.Output) error {
	var list []runner.Output
	for _, o := range outputs {
		list = append(list, runner.Output(o))
	}
	return e.Runner.Outputs(list...)
}

// writeStdout writes what the flag --output selects.
func (e Env) writeStdout(record *runrecord.Record) error {
	switch {
	case e.Output == inputs.JSONOutput:
		return record.Short().Write(e.Stdout)
	case e.Output == inputs.TextOutput && !e.Runner.InActions():
		terminal.Closing(e.Stdout, record, e.Color)
	case e.Output == inputs.EnvOutput:
		for _, o := range record.Outputs {
			if _, err := fmt.Fprintf(e.Stdout, "%s=%s\n", o.Name, strings.ReplaceAll(o.Value, "\n", "%0A")); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeReport writes the files of the report. A record without an image does not take the place of one with an image:
// the next run is compared with that.
func (j job) writeReport(record *runrecord.Record) error {
	var data, page, previous bytes.Buffer
	if err := errors.Join(record.Write(&data), htmlreport.Write(&page, record)); err != nil {
		return err
	}
	dir := j.absolute(j.Report.Dir)
	err := errors.Join(suite.WriteBelow(dir, recordFile, data.Bytes()), suite.WriteBelow(dir, htmlFile, page.Bytes()))
	if earlier := j.previous(); record.Image == nil && earlier != nil {
		err = errors.Join(err, earlier.Write(&previous), suite.WriteBelow(dir, previousFile, previous.Bytes()))
	}
	return err
}

// readPrevious reads the record with which a run is compared: that of the input previous_record or, without it, the
// last one with an image in the directory of the report. It returns nil if no record exists, and with a warning if it
// cannot be read.
func (e Env) readPrevious(report inputs.Report) *runrecord.Record {
	if report.Dir == "" {
		return nil
	}
	dir := e.absolute(report.Dir)
	path, err := filepath.Join(dir, recordFile), error(nil)
	if report.Previous != "" {
		path, err = inputs.SecureJoin(e.Dir, report.Previous)
	}
	var record *runrecord.Record
	if err == nil {
		record, err = readRecord(path)
	}
	if err == nil && record.Image == nil && report.Previous == "" {
		record, err = readRecord(filepath.Join(dir, previousFile))
	}
	if record != nil {
		record.Clean(e.Runner.Clean) // it may come from anybody
	}
	if err != nil && (report.Previous != "" || !errors.Is(err, fs.ErrNotExist)) {
		e.Runner.Warning(runner.Annotation{Title: "The run is not compared with a previous one",
			Message: fmt.Sprintf("read the previous record: %v", err)})
	}
	return record
}

// readRecord reads the record at path. The workspace may be hostile, so it refuses a symbolic link that leads out of
// the directory, and does not wait for the writer of a FIFO.
func readRecord(path string) (*runrecord.Record, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := root.OpenFile(filepath.Base(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	return runrecord.Read(file)
}
