package actions

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// usesOf maps the names of snapshots to what uses them: a Doppler config that has it in one of the secrets or would
// have it after a rollback, sandboxes or warm pools. unreadable describes the configs that the token cannot read and
// that may name any of them. Daytona itself does not check: it deletes a snapshot that sandboxes use (daytonaio/daytona
// v0.190.0, apps/api/src/sandbox/services/snapshot.service.ts, removeSnapshot).
func usesOf(
	ctx context.Context, config credentials.Doppler, secrets []string, client daytona.Client,
	snapshots []daytona.Snapshot,
) (uses map[string]string, unreadable []string, err error) {
	uses = map[string]string{}
	var names []string
	for _, s := range snapshots {
		names = append(names, s.Name)
	}
	usage, err := client.Usage(ctx, names...)
	if err != nil {
		return nil, nil, fmt.Errorf("find out what uses the snapshots: %w", err)
	}
	for name, used := range usage {
		uses[name] = describeUsage(used)
	}
	if config.Client == nil {
		return uses, nil, nil
	}
	read := slices.Clone(secrets)
	for _, secret := range secrets {
		read = append(read, inputs.HistorySecret(secret))
	}
	values, unreadable, err := config.Client.ValuesByConfig(ctx, read...)
	configs := slices.Sorted(maps.Keys(values))
	for _, config := range configs {
		for _, secret := range secrets {
			records, _ := parseHistory(values[config][inputs.HistorySecret(secret)]) // others are no histories
			if previous, found := rollbackTarget(records, values[config][secret]); found && uses[previous.Name] == "" {
				uses[previous.Name] = "what action-snapshot rollback restores in the Doppler config " + config
			}
		}
	}
	for _, config := range configs {
		for _, secret := range secrets {
			if name := values[config][secret]; name != "" {
				uses[name] = "named by the Doppler config " + config
			}
		}
	}
	return uses, unreadable, err
}

// secretsOf returns the secrets that may contain the name of a snapshot: the given one, and those of the variants that
// the name may end in, or the prefix of a generated name.
func secretsOf(secret, name string) []string {
	family := prefixOf(name)
	secrets := []string{secret}
	for i := range family {
		if variant, ok := strings.CutPrefix(family[i:], "-"); ok && inputs.IsVariant(variant) {
			secrets = append(secrets, inputs.VariantSecret(secret, variant))
		}
	}
	return secrets
}

// describeUsage returns, for example, "used by 2 sandboxes and 1 warm pool".
func describeUsage(used daytona.Usage) string {
	var parts []string
	for _, part := range []struct {
		count int
		one   string
		many  string
	}{{used.Sandboxes, "sandbox", "sandboxes"}, {used.WarmPools, "warm pool", "warm pools"}} {
		switch part.count {
		case 0:
		case 1:
			parts = append(parts, "1 "+part.one)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", part.count, part.many))
		}
	}
	return "used by " + strings.Join(parts, " and ")
}
