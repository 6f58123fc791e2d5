// Action-snapshot makes a Daytona snapshot of the sandbox image: the program of the snapshot action, and the same at a prompt, where it also
// lists and deletes. See --help.
package main

import (
	"context"
	"os"

	"github.com/org/sandbox-actions/actions"
)

func main() {
	var in actions.SnapshotInputs
	var list actions.SnapshotsInputs
	var gone actions.DeleteSnapshotInputs
	os.Exit(actions.Main(os.Args[1:], actions.Command{
		Name: "action-snapshot", About: "Makes a Daytona snapshot of an image, and has Doppler name it. Also: action-snapshot list, action-snapshot delete NAME.",
		Inputs: &in, Do: func(ctx context.Context, p *actions.Program) error { return p.Snapshot(ctx, &in) },
	}, actions.Command{
		Name: "action-snapshot list", About: "Lists the snapshots of a prefix, the newest first.",
		Inputs: &list, Do: func(ctx context.Context, p *actions.Program) error { return p.Snapshots(ctx, &list) },
	}, actions.Command{
		Name: "action-snapshot delete", About: "Deletes a snapshot, unless Doppler names it.",
		Inputs: &gone, Do: func(ctx context.Context, p *actions.Program) error { return p.DeleteSnapshot(ctx, &gone) },
	}))
}
