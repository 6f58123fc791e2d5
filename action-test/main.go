// Action-test tests a sandbox image. The test action runs it. On the command line it also opens a shell in the image
// and converts suites. See --help.
package main

import (
	"context"
	"os"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

func main() {
	var test inputs.Test
	var shell inputs.Shell
	var convert inputs.Convert
	var doctor inputs.Test
	os.Exit(actions.Main(os.Args[1:], actions.Command{
		Name: "action-test",
		Description: "Tests an image in the local Docker Engine. At a prompt, it tests the local image, or builds one if " +
			"the engine has none.",
		Examples: "action-test                          # test the local image\n" +
			"action-test --image= --run '^git'    # build, then run some of the tests\n" +
			"action-test shell -- git --version",
		Inputs: &test,
		Run:    func(ctx context.Context, env actions.Env) error { return actions.Test(ctx, env, test) },
	}, actions.Command{
		Name:        "action-test shell",
		Description: "Opens a terminal in a new container of the image.",
		Examples:    "action-test shell\naction-test shell --mount -- make test",
		Inputs:      &shell,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.Shell(ctx, env, shell) },
	}, actions.Command{
		Name:        "action-test convert",
		Description: "Converts a container-structure-test file to a suite.",
		Examples:    "action-test convert structure-tests.yaml > sandbox/tests.yaml",
		Inputs:      &convert,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.Convert(ctx, env, convert) },
	}, actions.Command{
		Name:        "action-test doctor",
		Description: "Checks what a test with the same flags needs, and runs none.",
		Examples:    "action-test doctor",
		Inputs:      &doctor,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.DoctorTest(ctx, env, doctor) },
	}))
}
