package actions

import (
	"context"
	"fmt"
	"os"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
)

// Convert prints a test file of container-structure-test as a suite, and warns of what has no counterpart.
func Convert(_ context.Context, env Env, in inputs.Convert) error {
	data, err := os.ReadFile(in.File)
	if err != nil {
		return err
	}
	converted, warnings, err := suite.Convert(data)
	if err != nil {
		return fmt.Errorf("convert %s: %w", in.File, err)
	}
	for _, w := range warnings {
		env.Runner.Warning(runner.Annotation{File: in.File, Line: w.Line, Message: w.Message})
	}
	_, err = env.Stdout.Write(converted)
	return err
}
