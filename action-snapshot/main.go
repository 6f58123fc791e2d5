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
	command := actions.Command{
		Name: "action-snapshot", About: "Makes a Daytona snapshot of an image, and has Doppler name it. Also: action-snapshot list, action-snapshot delete NAME.",
		Inputs: &in, Do: func(ctx context.Context, p *actions.Program) error { return p.Snapshot(ctx, &in) },
	}
	args := os.Args[1:]
	if len(args) > 0 {
		var listed actions.SnapshotsInputs
		var deleted actions.DeleteSnapshotInputs
		switch args[0] {
		case "list":
			command, args = actions.Command{
				Name: "action-snapshot list", About: "Lists the snapshots of a prefix, the newest first.",
				Inputs: &listed, Do: func(ctx context.Context, p *actions.Program) error { return p.Snapshots(ctx, &listed) },
			}, args[1:]
		case "delete":
			command, args = actions.Command{
				Name: "action-snapshot delete", About: "Deletes a snapshot.",
				Inputs: &deleted, Do: func(ctx context.Context, p *actions.Program) error { return p.DeleteSnapshot(ctx, &deleted) },
			}, args[1:]
		}
	}
	os.Exit(command.Main(args))
}
