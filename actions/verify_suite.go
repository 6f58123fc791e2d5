package actions

import (
	"context"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/suite"
)

// verifySuite runs the test suite of the inputs in a started sandbox. Test failures are reported in the Report, not as
// an error.
func verifySuite(
	_ context.Context, _ job, spec inputs.SnapshotSpec, _ snapshotTarget, _ imageUpload, _ daytona.Sandbox,
) (*suite.Report, error) {
	return nil, inputs.Errorf("verify", spec.VerifySuite, "is not supported; write boot")
}
