//go:build linux

package soak

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Machines disappear at seeded moments of a build. The run must succeed on another machine, or fail with one error and
// finish the build.
func TestLostMachine(t *testing.T) {
	const moments = 50
	planner := newLab(t)
	random := rand.New(rand.NewPCG(3, 4))
	type lostRun struct {
		flow flow
		at   moment
	}
	var cases []lostRun
	for _, f := range []flow{push, load, snapshot} {
		requests, err := planner.requests(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for range moments {
			at := randomMoment(random, requests)
			cases = append(cases, lostRun{f, at})
		}
	}
	inLabs(t, func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 31) && !yield(func(l *lab) { l.tryLost(t, c.flow, c.at) }) {
				return
			}
		}
	})
}

func (l *lab) tryLost(t *testing.T, f flow, at moment) {
	var lost error
	run := l.tryWith(t.Context(), f, at, func(int) {
		for _, build := range l.unfinishedBuilds() {
			lost = l.Depot.LoseMachines(build)
		}
	})
	run.name = fmt.Sprintf("%s: machine lost %s after request %d", f.name, at.after, at.request)
	if lost != nil {
		run.fail("%w", lost)
	}
	l.record(t, f, run, row{lostBuilder, f.name})
}
