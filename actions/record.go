package actions

import (
	"cmp"
	"errors"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/imagecontent"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/suite"
)

// complete adds what is the same for all programs to the record of a run that ended with err, and removes secrets.
func (j job) complete(record runrecord.Record, err error) runrecord.Record {
	record.Format, record.Program, record.Release = runrecord.Version, j.Program, Version
	record.Started, record.Seconds = j.Started.UTC().Truncate(time.Millisecond), roundSeconds(time.Since(j.Started))
	record.ExitCode, record.Error = exitCode(err), errorRecord(j.atPrompt(err))
	record.Run = runRecord(j.Env)
	record.Inputs = inputRecords(j.Env)
	record.Clean(j.Runner.Clean)
	return record
}

// inputRecords lists the inputs that differ from their defaults. It omits values that are or contain a secret.
func inputRecords(e Env) (records []runrecord.Input) {
	if e.Inputs == nil {
		return nil
	}
	for _, value := range inputs.Changed(e.Inputs, e.Names, e.Runner.InActions()) {
		if _, found := e.Runner.FindSecret(value.Text); found || value.Secret {
			records = append(records, runrecord.Input{Name: value.Name, Secret: true})
		} else {
			records = append(records, runrecord.Input{Name: value.Name, Value: value.Text})
		}
	}
	return records
}

// runRecord describes the workflow run. It returns nil outside GitHub Actions.
func runRecord(e Env) *runrecord.Run {
	if !e.Runner.InActions() {
		return nil
	}
	event := runner.ReadEvent(e.Getenv)
	return &runrecord.Run{
		Repository: event.Repository, Server: serverURL(e.Getenv), ID: e.Getenv("GITHUB_RUN_ID"),
		Attempt: e.Getenv("GITHUB_RUN_ATTEMPT"), Job: e.Getenv("GITHUB_JOB"), Event: event.Name, Pull: event.Pull,
		Branch: cmp.Or(e.Getenv("GITHUB_HEAD_REF"), e.Getenv("GITHUB_REF_NAME")),
	}
}

func serverURL(getenv func(string) string) string {
	return strings.TrimRight(cmp.Or(getenv("GITHUB_SERVER_URL"), "https://github.com"), "/")
}

// errorRecord describes why a run failed. It returns nil for a nil error.
func errorRecord(err error) *runrecord.Error {
	if err == nil {
		return nil
	}
	e := &runrecord.Error{Kind: kindOf(err), Message: strings.TrimSpace(err.Error())}
	if invalid, ok := errors.AsType[*inputs.Error](err); ok {
		e.Input = invalid.Input
	}
	if invalid, ok := errors.AsType[*suite.InvalidError](err); ok {
		e.File, e.Line = invalid.File, invalid.Problems[0].Line
	}
	if position, ok := positionOf(err); ok {
		e.File, e.Line, e.EndLine, e.Excerpt = position.File, position.Line, position.EndLine, position.Excerpt
	}
	if failed, ok := errors.AsType[*image.BuildError](err); ok {
		e.Step, e.Output = failed.Step, strings.Join(failed.Output, "\n")
	}
	if broken, ok := errors.AsType[*brokenError](err); ok {
		e.Output = broken.Log
	}
	if failed, ok := errors.AsType[*daytona.SnapshotError](err); ok {
		e.Output = failed.Log
	}
	return e
}

// kindOf returns the kind of an error.
func kindOf(err error) runrecord.Kind {
	has := func(target any) bool { return errors.As(err, target) }
	_, isLocated := positionOf(err)
	switch {
	case has(new(*usageError)):
		return runrecord.InvalidInput
	case has(new(*InterruptedError)):
		if interrupted, _ := errors.AsType[*InterruptedError](err); interrupted.Timeout > 0 {
			return runrecord.TimedOut
		}
		return runrecord.Canceled
	case has(new(*ExitError)):
		return runrecord.TestsFailed
	case has(new(*brokenError)), has(new(*daytona.SnapshotError)), has(new(*daytona.DigestError)):
		return runrecord.SnapshotFailed
	case isLocated, has(new(*image.TargetError)), has(new(*image.ContextError)):
		return runrecord.BuildFailed
	}
	if invalid, ok := errors.AsType[*inputs.Error](err); ok && invalid.Err == nil { // otherwise, the cause is another one
		return runrecord.InvalidInput
	}
	return runrecord.OtherwiseFailed
}

