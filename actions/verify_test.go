package actions

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// boxKey is a key that may create and delete sandboxes.
const boxKey = "dtn_boxes"

// verified is the result of a run with a verification.
type verified struct {
	verification
	snapshot daytona.Snapshot
	doppler  string // the name in Doppler afterwards
	stdout   string
	stderr   string
	reports  string // directory of the suite's report
	err      error
}

// startVerifying starts Daytona, whose sandboxes are simulated.
func startVerifying(t *testing.T, change func(*cloudaytona.Options)) cloud {
	t.Helper()
	c := startDaytona(t, func(o *cloudaytona.Options) {
		o.Simulation = &cloudaytona.Simulation{}
		o.Organizations[0].Keys = append(o.Organizations[0].Keys, cloudaytona.Key{
			Name: "boxes", Value: boxKey, Permissions: []string{
				cloudaytona.WriteSnapshots, cloudaytona.DeleteSnapshots, cloudaytona.WriteSandboxes, cloudaytona.DeleteSandboxes,
			},
		})
		if change != nil {
			change(o)
		}
	})
	c.client.Key, c.spec.Timeout = boxKey, time.Hour
	c.spec.UpdateDoppler, c.spec.Record = true, inputs.DopplerRecord{Secret: nameSecret, Mirror: mirrorSecret}
	return c
}

// verify creates a snapshot, or reuses one, verifies it and updates Doppler, as [Snapshot] does. The clock does not
// wait.
func (c cloud) verify(ctx context.Context, t *testing.T, previous string) (result verified) {
	t.Helper()
	server := startDoppler(t)
	server.SetSecret("app", "dev", nameSecret, previous)
	config := credentials.Doppler{
		Client: &doppler.Client{Host: server.URL(), Token: everything, Project: "app", Config: "dev"},
	}
	result.reports = t.TempDir()
	c.spec.ReportDir = filepath.Join(result.reports, "test-results")
	job, stdout, stderr := testJob(t, map[string]string{"GITHUB_ACTIONS": "true", "RUNNER_TEMP": result.reports})
	if err := os.WriteFile(filepath.Join(job.Dir, "suite.yaml"), []byte(c.suite), 0o600); err != nil {
		t.Fatal(err)
	}
	c.client.HTTP.Clock = &fakeclock.Clock{OnSleep: func() { time.Sleep(time.Millisecond) }}
	target := snapshotTarget{Client: c.client, Region: "us"}
	result.err = errors.Join(
		func() (err error) { target.Key, err = c.client.CurrentKey(ctx); return err }(),
		func() (err error) { target.Doppler, err = checkDoppler(ctx, job, c.spec, config); return err }(),
	)
	if result.err == nil {
		session := snapshotSession{Image: existingImage{Image: testImage(t)}}
		var created []createdSnapshot
		created, result.err = ensureSnapshots(ctx, job, c.spec, session, []snapshotTarget{target})
		if created != nil {
			result.snapshot, result.verification = created[0].Snapshot, created[0].Verified
		}
		if result.err == nil {
			_, result.err = writeNames(ctx, job, namings(ctx, job, created))
		}
	}
	result.doppler, result.stdout, result.stderr = server.Secret(
		"app",
		"dev",
		nameSecret,
	), stdout.String(), stderr.String()
	return result
}

