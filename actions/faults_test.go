package actions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/internal/faultproxy"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	clouddoppler "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// faultyFlow is the flow of a snapshot after the preflight, through proxies that inject faults.
type faultyFlow struct {
	cloud
	doppler        *clouddoppler.Server
	daytonaProxy   *faultproxy.Proxy
	dopplerProxy   *faultproxy.Proxy
	config         credentials.Doppler
	clock          *fakeclock.Clock
	previous       string // the snapshot that Doppler names and that the flow replaces or prunes
	policy         httpclient.Policy
	beforeSnapshot func()
	isCutOff       bool // no read of a snapshot succeeds after the first ones
}

// Names of snapshots that exist before the flow.
const (
	usedName  = generated + "used"  // by a sandbox
	otherName = "other-1"           // of another image and prefix
	namedName = generated + "named" // the input name, if the flow replaces a snapshot
)

func startFaultyFlow(t *testing.T, replace bool) *faultyFlow {
	t.Helper()
	f := &faultyFlow{previous: generated + "previous"}
	f.cloud = startDaytona(t, func(o *cloudaytona.Options) {
		o.ReadsPerState, o.Cron, o.Simulation = 1, -1, &cloudaytona.Simulation{}
		key := &o.Organizations[0].Keys[0]
		key.Permissions = append(key.Permissions, cloudaytona.WriteSandboxes, cloudaytona.DeleteSandboxes)
	})
	f.doppler = startDoppler(t)
	f.spec.Keep, f.spec.Record = 1, inputs.DopplerRecord{Secret: nameSecret, Mirror: mirrorSecret}
	f.spec.UpdateDoppler, f.spec.Verify, f.spec.Timeout = true, inputs.VerifyBoot, time.Hour
	if replace {
		f.previous = namedName
		f.spec.Name, f.spec.IfExists, f.spec.Keep = namedName, inputs.Replace, 0
	}
	for name, digest := range map[string]string{f.previous: "1", usedName: "2", otherName: "3"} {
		f.Put(cloudaytona.Snapshot{
			Organization: organization, Name: name, Digest: "sha256:" + strings.Repeat(digest, 64),
			Created: time.Now().Add(-time.Hour),
		})
	}
	f.PutSandbox(cloudaytona.Sandbox{Organization: organization, Snapshot: usedName, State: "started"})
	f.doppler.SetSecret("app", "dev", nameSecret, f.previous)
	var err error
	if f.daytonaProxy, err = faultproxy.Start(t.Context(), f.URL()); err != nil {
		t.Fatal(err)
	}
	if f.dopplerProxy, err = faultproxy.Start(t.Context(), f.doppler.URL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.daytonaProxy.Close(), f.dopplerProxy.Close()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// errTimeout ends a flow that takes longer than a day on the fake clock: the stand-in pulls images in real time.
var errTimeout = errors.New("timed out waiting for Daytona (raise the timeout)")

// run runs the flow, as [Snapshot] does.
func (f *faultyFlow) run(ctx context.Context, t *testing.T, img v1.Image) (daytona.Snapshot, string, error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.clock = &fakeclock.Clock{}
	f.clock.OnSleep = func() {
		f.Tick()
		if f.clock.Now().Sub(fakeclock.Start) > 24*time.Hour {
			cancel(errTimeout)
		}
	}
	job, _, stderr := testJob(t, nil)
	http := httpclient.Config{Clock: f.clock, Policy: f.policy}
	f.config.Client = &doppler.Client{
		Host: f.dopplerProxy.URL, Token: everything, Project: "app", Config: "dev", HTTP: http,
	}
	client := daytona.Client{
		URL: f.daytonaProxy.URL, Key: fullKey, HTTP: http,
		Timing: daytona.Timing{MaxPoll: 20 * time.Second, ResponseGrace: time.Second, CleanupGrace: time.Second},
	}
	target := snapshotTarget{Client: client, Region: "us"}
	var err error
	if target.Doppler, err = checkDoppler(ctx, job, f.spec, f.config); err != nil {
		return daytona.Snapshot{}, stderr.String(), err
	}
	if f.beforeSnapshot != nil {
		f.beforeSnapshot()
	}
	session := snapshotSession{Image: existingImage{Image: img}}
	created, err := ensureSnapshots(ctx, job, f.spec, session, []snapshotTarget{target})
	if err != nil {
		return daytona.Snapshot{}, stderr.String(), err
	}
	if _, err := writeNames(ctx, job, namings(ctx, job, created)); err != nil {
		return created[0].Snapshot, stderr.String(), err
	}
	pruneSnapshots(ctx, job, f.spec, f.config, created)
	return created[0].Snapshot, stderr.String(), nil
}

// settled returns the states of the snapshots by name, and their digests, when Daytona has finished its work.
func (f *faultyFlow) settled(t *testing.T) (states, digests map[string]string) {
	t.Helper()
	for range 20 {
		f.Tick()
		f.names(t)
	}
	list, err := f.client.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	states, digests = map[string]string{}, map[string]string{}
	for _, s := range list {
		states[s.Name], digests[s.Name] = string(s.State), s.Digest
	}
	return states, digests
}

// check checks what is left after a run that ended with err: Doppler names an active snapshot, nothing healthy is
// deleted without a replacement, and the error names the service and what to do.
func (f *faultyFlow) check(t *testing.T, img v1.Image, created daytona.Snapshot, err error) {
	t.Helper()
	digest, digestErr := img.Digest()
	if digestErr != nil {
		t.Fatal(digestErr)
	}
	states, digests := f.settled(t)
	value := f.doppler.Secret("app", "dev", nameSecret)
	// Without any readable response after a deletion, the run cannot complete.
	isReported := err != nil && f.isCutOff && strings.Contains(err.Error(), value+", which it was to replace, ")
	if states[value] != "active" && !isReported || states[usedName] != "active" || states[otherName] != "active" {
		t.Errorf("Doppler names %q of %v", value, states)
	}
	var ours []string
	for name, got := range digests {
		if got == digest.String() && states[name] == "active" {
			ours = append(ours, name)
		}
	}
	if len(ours) > 1 {
		t.Errorf("several snapshots of the image: %q", ours)
	}
	if err == nil {
		if value != created.Name || !slices.Equal(ours, []string{created.Name}) {
			t.Errorf("created %s, Doppler names %s; %v", created.Name, value, states)
		}
		return
	}
	text := err.Error()
	isNamed := strings.Contains(text, "Daytona") || strings.Contains(text, "Doppler") ||
		strings.Contains(text, f.daytonaProxy.URL) || strings.Contains(text, f.dopplerProxy.URL)
	if !isNamed || !strings.Contains(text, "(") {
		t.Errorf("the error names no service or no remedy: %v", err)
	}
}

// faultyCalls are the calls of the flow.
var faultyCalls = []struct {
	name    string
	doppler bool
	rule    faultproxy.Rule
}{
	{"list snapshots", false, faultproxy.Rule{Method: "GET", Path: "/snapshots", Match: hasSuffix("/snapshots")}},
	{"read a snapshot", false, faultproxy.Rule{Method: "GET", Path: "/snapshots/"}},
	{"read a snapshot again", false, faultproxy.Rule{Method: "GET", Path: "/snapshots/", Skip: 4}},
	{"request access", false, faultproxy.Rule{Method: "GET", Path: "/registry-push-access"}},
	{"create", false, faultproxy.Rule{Method: "POST", Path: "/snapshots"}},
	{"delete", false, faultproxy.Rule{Method: "DELETE", Path: "/snapshots/"}},
	{"list sandboxes", false, faultproxy.Rule{Method: "GET", Path: "/sandbox", Match: hasSuffix("/sandbox")}},
	{"create a sandbox", false, faultproxy.Rule{Method: "POST", Path: "/sandbox"}},
	{"read a sandbox", false, faultproxy.Rule{Method: "GET", Path: "/api/sandbox/"}},
	{"delete a sandbox", false, faultproxy.Rule{Method: "DELETE", Path: "/sandbox/"}},
	{"list warm pools", false, faultproxy.Rule{Method: "GET", Path: "/warm-pools"}},
	{"read secrets", true, faultproxy.Rule{Method: "GET", Path: "/secrets"}},
	{"write secrets", true, faultproxy.Rule{Method: "POST", Path: "/secrets"}},
	{"list configs", true, faultproxy.Rule{Method: "GET", Path: "/v3/configs", Match: hasSuffix("/configs")}},
	{"list projects", true, faultproxy.Rule{Method: "GET", Path: "/v3/projects"}},
}

func hasSuffix(suffix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, suffix) }
}