// addBuild adds what a build has reached to a record: its source, its steps and its image.
func addBuild(record *runrecord.Record, job job, spec inputs.BuildSpec, built builtImage) {
	record.Source = sourceRecord(job, spec, built.Source)
	addSourceHashes(record.Source, job, built)
	for _, step := range built.Stats.Steps {
		record.Steps = append(record.Steps, stepRecord(job, step))
	}
	if record.Source != nil {
		runrecord.LocateSteps(record.Steps, record.Source.Definition)
	}
	if len(built.Results) == 0 {
		return
	}
	record.Image = imageRecord(job, built.Loaded.Image, built.Contents, built.Results...)
	record.Image.Digest, record.Image.Ref = built.Digest, imageRef(spec, built.Lease, built.Digest)
	record.Image.Names, record.Image.Pushed = built.Names, pushReferences(spec, built.Lease)
	record.Image.Cached, record.Image.Total = built.Stats.Cached, built.Stats.Total
	record.Image.BuildURL = built.Lease.URL
}

// existingRecord describes an image from an earlier build. contents is what [readContents] returned for it.
func existingRecord(
	job job, img v1.Image, contents []runrecord.PlatformImage, outputs BuildOutputs,
) *runrecord.Image {
	platform := outputs.Platforms
	if config, err := img.ConfigFile(); err == nil && platform == "" {
		platform = strings.TrimSuffix(config.OS+"/"+config.Architecture+"/"+config.Variant, "/")
	}
	record := imageRecord(job, img, contents, &image.Result{Platform: platform, Image: img})
	record.Digest, record.Ref, record.Existing = outputs.Digest, outputs.ImageRef, true
	return record
}

// existingSource describes the commit of an existing image. It returns nil if the commit is unknown.
func existingSource(outputs BuildOutputs) *runrecord.Source {
	if outputs.GitSHA == "" {
		return nil
	}
	return &runrecord.Source{SHA: outputs.GitSHA, Ref: outputs.GitRef}
}

// imageRecord describes the config of main and the images of the platforms. What cannot be read is left out. contents
// is what [readContents] returned for the results.
func imageRecord(
	job job, main v1.Image, contents []runrecord.PlatformImage, results ...*image.Result,
) *runrecord.Image {
	record := &runrecord.Image{Platforms: []runrecord.PlatformImage{}}
	id, idErr := main.ConfigName()
	config, err := main.ConfigFile()
	if err = errors.Join(idErr, err); err == nil {
		record.ID, record.Created = id.String(), config.Created.UTC()
	}
	for i, result := range results {
		if i < len(contents) {
			contents[i].Platform = result.Platform
			record.Platforms = append(record.Platforms, contents[i])
			continue
		}
		platform, platformErr := imagecontent.Describe(result.Image, result.Platform, job.Runner.Redact)
		err = errors.Join(err, platformErr)
		record.Platforms = append(record.Platforms, platform)
	}
	if err != nil {
		job.Runner.Infof("Describing the image failed: %v", err)
	}
	return record
}

// maxDefinition is the maximum size of a Dockerfile in a record, in bytes.
const maxDefinition = 256 << 10

// sourceRecord describes the code that is built. It returns nil if it is unknown.
func sourceRecord(job job, spec inputs.BuildSpec, source buildSource) *runrecord.Source {
	if source.Tree.SHA == "" && source.Tree.Dir == "" {
		return nil
	}
	record := &runrecord.Source{
		SHA: source.Tree.SHA, Ref: source.Tree.Ref, Dirty: source.Tree.Dirty, Context: spec.Context,
	}
	if source.Paths.Dockerfile != "" {
		record.Dockerfile = relativeTo(source.Paths.Dockerfile, source.Tree.Dir, job.Dir)
	}
	if definition := source.Paths.Definition; definition != nil && len(definition.Content()) <= maxDefinition {
		record.Definition = strings.ReplaceAll(string(definition.Content()), "\r\n", "\n")
	}
	return record
}

// stepPlatform matches the name of a step if the image has several platforms: [linux/amd64 2/5] RUN make.
var stepPlatform = regexp.MustCompile(`^\[([^ \]]+/[^ \]]+) `)

func stepRecord(job job, step image.Step) runrecord.Step {
	record := runrecord.Step{
		Name: step.Name, Seconds: roundSeconds(step.Duration), Cached: step.Cached, Error: step.Error, Log: step.Log,
	}
	if match := stepPlatform.FindStringSubmatch(step.Name); match != nil {
		record.Platform = match[1]
	}
	if !step.Started.IsZero() {
		record.Offset = max(roundSeconds(step.Started.Sub(job.Started)), 0)
	}
	return record
}

// addSubject adds the image under test to a record.
func addSubject(record *runrecord.Record, job job, spec inputs.TestSpec, subject testSubject) {
	switch {
	case subject.Existing.Image != nil:
		record.Source = existingSource(subject.Build)
		record.Image = existingRecord(job, subject.Existing, subject.Contents, subject.Build)
		if subject.Build.ImageName != "" {
			record.Image.Names = []string{subject.Build.ImageName}
		}
	case spec.Image == "":
		addBuild(record, job, spec.BuildSpec, subject.Built)
	}
}

