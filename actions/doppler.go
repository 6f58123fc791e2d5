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

// dopplerConfig is a Doppler config in which the names of the snapshots are recorded.
type dopplerConfig struct {
	doppler.Client
	Previous map[string]string // values when the run started, of the secrets that existed
}

// mirror returns the secret that becomes a reference to the name; empty for none.
func (c dopplerConfig) mirror(record inputs.DopplerRecord) string {
	if _, exists := c.Previous[record.Mirror]; exists || record.CreateMirror {
		return record.Mirror
	}
	return ""
}

// checkDoppler returns the configs in which the names of the snapshots are recorded. It checks that they are writable.
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
	var secrets, mirrors []string
	for _, v := range spec.Each() {
		secrets, mirrors = append(secrets, v.Record.Secret), append(mirrors, v.Record.Mirror)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range configs {
		group.Go(func() error { return configs[i].check(groupCtx, append(slices.Clone(secrets), mirrors...)) })
	}
	if err := group.Wait(); err != nil {
		return nil, inputs.Wrap("update_doppler", err)
	}
	by := config.Selected
	if len(spec.Record.Configs) > 0 {
		by = "doppler_configs"
	}
	job.Runner.Infof("%s will be set in %s (selected by %s)", strings.Join(secrets, ", "),
		strings.Join(configNames(configs), ", "), by)
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

// check checks that the secrets are writable, and reads them.
func (c *dopplerConfig) check(ctx context.Context, secrets []string) (err error) {
	if err := c.CheckWrite(ctx, secrets...); err != nil {
		return err
	}
	c.Previous, err = c.Raw(ctx, secrets...)
	return err
}

func configNames(configs []dopplerConfig) (names []string) {
	for _, c := range configs {
		names = append(names, c.Project+"."+c.Config)
	}
	return names
}

// dopplerUpdate lists the configs with the names of the snapshots, as PROJECT.CONFIG.
type dopplerUpdate struct {
	Secrets            []string
	Written, Unchanged []string
}

// updateDoppler records the names of the snapshots in each config, all of them in one call. Where another run has
// recorded a newer snapshot in the meantime, it keeps the names in that config.
func updateDoppler(ctx context.Context, job job, created []createdSnapshot) (dopplerUpdate, error) {
	defer startActivity(ctx, "Doppler")()
	var update dopplerUpdate
	var names, assignments []string
	for _, c := range created {
		update.Secrets = append(update.Secrets, c.Spec.Record.Secret)
		names = append(names, c.Snapshot.Name)
		assignments = append(assignments, c.Spec.Record.Secret+"="+c.Snapshot.Name)
	}
	configs := created[0].Target.Doppler
	var failures []error
	var failed []string
	for i, name := range configNames(configs) {
		changed, err := recordNames(ctx, configs[i], created)
		if newer := (*newerSnapshotError)(nil); errors.As(err, &newer) {
			job.Runner.Notice(runner.Annotation{Title: "Doppler was not updated", Message: name + ": " + newer.Error()})
			err = nil
		}
		switch {
		case err != nil:
			failures, failed = append(failures, err), append(failed, name)
		case changed:
			update.Written = append(update.Written, name)
			for j, secret := range update.Secrets {
				job.Runner.Infof("Set %s in %s to %s", secret, name, names[j])
			}
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
	remedy := fmt.Sprintf("run again, or set %s in %s", strings.Join(assignments, " and "), strings.Join(failed, ", "))
	active := "snapshot " + names[0] + " is active"
	if len(names) > 1 {
		active = "snapshots " + strings.Join(names, ", ") + " are active"
	}
	err := joinErrors(failures)
	if cause := context.Cause(ctx); cause != nil {
		isUpdated := "was not"
		if unknown := (*doppler.UnconfirmedError)(nil); errors.As(err, &unknown) {
			isUpdated = "may not be"
		}
		return update, daytona.WithLeftovers(cause, fmt.Errorf("%s, but Doppler %s updated%s (%s)", active, isUpdated,
			written, remedy))
	}
	return update, fmt.Errorf("%s, but updating Doppler failed: %w%s (%s)", active, err, written, remedy)
}

// joinErrors is like [errors.Join], on one line.
func joinErrors(errs []error) error {
	joined := errs[0]
	for _, err := range errs[1:] {
		joined = fmt.Errorf("%w; %w", joined, err)
	}
	return joined
}

// recordNames sets the names of the snapshots in a config and reports whether that changed it. It sets none if the
// config has the name of a newer snapshot in place of one of them.
func recordNames(ctx context.Context, config dopplerConfig, created []createdSnapshot) (changed bool, err error) {
	values := map[string]string{}
	for _, c := range created {
		secret := c.Spec.Record.Secret
		values[secret] = c.Snapshot.Name
		if mirror := config.mirror(c.Spec.Record); mirror != "" {
			values[mirror] = "${" + secret + "}"
		}
	}
	return config.Set(ctx, values, func(current map[string]string) error {
		for _, c := range created {
			secret := c.Spec.Record.Secret
			if current[secret] == config.Previous[secret] {
				continue
			}
			if err := checkNotNewer(ctx, c, current[secret]); err != nil {
				return err
			}
		}
		return nil
	})
}

// newerSnapshotError reports that Doppler already names a newer snapshot with the same prefix.
type newerSnapshotError struct{ name string }

func (e *newerSnapshotError) Error() string {
	return fmt.Sprintf("another run has created %s, which is newer", e.name)
}

// checkNotNewer returns a [*newerSnapshotError] if current, the name in Doppler, is that of a newer snapshot.
func checkNotNewer(ctx context.Context, c createdSnapshot, current string) error {
	isOurs := strings.HasPrefix(current, c.Spec.NamePrefix)
	if !isOurs || current == "" || current == c.Snapshot.Name {
		return nil
	}
	other, found, err := c.Target.Client.Find(ctx, current)
	if err != nil {
		return err
	}
	if found && other.Created.After(c.Snapshot.Created) {
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