// Whatever a call returns, once or always, before or after it had its effect: a snapshot that Doppler names exists, and
// no healthy snapshot is deleted on doubt. With SOAK=1, all combinations are tested; otherwise, one in seven.
func TestSnapshotFaults(t *testing.T) {
	const part = 7
	group := 0
	for _, call := range faultyCalls {
		for _, times := range []int{1, 0} {
			for _, late := range []bool{false, true} {
				if call.rule.Method == "GET" && late {
					continue // a read has no effect
				}
				group++
				n := group
				t.Run(fmt.Sprintf("%s, times %d, late %t", call.name, times, late), func(t *testing.T) {
					t.Parallel()
					for _, fault := range faultproxy.All() {
						if late && fault.Refuses {
							continue // a refused call has no effect
						}
						for _, replace := range []bool{false, true} {
							if n++; os.Getenv("SOAK") == "" && n%part != 0 {
								continue
							}
							rule := call.rule
							rule.Times, rule.Late, rule.Fault = times, late, fault
							t.Run(fmt.Sprintf("%s, replace %t", fault.Name, replace), func(t *testing.T) {
								_ = testFault(t, rule, call.doppler, replace) // which checks the error
							})
						}
					}
				})
			}
		}
	}
}

// A call without a response ends after a while, and the run goes on.
func TestSnapshotSilence(t *testing.T) {
	for _, call := range faultyCalls {
		if call.rule.Method == "GET" && call.rule.Skip == 0 {
			continue // reads are alike
		}
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			rule := call.rule
			rule.Times, rule.Late, rule.Fault = 1, rule.Method != "GET", faultproxy.Silence()
			if err := testFault(t, rule, call.doppler, true); err != nil {
				t.Error(err)
			}
		})
	}
}

func testFault(t *testing.T, rule faultproxy.Rule, isDoppler, replace bool) error {
	t.Helper()
	f, img := startFaultyFlow(t, replace), testImage(t)
	if rule.Fault.Name == faultproxy.Silence().Name {
		f.policy.Timeout = 2 * time.Second // of each request, including those that are answered
	}
	f.isCutOff = rule.Method == http.MethodGet && rule.Skip > 0 && rule.Times == 0
	f.beforeSnapshot = func() {
		if isDoppler {
			f.dopplerProxy.Fail(rule)
		} else {
			f.daytonaProxy.Fail(rule)
		}
	}
	created, log, err := f.run(t.Context(), t, img)
	f.check(t, img, created, err)
	if t.Failed() {
		t.Logf("error %v\n%s", err, log)
	}
	return err
}