// boxes counts the sandboxes that Daytona is not deleting.
func (c cloud) boxes(t *testing.T) int {
	t.Helper()
	list, err := c.client.ListSandboxes(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, box := range list {
		if box.State != daytona.SandboxDestroying {
			n++
		}
	}
	return n
}

// Doppler names only a snapshot that works. One that does not is deleted, unless an input keeps it. No sandbox is left.
func TestVerify(t *testing.T) {
	exit := func(code int) *int { return &code }
	const crashed = "in a sandbox, the entry point 'simulated' ended with exit code 3; its last output: no config (try it"
	for _, test := range []struct {
		name       string
		simulation cloudaytona.Simulation
		fault      cloudaytona.Fault
		mode       inputs.Verify
		keepFailed bool
		key        string

		how  inputs.Verify
		left bool // whether the snapshot is left
		want string
		log  string // part of the annotations
	}{
		{name: "works", how: inputs.VerifyBoot},
		{name: "off", mode: inputs.VerifyOff},
		{name: "key without permissions", key: fullKey, log: "::warning title=The snapshot is not verified::No sandbox"},
		{
			name: "user token", key: userToken, how: inputs.VerifyBoot, // its permissions are unknown
		},
		{
			name: "entry point crashes", want: crashed, log: "\nLast output of the entry point:\n",
			simulation: cloudaytona.Simulation{Entrypoint: exit(3), Log: "\x01\x01\x01started\n\x02\x02\x02no config\n"},
		},
		{
			name: "crashed snapshot is kept", keepFailed: true, left: true,
			want: "ended with exit code 3 … was kept (keep_failed)", simulation: cloudaytona.Simulation{Entrypoint: exit(3)},
		},
		{
			name: "entry point ends", how: inputs.VerifyBoot, log: "::notice::The entry point 'simulated' has ended",
			simulation: cloudaytona.Simulation{Entrypoint: exit(0)},
		},
		{
			name: "no commands", want: "in a sandbox, the command `true` fails with exit code 126: sh is broken",
			simulation: cloudaytona.Simulation{Exit: 126, Output: "sh is broken"},
		},
		{
			name: "runner fails once", how: inputs.VerifyBoot, fault: cloudaytona.Fault{
				Sandbox: cloudaytona.RunnerFails, Times: 1,
			},
		},
		{
			name: "runner fails", fault: cloudaytona.Fault{Sandbox: cloudaytona.RunnerFails}, left: true,
			want: "verify snapshot agent … is in state error: … the snapshot is active and was not deleted; run again",
		},
		{
			name: "quota", left: true, want: "the organization's sandboxes use nearly all of its CPU (10) … run again to",
			fault: cloudaytona.Fault{
				Method: "POST", Path: "/sandbox", Status: 400, Message: "Total CPU limit exceeded. Maximum allowed: 10.",
			},
		},
		{
			name: "toolbox fails once", how: inputs.VerifyBoot,
			fault: cloudaytona.Fault{Path: "/toolbox/", Status: 502, Body: "<html>", Times: 1},
		},
		{
			name: "toolbox fails", left: true, want: "returned 502 Bad Gateway: the response is a web page",
			fault: cloudaytona.Fault{Path: "/session/entrypoint", Status: 502, Body: "<html>"},
		},
		{
			name: "command hangs", want: "a sandbox does not run the command `true`",
			fault: cloudaytona.Fault{
				Path: "/process/execute", Status: 408, Message: "request timeout: command execution timeout",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startVerifying(t, func(o *cloudaytona.Options) { o.Simulation = &test.simulation })
			c.spec.Verify, c.spec.KeepFailed = test.mode, test.keepFailed
			if test.key != "" {
				c.client.Key = test.key
			}
			if test.key == userToken {
				c.client.Organization = organization
			}
			if f := test.fault; f.Path != "" || f.Sandbox != "" {
				c.Fail(f)
			}
			got := c.verify(t.Context(), t, "old")
			assertVerified(t, c, got, test.want)
			if got.How != test.how {
				t.Errorf("verified %q, want %q", got.How, test.how)
			}
			if names := c.names(t); (len(names) > 0) != (test.left || test.want == "") {
				t.Errorf("the snapshots are %q", names)
			}
			if !strings.Contains(got.stdout+got.stderr, test.log) {
				t.Errorf("the log lacks %q:\n%s%s", test.log, got.stdout, got.stderr)
			}
		})
	}
}

// assertVerified checks the error, that Doppler names the snapshot only without an error, and that no sandbox is left.
func assertVerified(t *testing.T, c cloud, got verified, want string) {
	t.Helper()
	c.ClearFaults()
	expected := "old"
	if want == "" {
		expected = got.snapshot.Name
	}
	if got.doppler != expected || (got.err == nil) != (want == "") {
		t.Errorf("Doppler names %q, want %q; %v", got.doppler, expected, got.err)
	}
	if got.err != nil {
		for part := range strings.SplitSeq(want, " … ") {
			if !strings.Contains(got.err.Error(), part) {
				t.Errorf("got %v, want %q", got.err, part)
			}
		}
	}
	if n := c.boxes(t); n > 0 {
		t.Errorf("%d sandboxes are left", n)
	}
}

// A reused snapshot that Doppler names already is verified only if an input requests it, and never deleted.
func TestVerifyReused(t *testing.T) {
	simulation := &cloudaytona.Simulation{}
	c := startVerifying(t, func(o *cloudaytona.Options) { o.Simulation = simulation })
	first := c.verify(t.Context(), t, "old")
	assertVerified(t, c, first, "")
	for _, test := range []struct {
		previous string
		mode     inputs.Verify
		how      inputs.Verify
	}{
		{"old", inputs.VerifyDefault, inputs.VerifyBoot},
		{first.snapshot.Name, inputs.VerifyDefault, ""},
		{first.snapshot.Name, inputs.VerifyBoot, inputs.VerifyBoot},
	} {
		c.spec.Verify = test.mode
		got := c.verify(t.Context(), t, test.previous)
		if assertVerified(t, c, got, ""); got.snapshot.ID != first.snapshot.ID || got.How != test.how {
			t.Errorf("%+v: verified %q", test, got.How)
		}
	}
	simulation.Exit = 1
	assertVerified(t, c, c.verify(t.Context(), t, "old"), "does not work: … was not deleted, because it existed before")
	if names := c.names(t); len(names) != 1 {
		t.Errorf("the snapshots are %q", names)
	}
}

// A snapshot that took the place of a deleted one, or that another run has recorded in Doppler, is not deleted.
func TestVerifyKeeps(t *testing.T) {
	t.Run("replacement", func(t *testing.T) {
		c := startVerifying(t, func(o *cloudaytona.Options) { o.Simulation.Exit = 1 })
		c.spec.Name, c.spec.IfExists = "named", inputs.Replace
		c.Put(cloudaytona.Snapshot{Organization: organization, Name: "named", Digest: "sha256:" + strings.Repeat("a", 64)})
		got := c.verify(t.Context(), t, "old")
		assertVerified(t, c, got, "does not work: … was not deleted, because it replaces a deleted one")
		if names := c.names(t); len(names) != 1 {
			t.Errorf("the snapshots are %q", names)
		}
	})
	t.Run("recorded by another run", func(t *testing.T) {
		c := startVerifying(t, nil)
		server := startDoppler(t)
		client := doppler.Client{Host: server.URL(), Token: everything, Project: "app", Config: "dev"}
		target := snapshotTarget{Client: c.client, Doppler: []dopplerConfig{{Client: client, Previous: "old"}}}
		id := c.Put(cloudaytona.Snapshot{Organization: organization, Name: "agent-1"})
		server.SetSecret("app", "dev", nameSecret, "agent-1")
		job, _, _ := testJob(t, nil)
		err := discardUnverified(t.Context(), job, c.spec, target, imageUpload{}, daytona.Snapshot{ID: id, Name: "agent-1"},
			&brokenError{Snapshot: "agent-1", Problem: "no"})
		if names := c.names(t); len(names) != 1 || !strings.Contains(err.Error(), "because a Doppler config names it") {
			t.Errorf("%v, the snapshots are %q", err, names)
		}
	})
}

// A canceled run deletes the sandbox. The snapshot is left for the next run.
func TestVerifyCanceled(t *testing.T) {
	for _, at := range []string{"POST /api/sandbox", "POST /execute", "GET /session/entrypoint"} {
		t.Run(at, func(t *testing.T) {
			c := startVerifying(t, nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			interrupted := errors.New("interrupted")
			method, path, _ := strings.Cut(at, " ")
			c.client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				response, err := http.DefaultTransport.RoundTrip(r)
				if r.Method == method && strings.HasSuffix(r.URL.Path, path) {
					cancel(interrupted)
				}
				return response, err
			})
			got := c.verify(ctx, t, "old")
			c.client.HTTP = httpclient.Config{}
			assertVerified(t, c, got, "interrupted; snapshot agent … is active, but not verified; run again to reuse it")
			if names := c.names(t); len(names) != 1 || !errors.Is(got.err, interrupted) {
				t.Errorf("%v, the snapshots are %q", got.err, names)
			}
		})
	}
}

