package actions

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	clouddoppler "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/pkg/daytona"
	"golang.org/x/sys/unix"
)

// snapshots are those at Daytona by name.
func (w *world) snapshots(t *testing.T) map[string]daytona.Snapshot {
	t.Helper()
	list, err := w.daytona().List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]daytona.Snapshot{}
	for _, s := range list {
		found[s.Name] = s
	}
	return found
}

func (w *world) daytona() *daytona.Client {
	return &daytona.Client{URL: w.Daytona.URL(), Key: w.DaytonaKey}
}

// unique makes an image that no snapshot is of.
func unique(t *testing.T) string {
	return small + "LABEL test=" + strings.ReplaceAll(t.Name(), "/", "-") + "\n"
}

// What goes wrong with a snapshot, and the one sentence that says so. Nothing is left at Daytona, and Doppler is as it was.
func TestSnapshotFailures(t *testing.T) {
	w := cloud(t)
	readOnly := "dp.st.dev.readonly"
	if err := w.Doppler.AddToken(clouddoppler.Token{Value: readOnly, Access: []clouddoppler.Access{{Project: localcloud.Project, Config: "dev"}}}); err != nil {
		t.Fatal(err)
	}
	fails := func(f cloudaytona.Fault) func() { return func() { w.Daytona.Fail(f) } }
	for _, test := range []struct {
		name     string
		do       func()
		inputs   map[string]string
		env      map[string]string
		sentence string
		spends   bool // an image is built all the same
	}{
		{name: "name of 300 letters", inputs: map[string]string{"name": strings.Repeat("n", 300)}, sentence: `input name: .*`},
		{name: "name with a space", inputs: map[string]string{"name": "my snapshot"}, sentence: `input name: .*"my snapshot"`},
		{name: "name in other letters", inputs: map[string]string{"name": "снимок"}, sentence: `input name: `},
		{name: "prefix with a space", inputs: map[string]string{"name_prefix": "my prefix"}, sentence: `input name_prefix: `},
		{name: "a fraction", inputs: map[string]string{"cpu": "1.5"}, sentence: `cpu.*1\.5`},
		{name: "zero", inputs: map[string]string{"memory": "0"}, sentence: `memory.*0`},
		{name: "negative", inputs: map[string]string{"disk": "-1"}, sentence: `disk.*-1`},
		{name: "over quota", inputs: map[string]string{"cpu": "64"}, sentence: `(?i)cpu.*64.*4`},
		{name: "platform", inputs: map[string]string{"platform": "linux/arm64"}, sentence: `input platform: "linux/arm64" is no platform of Daytona's: write linux/amd64, and nothing else`},
		{name: "load", inputs: map[string]string{"load": "true"}, sentence: `input load: "true" is not for a snapshot`},
		{name: "if_exists", inputs: map[string]string{"if_exists": "maybe"}, sentence: `input if_exists: "maybe" is unknown: write reuse, replace or fail`},
		{name: "keep", inputs: map[string]string{"keep": "-1"}, sentence: `input keep: "-1" is no number of snapshots`},
		{name: "entrypoint", inputs: map[string]string{"entrypoint": `sh -c "x`}, sentence: `input entrypoint: .*can not be split into words`},
		{name: "region", inputs: map[string]string{"region": "moon"}, sentence: `input region: .*"moon".*local`},

		{name: "no Doppler token", env: map[string]string{"DOPPLER_TOKEN": ""}, sentence: `input doppler_config: "dev" can not be read without a token`},
		{name: "unknown config", inputs: map[string]string{"doppler_config": "stg"}, sentence: `Doppler`},
		{name: "a token that may not write", inputs: map[string]string{"doppler_token": readOnly}, sentence: `input update_doppler: `},
		{name: "wrong key", inputs: map[string]string{"daytona_api_key": "dtn_wrong"}, sentence: `(?i)daytona.*401|does not accept`},
		{name: "a key without the permission", inputs: map[string]string{"daytona_api_key": w.DaytonaReadKey}, sentence: `has not the permission write:snapshots: make a key that has`},
		{name: "an expired key", inputs: map[string]string{"daytona_api_key": w.DaytonaExpiredKey}, sentence: `(?i)expired`},
		{name: "a key of another organization", inputs: map[string]string{"daytona_api_key": w.DaytonaOtherKey, "daytona_organization_id": localcloud.DaytonaOrganization}, sentence: `organization`},
		{name: "429 for ever", do: fails(cloudaytona.Fault{Status: 429, Message: "Too Many Requests"}), sentence: `429`},
		{name: "500 for ever", do: fails(cloudaytona.Fault{Status: 500, Message: "Internal server error"}), sentence: `500`},
		{name: "HTML", do: fails(cloudaytona.Fault{Status: 200, Body: "<html>sign in</html>"}), sentence: `(?i)daytona`},
		{name: "taken, and if_exists is fail", inputs: map[string]string{"name": "taken", "if_exists": "fail"}, sentence: `input name: "taken" is taken by a snapshot that is active, and if_exists is fail`},

		{name: "taken by another image", inputs: map[string]string{"name": "taken"}, spends: true, sentence: `input name: "taken" is taken by a snapshot of another image or of other resources, and if_exists is reuse`},
		{name: "the registry refuses the push", do: fails(cloudaytona.Fault{Registry: cloudaytona.RefusesPush}), spends: true, sentence: `push .*: .*give it the right`},
		{name: "the registry loses a blob", do: fails(cloudaytona.Fault{Registry: cloudaytona.LosesBlob}), spends: true, sentence: `.`},
		{name: "a state that never changes", do: fails(cloudaytona.Fault{Snapshot: cloudaytona.Stuck}), inputs: map[string]string{"timeout": "8s"}, spends: true,
			sentence: `the timeout of 8s is over, while waiting for the snapshot \S+ to be active \(look at https://app.daytona.io/dashboard/snapshots\)`},
		{name: "active, and then not", do: fails(cloudaytona.Fault{Snapshot: cloudaytona.Falls}), spends: true, sentence: `(?i)error`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "a key of another organization" { // which is seen only where it has a snapshot
				w.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.OtherOrganization, Name: "another's"})
			}
			if strings.HasPrefix(test.name, "taken") {
				w.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "taken"})
				defer w.forget(t, "taken")
			}
			before, doppler, calls := w.snapshots(t), w.Doppler.Secret(localcloud.Project, "dev", nameSecret), len(w.Depot.Calls())
			if test.do != nil {
				test.do()
				defer w.Daytona.Heal()
			}
			o := w.run(t, invocation{program: "action-snapshot", docker: unique(t), inputs: test.inputs, env: withEnv(map[string]string{"DAYTONA_API_KEY": "", "GITHUB_ACTOR": "octocat"}, test.env)})
			failedWith(t, o, test.sentence)
			w.Daytona.Heal()
			if spent := len(w.Depot.Calls()) > calls; spent != test.spends {
				t.Errorf("Depot was asked: %t, want %t", spent, test.spends)
			}
			w.gone(t, before)
			if now := w.Doppler.Secret(localcloud.Project, "dev", nameSecret); now != doppler {
				t.Errorf("Doppler named %q, and names %q", doppler, now)
			}
		})
	}
}

