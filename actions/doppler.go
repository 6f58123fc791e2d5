package actions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// readDoppler reads the Doppler config that the inputs, the environment or the Doppler CLI select, if any.
func readDoppler(ctx context.Context, env Env, in inputs.Doppler) (credentials.Doppler, error) {
	defer startActivity(ctx, "Doppler")()
	return credentials.ReadDoppler(ctx, credentials.DopplerSource{
		Config: in.DopplerConfig, Project: in.DopplerProject, Token: in.DopplerToken, Identity: in.DopplerIdentity,
		Default: in.Default, Optional: in.Optional, Public: in.Public,
		Repository: env.Getenv("GITHUB_REPOSITORY"), Dir: env.Dir, InActions: env.Runner.InActions(),
		Getenv: env.Getenv, OIDC: env.oidc(), Mask: env.Runner.MaskAs, Logf: env.Runner.Infof,
	})
}

// dopplerConfig is a Doppler config in which the name of the snapshot is recorded.
type dopplerConfig struct {
	doppler.Client
	Mirror   string // secret that becomes a reference to the name; empty for none
	Previous string // the name in the config when the run started
}

// checkDoppler returns the configs in which the name of the snapshot is recorded. It checks that they are writable.
func checkDoppler(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler,
) ([]dopplerConfig, error) {
	switch {
	case !spec.UpdateDoppler:
		return nil, nil
	case config.Client == nil && spec.Record.Required:
		return nil, inputs.Errorf("update_doppler", "true", "needs a Doppler token; set doppler_token, DOPPLER_TOKEN or "+
			"doppler_identity, or set update_doppler: false")
	case config.Client == nil:
		job.Runner.Notice(runner.Annotation{Title: "Doppler will not be updated", Message: "No Doppler token is set. To " +
			"record the name of the snapshot, set doppler_token, DOPPLER_TOKEN or doppler_identity."})
		return nil, nil
	}
	configs := configsToWrite(spec.Record, *config.Client)
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range configs {
		group.Go(func() error { return configs[i].check(groupCtx, spec.Record) })
	}
	if err := group.Wait(); err != nil {
		return nil, inputs.Wrap("update_doppler", err)
	}
	by := config.Selected
	if len(spec.Record.Configs) > 0 {
		by = "doppler_configs"
	}
	job.Runner.Infof("%s will be set in %s (selected by %s)", spec.Record.Secret, strings.Join(configNames(configs), ", "),
		by)
	return configs, nil
}

// configsToWrite returns the configs of the record, or the config that is read.
func configsToWrite(record inputs.DopplerRecord, read doppler.Client) []dopplerConfig {
	configs := []dopplerConfig{{Client: read}}
	for i, name := range record.Configs {
		client := read
		client.Config = name.Config
		if name.Project != "" {
			client.Project = name.Project
		}
		if i == 0 {
			configs = nil
		}
		if !slices.ContainsFunc(configs, func(c dopplerConfig) bool { return c.Name() == client.Name() }) {
			configs = append(configs, dopplerConfig{Client: client})
		}
	}
	return configs
}

// check checks that the config is writable, and reads the secrets of the record.
func (c *dopplerConfig) check(ctx context.Context, record inputs.DopplerRecord) error {
	if err := c.CheckWrite(ctx, record.Secret, record.Mirror); err != nil {
		return err
	}
	current, err := c.Raw(ctx, record.Secret, record.Mirror)
	if err != nil {
		return err
	}
	c.Previous = current[record.Secret]
	if _, exists := current[record.Mirror]; exists || record.CreateMirror {
		c.Mirror = record.Mirror
	}
	return nil
}

func configNames(configs []dopplerConfig) (names []string) {
	for _, c := range configs {
		names = append(names, c.Project+"."+c.Config)
	}
	return names
}

// dopplerUpdate lists the configs with the name of the snapshot, as PROJECT.CONFIG.
type dopplerUpdate struct {
	Secret             string
	Written, Unchanged []string
}

