// Action-test tests the sandbox image: the program of the test action, and the same at a prompt, where it also opens a shell in the image and
// converts suites. See --help.
package main

import (
	"context"
	"os"

	"github.com/org/sandbox-actions/actions"
)

func main() {
	var in actions.TestInputs
	var shell actions.ShellInputs
	var convert actions.ConvertInputs
	os.Exit(actions.Main(os.Args[1:], actions.Command{
		Name: "action-test", About: "Tests an image in the local Docker Engine. Also: action-test shell [-- CMD…], action-test convert FILE.",
		Inputs: &in, Do: func(ctx context.Context, p *actions.Program) error { return p.Test(ctx, &in) },
	}, actions.Command{
		Name: "action-test shell", About: "Opens a terminal in a fresh container of the image.",
		Inputs: &shell, Do: func(ctx context.Context, p *actions.Program) error { return p.Shell(ctx, &shell) },
	}, actions.Command{
		Name: "action-test convert", About: "Writes a suite of container-structure-test's as one for this program.",
		Inputs: &convert, Do: func(ctx context.Context, p *actions.Program) error { return p.Convert(ctx, &convert) },
	}))
}
