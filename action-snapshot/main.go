// Action-snapshot creates a Daytona snapshot of a sandbox image. The snapshot action runs it. On the command line it
// also lists and deletes snapshots. See --help.
package main

import (
	"context"
	"os"

	"github.com/org/sandbox-actions/actions"
	"github.com/org/sandbox-actions/pkg/inputs"
)

func main() {
	var snapshot inputs.Snapshot
	var list inputs.ListSnapshots
	var deletion inputs.DeleteSnapshot
	os.Exit(actions.Main(os.Args[1:], actions.Command{
		Name: "action-snapshot",
		Description: "Creates a Daytona snapshot of an image and sets its name in Doppler. " +
			"Subcommands: action-snapshot list, action-snapshot delete NAME.",
		Inputs: &snapshot,
		Run:    func(ctx context.Context, env actions.Env) error { return actions.Snapshot(ctx, env, snapshot) },
	}, actions.Command{
		Name:        "action-snapshot list",
		Description: "Lists the snapshots with a name prefix, newest first.",
		Inputs:      &list,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.ListSnapshots(ctx, env, list) },
	}, actions.Command{
		Name:        "action-snapshot delete",
		Description: "Deletes a snapshot, unless a Doppler config names it.",
		Inputs:      &deletion,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.DeleteSnapshot(ctx, env, deletion) },
	}))
}
