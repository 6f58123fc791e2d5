package actions

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	config, err := credentials.ReadDoppler(ctx, dopplerSource(env, in))
	if errors.Is(err, credentials.ErrNoDopplerToken) && in.Instead != "" {
		err = fmt.Errorf("%w; without Doppler, %s", err, in.Instead)
	}
	return config, err
}

func dopplerSource(env Env, in inputs.Doppler) credentials.DopplerSource {
	return credentials.DopplerSource{
		Config: in.DopplerConfig, Project: in.DopplerProject, Token: in.DopplerToken, Identity: in.DopplerIdentity,
		Default: in.Default, Optional: in.Optional, Public: in.Public,
		Repository: env.Getenv("GITHUB_REPOSITORY"), Dir: env.Dir, InActions: env.Runner.InActions(),
		Getenv: env.Getenv, OIDC: env.oidc(), Mask: env.Runner.MaskAs, Logf: env.Runner.Infof,
	}
}

// dopplerConfig is a Doppler config in which the name of the snapshot is recorded.
type dopplerConfig struct {
	doppler.Client
	Mirror   string         // secret that becomes a reference to the name; empty for none
	History  string         // secret with the last names; empty for none
	Previous string         // the name in the config when the run started
	Records  []namingRecord // the last names when the run started
}

// checkDoppler returns the configs in which the name of the snapshot is recorded. It checks that they are writable.
func checkDoppler(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler,
) ([]dopplerConfig, error) {
	switch {
	case !spec.UpdateDoppler:
		return nil, nil
	case config.Client == nil && spec.Record.Required:
		return nil, errUpdateWithoutToken()
	case config.Client == nil:
		job.Runner.Notice(runner.Annotation{Title: "Doppler will not be updated", Message: "No Doppler token is set. To " +
			"record the name of the snapshot, set doppler_token, DOPPLER_TOKEN or doppler_identity."})
		return nil, nil
	}
	configs := configsToWrite(spec.Record, *config.Client)
	if err := checkConfigs(ctx, job, spec.Record, configs); err != nil {
		return nil, inputs.Wrap("update_doppler", err)
	}
	by := config.Selected
	if len(spec.Record.Configs) > 0 {
		by = "doppler_configs"
	}
	job.Runner.Infof("%s will be set in %s (selected by %s)", spec.Record.Secret, strings.Join(configNames(configs), ", "),
		by)
	noticeOtherPrefix(job, spec, configs)
	return configs, nil
}

func errUpdateWithoutToken() error {
	return inputs.Errorf("update_doppler", "true", "needs a Doppler token; set doppler_token, DOPPLER_TOKEN or "+
		"doppler_identity, or set update_doppler: false")
}

// noticeOtherPrefix reports that a config names a snapshot with another prefix, for example because the default has
// changed since: this run neither reuses nor deletes those snapshots.
func noticeOtherPrefix(job job, spec inputs.SnapshotSpec, configs []dopplerConfig) {
	for _, config := range configs {
		other := prefixOf(config.Previous)
		if spec.Name != "" || other == config.Previous || other == spec.NamePrefix {
			continue
		}
		other = strings.TrimSuffix(other, "-"+spec.Variant)
		job.Runner.Notice(runner.Annotation{Title: "Older snapshots have another prefix", Message: fmt.Sprintf(
			"%s names %s, but this run uses the prefix %s: set name_prefix: %[4]s to reuse and prune the older snapshots, or "+
				"delete them (action-snapshot list --name-prefix %[4]s)",
			config.Name(), config.Previous, spec.NamePrefix, other)})
	}
}