func withEnv(base, over map[string]string) map[string]string {
	merged := maps.Clone(base)
	maps.Copy(merged, over)
	return merged
}

// forget deletes a snapshot.
func (w *world) forget(t *testing.T, name string) {
	t.Helper()
	c := w.daytona()
	if s, found, err := c.Find(t.Context(), name); err != nil {
		t.Error(err)
	} else if found {
		if err := c.Delete(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
		if err := c.WaitUntilRemoved(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
	}
}

// gone asserts that Daytona has no more snapshots than before, or soon.
func (w *world) gone(t *testing.T, before map[string]daytona.Snapshot) {
	t.Helper()
	for name, s := range w.snapshots(t) {
		if _, there := before[name]; there {
			continue
		}
		if s.State != daytona.Removing {
			t.Errorf("the snapshot %s was left %s", name, s.State)
			continue
		}
		if err := w.daytona().WaitUntilRemoved(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
	}
}

// Troubles that pass are nobody's.
func TestSnapshotPassingTroubles(t *testing.T) {
	w := cloud(t)
	for name, fault := range map[string]cloudaytona.Fault{
		"500 once":                       {Method: "GET", Times: 1, Status: 500, Message: "moment"},
		"429 with a wait":                {Method: "GET", Times: 1, Status: 429, Header: map[string]string{"Retry-After": "1"}},
		"created, and the answer lost":   {Method: "POST", Path: "/snapshots", Times: 2, Break: true, After: true},
		"a state that nobody knows":      {Snapshot: cloudaytona.Strange},
		"access ends during the push":    {Registry: cloudaytona.Expires, Times: 1},
		"a connection that breaks, once": {Method: "GET", Path: "/snapshots", Times: 1, Break: true},
	} {
		t.Run(name, func(t *testing.T) {
			w.Daytona.Fail(fault)
			defer w.Daytona.Heal()
			before := w.snapshots(t)
			o := w.succeed(t, invocation{program: "action-snapshot", docker: unique(t), inputs: map[string]string{"update_doppler": "false"}})
			if more := len(w.snapshots(t)) - len(before); more != 1 || o.outputs["doppler_updated"] != "false" {
				t.Errorf("%d more snapshots; outputs %v", more, o.outputs)
			}
			w.forget(t, o.outputs["snapshot_name"])
		})
	}
}

// Doppler fails when the snapshot is there: it stays, the sentence says how to finish by hand, and a second run finishes by itself.
func TestDopplerFailsAtTheEnd(t *testing.T) {
	w := cloud(t)
	docker := unique(t)
	// The first POST is the question whether the token may write.
	w.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1})
	w.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Status: 500})
	o := w.run(t, invocation{program: "action-snapshot", docker: docker})
	w.Doppler.Heal()
	failedWith(t, o, `the snapshot (\S+) is active, but Doppler does not name it: .*; run it again, or set DAYTONA_SNAPSHOT_NAME=\S+ in the config "dev" by hand`)
	o = w.succeed(t, invocation{program: "action-snapshot", docker: docker})
	if o.outputs["reused"] != "true" || o.outputs["doppler_updated"] != "true" || w.Doppler.Secret(localcloud.Project, "dev", nameSecret) != o.outputs["snapshot_name"] {
		t.Errorf("outputs %v", o.outputs)
	}
}

