package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/safetext"
	"github.com/org/sandbox-actions/pkg/suite"
)

// commandGrace is how long a command may take to exit after SIGTERM.
const commandGrace = 3 * time.Second

// commandResult is the result of the input command. The zero value is that of a run without a command.
type commandResult struct {
	ExitCode int
	JUnit    suite.JUnitFiles
}

// readGrace is how long JUnit files are read after the run was canceled.
const readGrace = 2 * time.Second

// runCommand runs the input command on this machine and reads its JUnit files, even if it was canceled. It treats the
// command's output as untrusted.
func runCommand(
	ctx context.Context, job job, spec inputs.TestSpec, engine *dockerengine.Engine, subject testSubject, root string,
) (result commandResult, err error) {
	if spec.Command == "" {
		return commandResult{}, nil
	}
	defer startActivity(ctx, "the command %q", commandName(spec))()
	defer startPhase(ctx, "Run %s", commandName(spec)).end(&err)
	job.Runner.Group("Run " + commandName(spec))
	defer job.Runner.EndGroup()
	reportDir := job.absolute(spec.ReportDir)
	if err := os.MkdirAll(reportDir, 0o755); err != nil {
		return commandResult{}, inputs.Wrap("report_dir", fmt.Errorf("%w (set it to a writable directory)", err))
	}
	before := suite.ListXMLFiles(reportDir)
	environ := append(commandEnvironment(), "RUN_LOCAL_DOCKER_TESTS=true", "LOCAL_DOCKER_IMAGE_NAME="+subject.Name,
		"DOCKER_HOST="+engine.Host, "TEST_REPORT_DIR="+reportDir)
	result.ExitCode, err = runShell(ctx, job, spec.Command, root, environ)
	reading := ctx
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		reading, cancel = context.WithTimeout(context.WithoutCancel(ctx), readGrace)
		defer cancel()
	}
	result.JUnit = suite.ReadJUnitFiles(reading, reportDir, before, reportFile)
	if result.JUnit.Report != nil {
		result.JUnit.Report.Clean(job.Runner.Clean)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}

// commandName returns the command in one short line, for messages.
func commandName(spec inputs.TestSpec) string { return safetext.Line(spec.Command, 80) }

// commandEnvironment returns this process's environment without the registry logins and the files for outputs, which
// only this program may use.
func commandEnvironment() []string {
	withheld := []string{"DOCKER_AUTH_CONFIG", "GITHUB_OUTPUT", "GITHUB_STATE"}
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(withheld, name)
	})
}

// runShell runs a script with sh in a new process group and kills the whole group at the end.
func runShell(ctx context.Context, job job, script, dir string, environ []string) (exitCode int, err error) {
	out := job.Runner.Untrusted()
	defer out.Close()
	command := exec.CommandContext(ctx, "sh", "-c", script)
	command.Dir, command.Env, command.Stdout, command.Stderr = dir, environ, out, out
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
	command.WaitDelay = commandGrace
	err = command.Run()
	if command.Process != nil {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // kill what the script left running
	}
	failed := (*exec.ExitError)(nil)
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.As(err, &failed):
		return max(1, failed.ExitCode()), nil
	case err != nil:
		return 0, inputs.Wrap("command", err)
	}
	return 0, nil
}
