// Action-build builds a sandbox image. The build action runs it, and you can run it on the command line. See --help.
package main

import (
	"context"
	"os"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

func main() {
	var in inputs.Build
	os.Exit(actions.Main(os.Args[1:], actions.Command{
		Name:        "action-build",
		Description: "Builds an image on Depot or another BuildKit, loads it, pushes it, and prints its digest.",
		Examples: "action-build                          # build and load the workspace\n" +
			"action-build --ref main --no-load --push ghcr.io/OWNER/IMAGE:TAG\n" +
			"action-build --builder unix:///run/buildkit/buildkitd.sock",
		Inputs: &in,
		Run:    func(ctx context.Context, env actions.Env) error { return actions.Build(ctx, env, in) },
	}))
}
