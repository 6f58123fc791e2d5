//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/localcloud"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	clouddoppler "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/pkg/daytona"
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

// uniqueDockerfile returns a Dockerfile that no other test uses.
func uniqueDockerfile(t *testing.T) string {
	return sleepDockerfile + "LABEL test=" + strings.ReplaceAll(t.Name(), "/", "-") + "\n"
}

// Each snapshot failure produces one error, leaves no snapshot on Daytona, and does not change Doppler.
func TestSnapshotFailures(t *testing.T) {
	e := setup(t)
	readOnly := "dp.st.dev.readonly"
	must(t, e.Doppler.AddToken(clouddoppler.Token{
		Value: readOnly, Access: []clouddoppler.Access{{Project: localcloud.Project, Config: "dev"}},
	}))
	inject := func(f cloudaytona.Fault) func() { return func() { e.Daytona.Fail(f) } }
	for _, test := range []struct {
		name         string
		do           func()
		inputs       map[string]string
		env          map[string]string
		want         string
		createsBuild bool // the build is created before the failure
	}{
		{name: "name of 300 letters", inputs: values{"name": strings.Repeat("n", 300)},
			want: `input name: .*\b(255|128|100|[0-9]+)\b`},
		{name: "name with a space", inputs: values{"name": "my snapshot"}, want: `input name: .*"my snapshot"`},
		{name: "non-ASCII name", inputs: values{"name": "снимок"}, want: `input name: .*"снимок"`},
		{name: "prefix with a space", inputs: values{"name_prefix": "my prefix"},
			want: `input name_prefix: .*"my prefix"`},
		{name: "fractional cpu", inputs: values{"cpu": "1.5"}, want: `input cpu: .*"1\.5".*whole`},
		{name: "zero memory", inputs: values{"memory": "0"}, want: `input memory: .*"0".*positive`},
		{name: "negative disk", inputs: values{"disk": "-1"}, want: `input disk: .*"-1".*positive`},
		{name: "over the limit", inputs: values{"cpu": "64"}, createsBuild: true,
			want: `CPU request 64 .*set the input cpu to at most 4`},
		{name: "class without runners", inputs: values{"sandbox_class": "linux-vm"}, createsBuild: true,
			want: `No runners are configured in region .*sandbox_class`},
		{name: "GPU without a quota", inputs: values{"gpu": "1"}, createsBuild: true, want: `GPU quota.*gpu`},
		{name: "entry point that does not exist", inputs: values{"entrypoint": "slep 60"}, createsBuild: true,
			want: `the entry point "slep" does not exist in the image`},
		{name: "entry point without execute permission", inputs: values{"entrypoint": "/Dockerfile"}, createsBuild: true,
			want: `the entry point "/Dockerfile" is not an executable file`},
		{name: "platform", inputs: values{"platform": "linux/arm64"},
			want: `input platform: .*"linux/arm64".*linux/amd64`},
		{name: "load", inputs: values{"load": "true"}, want: `input load: .*"true"`},
		{name: "if_exists", inputs: values{"if_exists": "maybe"},
			want: `input if_exists: .*"maybe".*reuse, replace or fail`},
		{name: "keep", inputs: values{"keep": "-1"}, want: `input keep: .*0 to keep all`},
		{name: "entrypoint", inputs: values{"entrypoint": `sh -c "x`}, want: `input entrypoint: .*sh -c`},
		{name: "region", inputs: values{"region": "moon"}, want: `input region: .*"moon".*local`},

		{name: "no Doppler token", inputs: values{"update_doppler": "true"}, env: values{"DOPPLER_TOKEN": ""},
			want: `Doppler config "dev".*doppler_token`},
		{name: "unknown config", inputs: values{"doppler_config": "stg"}, want: `access to requested config 'stg'`},
		{name: "read-only token", inputs: values{"doppler_token": readOnly},
			want: `input update_doppler: .*write`},
		{name: "invalid key", inputs: values{"daytona_api_key": "dtn_wrong"}, want: `Daytona.*401`},
		{name: "key without write:snapshots", inputs: values{"daytona_api_key": e.DaytonaReadKey},
			want: `write:snapshots`},
		{name: "expired key", inputs: values{"daytona_api_key": e.DaytonaExpiredKey}, want: `Daytona.*401.*replace the key`},
		{name: "key of another organization",
			inputs: values{"daytona_api_key": e.DaytonaOtherKey, "daytona_organization_id": localcloud.DaytonaOrganization},
			want:   localcloud.OtherOrganization + `.*` + localcloud.DaytonaOrganization},
		{name: "429 always", do: inject(cloudaytona.Fault{Status: 429, Message: "Too Many Requests"}),
			want: `Daytona.*429.*Too Many Requests`},
		{name: "500 always", do: inject(cloudaytona.Fault{Status: 500, Message: "Internal server error"}),
			want: `Daytona.*500.*Internal server error`},
		{name: "web page", do: inject(cloudaytona.Fault{Status: 200, Body: "<html>sign in</html>"}), want: `DAYTONA_API_URL`},
		{name: "existing name, with if_exists: fail", inputs: values{"name": "taken", "if_exists": "fail"},
			want: `input name: "taken" .*active.*if_exists`},

		{name: "existing name of another image", inputs: values{"name": "taken"}, createsBuild: true,
			want: `input name: "taken" .*another image.*if_exists`},
		{name: "registry denies the push", do: inject(cloudaytona.Fault{Registry: cloudaytona.PushDenied}),
			createsBuild: true,
			want:         `push .*: .*denied|DENIED|403`},
		{name: "registry lost a blob", do: inject(cloudaytona.Fault{Registry: cloudaytona.BlobUnknown}),
			createsBuild: true, want: `could not fetch content descriptor .* not found`},
		{name: "timeout waiting for the snapshot", do: inject(cloudaytona.Fault{Snapshot: cloudaytona.Stuck}),
			inputs: values{"timeout": "15s"}, createsBuild: true,
			want: `15s.*waiting for .*snapshot \S+ .*dashboard/snapshots`},
		{name: "error after active", do: inject(cloudaytona.Fault{Snapshot: cloudaytona.FailsAfterActive}),
			createsBuild: true, want: `Timeout processing snapshot on initial runner`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "key of another organization" { // the error requires a snapshot in that organization
				e.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.OtherOrganization, Name: "another's"})
			}
			if strings.HasPrefix(test.name, "existing name") {
				e.Daytona.Put(cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "taken"})
				defer e.deleteSnapshot(t, "taken")
			}
			before, calls := e.snapshots(t), len(e.Depot.Calls())
			doppler := e.Doppler.Secret(localcloud.Project, "dev", nameSecret)
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
			if called := len(e.Depot.Calls()) > calls; called != test.createsBuild {
				t.Errorf("calls to Depot: %t, want %t", called, test.createsBuild)
			}
			e.assertNoNewSnapshots(t, before)
			if now := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); now != doppler {
				t.Errorf("Doppler changed from %q to %q", doppler, now)
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
		if err := c.Remove(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
}

// assertNoNewSnapshots asserts that all snapshots that are not in before are removed.
func (e *environment) assertNoNewSnapshots(t *testing.T, before map[string]daytona.Snapshot) {
	t.Helper()
	for name, s := range e.snapshots(t) {
		if _, exists := before[name]; exists {
			continue
		}
		if s.State != daytona.Removing {
			t.Errorf("leftover snapshot %s in state %s", name, s.State)
			continue
		}
		if now, err := e.daytona().WaitUntilRemoved(t.Context(), s); err != nil || now.ID != "" {
			t.Errorf("%+v, %v", now, err)
		}
	}
}

// action-snapshot retries temporary failures of Daytona.
func TestDaytonaRetries(t *testing.T) {
	e := setup(t)
	for name, fault := range map[string]cloudaytona.Fault{
		"500 once":             {Method: "GET", Times: 1, Status: 500, Message: "moment"},
		"429 with Retry-After": {Method: "GET", Times: 1, Status: 429, Header: values{"Retry-After": "1"}},
		"lost response to the creation": {
			Method: "POST", Path: "/snapshots", Times: 2, Hangup: true, ReplaceResponse: true,
		},
		"unknown state":                  {Snapshot: cloudaytona.UnknownState},
		"inspection times out once":      {Snapshot: cloudaytona.InspectTimesOut, Times: 1},
		"image is not found once":        {Snapshot: cloudaytona.ImageNotFound, Times: 1}, // it is built and pushed again
		"runner is unavailable once":     {Snapshot: cloudaytona.RunnerUnavailable, Times: 1},
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
				t.Errorf("%d new snapshots, want 1; outputs %v", more, r.outputs)
			}
			e.deleteSnapshot(t, r.outputs["snapshot_name"])
		})
	}
}

