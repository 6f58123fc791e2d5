package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"
	"golang.org/x/term"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/terminal"
)

// Command is one command of a program.
type Command struct {
	Name        string // action-test, or action-test shell for a subcommand
	Description string
	Examples    string // command lines for --help, one per line
	Inputs      any    // pointer to a struct of package inputs; Main fills it and masks its secrets before Run
	Run         func(context.Context, Env) error
}

// ExitError ends the program with an exit code other than 1.
type ExitError struct {
	Code int
	Err  error // nil if the failure was reported already
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// usageExitCode is the exit code for an invalid command line.
const usageExitCode = 2

// Main runs the subcommand that args[0] names, or the default command, and returns the exit code. It reports an error
// once: on standard error and, in GitHub Actions, as one annotation. SIGINT and SIGTERM cancel the command; a second
// signal kills the process.
func Main(args []string, command Command, subcommands ...Command) int {
	p := newProgram(command, subcommands)
	if len(args) > 0 && args[0] == completeCommand {
		return p.complete(os.Stdout, args[1:], os.Environ())
	}
	command, args = p.choose(args)
	// Libraries write to these logs, but their errors contain everything that matters.
	log.SetOutput(io.Discard)
	logrus.SetOutput(io.Discard)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	protectErr := credentials.ProtectProcess()
	environ := os.Environ()
	getenv := credentials.WithholdInputs(environ)
	env := Env{Getenv: getenv, Stdout: os.Stdout}
	isTerminal := term.IsTerminal(int(os.Stderr.Fd()))
	messages := io.Writer(os.Stderr)
	if isTerminal && getenv("TERM") != "dumb" {
		env.Terminal, env.Screen = os.Stderr, terminal.NewScreen(os.Stderr, terminal.UseUnicode(getenv))
		messages = env.Screen
	}
	env.Runner = runner.New(os.Stdout, messages, getenv)
	env.Color = terminal.UseColor(getenv, isTerminal)
	env.Runner.Label = func(level string) string { return terminal.Label(level, env.Color) }
	if protectErr != nil {
		env.Runner.Warning(runner.Annotation{Message: protectErr.Error()})
	}
	credentials.MaskEnvironment(getenv, env.Runner.MaskAs)
	source := p.source(command)
	source.Args, source.Environ = args, environ
	return report(env.Runner, command.run(ctx, env, source))
}

func (c Command) run(ctx context.Context, env Env, source inputs.Source) (err error) {
	if env.Dir, err = os.Getwd(); err != nil {
		return err
	}
	source.Stdout = env.Stdout
	warnings, err := source.Parse(c.Inputs)
	for _, warning := range warnings {
		env.Runner.Warning(runner.Annotation{Message: warning})
	}
	if errors.Is(err, inputs.ErrHelp) {
		return err
	}
	if err != nil {
		return &ExitError{Code: usageExitCode, Err: err}
	}
	for name, secret := range inputs.SecretValues(c.Inputs) {
		env.Runner.MaskAs(name, secret)
	}
	return c.Run(ctx, env)
}

// maxAnnotationLines is the maximum number of lines of a failed step's output in an annotation.
const maxAnnotationLines = 10

// positionOf returns the position in the Dockerfile that an error of a build has.
func positionOf(err error) (image.Position, bool) {
	var located interface {
		error
		Where() image.Position
	}
	if !errors.As(err, &located) {
		return image.Position{}, false
	}
	return located.Where(), true
}

// report prints err, if it is not nil, and returns the exit code.
func report(r *runner.Runner, err error) int {
	if err == nil || errors.Is(err, inputs.ErrHelp) {
		return 0
	}
	code := 1
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
	}
	var at runner.Annotation
	if position, ok := positionOf(err); ok {
		at.File, at.Line, at.EndLine = position.File, position.Line, position.EndLine
	}
	if failed := (*image.BuildError)(nil); errors.As(err, &failed) && len(failed.Output) > image.MaxErrorLines {
		at.Message = strings.Join(failed.Output[max(0, len(failed.Output)-maxAnnotationLines):], "\n")
	}
	r.Fail(err, at)
	return code
}
