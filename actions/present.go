package actions

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/suite"
)

// recordFile is the name of the record in the directory of the report.
const recordFile = "record.json"

// present shows what a run that ended with err has reached: in the outputs of the step, the report, the job summary and
// on standard output. It is the only function that does. It returns err together with the errors of these.
func (e Env) present(run reached, started time.Time, report inputs.Report, err error) error {
	if report.Dir != "" {
		setOutput(&run.Record, "record", filepath.Join(report.Dir, recordFile))
	}
	if outputsErr := e.writeOutputs(run.Outputs); outputsErr != nil {
		err = errors.Join(err, fmt.Errorf("write the outputs (GITHUB_OUTPUT): %w", outputsErr))
		run.Outputs = nil
	}
	record := e.complete(run.Record, started, err)
	if report.Dir != "" {
		if reportErr := e.writeReport(&record, report); reportErr != nil {
			err = errors.Join(err, fmt.Errorf("write the report: %w (free disk space, or set report_dir)", reportErr))
		}
	}
	if summaryErr := e.Runner.Summary(run.Summary); summaryErr != nil {
		err = errors.Join(err, fmt.Errorf("write the job summary (GITHUB_STEP_SUMMARY): %w", summaryErr))
	}
	record = e.complete(record, started, err)
	if stdoutErr := e.writeStdout(&record); stdoutErr != nil {
		err = errors.Join(err, fmt.Errorf("write to standard output: %w", stdoutErr))
	}
	return err
}

// reject presents the record of a run that did not start because of an invalid argument or input, and returns err with
// its exit code.
func (e Env) reject(err error) error {
	if exitCode(err) != exitInvalid {
		err = &usageError{err}
	}
	return e.present(reached{}, time.Now(), inputs.Report{}, err)
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
		return record.Write(e.Stdout)
	case e.Output == inputs.EnvOutput || !e.Runner.InActions():
		for _, o := range record.Outputs {
			if _, err := fmt.Fprintf(e.Stdout, "%s=%s\n", o.Name, strings.ReplaceAll(o.Value, "\n", "%0A")); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeReport compares the record with the previous one and writes the files of the report.
func (e Env) writeReport(record *runrecord.Record, report inputs.Report) error {
	dir := e.absolute(report.Dir)
	var data bytes.Buffer
	if err := record.Write(&data); err != nil {
		return err
	}
	return suite.WriteBelow(dir, recordFile, data.Bytes())
}

// readPrevious reads the record with which a run is compared: that of the input previous_record or, without it, the one
// that the run will replace. It returns nil if there is none, and with a warning if it cannot be read.
func (e Env) readPrevious(report inputs.Report) *runrecord.Record {
	path, err := filepath.Join(e.absolute(report.Dir), recordFile), error(nil)
	if report.Previous != "" {
		path, err = inputs.SecureJoin(e.Dir, report.Previous)
	}
	var record *runrecord.Record
	if err == nil {
		record, err = readRecord(path)
	}
	if err != nil && (report.Previous != "" || !errors.Is(err, fs.ErrNotExist)) {
		e.Runner.Warning(runner.Annotation{Title: "The run is not compared with a previous one",
			Message: fmt.Sprintf("read the previous record: %v", err)})
	}
	return record
}

// readRecord reads the record at path. The workspace may be hostile, so it refuses a symbolic link that leads out of the
// directory, and does not wait for the writer of a FIFO.
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