// Only sandboxes of this tool whose run cannot be active are deleted.
func TestReapSandboxes(t *testing.T) {
	c := startVerifying(t, nil)
	put := func(age time.Duration, labels map[string]any) string {
		return c.PutSandbox(cloudaytona.Sandbox{
			Organization: organization, Snapshot: "app", Labels: labels, Created: time.Now().Add(-age),
		})
	}
	label := func(tool, timeout string) map[string]any {
		return map[string]any{toolLabel: tool, timeoutLabel: timeout}
	}
	stale := []string{put(45*time.Minute, label(verifyTool, "30m0s")), put(24*time.Hour, label(verifyTool, "1h0m0s"))}
	for _, box := range []struct {
		age    time.Duration
		labels map[string]any
	}{
		{35 * time.Minute, label(verifyTool, "30m0s")}, // the clocks may differ
		{45 * time.Minute, label(verifyTool, "1h0m0s")},
		{24 * time.Hour, label("other", "30m0s")},
		{24 * time.Hour, label(verifyTool, "")},
		{24 * time.Hour, nil},
	} {
		put(box.age, box.labels)
	}
	job, _, stderr := testJob(t, nil)
	c.Fail(cloudaytona.Fault{Method: "GET", Path: "/sandbox", Status: 403, Message: "no"})
	reapSandboxes(t.Context(), job, c.client)
	c.ClearFaults()
	if n := c.boxes(t); n != 7 || !strings.Contains(stderr.String(), "Looking for sandboxes of earlier runs failed: ") {
		t.Errorf("%d sandboxes are left, want 7: %s", n, stderr)
	}
	reapSandboxes(t.Context(), job, c.client)
	if n := c.boxes(t); n != 5 {
		t.Errorf("%d sandboxes are left, want 5", n)
	}
	for _, id := range stale {
		if !strings.Contains(stderr.String(), "Deleted sandbox "+id) {
			t.Errorf("the log lacks %s: %s", id, stderr)
		}
	}
}

// A verification takes seven calls if the sandbox is started in the first response.
func TestVerifyCalls(t *testing.T) {
	c := startVerifying(t, nil)
	assertVerified(t, c, c.verify(t.Context(), t, "old"), "")
	calls := map[string]int{}
	for _, r := range c.Requests() {
		if path, _, _ := strings.Cut(strings.TrimPrefix(r.Path, "/api/"), "/"); path == "sandbox" || path == "toolbox" {
			calls[r.Method+" "+path]++
		}
	}
	calls["GET sandbox"]-- // of assertVerified
	want := map[string]int{
		"POST sandbox": 1, "GET sandbox": 2, "DELETE sandbox": 1, // the other GET lists the sandboxes of earlier runs
		"POST toolbox": 1, "GET toolbox": 2,
	}
	if !maps.Equal(calls, want) {
		t.Errorf("got %v, want %v", calls, want)
	}
}