// updateDoppler records the name of the snapshot in each config. Where another run has recorded a newer snapshot in the
// meantime, it keeps that name.
func updateDoppler(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, snapshot daytona.Snapshot,
) (dopplerUpdate, error) {
	defer startActivity(ctx, "Doppler")()
	update := dopplerUpdate{Secret: spec.Record.Secret}
	var failures []error
	var failed []string
	for i, name := range configNames(target.Doppler) {
		changed, err := recordName(ctx, spec, target, target.Doppler[i], snapshot)
		if newer := (*newerSnapshotError)(nil); errors.As(err, &newer) {
			job.Runner.Notice(runner.Annotation{Title: "Doppler was not updated", Message: name + ": " + newer.Error()})
			err = nil
		}
		switch {
		case err != nil:
			failures, failed = append(failures, err), append(failed, name)
		case changed:
			update.Written = append(update.Written, name)
			job.Runner.Infof("Set %s in %s to %s", spec.Record.Secret, name, snapshot.Name)
		default:
			update.Unchanged = append(update.Unchanged, name)
		}
	}
	if len(failures) == 0 {
		return update, nil
	}
	written := ""
	if len(update.Written) > 0 {
		written = "; updated: " + strings.Join(update.Written, ", ")
	}
	remedy := fmt.Sprintf("run again, or set %s=%s in %s", spec.Record.Secret, snapshot.Name, strings.Join(failed, ", "))
	err := joinErrors(failures)
	if cause := context.Cause(ctx); cause != nil {
		isUpdated := "was not"
		if unknown := (*doppler.UnconfirmedError)(nil); errors.As(err, &unknown) {
			isUpdated = "may not be"
		}
		return update, daytona.WithLeftovers(cause, fmt.Errorf("snapshot %s is active, but Doppler %s updated%s (%s)",
			snapshot.Name, isUpdated, written, remedy))
	}
	return update, fmt.Errorf("snapshot %s is active, but updating Doppler failed: %w%s (%s)", snapshot.Name, err,
		written, remedy)
}

// joinErrors is like [errors.Join], on one line.
func joinErrors(errs []error) error {
	joined := errs[0]
	for _, err := range errs[1:] {
		joined = fmt.Errorf("%w; %w", joined, err)
	}
	return joined
}

// recordName sets the name of the snapshot in a config and reports whether that changed it.
func recordName(
	ctx context.Context, spec inputs.SnapshotSpec, target snapshotTarget, config dopplerConfig, snapshot daytona.Snapshot,
) (changed bool, err error) {
	secret := spec.Record.Secret
	values := map[string]string{secret: snapshot.Name}
	if config.Mirror != "" {
		values[config.Mirror] = "${" + secret + "}"
	}
	return config.Set(ctx, values, func(current map[string]string) error {
		if current[secret] == config.Previous {
			return nil
		}
		return checkNotNewer(ctx, spec, target, snapshot, current[secret])
	})
}

// newerSnapshotError reports that Doppler already names a newer snapshot with the same prefix.
type newerSnapshotError struct{ name string }

func (e *newerSnapshotError) Error() string {
	return fmt.Sprintf("another run has created %s, which is newer", e.name)
}

// checkNotNewer returns a [*newerSnapshotError] if current, the name in Doppler, is that of a newer snapshot.
func checkNotNewer(
	ctx context.Context, spec inputs.SnapshotSpec, target snapshotTarget, snapshot daytona.Snapshot, current string,
) error {
	isOurs := strings.HasPrefix(current, spec.NamePrefix)
	if !isOurs || current == "" || current == snapshot.Name {
		return nil
	}
	other, found, err := target.Client.Find(ctx, current)
	if err != nil {
		return err
	}
	if found && other.Created.After(snapshot.Created) {
		return &newerSnapshotError{current}
	}
	return nil
}

// snapshotDoppler returns the Doppler inputs of a snapshot. Doppler is optional with a Daytona API key, unless the name
// must be recorded.
func snapshotDoppler(job job, spec inputs.SnapshotSpec) inputs.Doppler {
	in := spec.Doppler
	in.Optional = credentials.HasDaytonaKey(spec.Daytona.DaytonaAPIKey, job.Getenv, job.Runner.InActions()) &&
		!(spec.UpdateDoppler && spec.Record.Required)
	return in
}
