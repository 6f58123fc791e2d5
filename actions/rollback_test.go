package actions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	local "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/pkg/inputs"
)

func (p promotion) rollback(t *testing.T, arguments ...string) (map[string]string, string, error) {
	t.Helper()
	var in inputs.Rollback
	run := func(ctx context.Context, env Env) error { return Rollback(ctx, env, in) }
	return p.command(t.Context(), t, &in, run, arguments)
}

// setHistory makes prd name the last of the snapshots, after the others.
func (p promotion) setHistory(t *testing.T, names ...string) {
	t.Helper()
	var records []namingRecord
	for _, name := range names {
		records = append(records, namingRecord{
			Name: name, Digest: p.digest(t), Commit: p.commit, Action: actionSnapshot, Verified: "boot", By: "you",
			Time: time.Now().Add(-time.Hour).UTC(),
		})
	}
	data, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	p.doppler.SetSecret("app", "prd", nameSecret, names[len(names)-1])
	p.doppler.SetSecret("app", "prd", historySecret, string(data))
}

// Each rollback goes one snapshot further back, and keeps what is known about it.
func TestRollback(t *testing.T) {
	p := startPromotion(t)
	for _, name := range []string{"agent-1", "agent-2", "agent-3"} {
		p.add(t, name, "active")
	}
	p.setHistory(t, "agent-1", "agent-2", "agent-3")
	for i, want := range []string{"agent-2", "agent-1"} {
		outputs, out, err := p.rollback(t, "--config=prd", "--environment=prd", "--github-token="+deployToken)
		if err != nil || p.doppler.Secret("app", "prd", nameSecret) != want || outputs["snapshot_name"] != want ||
			outputs["previous_snapshot"] != fmt.Sprintf("agent-%d", 3-i) {
			t.Fatalf("rollback %d: %v, outputs %v\n%s", i+1, err, outputs, out)
		}
		record := p.lastRecord(t, "prd")
		if record.Action != actionRollback || record.Replaced != outputs["previous_snapshot"] || record.Commit != p.commit ||
			record.Verified != "boot" || record.By != "me" {
			t.Errorf("record %+v", record)
		}
	}
	_, _, err := p.rollback(t, "--config=prd")
	if err == nil || !strings.Contains(err.Error(), `Doppler config "prd" of project "app" has no name before "agent-1"`) {
		t.Errorf("nothing is left to go back to, but got %v", err)
	}
	want := []string{"prd in_progress,success,inactive " + p.commit, "prd in_progress,success " + p.commit}
	if got := p.deployments(); !slices.Equal(got, want) {
		t.Errorf("deployments %q, want %q", got, want)
	}
}

func TestRollbackFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		states map[string]string
		change func(*promotion)
		err    string
	}{
		{
			name: "deleted", states: map[string]string{"agent-1": "active", "agent-3": "active"},
			err: `snapshot agent-2, which Doppler config "prd" of project "app" named before, was deleted ` +
				"(earlier snapshots: agent-1; run `action-snapshot promote NAME --to prd`)",
		},
		{
			name: "all deleted", states: map[string]string{"agent-1": "error"},
			err: "was deleted (create another one with action-snapshot)",
		},
		{
			name: "replaced", states: map[string]string{"agent-3": "active"}, err: "has another image now",
			change: func(p *promotion) {
				p.Put(cloudaytona.Snapshot{
					Organization: organization, Name: "agent-2", Digest: "sha256:" + strings.Repeat("0", 64),
				})
			},
		},
		{
			name: "inactive, and its image is deleted", states: map[string]string{"agent-2": "inactive"},
			err: "create another one: action-snapshot",
		},
		{
			name: "changed by another run", states: map[string]string{"agent-2": "active"},
			change: func(p *promotion) {
				p.doppler.Fail(local.Fault{Method: "POST", Path: "secrets", Times: 1}) // the check
				p.doppler.Fail(local.Fault{Method: "POST", Path: "secrets", Times: 1, Before: func() {
					p.doppler.SetSecret("app", "prd", nameSecret, "agent-4")
				}})
			},
			err: `another client has set "agent-4" since this run started`,
		},
		{
			name: "no history", err: "has no name before",
			change: func(p *promotion) { p.doppler.SetSecret("app", "prd", historySecret, "") },
		},
		{
			name: "something else in the history", err: "has no name before",
			change: func(p *promotion) { p.doppler.SetSecret("app", "prd", historySecret, "my notes") },
		},
		{
			name: "pull request", err: "is for a pull request",
			change: func(p *promotion) { p.environ["GITHUB_EVENT_NAME"] = "pull_request" },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startPromotion(t)
			for name, state := range test.states {
				p.add(t, name, state)
			}
			p.setHistory(t, "agent-1", "agent-2", "agent-3")
			if test.change != nil {
				test.change(&p)
			}
			outputs, out, err := p.rollback(t, "--config=prd")
			if err == nil || !strings.Contains(err.Error(), test.err) || len(outputs) > 0 || len(p.doppler.Writes()) > 0 {
				t.Errorf("got %v, want %q; outputs %v, writes %v\n%s", err, test.err, outputs, p.doppler.Writes(), out)
			}
		})
	}
}