// Another run has made a newer snapshot while ours was made: Doppler stays with it.
func TestDopplerKeepsWhatIsNewer(t *testing.T) {
	w := cloud(t)
	w.Doppler.SetSecret(localcloud.Project, "dev", nameSecret, "iterate-sandbox-older")
	w.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1}) // the question whether the token may write
	w.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1, Before: func() {
		w.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "iterate-sandbox-newer", Created: time.Now().Add(time.Second)})
		w.Doppler.SetSecret(localcloud.Project, "dev", nameSecret, "iterate-sandbox-newer")
	}})
	defer w.Doppler.Heal()
	defer w.forget(t, "iterate-sandbox-newer")
	o := w.succeed(t, invocation{program: "action-snapshot", docker: unique(t)})
	if got := w.Doppler.Secret(localcloud.Project, "dev", nameSecret); got != "iterate-sandbox-newer" || o.outputs["doppler_updated"] != "false" {
		t.Errorf("Doppler names %q; outputs %v", got, o.outputs)
	}
	if !strings.Contains(o.stdout, "another run has made iterate-sandbox-newer meanwhile") {
		t.Errorf("the log does not say so:\n%s", o.stdout)
	}
}

// A name that a failed run has left, and one that is to be replaced.
func TestSnapshotNamesThatAreTaken(t *testing.T) {
	w := cloud(t)
	for _, test := range []struct {
		name   string
		before cloudaytona.Snapshot
		inputs map[string]string
		fault  *cloudaytona.Fault
		fails  string // the sentence
	}{
		{name: "left in error", before: cloudaytona.Snapshot{State: "error"}},
		{name: "replaced", before: cloudaytona.Snapshot{}, inputs: map[string]string{"if_exists": "replace"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.before.Organization, test.before.Name = localcloud.DaytonaOrganization, "named"
			w.Daytona.Put(test.before)
			old := w.snapshots(t)["named"]
			o := w.succeed(t, invocation{program: "action-snapshot", docker: unique(t), inputs: withEnv(map[string]string{"name": "named", "update_doppler": "false"}, test.inputs)})
			now := w.snapshots(t)["named"]
			if now.ID == old.ID || now.State != daytona.Active || now.Digest != o.outputs["digest"] {
				t.Errorf("before %+v, now %+v", old, now)
			}
			w.forget(t, "named")
		})
	}
	t.Run("replaced in vain", func(t *testing.T) {
		w.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "named"})
		w.Daytona.Fail(cloudaytona.Fault{Snapshot: cloudaytona.Falls, Times: 1})
		o := w.run(t, invocation{program: "action-snapshot", docker: unique(t), inputs: map[string]string{"name": "named", "if_exists": "replace", "update_doppler": "false"}})
		w.Daytona.Heal()
		failedWith(t, o, `; the snapshot named, which it was to replace, is gone: make one of that name before a sandbox is to start from it`)
		if !strings.Contains(o.stdout, "::warning::Replacing the snapshot named: it is gone before the new one is active") {
			t.Errorf("no warning:\n%s", o.stdout)
		}
		w.forget(t, "named")
	})
	t.Run("another name, the same image", func(t *testing.T) {
		run := func(inputs map[string]string) outcome {
			return w.run(t, invocation{program: "action-snapshot", docker: unique(t), inputs: withEnv(map[string]string{"update_doppler": "false"}, inputs), env: map[string]string{"GITHUB_ACTOR": "octocat"}})
		}
		one := run(nil)
		failedWith(t, run(map[string]string{"if_exists": "fail"}), `the snapshot `+one.outputs["snapshot_name"]+` is of the same image, and if_exists is fail`)
		two := run(map[string]string{"if_exists": "replace", "name_prefix": "iterate-sandbox"})
		if two.exit != 0 || two.outputs["snapshot_name"] == one.outputs["snapshot_name"] || two.outputs["digest"] != one.outputs["digest"] {
			t.Errorf("%v\n%s", two.outputs, two.stderr)
		}
		if s, there := w.snapshots(t)[one.outputs["snapshot_name"]]; there && s.State != daytona.Removing {
			t.Errorf("the replaced one is %s", s.State)
		}
		w.forget(t, two.outputs["snapshot_name"])
	})
}

