//go:build linux

package e2e

import (
	"fmt"
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

// snapshots returns Daytona's snapshots by name.
func (e *environment) snapshots(t *testing.T) map[string]daytona.Snapshot {
	t.Helper()
	list, err := e.daytona().List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]daytona.Snapshot{}
	for _, s := range list {
		found[s.Name] = s
	}
	return found
}

func (e *environment) daytona() *daytona.Client {
	return &daytona.Client{URL: e.Daytona.URL(), Key: e.DaytonaKey}
}

// uniqueDockerfile returns the Dockerfile of an image that no other test builds.
func uniqueDockerfile(t *testing.T) string {
	return sleepDockerfile + "LABEL test=" + strings.ReplaceAll(t.Name(), "/", "-") + "\n"
}

// Every failure of a snapshot is reported once. It leaves no snapshot at Daytona, and Doppler unchanged.
func TestSnapshotFailures(t *testing.T) {
	e := setup(t)
	readOnly := "dp.st.dev.readonly"
	must(t, e.Doppler.AddToken(clouddoppler.Token{
		Value: readOnly, Access: []clouddoppler.Access{{Project: localcloud.Project, Config: "dev"}},
	}))
	fails := func(f cloudaytona.Fault) func() { return func() { e.Daytona.Fail(f) } }
	for _, test := range []struct {
		name         string
		do           func()
		inputs       map[string]string
		env          map[string]string
		want         string
		createsBuild bool // before it fails
	}{
		{name: "name of 300 letters", inputs: values{"name": strings.Repeat("n", 300)},
			want: `input name: .*\b(255|128|100|[0-9]+)\b`},
		{name: "name with a space", inputs: values{"name": "my snapshot"}, want: `input name: .*"my snapshot"`},
		{name: "name with other letters", inputs: values{"name": "снимок"}, want: `input name: .*"снимок"`},
		{name: "prefix with a space", inputs: values{"name_prefix": "my prefix"},
			want: `input name_prefix: .*"my prefix"`},
		{name: "a fraction", inputs: values{"cpu": "1.5"}, want: `input cpu: .*"1\.5".*whole`},
		{name: "zero", inputs: values{"memory": "0"}, want: `input memory: .*"0".*positive`},
		{name: "negative", inputs: values{"disk": "-1"}, want: `input disk: .*"-1".*positive`},
		{name: "over quota", inputs: values{"cpu": "64"}, want: `cpu 64 .*\b4 cores`},
		{name: "platform", inputs: values{"platform": "linux/arm64"},
			want: `input platform: .*"linux/arm64".*linux/amd64`},
		{name: "load", inputs: values{"load": "true"}, want: `input load: .*"true"`},
		{name: "if_exists", inputs: values{"if_exists": "maybe"},
			want: `input if_exists: .*"maybe".*reuse, replace or fail`},
		{name: "keep", inputs: values{"keep": "-1"}, want: `input keep: .*0 to keep all`},
		{name: "entrypoint", inputs: values{"entrypoint": `sh -c "x`}, want: `input entrypoint: .*sh -c`},
		{name: "region", inputs: values{"region": "moon"}, want: `input region: .*"moon".*local`},

		{name: "no Doppler token", env: values{"DOPPLER_TOKEN": ""}, want: `Doppler config "dev".*doppler_token`},
		{name: "unknown config", inputs: values{"doppler_config": "stg"}, want: `access to requested config 'stg'`},
		{name: "a read-only token", inputs: values{"doppler_token": readOnly},
			want: `input update_doppler: .*write`},
		{name: "wrong key", inputs: values{"daytona_api_key": "dtn_wrong"}, want: `Daytona.*401`},
		{name: "a key without the permission", inputs: values{"daytona_api_key": e.DaytonaReadKey},
			want: `write:snapshots`},
		{name: "an expired key", inputs: values{"daytona_api_key": e.DaytonaExpiredKey}, want: `Daytona.*401.*expired`},
		{name: "a key of another organization",
			inputs: values{"daytona_api_key": e.DaytonaOtherKey, "daytona_organization_id": localcloud.DaytonaOrganization},
			want:   localcloud.OtherOrganization + `.*` + localcloud.DaytonaOrganization},
		{name: "429 always", do: fails(cloudaytona.Fault{Status: 429, Message: "Too Many Requests"}),
			want: `Daytona.*429.*Too Many Requests`},
		{name: "500 always", do: fails(cloudaytona.Fault{Status: 500, Message: "Internal server error"}),
			want: `Daytona.*500.*Internal server error`},
		{name: "HTML", do: fails(cloudaytona.Fault{Status: 200, Body: "<html>sign in</html>"}), want: `DAYTONA_API_URL`},
		{name: "taken, with if_exists: fail", inputs: values{"name": "taken", "if_exists": "fail"},
			want: `input name: "taken" .*active.*if_exists`},

		{name: "taken by another image", inputs: values{"name": "taken"}, createsBuild: true,
			want: `input name: "taken" .*another image.*if_exists`},
		{name: "the registry refuses the push", do: fails(cloudaytona.Fault{Registry: cloudaytona.PushDenied}),
			createsBuild: true,
			want:         `push .*: .*denied|DENIED|403`},
		{name: "the registry loses a blob", do: fails(cloudaytona.Fault{Registry: cloudaytona.BlobUnknown}),
			createsBuild: true, want: `BLOB_UNKNOWN`},
		{name: "a state that never changes", do: fails(cloudaytona.Fault{Snapshot: cloudaytona.Stuck}),
			inputs: values{"timeout": "8s"}, createsBuild: true,
			want: `8s.*waiting for .*snapshot \S+ .*dashboard/snapshots`},
		{name: "an error after active", do: fails(cloudaytona.Fault{Snapshot: cloudaytona.FailsAfterActive}),
			createsBuild: true, want: `Timeout processing snapshot on initial runner`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "a key of another organization" { // the error appears only if that organization has a snapshot
				e.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.OtherOrganization, Name: "another's"})
			}
			if strings.HasPrefix(test.name, "taken") {
				e.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "taken"})
				defer e.deleteSnapshot(t, "taken")
			}
			before, doppler, calls := e.snapshots(
				t,
			), e.Doppler.Secret(
				localcloud.Project,
				"dev",
				nameSecret,
			), len(e.Depot.Calls())
			if test.do != nil {
				test.do()
				defer e.Daytona.ClearFaults()
			}
			r := e.run(t, invocation{
				program:    "action-snapshot",
				dockerfile: uniqueDockerfile(t),
				inputs:     test.inputs,
				env:        merge(values{"DAYTONA_API_KEY": "", "GITHUB_ACTOR": "octocat"}, test.env),
			})
			assertFailed(t, r, test.want)
			e.Daytona.ClearFaults()
			if spent := len(e.Depot.Calls()) > calls; spent != test.createsBuild {
				t.Errorf("calls of Depot: %t, want %t", spent, test.createsBuild)
			}
			e.assertNoNewSnapshots(t, before)
			if now := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); now != doppler {
				t.Errorf("Doppler has %q, before %q", now, doppler)
			}
		})
	}
}

