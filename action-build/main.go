// Action-build builds the sandbox image: the program of the build action, and the same at a prompt. See --help.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/runner"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx))
}

func run(ctx context.Context) int {
	dir, err := os.Getwd()
	program := actions.Program{Runner: runner.New(os.Stdout, os.Stderr, os.Getenv), Getenv: os.Getenv, Dir: dir}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		program.Display = os.Stderr
	}
	var inputs actions.BuildInputs
	if err == nil {
		var warnings []string
		warnings, err = actions.Inputs{
			Program: "action-build",
			About:   "Builds an image on Depot or another BuildKit, loads it, pushes it, and prints what it is.",
			Args:    os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout,
		}.Parse(&inputs)
		for _, warning := range warnings {
			program.Runner.Warning(runner.Annotation{Message: warning})
		}
	}
	if err == nil {
		err = program.Build(ctx, &inputs)
	}
	switch {
	case err == nil, errors.Is(err, actions.ErrHelp):
		return 0
	}
	program.Fail(err)
	return 1
}
