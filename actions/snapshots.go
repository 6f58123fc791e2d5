package actions

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/docker/go-units"
	"github.com/org/sandbox-actions/pkg/daytona"
)

// SnapshotsInputs say which snapshots are listed.
type SnapshotsInputs struct {
	NamePrefix string `help:"How their names begin." default:"iterate-sandbox"`
	DopplerInputs
	DaytonaInputs
}

func (*SnapshotsInputs) vars() kong.Vars             { return kong.Vars{"doppler_config": "dev"} }
func (*SnapshotsInputs) atPrompt() map[string]string { return nil }

// Snapshots lists snapshots, the newest first, for a person.
func (p *Program) Snapshots(ctx context.Context, in *SnapshotsInputs) error {
	client, _, err := p.enter(ctx, in.DopplerInputs, in.DaytonaInputs)
	if err != nil {
		return err
	}
	list, err := client.List(ctx, in.NamePrefix)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(p.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, "NAME\tSTATE\tSIZE\tCREATED\tIMAGE")
	for _, s := range list {
		fmt.Fprintf(out, "%s\t%s\t%.2f GB\t%s ago\t%s\n", s.Name, s.State, s.SizeGB, units.HumanDuration(time.Since(s.Created)), first(s.Digest, s.Image))
	}
	return out.Flush()
}

// DeleteSnapshotInputs say which snapshot is deleted.
type DeleteSnapshotInputs struct {
	Name string `arg:"" help:"Name of the snapshot."`
	DopplerInputs
	DaytonaInputs
}

func (*DeleteSnapshotInputs) vars() kong.Vars             { return kong.Vars{"doppler_config": "dev"} }
func (*DeleteSnapshotInputs) atPrompt() map[string]string { return nil }

// DeleteSnapshot deletes a snapshot, unless Doppler names it.
func (p *Program) DeleteSnapshot(ctx context.Context, in *DeleteSnapshotInputs) error {
	client, doppler, err := p.enter(ctx, in.DopplerInputs, in.DaytonaInputs)
	if err != nil {
		return err
	}
	found, there, err := client.Find(ctx, in.Name)
	if err != nil {
		return err
	}
	if !there {
		return refuse("name", in.Name, "is no snapshot: action-snapshot list shows which there are")
	}
	if doppler.doppler != nil {
		names, err := doppler.doppler.ValuesByConfig(ctx, nameSecret)
		if err != nil {
			return err
		}
		for config, name := range names {
			if name == found.Name {
				return refuse("name", in.Name, "is what Doppler's "+config+" names: make another snapshot first")
			}
		}
	}
	if err := client.Delete(ctx, found.ID); err != nil {
		return err
	}
	if err := client.WaitUntilRemoved(ctx, found.ID); err != nil {
		return err
	}
	p.Runner.Infof("Deleted the snapshot %s", found.Name)
	return nil
}

// enter finds the credentials for Daytona where snapshots have them from.
func (p *Program) enter(ctx context.Context, dopplerIn DopplerInputs, daytonaIn DaytonaInputs) (daytona.Client, credentials, error) {
	doppler, err := p.findCredentials(ctx, dopplerIn, p.Getenv("GITHUB_REPOSITORY"), first(daytonaIn.DaytonaAPIKey, p.Getenv("DAYTONA_API_KEY")) != "")
	if err != nil {
		return daytona.Client{}, doppler, err
	}
	client, err := p.enterDaytona(daytonaIn, dopplerIn.DopplerConfig, doppler.over(p.Getenv))
	return client, doppler, err
}