// The history shows each name with the state of its snapshot. The list shows which configs name a snapshot.
func TestShowHistoryAndList(t *testing.T) {
	p := startPromotion(t)
	for name, state := range map[string]string{"agent-1": "inactive", "agent-3": "active"} {
		p.add(t, name, state)
	}
	p.setHistory(t, "agent-1", "agent-2", "agent-3")
	p.doppler.SetSecret("app", "dev", nameSecret, "agent-3")
	var stdout bytes.Buffer
	job, _, _ := testJob(t, p.environ)
	job.Stdout = &stdout
	doppler := inputs.Doppler{DopplerConfig: "prd"}
	secret := inputs.SnapshotSecret{DopplerSecret: nameSecret}
	rows := func() (rows []string) {
		for line := range strings.Lines(stdout.String()) {
			rows = append(rows, strings.Join(strings.Fields(line), " "))
		}
		stdout.Reset()
		return rows
	}
	if err := ShowHistory(t.Context(), job.Env, inputs.History{Doppler: doppler, SnapshotSecret: secret}); err != nil {
		t.Fatal(err)
	}
	short := p.commit[:7]
	want := []string{
		"NAMED NAME COMMIT STATE SIZE USED ACTION BY VERIFIED",
		"About an hour ago (current) agent-3 " + short + " active 0.00 GB - snapshot you boot",
		"About an hour ago agent-2 " + short + " deleted - - snapshot you boot",
		"About an hour ago agent-1 " + short + " inactive 0.00 GB - snapshot you boot",
	}
	if got := rows(); !slices.Equal(got, want) {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	in := inputs.ListSnapshots{NamePrefix: "agent", Doppler: doppler, SnapshotSecret: secret}
	if err := ListSnapshots(t.Context(), job.Env, in); err != nil {
		t.Fatal(err)
	}
	got := rows()
	i := slices.IndexFunc(got, func(row string) bool { return strings.HasPrefix(row, "agent-3 ") })
	if len(got) != 3 || got[0] != "NAME STATE SIZE CREATED IMAGE COMMIT USED NAMED BY VERIFIED" || i < 0 ||
		!strings.HasSuffix(got[i], p.digest(t)+" "+short+" - app.dev,app.prd boot") {
		t.Errorf("list\n%s", strings.Join(got, "\n"))
	}
	p.doppler.Fail(local.Fault{Path: "/v3/projects", Status: 200, Body: `{"success":true}`})
	if err := ListSnapshots(t.Context(), job.Env, in); err != nil {
		t.Errorf("list without the other configs: %v", err)
	}
	if got := rows(); len(got) != 3 || !strings.HasSuffix(got[1], " - - -") {
		t.Errorf("list\n%s", strings.Join(got, "\n"))
	}
	p.doppler.SetSecret("app", "prd", nameSecret, "agent-9") // by another program
	if err := ShowHistory(t.Context(), job.Env, inputs.History{Doppler: doppler, SnapshotSecret: secret}); err != nil {
		t.Fatal(err)
	}
	if got := rows(); len(got) != 5 || got[1] != "- (current) agent-9 - deleted - - - - -" {
		t.Errorf("history\n%s", strings.Join(got, "\n"))
	}
}

// With --output json, list and history print lists of objects, and the record of the run if they fail.
func TestSnapshotLists(t *testing.T) {
	p := startPromotion(t)
	p.add(t, "agent-1", "active")
	p.add(t, "agent-3", "active")
	p.setHistory(t, "agent-1", "agent-2", "agent-3")
	job, _, _ := testJob(t, p.environ)
	var stdout bytes.Buffer // without the log
	job.Stdout, job.Output = &stdout, inputs.JSONOutput
	secret := inputs.SnapshotSecret{DopplerSecret: nameSecret}
	list := func(config string) error {
		return ListSnapshots(t.Context(), job.Env, inputs.ListSnapshots{
			NamePrefix: "agent", Doppler: inputs.Doppler{DopplerConfig: config}, SnapshotSecret: secret,
		})
	}
	history := func(config string) error {
		return ShowHistory(t.Context(), job.Env, inputs.History{
			Doppler: inputs.Doppler{DopplerConfig: config}, SnapshotSecret: secret,
		})
	}
	for name, command := range map[string]func(config string) error{"list": list, "history": history} {
		if err := command("prd"); err != nil {
			t.Fatal(err)
		}
		var rows []snapshotRow
		if err := json.Unmarshal(stdout.Bytes(), &rows); err != nil {
			t.Fatalf("%s: %v: %s", name, err, stdout.String())
		}
		i := slices.IndexFunc(rows, func(r snapshotRow) bool { return r.Name == "agent-3" })
		if i < 0 || rows[i].State != "active" || rows[i].Commit != p.commit || rows[i].Verified != "boot" ||
			rows[i].Current != (name == "history") || rows[i].Named.IsZero() != (name == "list") {
			t.Errorf("%s: %+v", name, rows)
		}
		stdout.Reset()
		if err := command("absent"); err == nil || parseRecord(t, stdout.Bytes()).Error.Message != err.Error() {
			t.Errorf("%s of a missing config: %v: %s", name, err, stdout.String())
		}
		stdout.Reset()
	}
}

// The snapshot that a rollback would name is in use, for keep and delete.
func TestRollbackTargetIsProtected(t *testing.T) {
	p := startPromotion(t)
	for _, name := range []string{"agent-1", "agent-2", "agent-3"} {
		p.add(t, name, "active")
	}
	p.setHistory(t, "agent-1", "agent-2", "agent-3")
	p.doppler.SetSecret("app", "dev", nameSecret, "")
	p.doppler.SetSecret("app", "dev", historySecret, "")
	job, _, _ := testJob(t, p.environ)
	in := inputs.DeleteSnapshot{Name: "agent-2", SnapshotSecret: inputs.SnapshotSecret{DopplerSecret: nameSecret}}
	err := DeleteSnapshot(t.Context(), job.Env, in)
	if err == nil ||
		!strings.Contains(err.Error(), "is what action-snapshot rollback restores in the Doppler config app.prd") {
		t.Errorf("got %v", err)
	}
	in.Name = "agent-1"
	if err := DeleteSnapshot(t.Context(), job.Env, in); err != nil {
		t.Error(err)
	}
}