// Older ones go, but none that Doppler names, whichever config it is; with --dry-run none goes.
func TestKeep(t *testing.T) {
	w := cloud(t)
	now := time.Now()
	for i := range 5 {
		w.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: fmt.Sprintf("keep-%d", i), Created: now.Add(-time.Duration(i+1) * time.Hour)})
	}
	w.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "other-1", Created: now.Add(-time.Hour)})
	w.Doppler.SetSecret(localcloud.Project, "prd", nameSecret, "keep-4")
	cliToken := "dp.ct.everything"
	if err := w.Doppler.AddToken(clouddoppler.Token{Value: cliToken, Access: []clouddoppler.Access{{Project: localcloud.Project, Write: true}}}); err != nil {
		t.Fatal(err)
	}
	docker := unique(t)
	names := func() []string {
		var list []string
		for name, s := range w.snapshots(t) {
			if s.State != daytona.Removing && (strings.HasPrefix(name, "keep-") || strings.HasPrefix(name, "other-")) {
				list = append(list, name)
			}
		}
		slices.Sort(list)
		return list
	}
	inputs := map[string]string{"name_prefix": "keep", "name": "keep-new", "keep": "2", "doppler_token": cliToken, "doppler_project": localcloud.Project}
	w.succeed(t, invocation{program: "action-snapshot", docker: docker, inputs: withEnv(inputs, map[string]string{"dry_run": "true"})})
	if got, want := names(), []string{"keep-0", "keep-1", "keep-2", "keep-3", "keep-4", "keep-new", "other-1"}; !slices.Equal(got, want) {
		t.Errorf("after a dry run %q, want %q", got, want)
	}
	o := w.succeed(t, invocation{program: "action-snapshot", docker: docker, inputs: inputs})
	if got, want := names(), []string{"keep-0", "keep-4", "keep-new", "other-1"}; !slices.Equal(got, want) {
		t.Errorf("left %q, want %q\n%s", got, want, o.stdout)
	}
	for _, name := range append(names(), "keep-1", "keep-2", "keep-3") {
		w.forget(t, name)
	}
	w.Doppler.SetSecret(localcloud.Project, "prd", nameSecret, "")
}

// Canceled while Daytona is at it: the snapshot is removed, Doppler is as it was, within 5 seconds.
func TestSnapshotCancel(t *testing.T) {
	w := cloud(t)
	for name, until := range map[string]string{
		"at once": "::add-mask::", "in the build": "::group::exporting", "in the push": "::group::Push to Daytona", "while Daytona is at it": " is pending",
	} {
		t.Run(name, func(t *testing.T) {
			before, doppler := w.snapshots(t), w.Doppler.Secret(localcloud.Project, "dev", nameSecret)
			w.Daytona.Fail(cloudaytona.Fault{Snapshot: cloudaytona.Stuck})
			defer w.Daytona.Heal()
			var sent time.Time
			o := w.run(t, invocation{program: "action-snapshot", docker: unique(t), started: func(pid int, stdout *safeBuffer) {
				for !strings.Contains(stdout.String(), until) && unix.Kill(pid, 0) == nil {
					time.Sleep(5 * time.Millisecond)
				}
				sent = time.Now()
				_ = unix.Kill(pid, unix.SIGINT)
			}})
			if took := time.Since(sent); took > busyEnd {
				t.Errorf("it ended %s after the signal", took)
			}
			failedWith(t, o, `^error: canceled \(interrupt signal received\), while waiting for .*: nothing was published, run it again`)
			w.Daytona.Heal()
			w.gone(t, before)
			if now := w.Doppler.Secret(localcloud.Project, "dev", nameSecret); now != doppler {
				t.Errorf("Doppler names %q", now)
			}
		})
	}
}
