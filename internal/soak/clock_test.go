//go:build linux

package soak

import (
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
)

var (
	wrongClock = class{"Wrong clocks", `The times of all services are 10 minutes ahead of the program's clock, or
behind. The run must succeed.`, "flow"}
	rejected = class{"Certificates and tokens outside of their validity", `A wrong clock makes the certificate of a
machine or an OIDC token invalid. The run must acquire another one, or fail with one error that names the clock.`,
		"problem"}
)

// timed matches the requests whose responses contain times, but no content with a digest and no stream.
var timed = map[string]*regexp.Regexp{
	imageRegistry: regexp.MustCompile(`^/token`), docker: regexp.MustCompile(`(/json|/info|/version)$`),
	depot: regexp.MustCompile(``), oidc: regexp.MustCompile(``), ghAPI: regexp.MustCompile(``),
	doppler: regexp.MustCompile(``), daytona: regexp.MustCompile(``),
}

// The services disagree with the program about the time.
func TestWrongClock(t *testing.T) {
	type skewedRun struct {
		flow flow
		skew time.Duration
	}
	var cases []skewedRun
	for _, f := range []flow{push, load, snapshot, testFlow} {
		cases = append(cases, skewedRun{f, 10 * time.Minute}, skewedRun{f, -10 * time.Minute})
	}
	inSomeLabs(t, newLab(t), func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 5) && !yield(func(l *lab) { l.tryWrongClock(t, c.flow, c.skew) }) {
				return
			}
		}
	})
}

func (l *lab) tryWrongClock(t *testing.T, f flow, skew time.Duration) {
	for service, paths := range timed {
		l.proxies[service].Fail(faultproxy.Rule{
			Match: func(r *http.Request) bool { return paths.MatchString(r.URL.Path) }, Fault: faultproxy.Skew(skew),
		})
	}
	run := l.try(t.Context(), f.withLongTimeout(), nil)
	for _, proxy := range l.proxies {
		proxy.Clear()
	}
	run.name = fmt.Sprintf("%s: services %s ahead", f.name, skew)
	if run.ExitCode != 0 {
		run.fail("the run failed: %s", run.message)
	}
	title := f.name + ", services ahead"
	if skew < 0 {
		title = f.name + ", services behind"
	}
	l.record(t, f, run, row{wrongClock, title})
}

// A certificate or a token that the other side considers invalid is replaced, and the clock is named if that fails,
// too.
func TestOutsideOfValidity(t *testing.T) {
	type invalidRun struct {
		flow    flow
		problem string
		times   int // 0: always
		inject  func(*lab)
	}
	var cases []invalidRun
	for _, f := range []flow{push, load, snapshot} {
		for _, machine := range []struct {
			problem string
			fault   depotapi.MachineFault
		}{
			{"certificate of the machine not yet valid", depotapi.ClockAhead},
			{"certificate of the machine expired", depotapi.ClockBehind},
		} {
			for _, times := range []int{1, 0} {
				fault := depotapi.Fault{Method: "GetBuildKitConnection", Machine: machine.fault, Times: times}
				if times == 1 {
					fault.Times = 2 // the first answer says that the machine is pending
				}
				cases = append(cases, invalidRun{f, machine.problem, times, func(l *lab) { l.Depot.Fail(fault) }})
			}
		}
		for _, token := range []struct {
			problem            string
			notBefore, expires time.Duration
		}{
			{"OIDC token expired", -20 * time.Minute, -10 * time.Minute},
			{"OIDC token not yet valid", 10 * time.Minute, 20 * time.Minute},
		} {
			cases = append(cases, invalidRun{f, token.problem, 0, func(l *lab) {
				l.GitHub.SetLifetime(token.notBefore, token.expires)
			}})
		}
	}
	inSomeLabs(t, newLab(t), func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 7) && !yield(func(l *lab) {
				c.inject(l)
				run := l.try(t.Context(), c.flow.withLongTimeout(), nil)
				l.Depot.ClearFaults()
				l.GitHub.SetLifetime(0, 0)
				run.name = fmt.Sprintf("%s: %s, %d times", c.flow.name, c.problem, c.times)
				l.recordExpiry(t, c.flow, run, c.times == 1, `check the clock`, row{rejected, c.problem})
			}) {
				return
			}
		}
	})
}

// recordExpiry is record for a run that must renew what expired, or else fail with an error that matches hint.
func (l *lab) recordExpiry(t *testing.T, f flow, run trial, mustSucceed bool, hint string, r row) {
	t.Helper()
	switch {
	case mustSucceed && run.ExitCode != 0:
		run.fail("the run did not renew it")
	case !mustSucceed && run.ExitCode == 0:
		run.fail("the run succeeded")
	case !mustSucceed && !regexp.MustCompile(hint).MatchString(run.message):
		run.fail("the error does not match %s", hint)
	}
	l.record(t, f, run, r)
}
