package bench

import (
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestSmall runs two of the comparisons and counts requests with a small image.
func TestSmall(t *testing.T) {
	l := newLab(t, false)
	for _, c := range []Case{l.cached(), l.oneFile()} {
		t.Run(c.Goals[0].Name, func(t *testing.T) {
			c.Pairs = 1
			row := c.Run(t)[0]
			if row.Ours <= 0 || row.Peer <= 0 || row.Ratio <= 0 || row.Memory < 1e6 || row.Moved < 1e4 {
				t.Errorf("got %+v, want times, memory and bytes", row)
			}
		})
	}
	t.Run("calls", l.testCalls)
}

// testCalls compares the number of requests of a run with bench/calls.json. With -full, it writes the file.
func (l *lab) testCalls(t *testing.T) {
	var got []Calls
	requests := map[string][]string{}
	snapshot := []string{"action-snapshot", "--image=", "--platform", platform, "--name-prefix", "calls"}
	for _, flow := range []struct {
		name string
		args []string
	}{
		{"build", []string{"action-build", "--no-load"}},
		{"build of a ref", []string{"action-build", "--no-load", "--ref", "main"}},
		{"snapshot", snapshot},
		{"snapshot that exists", snapshot},
	} {
		before := l.requests()
		command := l.command("", filepath.Join(l.programs, flow.args[0]), flow.args[1:]...)
		// As in a workflow: an OIDC token for Depot, and the Daytona key in Doppler.
		command.Env = append(command.Env, "DEPOT_TOKEN=", "DAYTONA_API_KEY=")
		mustRun(t, command)
		calls := Calls{Flow: flow.name}
		for service, count := range map[string]*int{
			"Depot": &calls.Depot, "GitHub": &calls.GitHub, "Daytona": &calls.Daytona, "Doppler": &calls.Doppler,
		} {
			sent := withoutPolls(l.requests()[service][len(before[service]):])
			*count = len(sent)
			requests[flow.name] = append(requests[flow.name], sent...)
		}
		got = append(got, calls)
	}
	if *full {
		if err := Write(callsFile, got); err != nil {
			t.Fatal(err)
		}
		writePage(t)
		return
	}
	var want []Calls
	if err := Read(callsFile, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v; to accept them, run `make bench ARGS='-run Small/calls'`", got, want)
		for flow, sent := range requests {
			t.Logf("%s:\n  %s", flow, strings.Join(sent, "\n  "))
		}
	}
}

// requests returns the requests that each service has received, except health reports of builds, and those to Daytona's
// registry.
func (l *lab) requests() map[string][]string {
	sent := map[string][]string{}
	for _, call := range l.Depot.Calls() {
		if call.Method != "ReportBuildHealth" { // their number depends on the time
			sent["Depot"] = append(sent["Depot"], "Depot "+call.Method)
		}
	}
	for _, r := range l.GitHub.Requests() {
		sent["GitHub"] = append(sent["GitHub"], "GitHub "+r.Method+" "+r.Path)
	}
	for _, r := range l.Daytona.Requests() {
		if !r.Registry {
			sent["Daytona"] = append(sent["Daytona"], "Daytona "+r.Method+" "+r.Path)
		}
	}
	for _, r := range l.Doppler.Requests() {
		sent["Doppler"] = append(sent["Doppler"], "Doppler "+r.Method+" "+r.Path)
	}
	return sent
}

// withoutPolls removes the repeated requests for a machine and for a snapshot, whose number depends on the time.
func withoutPolls(requests []string) (kept []string) {
	for _, request := range requests {
		isPoll := request == "Depot GetBuildKitConnection" ||
			strings.HasPrefix(request, "Daytona "+http.MethodGet+" /api/snapshots/")
		if !isPoll || !slices.Contains(kept, request) {
			kept = append(kept, request)
		}
	}
	return kept
}
