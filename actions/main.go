package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
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

	ctx, stop := notifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	protectErr := credentials.ProtectProcess()
	environ := os.Environ()
	getenv := credentials.WithholdInputs(environ)
	env := Env{Getenv: getenv, Stdout: os.Stdout, Program: command.Name, Inputs: command.Inputs}
	source := p.source(command)
	source.Args, source.Environ, source.Stdout = args, environ, os.Stdout
	output, outputErr := source.OutputFormat(command.Inputs)
	env.Output = cmp.Or(output, defaultOutput(getenv))
	messages := io.Writer(os.Stderr)
	// The runner act gives steps a terminal, but the log of a workflow is not one.
	isTerminal := term.IsTerminal(int(os.Stderr.Fd())) && getenv("GITHUB_ACTIONS") != "true"
	if isTerminal && getenv("TERM") != "dumb" {
		env.Terminal, env.Screen = os.Stderr, terminal.NewScreen(os.Stderr, terminal.UseUnicode(getenv))
		messages = env.Screen
	}
	log := io.Writer(os.Stdout)
	if output == inputs.JSONOutput || output == inputs.EnvOutput { // the only thing on standard output
		log = messages
	}
	env.Runner = runner.New(log, messages, getenv)
	env.Color = terminal.UseColor(getenv, term.IsTerminal(int(os.Stdout.Fd())))
	isColored := terminal.UseColor(getenv, isTerminal)
	env.Runner.Label = func(level string) string { return terminal.Label(level, isColored) }
	if protectErr != nil {
		env.Runner.Warning(runner.Annotation{Message: protectErr.Error()})
	}
	return report(env.Runner, env.atPrompt(command.run(ctx, env, source, outputErr)))
}

// promptError is an error with another message.
type promptError struct {
	error
	message string
}

func (e *promptError) Error() string { return e.message }

func (e *promptError) Unwrap() error { return e.error }

// atPrompt returns err with the message of [Env.flagForm].
func (e Env) atPrompt(err error) error {
	if err == nil {
		return nil
	}
	return &promptError{err, e.flagForm(err.Error())}
}

// flagForm returns a message that names inputs as flags, or unchanged in GitHub Actions.
func (e Env) flagForm(message string) string {
	if e.Inputs == nil || e.Runner.InActions() {
		return message
	}
	return inputs.FlagForm(e.Inputs, message)
}

// defaultOutput returns what a program writes to standard output without --output: text to a terminal and in a log of
// GitHub Actions, otherwise the outputs, for scripts.
func defaultOutput(getenv func(string) string) inputs.Output {
	if getenv("GITHUB_ACTIONS") == "true" || term.IsTerminal(int(os.Stdout.Fd())) {
		return inputs.TextOutput
	}
	return inputs.EnvOutput
}

// run parses the arguments and runs the command, unless the flag --output has the error outputErr.
func (c Command) run(ctx context.Context, env Env, source inputs.Source, outputErr error) (err error) {
	if env.Dir, err = os.Getwd(); err != nil {
		return err
	}
	if env.Names, err = defaultNames(ctx, env); err != nil {
		return env.reject(err)
	}
	source.Names = env.Names
	warnings, err := source.Parse(c.Inputs)
	if errors.Is(err, inputs.ErrHelp) { // scripts read the version, so nothing else is printed
		return err
	}
	credentials.MaskEnvironment(env.Getenv, env.Runner.MaskAs)
	for _, warning := range warnings {
		env.Runner.Warning(runner.Annotation{Message: warning})
	}
	if err = cmp.Or(outputErr, err); err != nil {
		err = env.atPrompt(err)
		env.Inputs = nil // not known
		return env.reject(err)
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
	code := exitCode(err)
	if exit := (*ExitError)(nil); code == 0 || errors.As(err, &exit) && exit.Err == nil {
		return code
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
