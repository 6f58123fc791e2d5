//go:build linux

package soak

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/faultproxy"
)

// endpoint is a request that a flow sends to a service.
type endpoint struct {
	flow    string
	service string
	method  string
	path    string // with * for the variable parts
}

func (e endpoint) compare(other endpoint) int {
	return cmp.Or(
		strings.Compare(e.service, other.service), strings.Compare(e.path, other.path),
		strings.Compare(e.method, other.method),
	)
}

var variable = regexp.MustCompile(
	`sha256:[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{12,}\b|` +
		`\brun-[0-9]+-[0-9]+\b|\b[a-z0-9]{10}\b|\b[A-Z2-7]{26}\b`,
)

func pattern(path string) string { return variable.ReplaceAllString(path, "*") }

// requests returns the requests of a flow without faults, over all services.
func (l *lab) requests(ctx context.Context, f flow) (all []endpoint, err error) {
	before := map[string]int{}
	for service, proxy := range l.proxies {
		before[service] = len(proxy.Requests())
	}
	t := l.try(ctx, f, nil)
	if t.ExitCode != 0 {
		return nil, fmt.Errorf("%s without faults: %s\n%s", f.name, t.Stdout, t.Stderr)
	}
	if err := l.check(ctx, f, t); err != nil {
		return nil, err
	}
	for service, proxy := range l.proxies {
		for _, request := range proxy.Requests()[before[service]:] {
			all = append(all, endpoint{f.name, service, request.Method, pattern(request.Path)})
		}
	}
	return all, nil
}

// names are the words by which a message may refer to a service. A run that times out names what it waits for, such as
// the step that pushes.
var names = map[string]string{
	depot: `(?i)Depot`, oidc: `OIDC|ID token|Depot|Doppler`, ghAPI: `GitHub|acme/app`, ghGit: `GitHub|git|acme/app`,
	doppler: `Doppler`, daytona: `Daytona`, imageRegistry: `registry|127\.0\.0\.1|exporting|push`,
	docker: `Docker Engine|engine|container|the suite|the image|tests failed`,
}

// faultCase is one fault at one endpoint.
type faultCase struct {
	endpoint
	run   flow
	fault faultproxy.Fault
	times int // 0: always
}

func faultCases(f flow, endpoints []endpoint) (cases []faultCase) {
	faults := append(faultproxy.All(), faultproxy.Silence(), faultproxy.Slow(time.Second))
	// A success that the engine does not give is believed: unlike a registry, it is on the same machine.
	falseSuccesses := []string{faultproxy.Empty(200).Name, faultproxy.WebPage(200).Name, faultproxy.Huge(0, nil).Name}
	for _, e := range endpoints {
		for _, fault := range faults {
			if e.service == docker && e.method == http.MethodPost && slices.Contains(falseSuccesses, fault.Name) {
				continue
			}
			cases = append(cases, faultCase{e, f, fault, 1}, faultCase{e, f, fault, 0})
		}
	}
	return cases
}

// Each endpoint of each flow has each fault, once and always.
func TestFaults(t *testing.T) {
	planner := newLab(t)
	var cases []faultCase
	for _, f := range []flow{push, load, snapshot, testFlow} {
		requests, err := planner.requests(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(requests, endpoint.compare)
		cases = append(cases, faultCases(f, slices.Compact(requests))...)
	}
	inLabs(t, func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 97) && !yield(func(l *lab) { l.tryFault(t, c) }) {
				return
			}
		}
	})
}

func (l *lab) tryFault(t *testing.T, c faultCase) {
	matches := func(r *http.Request) bool { return pattern(r.URL.Path) == c.path }
	l.proxies[c.service].Fail(faultproxy.Rule{Method: c.method, Match: matches, Times: c.times, Fault: c.fault})
	run := l.try(t.Context(), c.run, nil)
	l.proxies[c.service].Clear()
	if run.message != "" && !regexp.MustCompile(names[c.service]).MatchString(run.message) {
		run.fail("the error does not name %s", c.service)
	}
	how := "always"
	if c.times == 1 {
		how = "once"
	}
	run.name = fmt.Sprintf("%s: %s %s %s, %s %s", c.flow, c.service, c.method, c.path, c.fault.Name, how)
	l.record(t, c.run, run, row{byService, c.service}, row{byFault, c.fault.Name + ", " + how})
}
