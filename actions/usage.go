package actions

import (
	"context"
	"fmt"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
)

// usesOf maps the names of snapshots to what uses them: a Doppler config, sandboxes or warm pools. Daytona itself does
// not check: it deletes a snapshot that sandboxes use (daytonaio/daytona v0.190.0, apps/api/src/sandbox/services/snapshot.service.ts,
// removeSnapshot).
func usesOf(
	ctx context.Context, config credentials.Doppler, client daytona.Client, snapshots []daytona.Snapshot,
) (map[string]string, error) {
	uses := map[string]string{}
	var names []string
	for _, s := range snapshots {
		names = append(names, s.Name)
	}
	usage, err := client.Usage(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("find out what uses the snapshots: %w", err)
	}
	for name, used := range usage {
		uses[name] = fmt.Sprintf("%d sandboxes and %d warm pools use it", used.Sandboxes, used.WarmPools)
	}
	configs, err := configsByName(ctx, config)
	for name, config := range configs {
		uses[name] = "the Doppler config " + config + " names it"
	}
	return uses, err
}

// configsByName maps the name of a snapshot to a Doppler config that names it.
func configsByName(ctx context.Context, config credentials.Doppler) (map[string]string, error) {
	if config.Client == nil {
		return nil, nil
	}
	values, err := config.Client.ValuesByConfig(ctx, credentials.SnapshotNameSecret)
	configOf := map[string]string{}
	for config, name := range values {
		configOf[name] = config
	}
	return configOf, err
}
