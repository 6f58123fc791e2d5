// Action-build builds the sandbox image: the program of the build action, and the same at a prompt. See --help.
package main

import (
	"context"
	"os"

	"github.com/org/sandbox-actions/actions"
)

func main() {
	var in actions.BuildInputs
	os.Exit(actions.Main(os.Args[1:], actions.Command{
		Name: "action-build", About: "Builds an image on Depot or another BuildKit, loads it, pushes it, and prints what it is.",
		Inputs: &in, Do: func(ctx context.Context, p *actions.Program) error { return p.Build(ctx, &in) },
	}))
}