// deleteSnapshot deletes a snapshot if it exists.
func (e *environment) deleteSnapshot(t *testing.T, name string) {
	t.Helper()
	c := e.daytona()
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

// assertNoNewSnapshots asserts that Daytona has, or soon has, no snapshots other than before.
func (e *environment) assertNoNewSnapshots(t *testing.T, before map[string]daytona.Snapshot) {
	t.Helper()
	for name, s := range e.snapshots(t) {
		if _, there := before[name]; there {
			continue
		}
		if s.State != daytona.Removing {
			t.Errorf("snapshot %s is left in state %s", name, s.State)
			continue
		}
		if err := e.daytona().WaitUntilRemoved(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
	}
}

// Temporary failures of Daytona are retried.
func TestDaytonaRecovers(t *testing.T) {
	e := setup(t)
	for name, fault := range map[string]cloudaytona.Fault{
		"500 once":             {Method: "GET", Times: 1, Status: 500, Message: "moment"},
		"429 with Retry-After": {Method: "GET", Times: 1, Status: 429, Header: values{"Retry-After": "1"}},
		"lost response to the creation": {
			Method: "POST", Path: "/snapshots", Times: 2, Hangup: true, ReplaceResponse: true,
		},
		"unknown state":                  {Snapshot: cloudaytona.UnknownState},
		"access expires during the push": {Registry: cloudaytona.AccessExpires, Times: 1},
		"connection is closed once":      {Method: "GET", Path: "/snapshots", Times: 1, Hangup: true},
	} {
		t.Run(name, func(t *testing.T) {
			e.Daytona.Fail(fault)
			defer e.Daytona.ClearFaults()
			before := e.snapshots(t)
			r := e.mustRun(t, invocation{
				program: "action-snapshot", dockerfile: uniqueDockerfile(t), inputs: values{"update_doppler": "false"},
			})
			if more := len(e.snapshots(t)) - len(before); more != 1 || r.outputs["doppler_updated"] != "false" {
				t.Errorf("%d more snapshots; outputs %v", more, r.outputs)
			}
			e.deleteSnapshot(t, r.outputs["snapshot_name"])
		})
	}
}

// If Doppler cannot be updated, the snapshot stays, the error names the value to set, and a second run sets it.
func TestDopplerUpdateFails(t *testing.T) {
	e := setup(t)
	docker := uniqueDockerfile(t)
	// The first POST checks whether the token can write.
	e.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1})
	e.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Status: 500})
	r := e.run(t, invocation{program: "action-snapshot", dockerfile: docker})
	e.Doppler.ClearFaults()
	assertFailed(t, r, `snapshot \S+ is active, but .*Doppler.*DAYTONA_SNAPSHOT_NAME=\S+.*"dev"`)
	r = e.mustRun(t, invocation{program: "action-snapshot", dockerfile: docker})
	if r.outputs["reused"] != "true" || r.outputs["doppler_updated"] != "true" ||
		e.Doppler.Secret(localcloud.Project, "dev", nameSecret) != r.outputs["snapshot_name"] {
		t.Errorf("outputs %v", r.outputs)
	}
}

