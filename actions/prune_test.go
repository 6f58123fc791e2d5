package actions

import (
	"slices"
	"strings"
	"testing"
	"time"

	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// generated is the beginning of a generated name with the prefix agent.
const generated = "agent-20260102-030405-abcdef0-"

// put adds a snapshot with the prefix agent that was created some hours before the current one.
func (c cloud) put(name, state string, hoursAgo int) string {
	return c.Put(cloudaytona.Snapshot{
		Organization: organization, Name: generated + name, State: state,
		Created: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC).Add(-time.Duration(hoursAgo) * time.Hour),
	})
}

// created returns s as the snapshot that a run with c.spec has created.
func (c cloud) created(s daytona.Snapshot) createdSnapshot {
	return createdSnapshot{Spec: c.spec, Target: snapshotTarget{Client: c.client}, Snapshot: s}
}

// Only snapshots that are settled, older than the current one and without sandboxes or warm pools are deleted. Daytona
// itself checks none of that.
func TestPruneSnapshots(t *testing.T) {
	for _, newer := range []bool{false, true} { // only newer servers have an API for warm pools
		c := startDaytona(t, func(o *cloudaytona.Options) { o.Newer = newer })
		id := c.put("current", "active", 0)
		c.put("newer", "active", -1)
		c.put("kept", "active", 1)
		for name, state := range map[string]string{
			"old": "active", "inactive": "inactive", "failed": "error", "sandbox": "active", "pool": "active",
			"pending": "pending", "pulling": "pulling", "unknown": "snapshotting",
		} {
			c.put(name, state, 2)
		}
		c.PutSandbox(cloudaytona.Sandbox{Organization: organization, Snapshot: generated + "sandbox", State: "stopped"})
		c.PutWarmPool(cloudaytona.WarmPool{Organization: organization, Snapshot: generated + "pool", Region: "us", Size: 1})
		current, err := c.client.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		c.spec.Keep = 3 // newer, current, kept
		job, _, log := testJob(t, nil)
		deleted := pruneSnapshots(t.Context(), job, c.spec, credentials.Doppler{}, []createdSnapshot{c.created(current)})
		slices.Sort(deleted)
		want := []string{generated + "failed", generated + "inactive", generated + "old"}
		if !newer {
			want = append(want, generated+"pool") // invisible
			slices.Sort(want)
		}
		if !slices.Equal(deleted, want) {
			t.Errorf("newer server %t: deleted %q, want %q\n%s", newer, deleted, want, log)
		}
		for _, left := range c.names(t) {
			if name, _, _ := strings.Cut(left, " "); slices.Contains(want, name) {
				t.Errorf("%s is left", left)
			}
		}
		if !strings.Contains(log.String(), "Kept snapshot "+generated+"sandbox: used by 1 sandbox\n") {
			t.Errorf("the log does not name the snapshot in use:\n%s", log)
		}
	}
}

