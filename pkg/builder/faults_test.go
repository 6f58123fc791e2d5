package builder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// shortWaits is a clock that does not wait for a second or more.
type shortWaits struct{ httpclient.SystemClock }

func (c shortWaits) Sleep(ctx context.Context, d time.Duration) error {
	return c.SystemClock.Sleep(ctx, d%time.Second)
}

// incomplete are faults that leave open whether the call had an effect.
var incomplete = []string{"reset", "reset after headers", "cut in the body", "truncated body"}

// Every call to Depot survives a fault that may pass, and otherwise ends with an error that names the service and what
// to do. Every build whose ID arrived is finished.
func TestFaultsOfEveryCall(t *testing.T) {
	// After these a retry does not help, or is not safe for CreateBuild.
	final := []string{
		"empty response with status 200", "web page with status 200", "401", "403", "404", "409", "huge body",
	}
	s := startDepotWithMachines(t)
	for _, method := range []string{"CreateBuild", "GetBuildKitConnection", "ReportBuildHealth", "FinishBuild"} {
		for _, fault := range faultproxy.All() {
			if fault.Name == "wrong types" || fault.Name == "unknown state" { // they edit JSON
				continue
			}
			for _, times := range []int{1, 0} {
				t.Run(fmt.Sprintf("%s %s %d", method, fault.Name, times), func(t *testing.T) {
					proxy, err := faultproxy.Start(t.Context(), s.URL())
					if err != nil {
						t.Fatal(err)
					}
					defer proxy.Close()
					proxy.Fail(faultproxy.Rule{Path: "/" + method, Times: times, Fault: fault})
					before := len(s.Calls())
					j := &journal{}
					d := depot(s, j, "project-token")
					d.APIURL = proxy.URL
					d.Policy.Clock, d.Policy.HealthPeriod = shortWaits{}, 5*time.Millisecond
					mustReturn(t, "the build", func() { err = acquireAndRelease(t.Context(), d) })

					isCreate := method == "CreateBuild"
					survives := times == 1 && !slices.Contains(final, fault.Name) &&
						!(isCreate && slices.Contains(incomplete, fault.Name)) ||
						method == "ReportBuildHealth" || method == "FinishBuild"
					if (err == nil) != survives {
						t.Errorf("got %v, want success: %t", err, survives)
					}
					if err != nil {
						checkFault(t, err, fault, proxy.URL)
					}
					for _, id := range unfinished(s.Calls()[before:]) {
						reported := method != "FinishBuild" || times == 1 && !slices.Contains(final, fault.Name)
						if j.knows(id) && reported {
							t.Errorf("build %s was not finished", id)
						}
					}
				})
			}
		}
	}
}

func acquireAndRelease(ctx context.Context, d Depot) (err error) {
	lease, err := d.Acquire(ctx, Request{})
	if err != nil {
		return err
	}
	defer func() { lease.Release(err) }()
	d.Logf("build %s", lease.ID)
	_, err = lease.Machine(ctx, "linux/amd64")
	return err
}

// checkFault checks that an error names Depot, a status if there was one, and what to do.
func checkFault(t *testing.T, err error, fault faultproxy.Fault, url string) {
	t.Helper()
	failed, ok := errors.AsType[*httpclient.APIError](err)
	if !ok || failed.Service != "Depot" || failed.Hint == "" {
		t.Errorf("got %v, want an error of Depot with a hint", err)
		return
	}
	var status int
	_, _ = fmt.Sscan(fault.Name, &status)
	if status != 0 && failed.Status != status {
		t.Errorf("got status %d, want %d", failed.Status, status)
	}
	whole := errors.Is(err, httpclient.ErrFormat) || failed.Status == http.StatusOK || !strings.Contains(err.Error(), url)
	if slices.Contains(incomplete, fault.Name) && whole {
		t.Errorf("a response that did not arrive whole is reported as %v", err)
	}
	checkMessage(t, err)
}

// unfinished returns the IDs of the builds that were created and not finished.
func unfinished(calls []depotapi.Call) (ids []string) {
	for _, c := range calls {
		switch {
		case c.Method == "CreateBuild" && c.BuildID != "":
			ids = append(ids, c.BuildID)
		case c.Method == "FinishBuild":
			ids = slices.DeleteFunc(ids, func(id string) bool { return id == c.BuildID })
		}
	}
	return ids
}

// knows reports whether the client received the ID of a build.
func (j *journal) knows(id string) bool { return slices.Contains(j.log(), "build "+id) }