// A newer snapshot that another run created in the meantime stays the one that Doppler names.
func TestDopplerKeepsNewerSnapshot(t *testing.T) {
	e := setup(t)
	e.Doppler.SetSecret(localcloud.Project, "dev", nameSecret, "iterate-sandbox-older")
	e.Doppler.Fail(
		clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1},
	) // checks whether the token can write
	e.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1, Before: func() {
		e.Daytona.Put(
			cloudaytona.Snapshot{
				Organization: localcloud.DaytonaOrganization,
				Name:         "iterate-sandbox-newer",
				Created:      time.Now().Add(time.Second),
			},
		)
		e.Doppler.SetSecret(localcloud.Project, "dev", nameSecret, "iterate-sandbox-newer")
	}})
	defer e.Doppler.ClearFaults()
	defer e.deleteSnapshot(t, "iterate-sandbox-newer")
	r := e.mustRun(t, invocation{program: "action-snapshot", dockerfile: uniqueDockerfile(t)})
	if got := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); got != "iterate-sandbox-newer" ||
		r.outputs["doppler_updated"] != "false" {
		t.Errorf("Doppler has %q; outputs %v", got, r.outputs)
	}
	if !strings.Contains(r.stdout, "iterate-sandbox-newer") {
		t.Errorf("the log does not name the newer snapshot:\n%s", r.stdout)
	}
}

// A snapshot of the same name is replaced if it is in an error state or if if_exists is replace.
func TestSnapshotNameExists(t *testing.T) {
	e := setup(t)
	for _, test := range []struct {
		name   string
		before cloudaytona.Snapshot
		inputs map[string]string
		fault  *cloudaytona.Fault
		want   string // pattern of the error
	}{
		{name: "left in error", before: cloudaytona.Snapshot{State: "error"}},
		{name: "replaced", before: cloudaytona.Snapshot{}, inputs: values{"if_exists": "replace"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.before.Organization, test.before.Name = localcloud.DaytonaOrganization, "named"
			e.Daytona.Put(test.before)
			old := e.snapshots(t)["named"]
			r := e.mustRun(t, invocation{
				program:    "action-snapshot",
				dockerfile: uniqueDockerfile(t),
				inputs:     merge(values{"name": "named", "update_doppler": "false"}, test.inputs),
			})
			now := e.snapshots(t)["named"]
			if now.ID == old.ID || now.State != daytona.Active || now.Digest != r.outputs["digest"] {
				t.Errorf("before %+v, now %+v", old, now)
			}
			e.deleteSnapshot(t, "named")
		})
	}
	t.Run("replacement fails", func(t *testing.T) {
		e.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "named"})
		e.Daytona.Fail(cloudaytona.Fault{Snapshot: cloudaytona.FailsAfterActive, Times: 1})
		r := e.run(t, invocation{
			program:    "action-snapshot",
			dockerfile: uniqueDockerfile(t),
			inputs:     values{"name": "named", "if_exists": "replace", "update_doppler": "false"},
		})
		e.Daytona.ClearFaults()
		assertFailed(t, r, `snapshot named.* (gone|deleted)`)
		if !strings.Contains(r.stdout, "::warning::replacing snapshot named") {
			t.Errorf("no warning:\n%s", r.stdout)
		}
		e.deleteSnapshot(t, "named")
	})
	t.Run("another name, the same image", func(t *testing.T) {
		run := func(inputs map[string]string) result {
			return e.run(t, invocation{
				program:    "action-snapshot",
				dockerfile: uniqueDockerfile(t),
				inputs:     merge(values{"update_doppler": "false"}, inputs),
				env:        values{"GITHUB_ACTOR": "octocat"},
			})
		}
		one := run(nil)
		assertFailed(t, run(values{"if_exists": "fail"}), one.outputs["snapshot_name"]+` .*same image.*if_exists`)
		two := run(values{"if_exists": "replace", "name_prefix": "iterate-sandbox"})
		if two.exitCode != 0 || two.outputs["snapshot_name"] == one.outputs["snapshot_name"] ||
			two.outputs["digest"] != one.outputs["digest"] {
			t.Errorf("%v\n%s", two.outputs, two.stderr)
		}
		if s, there := e.snapshots(t)[one.outputs["snapshot_name"]]; there && s.State != daytona.Removing {
			t.Errorf("the replaced snapshot is %s", s.State)
		}
		e.deleteSnapshot(t, two.outputs["snapshot_name"])
	})
}

