package inputs

import (
	"errors"
	"testing"
)

func TestPreviousArtifact(t *testing.T) {
	dir := repository(t)
	for _, test := range []struct {
		name    string
		environ []string
		input   string // that is invalid; "" for none
	}{
		{"valid", []string{"INPUT_PREVIOUS_ARTIFACT=build report (1)", "INPUT_REPORT=true"}, ""},
		{"no report", []string{"INPUT_PREVIOUS_ARTIFACT=a"}, "previous_artifact"},
		{"no report for a record", []string{"INPUT_PREVIOUS_RECORD=a"}, "previous_record"},
		{"both", []string{"INPUT_PREVIOUS_ARTIFACT=a", "INPUT_PREVIOUS_RECORD=a", "INPUT_REPORT=true"}, "previous_artifact"},
		{"path", []string{"INPUT_PREVIOUS_ARTIFACT=a/b", "INPUT_REPORT=true"}, "previous_artifact"},
		{"pattern", []string{"INPUT_PREVIOUS_ARTIFACT=a-*", "INPUT_REPORT=true"}, "previous_artifact"},
		{"lines", []string{"INPUT_PREVIOUS_ARTIFACT=a\nb", "INPUT_REPORT=true"}, "previous_artifact"},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: dir}, test.environ...)
			invalid := (*Error)(nil)
			if test.input == "" {
				if err != nil || spec.Report.Artifact != "build report (1)" {
					t.Errorf("%+v, %v", spec.Report, err)
				}
			} else if !errors.As(err, &invalid) || invalid.Input != test.input {
				t.Errorf("%v, want an error about %s", err, test.input)
			}
		})
	}
}
