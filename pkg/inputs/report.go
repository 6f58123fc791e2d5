package inputs

import "path/filepath"

// Report selects where the result of a run is shown. The zero value writes no report.
type Report struct {
	Dir      string // relative to the workspace, or absolute; "" writes no report
	Previous string // path of the record to compare with; "" for that in Dir, if there is one

	Comment     Comment
	GitHubToken string // to write the comment
}

func validateReport(spec *BuildSpec, in Build, env Env) error {
	spec.ReportDir, spec.Report.GitHubToken = in.ReportDir, in.GithubToken
	if spec.ReportDir == "" {
		spec.ReportDir = filepath.Join(env.Getenv("RUNNER_TEMP"), "test-results")
	}
	switch {
	case in.Report:
		spec.Report.Dir, spec.Report.Previous = spec.ReportDir, in.PreviousRecord
		return spec.checkReportDir(env)
	case in.PreviousRecord != "":
		return Errorf("previous_record", in.PreviousRecord, "has no effect without report: true; add that")
	}
	return nil
}

// checkReportDir returns an error if a symbolic link of the repository leads the report elsewhere.
func (s BuildSpec) checkReportDir(env Env) error {
	if filepath.IsAbs(s.ReportDir) {
		return nil
	}
	_, err := SecureJoin(env.Dir, s.ReportDir)
	return Wrap("report_dir", err)
}