// If updating Doppler fails, the snapshot remains, the error contains the value to set, and a second run sets it.
func TestDopplerUpdateFails(t *testing.T) {
	e := setup(t)
	dockerfile := uniqueDockerfile(t)
	// The first POST checks whether the token can write.
	e.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1})
	e.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Status: 500})
	r := e.run(t, invocation{program: "action-snapshot", dockerfile: dockerfile})
	e.Doppler.ClearFaults()
	assertFailed(t, r, `snapshot \S+ is active, but .*Doppler.*DAYTONA_SNAPSHOT_NAME=\S+ in sandbox\.dev\)`)
	r = e.mustRun(t, invocation{program: "action-snapshot", dockerfile: dockerfile})
	if r.outputs["reused"] != "true" || r.outputs["doppler_updated"] != "true" ||
		e.Doppler.Secret(localcloud.Project, "dev", nameSecret) != r.outputs["snapshot_name"] {
		t.Errorf("outputs %v", r.outputs)
	}
}

// Doppler keeps the name of a newer snapshot that another run created in the meantime.
func TestDopplerKeepsNewerSnapshot(t *testing.T) {
	e := setup(t)
	e.Doppler.SetSecret(localcloud.Project, "dev", nameSecret, "caller-sandbox-older")
	// The first POST checks whether the token can write.
	e.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1})
	e.Doppler.Fail(clouddoppler.Fault{Method: "POST", Path: "/secrets", Times: 1, Before: func() {
		e.Daytona.Put(
			cloudaytona.Snapshot{
				Organization: localcloud.DaytonaOrganization,
				Name:         "caller-sandbox-newer",
				Created:      time.Now().Add(time.Second),
			},
		)
		e.Doppler.SetSecret(localcloud.Project, "dev", nameSecret, "caller-sandbox-newer")
	}})
	defer e.Doppler.ClearFaults()
	defer e.deleteSnapshot(t, "caller-sandbox-newer")
	r := e.mustRun(t, invocation{program: "action-snapshot", dockerfile: uniqueDockerfile(t)})
	if got := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); got != "caller-sandbox-newer" ||
		r.outputs["doppler_updated"] != "false" {
		t.Errorf("Doppler has %q; outputs %v", got, r.outputs)
	}
	if !strings.Contains(r.stdout, "caller-sandbox-newer") {
		t.Errorf("the log does not contain the name of the newer snapshot:\n%s", r.stdout)
	}
}

