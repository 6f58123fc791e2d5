package inputs

import (
	"path/filepath"
	"strings"
)

// Report selects where the result of a run is shown. The zero value writes no report.
type Report struct {
	Dir      string // relative to the workspace, or absolute; "" writes no report
	Previous string // path of the record to compare with; "" for that in Dir, if there is one
	Artifact string // name of the artifact with the record of an earlier run; "" reads none

	Comment     Comment
	GitHubToken string // to write the comment and to read the artifact
}

func validateReport(spec *BuildSpec, in Build, env Env) error {
	spec.ReportDir, spec.Report.GitHubToken = in.ReportDir, in.GithubToken
	if spec.ReportDir == "" {
		spec.ReportDir = filepath.Join(env.Getenv("RUNNER_TEMP"), "test-results")
	}
	const isUseless = "has no effect without report: true; add that"
	switch {
	case in.PreviousRecord != "" && !in.Report:
		return Errorf("previous_record", in.PreviousRecord, isUseless)
	case in.PreviousArtifact != "" && !in.Report:
		return Errorf("previous_artifact", in.PreviousArtifact, isUseless)
	case in.PreviousArtifact != "" && in.PreviousRecord != "":
		return Errorf("previous_artifact", in.PreviousArtifact, "has no effect with previous_record; remove one of them")
	// github.com/actions/toolkit: packages/artifact/src/internal/upload/path-and-artifact-name-validation.ts
	case strings.ContainsAny(in.PreviousArtifact, "\":<>|*?\r\n\\/"):
		return Errorf("previous_artifact", in.PreviousArtifact, `must be the name of an artifact, without " : < > | * ? \ /`)
	case !in.Report:
		return nil
	}
	spec.Report.Dir, spec.Report.Previous, spec.Report.Artifact = spec.ReportDir, in.PreviousRecord, in.PreviousArtifact
	return spec.checkReportDir(env)
}

// checkReportDir returns an error if a symbolic link of the repository leads the report elsewhere.
func (s BuildSpec) checkReportDir(env Env) error {
	if filepath.IsAbs(s.ReportDir) {
		return nil
	}
	_, err := SecureJoin(env.Dir, s.ReportDir)
	return Wrap("report_dir", err)
}
