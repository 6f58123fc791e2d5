package suite

import (
	"encoding/json"
	"io"
	"time"
)

// WriteJSON writes the report as one JSON object, with durations in seconds.
func (r *Report) WriteJSON(w io.Writer) error {
	type failure struct {
		Line    int    `json:"line,omitempty"`
		Message string `json:"message"`
		Detail  string `json:"detail,omitempty"`
	}
	type test struct {
		Name     string    `json:"name"`
		Class    string    `json:"class,omitempty"`
		File     string    `json:"file,omitempty"`
		Line     int       `json:"line,omitempty"`
		Tags     []string  `json:"tags,omitempty"`
		Status   Status    `json:"status"`
		Attempts int       `json:"attempts"`
		Reason   string    `json:"reason,omitempty"`
		Seconds  float64   `json:"seconds"`
		Failures []failure `json:"failures,omitempty"`
		Log      string    `json:"log,omitempty"`
	}
	report := struct {
		Suite   string    `json:"suite"`
		File    string    `json:"file"`
		Image   string    `json:"image"`
		Seed    uint64    `json:"seed,string"` // JSON numbers lose precision above 2^53
		Started time.Time `json:"started"`
		Seconds float64   `json:"seconds"`
		Total   int       `json:"total"`
		Passed  int       `json:"passed"`
		Failed  int       `json:"failed"`
		Skipped int       `json:"skipped"`
		Flaky   int       `json:"flaky"`
		Tests   []test    `json:"tests"`

		Incomplete []string `json:"incomplete,omitempty"` // why results may be missing
	}{
		r.Suite, r.File, r.Image, r.Seed, r.Started.UTC(), r.Duration.Seconds(),
		r.Total, r.Passed, r.Failed, r.Skipped, r.Flaky, []test{}, r.Incomplete,
	}
	for _, t := range r.Tests {
		out := test{
			Name: t.Name, Class: t.Class, File: t.File, Line: t.Line, Tags: t.Tags, Status: t.Status,
			Attempts: t.Attempts, Reason: t.Reason, Seconds: t.Duration.Seconds(), Log: t.Log,
		}
		for _, f := range t.Failures {
			out.Failures = append(out.Failures, failure{f.Line, f.Message, f.Detail})
		}
		report.Tests = append(report.Tests, out)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}