// checkConfigs checks that the configs are writable, and reads the secrets of the record in each.
func checkConfigs(ctx context.Context, job job, record inputs.DopplerRecord, configs []dopplerConfig) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range configs {
		group.Go(func() error { return configs[i].check(groupCtx, record) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, config := range configs {
		if config.History == "" && record.History != "" {
			job.Runner.Warning(runner.Annotation{Title: "The name will not be added to the history", Message: fmt.Sprintf(
				"%s in %s %v (remove it, or set doppler_history: false)", record.History, config.Name(), errNotHistory)})
		}
	}
	return nil
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
	return c.readNames(ctx, record)
}

// readNames reads the secrets of the record. History is empty afterwards if its secret contains something else.
func (c *dopplerConfig) readNames(ctx context.Context, record inputs.DopplerRecord) (err error) {
	names := []string{record.Secret, record.Mirror}
	if record.History != "" {
		names = append(names, record.History)
	}
	current, err := c.Raw(ctx, names...)
	if err != nil {
		return err
	}
	c.Previous = current[record.Secret]
	if _, exists := current[record.Mirror]; exists || record.CreateMirror {
		c.Mirror = record.Mirror
	}
	if c.Records, err = parseHistory(current[record.History]); err == nil {
		c.History = record.History
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
	Outdated           []string // those of Unchanged that another run has set to a newer snapshot
}

// namings returns what to record for the snapshots of a run. Where another run has recorded a newer snapshot in the
// meantime, the config keeps its names.
func namings(ctx context.Context, job job, created []createdSnapshot) (names []naming) {
	for _, c := range created {
		names = append(names, naming{
			Configs: c.Target.Doppler, Secret: c.Spec.Record.Secret,
			Record: recordOfSnapshot(ctx, job, c),
			AllowChange: func(ctx context.Context, current string) error {
				return checkNotNewer(ctx, c.Spec, c.Target, c.Snapshot, current)
			},
		})
	}
	return names
}

// naming is an active snapshot and where its name is recorded.
type naming struct {
	Configs []dopplerConfig
	Secret  string
	Record  namingRecord
	// AllowChange is called if another client has set another name since the run started. Its error is that of the
	// config, except a [*newerSnapshotError], for which the config keeps the other name.
	AllowChange func(ctx context.Context, current string) error
}

// write records the name in each config, also if it fails for another one.
func (n naming) write(ctx context.Context, job job) (dopplerUpdate, error) {
	return writeNames(ctx, job, []naming{n})
}

// writeNames records names, which have the same configs, in each config: all of them in one call, or none.
func writeNames(ctx context.Context, job job, all []naming) (_ dopplerUpdate, err error) {
	defer startActivity(ctx, "Doppler")()
	if len(all[0].Configs) > 0 {
		defer startPhase(ctx, "Update Doppler").inGroup(job.Runner).end(&err)
	}
	var secrets, names, assignments []string
	for _, n := range all {
		secrets, names = append(secrets, n.Secret), append(names, n.Record.Name)
		assignments = append(assignments, n.Secret+"="+n.Record.Name)
	}
	update := dopplerUpdate{Secret: strings.Join(secrets, ", ")}
	var failures []error
	var failed []string
	for i, name := range configNames(all[0].Configs) {
		changed, err := writeTo(ctx, i, all)
		if newer := (*newerSnapshotError)(nil); errors.As(err, &newer) {
			job.Runner.Notice(runner.Annotation{Title: "Doppler was not updated", Message: name + ": " + newer.Error()})
			update.Outdated = append(update.Outdated, name)
			err = nil
		}
		switch {
		case err != nil:
			failures, failed = append(failures, err), append(failed, name)
		case changed:
			update.Written = append(update.Written, name)
			for _, n := range all {
				job.Runner.Infof("Set %s in %s to %s", n.Secret, name, n.Record.Name)
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
	err = joinErrors(failures)
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

// writeTo sets the names in the config of the index, adds them to the histories, and reports whether that changed a
// name or a mirror.
func writeTo(ctx context.Context, index int, all []naming) (changed bool, err error) {
	var secrets []string
	for _, n := range all {
		secrets = append(secrets, n.Secret)
		for _, name := range []string{n.Configs[index].Mirror, n.Configs[index].History} {
			if name != "" {
				secrets = append(secrets, name)
			}
		}
	}
	written, err := all[0].Configs[index].Update(ctx, secrets, func(values map[string]string) error {
		before := maps.Clone(values)
		for _, n := range all {
			values[n.Secret] = n.Record.Name
			if mirror := n.Configs[index].Mirror; mirror != "" {
				values[mirror] = "${" + n.Secret + "}"
			}
		}
		changed = changed || !maps.Equal(values, before)
		for _, n := range all {
			if err := n.checkAndRecord(ctx, n.Configs[index], before, values); err != nil {
				return err
			}
		}
		return nil
	})
	return written && changed, err
}

// checkAndRecord returns the error of AllowChange, or adds the name to the history in values.
func (n naming) checkAndRecord(ctx context.Context, config dopplerConfig, before, values map[string]string) error {
	if current := before[n.Secret]; current != config.Previous && current != n.Record.Name {
		if err := n.AllowChange(ctx, current); err != nil {
			return err
		}
	}
	if config.History == "" {
		return nil
	}
	history, err := addToHistory(before[config.History], before[n.Secret], n.Record)
	if err == nil && history != "" { // otherwise another client has changed it into something else
		values[config.History] = history
	}
	return nil
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
	in.Instead = "set daytona_api_key and update_doppler: false"
	in.Optional = credentials.HasDaytonaKey(spec.Daytona.DaytonaAPIKey, job.Getenv, job.Runner.InActions()) &&
		!(spec.UpdateDoppler && spec.Record.Required)
	return in
}
