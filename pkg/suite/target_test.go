package suite

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// A test that needs what its target does not support is skipped with the reason, once, and not retried.
func TestUnsupported(t *testing.T) {
	for _, test := range []struct{ name, keys string }{
		{"command", "run: x"},
		{"session", "session: s, run: x"},
		{"setup", "setup: [x], run: y"},
		{"step", "service: {steps: [{run: x, within: 1m}]}"},
		{"log", "service: {ready: {log: up}}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &fakeEngine{command: func(*fakeContainer, []string, io.Writer, io.Writer) (int, error) {
				return 0, fmt.Errorf("run: %w", &UnsupportedError{"no moon"})
			}}
			r := runOnFake(t, e, parse(t, "tests: [{name: a, retries: 2, "+test.keys+"}]", nil), Options{})
			got := r.Tests[0]
			if got.Status != Skipped || got.Reason != "no moon" || got.NotRun || len(got.Failures) > 0 || r.Skipped != 1 {
				t.Errorf("got %+v", got)
			}
			if len(e.containers) != 1 {
				t.Errorf("%d containers", len(e.containers))
			}
			var junit bytes.Buffer
			if err := r.WriteJUnit(&junit); err != nil || !strings.Contains(junit.String(), `<skipped message="no moon"`) {
				t.Errorf("JUnit report: %v\n%s", err, junit.String())
			}
		})
	}
}
