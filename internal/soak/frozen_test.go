//go:build linux

package soak

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"
)

var frozenBuilder = class{"Frozen machines", `The connection to the machine stays open, but drops all data from a
moment of the run on. The run must notice it within a minute, and succeed on another machine or fail with one error
that names the builder.`, "flow"}

// Machines freeze at seeded moments of a build.
func TestFrozenMachine(t *testing.T) {
	if !*full {
		t.Skip("each run takes a minute; package builder tests the same with shorter times")
	}
	const moments = 4
	planner := newLab(t)
	random := rand.New(rand.NewPCG(7, 8))
	type frozenRun struct {
		flow flow
		at   moment
	}
	var cases []frozenRun
	for _, f := range []flow{push, load, snapshot} {
		requests, err := planner.requests(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		f.timeout = 3 * time.Minute
		for range moments {
			at := randomMoment(random, requests)
			cases = append(cases, frozenRun{f, at})
		}
	}
	inLabs(t, func(yield func(func(*lab)) bool) {
		for _, c := range cases {
			if !yield(func(l *lab) { l.tryFrozen(t, c.flow, c.at) }) {
				return
			}
		}
	})
}

func (l *lab) tryFrozen(t *testing.T, f flow, at moment) {
	run := l.tryWith(t.Context(), f, at, func(int) {
		for _, build := range l.unfinishedBuilds() {
			l.Depot.FreezeMachines(build)
		}
	})
	run.name = fmt.Sprintf("%s: machine frozen %s after request %d", f.name, at.after, at.request)
	if run.ExitCode != 0 &&
		!regexp.MustCompile(`builder .*stopped answering|does not answer`).MatchString(run.message) {
		run.fail("the error does not name the builder")
	}
	l.record(t, f, run, row{frozenBuilder, f.name})
}
