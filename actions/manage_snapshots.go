package actions

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// ListSnapshots prints a table of the snapshots with a name prefix, newest first.
func ListSnapshots(ctx context.Context, env Env, in inputs.ListSnapshots) error {
	client, _, err := authenticate(ctx, env, in.Doppler, in.Daytona)
	if err != nil {
		return err
	}
	list, err := client.List(ctx, in.NamePrefix)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(env.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, "NAME\tSTATE\tSIZE\tCREATED\tIMAGE")
	for _, s := range list {
		fmt.Fprintf(out, "%s\t%s\t%.2f GB\t%s ago\t%s\n",
			s.Name, s.State, s.SizeGB, units.HumanDuration(time.Since(s.Created)), cmp.Or(s.Digest, s.Image))
	}
	return out.Flush()
}

// DeleteSnapshot deletes a snapshot and waits until Daytona has removed it. Unless the input force is set, it refuses
// if a Doppler config names the snapshot or sandboxes use it.
func DeleteSnapshot(ctx context.Context, env Env, in inputs.DeleteSnapshot) error {
	in.Doppler.Public = []string{in.DopplerSecret}
	client, config, err := authenticate(ctx, env, in.Doppler, in.Daytona)
	if err != nil {
		return err
	}
	snapshot, found, err := client.Find(ctx, in.Name)
	if err != nil {
		return err
	}
	if !found {
		return inputs.Errorf("name", in.Name, "not found; run action-snapshot list")
	}
	if !in.Force {
		secrets := secretsOf(in.DopplerSecret, in.Name)
		uses, unreadable, err := usesOf(ctx, config, secrets, client, []daytona.Snapshot{snapshot})
		if err != nil {
			return err
		}
		if len(unreadable) > 0 {
			env.Runner.Infof("The Doppler token cannot read %s, which may name the snapshot", strings.Join(unreadable, " and "))
		}
		if use := uses[snapshot.Name]; use != "" {
			return inputs.Errorf("name", in.Name, "is %s; create another snapshot first, or add --force", use)
		}
	}
	if err := client.Remove(ctx, snapshot); err != nil {
		return err
	}
	env.Runner.Infof("Deleted snapshot %s", snapshot.Name)
	return nil
}

// authenticate returns a Daytona client and the Doppler config. Doppler is optional if a Daytona API key is set.
func authenticate(
	ctx context.Context, env Env, doppler inputs.Doppler, in inputs.Daytona,
) (daytona.Client, credentials.Doppler, error) {
	doppler.Default = inputs.DefaultDopplerConfig
	doppler.Optional = credentials.HasDaytonaKey(in.DaytonaAPIKey, env.Getenv, env.Runner.InActions())
	config, err := readDoppler(ctx, env, doppler)
	if err != nil {
		return daytona.Client{}, credentials.Doppler{}, err
	}
	client, err := daytonaClient(env, in, config)
	return client, config, err
}
