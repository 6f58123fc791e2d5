package actions

import (
	"context"
	"fmt"
	"os"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
)

// Convert converts a test file of container-structure-test to a suite and prints it, with a comment that names the
// schema to editors. It warns about each test that can have another verdict.
func Convert(_ context.Context, env Env, in inputs.Convert) error {
	data, err := os.ReadFile(in.File)
	if err != nil {
		return fmt.Errorf("convert: %w", err)
	}
	converted, warnings, err := suite.Convert(in.File, data)
	if err != nil {
		annotateProblems(env.Runner, in.File, err)
		return fmt.Errorf("convert: %w", err)
	}
	for _, w := range warnings {
		env.Runner.Warning(runner.Annotation{File: in.File, Line: w.Line, Message: w.Message})
	}
	_, err = fmt.Fprintf(env.Stdout, "# yaml-language-server: $schema=%s\n%s", suite.SchemaURL, converted)
	return err
}
