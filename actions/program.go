package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/sirupsen/logrus"
	"golang.org/x/term"
)

// Version is the release that a program belongs to, such as v1.2.3, which scripts/release.sh links into it; empty in a build from source.
var Version string

// Program is where an action runs.
type Program struct {
	Runner  *runner.Runner
	Stdout  io.Writer
	Getenv  func(string) string
	Dir     string   // where relative paths start: the workspace
	Display *os.File // a terminal to show progress on; nil where there is none
}

// Command is one thing that a program does.
type Command struct {
	Name, About string // "action-test"; "action-test shell" for one that is asked for by its word
	Inputs      inputs // a pointer: filled from flags and variables before Do, and its secrets masked
	Do          func(context.Context, *Program) error
}

// Main does the command whose word args begin with, or else the first one, in this process, and returns the exit code: 0, or 1 (or the code of a command that was
// run) with one sentence on standard error and, in Actions, one annotation. SIGINT and SIGTERM end it in order; a second one ends it at once.
func Main(args []string, first Command, others ...Command) int {
	if len(args) > 0 && args[0] == "--version" {
		fmt.Println(first.Name, cmp.Or(Version, "(built from source)"))
		return 0
	}
	c := first
	for _, other := range others {
		if len(args) > 0 && other.Name == first.Name+" "+args[0] {
			c, args = other, args[1:]
			break
		}
	}
	log.SetOutput(io.Discard) // what libraries remark by themselves is no part of what we say
	logrus.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	dir, err := os.Getwd()
	environ := os.Environ()
	getenv := withhold(environ)
	p := &Program{Runner: runner.New(os.Stdout, os.Stderr, getenv), Stdout: os.Stdout, Getenv: getenv, Dir: dir}
	for _, name := range secretVariables {
		p.Runner.Mask(getenv(name))
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		p.Display = os.Stderr
	}
	if err == nil {
		var warnings []string
		warnings, err = Inputs{Program: c.Name, About: c.About, Args: args, Environ: environ, Stdout: os.Stdout}.Parse(c.Inputs)
		for _, warning := range warnings {
			p.Runner.Warning(runner.Annotation{Message: warning})
		}
	}
	if err == nil {
		for _, secret := range secretsOf(reflect.ValueOf(c.Inputs).Elem().Interface()) {
			p.Runner.Mask(secret)
		}
		err = c.Do(ctx, p)
	}
	if err == nil || err == ErrHelp {
		return 0
	}
	code := 1
	if own := (exit{}); errors.As(err, &own) {
		code = own.code
	}
	if errors.Is(err, ErrHelp) { // said already
		return code
	}
	at := runner.Annotation{}
	if failed := new(image.BuildError); errors.As(err, &failed) {
		at.File, at.Line, at.EndLine = failed.File, failed.Line, failed.EndLine
	}
	p.Runner.Fail(err, at)
	return code
}

// secretVariables may hold credentials, also those that a run has no use for: a test command may print its environment.
var secretVariables = []string{"DEPOT_TOKEN", "DOPPLER_TOKEN", "DAYTONA_API_KEY", "GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}

// withhold takes what was given to this program alone, the inputs and the way to the job's identity, out of its environment: what it starts does not get
// it. The returned function still knows it.
func withhold(environ []string) (getenv func(string) string) {
	given := map[string]string{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		given[name] = value
		if strings.HasPrefix(name, "INPUT_") || strings.HasPrefix(name, "ACTIONS_ID_TOKEN_REQUEST_") {
			_ = os.Unsetenv(name) // it has just been read by that name
		}
	}
	return func(name string) string { return given[name] }
}