// addTests adds the results of the tests and the outputs to a record.
func addTests(record *runrecord.Record, spec inputs.TestSpec, subject testSubject, report *suite.Report) {
	record.Tests = testsRecord(report)
	record.Outputs = outputList(TestOutputs{
		BuildOutputs: subject.Build, TestsTotal: report.Total, TestsPassed: report.Passed, TestsFailed: report.Failed,
		TestsSkipped: report.Skipped, Report: filepath.Join(spec.ReportDir, reportFile),
	})
}

// testsRecord describes the results of a suite.
func testsRecord(report *suite.Report) *runrecord.Tests {
	record := &runrecord.Tests{
		Suite: report.Suite, File: report.File, Seed: strconv.FormatUint(report.Seed, 10),
		Seconds: roundSeconds(report.Duration), Total: report.Total, Passed: report.Passed, Failed: report.Failed,
		Skipped: report.Skipped, Flaky: report.Flaky, Tests: []runrecord.Test{}, Incomplete: report.Incomplete,
	}
	for _, t := range report.Tests {
		test := runrecord.Test{
			Name: t.Name, Class: t.Class, File: t.File, Line: t.Line, Tags: t.Tags, Status: string(t.Status),
			Attempts: t.Attempts, Reason: t.Reason, Seconds: roundSeconds(t.Duration), Log: t.Log,
		}
		for _, f := range t.Failures {
			test.Failures = append(test.Failures, runrecord.TestFailure{Line: f.Line, Message: f.Message, Detail: f.Detail})
		}
		record.Tests = append(record.Tests, test)
	}
	return record
}

// addSnapshots adds what [ensureSnapshots] has reached to a record: the image, the snapshots that Daytona has created,
// also failed ones, and the results of the suite that verified the first of them.
func addSnapshots(
	record *runrecord.Record, job job, spec inputs.SnapshotSpec, session snapshotSession, created []createdSnapshot,
) {
	if len(created) == 0 {
		return
	}
	if upload := created[0].Upload; spec.Image == "" {
		addBuild(record, job, spec.BuildSpec, upload.Built)
	} else {
		record.Source = existingSource(upload.Build)
		record.Image = existingRecord(job, session.Image, upload.Contents, upload.Build)
	}
	for _, c := range created {
		if c.Verified.Suite != nil && record.Tests == nil {
			record.Tests = testsRecord(c.Verified.Suite)
		}
		if c.Snapshot.ID == "" {
			continue
		}
		s := snapshotRecord(c.Snapshot)
		s.Variant, s.Reused, s.Digest = c.Spec.Variant, c.Upload.isReused(), c.Upload.Wanted.digest.String()
		s.Verified, s.Entrypoint = c.Verified.output(), c.Upload.Wanted.entrypoint
		record.Snapshots = append(record.Snapshots, s)
	}
}

func snapshotRecord(s daytona.Snapshot) runrecord.Snapshot {
	return runrecord.Snapshot{
		Name: s.Name, ID: s.ID, State: string(s.State), Digest: s.Digest, SizeGB: s.SizeGB,
		CPU: s.Resources.CPU, MemoryGB: s.Resources.Memory, DiskGB: s.Resources.Disk, GPU: s.GPU,
		SandboxClass: s.SandboxClass, Region: strings.Join(s.Regions, ","), Entrypoint: s.Entrypoint,
	}
}

// addNaming adds an existing snapshot, and which configs name it, to a record.
func addNaming(
	record *runrecord.Record, s daytona.Snapshot, named namingRecord, update dopplerUpdate, configs []dopplerConfig,
) {
	snapshot := snapshotRecord(s)
	snapshot.Reused, snapshot.Verified, snapshot.Digest = true, cmp.Or(named.Verified, notVerified), digestOf(s).String()
	record.Snapshots = []runrecord.Snapshot{snapshot}
	record.Doppler = dopplerRecord(update, configs)
	if sha, isDirty := strings.CutSuffix(named.Commit, "-dirty"); sha != "" {
		record.Source = &runrecord.Source{SHA: sha, Dirty: isDirty}
	}
}

// dopplerRecord describes which configs name the snapshots. configs are as they were before the update.
func dopplerRecord(update dopplerUpdate, configs []dopplerConfig) *runrecord.Doppler {
	record := &runrecord.Doppler{Secret: update.Secret, Written: update.Written, Unchanged: update.Unchanged}
	if len(configs) > 0 {
		record.Previous = configs[0].Previous
	}
	return record
}