func TestDescribeUsage(t *testing.T) {
	for want, used := range map[string]daytona.Usage{
		"used by 1 warm pool": {WarmPools: 1}, "used by 2 sandboxes and 1 warm pool": {Sandboxes: 2, WarmPools: 1},
	} {
		if got := describeUsage(used); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Only names that this program generated for this prefix are deleted: another prefix may begin with it, and people name
// snapshots, too.
func TestPruneKeepsOtherFamilies(t *testing.T) {
	c := startDaytona(t, nil)
	current, err := c.client.Get(t.Context(), c.put("current", "active", 0))
	if err != nil {
		t.Fatal(err)
	}
	c.put("old", "active", 1)
	for _, name := range []string{
		"agent", "agent-v1", "agent-stable", "agent-gpu-20260101-030405-abcdef0-me", "agent-20260101-030405-abcdef0",
		"agent-20260101-030405-nightly-me", "agent-2026011-030405-abcdef0-me", "agent:20260101-030405-abcdef0-me",
	} {
		c.Put(cloudaytona.Snapshot{Organization: organization, Name: name, Created: current.Created.Add(-time.Hour)})
	}
	c.spec.Keep = 1
	job, _, log := testJob(t, nil)
	deleted := pruneSnapshots(t.Context(), job, c.spec, credentials.Doppler{}, []createdSnapshot{c.created(current)})
	if !slices.Equal(deleted, []string{generated + "old"}) {
		t.Errorf("deleted %q, want only %sold\n%s", deleted, generated, log)
	}
}

// A service token sees only its own config. Another config may name a snapshot, so nothing is deleted.
func TestPruneWithUnreadableConfigs(t *testing.T) {
	server, c := startDoppler(t), startDaytona(t, nil)
	current, err := c.client.Get(t.Context(), c.put("current", "active", 0))
	if err != nil {
		t.Fatal(err)
	}
	c.put("old", "active", 1)
	server.SetSecret("app", "dev", nameSecret, generated+"old")
	job, _, log := testJob(t, map[string]string{"DOPPLER_API_HOST": server.URL(), "DOPPLER_TOKEN": "dp.st.prd.x"})
	config, err := readDoppler(t.Context(), job.Env, inputs.Doppler{Default: "prd"})
	if err != nil {
		t.Fatal(err)
	}
	c.spec.Keep, c.spec.Record.Secret = 1, nameSecret
	for _, c.spec.DryRun = range []bool{true, false} {
		deleted := pruneSnapshots(t.Context(), job, c.spec, config, []createdSnapshot{c.created(current)})
		if len(deleted) > 0 || !strings.Contains(log.String(), `cannot read the other configs of project "app"`) ||
			strings.Contains(log.String(), "Would delete") {
			t.Errorf("dry run %t: deleted %q\n%s", c.spec.DryRun, deleted, log)
		}
		log.Reset()
	}
}

// If Daytona does not show the sandboxes, nothing is deleted.
func TestPruneWithUnknownUse(t *testing.T) {
	c := startDaytona(t, nil)
	current, err := c.client.Get(t.Context(), c.put("current", "active", 0))
	if err != nil {
		t.Fatal(err)
	}
	c.put("old", "active", 1)
	c.Fail(cloudaytona.Fault{Path: "/sandbox", Status: 403, Message: "Access denied"})
	c.spec.Keep = 1
	job, _, log := testJob(t, nil)
	deleted := pruneSnapshots(t.Context(), job, c.spec, credentials.Doppler{}, []createdSnapshot{c.created(current)})
	if len(deleted) > 0 || !strings.Contains(log.String(), "warning: find out what uses the snapshots: ") {
		t.Errorf("deleted %q\n%s", deleted, log)
	}
}

// A reused snapshot that is older than others does not make them deletable.
func TestPrunableAfterReuse(t *testing.T) {
	c := startDaytona(t, nil)
	for i, name := range []string{"newest", "newer", "current", "old"} {
		c.put(name, "active", i)
	}
	current, _, err := c.client.Find(t.Context(), generated+"current")
	if err != nil {
		t.Fatal(err)
	}
	c.spec.Keep = 1
	old, err := prunable(t.Context(), c.created(current))
	if err != nil || len(old) != 1 || old[0].Name != generated+"old" {
		t.Errorf("%v, %v", old, err)
	}
	// Another run that ends at the same time has just published the older snapshot. Daytona's clock differs from this
	// machine's.
	created := c.created(current)
	created.Elapsed = current.Created.Sub(old[0].Created) + time.Second
	if old, err := prunable(t.Context(), created); len(old) > 0 {
		t.Errorf("created since the run started: %v, %v", old, err)
	}
}

// A snapshot that sandboxes use is deleted only with force.
func TestDeleteSnapshotInUse(t *testing.T) {
	c := startDaytona(t, nil)
	c.put("old", "active", 1)
	c.PutSandbox(cloudaytona.Sandbox{Organization: organization, Snapshot: generated + "old", State: "started"})
	job, _, _ := testJob(t, nil)
	in := inputs.DeleteSnapshot{
		Name: generated + "old", Daytona: inputs.Daytona{DaytonaAPIKey: fullKey, DaytonaAPIURL: c.URL()},
	}
	err := DeleteSnapshot(t.Context(), job.Env, in)
	if err == nil || !strings.Contains(err.Error(), "--force") || len(c.names(t)) != 1 {
		t.Errorf("%v; left %q", err, c.names(t))
	}
	in.Force = true
	if err := DeleteSnapshot(t.Context(), job.Env, in); err != nil || len(c.names(t)) != 0 {
		t.Errorf("%v; left %q", err, c.names(t))
	}
}

// The permission to delete is checked before the push if a failed snapshot has the name.
func TestCheckNameFree(t *testing.T) {
	c := startDaytona(t, nil)
	for _, state := range []string{"active", "error", "removing"} {
		c.put(state, state, 1)
	}
	for _, test := range []struct {
		name, key string
		ifExists  inputs.IfExists
		want      string // in the error
	}{
		{generated + "free", writeKey, inputs.Reuse, ""},
		{generated + "active", writeKey, inputs.Reuse, ""},
		{generated + "active", fullKey, inputs.Fail, "already exists"},
		{generated + "error", fullKey, inputs.Reuse, ""},
		{generated + "error", fullKey, inputs.Fail, ""},
		{generated + "error", writeKey, inputs.Reuse, daytona.DeleteSnapshots},
		{generated + "removing", writeKey, inputs.Fail, ""},
	} {
		c.client.Key = test.key
		key, err := c.client.CurrentKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = checkNameFree(t.Context(), c.client, key, inputs.SnapshotSpec{Name: test.name, IfExists: test.ifExists})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, %s, %s: %v, want %q", test.name, test.key, test.ifExists, err, test.want)
		}
	}
}
