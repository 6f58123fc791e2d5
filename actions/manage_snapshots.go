package actions

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// snapshotRow is a row of the tables of list and history, and an element of their JSON.
type snapshotRow struct {
	Name     string    `json:"name"`
	ID       string    `json:"id,omitempty"`
	State    string    `json:"state"` // at Daytona; in a history also deleted, or replaced by another image
	SizeGB   float64   `json:"size_gb,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Digest   string    `json:"digest,omitempty"`
	Image    string    `json:"image,omitempty"`
	Commit   string    `json:"commit,omitempty"` // full or abbreviated; empty if unknown
	Used     time.Time `json:"used,omitzero"`    // last
	NamedBy  []string  `json:"named_by,omitempty"`
	Verified string    `json:"verified,omitempty"` // how it was verified; empty if it was not, or that is unknown

	// Of a history only.
	Named   time.Time `json:"named,omitzero"`
	Current bool      `json:"current,omitempty"`
	Action  string    `json:"action,omitempty"`
	By      string    `json:"by,omitempty"`
}

func newRow(s daytona.Snapshot) snapshotRow {
	return snapshotRow{
		Name: s.Name, ID: s.ID, State: string(s.State), SizeGB: s.SizeGB, Created: s.Created, Digest: s.Digest,
		Image: s.Image, Used: s.Used,
	}
}

// ListSnapshots prints a table of the snapshots with a name prefix, newest first, or with --output json a list.
func ListSnapshots(ctx context.Context, env Env, in inputs.ListSnapshots) error {
	rows, err := listSnapshots(ctx, env, in)
	if err != nil || env.Output == inputs.JSONOutput {
		return env.presentList(rows, err)
	}
	out := tabwriter.NewWriter(env.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, "NAME\tSTATE\tSIZE\tCREATED\tIMAGE\tCOMMIT\tUSED\tNAMED BY\tVERIFIED")
	for _, r := range rows {
		fmt.Fprintf(out, "%s\t%s\t%.2f GB\t%s\t%s\t%s\t%s\t%s\t%s\n",
			r.Name, r.State, r.SizeGB, ago(r.Created), cmp.Or(r.Digest, r.Image), cell(shortCommit(r.Commit)), ago(r.Used),
			cell(strings.Join(r.NamedBy, ",")), cell(r.Verified))
	}
	return out.Flush()
}

func listSnapshots(ctx context.Context, env Env, in inputs.ListSnapshots) ([]snapshotRow, error) {
	in.Doppler.Public = []string{in.DopplerSecret, inputs.HistorySecret(in.DopplerSecret)}
	client, config, err := authenticate(ctx, env, in.Doppler, in.Daytona)
	if err != nil {
		return nil, err
	}
	list, err := client.List(ctx, in.NamePrefix)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && in.NamePrefix != "" {
		env.Runner.Infof("No snapshot has the prefix %s; list all snapshots with --name-prefix=", in.NamePrefix)
	}
	return describeSnapshots(ctx, env, config, in.DopplerSecret, list), nil
}

// describeSnapshots adds what the histories and the names in all readable Doppler configs show. If it cannot read them,
// only Daytona describes the snapshots.
func describeSnapshots(
	ctx context.Context, env Env, config credentials.Doppler, secret string, list []daytona.Snapshot,
) []snapshotRow {
	var values map[string]map[string]string
	if config.Client != nil {
		var unreadable []string
		var err error
		values, unreadable, err = config.Client.ValuesByConfig(ctx, secret, inputs.HistorySecret(secret))
		if err != nil {
			env.Runner.Warning(runner.Annotation{Title: "The list does not show what names the snapshots", Message: err.Error()})
		}
		if len(unreadable) > 0 {
			env.Runner.Infof("The Doppler token cannot read %s, which may name snapshots, too",
				strings.Join(unreadable, " and "))
		}
	}
	rows := []snapshotRow{}
	for _, s := range list {
		row := newRow(s)
		var found namingRecord
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if values[name][secret] == s.Name {
				row.NamedBy = append(row.NamedBy, name)
			}
			records, _ := parseHistory(values[name][inputs.HistorySecret(secret)]) // others are no histories
			if record, ok := recordOf(records, s.Name); ok && record.Digest == s.Digest {
				found.Commit, found.Verified = cmp.Or(found.Commit, record.Commit), cmp.Or(found.Verified, record.Verified)
			}
		}
		row.Commit, row.Verified = commitOf(s, found), found.Verified
		rows = append(rows, row)
	}
	return rows
}

// ShowHistory prints a table of the names in the history of a Doppler config, newest first, with the state of each
// snapshot at Daytona, or with --output json a list.
func ShowHistory(ctx context.Context, env Env, in inputs.History) error {
	rows, err := readHistory(ctx, env, in)
	if err != nil || env.Output == inputs.JSONOutput {
		return env.presentList(rows, err)
	}
	out := tabwriter.NewWriter(env.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, "NAMED\tNAME\tCOMMIT\tSTATE\tSIZE\tUSED\tACTION\tBY\tVERIFIED")
	for _, r := range rows {
		named, size := ago(r.Named), "-"
		if r.Current {
			named += " (current)"
		}
		if r.ID != "" {
			size = fmt.Sprintf("%.2f GB", r.SizeGB)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", named, cell(r.Name), cell(shortCommit(r.Commit)), r.State,
			size, ago(r.Used), cell(r.Action), cell(r.By), cell(r.Verified))
	}
	return out.Flush()
}

// readHistory returns the names in the history of a config, newest first.
func readHistory(ctx context.Context, env Env, in inputs.History) ([]snapshotRow, error) {
	history := inputs.HistorySecret(in.DopplerSecret)
	in.Doppler.Public = []string{in.DopplerSecret, history}
	in.Doppler.Default = inputs.DefaultDopplerConfig
	config, err := readDoppler(ctx, env, in.Doppler)
	if err != nil {
		return nil, err
	}
	client, err := daytonaClient(env, in.Daytona, config)
	if err != nil {
		return nil, err
	}
	list, err := client.List(ctx, "")
	if err != nil {
		return nil, err
	}
	records, err := parseHistory(config.Secrets[history])
	if err != nil {
		return nil, fmt.Errorf("read %s: %s %w", config.Client.Name(), history, err)
	}
	current := config.Secrets[in.DopplerSecret]
	if len(records) == 0 || records[len(records)-1].Name != current {
		records = append(records, namingRecord{Name: current}) // set by another program
	}
	rows := []snapshotRow{}
	for i, r := range slices.Backward(records) {
		row := snapshotRow{Name: r.Name, State: "deleted", Digest: r.Digest}
		if n := slices.IndexFunc(list, func(s daytona.Snapshot) bool { return s.Name == r.Name }); n >= 0 {
			row = newRow(list[n])
			if r.Digest != "" && r.Digest != row.Digest {
				row.State, row.Digest = "replaced", r.Digest
			}
		}
		row.Commit = commitOf(daytona.Snapshot{Name: r.Name, Digest: r.Digest}, r)
		row.Named, row.Current, row.Action, row.By = r.Time, i == len(records)-1, r.Action, r.By
		row.Verified = r.Verified
		rows = append(rows, row)
	}
	return rows, nil
}

// ago returns how long ago a time was, or "-" if it is unknown.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

// cell returns a value for a table, which has no empty cells, so that scripts can split its rows.
func cell(value string) string { return cmp.Or(value, "-") }

// shortCommit returns an abbreviated commit, with -dirty if it has that.
func shortCommit(commit string) string {
	sha, isDirty := strings.CutSuffix(commit, "-dirty")
	if isDirty {
		return humanize.Commit(sha) + "-dirty"
	}
	return humanize.Commit(sha)
}

// DeleteSnapshot deletes a snapshot and waits until Daytona has removed it. Unless the input force is set, it refuses
// if a Doppler config names the snapshot or sandboxes use it.
func DeleteSnapshot(ctx context.Context, env Env, in inputs.DeleteSnapshot) error {
	in.Doppler.Public = []string{in.DopplerSecret, inputs.HistorySecret(in.DopplerSecret)}
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
	doppler.Default, doppler.Instead = inputs.DefaultDopplerConfig, "set daytona_api_key"
	doppler.Optional = credentials.HasDaytonaKey(in.DaytonaAPIKey, env.Getenv, env.Runner.InActions())
	config, err := readDoppler(ctx, env, doppler)
	if err != nil {
		return daytona.Client{}, credentials.Doppler{}, err
	}
	client, err := daytonaClient(env, in, config)
	return client, config, err
}