// A snapshot with the same name is replaced if its state is error or if if_exists is replace.
func TestSnapshotNameExists(t *testing.T) {
	e := setup(t)
	for _, test := range []struct {
		name   string
		before cloudaytona.Snapshot
		inputs map[string]string
		fault  *cloudaytona.Fault
		want   string // pattern of the error
	}{
		{name: "failed snapshot", before: cloudaytona.Snapshot{State: "error"}},
		{name: "if_exists: replace", before: cloudaytona.Snapshot{}, inputs: values{"if_exists": "replace"}},
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
		e.Daytona.Fail(cloudaytona.Fault{Snapshot: cloudaytona.FailsAfterActive})
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
	t.Run("same image under another name", func(t *testing.T) {
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
		// Only a token that reads every config shows that none names the replaced snapshot.
		const everything = "dp.ct.reads-everything"
		must(t, e.Doppler.AddToken(clouddoppler.Token{
			Value: everything, Access: []clouddoppler.Access{{Project: localcloud.Project, Write: true}},
		}))
		two := run(values{
			"if_exists": "replace", "name_prefix": "caller-sandbox", "doppler_token": everything,
			"doppler_project": localcloud.Project,
		})
		if two.exitCode != 0 || two.outputs["snapshot_name"] == one.outputs["snapshot_name"] ||
			two.outputs["digest"] != one.outputs["digest"] {
			t.Errorf("%v\n%s", two.outputs, two.stderr)
		}
		if s, exists := e.snapshots(t)[one.outputs["snapshot_name"]]; exists && s.State != daytona.Removing {
			t.Errorf("the replaced snapshot is in state %s", s.State)
		}
		e.deleteSnapshot(t, two.outputs["snapshot_name"])
	})
}

// keep deletes older snapshots with the prefix, except those that a Doppler config uses. With dry_run, it deletes none.
func TestKeep(t *testing.T) {
	e := setup(t)
	const generated = "keep-20260101-030405-abcdef0-" // the beginning of a generated name
	now := time.Now()
	for i := range 5 {
		e.Daytona.Put(
			cloudaytona.Snapshot{
				Organization: localcloud.DaytonaOrganization,
				Name:         fmt.Sprintf(generated+"%d", i),
				Created:      now.Add(-time.Duration(i+1) * time.Hour),
			},
		)
	}
	e.Daytona.Put(
		cloudaytona.Snapshot{Organization: localcloud.DaytonaOrganization, Name: "other-1", Created: now.Add(-time.Hour)},
	)
	e.Doppler.SetSecret(localcloud.Project, "prd", nameSecret, generated+"4")
	cliToken := "dp.ct.everything"
	must(t, e.Doppler.AddToken(clouddoppler.Token{
		Value: cliToken, Access: []clouddoppler.Access{{Project: localcloud.Project, Write: true}},
	}))
	dockerfile := uniqueDockerfile(t)
	names := func() []string {
		var list []string
		for name, s := range e.snapshots(t) {
			if s.State != daytona.Removing && (strings.HasPrefix(name, generated) || strings.HasPrefix(name, "other-")) {
				list = append(list, name)
			}
		}
		slices.Sort(list)
		return list
	}
	inputs := values{
		"name_prefix":     "keep",
		"name":            generated + "new",
		"keep":            "2",
		"doppler_token":   cliToken,
		"doppler_project": localcloud.Project,
	}
	e.mustRun(t, invocation{
		program: "action-snapshot", dockerfile: dockerfile, inputs: merge(inputs, values{"dry_run": "true"}),
	})
	all := []string{
		generated + "0", generated + "1", generated + "2", generated + "3", generated + "4", generated + "new", "other-1",
	}
	if got := names(); !slices.Equal(got, all) {
		t.Errorf("after a dry run %q, want %q", got, all)
	}
	r := e.mustRun(t, invocation{program: "action-snapshot", dockerfile: dockerfile, inputs: inputs})
	if got, want := names(), []string{
		generated + "0", generated + "4", generated + "new", "other-1",
	}; !slices.Equal(got, want) {
		t.Errorf("left %q, want %q\n%s", got, want, r.stdout)
	}
	for _, name := range append(names(), generated+"1", generated+"2", generated+"3") {
		e.deleteSnapshot(t, name)
	}
	e.Doppler.SetSecret(localcloud.Project, "prd", nameSecret, "")
}

// A run that a signal interrupts at any time leaves no snapshot and does not change Doppler.
func TestSnapshotCancel(t *testing.T) {
	e := setup(t)
	for name, until := range map[string]string{
		"at the start": "::add-mask::", "during the build": "[internal] load build definition",
		"during the push":          "::group::Push to Daytona",
		"while Daytona creates it": " is pending",
	} {
		t.Run(name, func(t *testing.T) {
			before, doppler := e.snapshots(t), e.Doppler.Secret(localcloud.Project, "dev", nameSecret)
			e.Daytona.Fail(cloudaytona.Fault{Snapshot: cloudaytona.Stuck})
			defer e.Daytona.ClearFaults()
			var sent time.Time
			interrupt := func(pid int, stdout *programs.Buffer) {
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
				t.Errorf("the program exited %s after the signal", took)
			}
			assertFailed(t, r, `^error: canceled .*(while waiting for|in step) `)
			e.Daytona.ClearFaults()
			e.assertNoNewSnapshots(t, before)
			if now := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); now != doppler {
				t.Errorf("Doppler changed from %q to %q", doppler, now)
			}
		})
	}
}
