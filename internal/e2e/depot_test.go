//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/pkg/builder"
)

// createdBuild waits until a program has created a build, and returns its ID.
func (e *environment) createdBuild(t *testing.T, since int) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, call := range e.Depot.Calls()[since:] {
			if call.Method == "CreateBuild" && call.BuildID != "" {
				return call.BuildID
			}
		}
	}
	t.Fatal("timed out waiting for a build")
	return ""
}

// finished returns the results that FinishBuild received.
func finished(calls []depotapi.Call) (results []string) {
	for _, call := range calls {
		if call.Method == "FinishBuild" {
			results = append(results, call.Result)
		}
	}
	return results
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// A build that is canceled on Depot publishes nothing, and is finished as canceled.
func TestBuildIsCanceledOnDepot(t *testing.T) {
	e := setup(t)
	before := len(e.Depot.Calls())
	r := e.run(t, invocation{
		dockerfile: fromDebian + "RUN echo started && sleep 300\n",
		onStart: func(_ int, stdout *programs.Buffer) {
			waitFor(t, "the step", func() bool { return strings.Contains(stdout.String(), "started") })
			e.Depot.Cancel(e.createdBuild(t, before))
		},
	})
	assertFailed(t, r,
		`^error: canceled \(Depot canceled build \w+ at .*\) in step .*; no results were written to the outputs`)
	if got := finished(e.Depot.Calls()[before:]); !slices.Equal(got, []string{"canceled"}) {
		t.Errorf("finished %q, want canceled", got)
	}
}

// A machine that is lost is replaced once, unless the platforms of an image are pushed independently.
func TestMachineIsLost(t *testing.T) {
	e := setup(t)
	for _, test := range []struct {
		name   string
		inputs values
		want   []string // results that Depot receives
		err    string
	}{
		{"loaded", values{"load": "true"}, []string{"error", "success"}, ""},
		{
			"pushed", values{"load": "false", "push": e.Registry.Addr + "/team/lost:1"},
			[]string{"error", "success"}, "",
		},
		{
			"two platforms pushed", values{
				"load": "false", "push": e.Registry.Addr + "/team/lost:2", "platform": "linux/amd64,linux/arm64",
			}, []string{"error"}, `^error: lost the connection to the machine for linux/a\w+64 at `,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var lost atomic.Bool
			requested := make(chan struct{}, 10)
			files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !lost.Load() {
					requested <- struct{}{}
					<-r.Context().Done()
				}
				_, _ = fmt.Fprint(w, "content")
			}))
			defer files.Close()
			before := len(e.Depot.Calls())
			r := e.run(t, invocation{
				dockerfile: "FROM scratch\nADD " + files.URL + "/file /file\n",
				inputs:     test.inputs, env: values{"HOME": e.login(t)},
				onStart: func(int, *programs.Buffer) {
					select {
					case <-requested:
					case <-time.After(time.Minute):
						t.Fatal("timed out waiting for the build")
					}
					lost.Store(true)
					if err := e.Depot.LoseMachines(e.createdBuild(t, before)); err != nil {
						t.Error(err)
					}
				},
			})
			switch {
			case test.err != "":
				assertFailed(t, r, test.err)
			case r.exitCode != 0 || !strings.Contains(r.stdout, "building again on a new machine"):
				t.Errorf("exit code %d:\n%s%s", r.exitCode, r.stdout, r.stderr)
			}
			if got := finished(e.Depot.Calls()[before:]); !slices.Equal(got, test.want) {
				t.Errorf("finished %q, want %q", got, test.want)
			}
		})
	}
}

// The snapshot action builds again on a new machine if the machine is lost while it pushes to Daytona.
func TestMachineIsLostDuringPush(t *testing.T) {
	e := setup(t)
	e.Daytona.Fail(cloudaytona.Fault{Registry: cloudaytona.PushStalls, Times: 1})
	builds, requests := len(e.Depot.Calls()), len(e.Daytona.Requests())
	isPush := func(r cloudaytona.Request) bool { return r.Registry && r.Method == http.MethodPost }
	r := e.run(t, invocation{
		program: "action-snapshot", dockerfile: sleepDockerfile + "LABEL lost=during-push\n",
		onStart: func(int, *programs.Buffer) {
			waitFor(t, "the push", func() bool { return slices.ContainsFunc(e.Daytona.Requests()[requests:], isPush) })
			if err := e.Depot.LoseMachines(e.createdBuild(t, builds)); err != nil {
				t.Error(err)
			}
		},
	})
	if r.exitCode != 0 || !strings.Contains(r.stdout, "building again on a new machine") {
		t.Errorf("exit code %d:\n%s%s", r.exitCode, r.stdout, r.stderr)
	}
	if got := finished(e.Depot.Calls()[builds:]); !slices.Equal(got, []string{"error", "success"}) {
		t.Errorf("finished %q", got)
	}
}

// DEPOT_BUILD_ID names a build that another program created, with the token of that build.
func TestAttachToBuild(t *testing.T) {
	e := setup(t)
	var masked []string
	lease, err := builder.Depot{
		Project: localcloud.Project, APIURL: e.Depot.URL(), Mask: func(secret string) { masked = append(masked, secret) },
		Token: func(context.Context) (string, error) { return e.OrganizationToken, nil },
	}.Acquire(t.Context(), builder.Request{})
	if err != nil {
		t.Fatal(err)
	}
	before := len(e.Depot.Calls())
	r := e.mustRun(t, invocation{
		dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"load": "false"},
		env: values{"DEPOT_BUILD_ID": lease.ID, "DEPOT_TOKEN": masked[1], "DEPOT_PROJECT_ID": ""},
	})
	if r.outputs["build_id"] != lease.ID || r.outputs["project_id"] != localcloud.Project {
		t.Errorf("outputs %q", r.outputs)
	}
	if got := finished(e.Depot.Calls()[before:]); !slices.Equal(got, []string{"success"}) {
		t.Errorf("finished %q", got)
	}
}
