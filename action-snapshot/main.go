// Action-snapshot creates a Daytona snapshot of a sandbox image. The snapshot action runs it. On the command line it
// also lists, deletes, promotes and rolls back snapshots. See --help.
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
	var promotion inputs.Promote
	var rollback inputs.Rollback
	var history inputs.History
	var doctor inputs.Snapshot
	os.Exit(actions.Main(os.Args[1:], actions.Command{
		Name: "action-snapshot",
		Description: "Creates a Daytona snapshot of an image and sets its name in Doppler. At a prompt, it uses the local " +
			"image, or builds one if the engine has none.",
		Examples: "action-snapshot --cpu 4 --memory 8\n" +
			"action-snapshot --ref main --image= --no-update-doppler\n" +
			"action-snapshot promote NAME --to prd",
		Inputs: &snapshot,
		Run:    func(ctx context.Context, env actions.Env) error { return actions.Snapshot(ctx, env, snapshot) },
	}, actions.Command{
		Name:        "action-snapshot list",
		Description: "Lists the snapshots with a name prefix, newest first.",
		Examples:    "action-snapshot list\naction-snapshot list --name-prefix feature-x",
		Inputs:      &list,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.ListSnapshots(ctx, env, list) },
	}, actions.Command{
		Name:        "action-snapshot delete",
		Description: "Deletes a snapshot, unless a Doppler config names it.",
		Examples:    "action-snapshot delete NAME",
		Inputs:      &deletion,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.DeleteSnapshot(ctx, env, deletion) },
	}, actions.Command{
		Name:        "action-snapshot promote",
		Description: "Names an existing snapshot in other Doppler configs.",
		Examples: "action-snapshot promote --to prd    # the current name of doppler_config\n" +
			"action-snapshot promote NAME --to stg,prd --require-verified",
		Inputs: &promotion,
		Run:    func(ctx context.Context, env actions.Env) error { return actions.Promote(ctx, env, promotion) },
	}, actions.Command{
		Name:        "action-snapshot rollback",
		Description: "Names the snapshot that a Doppler config named before.",
		Examples:    "action-snapshot rollback --doppler-config prd",
		Inputs:      &rollback,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.Rollback(ctx, env, rollback) },
	}, actions.Command{
		Name:        "action-snapshot history",
		Description: "Lists the snapshots that a Doppler config named, newest first.",
		Examples:    "action-snapshot history --doppler-config prd",
		Inputs:      &history,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.ShowHistory(ctx, env, history) },
	}, actions.Command{
		Name:        "action-snapshot doctor",
		Description: "Checks what a snapshot with the same flags needs, and creates nothing.",
		Examples:    "action-snapshot doctor --doppler-config prd",
		Inputs:      &doctor,
		Run:         func(ctx context.Context, env actions.Env) error { return actions.DoctorSnapshot(ctx, env, doctor) },
	}))
}