// keep deletes older snapshots of the prefix, except those that any Doppler config names. With dry_run it deletes none.
func TestKeep(t *testing.T) {
	e := setup(t)
	now := time.Now()
	for i := range 5 {
		e.Daytona.Put(
			cloudaytona.Snapshot{
				Organization: localcloud.DaytonaOrganization,
				Name:         fmt.Sprintf("keep-%d", i),
				Created:      now.Add(-time.Duration(i+1) * time.Hour),
			},
		)
	}
	e.Daytona.Put(
		cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "other-1", Created: now.Add(-time.Hour)},
	)
	e.Doppler.SetSecret(localcloud.Project, "prd", nameSecret, "keep-4")
	cliToken := "dp.ct.everything"
	must(t, e.Doppler.AddToken(clouddoppler.Token{
		Value: cliToken, Access: []clouddoppler.Access{{Project: localcloud.Project, Write: true}},
	}))
	docker := uniqueDockerfile(t)
	names := func() []string {
		var list []string
		for name, s := range e.snapshots(t) {
			if s.State != daytona.Removing && (strings.HasPrefix(name, "keep-") || strings.HasPrefix(name, "other-")) {
				list = append(list, name)
			}
		}
		slices.Sort(list)
		return list
	}
	inputs := values{
		"name_prefix":     "keep",
		"name":            "keep-new",
		"keep":            "2",
		"doppler_token":   cliToken,
		"doppler_project": localcloud.Project,
	}
	e.mustRun(t, invocation{
		program: "action-snapshot", dockerfile: docker, inputs: merge(inputs, values{"dry_run": "true"}),
	})
	all := []string{"keep-0", "keep-1", "keep-2", "keep-3", "keep-4", "keep-new", "other-1"}
	if got := names(); !slices.Equal(got, all) {
		t.Errorf("after a dry run %q, want %q", got, all)
	}
	r := e.mustRun(t, invocation{program: "action-snapshot", dockerfile: docker, inputs: inputs})
	if got, want := names(), []string{"keep-0", "keep-4", "keep-new", "other-1"}; !slices.Equal(got, want) {
		t.Errorf("left %q, want %q\n%s", got, want, r.stdout)
	}
	for _, name := range append(names(), "keep-1", "keep-2", "keep-3") {
		e.deleteSnapshot(t, name)
	}
	e.Doppler.SetSecret(localcloud.Project, "prd", nameSecret, "")
}

// A signal at any time leaves no snapshot, and Doppler unchanged.
func TestSnapshotCancel(t *testing.T) {
	e := setup(t)
	for name, until := range map[string]string{
		"at the start": "::add-mask::", "during the build": "::group::exporting",
		"during the push":          "::group::Push to Daytona",
		"while Daytona creates it": " is pending",
	} {
		t.Run(name, func(t *testing.T) {
			before, doppler := e.snapshots(t), e.Doppler.Secret(localcloud.Project, "dev", nameSecret)
			e.Daytona.Fail(cloudaytona.Fault{Snapshot: cloudaytona.Stuck})
			defer e.Daytona.ClearFaults()
			var sent time.Time
			interrupt := func(pid int, stdout *safeBuffer) {
				for !strings.Contains(stdout.String(), until) && unix.Kill(pid, 0) == nil {
					time.Sleep(5 * time.Millisecond)
				}
				sent = time.Now()
				_ = unix.Kill(pid, unix.SIGINT)
			}
			r := e.run(t, invocation{
				program: "action-snapshot", dockerfile: uniqueDockerfile(t), onStart: interrupt,
			})
			if took := time.Since(sent); took > maxShutdown {
				t.Errorf("the program exits %s after the signal", took)
			}
			assertFailed(t, r, `^error: canceled .*waiting for `)
			e.Daytona.ClearFaults()
			e.assertNoNewSnapshots(t, before)
			if now := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); now != doppler {
				t.Errorf("Doppler has %q", now)
			}
		})
	}
}
